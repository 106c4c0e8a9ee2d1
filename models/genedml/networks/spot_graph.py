"""Which spots of a section are joined by edges. Letters: S spots, O offsets, C occupied cells, K edges of a spot."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from genedml.networks.layers import neighbor_cells


def nearby_spots(grid_xy: Int[Tensor, "S 2"], radius: float, nearest: int, hexagonal: bool) -> Int[Tensor, "S K"]:
    """Rows of the spots that each spot has edges to, by distance; S where it has fewer than others.

    Depends on places alone, not on the order of spots: of equally near spots those of the upper row come first, in a
    row the left ones. Spots that share a cell are taken together, so that they can be more than ``nearest``.

    Args:
        grid_xy: steps on the array, on a hexagonal one along a row and at 60 degrees to it.
        radius: in steps; farther spots have no edge.
        nearest: how many of them at most; 0 for all.
        hexagonal: how the array is packed.
    """
    spots = len(grid_xy)
    cells_xy, cell_of_spot, spots_in_cell = grid_xy.unique(dim=0, return_inverse=True, return_counts=True)
    cells = neighbor_cells(cells_xy, offsets_within(radius, hexagonal).to(grid_xy.device))
    taken = torch.cat([spots_in_cell, spots_in_cell.new_zeros(1)])[cells]
    others = taken.clone()
    others[:, 0] -= 1  # the first offset is none: a spot's own cell, with the spot itself
    nearer = others.cumsum(dim=1) - others
    taken = taken * (nearer < nearest) if nearest else taken
    spots_by_cell = cell_of_spot.argsort(stable=True)
    first = torch.cat([spots_in_cell.cumsum(0) - spots_in_cell, spots_in_cell.new_zeros(1)])
    number = torch.arange(int(spots_in_cell.max()), device=grid_xy.device)
    rows = spots_by_cell[(first[cells][..., None] + number).clamp(max=spots - 1)]
    rows = torch.where(number < taken[..., None], rows, spots).flatten(1)[cell_of_spot]
    rows = rows.masked_fill(rows == torch.arange(spots, device=rows.device)[:, None], spots)
    missing = rows == spots
    rows = rows.gather(1, missing.to(torch.uint8).argsort(dim=1, stable=True))
    return rows[:, : int((~missing).sum(dim=1).max())]


def offsets_within(radius: float, hexagonal: bool) -> Int[Tensor, "O 2"]:
    """Steps from a spot to the places within a radius, itself first, then by distance, row and column."""
    reach = math.ceil(radius * 2 / 3**0.5)
    x, y = torch.meshgrid(torch.arange(-reach, reach + 1), torch.arange(-reach, reach + 1), indexing="xy")
    squared = x**2 + y**2 + (x * y if hexagonal else 0)
    offsets = torch.stack([x, y], dim=-1).flatten(0, 1)
    near = squared.flatten() <= radius**2 + 1e-6
    return offsets[near][squared.flatten()[near].argsort(stable=True)]
