"""The likelihood of counts and the distillation of Hist2ST. Letters: B spots, M genes, C copies."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

SMALLEST_MEAN, LARGEST_MEAN = 1e-5, 1e6
SMALLEST_DISPERSION, LARGEST_DISPERSION = 1e-4, 1e4
"""The published bounds. A mean's logit is bounded, not its exponential, whose gradient would be infinite."""


def count_loss(
    counts: Float[Tensor, "B M"],
    size_factor: Float[Tensor, " B"],
    mean: Float[Tensor, "B M"],
    dispersion: Float[Tensor, "B M"],
    dropout: Float[Tensor, "B M"],
) -> Float[Tensor, ""]:
    """Minus the log likelihood of counts under a zero-inflated negative binomial, mean over genes and spots.

    Args:
        counts: raw.
        size_factor: see :func:`size_factors`; spots of 0 are left out.
        mean: log of the mean count at size factor 1.
        dispersion: what softplus makes the dispersion of: the variance is mean + mean^2 / dispersion.
        dropout: logit of the probability that a count is 0 whatever its mean.
    """
    used = size_factor > 0
    log_mean = mean.clamp(math.log(SMALLEST_MEAN), math.log(LARGEST_MEAN))
    log_mean = log_mean + size_factor.where(used, torch.ones_like(size_factor)).log()[:, None]
    theta = functional.softplus(dispersion).clamp(SMALLEST_DISPERSION, LARGEST_DISPERSION)
    log_total = torch.logaddexp(log_mean, theta.log())
    log_share = theta.log() - log_total  # of dispersion in dispersion + mean
    zero = torch.logaddexp(functional.logsigmoid(dropout), functional.logsigmoid(-dropout) + theta * log_share)
    ways = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
    more = functional.logsigmoid(-dropout) + ways + theta * log_share + counts * (log_mean - log_total)
    likelihood = torch.where(counts > 0, more, zero).mean(dim=1)
    return -(likelihood * used).sum() / used.sum().clamp(min=1)


def size_factors(counts: Float[Tensor, "B M"], section: Int[Tensor, " B"], sections: int) -> Float[Tensor, " B"]:
    """Counts of a spot over the median of its section's spots that have any; 0 of one without."""
    total = counts.sum(dim=1)
    missing = torch.full_like(total, torch.nan)
    medians = [total.where((section == number) & (total > 0), missing).nanquantile(0.5) for number in range(sections)]
    return (total / torch.stack(medians)[section]).nan_to_num(nan=0.0)


def distillation_loss(
    predicted: Float[Tensor, "B M"], copies: Float[Tensor, "C B M"], logits: Float[Tensor, "C B"]
) -> Float[Tensor, ""]:
    """Squared error between a prediction and that from copies, mean over spots and genes; gradients go into both.

    Args:
        predicted: from the tiles as they stand.
        copies: from turned tiles.
        logits: by which copies are weighted, in a softmax over them.
    """
    taught = (logits.softmax(dim=0)[..., None] * copies).sum(dim=0)
    return functional.mse_loss(predicted, taught)
