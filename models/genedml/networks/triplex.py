"""TRIPLEX (Chung et al. 2024): three views of a spot, a head each, and a fusion that teaches them.

Letters: B spots in a batch, S spots in a section, T tokens of the target tile, P tiles of the neighbor grid, K tokens
attended to, D encoder width, d width, M genes.

Differs from the publication:
- with ``stem = "features"`` the target's tokens are those of a frozen encoder. As published, with ``stem = "pixels"``,
  they are the cells of the last map of a ResNet-18 that is trained. Its weights start from ImageNet's, the published
  ones from histopathology without labels (Ciga et al.); a file of such weights can be named;
- the tiles around and those of the section are seen by the run's frozen encoder, the published ones by that ResNet-18
  as it was before the training. Where tokens are not ``width`` wide, a view begins with a linear map to it;
- tiles outside the slide are hidden from the fusion and left out of the mean over neighbor tokens too; and dropout
  is off at prediction in every part. Neither is so in the authors' code.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from genedml.networks.backbone import TILE_PX, Backbone
from genedml.networks.inputs import Batch, Needs, Section, Stem, Tile
from genedml.networks.layers import Block, GlobalTransformer, RelativePositionBias, hide, masked_mean
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT, Count, TransformerConfig

VIEWS = ("target", "neighbor", "global")


@dataclass(frozen=True, config=STRICT)
class TRIPLEXConfig:
    """Width and transformers; defaults are the publication's for HER2ST."""

    width: Count = 512
    """d."""
    neighbor_transformer: TransformerConfig = TransformerConfig(depth=4, heads=4, mlp_width=2048, dropout=0.3)
    global_transformer: TransformerConfig = TransformerConfig(depth=5, heads=8, mlp_width=2048, dropout=0.3)
    fusion_transformer: TransformerConfig = TransformerConfig(depth=1, heads=4, mlp_width=2048, dropout=0.4)
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of a view's loss that is its distance to the fused prediction; the rest is that to the label."""
    stem: Stem = "features"
    """What the target is made of: the encoder's features or, as published, a backbone on the tile's pixels."""
    backbone: str = "resnet18.tv_in1k"
    """Of pixels: a model of timm, with the tag of its weights."""
    pretrained: bool = True
    """Whether the backbone starts from these weights, or from random ones."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What the three views of each spot become before they are fused."""

    target: Float[Tensor, "B T d"]
    neighbor: Float[Tensor, "B P d"]
    global_: Float[Tensor, "B d"]


def triplex_block(width: int, config: TransformerConfig) -> Block:
    """A block as the publication has it: queries, keys and values without bias, dropout not on scores."""
    return Block(width, config, qkv_bias=False, score_dropout=False)


class NeighborEncoder(nn.Module):
    """Self-attention over the tiles around a spot; each block has scores of its own for distances on the grid."""

    def __init__(self, width: int, grid: int, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(triplex_block(width, config) for _ in range(config.depth))
        self.positions = nn.ModuleList(
            RelativePositionBias(grid, config.heads, signed=False) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tiles: Float[Tensor, "B P d"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B P d"]:
        hidden = hide(mask, tiles.dtype)
        for block, position in zip(self.blocks, self.positions, strict=True):
            tiles = block(tiles, position() + hidden)
        return self.norm(tiles)


class FusionEncoder(nn.Module):
    """The global token attends to the target's tokens and, by the same blocks, to the neighbor's; both are summed."""

    def __init__(self, width: int, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(triplex_block(width, config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: Encoded, mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B d"]:
        query = encoded.global_
        to_neighbor = self.attend(query, encoded.neighbor, hide(mask, query.dtype))
        return self.norm(self.attend(query, encoded.target) + to_neighbor)

    def attend(
        self, query: Float[Tensor, "B d"], source: Float[Tensor, "B K d"], bias: Float[Tensor, "B 1 1 K"] | None = None
    ) -> Float[Tensor, "B d"]:
        """The query after all blocks, which attend to ``source``."""
        token = query[:, None]
        for block in self.blocks:
            token = block(token, bias, source)
        return token[:, 0]


class TRIPLEX(Network):
    """Target tile, tiles around it and whole section: encoded each for itself, fused by attention, one head each."""

    def __init__(self, config: TRIPLEXConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        width = config.width
        self.backbone = Backbone(config.backbone) if config.stem == "pixels" else None
        widths = dict.fromkeys(VIEWS, shape.width)
        if self.backbone is not None:
            widths["target"] = self.backbone.width
        self.projections = nn.ModuleDict({view: _projection(widths[view], width) for view in VIEWS})
        self.neighbor_encoder = NeighborEncoder(width, shape.neighbor_grid, config.neighbor_transformer)
        self.global_encoder = GlobalTransformer(width, config.global_transformer, qkv_bias=False, score_dropout=False)
        self.fusion = FusionEncoder(width, config.fusion_transformer)
        self.fused_head = nn.Linear(width, shape.genes)
        self.heads = nn.ModuleDict({view: nn.Linear(width, shape.genes) for view in VIEWS})

    @classmethod
    def needs(cls, config: TRIPLEXConfig) -> Needs:
        """Its own tile, as tokens or pixels, and the neighbor grid, beside the whole section."""
        if config.stem == "pixels":
            return Needs(tiles=(Tile(TILE_PX),), neighbors=True, backbone=config.backbone if config.pretrained else "")
        return Needs(tokens=True, neighbors=True)

    @classmethod
    def cautions(cls, config: TRIPLEXConfig, spots: Sequence[int] = ()) -> list[str]:
        """That a prediction is of the spots that are given."""
        return ["TRIPLEX sees all spots given of a section for each of them: give all that lie under tissue."]

    def forward(self, batch: Batch, context: Sequence[Float[Tensor, "S d"]] | None = None) -> Float[Tensor, "B M"]:
        """Predicted labels: those of the fused head.

        ``context``: what :meth:`see_sections` gave for ``batch.sections``, where many batches share them.
        """
        assert batch.neighbor_mask is not None
        return self.fused_head(self.fusion(self.encode(batch, context), batch.neighbor_mask))

    def see_sections(self, sections: Sequence[Section]) -> list[Float[Tensor, "S d"]]:
        """The global encoder over each section: one vector for each of its spots."""
        project = self.projections["global"]
        return [self.global_encoder(project(section.pooled), section.grid) for section in sections]

    def encode(self, batch: Batch, context: Sequence[Float[Tensor, "S d"]] | None = None) -> Encoded:
        """The three views of each spot, before they are fused."""
        tokens = batch.tokens if self.backbone is None else self.backbone(batch.tiles[0])
        assert tokens is not None and batch.neighbor is not None and batch.neighbor_mask is not None
        global_ = batch.of_spots(self.see_sections(batch.sections) if context is None else context)
        neighbor = self.neighbor_encoder(self.projections["neighbor"](batch.neighbor), batch.neighbor_mask)
        return Encoded(self.projections["target"](tokens), neighbor, global_)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """The error of the fused head, and what each view is taught; see :func:`triplex_losses`."""
        label, mask = batch.label, batch.neighbor_mask
        assert label is not None and mask is not None
        encoded = self.encode(batch)
        fused = self.fused_head(self.fusion(encoded, mask))
        vectors = (encoded.target.mean(dim=1), masked_mean(encoded.neighbor, mask), encoded.global_)
        of_views = {view: self.heads[view](vector) for view, vector in zip(VIEWS, vectors, strict=True)}
        with torch.autocast(label.device.type, enabled=False):
            of_views = {view: predicted.to(label.dtype) for view, predicted in of_views.items()}
            return triplex_losses(fused.to(label.dtype), of_views, label, self.config.distillation)

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        """Let all four untrained heads predict about the mean label."""
        with torch.no_grad():
            for head in (self.fused_head, *self.heads.values()):
                assert isinstance(head, nn.Linear)
                head.bias.copy_(mean_label)


def triplex_losses(
    fused: Float[Tensor, "B M"], of_views: dict[str, Tensor], label: Float[Tensor, "B M"], distillation: float
) -> dict[str, Float[Tensor, ""]]:
    """The squared error of the fused prediction, for each view that to the label and to the fused one, and the sum.

    Nothing is detached: the fused prediction is drawn to those of the views as well.
    """
    parts = {"prediction": functional.mse_loss(fused, label)}
    for view, predicted in of_views.items():
        to_label, to_fused = functional.mse_loss(predicted, label), functional.mse_loss(predicted, fused)
        parts[view] = (1 - distillation) * to_label + distillation * to_fused
    return parts | {"total": torch.stack(list(parts.values())).sum()}


def _projection(seen_width: int, width: int) -> nn.Module:
    return nn.Identity() if seen_width == width else nn.Linear(seen_width, width)
