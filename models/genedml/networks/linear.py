"""A linear map from the pooled vector of a spot's own tile: the floor that costs nothing.

Ridge regression as networks are trained, by steps and with the epoch chosen on held-out patients; the reference called
ridge sees the tiles around a spot besides. It is no published method; what it reaches is due to the encoder alone.

Letters: B spots in a batch, M genes.
"""

from typing import Any

from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from genedml.networks.inputs import Batch
from genedml.networks.layers import ConstantHead
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class LinearConfig:
    """The linear map has no settings."""


class Linear(Network):
    """Pooled vector to the label of every gene by one linear layer; D M + M parameters."""

    def __init__(self, config: LinearConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.head = ConstantHead(shape.width, shape.genes)

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        return self.head(batch.pooled)
