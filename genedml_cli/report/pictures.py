"""Runs and predictions -> pictures of named genes over the section. Letters: S spots, G genes shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.evaluation.evaluation import finished_files, labels_of_prediction
from genedml_cli.evaluation.run_comparison import names_beside
from genedml_cli.expression.counts import read_counts
from genedml_cli.figures.genes import draw_genes
from genedml_cli.figures.maps import USUAL_LOOK, Look, SectionPicture, check_colours
from genedml_cli.figures.style import check_picture_path
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import beside, refuse_overwriting_inputs
from genedml_cli.notes import Note, names_of_marks
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import (
    LABEL_SCALE,
    Z_SCALE,
    add_tissue_image,
    as_z,
    check_genes,
    spots_of,
    stored_spot_diameter_px,
)
from genedml_cli.outputs.run_folder import CONTENT, RECORD, read_record
from genedml_cli.slides.patches import PATCHES_SUFFIX
from genedml_cli.slides.slide_files import content_sha256
from genedml_cli.spots.section import open_section

ONLY_MODEL = "predicted"
SAME_PLACE_PX = 1.0
"""Files of one section may keep places as whole numbers."""


@takes_paths
def plot(
    targets: Sequence[Path],
    genes: Sequence[str],
    out: Path | None = None,
    *,
    sections: Sequence[str] = (),
    truth: Path | None = None,
    ridge: bool = False,
    scale: str = LABEL_SCALE,
    look: Look = USUAL_LOOK,
    spot_size: float = 1.0,
) -> tuple[Path, int]:
    """Draw truth and prediction of genes over the section: a grid of genes, and of each a row a section.

    Several predictions of one section make a table: a row a gene, a column a method.

    Args:
        targets: run folders; or ``.h5ad`` files of one section, that predict wrote or a run holds.
        genes: which.
        out: ``.png``, ``.pdf`` or ``.svg``; if None, ``genes.png`` as :func:`genedml_cli.files.storage.beside` says.
        sections: of the runs; all if empty.
        truth: raw counts of the slide of ``.h5ad`` files, which have none of their own.
        ridge: also the ridge reference of the first run.
        scale: ``label``, or ``z``, by which genes compare with each other.
        look: colours, their scale, and genes beside each other.
        spot_size: diameter of the spots drawn, over their true diameter.

    Returns:
        The picture, and how many sections are on it.

    Raises:
        GeneDMLError: unknown genes, sections or colours, targets that are not there or do not go together; nothing is
            written then.
    """
    if not genes:
        raise GeneDMLError("Name the genes to draw, such as --genes GNAS,FASN.")
    _check_there(targets, genes)
    out = beside(targets[0], "genes.png") if out is None else out
    check_picture_path(out)
    check_colours(look.colours)
    files = [target.suffix == ".h5ad" for target in targets]
    if any(files) and not all(files):
        raise GeneDMLError("Give run folders or predicted .h5ad files, not both: only runs hold their own truth.")
    if all(files):
        if sections or ridge:
            raise GeneDMLError("--sections and --ridge go with run folders; a predicted .h5ad is one section.")
        pictures, footnote = pictures_of_predictions(targets, genes, truth, scale)
    else:
        if truth is not None:
            raise GeneDMLError(
                f"--truth goes with a predicted .h5ad; {targets[0]} is a run, which holds its own truth."
            )
        pictures, footnote = pictures_of_runs(targets, genes, sections, ridge, scale)
        refuse_overwriting_inputs([out], (Path(one["slide"]) for run in targets for one in read_record(run)["samples"]))
    pictures = [replace(picture, spot_px=picture.spot_px * spot_size) for picture in pictures]
    draw_genes(pictures, genes, out, " ".join(filter(None, (footnote, _scale_note(pictures)))), look)
    return out, len(pictures)


def _check_there(targets: Sequence[Path], genes: Sequence[str]) -> None:
    """Refuse runs and predictions that are not there; a word that may be a gene is told how to be one.

    Raises:
        GeneDMLError: naming the first of them.
    """
    for target in targets:
        if not target.exists():
            words = ",".join([*genes, *(str(lost) for lost in targets if not lost.exists())])
            is_word = len(targets) > 1 and len(target.parts) == 1 and target.suffix != ".h5ad"
            advice = f" If it is a gene, put commas between genes: --genes {words}" if is_word else ""
            raise GeneDMLError(f"There is no run or prediction {target}.{advice}")


def pictures_of_runs(
    runs: Sequence[Path], genes: Sequence[str], sections: Sequence[str], ridge: bool, scale: str = LABEL_SCALE
) -> tuple[list[SectionPicture], str]:
    """The sections of runs, and what must be said below their picture; arguments as for :func:`plot`.

    Raises:
        GeneDMLError: unknown genes or sections, or runs that do not go together.
    """
    _check_named_once(runs)
    held = [{file.stem: file for file in finished_files(run)} for run in runs]
    shared = [section for section in held[0] if all(section in files for files in held)]
    unknown = [section for section in sections if section not in shared]
    if unknown or not shared:
        raise GeneDMLError(
            f"{'Not in every run' if len(runs) > 1 else f'Not in {runs[0]}'}: {', '.join(unknown) or 'any section'}. "
            f"There are: {', '.join(shared) or 'none that all have'}."
        )
    pictures: list[SectionPicture] = []
    notes: list[Note] = []
    for section in sections or shared:
        predictions = [read_prediction(files[section]) for files in held]
        for run, data in zip(runs, predictions, strict=True):
            check_genes(genes, data, f"{run}", f"genedml evaluate {run} --per-gene")
        models = alike(_model_names(runs, predictions), predictions)
        truth, predicted = _values(models, genes, None, scale)
        if ridge:
            first = predictions[0][:, genes]
            predicted["ridge"] = _scaled(first, first.layers["ridge"], scale)
        add_tissue_of_run(predictions[0], runs[0], section)
        pictures.append(section_picture(section, predictions[0], truth, predicted, scale))
        notes += [note for data in predictions for note in record_of(data).notes]
    return pictures, _footnote(notes)


def pictures_of_predictions(
    files: Sequence[Path], genes: Sequence[str], truth: Path | None, scale: str = LABEL_SCALE
) -> tuple[list[SectionPicture], str]:
    """The one section of predictions, and what must be said below its picture; arguments as for :func:`plot`.

    Raises:
        GeneDMLError: unknown genes, or predictions that do not go together.
    """
    _check_named_once(files)
    predictions = [read_prediction(file) for file in files]
    for file, data in zip(files, predictions, strict=True):
        check_genes(genes, data, f"{file}", f"scanpy.read_h5ad({str(file)!r}).var_names")
    records = [record_of(data) for data in predictions]
    if truth is not None and all(record.of_run for record in records):
        raise GeneDMLError(f"--truth goes with what predict wrote; {files[0]} is of a run and holds its own truth.")
    slides = {record.slide_sha256 or record.sample: record.slide or record.sample for record in records}
    if len({record.of_run for record in records}) == 1 and len(slides) > 1:
        raise GeneDMLError(
            f"These are predictions of several slides: {', '.join(slides.values())}. Plot one at a time."
        )
    known, predicted = _values(alike(_model_names(files, predictions), predictions), genes, truth, scale)
    if records[0].of_run and (files[0].parent.parent / RECORD).is_file():
        add_tissue_of_run(predictions[0], files[0].parent.parent, records[0].sample)
    notes = [note for record in records for note in record.notes]
    name = files[0].stem if len(files) == 1 else Path(next(iter(slides.values()))).stem
    return [section_picture(name, predictions[0], known, predicted, scale)], _footnote(notes)


def _values(
    models: Mapping[str, anndata.AnnData], genes: Sequence[str], counts: Path | None, scale: str
) -> tuple[Float[np.ndarray, "S G"] | None, dict[str, Float[np.ndarray, "S G"]]]:
    """The one truth of models, their own or made from counts, where there is one; and what each of them predicts.

    Raises:
        GeneDMLError: the counts lack a gene, or the models' truths differ.
    """
    column = {name: data.var_names.get_indexer(list(genes)) for name, data in models.items()}
    truths = {}
    for name, data in models.items():
        if "truth" in data.layers:
            truths[name] = np.asarray(data.layers["truth"])[:, column[name]]
        elif counts is not None:
            truths[name] = labels_of_prediction(data, read_counts(counts)).y[:, column[name]]
    truth = _same(truths) if truths else None
    unmatched = [] if truth is None else [gene for gene, y in zip(genes, truth.T, strict=True) if np.isnan(y).all()]
    if unmatched and counts is not None:
        raise GeneDMLError(f"{counts} does not have {', '.join(unmatched)}. Leave them out, or leave out --truth.")
    shown = {name: data[:, column[name]] for name, data in models.items()}
    predicted = {name: _scaled(data, data.X, scale) for name, data in shown.items()}
    return None if truth is None else _scaled(next(iter(shown.values())), truth, scale), predicted


def _scaled(data: anndata.AnnData, labels: Float[np.ndarray, "S G"], scale: str) -> Float[np.ndarray, "S G"]:
    return as_z(data, np.asarray(labels)) if scale == Z_SCALE else np.asarray(labels)


def _footnote(notes: Sequence[Note]) -> str:
    """The marks that must stand in every picture; what they say is told on the terminal, since it is long."""
    for note in dict.fromkeys(note for note in notes if note.warns):
        console.warn(str(note))
    marks = names_of_marks(notes)
    return f"Marks: {marks}." if marks else ""


def _scale_note(pictures: Sequence[SectionPicture]) -> str:
    without = [picture.name for picture in pictures if picture.um_per_px is None]
    return f"No scale bar for {', '.join(without)}: its um/px is not known." if without else ""


def _check_named_once(targets: Sequence[Path]) -> None:
    if len({target.resolve() for target in targets}) < len(targets):
        raise GeneDMLError("The same run or prediction is named twice.")


def _model_names(targets: Sequence[Path], predictions: Sequence[anndata.AnnData]) -> list[str]:
    if len(targets) == 1:
        return [ONLY_MODEL]
    return names_beside(targets, [record_of(data).title for data in predictions])


def alike(names: Sequence[str], predictions: Sequence[anndata.AnnData]) -> dict[str, anndata.AnnData]:
    """Predictions of one section by their names, with spots in the order of the first.

    Raises:
        GeneDMLError: other spots, or another label.
    """
    first = predictions[0]
    label, places = record_of(first).label, pd.DataFrame(first.obsm["spatial"], first.obs_names)
    for name, data in zip(names, predictions, strict=True):
        if set(data.obs_names) != set(first.obs_names):
            raise GeneDMLError(f"{name} predicts other spots of this section than {names[0]}. Plot them one by one.")
        if not np.allclose(places.loc[data.obs_names], data.obsm["spatial"], atol=SAME_PLACE_PX):
            raise GeneDMLError(
                f"{name} has spots at other places than {names[0]}: another section? Plot them one by one."
            )
        if record_of(data).label != label:
            raise GeneDMLError(
                f"{name} predicts {record_of(data).label}, but {names[0]} {label}: these do not compare. Plot them one "
                "by one."
            )
    return {name: data[first.obs_names] for name, data in zip(names, predictions, strict=True)}


def _same(truths: Mapping[str, Float[np.ndarray, "S G"]]) -> Float[np.ndarray, "S G"]:
    """The one truth of all models.

    Raises:
        GeneDMLError: models of other gene panels, whose labels differ.
    """
    first = np.asarray(next(iter(truths.values())))
    for name, truth in truths.items():
        if not np.allclose(first, truth, atol=1e-4, equal_nan=True):
            raise GeneDMLError(
                f"{name} was trained on another gene panel than {next(iter(truths))}, so its labels differ. "
                "Plot them one by one."
            )
    return first


def add_tissue_of_run(data: anndata.AnnData, run: Path, section: str) -> None:
    """Give a run's section its image, where its slide is still where it was trained from, and still that one.

    Raises:
        GeneDMLError: the record of the run cannot be read, or has no such section.
    """
    sample = next((one for one in read_record(run)["samples"] if one["name"] == section), None)
    if sample is None:
        raise GeneDMLError(f"{run / RECORD} does not name the section {section}. Copy the run again, or train again.")
    slide = Path(sample["slide"])
    if not slide.is_file():
        console.note(f"{slide} is not there from this folder, so {section} is drawn without its tissue.")
    elif slide.suffix == PATCHES_SUFFIX:  # tiles alone
        return
    elif content_sha256(slide) != sample.get(f"slide{CONTENT}"):
        console.warn(f"{slide} is another by now than {section} was trained on, so it is drawn without its tissue.")
    else:
        spots = spots_of(data)
        with open_section(slide, spots, scale_needed=False) as opened:
            add_tissue_image(data, opened, spots)


def section_picture(
    name: str,
    data: anndata.AnnData,
    truth: Float[np.ndarray, "S G"] | None,
    predicted: Mapping[str, Float[np.ndarray, "S G"]],
    scale: str = LABEL_SCALE,
) -> SectionPicture:
    """A section as a row of a picture: of predictions as they were read, with their tissue if it is there."""
    if "spatial" in data.uns:
        entry = next(iter(data.uns["spatial"].values()))
        tissue, tissue_scale = entry["images"]["hires"], float(entry["scalefactors"]["tissue_hires_scalef"])
    else:
        tissue, tissue_scale = None, 1.0
    record = record_of(data)
    return SectionPicture(
        name,
        np.asarray(data.obsm["spatial"], dtype=np.float64),
        stored_spot_diameter_px(data),
        record.um_per_px,
        tissue,
        tissue_scale,
        truth,
        {model: np.asarray(values) for model, values in predicted.items()},
        "z" if Z_SCALE in (scale, record.scale) else record.label_settings.unit,
    )
