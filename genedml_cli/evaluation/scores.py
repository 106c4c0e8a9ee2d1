"""Scores of every method in every fold, and their tables.

Letters: S spots, M genes, F folds. The metrics' definitions are in METHOD section 6 and in :mod:`genedml.metrics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.errors import GeneDMLError
from genedml.metrics import attainable, column_nanmean, high_genes, nanmean, partial_pcc, pcc
from genedml_cli import console
from genedml_cli.evaluation.published import PublishedRow, published_table
from genedml_cli.files.storage import write_json, write_text
from genedml_cli.notes import Note, marks_of, texts_of
from genedml_cli.outputs.reference_layers import REFERENCES, held_out_column

RIDGE, DEPTH, CONSTANT = (REFERENCES[layer].title for layer in ("ridge", "depth_alone", "constant"))
OWN_TILE, NUCLEI = (REFERENCES[layer].title for layer in ("ridge_own_tile", "nuclei_alone"))
SPLIT_HALVES, ATTAINABLE = "split halves", "attainable"
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
    """Scores of one method in one fold.

    ``mse`` and ``mae`` are means over the genes and all spots of its test sections, so that a section weighs what it
    has of spots. Of PCC, which is within a section, it is the mean over the test sections. ``held_out_pcc`` is each
    gene's PCC inside the training side, by which PCC(H) held out chooses its genes.
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
    """Scores of every method in every fold, what must be said with them, and where they are written.

    Args:
        title: what was scored.
        scores: of every method and fold, those of the network that is scored first.
        notes: what must be said with them.
        folder: where the tables are written.
        published: rows of the paper to stand beside.
        split_halves: how far the labels of two halves of the counts agree in every fold, if that was asked for.
        unmatched: genes of the panel that the counts do not have.
        written: whether the tables are in ``folder``; not so where it cannot be written.
    """

    title: str
    scores: tuple[FoldScores, ...]
    notes: tuple[Note, ...]
    folder: Path
    published: tuple[PublishedRow, ...] = ()
    split_halves: tuple[FoldScores, ...] = ()
    unmatched: tuple[str, ...] = ()
    written: bool = True

    @property
    def method(self) -> str:
        """The network that is scored; the others are references."""
        return self.scores[0].method

    def values(self) -> pd.DataFrame:
        """One row for each method and fold, one column for each metric; of what was measured only."""
        table = _values(self.scores)
        if self.split_halves:
            halves = _values(self.split_halves)
            scores = [key for key in METRICS if key.startswith("pcc")]
            ceiling = halves.assign(method=ATTAINABLE, **{key: attainable(halves[key].to_numpy()) for key in scores})
            table = pd.concat([table, halves, ceiling], ignore_index=True)
        return table.assign(marks=self.marks)

    @property
    def marks(self) -> str:
        """What must stand in every table of these scores."""
        return marks_of(self.notes)

    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation over folds of every metric, a row for each method."""
        grouped = self.values().groupby("method", sort=False)[list(METRICS)]
        return grouped.agg(["mean", "std"])

    def per_gene(self) -> pd.DataFrame:
        """PCC of every gene, best first: mean and sd over folds, ``pcc`` of the network, ``ridge_pcc`` and so on."""
        tables = {}
        every = (*self.scores, *self.split_halves)
        references = [reference.title for reference in REFERENCES.values() if reference.title != CONSTANT]
        for method in (self.method, *references, SPLIT_HALVES):
            own = [pd.Series(score.pcc, index=score.genes) for score in every if score.method == method]
            if own:
                table = pd.concat(own, axis=1)
                name = "pcc" if method == self.method else f"{method.replace(' ', '_')}_pcc"
                tables[name], tables[f"{name}_sd"] = table.mean(axis=1), table.std(axis=1)
        genes = pd.DataFrame(tables).rename_axis("gene").reset_index().assign(marks=self.marks)
        return genes.sort_values("pcc", ascending=False, kind="stable", ignore_index=True)

    def write(self) -> None:
        """``metrics.csv`` (method x fold), ``metrics.json`` (summary and notes) and ``genes.csv`` in ``folder``.

        The paper's rows follow the measured ones in ``metrics.csv``, told apart by the column ``source``, their mean
        and sd in the place of folds; in ``metrics.json`` they are ``published``, the measured ones ``methods``.
        """
        table = self.values()
        table.insert(0, "source", "measured")
        table = pd.concat([table, published_table(self.published)], ignore_index=True)
        write_text(self.folder / "metrics.csv", table.to_csv(index=False))
        write_text(self.folder / "genes.csv", self.per_gene().to_csv(index=False))
        write_json(self.folder / "metrics.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Title, notes, mean and sd of every metric of every method, the paper's rows apart."""
        summary = self.summary()
        methods = {
            method: {key: {"mean": row[(key, "mean")], "sd": row[(key, "std")]} for key in METRICS}
            for method, row in summary.iterrows()
        }
        published = [row.to_dict() for row in self.published]
        known = {"title": self.title, "notes": texts_of(self.notes), "methods": methods, "published": published}
        return known | {"unmatched_genes": list(self.unmatched)}


def write_if_possible(write: Callable[[], None]) -> bool:
    """Write tables of scores; where their folder cannot be written, warn that they are not kept, and return False."""
    try:
        write()
    except GeneDMLError as error:
        console.warn(f"The scores are not kept: {error}")
        return False
    return True


def reference_notes(scores: Sequence[FoldScores]) -> list[Note]:
    """What must be said where ridge or depth alone scores higher than the network: in PCC(A), else in PCC(H).

    And of a row that is missing, since it is of one encoder alone.
    """
    means = _values(scores).groupby("method")[["pcc_a", "pcc_h"]].mean()
    notes = []
    for method, name in ((RIDGE, "Ridge regression on the same features"), (DEPTH, "Sequencing depth alone")):
        if method not in means.index:
            continue
        own, other = means.loc[scores[0].method], means.loc[method]
        better = [key for key in means if round(other[key], 3) > round(own[key], 3)]
        for key in better[:1]:
            text = f"{name} scores higher here: {METRICS[key]} {other[key]:.3f} against {own[key]:.3f}."
            notes.append(Note(None, text))
    if OWN_TILE in means.index and NUCLEI not in means.index:
        notes.append(Note(None, f"{NUCLEI}: not with this encoder, of which no column is the share of nuclei."))
    return notes


def score_fold(fold: str, sections: Sequence[anndata.AnnData], method: str) -> list[FoldScores]:
    """Scores of a network and of the references over the test sections of a fold, the network's first.

    Args:
        fold: its name.
        sections: labelled spots only: predictions in ``X``, ``truth`` and what references there are in ``layers``,
            ``obs["depth"]``, and in ``var`` the PCC inside the training side where it is known.
        method: the network's title.
    """
    layers = {reference.title: layer for layer, reference in REFERENCES.items() if layer in sections[0].layers}
    methods: dict[str, str | None] = {method: None, **layers}
    return [_score_method(name, layer, fold, sections) for name, layer in methods.items()]


def _score_method(name: str, layer: str | None, fold: str, sections: Sequence[anndata.AnnData]) -> FoldScores:
    plain, partial, errors = [], [], []
    for section in sections:
        truth, depth = section.layers["truth"], section.obs["depth"].to_numpy(dtype=float)
        predicted = section.X if layer is None else section.layers[layer]
        undefined = np.full(truth.shape[1], np.nan)
        plain.append(undefined if name == CONSTANT else pcc(truth, predicted))
        partial.append(undefined if name in (CONSTANT, DEPTH) else partial_pcc(truth, predicted, depth))
        errors.append(np.asarray(truth - predicted, dtype=np.float64))
    held_out = "held_out_pcc" if layer is None else held_out_column(layer)
    var, error = sections[0].var, np.concatenate(errors)
    return FoldScores(
        name,
        fold,
        tuple(var.index),
        float(np.square(error).mean()),
        float(np.abs(error).mean()),
        nanmean([nanmean(genes) for genes in plain]),
        nanmean([nanmean(genes) for genes in partial]),
        column_nanmean(np.stack(plain)),
        var[held_out].to_numpy(dtype=float) if held_out in var else None,
        int(np.isnan(plain).sum()),
    )


def _values(scores: Sequence[FoldScores]) -> pd.DataFrame:
    rows = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        for score, pcc_h in zip(own, _high_scores(own), strict=True):
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
    return pd.DataFrame(rows)


def _high_scores(folds: Sequence[FoldScores]) -> list[float]:
    """PCC(H) of every fold: over the 50 genes with the best mean rank over all folds."""
    shared = set(folds[0].genes).intersection(*(fold.genes for fold in folds[1:]))
    genes = [gene for gene in folds[0].genes if gene in shared]
    table = np.stack([pd.Series(fold.pcc, index=fold.genes)[genes].to_numpy() for fold in folds])
    return [nanmean(row) for row in table[:, high_genes(table)]]


def _held_out_score(score: FoldScores) -> float:
    if score.held_out_pcc is None or np.isnan(score.held_out_pcc).all():
        return float("nan")
    return nanmean(score.pcc[high_genes(score.held_out_pcc[None])])
