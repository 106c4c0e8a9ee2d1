"""BLEEP (Xie et al. 2023): tile and expression in one space, prediction by retrieval.

Letters: B spots in a batch, D width of a tile's vector, M genes, W shared width, N spots of the bank, K retrieved.

Differs from the publication:
- with ``stem = "features"`` the image head stands on the pooled vector of a frozen encoder. As published, with
  ``stem = "pixels"``, it stands on that of a ResNet-50 that is trained, from tiles in RGB, standardised, which are
  upright at prediction;
- embeddings are scaled to unit length in the loss and the temperature is 0.07 by default. ``normalise = false`` and
  ``temperature = 1`` are as published: logits of hundreds, which many users saw collapse;
- references are the labelled spots of the fold's training patients, without Harmony over the test section;
- labels are ours.

With ``targets = "hard"`` and an ``attention_depth`` it is mclSTExp (Min et al. 2024), on whose expression side the
spots of a batch attend to each other: a spot's reference then depends on the spots it is made with, here the labelled
ones of its section. Published, places are looked up in tables of 65,536 rows; here they are sines, and off by default,
and labels are mapped to the shared width before they attend.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from genedml.errors import GeneDMLError
from genedml.networks.backbone import TILE_PX, Backbone
from genedml.networks.bank import Bank
from genedml.networks.contrastive import hard_target_loss, soft_target_loss
from genedml.networks.inputs import Batch, Needs, Places, Stem, Tile
from genedml.networks.layers import Block, masked_mean
from genedml.networks.network import Network, Shape
from genedml.networks.positions import SinePositions
from genedml.schema import STRICT, Count, Fraction, Positive, TransformerConfig


@dataclass(frozen=True, config=STRICT)
class BLEEPConfig:
    """What a tile's vector is made of, sizes of the heads, the loss, how many references a prediction takes."""

    shared_width: Count = 256
    dropout: Fraction = 0.1
    normalise: bool = True
    """Scale embeddings to unit length in the loss."""
    temperature: Positive = 0.07
    targets: Literal["soft", "hard"] = "soft"
    """``soft``: how alike spots are within both views; ``hard``: each spot is like itself alone, as in CLIP."""
    references: Count = 50
    """K."""
    stem: Stem = "features"
    """What a tile's vector is made of: the encoder's features or, as published, a backbone on the tile's pixels."""
    backbone: str = "resnet50.tv_in1k"
    """Of pixels: a model of timm, with the tag of its weights."""
    pretrained: bool = True
    """Whether the backbone starts from these weights, or from random ones."""
    attention_depth: Annotated[int, Field(ge=0, le=100)] = 0
    """Blocks of attention between the spots of a batch on the expression side; 0, as in BLEEP, or 2, as in mclSTExp."""
    attention_heads: Count = 8
    position: Literal["none", "sine"] = "none"
    """Whether these blocks know where in its section a spot lies."""


class ExpressionAttention(nn.Module):
    """Labels of the spots of a batch, after each has seen those of the others (mclSTExp)."""

    def __init__(self, genes: int, config: BLEEPConfig) -> None:
        super().__init__()
        width = config.shared_width
        transformer = TransformerConfig(config.attention_depth, config.attention_heads, 2 * width, config.dropout)
        self.embed = nn.Linear(genes, width)
        self.position = SinePositions(width) if config.position == "sine" else None
        self.blocks = nn.ModuleList(Block(width, transformer) for _ in range(config.attention_depth))

    def forward(self, label: Float[Tensor, "B M"], batch: Batch) -> Float[Tensor, "B W"]:
        tokens = self.embed(label)
        if self.position is not None:
            tokens = tokens + batch.of_spots([self.position(section.grid_xy) for section in batch.sections])
        tokens = tokens[None]
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[0]


class ProjectionHead(nn.Module):
    """A vector of either view to the shared space: p = Linear(x), then LayerNorm(p + Dropout(Linear(GELU(p))))."""

    def __init__(self, width: int, config: BLEEPConfig) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.shared_width)
        self.refine = nn.Sequential(
            nn.GELU(), nn.Linear(config.shared_width, config.shared_width), nn.Dropout(config.dropout)
        )
        self.norm = nn.LayerNorm(config.shared_width)

    def forward(self, x: Float[Tensor, "B _"]) -> Float[Tensor, "B W"]:
        projected = self.project(x)
        return self.norm(projected + self.refine(projected))


def similarity_loss(
    image: Float[Tensor, "B W"], gene: Float[Tensor, "B W"], temperature: float, targets: str = "soft"
) -> Float[Tensor, ""]:
    """The contrastive loss of embeddings as they are; with ``soft`` targets gradients run through the targets too."""
    logits = gene @ image.T / temperature
    if targets == "hard":
        return hard_target_loss(logits)
    return soft_target_loss(logits, ((image @ image.T + gene @ gene.T) / (2 * temperature)).softmax(dim=1))


class BLEEP(Network):
    """Trained to match tiles with expressions; predicts the mean label of the K references most like the tile."""

    def __init__(self, config: BLEEPConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.backbone = Backbone(config.backbone) if config.stem == "pixels" else None
        self.image_head = ProjectionHead(shape.width if self.backbone is None else self.backbone.width, config)
        self.expression = ExpressionAttention(shape.genes, config) if config.attention_depth else None
        self.gene_head = ProjectionHead(config.shared_width if self.expression else shape.genes, config)
        self.bank = Bank(shape.bank, config.shared_width, shape.genes)

    @classmethod
    def check(cls, config: BLEEPConfig, trained: Sequence[Places], predicted: Sequence[Places]) -> None:
        """Refuse settings of blocks that it does not have."""
        unread = config.position != BLEEPConfig.position or config.attention_heads != BLEEPConfig.attention_heads
        if unread and not config.attention_depth:
            raise GeneDMLError(
                "attention_heads and position are of the blocks of mclSTExp, and attention_depth = 0 has none: take "
                "--preset mclstexp, or leave them out."
            )

    @classmethod
    def needs(cls, config: BLEEPConfig) -> Needs:
        """A bank of references, and the pixels of its own tile where they are not features."""
        if config.stem == "features":
            return Needs(bank=True, bank_moves=True)
        backbone = config.backbone if config.pretrained else ""
        return Needs(tiles=(Tile(TILE_PX),), bank=True, bank_moves=True, backbone=backbone)

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        """Mean label of the K references whose expression embedding has the greatest cosine with the tile's.

        A batch that knows its patients is not given references of the same.
        """
        query = functional.normalize(self.embed_tiles(batch), dim=1)
        row, there = self.bank.nearest(query, self.config.references, batch.patient)
        return masked_mean(self.bank.label[row], there)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """The contrastive loss, ln B at chance where targets are hard; under autocast, of the labels' precision."""
        label = batch.label
        assert label is not None
        image, gene = self.embed_tiles(batch), self.embed_labels(batch)
        with torch.autocast(label.device.type, enabled=False):  # similarities need more bits
            image, gene = image.to(label.dtype), gene.to(label.dtype)
            if self.config.normalise:
                image, gene = functional.normalize(image, dim=1), functional.normalize(gene, dim=1)
            loss = similarity_loss(image, gene, self.config.temperature, self.config.targets)
        return {"contrastive": loss, "total": loss}

    def embed_tiles(self, batch: Batch) -> Float[Tensor, "B W"]:
        """Each spot's own tile in the shared space."""
        vector = batch.pooled if self.backbone is None else self.backbone(batch.tiles[0]).mean(dim=1)
        return self.image_head(vector)

    def embed_labels(self, batch: Batch) -> Float[Tensor, "B W"]:
        """Each spot's expression in the shared space."""
        assert batch.label is not None
        return self.gene_head(batch.label if self.expression is None else self.expression(batch.label, batch))

    def remember(self, batches: Iterable[Batch]) -> Int[Tensor, " N"]:
        """Keep the expression embedding, of unit length, and the label of every training spot."""
        return self.bank.fill(batches, self._key)

    def _key(self, batch: Batch) -> Float[Tensor, "B W"]:
        return functional.normalize(self.embed_labels(batch), dim=1)
