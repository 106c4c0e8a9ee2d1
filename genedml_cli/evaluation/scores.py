"""Scores of every method in every fold, and their tables.

Letters: S spots, M genes, F folds. The metrics' definitions are in METHOD section 6 and in :mod:`genedml.metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.errors import GeneDMLError
from genedml.metrics import attainable, high_genes, nanmean
from genedml_cli import console
from genedml_cli.evaluation.points import Point, State
from genedml_cli.evaluation.published import PublishedRow, published_table
from genedml_cli.files.storage import write_json, write_text
from genedml_cli.files.text_files import read_json
from genedml_cli.notes import Note, marks_of, texts_of
from genedml_cli.outputs.reference_layers import REFERENCES

RIDGE, PLACE, DEPTH, CONSTANT = (
    REFERENCES[layer].title for layer in ("ridge", "place_alone", "depth_alone", "constant")
)
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
ABOVE_NULL = "above_null_given_depth"
FULL_METRICS = {
    **METRICS,
    "pcc_unsmoothed": "PCC, unsmoothed truth",
    "pcc_moran_low": "PCC, lowest third by Moran's I",
    "pcc_moran_middle": "PCC, middle third",
    "pcc_moran_high": "PCC, highest third",
    "pcc_spatial": "PCC, 50 most spatial genes",
    "above_null": "genes above null",
    ABOVE_NULL: "above null given depth",
    "variance_ratio": "variance ratio",
    "coverage": "coverage of intervals",
    "share_of_ceiling": "share of ceiling",
    "share_of_ceiling_given_depth": "share of ceiling given depth",
}
"""All scores of an evaluation; examples/scores.md explains each in a line."""
NARROW = {**METRICS, ABOVE_NULL: FULL_METRICS[ABOVE_NULL]}
"""Those of a table that is not asked for in full."""


@dataclass(frozen=True)
class FoldScores:
    """Scores of one method in one fold.

    ``mse`` and ``mae`` are means over the genes and all spots of its test sections, so that a section weighs what it
    has of spots. Of PCC, which is within a section, it is the mean over the test sections. ``held_out_pcc`` is each
    gene's PCC inside the training side, by which PCC(H) held out chooses its genes. ``full`` are those of
    :data:`FULL_METRICS` that are known of the fold besides, ``per_gene`` scores of every gene, mean over the sections,
    ``draws`` those of the null, 0 where it has none.
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
    full: Mapping[str, float] = field(default_factory=dict)
    per_gene: Mapping[str, Float[np.ndarray, " M"]] = field(default_factory=dict)
    draws: int = 0


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
        checklist: what a trustworthy table contains, and which of it this one does.
        written: whether the tables are in ``folder``; not so where it cannot be written.
        network: name of the network in the registry, where it is known.
    """

    title: str
    scores: tuple[FoldScores, ...]
    notes: tuple[Note, ...]
    folder: Path
    published: tuple[PublishedRow, ...] = ()
    split_halves: tuple[FoldScores, ...] = ()
    unmatched: tuple[str, ...] = ()
    checklist: tuple[Point, ...] = ()
    written: bool = True
    network: str = ""

    @property
    def method(self) -> str:
        """The network that is scored; the others are references."""
        return self.scores[0].method

    @property
    def in_full(self) -> bool:
        """Whether more than :data:`METRICS` was scored."""
        return all(score.full for score in self.scores)

    def values(self) -> pd.DataFrame:
        """One row for each method and fold, one column for each metric; of what was measured only."""
        table = _values(self.scores)
        for key, given_depth in (("share_of_ceiling", False), ("share_of_ceiling_given_depth", True)):
            rows = zip(table["method"], table["fold"], strict=True)
            table[key] = [self._share_of_ceiling(method, fold, given_depth) for method, fold in rows]
        if self.split_halves:
            table = pd.concat([table, _values(self.split_halves), _values(self.ceiling)], ignore_index=True)
        return table.assign(marks=self.marks)

    @property
    def marks(self) -> str:
        """What must stand in every table of these scores."""
        return marks_of(self.notes)

    @property
    def ceiling(self) -> tuple[FoldScores, ...]:
        """What is attainable in every fold: of every gene, by its split halves, and the mean over genes."""
        return tuple(_attainable(halves) for halves in self.split_halves)

    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation over folds of every metric, a row for each method."""
        grouped = self.values().groupby("method", sort=False)[list(FULL_METRICS)]
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
        tables |= self._more_of_genes()
        genes = pd.DataFrame(tables).rename_axis("gene").reset_index().assign(marks=self.marks)
        return genes.sort_values("pcc", ascending=False, kind="stable", ignore_index=True)

    def _more_of_genes(self) -> dict[str, pd.Series]:
        """Means over folds of what else is known of every gene's prediction, and of its ceiling."""
        tables = {name: self._over_folds(self.scores, name) for name in self.scores[0].per_gene}
        if self.split_halves:
            each = [pd.Series(fold.pcc, index=fold.genes) for fold in self.ceiling]
            tables["attainable_pcc"] = pd.concat(each, axis=1).mean(axis=1)
        return tables

    def _over_folds(self, scores: Sequence[FoldScores], name: str) -> pd.Series:
        own = [pd.Series(one.per_gene[name], index=one.genes) for one in scores if one.method == self.method]
        return pd.concat(own, axis=1).mean(axis=1)

    def _share_of_ceiling(self, method: str, fold: str, given_depth: bool) -> float:
        """Mean PCC of a method in a fold over the mean of what is attainable, of genes that have both."""
        ceiling = next((score for score in self.ceiling if score.fold == fold), None)
        score = next(one for one in self.scores if (one.method, one.fold) == (method, fold))
        if ceiling is None:
            return float("nan")
        pcc, most = (one.per_gene["pcc_given_depth"] if given_depth else one.pcc for one in (score, ceiling))
        known = ~np.isnan(pcc) & ~np.isnan(most)
        return float(pcc[known].sum() / most[known].sum()) if most[known].any() else float("nan")

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
            method: {key: {"mean": row[(key, "mean")], "sd": row[(key, "std")]} for key in FULL_METRICS}
            for method, row in summary.iterrows()
        }
        published = [row.to_dict() for row in self.published]
        known = {"title": self.title, "notes": texts_of(self.notes), "methods": methods, "published": published}
        known |= {"checklist": [point.to_dict() for point in self.checklist]}
        return known | {"unmatched_genes": list(self.unmatched)}


def read_checklist(folder: Path) -> tuple[Point, ...]:
    """The checklist of the scores that :meth:`Evaluation.write` wrote into a folder; empty where there is none."""
    file = folder / "metrics.json"
    points = read_json(file).get("checklist", ()) if file.is_file() else ()
    return tuple(Point(point["point"], State(point["state"]), point["why"]) for point in points)


def write_if_possible(write: Callable[[], None]) -> bool:
    """Write tables of scores; where their folder cannot be written, warn that they are not kept, and return False."""
    try:
        write()
    except GeneDMLError as error:
        console.warn(f"The scores are not kept: {error}")
        return False
    return True


def reference_notes(scores: Sequence[FoldScores], folds: bool = True) -> list[Note]:
    """By how much the network is better than ridge, and what scores higher than it: in PCC(A), else in PCC(H).

    And of a row that is missing, since it is of one encoder alone. Without ``folds`` the scores are of several models
    on one section, or of one prediction, whose spread says nothing of other sections.
    """
    values = _values(scores)
    means = values.groupby("method")[["pcc_a", "pcc_h"]].mean()
    notes = _beside_ridge(values, scores[0].method, folds)
    others = {
        RIDGE: "Ridge regression on the same features",
        PLACE: "Where a spot stands in its section, without any image,",
        DEPTH: "Sequencing depth alone",
    }
    for method, name in others.items():
        if method not in means.index:
            continue
        own, other = means.loc[scores[0].method], means.loc[method]
        better = [key for key in means if round(other[key], 3) > round(own[key], 3)][:1]
        for key in better if (method, *better) != (RIDGE, "pcc_a") else ():
            text = f"{name} scores higher here: {METRICS[key]} {other[key]:.3f} against {own[key]:.3f}."
            notes.append(Note(None, text))
    if OWN_TILE in means.index and NUCLEI not in means.index:
        notes.append(Note(None, f"{NUCLEI}: not with this encoder, of which no column is the share of nuclei."))
    return notes


def _beside_ridge(values: pd.DataFrame, network: str, folds: bool) -> list[Note]:
    """By how much the network is better or worse than ridge in PCC(A), beside the spread of that over folds."""
    by_fold = values.pivot(index="fold", columns="method", values="pcc_a")
    if RIDGE not in by_fold:
        return []
    ahead = (by_fold[network] - by_fold[RIDGE]).dropna()
    if ahead.empty:
        return []
    mean, sd = ahead.mean(), ahead.std()
    spread = f", {'more' if abs(mean) > sd else 'no more'} than the sd of this difference over folds, {sd:.3f}"
    beside = ("" if not folds else ", of one fold, so without a spread") if len(ahead) == 1 or not folds else spread
    if round(abs(mean), 3) == 0:
        text = f"{network} is as good as ridge on the same features in PCC(A), to three decimals."
    else:
        than = "better" if mean > 0 else "worse"
        text = f"{network} is {than} than ridge on the same features by {abs(mean):.3f} in PCC(A){beside}."
    return [Note(None, text)]


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
                    **{key: float("nan") for key in FULL_METRICS if key not in METRICS},
                    **score.full,
                }
            )
    return pd.DataFrame(rows)


def _attainable(halves: FoldScores) -> FoldScores:
    pcc, given_depth = attainable(halves.pcc), attainable(halves.per_gene["pcc_given_depth"])
    return replace(
        halves,
        method=ATTAINABLE,
        pcc_a=nanmean(pcc),
        pcc_given_depth=nanmean(given_depth),
        pcc=pcc,
        per_gene={"pcc_given_depth": given_depth},
    )


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
