"""HisToGene: a vision transformer whose tokens are the spots of one section.

Letters: S spots in a section, B spots in a batch, D encoder width, W width, M genes.

Differs from the publication (Pang et al. 2021) where that is at fault or needs pixels:
- a linear layer from the encoder's vectors stands in place of the one from 112 px of raw pixels, which is
  :class:`PixelStem`;
- places are counted from the section's first column and row, and a place without a learned vector is an error;
- training starts from the mean label.
Every prediction depends on which spots of the section are given, and on their number.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from genedml.networks.inputs import Batch, Needs, Section
from genedml.networks.layers import Block
from genedml.networks.network import Network, Shape
from genedml.networks.positions import Position, make_positions
from genedml.schema import STRICT, Count, TransformerConfig

TILE_PX = 112


@dataclass(frozen=True, config=STRICT)
class HisToGeneConfig:
    """Widths, depth and positions of HisToGene, by default for few sections; the paper's are the preset published."""

    width: Count = 256
    transformer: TransformerConfig = TransformerConfig(depth=4, heads=8, mlp_width=512, dropout=0.1)
    position: Position = "sine"
    """``table``, as published, learns a vector for each column and row; ``sine`` holds for sections of any size."""
    positions: Count = 64
    """Columns, and rows, of ``table``."""


class PixelStem(nn.Linear):
    """The published first layer: all pixels of a spot's tile, in [0, 1] and standardised, to one token."""

    def __init__(self, width: int) -> None:
        super().__init__(3 * TILE_PX * TILE_PX, width)

    def forward(self, tiles: Float[Tensor, "S 3 112 112"]) -> Float[Tensor, "S W"]:
        return super().forward(tiles.flatten(1))


class HisToGene(Network):
    """Self-attention over all spots of a section.

    Args:
        config: its settings.
        shape: of its tensors.
        stem: maps what is seen of every spot to the width; by default a linear layer from pooled vectors.
    """

    def __init__(self, config: HisToGeneConfig, shape: Shape, stem: nn.Module | None = None) -> None:
        super().__init__(config, shape)
        width, transformer = config.width, config.transformer
        self.stem = nn.Linear(shape.width, width) if stem is None else stem
        self.positions = make_positions(config.position, config.positions, width)
        self.dropout = nn.Dropout(transformer.dropout)
        self.blocks = nn.ModuleList(
            Block(width, transformer, qkv_bias=False, score_dropout=False) for _ in range(transformer.depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, shape.genes)

    @classmethod
    def needs(cls, config: HisToGeneConfig) -> Needs:
        """Whole sections: one a step, as published."""
        return Needs(whole_sections=True)

    def forward(self, batch: Batch, context: Sequence[Float[Tensor, "_ M"]] | None = None) -> Float[Tensor, "B M"]:
        """Predicted labels. ``context``: what :meth:`see_sections` gave for ``batch.sections``."""
        return batch.of_spots(self.see_sections(batch.sections) if context is None else context)

    def see_sections(self, sections: Sequence[Section]) -> list[Float[Tensor, "_ M"]]:
        """Predicted labels of every spot of each section, labelled or not."""
        return [self.predict(section.pooled, section.grid_xy) for section in sections]

    def predict(self, seen: Float[Tensor, "S ..."], grid_xy: Int[Tensor, "S 2"]) -> Float[Tensor, "S M"]:
        """Predicted labels of the spots of one section, of what the stem takes of them."""
        spots = self.dropout(self.stem(seen) + self.positions(grid_xy))[None]
        for block in self.blocks:
            spots = block(spots)
        return self.head(self.norm(spots[0]))

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        """The mean label becomes the bias of the head."""
        with torch.no_grad():
            self.head.bias.copy_(mean_label)
