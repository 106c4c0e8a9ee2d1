"""What must be said of a fold's model, and of all that it predicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata
import numpy as np

from genedml.config import Config
from genedml.networks.registry import network_class
from genedml_cli.datasets.datasets import DATASETS
from genedml_cli.datasets.folds import Fold
from genedml_cli.expression.counts import RAW, not_raw_note
from genedml_cli.features.section_data import SectionData
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.run_folder import in_words
from genedml_cli.prediction.ensemble import SCALE_TOLERANCE
from genedml_cli.spots.lattice import Lattice
from genedml_cli.spots.spots import LARGEST_PITCH_RATIO

ALL_NOTE = Note(
    Mark.ALL_SECTIONS,
    "the model was trained on every section of its run, so none is left to score it on; cross-validated scores beside "
    "it, if any, are of the run's folds, which saw fewer sections.",
)
LEAKS_NOTE = Note(Mark.LEAKING, "a patient is on both sides of a fold, so these scores say nothing of a new patient.")


def fold_notes(fold: Fold, config: Config, spots: Sequence[int]) -> list[Note | None]:
    """What must be said of whatever the fold's model predicts: who chose its epoch, who is on both sides, who was left
    out, what its settings do that the method's paper does not; ``spots``: labelled ones of the sections learnt from.
    """
    return [
        ALL_NOTE if fold.tests_nothing else None,
        _epoch_note(fold, config),
        LEAKS_NOTE if fold.leaks else None,
        fold.left_out_note,
        *(Note(None, text) for text in network_class(config.method).cautions(config.network, spots)),
    ]


def _epoch_note(fold: Fold, config: Config) -> Note:
    """How many epochs the fold's model was trained for, and what chose them."""
    if config.training.select_on == "test":
        return Note(Mark.CHOSEN_ON_TEST, "the epoch was chosen on the test sections, as published; scores flatter.")
    if fold.epochs_of_folds:
        each = ", ".join(f"{name} {epochs}" for name, epochs in fold.epochs_of_folds.items())
        chosen = f"Epochs: {config.training.epochs}, the median of those that the run's folds chose ({each})."
    elif not fold.validation:
        of, last = in_words(fold.name), config.training.epochs
        chosen = f"{of}: nothing was held out to choose the epoch, so it is the last, {last}."
    else:
        donors = {sample.donor for sample in fold.train}
        kind = "sections of the same donors" if any(s.donor in donors for s in fold.validation) else "donors"
        after = "neither the network nor its references learn from these"
        if config.training.refit:
            after = "then all were trained on"
        chosen = f"The epoch was chosen on {kind} held out inside the training folds; {after}."
    return Note(None, chosen)


def same_slides_note(fold: Fold, content: Mapping[str, str]) -> Note | None:
    """What must be said where a test section is, by its content, a slide of the training side under another name."""
    seen = {content[sample.name]: sample.name for sample in (*fold.train, *fold.validation)}
    tested = {sample.name: content[sample.name] for sample in fold.test}
    same = [f"{name} is the slide of {seen[sha256]}" for name, sha256 in tested.items() if sha256 in seen]
    return Note(Mark.LEAKING, f"{', '.join(same)}, which was trained on; scores flatter.") if same else None


def twins_note(fold: Fold, twins: Mapping[str, Sequence[str]]) -> Note | None:
    """What must be said where a test section is, by its counts, one of the training side under another name."""
    seen = {sample.name for sample in (*fold.train, *fold.validation)}
    same = [f"{one.name} is {name}" for one in fold.test for name in twins[one.name] if name in seen]
    text = f"by its counts {', '.join(same)} under another name, which was trained on; scores flatter."
    return Note(Mark.LEAKING, text) if same else None


def counts_note(fold: Fold, counts: Mapping[str, anndata.AnnData]) -> Note | None:
    """What must be said of sections whose counts are not raw."""
    used = [sample.name for sample in (*fold.train, *fold.validation, *fold.test)]
    not_raw = [name for name in used if not counts[name].uns[RAW]]
    return not_raw_note(not_raw) if not_raw else None


def scale_note(fitted: Sequence[SectionData], test: Sequence[SectionData], config: Config) -> Note | None:
    """What must be said where views in level-0 pixels show tissue at several sizes, or at unknown sizes."""
    if config.views.um_per_px != "native":
        return None
    scales = {data.sample.name: data.features.um_per_px or 0.0 for data in (*fitted, *test)}
    unknown = [name for name, um_per_px in scales.items() if not um_per_px]
    if unknown:
        return Note(Mark.SCALES, f"views are in level-0 pixels, and um/px of {', '.join(unknown)} is not known.")
    low, high = scales_of(fitted)
    tested = {data.sample.name: scales[data.sample.name] for data in test}
    away = {name: at for name, at in tested.items() if not low / SCALE_TOLERANCE <= at <= high * SCALE_TOLERANCE}
    listed = ", ".join(f"{name} ({um_per_px:.3g} um/px)" for name, um_per_px in away.items())
    trained = f"training sections of {low:.3g} to {high:.3g} um/px"
    if not away:
        return None
    return Note(Mark.SCALES, f"views are in level-0 pixels: {listed} meet {trained}, so tissue has another size.")


def scales_of(fitted: Sequence[SectionData]) -> tuple[float, ...]:
    """The smallest and the largest um/px of level 0, if any is known."""
    scales = [data.features.um_per_px for data in fitted if data.features.um_per_px is not None]
    return (min(scales), max(scales)) if scales else ()


def array_of(fitted: Sequence[SectionData]) -> tuple[Lattice, float] | None:
    """Packing of the sections' arrays and um between their spots; None where they are unlike or not known."""
    each = [(data.features.spots, data.features.um_per_px) for data in fitted]
    pitches_um = [spots.pitch_px * scale for spots, scale in each if scale is not None and spots.knows_pitch]
    packings = {spots.lattice for spots, _ in each}
    unknown = len(pitches_um) < len(each)
    if unknown or len(packings) > 1 or max(pitches_um) > LARGEST_PITCH_RATIO * min(pitches_um):
        return None
    return packings.pop(), round(float(np.mean(pitches_um)), 1)


def panel_note(panel: str, dataset: str) -> Note | None:
    """What must be said of genes that were chosen with the sections that a fold tests in view."""
    if panel in ("all", dataset):
        return Note(Mark.PANEL, "its genes were chosen by the counts of all sections, those tested among them.")
    if panel in DATASETS:
        text = (
            f"its genes were chosen by the counts of all sections of {panel}: those tested among them, if of {panel}."
        )
        return Note(Mark.PANEL, text)
    if panel != "training":
        return Note(
            Mark.PANEL, f"its genes are of {Path(panel).name}: nothing says which sections they were chosen by."
        )
    return None
