"""Hist2ST (Zeng et al. 2022): self-attention over a section, a graph of near spots, an LSTM over the graph's depths.

Letters: S spots in a section, B spots in a batch, C copies, D encoder width, W width, K edges of a spot, M genes.

Differs from the publication where that is at fault or needs pixels:
- a linear layer from the encoder's vectors stands in place of the ConvMixer on 112 px of raw pixels, which is kept as
  ``stem = "pixels"``, from tiles that are standardised;
- the copies of the distillation are turned by quarters and flipped, not turned by any angle or greyed;
- a spot without neighbours gets a mean of 0, not 0/0; of equally near spots the place decides, not their order;
- the logit of a mean count is bounded, not its exponential; a spot without counts has no part in the likelihood;
- places are counted from the section's first column and row, and a place without a learned vector is an error;
- training starts from the mean label.
Every prediction depends on which spots of the section are given.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from genedml.errors import GeneDMLError
from genedml.networks.hist2st_losses import count_loss, distillation_loss, size_factors
from genedml.networks.inputs import Batch, Needs, Section, Stem, Tile
from genedml.networks.layers import ORIENTATIONS, Standardise
from genedml.networks.network import Shape
from genedml.networks.positions import Position
from genedml.networks.sectionwise import SectionNetwork
from genedml.schema import STRICT, Count, Depth, TransformerConfig

TILE_PX = 112
PIXEL_WIDTH = 1024
"""Numbers that the published stem makes of a tile: 4 channels of 16 x 16."""
FEW_SPOTS = 32
"""Of a section, from which statistics of a batch norm are rough."""
Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class GraphConfig:
    """Which spots are neighbours, and the layers over them."""

    depth: Depth = 2
    nearest: Annotated[int, Field(ge=0, le=100)] = 4
    """The most neighbours of a spot; 0 for all within the radius."""
    radius: Annotated[float, Field(ge=1, le=10)] = 2.0
    """In steps of the array; farther spots are no neighbours."""
    self_loop: bool = True
    """Whether a spot is among its own neighbours; as published it is not, and forgets its own tile."""


@dataclass(frozen=True, config=STRICT)
class Hist2STLossConfig:
    """Weights of the losses beside the squared error; a part of weight 0 is not computed."""

    counts: Weight = 0.25
    """Of the likelihood of raw counts."""
    distillation: Weight = 0.0
    """Of the error to the prediction from turned tiles, published as .5."""
    copies: Annotated[int, Field(ge=1, le=7)] = 5
    """Orientations that one step draws for the distillation."""


@dataclass(frozen=True, config=STRICT)
class Hist2STConfig:
    """Widths, depths and losses of Hist2ST, by default for few sections; the paper's are the preset published."""

    stem: Stem = "features"
    """What a spot is embedded from: the encoder's vector of its tile or, as published, the tile's pixels."""
    width: Count = 256
    """1024 where the stem is of pixels."""
    transformer: TransformerConfig = TransformerConfig(depth=2, heads=8, mlp_width=256, dropout=0.2)
    graph: GraphConfig = GraphConfig()
    lstm_depth: Depth = 2
    position: Position = "sine"
    """``table``, as published, learns a vector for each column and row; ``sine`` holds for sections of any size."""
    positions: Count = 64
    """Columns, and rows, of ``table``."""
    loss: Hist2STLossConfig = Hist2STLossConfig()


class MixerBlock(nn.Module):
    """Two depthwise convolutions beside a residual, then one across the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        depthwise: list[nn.Module] = []
        for _ in range(2):
            convolution = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
            depthwise += [convolution, nn.BatchNorm2d(channels), nn.GELU()]
        self.depthwise = nn.Sequential(*depthwise)
        self.pointwise = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels))

    def forward(self, x: Float[Tensor, "S channels h w"]) -> Float[Tensor, "S channels h w"]:
        return self.pointwise(x + self.depthwise(x))


class PixelStem(nn.Sequential):
    """The published ConvMixer: tiles [S 3 112 112], in [0, 1], to vectors [S 1024].

    In training mode its batch norms take the statistics of the section's tiles, in evaluation mode those learned.
    """

    def __init__(self, channels: int = 32, depth: int = 2, channels_out: int = 4, dropout: float = 0.2) -> None:
        super().__init__(
            Standardise(),
            nn.Conv2d(3, channels, 7, stride=7),
            nn.Dropout(dropout),
            *(MixerBlock(channels) for _ in range(depth)),
            nn.Conv2d(channels, channels_out, 1),
            nn.Flatten(),
        )


class GraphLayer(nn.Module):
    """Mean over the neighbours, a linear layer without bias, ReLU, and each spot's vector to length 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, spots: Float[Tensor, "S W"], neighbors: Int[Tensor, "S K"]) -> Float[Tensor, "S W"]:
        """``neighbors``: their rows, S where there are fewer, as :meth:`Section.edges` gives them."""
        padded = torch.cat([spots, spots.new_zeros(1, spots.shape[1])])
        number = (neighbors < len(spots)).sum(dim=1, keepdim=True).clamp(min=1)
        mean = padded[neighbors].sum(dim=1) / number
        return functional.normalize(self.linear(mean).relu(), dim=1)


class Hist2ST(SectionNetwork):
    """Attention over a section, graph layers over near spots, an LSTM over what they gave.

    Raises:
        GeneDMLError: the width is not that of the pixels' stem.
    """

    def __init__(self, config: Hist2STConfig, shape: Shape) -> None:
        pixels = config.stem == "pixels"
        if pixels and config.width != PIXEL_WIDTH:
            raise GeneDMLError(
                f"network.width = {config.width}, but the stem of pixels makes vectors of {PIXEL_WIDTH} numbers: set "
                f'network.width = {PIXEL_WIDTH}, or network.stem = "features".'
            )
        super().__init__(config, shape, PixelStem() if pixels else None)
        width, loss = config.width, config.loss
        self.graph = nn.ModuleList(GraphLayer(width) for _ in range(config.graph.depth))
        self.lstm = nn.LSTM(width, width, config.lstm_depth, batch_first=True)
        if loss.counts:
            self.counts = nn.ModuleDict(
                {name: nn.Linear(width, shape.genes) for name in ("mean", "dispersion", "dropout")}
            )
        if loss.distillation:
            self.weigh = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    @classmethod
    def needs(cls, config: Hist2STConfig) -> Needs:
        """Whole sections: one a step, as published; for its losses counts and the vectors of turned tiles."""
        pixels, loss = config.stem == "pixels", config.loss
        return Needs(
            whole_sections=True,
            tiles=(Tile(TILE_PX),) if pixels else (),
            counts=loss.counts > 0,
            orientations=loss.distillation > 0 and not pixels,
        )

    @classmethod
    def cautions(cls, config: Hist2STConfig, spots: Sequence[int] = ()) -> list[str]:
        """Also that its batch norms learned from few spots, if they did."""
        texts = super().cautions(config, spots)
        if config.stem == "pixels" and spots and min(spots) < FEW_SPOTS:
            texts.append(
                f"A training section has {min(spots)} labelled spots: the batch norms of Hist2ST's stem learn rough "
                f"statistics from fewer than {FEW_SPOTS} at a time."
            )
        return texts

    def embed(self, spots: Float[Tensor, "S W"], section: Section) -> Float[Tensor, "S W"]:
        """Vectors of the spots of one section, of what the stem made of them with the vectors of their places."""
        tokens = spots[None]
        for block in self.blocks:
            tokens = block(tokens)
        neighbors = self._neighbors(section)
        spots, depths = tokens[0], []
        for layer in self.graph:
            spots = layer(spots, neighbors)
            depths.append(spots)
        return self.lstm(torch.stack(depths, dim=1))[0].mean(dim=1)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Squared error, likelihood of the counts and distillation, and their weighted sum ``total``.

        Under autocast only the network runs in less precision: the losses are of the labels' precision.
        """
        label, loss = batch.label, self.config.loss
        assert label is not None
        embedded = self.embed_batch(batch)
        predicted = self.predict(embedded).to(label.dtype)
        counts = {name: head(embedded).to(label.dtype) for name, head in self.counts.items()} if loss.counts else {}
        copies = self._copies(batch, generator) if loss.distillation else None
        with torch.autocast(label.device.type, enabled=False):
            parts = {"prediction": functional.mse_loss(predicted, label)}
            total = parts["prediction"]
            if loss.counts:
                assert batch.counts is not None
                observed = batch.counts.to(label.dtype)
                factors = size_factors(observed, batch.section, len(batch.sections))
                parts["counts"] = count_loss(observed, factors, **counts)
                total = total + loss.counts * parts["counts"]
            if copies is not None:
                parts["distillation"] = distillation_loss(predicted, *(part.to(label.dtype) for part in copies))
                total = total + loss.distillation * parts["distillation"]
            return parts | {"total": total}

    def _neighbors(self, section: Section) -> Int[Tensor, "S _"]:
        graph = self.config.graph
        neighbors = section.edges(graph.radius, graph.nearest)
        if not graph.self_loop:
            return neighbors
        return torch.cat([torch.arange(len(neighbors), device=neighbors.device)[:, None], neighbors], dim=1)

    def _copies(
        self, batch: Batch, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "C B M"], Float[Tensor, "C B"]]:
        """Predictions from turned tiles and their weights; in a copy all spots are turned alike, as published."""
        drawn = torch.randperm(ORIENTATIONS - 1, generator=generator)[: self.config.loss.copies] + 1
        embedded = torch.stack([self.embed_batch(batch, number) for number in drawn.tolist()])
        return self.predict(embedded), self.weigh(embedded)[..., 0]
