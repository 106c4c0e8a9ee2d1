"""Scores as tables on the terminal."""

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from genedml_cli import console
from genedml_cli.evaluation.points import lines_of
from genedml_cli.evaluation.published import PublishedRow
from genedml_cli.evaluation.scores import FULL_METRICS, METRICS, NARROW, Evaluation

GENE_COLUMNS = ("gene", "pcc", "ridge_pcc", "depth_alone_pcc", "split_halves_pcc")
"""Of the table of genes that is not asked for in full: these and their sd."""


def show_evaluation(evaluation: Evaluation, last_line: str, full: bool = False) -> None:
    """The paper's rows, the network a fold, every method as mean and sd over folds, then what must be said."""
    values, summary = evaluation.values(), evaluation.summary()
    own = values[values["method"] == summary.index[0]]
    several = len(own) > 1
    rows = published_rows(evaluation.published, NARROW)
    rows += [
        [f"{row['method']} fold {row['fold']}", *(number(row[key]) for key in NARROW)]
        for _, row in own.iterrows()
        if several
    ]
    rows += [[]] if several else []
    rows += [[method, *cells] for method, cells in summary_rows(summary, NARROW)]
    over = "; mean ±sd over folds" if several else ""
    console.table(evaluation.title + over, ["", *NARROW.values()], rows)
    if full:
        show_in_full(f"In full{over}", summary)
    for note in evaluation.notes:
        console.say(str(note))
    for line in lines_of(evaluation.checklist):
        console.say(line)
    if last_line:
        console.say(last_line)


def show_in_full(title: str, summary: pd.DataFrame, cell: Callable[[float, float], str] | None = None) -> None:
    """A line a score, a column a method: all that does not fit beside each other.

    Args:
        title: over the table.
        summary: methods in rows; (metric, ``mean`` or ``std``) in columns.
        cell: mean and sd as text, if not as :func:`mean_sd`.
    """
    cell = mean_sd if cell is None else cell
    rows = [
        [name, *(cell(row[(key, "mean")], row[(key, "std")]) for _, row in summary.iterrows())]
        for key, name in FULL_METRICS.items()
    ]
    console.table(title, ["", *map(str, summary.index)], rows)


def show_genes(evaluation: Evaluation, full: bool = False) -> None:
    """PCC of every gene, mean over folds; ``full`` with all that is known of it."""
    genes = evaluation.per_gene().drop(columns="marks")
    if not full:
        genes = genes[[name for name in genes if name.removesuffix("_sd") in GENE_COLUMNS]]
    rows = [[str(row.iloc[0]), *(number(value) for value in row.iloc[1:])] for _, row in genes.iterrows()]
    console.table("PCC of every gene, mean and sd over folds", list(genes.columns), rows)


def summary_rows(summary: pd.DataFrame, metrics: Iterable[str] = METRICS) -> list[tuple[str, list[str]]]:
    """The name of every method, with mean and sd of its metrics as cells."""
    return [
        (str(method), [mean_sd(row[(key, "mean")], row[(key, "std")]) for key in metrics])
        for method, row in summary.iterrows()
    ]


def published_rows(published: Sequence[PublishedRow], metrics: Iterable[str] = METRICS) -> list[list[str]]:
    """The paper's rows and a line under them; where it has no figure, a dash."""
    nan = float("nan")
    rows = [
        [row.label, *(mean_sd(row.mean.get(key, nan), row.sd.get(key, nan)) for key in metrics)] for row in published
    ]
    return [*rows, []] if rows else []


def mean_sd(mean: float, sd: float) -> str:
    """``0.210 ±.030``: a narrow table breaks it at the blank."""
    return number(mean) if pd.isna(sd) else f"{number(mean)} ±{number(sd).removeprefix('0')}"


def number(value: float) -> str:
    """Three decimals, or a dash where there is no number."""
    return "-" if pd.isna(value) else f"{value:.3f}"
