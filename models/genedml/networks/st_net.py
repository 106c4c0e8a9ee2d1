"""ST-Net (He et al. 2020): a tile's tokens, average pool and a linear head that starts constant.

Letters: B spots in a batch, T tokens of a tile, D width of the tokens, M genes.

Differs from the publication:
- with ``stem = "features"`` tokens are those of a frozen encoder, and a tile is predicted as it stands. As published,
  with ``stem = "pixels"``, they are the cells of the last map of a DenseNet-121 that is trained, and with
  ``turned_mean`` a prediction is the mean over the eight orientations of its tile;
- tiles are standardised by the colours that the backbone's weights were trained with, not by those of the training
  tiles, and turned and flipped in all eight ways (``training.augment``);
- labels are ours, so the head starts at their mean; tiles at the border are kept, white beyond the slide;
- epochs are chosen on patients held out, not by an inner cross-validation.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from genedml.errors import GeneDMLError
from genedml.networks.backbone import TILE_PX, Backbone
from genedml.networks.inputs import Batch, Needs, Stem, Tile
from genedml.networks.layers import ORIENTATIONS, ConstantHead, turned
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class STNetConfig:
    """What a tile's tokens are made of, and how the loss is taken together."""

    reduction: Literal["mean", "sum"] = "mean"
    """Over the spots of a batch; over genes it is the mean. The published learning rate, 1e-6 at 32 spots, belongs to
    ``sum``: 3.2e-5 with ``mean``."""
    stem: Stem = "features"
    """What the tokens are made of: the encoder's features or, as published, a backbone on the tile's pixels."""
    backbone: str = "densenet121.tv_in1k"
    """Of pixels: a model of timm, with the tag of its weights."""
    pretrained: bool = True
    """Whether the backbone starts from these weights, or from random ones."""
    turned_mean: bool = False
    """Whether a prediction of pixels is the mean over the eight orientations of the tile."""


class STNet(Network):
    """The mean of a tile's tokens to the label of every gene by one linear layer of D M + M parameters.

    Raises:
        GeneDMLError: the mean over orientations is wanted of features, which are kept of upright tiles.
    """

    def __init__(self, config: STNetConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        pixels = config.stem == "pixels"
        if config.turned_mean and not pixels:
            raise GeneDMLError(
                "network.turned_mean is of raw tiles: features to predict from are kept of upright tiles alone. Set "
                'network.stem = "pixels", or network.turned_mean = false.'
            )
        self.backbone = Backbone(config.backbone) if pixels else None
        self.head = ConstantHead(shape.width if self.backbone is None else self.backbone.width, shape.genes)

    @classmethod
    def needs(cls, config: STNetConfig) -> Needs:
        """Its own tile: the tokens, or the pixels."""
        if config.stem == "pixels":
            return Needs(tiles=(Tile(TILE_PX),), backbone=config.backbone if config.pretrained else "")
        return Needs(tokens=True)

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        orientations = range(ORIENTATIONS if self.config.turned_mean else 1)
        return torch.stack([self._predict(batch, orientation) for orientation in orientations]).mean(dim=0)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Squared error of tiles in the one orientation given, mean over genes, then ``reduction`` over spots."""
        assert batch.label is not None
        of_spots = (self._predict(batch) - batch.label).square().mean(dim=1)
        error = of_spots.sum() if self.config.reduction == "sum" else of_spots.mean()
        return {"prediction": error, "total": error}

    def _predict(self, batch: Batch, orientation: int = 0) -> Float[Tensor, "B M"]:
        tokens = batch.tokens if self.backbone is None else self.backbone(turned(batch.tiles[0], orientation))
        assert tokens is not None
        return self.head(tokens.mean(dim=1))
