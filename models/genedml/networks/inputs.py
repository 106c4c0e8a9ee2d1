"""What a spot shows a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genedml.networks.layers import SpotGrid, spot_grid


@dataclass(frozen=True)
class Section:
    """The global view: the pooled local vector of every spot of one section, and its place on the spot grid."""

    pooled: Float[Tensor, "S D"]
    grid_xy: Int[Tensor, "S 2"]

    @cached_property
    def grid(self) -> SpotGrid:
        """Which spots are neighbours, found once."""
        with torch.inference_mode(False):  # a section first seen in a prediction may be trained on afterwards
            return spot_grid(self.grid_xy)


@dataclass(frozen=True)
class Views:
    """A batch of spots at three scales. Spot b is row ``row[b]`` of ``sections[section[b]]``."""

    local: Float[Tensor, "B T D"]
    neighbor: Float[Tensor, "B P D"]
    neighbor_mask: Bool[Tensor, "B P"]
    sections: Sequence[Section]
    section: Int[Tensor, " B"]
    row: Int[Tensor, " B"]
