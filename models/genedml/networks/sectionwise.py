"""What HisToGene and Hist2ST share: a section's spots, with their places, are the tokens of a transformer.

Letters: S spots in a section, B spots in a batch, D encoder width, W width, M genes.

They look at the pooled vectors of all spots of a section, labelled or not; with a stem of raw pixels, which batches
hold of their own spots alone, at those of the batch: in training the labelled ones, at prediction all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genedml.errors import GeneDMLError
from genedml.networks.inputs import Batch, Places, Section
from genedml.networks.layers import Block, turned
from genedml.networks.network import Network, Shape
from genedml.networks.positions import TablePositions, make_positions


class SectionNetwork(Network):
    """Base of the networks whose tokens are spots.

    Args:
        config: with ``width``, ``transformer``, ``stem``, ``position`` and ``positions``.
        shape: of its tensors.
        pixel_stem: maps the tiles of the spots to the width, where it is to be used in place of a linear layer from
            the pooled vectors.
    """

    def __init__(self, config: Any, shape: Shape, pixel_stem: nn.Module | None) -> None:
        super().__init__(config, shape)
        width, transformer = config.width, config.transformer
        self.stem = nn.Linear(shape.width, width) if pixel_stem is None else pixel_stem
        self.positions = make_positions(config.position, config.positions, width)
        self.blocks = nn.ModuleList(
            Block(width, transformer, qkv_bias=False, score_dropout=False) for _ in range(transformer.depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, shape.genes)

    @classmethod
    def check(cls, config: Any, trained: Sequence[Places], predicted: Sequence[Places]) -> None:
        """Refuse a spot that stands where the tables of positions have no vector, or none that training reaches."""
        if config.position != "table":
            return
        positions = TablePositions(config.positions, 1)
        for sections, training in ((trained, True), (predicted, False)):
            positions.train(training)
            for section in sections:
                if section.grid_xy is None:
                    return
                try:
                    positions(section.grid_xy, section.labelled if training and config.stem == "pixels" else None)
                except GeneDMLError as error:
                    error.add_note(f"This was section {section.name}.")
                    raise

    def forward(self, batch: Batch, context: Sequence[Float[Tensor, "_ M"]] | None = None) -> Float[Tensor, "B M"]:
        """Predicted labels. ``context``: what :meth:`see_sections` gave for ``batch.sections``."""
        return self.predict(self.embed_batch(batch)) if context is None else batch.of_spots(context)

    def see_sections(self, sections: Sequence[Section]) -> list[Float[Tensor, "_ M"]] | None:
        """Predicted labels of every spot of each section; None where they depend on raw tiles."""
        if self.takes.tiles:
            return None
        return [self.predict(self._embed_section(section)) for section in sections]

    @classmethod
    def cautions(cls, config: Any, spots: Sequence[int] = ()) -> list[str]:
        """That a prediction is of the spots that are given, and that it is told where they stand."""
        given = f"{cls.__name__} predicts a spot from all spots given of its section: give all that lie under tissue."
        if config.position == "none":
            return [given]
        return [
            given,
            f'It is told where spots stand (network.position = "{config.position}"), and sections of one patient are '
            'alike at the same place: where they are on both sides of a fold, see the row "place alone".',
        ]

    def predict(self, embedded: Float[Tensor, "*B W"]) -> Float[Tensor, "*B M"]:
        """Predicted labels of what :meth:`embed` gave."""
        return self.head(self.norm(embedded))

    def embed(self, spots: Float[Tensor, "S W"], section: Section) -> Float[Tensor, "S W"]:
        """Vectors of the spots of one section, of what the stem made of them with the vectors of their places."""
        raise NotImplementedError

    def embed_batch(self, batch: Batch, orientation: int = 0) -> Float[Tensor, "B W"]:
        """Vectors of the spots of a batch, of their tiles in one orientation; 0 is as they stand."""
        if not self.takes.tiles:
            return batch.of_spots([self._embed_section(section, orientation) for section in batch.sections])
        seen = self.stem(turned(batch.tiles[0], orientation))
        embedded, places = [], []
        for number, section in enumerate(batch.sections):
            place = (batch.section == number).nonzero()[:, 0]
            row = batch.row[place]
            part = Section(section.pooled[row], section.grid_xy[row], section.hexagonal)
            embedded.append(self.embed(seen[place] + self.positions(section.grid_xy, row), part))
            places.append(place)
        return torch.cat(embedded)[torch.cat(places).argsort()]

    def _embed_section(self, section: Section, orientation: int = 0) -> Float[Tensor, "_ W"]:
        vectors = section.pooled
        if orientation:
            assert section.turned is not None
            vectors = section.turned[orientation]
        return self.embed(self.stem(vectors) + self.positions(section.grid_xy), section)
