"""What a spot shows a network.

Letters: B spots in a batch, S spots in a section, T tokens of a tile, P tiles of the neighbor grid, D encoder width,
V orientations, K edges of a spot, M genes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from genedml.networks.layers import SpotGrid, spot_grid
from genedml.networks.spot_graph import nearby_spots

Stem = Literal["features", "pixels"]
"""What a network makes its tokens of, where it can be told: vectors of the frozen encoder, or raw tiles."""


@dataclass(frozen=True)
class Tile:
    """Raw pixels around a spot's centre.

    Args:
        side_px: of the square that the network sees.
        zoom: pixels of the views that one of its pixels spans: 1 is their own um/px, 2 twice as wide a field.
    """

    side_px: int = 224
    zoom: float = 1.0


@dataclass(frozen=True)
class Needs:
    """What a network takes of a batch; what it does not ask for is not gathered.

    Args:
        tokens: tokens of each spot's own tile.
        neighbors: pooled vectors of the tiles around each spot.
        tiles: raw pixels around each spot, in fields of these kinds.
        counts: raw counts of the panel's genes, while it is trained.
        whole_sections: a batch holds all labelled spots of its sections, and all spots of one section at prediction.
        orientations: pooled vectors of each spot's own tile in every orientation kept.
        array_means: its predictions are means over array neighbours: in training a batch holds all labelled spots of
            its sections; at prediction :meth:`genedml.networks.network.Network.finish` sees the whole section.
        bank: it looks things up at prediction, which :meth:`genedml.networks.network.Network.remember` keeps.
        bank_moves: what it keeps there depends on its weights.
        backbone: the model of timm, as ``resnet18.tv_in1k``, whose weights a training starts from; empty for none. See
            :meth:`genedml.networks.network.Network.load_backbone`.
    """

    tokens: bool = False
    neighbors: bool = False
    tiles: tuple[Tile, ...] = ()
    counts: bool = False
    whole_sections: bool = False
    orientations: bool = False
    array_means: bool = False
    bank: bool = False
    bank_moves: bool = False
    backbone: str = ""


@dataclass(frozen=True)
class Places:
    """What is known of a section before its slide is read: its name, which of its spots have a label, and the places of
    all on the spot grid; None where spots may yet be left out.
    """

    name: str
    labelled: Int[Tensor, " B"]
    grid_xy: Int[Tensor, "S 2"] | None


@dataclass(frozen=True)
class Section:
    """All spots of one section: the pooled vector of each spot's own tile, and its place on the spot grid.

    ``hexagonal`` says how the grid is packed, ``is_array`` whether it is one at all: spots that form no array have
    places but no array neighbours. ``turned``: the vectors of the tiles in every orientation kept, the first of them as
    they stand; there where the network needs them. ``near``: rows that each spot's output is averaged with, where these
    are not its array neighbours; S where there are fewer.
    """

    pooled: Float[Tensor, "S D"]
    grid_xy: Int[Tensor, "S 2"]
    hexagonal: bool = False
    turned: Float[Tensor, "V S D"] | None = None
    is_array: bool = True
    near: Int[Tensor, "S K"] | None = None

    @cached_property
    def grid(self) -> SpotGrid:
        """Which spots are neighbours, found once."""
        with torch.inference_mode(False):  # a section first seen in a prediction may be trained on afterwards
            return spot_grid(self.grid_xy)

    def edges(self, radius: float, nearest: int = 0) -> Int[Tensor, "S K"]:
        """Rows of the spots within ``radius`` steps of each spot, at most its ``nearest``; S where it has fewer.

        Found once, as :func:`genedml.networks.spot_graph.nearby_spots` says; 0 is for no limit.
        """
        if (radius, nearest) not in self._edges:
            with torch.inference_mode(False):
                self._edges[radius, nearest] = nearby_spots(self.grid_xy, radius, nearest, self.hexagonal)
        return self._edges[radius, nearest]

    def array_neighbors(self) -> Int[Tensor, "S K"]:
        """Rows of each spot's array neighbours, without itself, as labels are averaged: the 6 around on a hexagonal
        array, the 8 around on a square one, or ``near``; S where there are fewer.
        """
        if self.near is not None:
            return self.near
        if not self.is_array:
            return torch.empty(len(self.grid_xy), 0, dtype=torch.long, device=self.grid_xy.device)
        return self.edges(1.0 if self.hexagonal else 2**0.5)

    @cached_property
    def _edges(self) -> dict[tuple[float, int], Int[Tensor, "S _"]]:
        return {}


@dataclass(frozen=True)
class Batch:
    """Some spots: spot b is row ``row[b]`` of ``sections[section[b]]``.

    ``tokens``, ``neighbor``, ``tiles`` and ``counts`` are there where the network needs them, ``label``, ``counts`` and
    ``patient`` only of spots that it is trained on. ``neighbor_mask`` is False where a tile lies outside the slide;
    ``tiles``, one tensor a kind, are from 0 to 1, white beyond the slide's edges.
    ``patient`` is a number a patient, or a number a section where all are of one patient: what is looked up for a spot
    in training must be of another one.
    """

    sections: Sequence[Section]
    section: Int[Tensor, " B"]
    row: Int[Tensor, " B"]
    tokens: Float[Tensor, "B T D"] | None = None
    neighbor: Float[Tensor, "B P D"] | None = None
    neighbor_mask: Bool[Tensor, "B P"] | None = None
    tiles: tuple[Float[Tensor, "B 3 _ _"], ...] = ()
    label: Float[Tensor, "B M"] | None = None
    counts: Float[Tensor, "B M"] | None = None
    patient: Int[Tensor, " B"] | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def pooled(self) -> Float[Tensor, "B D"]:
        """Pooled vector of each spot's own tile."""
        return self.of_spots([section.pooled for section in self.sections])

    def mean_over_neighbors(self, values: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Each spot's mean over itself and those of its array neighbours that are in the batch."""
        spots, all_spots = len(values), sum(len(section.grid_xy) for section in self.sections)
        rows = self._rows([len(section.grid_xy) for section in self.sections])
        place = torch.full((all_spots + 1,), spots, device=values.device)
        place[rows] = torch.arange(spots, device=values.device)
        near = place[_stacked([section.array_neighbors() for section in self.sections])[rows]]
        padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
        total = values
        for column in near.T:
            total = total + padded[column]
        return total / (1 + (near < spots).sum(dim=1, keepdim=True)).to(values.dtype)

    def of_spots(self, tables: Sequence[Float[Tensor, "_ W"]]) -> Float[Tensor, "B W"]:
        """The rows of the batch's spots, of one table a section."""
        return torch.cat(list(tables))[self._rows([len(table) for table in tables])]

    def _rows(self, lengths: Sequence[int]) -> Int[Tensor, " B"]:
        """Rows of the batch's spots in tables of such lengths, one a section, that stand below each other."""
        first_row = torch.tensor([0, *lengths]).cumsum(0)
        return first_row.to(self.row.device, non_blocking=self.row.is_cuda)[self.section] + self.row


def array_mean(values: Float[Tensor, "S M"], section: Section) -> Float[Tensor, "S M"]:
    """Mean over each spot of a section, in its order, and its array neighbours."""
    row = torch.arange(len(values), device=values.device)
    return Batch([section], torch.zeros_like(row), row).mean_over_neighbors(values)


def _stacked(neighbors: Sequence[Int[Tensor, "_ _"]]) -> Int[Tensor, "N K"]:
    """Tables of neighbours of several sections as one: rows count on, and what is missing is N."""
    lengths = [len(table) for table in neighbors]
    most, every = max(table.shape[1] for table in neighbors), sum(lengths)
    tables, first = [], 0
    for table, spots in zip(neighbors, lengths, strict=True):
        counted_on = torch.where(table < spots, table + first, every)
        tables.append(functional.pad(counted_on, (0, most - table.shape[1]), value=every))
        first += spots
    return torch.cat(tables)
