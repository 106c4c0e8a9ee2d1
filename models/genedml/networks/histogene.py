"""HisToGene (Pang et al. 2021): a vision transformer whose tokens are the spots of one section.

Letters: S spots in a section, D encoder width, W width.

Differs from the publication where that is at fault or needs pixels:
- a linear layer from the encoder's vectors stands in place of the one from 112 px of raw pixels, which is kept as
  ``stem = "pixels"``, from tiles that are standardised;
- places are counted from the section's first column and row, and a place without a learned vector is an error;
- training starts from the mean label.
Every prediction depends on which spots of the section are given, and on their number.
"""

from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from genedml.networks.inputs import Needs, Section, Stem, Tile
from genedml.networks.layers import Standardise
from genedml.networks.network import Shape
from genedml.networks.positions import Position
from genedml.networks.sectionwise import SectionNetwork
from genedml.schema import STRICT, Count, TransformerConfig

TILE_PX = 112


@dataclass(frozen=True, config=STRICT)
class HisToGeneConfig:
    """Widths, depth and positions of HisToGene, by default for few sections; the paper's are the preset published."""

    stem: Stem = "features"
    """What a spot's token is made of: the encoder's vector of its tile or, as published, the tile's pixels."""
    width: Count = 256
    transformer: TransformerConfig = TransformerConfig(depth=4, heads=8, mlp_width=512, dropout=0.1)
    position: Position = "sine"
    """``table``, as published, learns a vector for each column and row; ``sine`` holds for sections of any size."""
    positions: Count = 64
    """Columns, and rows, of ``table``."""


class PixelStem(nn.Sequential):
    """The published first layer: all pixels of a spot's tile [S 3 112 112], in [0, 1], to one token [S W]."""

    def __init__(self, width: int) -> None:
        super().__init__(Standardise(), nn.Flatten(), nn.Linear(3 * TILE_PX * TILE_PX, width))


class HisToGene(SectionNetwork):
    """Self-attention over all spots of a section."""

    def __init__(self, config: HisToGeneConfig, shape: Shape) -> None:
        super().__init__(config, shape, PixelStem(config.width) if config.stem == "pixels" else None)
        self.dropout = nn.Dropout(config.transformer.dropout)

    @classmethod
    def needs(cls, config: HisToGeneConfig) -> Needs:
        """Whole sections: one a step, as published."""
        return Needs(whole_sections=True, tiles=(Tile(TILE_PX),) if config.stem == "pixels" else ())

    def embed(self, spots: Float[Tensor, "S W"], section: Section) -> Float[Tensor, "S W"]:
        """Vectors of the spots of one section, of what the stem made of them with the vectors of their places."""
        tokens = self.dropout(spots)[None]
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[0]
