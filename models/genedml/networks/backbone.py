"""A backbone of timm on raw tiles, trained with the network that stands on it.

Letters: N tiles, T tokens of a tile, D width of the backbone.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genedml.encoders.encoder import backbone_info, build_backbone, load_backbone, tokens_of
from genedml.networks.layers import Standardise

TILE_PX = 224
AT_ONCE = 64
"""Tiles of a prediction that it holds the maps of; in training the gradient needs those of the whole batch."""


class Backbone(nn.Module):
    """A model of timm without its classifier: tiles in [0, 1], standardised as its weights were trained, to tokens.

    Of a convolutional model tokens are the cells of the last map, so that their mean is its pooled vector. Its weights
    are random until :meth:`load` is called; a checkpoint holds them with all others.

    Args:
        name: as :func:`genedml.encoders.encoder.backbone_info` takes it.

    Raises:
        GeneDMLError: timm has no such model.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        info = backbone_info(name)
        self.name = name
        self.standardise = Standardise(info.mean, info.std)
        self.model = build_backbone(info)

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.num_features)  # type: ignore[arg-type]

    def load(self, file: Path) -> None:
        """Put the weights of a file in the place of those there are.

        Raises:
            GeneDMLError: the file is unreadable or of another backbone.
        """
        load_backbone(self.model, file, self.name)

    def forward(self, tiles: Float[Tensor, "N 3 H H"]) -> Float[Tensor, "N T D"]:
        images = self.standardise(tiles)
        parts = [images] if self.training else images.split(AT_ONCE)
        return torch.cat([tokens_of(self.model, part) for part in parts])
