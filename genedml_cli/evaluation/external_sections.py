"""Sections of other donors than models were trained on: which they are, their labels and their features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata

from genedml.checkpoint import ModelCard
from genedml.config import LabelsConfig, ViewsConfig
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Tile
from genedml_cli.datasets.datasets import dataset, find_dataset, partial_note
from genedml_cli.datasets.folds import seen_donors
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.evaluation.ceiling import HalvesPCC, seed_of, split_half_pcc
from genedml_cli.expression.labels import Labels, check_join, make_labels
from genedml_cli.expression.panels import match_panel
from genedml_cli.features.extraction import extract
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.notes import Note
from genedml_cli.prediction.ensemble import Ensemble
from genedml_cli.slides.patches import PATCHES_SUFFIX, open_patches
from genedml_cli.slides.slide_files import content_sha256
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots, on_image


@dataclass(frozen=True)
class ExternalSections:
    """Sections to score models on that were trained on others, and which of their spots are taken.

    Args:
        name: of the data set, or of the sheet without its suffix.
        source: the sheet or the data set, as it was given.
        samples: the sections.
        partial: what must be said where sections of the data set are missing.
        allow_off_tissue: take spots even if most lie off the tissue.
        skip_off_image: leave out spots that lie off the image.
        gene_map: of genes that were renamed, see :mod:`genedml_cli.expression.gene_map`.
    """

    name: str
    source: str
    samples: Sequence[Sample]
    partial: Note | None = None
    allow_off_tissue: bool = False
    skip_off_image: bool = False
    gene_map: Path | None = None


def find_sections(
    external: str,
    root: Path | None = None,
    allow_partial: bool = False,
    allow_off_tissue: bool = False,
    skip_off_image: bool = False,
) -> ExternalSections:
    """The sections of a sample sheet, or of a data set named such as ``visium-breast``, below ``root``.

    Raises:
        GeneDMLError: no such sheet or data set, or files of it are not there.
    """
    if external.endswith(".csv") or Path(external).is_file():
        sheet = Path(external)
        return ExternalSections(sheet.stem, external, read_sheet(sheet, root), None, allow_off_tissue, skip_off_image)
    samples = dataset(external, root or Path(), allow_partial)
    partial = partial_note(find_dataset(external), samples)
    return ExternalSections(external, external, samples, partial, allow_off_tissue, skip_off_image)


def seen_in_training(cards: Sequence[ModelCard], samples: Sequence[Sample]) -> dict[str, str]:
    """The samples whose slide or donor any of the models was trained or chosen on, and which of the two."""
    slides = {slide for card in cards for slide in card.training_slides.values()}
    known = {sample.name for card in cards for sample in seen_donors(card, samples)}
    seen = {}
    for sample in samples:
        if sample.name in known:
            seen[sample.name] = f"of {sample.donor}"
        elif content_sha256(sample.slide) in slides:
            seen[sample.name] = "this very slide"
    return seen


def seen_note(seen: Mapping[str, str]) -> str:
    """Which samples are left out, and why."""
    named = ", ".join(f"{name} ({why})" for name, why in seen.items())
    return f"Left out, as their donors were seen in training: {named}."


def check_scales(samples: Sequence[Sample], models: Sequence[Ensemble], skip_off_image: bool) -> None:
    """Before the hours of encoding, refuse what models of native views would see at another size.

    Raises:
        GeneDMLError: naming the section.
    """
    by_views = {of_run.cards[0].config.views: of_run for of_run in models}
    for views, of_run in by_views.items():
        for sample in samples if views.um_per_px == "native" else ():
            of_run.check_scale(sample.name, _scale_of(sample, views, skip_off_image))


def _scale_of(sample: Sample, views: ViewsConfig, skip_off_image: bool) -> float | None:
    """um/px of level 0, where it is known."""
    if sample.slide.suffix == PATCHES_SUFFIX:
        with open_patches(sample.slide, views) as patches:
            return patches.um_per_px
    spots = read_spots(sample.spots)
    spots = on_image(sample.slide, spots)[0] if skip_off_image else spots
    with open_section(sample.slide, spots, sample.um_per_px, sample.pitch_um, scale_needed=False) as slide:
        return slide.um_per_px if slide.knows_scale else None


LabelsKey = tuple[tuple[str, ...], LabelsConfig]
"""What of a model the labels of a section depend on."""
LabelsOfGenes = tuple[tuple[str, ...], Labels, Note | None]
"""Genes that are in the counts, their labels, and what must be said of the join."""


class CountedSection:
    """A section's counts, and its labels by every panel and transform that they are asked for."""

    def __init__(self, sample: Sample, counts: anndata.AnnData, shared: Sequence[Note]) -> None:
        self.sample, self.counts, self.shared = sample, counts, shared
        self._labels: dict[LabelsKey, LabelsOfGenes] = {}
        self._halves: dict[LabelsKey, HalvesPCC] = {}

    def labels(self, card: ModelCard, spots: Spots) -> LabelsOfGenes:
        """The genes of a model that are in the counts, their labels, and what must be said of the join.

        Raises:
            GeneDMLError: too few genes or spots are in the counts.
        """
        key = card.genes, card.config.labels
        if key not in self._labels:
            try:
                genes = match_panel(self.counts, card.genes)[0]
                labels = make_labels(self.counts, spots, genes, card.config.labels)
                self._labels[key] = genes, labels, check_join(labels, self.sample.name, self.sample.counts)
            except GeneDMLError as error:
                error.add_note(f"This was section {self.sample.name}.")
                raise
        return self._labels[key]

    def halves(self, card: ModelCard, spots: Spots) -> HalvesPCC:
        """How far the labels of two halves of the counts agree, of the genes of :meth:`labels`.

        Raises:
            GeneDMLError: as :meth:`labels`; counts that are not whole numbers.
        """
        key = card.genes, card.config.labels
        if key not in self._halves:
            genes = self.labels(card, spots)[0]
            self._halves[key] = split_half_pcc(
                self.counts,
                lambda table: make_labels(table, spots, genes, card.config.labels),
                seed_of(self.sample.name),
            )
        return self._halves[key]


FeaturesKey = tuple[ViewsConfig, tuple[Tile, ...]]
"""What of a model the features of a section depend on, besides the encoder."""


def features_key(models: Ensemble) -> FeaturesKey:
    """Of the models of a run."""
    return models.cards[0].config.views, tuple(models.needs.tiles)


def features_for(
    sample: Sample, models: Sequence[Ensemble], sections: ExternalSections, folder: Path
) -> dict[FeaturesKey, SectionFeatures]:
    """The features of a section that models take: tiles that several have in common are encoded once."""
    allowed = {"allow_off_tissue": sections.allow_off_tissue, "skip_off_image": sections.skip_off_image}
    keys = dict.fromkeys(features_key(of_run) for of_run in models)
    return {
        (views, tiles): extract([sample], models[0].encoder, views, folder, tiles=tiles, **allowed)[sample.name]
        for views, tiles in keys
    }
