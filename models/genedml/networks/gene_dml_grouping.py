"""k-means inside a batch (METHOD section 4, cross-level)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Groups(NamedTuple):
    """``assignment`` [B] gives the group of every row, ``centroids`` [k d] the mean of every group."""

    assignment: Int[Tensor, " B"]
    centroids: Float[Tensor, "k d"]


def kmeans(x: Float[Tensor, "B d"], k: int, iterations: int, generator: torch.Generator | None = None) -> Groups:
    """Lloyd's algorithm from k distinct rows; an empty group keeps its last centre.

    Assignments carry no gradient; the returned centroids are means of ``x`` and do. ``generator`` lives on the CPU,
    so that the starting rows are the same on every device.

    Raises:
        ValueError: fewer than k rows.
    """
    if len(x) < k:
        raise ValueError(f"k-means with {k} groups needs at least {k} rows, got {len(x)}")
    rows = torch.randperm(len(x), generator=generator)[:k].to(x.device, non_blocking=x.is_cuda)
    centroids = x[rows]
    with torch.no_grad():
        for _ in range(iterations - 1):
            centroids = _means(x, _nearest(x, centroids), centroids)
        assignment = _nearest(x, centroids)
    return Groups(assignment, _means(x, assignment, centroids.detach()))


def _nearest(x: Float[Tensor, "B d"], centroids: Float[Tensor, "k d"]) -> Int[Tensor, " B"]:
    # |x|^2 is the same for every centroid, so it is left out of the squared distance.
    return (centroids.square().sum(dim=1) - 2 * x @ centroids.T).argmin(dim=1)


def _means(x: Float[Tensor, "B d"], assignment: Int[Tensor, " B"], last: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    sums = torch.zeros_like(last).index_add(0, assignment, x)
    ones = torch.ones(len(x), 1, device=x.device)
    sizes = torch.zeros(len(last), 1, device=x.device).index_add(0, assignment, ones)  # bincount would wait for CUDA
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), last)
