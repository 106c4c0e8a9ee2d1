"""DeepSpot (Nonchev et al. 2025): sets of frozen vectors, each pooled and mapped for itself, and a linear head.

Letters: B spots in a batch, N vectors of a set, T tokens of a tile, P tiles of the neighbor grid, D encoder width,
W width of a set, M genes.

Differs from the publication:
- the parts of a spot's tile are the encoder's tokens of it, not smaller tiles that are encoded each for itself; their
  mean stands for the sum, since some encoders have 200;
- the neighbours of a spot are the tiles of the neighbor grid around it that lie on the slide, its own among them, not
  the array's next spots;
- labels are ours, not standardised; training starts from their mean;
- the loss is the squared error alone, of which the authors have others besides.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from genedml.networks.inputs import Batch, Needs
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT, Count, Fraction


@dataclass(frozen=True, config=STRICT)
class DeepSpotConfig:
    """Sizes of the maps."""

    width: Count = 512
    """Of each set."""
    maps: Count = 10
    """Linear maps whose results are averaged, for each set and for the head."""
    dropout: Fraction = 0.3


class AveragedLinear(nn.Module):
    """The mean of several linear layers' outputs, each after ReLU if ``relu``."""

    def __init__(self, width: int, width_out: int, maps: int, relu: bool) -> None:
        super().__init__()
        self.maps, self.relu = maps, relu
        self.linear = nn.Linear(width, maps * width_out)

    def forward(self, x: Float[Tensor, "*n _"]) -> Float[Tensor, "*n _"]:
        each = self.linear(x).unflatten(-1, (self.maps, -1))
        return (each.relu() if self.relu else each).mean(dim=-2)


class DeepSpot(Network):
    """Its own tile, the parts of it and the tiles around it: three sets, whose order and places do not matter."""

    def __init__(self, config: DeepSpotConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.sets = nn.ModuleDict(
            {name: AveragedLinear(shape.width, config.width, config.maps, True) for name in ("spot", "parts", "around")}
        )
        self.drop = nn.Dropout(config.dropout)
        self.head = AveragedLinear(3 * config.width, shape.genes, config.maps, False)

    @classmethod
    def needs(cls, config: DeepSpotConfig) -> Needs:
        """The tokens of its own tile, and the tiles around it."""
        return Needs(tokens=True, neighbors=True)

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        """Predicted labels, each of its own spot alone."""
        assert batch.tokens is not None and batch.neighbor is not None and batch.neighbor_mask is not None
        vectors = [
            self.sets["spot"](batch.pooled),
            self.sets["parts"](batch.tokens).mean(dim=1),
            masked_maximum(self.sets["around"](batch.neighbor), batch.neighbor_mask),
        ]
        return self.head(self.drop(torch.cat(vectors, dim=1)))

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        """The mean label becomes the bias of every map of the head."""
        with torch.no_grad():
            self.head.linear.bias.copy_(mean_label.repeat(self.head.maps))


def masked_maximum(x: Float[Tensor, "B N W"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B W"]:
    """Largest number of each channel over the vectors where ``mask`` is True."""
    return x.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
