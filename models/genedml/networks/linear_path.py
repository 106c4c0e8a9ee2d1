"""Ridge regression on a spot's pooled vectors, as a part of a network.

Letters: B spots in a batch, P tiles of the neighbor grid, D encoder width, W = 3 D, M genes.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genedml.networks.inputs import Batch
from genedml.ridge import fit_ridge


class LinearPath(nn.Module):
    """A linear map from pooled vectors to every gene, fitted once and not trained."""

    weight: Tensor
    intercept: Tensor

    def __init__(self, width: int, genes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(3 * width, genes))
        self.register_buffer("intercept", torch.zeros(genes))

    def forward(self, batch: Batch) -> Float[Tensor, "B M"]:
        return pooled_vectors(batch) @ self.weight + self.intercept

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch], averaged: bool) -> Float[Tensor, " M"]:
        """Fit to the labels of all batches, each of a section; the penalty is chosen by leaving out patients.

        Args:
            batches: the labelled spots of a section each, with label and patient.
            averaged: whether the output is going to be averaged over array neighbours, and vectors are so here.

        Returns:
            The mean label.
        """
        sections, patients = [], []
        for batch in batches:
            assert batch.label is not None and batch.patient is not None
            vectors = pooled_vectors(batch)
            vectors = batch.mean_over_neighbors(vectors) if averaged else vectors
            sections.append((vectors.cpu().numpy(), batch.label.cpu().numpy()))
            patients.append(str(int(batch.patient[0])))
        ridge = fit_ridge(sections, patients)
        self.weight.copy_(torch.from_numpy(ridge.weight))
        self.intercept.copy_(torch.from_numpy(ridge.intercept))
        labels = torch.cat([torch.from_numpy(y) for _, y in sections])
        return labels.mean(dim=0).to(self.weight.device)


def pooled_vectors(batch: Batch) -> Float[Tensor, "B W"]:
    """Of every spot: its own tile's vector, the mean over its neighbor grid, the mean over the grid's outer ring."""
    neighbor, mask = batch.neighbor, batch.neighbor_mask
    assert neighbor is not None and mask is not None
    side = round(neighbor.shape[1] ** 0.5)
    edge = torch.arange(side, device=mask.device) % max(1, side - 1) == 0
    ring = (edge[:, None] | edge).flatten()
    return torch.cat([batch.pooled, _mean(neighbor, mask), _mean(neighbor, mask & ring)], dim=1)


def _mean(tiles: Float[Tensor, "B P D"], mask: Tensor) -> Float[Tensor, "B D"]:
    """Mean over the tiles where ``mask`` is True; 0 where it is nowhere."""
    weight = mask.to(tiles.dtype)[..., None]
    return (tiles * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
