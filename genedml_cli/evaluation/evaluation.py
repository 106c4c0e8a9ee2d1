"""Score a run or one prediction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.config import LabelsConfig, target_name
from genedml.errors import GeneDMLError
from genedml.metrics import HIGH_GENES
from genedml.networks.registry import title_of
from genedml_cli import console
from genedml_cli.datasets.samples import ALL_SECTIONS
from genedml_cli.evaluation import ceiling
from genedml_cli.evaluation.checklist import Evidence, checklist
from genedml_cli.evaluation.fold_scores import score_fold
from genedml_cli.evaluation.published import rows_beside
from genedml_cli.evaluation.scores import Evaluation, FoldScores, reference_notes, write_if_possible
from genedml_cli.expression.counts import not_raw_note, read_counts
from genedml_cli.expression.gene_map import with_gene_map
from genedml_cli.expression.labels import Labels, check_join, make_labels
from genedml_cli.expression.panels import match_panel
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.text_files import read_json
from genedml_cli.notes import Mark, Note, panels_note
from genedml_cli.outputs.prediction_file import NoLabelledSpotError, read_prediction
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import UNSMOOTHED, spots_of
from genedml_cli.outputs.run_folder import RECORD, model_file, read_record

NAMED_GENES = 5


@takes_paths
def evaluate(
    target: Path | None = None,
    truth: Path | None = None,
    with_ceiling: bool = False,
    gene_map: Path | None = None,
    ceiling_if_possible: bool = False,
) -> Evaluation:
    """Score a run folder (the newest under ``runs/`` if None), or a predicted ``.h5ad`` against its counts.

    ``with_ceiling`` and ``ceiling_if_possible`` as of :func:`evaluate_run`.

    Raises:
        GeneDMLError: nothing there, an ``.h5ad`` without ``truth``, or ``truth`` without an ``.h5ad``.
    """
    target = newest_run() if target is None else target
    if not target.exists():
        kind = "prediction" if target.suffix == ".h5ad" else "run"
        raise GeneDMLError(f"There is no {kind} {target}. Check the path: it starts at the current folder.")
    if target.suffix != ".h5ad":
        if truth is not None:
            raise GeneDMLError(f"--truth goes with a predicted .h5ad; {target} is a run, which holds its own truth.")
        return evaluate_run(target, with_ceiling, ceiling_if_possible)
    if truth is None:
        raise GeneDMLError(f"To score {target}, give the raw counts of its section with --truth.")
    return evaluate_prediction(target, truth, gene_map, with_ceiling, ceiling_if_possible)


@takes_paths
def evaluate_run(run: Path, with_ceiling: bool = False, ceiling_if_possible: bool = False) -> Evaluation:
    """Score a run folder by the predictions of its test sections, and write the tables into it, if it can be written.

    ``with_ceiling`` adds how far the labels of two halves of the counts agree (:mod:`genedml_cli.evaluation.ceiling`);
    with ``ceiling_if_possible`` the checklist says why, where the counts are not there or cannot be halved. What was
    computed once stays in the run, and in its scores.

    Raises:
        GeneDMLError: no such run, none of its folds is finished, or sections with different label transforms.
    """
    evaluation = score_run(run, finished_sections(run), with_ceiling, True, ceiling_if_possible)
    return replace(evaluation, written=write_if_possible(evaluation.write))


def finished_sections(run: Path) -> dict[Path, anndata.AnnData]:
    """The predicted test sections of a run's finished folds, by their files.

    Raises:
        GeneDMLError: no such run, or none of its folds is finished.
    """
    return {file: read_prediction(file) for file in finished_files(run)}


def finished_files(run: Path) -> list[Path]:
    """The predictions of a run's finished folds; says which sections are left out, as they have no labelled spot.

    Raises:
        GeneDMLError: no such run, none of its folds is finished, or nothing of it can be scored.
    """
    files, empty = [], []
    for file in sorted((run / "predictions").glob("*.h5ad")):
        try:
            fold = record_of(read_prediction(file)).fold
        except NoLabelledSpotError as error:
            empty.append(file.stem)
            console.warn(f"{error} It is left out.")
            continue
        # The checkpoint comes last: without it the fold was interrupted, and sections of it may be missing.
        if model_file(run, fold).exists():
            files.append(file)
    if not files:
        raise _nothing_to_score(run, empty)
    return files


def _nothing_to_score(run: Path, empty: Sequence[str]) -> GeneDMLError:
    """Why a run has no score; ``empty`` are its sections without a labelled spot."""
    if empty:
        return GeneDMLError(
            f"Nothing of {run} can be scored: no spot of {', '.join(empty)} has counts in the panel. Train again into "
            "another --out, with the counts of that section or without it."
        )
    if model_file(run, ALL_SECTIONS).is_file():
        return GeneDMLError(
            f"{run} holds a model of all sections only, so there is none to score it on. Train folds beside it "
            f"(genedml train --out {run} ...), or score it on sections of other donors: --external SHEET."
        )
    if any(run.glob("*.h5ad")):
        return GeneDMLError(f"{run} holds no finished fold, but predictions: name one; --truth COUNTS scores it.")
    return GeneDMLError(f"{run} holds no finished fold. Train one with: genedml train --out {run} ...")


def score_run(
    run: Path,
    finished: Mapping[Path, anndata.AnnData],
    with_ceiling: bool = False,
    full: bool = False,
    ceiling_if_possible: bool = False,
) -> Evaluation:
    """Score :func:`finished_sections` of a run; writes nothing. Without ``full`` only what a comparison shows.

    ``with_ceiling`` and ``ceiling_if_possible`` as of :func:`evaluate_run`.

    Raises:
        GeneDMLError: sections with different label transforms or of different methods.
    """
    sections = list(finished.values())
    records = {file: record_of(section) for file, section in finished.items()}
    labels = {file: record.label for file, record in records.items()}
    _check_common("labels", labels, "scores of different labels never stand in one table")
    methods = {file: title_of(record.method) for file, record in records.items()}
    _check_common("method", methods, "folds of two methods are never averaged")
    first = max(records.values(), key=lambda record: record.variant)  # of folds of earlier versions it is empty
    folds: dict[str, list[anndata.AnnData]] = {}
    for file in sorted(records, key=lambda file: _natural(records[file].fold)):
        folds.setdefault(records[file].fold, []).append(finished[file])
    scores = [score for fold, of_fold in folds.items() for score in score_fold(fold, of_fold, first.title, full)]
    compute = with_ceiling or ceiling_if_possible
    split = partial(ceiling.split_halves, run, folds, compute)
    halves, no_ceiling = halves_if_possible(split, with_ceiling) if full else ((), "")
    dataset, panels = first.dataset, [section.var_names for section in sections]
    published, published_notes = rows_beside(dataset, first.label_settings, panels)
    evaluation = Evaluation(
        f"{run.name}: {console.count(len(sections), 'section')}, {console.count(len(folds), 'fold')}"
        + (f" of {dataset}" if dataset else ""),
        tuple(scores),
        (
            *_notes(sections),
            *reference_notes(scores),
            *unfinished_notes(run, folds),
            *_notes_of_models(run, sections),
            *published_notes,
            *([ceiling.NOTE] if halves else []),
        ),
        run,
        published,
        halves,
        network=first.method,
    )
    evidence = Evidence(evaluation, sections, _donors(run), no_ceiling)
    return replace(evaluation, checklist=checklist(evidence)) if full else evaluation


def halves_if_possible(
    split: Callable[[], tuple[FoldScores, ...]], asked_for: bool
) -> tuple[tuple[FoldScores, ...], str]:
    """Split halves of labels; where they cannot be had, and are not ``asked_for``, none, and why."""
    try:
        return split(), ""
    except GeneDMLError as error:
        if asked_for:
            raise
        console.warn(f"Without the ceiling: {error}")
        return (), str(error)


def _donors(run: Path) -> frozenset[str]:
    """The donors of all sections of a run; none of models put together by hand."""
    if not (run / RECORD).is_file():
        return frozenset()
    return frozenset(str(sample.get("donor", "")) for sample in read_record(run)["samples"]) - {""}


@takes_paths
def evaluate_prediction(
    prediction: Path,
    truth: Path,
    gene_map: Path | None = None,
    with_ceiling: bool = False,
    ceiling_if_possible: bool = False,
) -> Evaluation:
    """Score one ``.h5ad`` that genedml predicted against the raw counts of its section; writes tables beside it.

    ``with_ceiling`` and ``ceiling_if_possible`` as of :func:`evaluate_run`.

    Raises:
        GeneDMLError: not a prediction of genedml, or counts that do not join.
    """
    evaluation, _ = score_prediction(prediction, truth, gene_map, with_ceiling, ceiling_if_possible)
    before = evaluation.folder / "metrics.json"
    if before.is_file() and read_json(before).get("title") != evaluation.title:
        console.warn(f"The scores in {evaluation.folder} were of {read_json(before).get('title')}; they are replaced.")
    return replace(evaluation, written=write_if_possible(evaluation.write))


def score_prediction(
    prediction: Path,
    truth: Path,
    gene_map: Path | None = None,
    with_ceiling: bool = False,
    ceiling_if_possible: bool = False,
) -> tuple[Evaluation, anndata.AnnData]:
    """Scores of :func:`evaluate_prediction`, unwritten, and the prediction with its truth and references as layers.

    ``layers["truth"]`` is NaN where a gene or a spot has no counts.

    Raises:
        GeneDMLError: not a prediction of genedml, or counts that do not join.
    """
    data = read_prediction(prediction)
    record = record_of(data)
    if record.of_run:
        raise GeneDMLError(f"{prediction} belongs to a run and holds its own truth; evaluate the run's folder.")
    panels = {gene for panel in record.genes_of_panels for gene in panel}
    if not panels >= set(data.var_names):
        raise GeneDMLError(f"{prediction} has genes that no panel of its models has: were they renamed? Predict again.")
    counts = with_gene_map(read_counts(truth), gene_map)
    try:
        labels = labels_of_prediction(data, counts)
    except GeneDMLError as error:
        error.add_note(f"The spots are of {prediction}, the counts of {truth}.")
        raise
    joined = check_join(labels, prediction.name, truth)
    data.layers["truth"], data.layers[UNSMOOTHED] = labels.y, labels.unsmoothed
    mean, slope, intercept = data.var[["training_mean", "depth_slope", "depth_intercept"]].to_numpy().T
    data.layers["constant"] = np.tile(mean, (data.n_obs, 1))
    data.layers["depth_alone"] = labels.depth[:, None] * slope + intercept
    data.obs["depth"] = labels.depth
    matched = ~np.isnan(labels.y[labels.valid]).any(axis=0)
    unmatched = tuple(data.var_names[~matched])
    scores = score_fold(prediction.stem, [data[labels.valid, matched].copy()], record.title, full=True)
    notes = [*_notes([data]), *reference_notes(scores, folds=False), *unmatched_notes(unmatched, data.n_vars)]
    if not labels.raw:
        notes.append(not_raw_note([truth.name]))
    notes += [joined] if joined else []
    left_out = labels.without_counts + labels.empty
    if left_out:
        notes.append(left_out_note(left_out, data.n_obs))
    folder = prediction.with_suffix(".evaluation")
    title = f"{prediction.name} against {truth.name}"
    halves: tuple[FoldScores, ...] = ()
    no_ceiling = ""
    if with_ceiling or ceiling_if_possible:

        def split() -> tuple[FoldScores, ...]:
            scored = ceiling.split_half_pcc(
                counts, lambda table: labels_of_prediction(data, table), ceiling.seed_of(prediction.stem)
            )
            genes = tuple(data.var_names[matched])
            return (ceiling.halves_of_fold(prediction.stem, genes, [tuple(of[matched] for of in scored)]),)

        halves, no_ceiling = halves_if_possible(split, with_ceiling)
        notes += [ceiling.NOTE] if halves else []
    evaluation = Evaluation(title, tuple(scores), tuple(notes), folder, split_halves=halves, unmatched=unmatched)
    return replace(evaluation, checklist=checklist(Evidence(evaluation, [data], no_ceiling=no_ceiling))), data


def labels_of_prediction(data: anndata.AnnData, table: anndata.AnnData) -> Labels:
    """Labels of a prediction's spots and genes, by the transform it was made with.

    A gene that the counts do not have is NaN in every spot; a library over the panel is then over its other genes.

    Raises:
        GeneDMLError: counts that do not join, as those of a grid; or that have too few of the genes.
    """
    record, spots = record_of(data), spots_of(data)
    if record.grid and not np.isin(spots.names, table.obs_names).any():
        raise GeneDMLError(
            "The spots of a grid have no truth: counts are of measured spots. Predict at these: genedml predict "
            f"{record.slide} --spots FILE -o NEW.h5ad"
        )
    # Folds may have panels of their own, so libraries of their own: the mean label goes with the mean prediction.
    panels = [match_panel(table, panel)[0] for panel in record.genes_of_panels]
    each = [make_labels(table, spots, genes, record.label_settings) for genes in panels]

    def mean(tables: Sequence[Float[np.ndarray, "S _"]]) -> Float[np.ndarray, "S M"]:
        pairs = zip(tables, panels, strict=True)
        return np.mean([pd.DataFrame(y, columns=genes).reindex(columns=data.var_names) for y, genes in pairs], axis=0)

    valid = np.all([labels.valid for labels in each], axis=0)
    return replace(
        each[0],
        y=mean([labels.y for labels in each]),
        unsmoothed=mean([labels.unsmoothed for labels in each]),
        counts=None,
        valid=valid,
        empty=int((~valid).sum()) - each[0].without_counts,
    )


def newest_run(folder: Path = Path("runs")) -> Path:
    """The run folder below ``folder`` that was written last.

    Raises:
        GeneDMLError: there is none.
    """
    runs = [path.parent for path in folder.glob("*/predictions")]
    if not runs:
        raise GeneDMLError(f"There is no run below {folder}/. Name one: genedml evaluate RUN, or train one first.")
    return max(runs, key=lambda run: (run / "predictions").stat().st_mtime)


def label_note(labels: LabelsConfig) -> Note:
    """The label transform, and its name if it has one."""
    name = target_name(labels)
    return Note(None, f"Label{f' ({name})' if name else ''}: {labels.describe()}.")


def left_out_note(left_out: int, spots: int) -> Note:
    """What must be said where a section is scored on a part of its spots."""
    return Note(None, f"{left_out} of {spots} spots are left out: they have no counts, or none in the panel.")


def unmatched_notes(unmatched: Sequence[str], of: int) -> list[Note]:
    """What must be said where counts lack genes of the panel."""
    if not unmatched:
        return []
    named = ", ".join(unmatched[:NAMED_GENES]) + (", ..." if len(unmatched) > NAMED_GENES else "")
    text = (
        f"Genes: {of - len(unmatched)} of the panel's {of} are in the counts; not there: {named} (all in metrics.json)."
        " The rest are scored; a library over the panel is over them."
    )
    return [Note(None, text)]


def _check_common(what: str, values: Mapping[Path, str], why: str) -> None:
    """Refuse files of one table that differ in ``what``."""
    (first, common), *others = values.items()
    for file, value in others:
        if value != common:
            raise GeneDMLError(
                f"{file} has {what} {value}, but {first} has {common}: {why}. Give each its own run folder."
            )


def unfinished_notes(run: Path, finished: Collection[str]) -> list[Note]:
    """What must be said of a run of which folds are missing."""
    if not (run / RECORD).is_file() or ALL_SECTIONS in finished:  # models put together by hand
        return []
    every = {sample["fold"] for sample in read_record(run)["samples"]}
    note = Note(Mark.UNFINISHED, f"{len(finished)} of {len(every)} folds.")
    return [note] if len(finished) < len(every) else []


def _notes_of_models(run: Path, sections: Sequence[anndata.AnnData]) -> list[Note]:
    """What sets the models that predict other slides apart from those that are scored here."""
    notes = []
    panels = [set(section.var_names) for section in sections]
    shared = set.intersection(*panels)
    if model_file(run, ALL_SECTIONS).is_file():
        text = "These are scores of the folds' models; predict takes the one of all sections, which has none."
        notes.append(Note(None, text))
    elif any(panel != shared for panel in panels):
        notes.append(panels_note(len(shared), max(len(panel) for panel in panels)))
    return notes


def _notes(sections: Sequence[anndata.AnnData]) -> tuple[Note, ...]:
    records = [record_of(section) for section in sections]
    notes = [label_note(records[0].label_settings)]
    notes += dict.fromkeys(note for record in records for note in record.notes)
    without_counts = sum(record.spots_without_counts or 0 for record in records)
    without_panel = sum(record.spots_without_panel_counts or 0 for record in records)
    if without_counts or without_panel:
        text = f"Left out: {without_counts} spots without counts, {without_panel} without counts in the panel."
        notes.append(Note(None, text))
    where = "over the test folds" if records[0].of_run else "on this very section"
    text = f"The {HIGH_GENES} genes of PCC(H) are those ranked best {where}; held out: ranked inside the training."
    return (*notes, Note(None, text))


def _natural(name: str) -> tuple[bool, float, str]:
    return (not name.isdigit(), float(name) if name.isdigit() else 0.0, name)
