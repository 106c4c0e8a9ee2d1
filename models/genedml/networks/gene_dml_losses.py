"""The losses of Gene-DML, eq. 3-7 as METHOD section 4 reads them.

Letters: B spots in a batch, d shared width, k groups, M genes, S sections. ``sim`` is cosine similarity.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from genedml.networks.contrastive import hard_target_loss, soft_target_loss
from genedml.networks.gene_dml_grouping import Groups


def sim(a: Float[Tensor, "A d"], b: Float[Tensor, "B d"]) -> Float[Tensor, "A B"]:
    """Cosine similarity of every row of ``a`` with every row of ``b``."""
    return functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T


def instance_loss(
    image: Float[Tensor, "B d"], gene: Float[Tensor, "B d"], temperature: float, detach_targets: bool = False
) -> Float[Tensor, ""]:
    """Instance-level alignment of one scale, eq. 3-4.

    The target of spot i is the softmax over j of how alike i and j are within both modalities. Eq. 4 leaves out the
    temperature of the logits and the 1/2; both are here.
    """
    target = ((sim(image, image) + sim(gene, gene)) / (2 * temperature)).softmax(dim=1)
    if detach_targets:
        target = target.detach()
    logits = sim(gene, image) / temperature
    return soft_target_loss(logits, target)


def cross_level_loss(
    image: Float[Tensor, "B d"],
    gene: Float[Tensor, "B d"],
    image_groups: Groups,
    gene_groups: Groups,
    temperature: float,
) -> Float[Tensor, ""]:
    """Instance-group alignment, eq. 5: each instance is pulled to the group its partner belongs to.

    Read literally, eq. 5 makes the logits their own target; the hard groups of section 3.2.2 are the target here, and
    the sum runs over the k groups.
    """
    to_gene = functional.cross_entropy(sim(image, gene_groups.centroids) / temperature, gene_groups.assignment)
    to_image = functional.cross_entropy(sim(gene, image_groups.centroids) / temperature, image_groups.assignment)
    return (to_gene + to_image) / 2


def contrastive_loss(image: Float[Tensor, "B d"], gene: Float[Tensor, "B d"], temperature: float) -> Float[Tensor, ""]:
    """Plain symmetric InfoNCE, what is left when both pathways are switched off."""
    return hard_target_loss(sim(gene, image) / temperature)


def prediction_loss(predicted: Float[Tensor, "B M"], label: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """Mean squared error over spots and genes (eq. 6 sums over genes, which would drown the other terms)."""
    return functional.mse_loss(predicted, label)


def centred_prediction_loss(
    predicted: Float[Tensor, "B M"],
    label: Float[Tensor, "B M"],
    section: Int[Tensor, " B"],
    sections: int,
    offset_weight: float,
) -> Float[Tensor, ""]:
    """Mean squared error, in which the part that is an error of a section's mean weighs ``offset_weight``.

    With e the error and m the mean of e over the spots of its section: mean((e - m)^2) + offset_weight mean(m^2); at
    weight 1 this is :func:`prediction_loss`. ``section``: of every spot, its number among ``sections``.
    """
    error = predicted - label
    spots = error.new_zeros(sections).index_add(0, section, torch.ones_like(error[:, 0]))
    sums = error.new_zeros(sections, error.shape[1]).index_add(0, section, error)
    mean = (sums / spots.clamp(min=1)[:, None])[section]
    return (error - mean).square().mean() + offset_weight * mean.square().mean()
