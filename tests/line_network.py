"""A network as another lab would add it: one file, one row. Letters: B spots in a batch, M genes."""

import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from genedml.networks.inputs import Batch
from genedml.networks.network import Network, Shape
from genedml.networks.registry import NetworkInfo
from genedml.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class LineConfig:
    """Settings of the line."""

    scale: float = 1.0


class Line(Network):
    """A line from the pooled vector of a spot's own tile to every gene."""

    def __init__(self, config: LineConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.line = nn.Linear(shape.width, shape.genes)

    def forward(self, batch: Batch, context: object = None) -> Float[Tensor, "B M"]:
        return self.line(self.config.scale * batch.pooled)

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        with torch.no_grad():
            self.line.weight.zero_()
            self.line.bias.copy_(mean_label)


INFO = NetworkInfo("line", "Line", "line_network:Line", "line_network:LineConfig")
