"""Runs and predictions -> pictures of named genes over the section. Letters: S spots, G genes shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
from jaxtyping import Float

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.evaluation.evaluation import finished_files, labels_of_prediction
from genedml_cli.figures.genes import draw_genes
from genedml_cli.figures.maps import USUAL_LOOK, Look, SectionPicture, check_colours
from genedml_cli.figures.style import check_picture_path
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import beside, refuse_overwriting_inputs
from genedml_cli.notes import Note, marks_of
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

    Args:
        targets: run folders, or ``.h5ad`` files that predict wrote of one slide.
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
    held = {name: _sections_of(run) for name, run in zip(_model_names(runs), runs, strict=True)}
    shared = [section for section in next(iter(held.values())) if all(section in files for files in held.values())]
    unknown = [section for section in sections if section not in shared]
    if unknown or not shared:
        raise GeneDMLError(
            f"{'Not in every run' if len(runs) > 1 else f'Not in {runs[0]}'}: {', '.join(unknown) or 'any section'}. "
            f"There are: {', '.join(shared) or 'none that all have'}."
        )
    pictures: list[SectionPicture] = []
    notes: list[Note] = []
    for section in sections or shared:
        models = {name: read_prediction(files[section]) for name, files in held.items()}
        for run, data in zip(runs, models.values(), strict=True):
            check_genes(genes, data, f"{run}", f"genedml evaluate {run} --per-gene")
        first = next(iter(models.values()))
        shown = {name: data[:, genes] for name, data in _alike(models).items()}
        same = _same({name: data.layers["truth"] for name, data in shown.items()})
        truth = _scaled(next(iter(shown.values())), same, scale)
        predicted = {name: _scaled(data, data.X, scale) for name, data in shown.items()}
        if ridge:
            predicted["ridge"] = _scaled(first[:, genes], first[:, genes].layers["ridge"], scale)
        add_tissue_of_run(first, runs[0], section)
        pictures.append(section_picture(section, first, truth, predicted))
        notes += [note for data in models.values() for note in record_of(data).notes]
    return pictures, _footnote(first, notes, scale)


def pictures_of_predictions(
    files: Sequence[Path], genes: Sequence[str], truth: Path | None, scale: str = LABEL_SCALE
) -> tuple[list[SectionPicture], str]:
    """The one section of predictions, and what must be said below its picture; arguments as for :func:`plot`.

    Raises:
        GeneDMLError: unknown genes, files of a run, or predictions that do not go together.
    """
    models = {name: read_prediction(file) for name, file in zip(_model_names(files), files, strict=True)}
    for file, data in zip(files, models.values(), strict=True):
        if record_of(data).of_run:
            raise GeneDMLError(f"{file} belongs to a run; plot the run's folder, with --sections {file.stem}.")
        check_genes(genes, data, f"{file}", f"scanpy.read_h5ad({str(file)!r}).var_names")
    slides = {record.slide_sha256: record.slide for record in map(record_of, models.values())}
    if len(slides) > 1:
        raise GeneDMLError(
            f"These are predictions of several slides: {', '.join(slides.values())}. Plot one at a time."
        )
    alike = _alike(models)
    truths = {name: labels_of_prediction(data, truth).y for name, data in alike.items()} if truth else {}
    column = {name: data.var_names.get_indexer(genes) for name, data in alike.items()}
    shown = _same({name: y[:, column[name]] for name, y in truths.items()}) if truths else None
    unmatched = [] if shown is None else [gene for gene, y in zip(genes, shown.T, strict=True) if np.isnan(y).all()]
    if unmatched:
        raise GeneDMLError(f"{truth} does not have {', '.join(unmatched)}. Leave them out, or leave out --truth.")
    selected = {name: data[:, column[name]] for name, data in alike.items()}
    predicted = {name: _scaled(data, data.X, scale) for name, data in selected.items()}
    shown = None if shown is None else _scaled(next(iter(selected.values())), shown, scale)
    first = next(iter(models.values()))
    notes = [note for data in models.values() for note in record_of(data).notes]
    name = files[0].stem if len(files) == 1 else Path(next(iter(slides.values()))).stem
    return [section_picture(name, first, shown, predicted)], _footnote(first, notes, scale)


def _scaled(data: anndata.AnnData, labels: Float[np.ndarray, "S G"], scale: str) -> Float[np.ndarray, "S G"]:
    return as_z(data, np.asarray(labels)) if scale == Z_SCALE else np.asarray(labels)


def _footnote(data: anndata.AnnData, notes: Sequence[Note], scale: str) -> str:
    """The unit of the values, and the notes that must stand in every picture."""
    record = record_of(data)
    unit = replace(record, scale=Z_SCALE).unit if scale == Z_SCALE else record.unit
    return f"Values: {unit}. {marks_of(notes)}".strip()


def _scale_note(pictures: Sequence[SectionPicture]) -> str:
    without = [picture.name for picture in pictures if picture.um_per_px is None]
    return f"No scale bar for {', '.join(without)}: its um/px is not known." if without else ""


def _sections_of(run: Path) -> dict[str, Path]:
    """The predictions of a run's finished folds, by the names of their sections."""
    return {file.stem: file for file in finished_files(run)}


def _model_names(targets: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    if len(targets) == 1:
        return [ONLY_MODEL]
    parts = [
        target.resolve().with_suffix("" if target.suffix == ".h5ad" else target.suffix).parts for target in targets
    ]
    if len(set(parts)) < len(parts):
        raise GeneDMLError("The same run or prediction is named twice.")
    ends = ([" / ".join(part[-count:]) for part in parts] for count in range(1, max(map(len, parts)) + 1))
    return next(names for names in ends if len(set(names)) == len(names))


def _alike(models: Mapping[str, anndata.AnnData]) -> dict[str, anndata.AnnData]:
    """The models' predictions with spots in the order of the first.

    Raises:
        GeneDMLError: other spots, or another label.
    """
    first = next(iter(models.values()))
    for name, data in models.items():
        if set(data.obs_names) != set(first.obs_names):
            raise GeneDMLError(f"{name} predicts other spots of this section than {next(iter(models))}.")
        label, label_of_first = record_of(data).label, record_of(first).label
        if label != label_of_first:
            raise GeneDMLError(
                f"{name} predicts {label}, but {next(iter(models))} {label_of_first}: these do not compare. "
                "Plot them one by one."
            )
    return {name: data[first.obs_names] for name, data in models.items()}


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
) -> SectionPicture:
    """A section as a row of a picture: of predictions as they were read, with their tissue if it is there."""
    if "spatial" in data.uns:
        entry = next(iter(data.uns["spatial"].values()))
        tissue, scale = entry["images"]["hires"], float(entry["scalefactors"]["tissue_hires_scalef"])
    else:
        tissue, scale = None, 1.0
    return SectionPicture(
        name,
        np.asarray(data.obsm["spatial"], dtype=np.float64),
        stored_spot_diameter_px(data),
        record_of(data).um_per_px,
        tissue,
        scale,
        truth,
        {model: np.asarray(values) for model, values in predicted.items()},
    )
