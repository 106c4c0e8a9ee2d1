"""M2OST (Wang et al. 2025): three fields of view of a spot, each a sequence of tokens that attends to the other two.

Letters: B spots in a batch, T tokens of a tile, P tiles of the neighbor grid, D encoder width, W width of a level,
L tokens of a level, the class token among them once it is there, M genes.

Differs from the publication:
- with ``stem = "features"`` the three levels are what is extracted anyway: the tokens of a spot's own tile, the vectors
  of the 3x3 tiles around it, and those of the whole neighbor grid (5x5). As published, with ``stem = "pixels"``, they
  are tiles of 1, 2 and 4 times the field, cut into patches so that each holds the spot's own field at full detail;
- the innermost window of the widest tile is its central quarter: the published one is cut 84 px wide, which gives more
  tokens than there are positions;
- tiles outside the slide are hidden as keys and left out of every mean;
- the published weights include a norm a block that nothing uses; it is left out;
- all three levels are turned alike where they are of pixels; of features only the own tile is turned;
- training starts from the mean label, positions from small numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from genedml.errors import GeneDMLError
from genedml.networks.inputs import Batch, Needs, Stem, Tile
from genedml.networks.layers import Attention, hide, masked_mean
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT, Count, TransformerConfig

LEVELS = 3
TILE_PX = 224
PATCHES_PX = (16, 8, 4)
"""Of patches in the windows of 224, 112 and 56 px: 196 patches in each."""
PATCHES = (TILE_PX // PATCHES_PX[0]) ** 2
AROUND = 3
"""Tiles along one side of what the second level sees of features."""
POSITION_SD = 0.02


@dataclass(frozen=True, config=STRICT)
class M2OSTConfig:
    """Width and depth of M2OST, by default for few sections; the paper's are the preset published."""

    stem: Stem = "features"
    """What the levels are made of: the encoder's vectors or, as published, tiles of three fields of view."""
    width: Count = 96
    """Of one level."""
    transformer: TransformerConfig = TransformerConfig(depth=2, heads=3, mlp_width=64, dropout=0.1)
    """Heads and the width of the shared MLP are those of one level."""


@dataclasses.dataclass(frozen=True)
class Level:
    """One field of view: its tokens, and which of them lie on the slide; None where all do."""

    tokens: Float[Tensor, "B L W"]
    mask: Bool[Tensor, "B L"] | None = None

    @property
    def bias(self) -> Float[Tensor, "B 1 1 L"] | None:
        """Of attention to these tokens."""
        return None if self.mask is None else hide(self.mask, self.tokens.dtype)

    @property
    def mean(self) -> Float[Tensor, "B W"]:
        """Over the tokens on the slide."""
        return self.tokens.mean(dim=1) if self.mask is None else masked_mean(self.tokens, self.mask)

    def but(self, tokens: Float[Tensor, "B L W"]) -> "Level":
        """The same places with other tokens."""
        return Level(tokens, self.mask)


class FeatureStem(nn.Module):
    """A spot's own tokens, the 3x3 tiles around it, and the whole neighbor grid, as three levels.

    Raises:
        GeneDMLError: the neighbor grid is no larger than 3x3.
    """

    around: Tensor

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        side = shape.neighbor_grid
        if side <= AROUND:
            raise GeneDMLError(
                f"M2OST sees 3 x 3 tiles and a wider grid, but views.neighbor_grid = {side}: set it to 5 or more."
            )
        self.lengths = (shape.tokens, AROUND**2, side**2)
        self.project_own = nn.Linear(shape.width, width)
        self.project_tile = nn.Linear(shape.width, width)
        middle = torch.arange(side**2).view(side, side)[side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2]
        self.register_buffer("around", middle.flatten(), persistent=False)

    def forward(self, batch: Batch) -> list[Level]:
        assert batch.tokens is not None and batch.neighbor is not None and batch.neighbor_mask is not None
        tiles, mask = self.project_tile(batch.neighbor), batch.neighbor_mask
        near = Level(tiles[:, self.around], mask[:, self.around])
        return [Level(self.project_own(batch.tokens)), near, Level(tiles, mask)]


class PatchEmbedding(nn.Module):
    """Square patches of an image, each to one token."""

    def __init__(self, patch_px: int, hidden_width: int, width: int) -> None:
        super().__init__()
        self.patch_px = patch_px
        numbers = 3 * patch_px**2
        self.embed = nn.Sequential(
            nn.LayerNorm(numbers),
            nn.Linear(numbers, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, width),
            nn.LayerNorm(width),
        )

    def forward(self, images: Float[Tensor, "B 3 H H"]) -> Float[Tensor, "B L W"]:
        return self.embed(functional.unfold(images, self.patch_px, stride=self.patch_px).transpose(1, 2))


class PixelStem(nn.Module):
    """The published levels: a tile's patches, after those of its central half and quarter, in smaller ones.

    The three embeddings are shared by the levels, whose tiles span 1, 2 and 4 times the field: a patch of the quarter
    of the widest tile shows as much tissue as one of the whole of the narrowest.
    """

    lengths = tuple(PATCHES * windows for windows in range(1, LEVELS + 1))

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (LEVELS * width, LEVELS * width // 2, LEVELS * width // 4)
        self.embeddings = nn.ModuleList(
            PatchEmbedding(patch_px, hidden, width) for patch_px, hidden in zip(PATCHES_PX, widths, strict=True)
        )

    def forward(self, batch: Batch) -> list[Level]:
        return [Level(self._level(tiles, windows)) for windows, tiles in enumerate(batch.tiles, start=1)]

    def _level(self, tiles: Float[Tensor, "B 3 224 224"], windows: int) -> Float[Tensor, "B L W"]:
        sides = [TILE_PX // 2**number for number in range(windows)]
        tokens = [embed(_middle(tiles, side)) for embed, side in zip(self.embeddings, sides, strict=False)]
        return torch.cat(tokens[::-1], dim=1)


class CrossLevelAttention(nn.Module):
    """Each level attends to each other one; what it finds replaces its tokens: there is no residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(LEVELS))
        self.to_out = nn.ModuleList(
            nn.Sequential(nn.Linear((LEVELS - 1) * width, width), nn.Dropout(dropout)) for _ in range(LEVELS)
        )

    def forward(self, levels: Sequence[Level]) -> list[Level]:
        pairs = zip(levels, self.to_qkv, strict=True)
        qkv = [self._split(to_qkv(self.norm(level.tokens))) for level, to_qkv in pairs]
        out = []
        for number, (level, to_out) in enumerate(zip(levels, self.to_out, strict=True)):
            others = [other for other in range(LEVELS) if other != number]
            seen = [
                functional.scaled_dot_product_attention(
                    qkv[number][0], qkv[other][1], qkv[other][2], levels[other].bias
                )
                for other in others
            ]
            out.append(level.but(to_out(torch.cat([part.transpose(1, 2).flatten(2) for part in seen], dim=-1))))
        return out

    def _split(self, qkv: Float[Tensor, "B L W3"]) -> Float[Tensor, "3 B heads L head_width"]:
        return qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)


class ChannelGate(nn.Module):
    """Scales every channel of a level by a number between 1 and 2, made from the means of all levels."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.LayerNorm(LEVELS * width),
            nn.Linear(LEVELS * width, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, LEVELS * width),
        )

    def forward(self, levels: Sequence[Level]) -> list[Level]:
        gates = self.gate(torch.cat([level.mean for level in levels], dim=1)).sigmoid().chunk(LEVELS, dim=1)
        return [level.but(level.tokens * (1 + gate[:, None])) for level, gate in zip(levels, gates, strict=True)]


class LevelBlock(nn.Module):
    """Attention within each level, an MLP they share, attention across them, a gate for their channels."""

    def __init__(self, width: int, config: TransformerConfig) -> None:
        super().__init__()
        heads, hidden, dropout = config.heads, config.mlp_width, config.dropout
        self.within = nn.ModuleList(
            Attention(width, heads, dropout, qkv_bias=False, score_dropout=False) for _ in range(LEVELS)
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.GELU(),
        )
        self.across = CrossLevelAttention(width, heads, dropout)
        self.gate = ChannelGate(width, LEVELS * hidden)

    def forward(self, levels: Sequence[Level]) -> list[Level]:
        out = []
        for level, attend in zip(levels, self.within, strict=True):
            tokens = level.tokens + attend(level.tokens, level.bias)
            out.append(level.but(tokens + self.mlp(tokens)))
        return self.gate(self.across(out))


class M2OST(Network):
    """Three levels, each with a class token, of which the label of every gene is predicted."""

    def __init__(self, config: M2OSTConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        width, transformer = config.width, config.transformer
        self.stem = PixelStem(width) if config.stem == "pixels" else FeatureStem(shape, width)
        self.class_token = nn.Parameter(torch.randn(width) * POSITION_SD)
        self.positions = nn.ParameterList(torch.randn(length + 1, width) * POSITION_SD for length in self.stem.lengths)
        self.blocks = nn.ModuleList(LevelBlock(width, transformer) for _ in range(transformer.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(LEVELS * width, shape.genes)

    @classmethod
    def needs(cls, config: M2OSTConfig) -> Needs:
        """Three fields of view: of features what stands for them, else tiles."""
        if config.stem == "pixels":
            return Needs(tiles=tuple(Tile(TILE_PX, zoom) for zoom in (1.0, 2.0, 4.0)))
        return Needs(tokens=True, neighbors=True)

    @classmethod
    def variant(cls, config: M2OSTConfig) -> str:
        """``features``, where it joins vectors of an encoder that has seen other fields than the published ones."""
        return "" if config.stem == "pixels" else "features"

    @classmethod
    def cautions(cls, config: M2OSTConfig, spots: Sequence[int] = ()) -> list[str]:
        """That it is not the published method where it sees features."""
        if config.stem == "pixels":
            return []
        return [
            "M2OST (features): it joins the encoder's vectors of three fields of view; the published one learns from "
            "three fields of pixels (--preset published)."
        ]

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        """Predicted labels, each of its own spot alone."""
        levels = [self._placed(level, places) for level, places in zip(self.stem(batch), self.positions, strict=True)]
        for block in self.blocks:
            levels = block(levels)
        return self.head(torch.cat([self.norm(level.tokens[:, 0]) for level in levels], dim=1))

    def _placed(self, level: Level, positions: Float[Tensor, "_ W"]) -> Level:
        """A level with the class token first, and the vectors of its places."""
        token = self.class_token.expand(len(level.tokens), 1, -1)
        tokens = torch.cat([token, level.tokens], dim=1) + positions
        mask = level.mask
        return Level(tokens, None if mask is None else torch.cat([mask.new_ones(len(mask), 1), mask], dim=1))


def _middle(tiles: Float[Tensor, "B 3 224 224"], side: int) -> Float[Tensor, "B 3 H H"]:
    first = (tiles.shape[-1] - side) // 2
    return tiles[..., first : first + side, first : first + side]
