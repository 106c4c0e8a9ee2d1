"""ST-Net (He et al. 2020) on the tokens of a frozen encoder: average pool and a linear head that starts constant.

Letters: B spots in a batch, T tokens of a tile, D encoder width, M genes.

Differs from the publication:
- the tile's tokens come from a frozen encoder instead of a DenseNet-121 that is trained; their mean stands for the
  average pool over its last map. The tile is turned and flipped in training (``training.augment``), and predicted as it
  stands, not as the mean over its eight orientations;
- labels are ours, so the head starts at their mean; tiles at the border are kept.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from genedml.networks.inputs import Batch, Needs
from genedml.networks.layers import ConstantHead
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class STNetConfig:
    """How the loss is taken together."""

    reduction: Literal["mean", "sum"] = "mean"
    """Over the spots of a batch; over genes it is the mean. The published learning rate, 1e-6 at 32 spots, belongs to
    ``sum``: 3.2e-5 with ``mean``."""


class STNet(Network):
    """The mean of a tile's tokens to the label of every gene by one linear layer; D M + M parameters."""

    def __init__(self, config: STNetConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.head = ConstantHead(shape.width, shape.genes)

    @classmethod
    def needs(cls, config: STNetConfig) -> Needs:
        """The tokens of its own tile."""
        return Needs(tokens=True)

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        assert batch.tokens is not None
        return self.head(batch.tokens.mean(dim=1))

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Squared error, mean over genes, then ``reduction`` over spots."""
        assert batch.label is not None
        of_spots = (self(batch) - batch.label).square().mean(dim=1)
        error = of_spots.sum() if self.config.reduction == "sum" else of_spots.mean()
        return {"prediction": error, "total": error}

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        """Predict the mean label of every tile until the first step."""
        self.head.start_at(mean_label)
