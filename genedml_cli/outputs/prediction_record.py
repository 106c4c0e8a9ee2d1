"""How a prediction was made and what must be said with it: ``uns["genedml"]`` of its file, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

import anndata
import numpy as np
from pydantic import BeforeValidator, Field

from genedml.config import LabelsConfig, UmPerPx
from genedml.errors import GeneDMLError
from genedml.networks.registry import title_of
from genedml.schema import STRICT, Positive, from_dict, to_dict
from genedml_cli.notes import Note, texts_of

KEY, LABEL = "genedml", "label"
LARGEST_PX = 10**8
"""Beyond any slide, and of a spot's diameter."""


def _decoded_note(stored: Any) -> Note:
    if not isinstance(stored, str):
        raise ValueError("a note is a text")
    return Note.of(stored)


Pixel = Annotated[int, Field(gt=-LARGEST_PX, lt=LARGEST_PX)]
StoredNote = Annotated[Note, BeforeValidator(_decoded_note)]


@dataclass(frozen=True, kw_only=True)
class PredictionRecord:
    """How one section was predicted, and what must be said with it.

    A file holds the fields under their names, without those at their default, and :attr:`label` beside them. A test
    section of a run has a fold and a sample; what ``predict`` made of a slide has the slide, its SHA-256, the encoder,
    the models and their panels instead.

    Args:
        command: the command line that predicted a slide.
        genedml: the version that made it.
        slide: file name of the slide.
        slide_sha256: of the slide's content.
        spots: file name of the spot table; ``grid`` of a grid.
        encoder: name of the frozen encoder.
        encoder_weights_sha256: of its weights.
        method: name of the network in the registry.
        variant: of its settings, see :meth:`genedml.networks.network.Network.variant`.
        label_settings: the transform of the labels.
        notes: what must be said with the prediction and every score of it.
        models: file name and fingerprint of every model, with a blank between.
        panels: the genes of every model, with blanks between; one panel if all have the same.
        trained_on: published data sets that the models were trained on.
        seen_in_training: how many of the models were trained on this very slide.
        views_um_per_px: um/px of the views that the network saw; ``native`` for level-0 pixels.
        um_per_px: of level 0, where it is known.
        um_per_px_from: who said so.
        tissue: ``found``, or the file that says what is tissue.
        spots_on_tissue: share of the table's spots on the tissue, 0 to 1.
        grid: packing of a grid.
        grid_pitch_um: distance of its spots.
        array: packing of the spots' array: ``square``, ``hex`` or ``none``.
        array_told_by: what told the packing.
        pitch_px: distance of neighbouring spots in level-0 pixels, where it is known.
        neighbors_per_spot: mean number of a spot's neighbours in the array.
        qupath_origin_xy_px: the level-0 pixel from which QuPath counts x and y.
        interval: share of the labels that ``layers["lower"]`` and ``layers["upper"]`` are to hold between them.
        scale: ``z`` of an export whose values are z in the place of labels.
        min_cv_pcc: the least cross-validated PCC of the genes that were kept.
        inputs: what a slide of a cohort was predicted from, each by what a difference of it is called.
        fold: of a run, whose model predicted its test section.
        sample: name of the test section.
        patient: of the test section.
        dataset: the published data set of the run.
        torch: version that the model was trained with.
        seed: of the training.
        deterministic: whether it was trained with deterministic algorithms alone.
        backbone_sha256: of the weights that the network's own backbone started from, if it started from some.
        ridge_alpha: penalty of the ridge reference.
        spots_without_counts: spots of the test section that have no counts and are left out.
        spots_without_panel_counts: spots that have none in the panel and are left out.
    """

    __pydantic_config__: ClassVar = STRICT
    command: str = ""
    genedml: str
    slide: str = ""
    slide_sha256: str = ""
    spots: str = ""
    encoder: str = ""
    encoder_weights_sha256: str = ""
    method: str
    variant: str = ""
    label_settings: LabelsConfig
    notes: tuple[StoredNote, ...]
    models: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    seen_in_training: int | None = None
    views_um_per_px: UmPerPx | None = None
    um_per_px: Positive | None = None
    um_per_px_from: str = ""
    tissue: str = ""
    spots_on_tissue: float | None = None
    grid: str = ""
    grid_pitch_um: float | None = None
    array: str = ""
    array_told_by: str = ""
    pitch_px: float | None = None
    neighbors_per_spot: float | None = None
    qupath_origin_xy_px: tuple[Pixel, Pixel] = (0, 0)
    interval: float | None = None
    scale: Literal["", "z"] = ""
    min_cv_pcc: float | None = None
    inputs: Mapping[str, str] | None = None
    fold: str = ""
    sample: str = ""
    patient: str = ""
    dataset: str = ""
    torch: str = ""
    seed: int | None = None
    deterministic: bool | None = None
    backbone_sha256: str = ""
    ridge_alpha: float | None = None
    spots_without_counts: int | None = None
    spots_without_panel_counts: int | None = None

    @property
    def of_run(self) -> bool:
        """Whether it is a test section of a run, which holds its own truth."""
        return bool(self.fold)

    @property
    def label(self) -> str:
        """The transform of the labels in words."""
        return self.label_settings.describe()

    @property
    def unit(self) -> str:
        """What the values are, in words."""
        return f"z, of {self.label}" if self.scale else self.label

    @property
    def title(self) -> str:
        """The network that predicted it, as tables print it."""
        return title_of(self.method, self.variant)

    @property
    def genes_of_panels(self) -> list[list[str]]:
        """:attr:`panels` as lists of genes."""
        return [panel.split() for panel in self.panels]

    def stored(self) -> dict[str, Any]:
        """Plain values, as ``uns["genedml"]`` holds them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {field.name: values[field.name] for field in fields(self) if values[field.name] != field.default}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
        coded = {"notes": texts_of(self.notes), "label_settings": to_dict(self.label_settings)}
        return {**plain, **coded, LABEL: self.label}


def record_of(data: anndata.AnnData) -> PredictionRecord:
    """The record of a prediction, decoded.

    Raises:
        GeneDMLError: it has none, or one with an entry that is unknown, missing or not sound.
    """
    stored = _plain(data.uns.get(KEY))
    if not isinstance(stored, dict):
        raise GeneDMLError("Its uns['genedml'] is no table.")
    record = from_dict(PredictionRecord, {key: value for key, value in stored.items() if key != LABEL})
    if stored.get(LABEL) != record.label:
        raise GeneDMLError("Its label is not the one that label_settings describe.")
    needed = (record.slide, record.slide_sha256, record.encoder, record.models, record.panels)
    if not (record.sample if record.of_run else all((*needed, *record.models, *record.genes_of_panels))):
        raise GeneDMLError("It names neither fold and sample nor slide, slide_sha256, encoder, models and panels.")
    return record


def set_record(data: anndata.AnnData, record: PredictionRecord) -> None:
    """Put a record in the place of a prediction's."""
    data.uns[KEY] = record.stored()


def _plain(value: Any) -> Any:
    """What an ``.h5ad`` gives for texts, numbers, lists and tables, as Python's own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
