"""A multi-layer perceptron on the pooled vector of a spot's own tile: the floor for what attention adds.

Without hidden layers it is the method ``linear``, the floor that costs nothing: ridge regression as networks are
trained, by steps and with the epoch chosen on held-out patients; the reference called ridge sees the tiles around a
spot besides. Neither is a published method. Letters: B spots in a batch, M genes.
"""

from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from genedml.networks.inputs import Batch
from genedml.networks.layers import ConstantHead
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT, Count, Fraction


@dataclass(frozen=True, config=STRICT)
class MLPConfig:
    """Widths of the hidden layers, and the dropout after each."""

    hidden_widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (512, 512)
    dropout: Fraction = 0.3


@dataclass(frozen=True, config=STRICT)
class LinearConfig:
    """The linear map has no settings."""

    hidden_widths: ClassVar[tuple[int, ...]] = ()
    dropout: ClassVar[float] = 0.0


class MLP(Network):
    """Pooled vector through linear layers with GELU and dropout to the label of every gene."""

    def __init__(self, config: MLPConfig | LinearConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        layers: list[nn.Module] = []
        width = shape.width
        for hidden_width in config.hidden_widths:
            layers += [nn.Linear(width, hidden_width), nn.GELU(), nn.Dropout(config.dropout)]
            width = hidden_width
        self.hidden = nn.Sequential(*layers)
        self.head = ConstantHead(width, shape.genes)

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        return self.head(self.hidden(batch.pooled))
