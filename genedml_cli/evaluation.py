"""Scores of a run or of one prediction, as tables.

Letters: S spots, M genes, F folds. The metrics' definitions are in METHOD section 6 and in :mod:`genedml_cli.metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.config import LabelsConfig, from_dict
from genedml.errors import GeneDMLError
from genedml_cli.expression import Labels, make_labels, read_counts
from genedml_cli.metrics import HIGH_GENES, column_nanmean, high_genes, nanmean, partial_pcc, pcc
from genedml_cli.results import spots_of
from genedml_cli.storage import write_json, write_text

GENE_DML, RIDGE, DEPTH, CONSTANT = "Gene-DML", "ridge", "depth alone", "constant"
EMPTY = "spots_without_panel_counts"
METRICS = {
    "mse": "MSE",
    "mae": "MAE",
    "pcc_a": "PCC(A)",
    "pcc_h": "PCC(H)",
    "pcc_h_held_out": "PCC(H) held out",
    "pcc_given_depth": "PCC given depth",
}


@dataclass(frozen=True)
class FoldScores:
    """Scores of one method in one fold: means over its test sections.

    ``held_out_pcc`` is each gene's PCC inside the training side, by which PCC(H) held out chooses its genes.
    """

    method: str
    fold: str
    genes: tuple[str, ...]
    mse: float
    mae: float
    pcc_a: float
    pcc_given_depth: float
    pcc: Float[np.ndarray, " M"]
    held_out_pcc: Float[np.ndarray, " M"] | None
    without_pcc: int


@dataclass(frozen=True)
class Evaluation:
    """Scores of every method in every fold, what must be said with them, and where they are written."""

    title: str
    scores: tuple[FoldScores, ...]
    notes: tuple[str, ...]
    folder: Path

    def values(self) -> pd.DataFrame:
        """One row for each method and fold, one column for each metric."""
        rows = []
        for method in dict.fromkeys(score.method for score in self.scores):
            own = [score for score in self.scores if score.method == method]
            high = _high_scores(own)
            for score, pcc_h in zip(own, high, strict=True):
                rows.append(
                    {
                        "method": method,
                        "fold": score.fold,
                        "mse": score.mse,
                        "mae": score.mae,
                        "pcc_a": score.pcc_a,
                        "pcc_h": pcc_h,
                        "pcc_h_held_out": _held_out_score(score),
                        "pcc_given_depth": score.pcc_given_depth,
                        "gene_sections_without_pcc": score.without_pcc,
                    }
                )
        return pd.DataFrame(rows).assign(marks=self.marks)

    @property
    def marks(self) -> str:
        """What must stand in every table of these scores: the notes that begin in capitals."""
        return " ".join(note for note in self.notes if note.split(":")[0].isupper() and not note.startswith("PCC"))

    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation over folds of every metric, a row for each method."""
        grouped = self.values().groupby("method", sort=False)[list(METRICS)]
        return grouped.agg(["mean", "std"])

    def per_gene(self) -> pd.DataFrame:
        """PCC of every gene: mean and standard deviation over folds for each method, best Gene-DML gene first."""
        tables = {}
        for method in (GENE_DML, RIDGE, DEPTH):
            own = [pd.Series(score.pcc, index=score.genes) for score in self.scores if score.method == method]
            if own:
                table = pd.concat(own, axis=1)
                name = method.lower().replace(" ", "_").replace("-", "_")
                tables[f"{name}_pcc"], tables[f"{name}_pcc_sd"] = table.mean(axis=1), table.std(axis=1)
        genes = pd.DataFrame(tables).rename_axis("gene").reset_index().assign(marks=self.marks)
        return genes.sort_values("gene_dml_pcc", ascending=False, kind="stable", ignore_index=True)

    def write(self) -> None:
        """``metrics.csv`` (method x fold), ``metrics.json`` (summary and notes) and ``genes.csv`` in ``folder``."""
        write_text(self.folder / "metrics.csv", self.values().to_csv(index=False))
        write_text(self.folder / "genes.csv", self.per_gene().to_csv(index=False))
        write_json(self.folder / "metrics.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Title, notes, mean and sd of every metric of every method."""
        summary = self.summary()
        methods = {
            method: {key: {"mean": row[(key, "mean")], "sd": row[(key, "std")]} for key in METRICS}
            for method, row in summary.iterrows()
        }
        return {"title": self.title, "notes": list(self.notes), "methods": methods}


def evaluate(target: Path | None = None, truth: Path | None = None) -> Evaluation:
    """Score a run folder (the newest under ``runs/`` if None), or a predicted ``.h5ad`` against its counts.

    Raises:
        GeneDMLError: an ``.h5ad`` without ``truth``, ``truth`` without an ``.h5ad``, or nothing there.
    """
    target = newest_run() if target is None else target
    if target.suffix != ".h5ad":
        if truth is not None:
            raise GeneDMLError(f"--truth goes with a predicted .h5ad; {target} is a run, which holds its own truth.")
        return evaluate_run(target)
    if truth is None:
        raise GeneDMLError(f"To score {target}, give the raw counts of its section with --truth.")
    return evaluate_prediction(target, truth)


def evaluate_run(run: Path) -> Evaluation:
    """Score a run folder by the predictions of its test sections, and write the tables into it.

    Raises:
        GeneDMLError: no such run, or none of its folds is finished.
    """
    files = sorted((run / "predictions").glob("*.h5ad"))
    if not files:
        raise GeneDMLError(f"{run} holds no finished fold. Train one with: genedml train --out {run} ...")
    sections = [anndata.read_h5ad(file) for file in files]
    folds: dict[str, list[anndata.AnnData]] = {}
    for section in sections:
        folds.setdefault(str(section.uns["genedml"]["fold"]), []).append(section)
    scores = [score for fold in sorted(folds, key=_natural) for score in _score_fold(fold, folds[fold])]
    evaluation = Evaluation(
        f"{run.name}: {len(sections)} sections, {len(folds)} folds", tuple(scores), _notes(sections), run
    )
    evaluation.write()
    return evaluation


def evaluate_prediction(prediction: Path, truth: Path) -> Evaluation:
    """Score one ``.h5ad`` that genedml predicted against the raw counts of its section; writes tables beside it.

    Raises:
        GeneDMLError: not a prediction of genedml, or counts that do not join.
    """
    try:
        data = anndata.read_h5ad(prediction)
        made_by = data.uns["genedml"]
        if "panels" not in made_by:
            raise GeneDMLError(f"{prediction} belongs to a run and holds its own truth; evaluate the run's folder.")
    except (OSError, KeyError, ValueError) as error:
        raise GeneDMLError(f"{prediction} is not a prediction of genedml: {error}.") from error
    labels = labels_of_prediction(data, truth)
    data.layers["truth"] = labels.y
    data.layers["constant"] = np.tile(data.var["training_mean"].to_numpy(np.float32), (data.n_obs, 1))
    data.obs["depth"] = labels.depth
    scores = _score_fold(prediction.stem, [data[labels.valid].copy()])
    notes = list(_notes([data]))
    if made_by["seen_in_training"]:
        notes.append(f"{made_by['seen_in_training']} of the models were trained on this very slide: scores flatter.")
    left_out = labels.without_counts + labels.empty
    if left_out:
        notes.append(f"{left_out} of {data.n_obs} spots are left out: they have no counts, or none in the panel.")
    folder = prediction.with_suffix(".evaluation")
    evaluation = Evaluation(f"{prediction.name} against {truth.name}", tuple(scores), tuple(notes), folder)
    evaluation.write()
    return evaluation


def labels_of_prediction(data: anndata.AnnData, counts: Path) -> Labels:
    """Labels of a prediction's spots and genes, by the transform it was made with.

    Raises:
        GeneDMLError: counts that do not join.
    """
    config = from_dict(LabelsConfig, _plain(data.uns["genedml"]["label_settings"]))
    table, spots = read_counts(counts), spots_of(data)
    # Folds may have panels of their own, so libraries of their own: the mean label goes with the mean prediction.
    panels = [panel.split() for panel in np.atleast_1d(data.uns["genedml"]["panels"])]
    each = [make_labels(table, spots, panel, config) for panel in panels]
    y = [labels.y[:, pd.Index(panel).get_indexer(data.var_names)] for labels, panel in zip(each, panels, strict=True)]
    valid = np.all([labels.valid for labels in each], axis=0)
    return replace(each[0], y=np.mean(y, axis=0), valid=valid, empty=int((~valid).sum()) - each[0].without_counts)


def newest_run(folder: Path = Path("runs")) -> Path:
    """The run folder below ``folder`` that was written last.

    Raises:
        GeneDMLError: there is none.
    """
    runs = [path.parent for path in folder.glob("*/predictions")]
    if not runs:
        raise GeneDMLError(f"There is no run below {folder}/. Name one: genedml evaluate RUN, or train one first.")
    return max(runs, key=lambda run: (run / "predictions").stat().st_mtime)


def _score_fold(fold: str, sections: Sequence[anndata.AnnData]) -> list[FoldScores]:
    methods = {GENE_DML: None, RIDGE: "ridge", DEPTH: "", CONSTANT: "constant"}
    kept = {name: layer for name, layer in methods.items() if not layer or layer in sections[0].layers}
    return [_score_method(name, layer, fold, sections) for name, layer in kept.items()]


def _score_method(name: str, layer: str | None, fold: str, sections: Sequence[anndata.AnnData]) -> FoldScores:
    plain, partial, squared, absolute = [], [], [], []
    for section in sections:
        truth, depth = section.layers["truth"], section.obs["depth"].to_numpy(dtype=float)
        if layer == "":
            predicted = np.tile(depth[:, None], (1, truth.shape[1]))
        else:
            predicted = section.X if layer is None else section.layers[layer]
        plain.append(pcc(truth, predicted))
        partial.append(partial_pcc(truth, predicted, depth))
        squared.append(np.nan if layer == "" else float(np.square(truth - predicted).mean()))
        absolute.append(np.nan if layer == "" else float(np.abs(truth - predicted).mean()))
    held_out = {GENE_DML: "held_out_pcc", RIDGE: "ridge_held_out_pcc"}.get(name)
    var = sections[0].var
    return FoldScores(
        name,
        fold,
        tuple(var.index),
        nanmean(squared),
        nanmean(absolute),
        nanmean([nanmean(genes) for genes in plain]),
        nanmean([nanmean(genes) for genes in partial]),
        column_nanmean(np.stack(plain)),
        var[held_out].to_numpy(dtype=float) if held_out in var else None,
        int(np.isnan(plain).sum()),
    )


def _high_scores(folds: Sequence[FoldScores]) -> list[float]:
    """PCC(H) of every fold: over the 50 genes with the best mean rank over all folds."""
    genes = [gene for gene in folds[0].genes if all(gene in set(fold.genes) for fold in folds)]
    table = np.stack([pd.Series(fold.pcc, index=fold.genes)[genes].to_numpy() for fold in folds])
    return [nanmean(row) for row in table[:, high_genes(table)]]


def _held_out_score(score: FoldScores) -> float:
    if score.held_out_pcc is None or np.isnan(score.held_out_pcc).all():
        return float("nan")
    return nanmean(score.pcc[high_genes(score.held_out_pcc[None])])


def _notes(sections: Sequence[anndata.AnnData]) -> tuple[str, ...]:
    made_by = [section.uns["genedml"] for section in sections]
    notes = [f"Label: {made_by[0]['label']}."]
    if any(entry.get("leaks", False) for entry in made_by):
        notes.append("LEAKING: a patient is on both sides of a fold, so these scores say nothing of a new patient.")
    if any(entry.get("select_on", "validation") == "test" for entry in made_by):
        notes.append("CHOSEN ON TEST: the epoch was chosen on the test sections, as published; scores flatter.")
    notes += sorted({str(entry[key]) for key in ("partial", "left_out") for entry in made_by if entry.get(key)})
    without = [sum(int(entry.get(key, 0)) for entry in made_by) for key in ("spots_without_counts", EMPTY)]
    if any(without):
        notes.append(f"Left out: {without[0]} spots without counts, {without[1]} without counts in the panel.")
    notes.append(
        f"PCC(H): the {HIGH_GENES} genes ranked best over the test folds; held out: ranked inside the training."
    )
    return tuple(notes)


def _natural(name: str) -> tuple[bool, float, str]:
    return (not name.isdigit(), float(name) if name.isdigit() else 0.0, name)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and strings as Python's own, after a journey through an ``.h5ad``."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
