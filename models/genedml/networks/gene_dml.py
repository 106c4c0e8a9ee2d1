"""Gene-DML, the network of the paper, in the order the data flows.

Letters: B spots in a batch, S spots in a section, T tokens of a local tile, P tiles of the neighbor grid (25),
M genes, D encoder width, d shared width (512), k groups.

Differs from the paper where the paper is silent or contradicts itself:
- T and D are the encoder's (the paper's "265 x 1024" mixes UNI2-h's tokens with UNI's width);
- the neighbor and global transformers end with a LayerNorm, as pre-norm stacks need;
- the FFN after fusion is residual, as the blocks before it are (the paper does not say);
- tiles outside the slide are hidden as keys and left out of every mean;
- the losses as METHOD section 4 restates them (see :mod:`genedml.networks.gene_dml_losses`).

What the paper does not have is off by default: a mean of the output over array neighbours, a loss centred within
sections, and ridge regression's share of the output.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from genedml.networks.gene_dml_grouping import kmeans
from genedml.networks.gene_dml_losses import (
    centred_prediction_loss,
    contrastive_loss,
    cross_level_loss,
    instance_loss,
    prediction_loss,
)
from genedml.networks.inputs import Batch, Needs, Section, array_mean
from genedml.networks.layers import Block, FeedForward, GlobalTransformer, RelativePositionBias, hide, masked_mean
from genedml.networks.linear_path import LinearPath
from genedml.networks.network import Network, Shape
from genedml.schema import STRICT, Count, Fraction, Positive, TransformerConfig

ALIGNED_SPOTS = 1024
"""Of a larger batch the alignment terms compare so many, chosen at random: each is held against every other."""


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights, temperatures and switches of the losses (METHOD section 4)."""

    instance: bool = True
    """Multi-scale instance-level alignment, eq. 3-4."""
    group: bool = True
    """Cross-level instance-group alignment, eq. 5."""
    temperature: Positive = 0.07
    group_temperature: Positive = 0.07
    group_weight: Annotated[float, Field(ge=0)] = 0.8
    """Lambda of eq. 7."""
    prediction_weight: Positive = 1.0
    """Weight of eq. 6 in eq. 7, which has none: the alignment terms are some hundred times as large as the error."""
    centred: bool = False
    """Take the mean over a section's spots out of eq. 6, and weigh it by ``offset_weight``: levels of sections differ
    for reasons that no image shows, and no correlation sees them."""
    offset_weight: Annotated[float, Field(ge=0)] = 0.1
    groups: Count = 18
    """k of the k-means."""
    kmeans_iterations: Count = 10
    detach_targets: bool = False


@dataclass(frozen=True, config=STRICT)
class GeneDMLConfig:
    """Widths, depths and losses of Gene-DML; defaults are the paper's for HER2ST (METHOD section 3).

    The width of the neighbor and global transformers is the encoder's, so it is not set here.
    """

    shared_width: Count = 512
    neighbor_transformer: TransformerConfig = TransformerConfig(depth=4, heads=4, mlp_width=4096, dropout=0.3)
    global_transformer: TransformerConfig = TransformerConfig(depth=5, heads=8, mlp_width=4096, dropout=0.3)
    fusion_transformer: TransformerConfig = TransformerConfig(depth=1, heads=1, mlp_width=1024, dropout=0.1)
    ffn_width: Count = 1024
    ffn_dropout: Fraction = 0.1
    head_widths: Annotated[tuple[Count, ...], Field(max_length=16)] = (1536, 512)
    head_dropout: Fraction = 0.1
    gene_dropout: Fraction = 0.3
    array_mean: bool = False
    """Average the output over array neighbours, in the loss and at prediction, where labels are such means
    (``labels.smooth``)."""
    linear_share: Fraction = 0.0
    """Share of ridge regression on each spot's pooled vectors in the output, fitted on the training sections; the rest
    is the network's, which is trained for itself. The two err differently, and their mean errs less than either."""
    loss: LossConfig = LossConfig()


@dataclasses.dataclass(frozen=True)
class ImageEmbedding:
    """I_L, I_N, I_G: means over one scale's fused tokens; ``fused``: I, the mean over all of them."""

    local: Float[Tensor, "B d"]
    neighbor: Float[Tensor, "B d"]
    global_: Float[Tensor, "B d"]
    fused: Float[Tensor, "B d"]

    def to(self, dtype: torch.dtype) -> "ImageEmbedding":
        """The same in another precision."""
        return ImageEmbedding(*(getattr(self, field.name).to(dtype) for field in fields(self)))

    def of(self, rows: Int[Tensor, " _"]) -> "ImageEmbedding":
        """Those of some spots."""
        return ImageEmbedding(*(getattr(self, field.name)[rows] for field in fields(self)))


class NeighborTransformer(nn.Module):
    """Self-attention over the 5x5 tiles around a spot, with a relative position bias (section 3.1.1)."""

    def __init__(self, width: int, grid: int, config: TransformerConfig) -> None:
        super().__init__()
        self.position = RelativePositionBias(grid, config.heads)
        self.blocks = nn.ModuleList(Block(width, config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tiles: Float[Tensor, "B P D"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B P D"]:
        bias = self.position() + hide(mask, tiles.dtype)
        for block in self.blocks:
            tiles = block(tiles, bias)
        return self.norm(tiles)


class Fusion(nn.Module):
    """Scale-wise fusion: one sequence of all tokens of the three scales through self-attention and an FFN."""

    def __init__(self, config: GeneDMLConfig) -> None:
        super().__init__()
        width = config.shared_width
        self.blocks = nn.ModuleList(
            Block(width, config.fusion_transformer) for _ in range(config.fusion_transformer.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, config.ffn_width, config.ffn_dropout)

    def forward(
        self,
        local: Float[Tensor, "B T d"],
        neighbor: Float[Tensor, "B P d"],
        global_: Float[Tensor, "B 1 d"],
        neighbor_mask: Bool[Tensor, "B P"],
    ) -> ImageEmbedding:
        scales = [local.shape[1], neighbor.shape[1], 1]
        seen = neighbor_mask.new_ones(len(local), 1)
        mask = torch.cat([seen.expand(-1, scales[0]), neighbor_mask, seen], dim=1)
        tokens = torch.cat([local, neighbor, global_], dim=1)
        bias = hide(mask, tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, bias)
        tokens = tokens + self.ffn(self.norm(tokens))
        local, neighbor, global_ = tokens.split(scales, dim=1)
        return ImageEmbedding(
            local.mean(dim=1), masked_mean(neighbor, neighbor_mask), global_[:, 0], masked_mean(tokens, mask)
        )


class GeneEncoder(nn.Module):
    """Expression profile to the shared width, eq. 1; used in training only."""

    def __init__(self, genes: int, config: GeneDMLConfig) -> None:
        super().__init__()
        width = config.shared_width
        self.project = nn.Linear(genes, width)
        self.refine = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.Dropout(config.gene_dropout))
        self.norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, config.ffn_width, config.ffn_dropout)

    def forward(self, expression: Float[Tensor, "B M"]) -> Float[Tensor, "B d"]:
        projected = self.project(expression)
        return self.ffn(self.norm(projected + self.refine(projected)))


class GroupBranch(nn.Linear):
    """Instance embedding to the space its groups are found in, on the unit sphere (eq. 2)."""

    def forward(self, instance: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        return nn.functional.normalize(super().forward(instance), dim=1)


class PredictionHead(nn.Module):
    """Fused embedding to the label of every gene: linear layers with ReLU and dropout."""

    def __init__(self, genes: int, config: GeneDMLConfig) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        width = config.shared_width
        for wider in config.head_widths:
            hidden += [nn.Linear(width, wider), nn.ReLU(), nn.Dropout(config.head_dropout)]
            width = wider
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(width, genes)

    def forward(self, fused: Float[Tensor, "B d"]) -> Float[Tensor, "B M"]:
        return self.output(self.hidden(fused))


class GeneDML(Network):
    """Dual-pathway multi-level discrimination: spots at three scales in, the label of every gene out."""

    training_only: ClassVar[Sequence[str]] = ("gene_encoder", "image_group", "gene_group")

    def __init__(self, config: GeneDMLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        width = config.shared_width
        self.loss, self.averages = config.loss, config.array_mean and shape.smooth
        self.neighbor_transformer = NeighborTransformer(shape.width, shape.neighbor_grid, config.neighbor_transformer)
        self.global_transformer = GlobalTransformer(shape.width, config.global_transformer)
        self.project_local = nn.Linear(shape.width, width)
        self.project_neighbor = nn.Linear(shape.width, width)
        self.project_global = nn.Linear(shape.width, width)
        self.fusion = Fusion(config)
        self.head = PredictionHead(shape.genes, config)
        self.gene_encoder = GeneEncoder(shape.genes, config)
        self.image_group = GroupBranch(width, width)
        self.gene_group = GroupBranch(width, width)
        self.linear = LinearPath(shape.width, shape.genes) if config.linear_share else None

    @classmethod
    def needs(cls, config: GeneDMLConfig) -> Needs:
        """Its own tile's tokens and the neighbor grid, beside the whole section."""
        return Needs(tokens=True, neighbors=True, array_means=config.array_mean)

    def forward(self, batch: Batch, context: Sequence[Float[Tensor, "S D"]] | None = None) -> Float[Tensor, "B M"]:
        """Predicted labels. Only this path runs at prediction.

        ``context``: what :meth:`see_sections` gave for ``batch.sections``, where many batches share them.
        """
        predicted = self.head(self.embed(batch, context).fused)
        return predicted if self.linear is None else predicted.lerp(self.linear(batch), self.config.linear_share)

    def finish(self, predicted: Float[Tensor, "S M"], section: Section) -> Float[Tensor, "S M"]:
        """The mean over array neighbours, where the labels are such means."""
        return array_mean(predicted, section) if self.averages else predicted

    def see_sections(self, sections: Sequence[Section]) -> list[Float[Tensor, "S D"]]:
        """The global transformer over each section: one vector for each of its spots."""
        return [self.global_transformer(section.pooled, section.grid) for section in sections]

    def embed(self, batch: Batch, context: Sequence[Float[Tensor, "S D"]] | None = None) -> ImageEmbedding:
        """Multi-scale image embedding of every spot (section 3.1.1)."""
        assert batch.tokens is not None and batch.neighbor is not None and batch.neighbor_mask is not None
        global_ = batch.of_spots(self.see_sections(batch.sections) if context is None else context)
        local = self.project_local(batch.tokens)
        neighbor = self.project_neighbor(self.neighbor_transformer(batch.neighbor, batch.neighbor_mask))
        return self.fusion(local, neighbor, self.project_global(global_)[:, None], batch.neighbor_mask)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Eq. 7 by its named parts; ``total`` is their weighted sum.

        Under autocast only the network runs in less precision: the losses are of the labels' precision.
        ``group`` is absent where the batch has fewer than 2k spots: k-means would find single spots, not groups.
        """
        label = batch.label
        assert label is not None
        image, gene = self.embed(batch), self.gene_encoder(label)
        predicted = self.head(image.fused)
        with torch.autocast(label.device.type, enabled=False):  # similarities need more bits
            image, gene, predicted = image.to(label.dtype), gene.to(label.dtype), predicted.to(label.dtype)
            if self.averages:
                predicted = batch.mean_over_neighbors(predicted)
            parts = {"prediction": self._prediction(predicted, label, batch)}
            if len(batch) > ALIGNED_SPOTS:
                some = torch.randperm(len(batch), generator=generator)[:ALIGNED_SPOTS].to(
                    label.device, non_blocking=label.is_cuda
                )
                image, gene = image.of(some), gene[some]
            return self._aligned(parts, image, gene, generator)

    def _prediction(
        self, predicted: Float[Tensor, "B M"], label: Float[Tensor, "B M"], batch: Batch
    ) -> Float[Tensor, ""]:
        if self.loss.centred:
            sections, weight = len(batch.sections), self.loss.offset_weight
            return centred_prediction_loss(predicted, label, batch.section, sections, weight)
        return prediction_loss(predicted, label)

    def _aligned(
        self,
        parts: dict[str, Float[Tensor, ""]],
        image: ImageEmbedding,
        gene: Float[Tensor, "B d"],
        generator: torch.Generator | None,
    ) -> dict[str, Float[Tensor, ""]]:
        """``parts``, which holds the prediction's, with the alignment terms and the total."""
        total = self.loss.prediction_weight * parts["prediction"]
        if self.loss.instance:
            parts["instance"] = self._instance(image, gene)
            total = total + parts["instance"]
        if self.loss.group and len(gene) >= 2 * self.loss.groups:
            parts["group"] = self._group(image.fused, gene, generator)
            total = total + self.loss.group_weight * parts["group"]
        if not self.loss.instance and not self.loss.group:
            parts["contrastive"] = contrastive_loss(image.fused, gene, self.loss.temperature)
            total = total + parts["contrastive"]
        return parts | {"total": total}

    @classmethod
    def cautions(cls, config: GeneDMLConfig, spots: Sequence[int] = ()) -> list[str]:
        """What is not the paper's: the weight of the alignment terms, averages, centring, and ridge in the output."""
        weight, share, texts = config.loss.prediction_weight, config.linear_share, []
        if weight != 1:
            texts.append(
                f"The alignment terms weigh 1/{weight:g} against the prediction (network.loss.prediction_weight = "
                f"{weight:g}), in the paper 1."
            )
        if config.array_mean:
            texts.append(
                "Gene-DML's output is a mean over array neighbours where labels are (network.array_mean), in the paper "
                "it is not."
            )
        if config.loss.centred:
            texts.append(
                "Errors are of labels centred within sections (network.loss.centred), in the paper they are not."
            )
        if share:
            texts.append(
                f"Of Gene-DML's output {share:.0%} is ridge regression (network.linear_share = {share:g}), in the "
                "paper none."
            )
        return texts

    def optional_parts(self) -> tuple[str, ...]:
        """``group``, where it is switched on."""
        return ("group",) if self.loss.group else ()

    def start_from(self, batches: Iterable[Batch]) -> None:
        """Start at the mean label; fit the linear path, which stays as it is."""
        if self.linear is None:
            super().start_from(batches)
        else:
            self.start_at(self.linear.fit(batches, self.averages))

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        """Let the untrained head predict about the mean label, so that training starts from the constant predictor."""
        with torch.no_grad():
            self.head.output.bias.copy_(mean_label)

    def _instance(self, image: ImageEmbedding, gene: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
        scales = (image.local, image.neighbor, image.global_)
        parts = [instance_loss(scale, gene, self.loss.temperature, self.loss.detach_targets) for scale in scales]
        return torch.stack(parts).mean()

    def _group(
        self, image: Float[Tensor, "B d"], gene: Float[Tensor, "B d"], generator: torch.Generator | None
    ) -> Float[Tensor, ""]:
        k, iterations = self.loss.groups, self.loss.kmeans_iterations
        image_groups = kmeans(self.image_group(image), k, iterations, generator)
        gene_groups = kmeans(self.gene_group(gene), k, iterations, generator)
        return cross_level_loss(image, gene, image_groups, gene_groups, self.loss.group_temperature)
