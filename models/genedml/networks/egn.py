"""EGN (Yang et al. 2023): a ViT over a tile's tokens, guided by the nearest training tiles and their labels.

Letters: B spots in a batch, T tokens of a tile, D encoder width, W width, K exemplars, M genes, N spots of the bank,
H heads of an exchange, C channels of each.

Differs from the publication:
- with ``stem = "features"`` tokens are the encoder's, and the grid of an exchange is theirs. As published, with
  ``stem = "pixels"``, they are the 8 x 8 patches of a tile of 256 px, standardised by the colours of ImageNet;
- exemplars are found by the encoder's pooled vector instead of that of a StyleGAN (paper, 512 wide) or a ResNet-50
  (authors' code, 2048 wide);
- exemplars are of other patients than the spot while training, where the publication leaves out its section alone;
- labels are ours; exemplars show them standardised over the training spots. In the loss a gene whose label does not
  vary in a batch counts as uncorrelated;
- the authors' code has a layer in each exchange, from its heads to the width, and a position that nothing uses; they
  are left out, and all else is of the published sizes;
- positions start with the spread ``position_sd`` (published: 1) and are added before every block, once.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from genedml.errors import GeneDMLError
from genedml.networks.bank import Bank
from genedml.networks.inputs import Batch, Needs, Places, Stem, Tile
from genedml.networks.layers import Block, Standardise, masked_mean
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT, Count, Positive, TransformerConfig

EPSILON = 1e-8
TILE_PX, PATCH_PX = 256, 32


@dataclass(frozen=True, config=STRICT)
class EGNConfig:
    """Sizes of the trunk and of the exchanges, of which every second block has one."""

    width: Count = 512
    transformer: TransformerConfig = TransformerConfig(depth=4, heads=8, mlp_width=2048, dropout=0.1)
    position_sd: Positive = 0.02
    exchange_heads: Count = 8
    exchange_channels: Count = 64
    """Of each head."""
    exchange_hidden_width: Count = 256
    exemplars: Count = 9
    """K."""
    correlation_weight: Annotated[float, Field(ge=0)] = 0.5
    stem: Stem = "features"
    """What the tokens are made of: the encoder's features or, as published, the tile's pixels."""


class PatchStem(nn.Module):
    """Each patch of a tile in [0, 1] to a token by one linear layer."""

    tokens = (TILE_PX // PATCH_PX) ** 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardise = Standardise()
        self.embed = nn.Conv2d(3, width, PATCH_PX, stride=PATCH_PX)

    def forward(self, tiles: Float[Tensor, "B 3 256 256"]) -> Float[Tensor, "B 64 W"]:
        return self.embed(self.standardise(tiles)).flatten(2).transpose(1, 2)


class ResidualMLP(nn.Module):
    """Pre-norm, two layers of one width with GELU, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "*n W"]) -> Float[Tensor, "*n W"]:
        return x + self.layers(x)


class Exchange(nn.Module):
    """Tokens of a tile, its view ``query`` and its exemplars inform each other."""

    def __init__(self, config: EGNConfig, tokens: int) -> None:
        super().__init__()
        width, hidden = config.width, config.exchange_hidden_width
        inner = config.exchange_heads * config.exchange_channels
        self.heads = config.exchange_heads
        self.compare = nn.Sequential(nn.Linear(2 * width, hidden), nn.SiLU(), nn.Linear(hidden, 2 * width))
        self.value = nn.Linear(width, width)
        self.exemplar_norm = nn.LayerNorm(width)
        self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.heads * tokens), nn.Sigmoid())
        self.channels = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, inner))
        self.to_tokens = nn.Linear(inner, width, bias=False)
        self.to_query = nn.Linear(inner, width, bias=False)

    def forward(
        self,
        tokens: Float[Tensor, "B T W"],
        query: Float[Tensor, "B W"],
        exemplar: Float[Tensor, "B K W"],
        value: Float[Tensor, "B K W"],
        there: Bool[Tensor, "B K"],
    ) -> tuple[Float[Tensor, "B T W"], Float[Tensor, "B W"], Float[Tensor, "B K W"]]:
        difference = query[:, None] - exemplar
        to_query, to_exemplar = self.compare(torch.cat([difference, exemplar], dim=-1)).sigmoid().chunk(2, dim=-1)
        value = self.value(value)
        query = query + masked_mean(to_query * value, there)
        exemplar = self.exemplar_norm(exemplar + to_exemplar * value)
        gate = self.gate(query).unflatten(1, (tokens.shape[1], self.heads, 1))
        gated = (gate * self.channels(tokens).unflatten(2, (self.heads, -1))).flatten(2)
        return tokens + self.to_tokens(gated), query + self.to_query(gated.mean(dim=1)), exemplar


class GuidedBlock(nn.Module):
    """A transformer block with an exchange between its attention and its MLP."""

    def __init__(self, config: EGNConfig, tokens: int) -> None:
        super().__init__()
        self.block = Block(config.width, config.transformer, qkv_bias=False)
        self.exchange = Exchange(config, tokens)

    def forward(
        self,
        tokens: Float[Tensor, "B T W"],
        query: Float[Tensor, "B W"],
        exemplar: Float[Tensor, "B K W"],
        value: Float[Tensor, "B K W"],
        there: Bool[Tensor, "B K"],
    ) -> tuple[Float[Tensor, "B T W"], Float[Tensor, "B W"], Float[Tensor, "B K W"]]:
        tokens = tokens + self.block.attention(self.block.attention_norm(tokens))
        tokens, query, exemplar = self.exchange(tokens, query, exemplar, value, there)
        return tokens + self.block.mlp(self.block.mlp_norm(tokens)), query, exemplar


class AttentivePool(nn.Module):
    """With s = Linear(token): the mean of s over tokens, plus half its mean weighted by softmax(s / 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B T W"]) -> Float[Tensor, "B W"]:
        score = self.project(tokens)
        return score.mean(dim=1) + 0.5 * ((0.1 * score).softmax(dim=1) * score).sum(dim=1)


def gene_correlation(predicted: Float[Tensor, "B M"], label: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """Mean over genes of the correlation over the spots of a batch; 0 of a gene that does not vary."""
    p, y = predicted - predicted.mean(dim=0), label - label.mean(dim=0)
    scale = (p.square().mean(dim=0) + EPSILON).sqrt() * (y.square().mean(dim=0) + EPSILON).sqrt()
    return ((p * y).mean(dim=0) / scale).mean()


class EGN(Network):
    """A transformer over a tile's tokens that looks at the K training tiles most like it, and at their expression."""

    def __init__(self, config: EGNConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        width = config.width
        pixels = config.stem == "pixels"
        tokens = PatchStem.tokens if pixels else shape.tokens
        self.embed = PatchStem(width) if pixels else nn.Linear(shape.width, width)
        self.position = nn.Parameter(torch.empty(tokens, width))
        nn.init.normal_(self.position, std=config.position_sd)
        self.blocks = nn.ModuleList(
            GuidedBlock(config, tokens) if number % 2 else Block(width, config.transformer, qkv_bias=False)
            for number in range(config.transformer.depth)
        )
        self.view = nn.Linear(shape.width, width)
        self.exemplar_view = nn.Linear(shape.width + shape.genes, width)
        self.refine = nn.Sequential(ResidualMLP(width), ResidualMLP(width))
        self.expression = nn.Linear(shape.genes, width)
        self.pool = AttentivePool(width)
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, shape.genes)
        self.bank = Bank(shape.bank, shape.width, shape.genes)
        self.register_buffer("label_mean", torch.zeros(shape.genes))
        self.register_buffer("label_sd", torch.ones(shape.genes))

    label_mean: Tensor
    label_sd: Tensor

    @classmethod
    def needs(cls, config: EGNConfig) -> Needs:
        """Its own tile, as tokens or pixels, and a bank of exemplars."""
        if config.stem == "pixels":
            return Needs(tiles=(Tile(TILE_PX),), bank=True)
        return Needs(tokens=True, bank=True)

    @classmethod
    def check(cls, config: EGNConfig, trained: Sequence[Places], predicted: Sequence[Places]) -> None:
        """Refuse to learn from one section: exemplars are of other patients or, of a single patient, other sections."""
        if len(trained) == 1:
            raise GeneDMLError(
                f"EGN looks up spots of other patients or sections while it is trained, and {trained[0].name} is the "
                "only section that it would be trained on: give more, or hold out none with --set "
                "training.select_on=test."
            )

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        """Predicted labels. A batch that knows its patients is shown no exemplar of the same."""
        seen = batch.tiles[0] if self.config.stem == "pixels" else batch.tokens
        row, there = self.bank.nearest(batch.pooled, self.config.exemplars, batch.patient)
        label = (self.bank.label[row] - self.label_mean) / self.label_sd
        exemplar = self.refine(self.exemplar_view(torch.cat([self.bank.key[row], label], dim=-1)))
        query, value = self.refine(self.view(batch.pooled)), self.expression(label)
        tokens = self.embed(seen)
        for number, block in enumerate(self.blocks):
            tokens = tokens + self.position
            if number % 2:
                tokens, query, exemplar = block(tokens, query, exemplar, value, there)
            else:
                tokens = block(tokens)
        return self.head(self.norm(torch.cat([self.pool(tokens), query], dim=-1)))

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Mean squared error, and how far the genes' correlation over the batch is from 1."""
        label = batch.label
        assert label is not None
        predicted = self(batch)
        with torch.autocast(label.device.type, enabled=False):  # correlations need more bits
            return egn_losses(predicted.to(label.dtype), label, self.config.correlation_weight)

    def remember(self, batches: Iterable[Batch]) -> Int[Tensor, " N"]:
        """Keep the pooled vector and label of every training spot, and mean and standard deviation of the labels."""
        order = self.bank.fill(batches, lambda batch: batch.pooled)
        self.label_mean.copy_(self.bank.label.mean(dim=0))
        self.label_sd.copy_(self.bank.label.std(dim=0).clamp(min=1e-3))
        return order


def egn_losses(
    predicted: Float[Tensor, "B M"], label: Float[Tensor, "B M"], correlation_weight: float
) -> dict[str, Float[Tensor, ""]]:
    """The named parts of the loss and their total."""
    error, correlation = functional.mse_loss(predicted, label), 1 - gene_correlation(predicted, label)
    return {"prediction": error, "correlation": correlation, "total": error + correlation_weight * correlation}
