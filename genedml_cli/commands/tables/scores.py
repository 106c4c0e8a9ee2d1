"""Scores as tables on the terminal."""

from collections.abc import Sequence

import pandas as pd

from genedml_cli import console
from genedml_cli.evaluation.published import PublishedRow
from genedml_cli.evaluation.scores import METRICS, Evaluation


def show_evaluation(evaluation: Evaluation, last_line: str) -> None:
    """The paper's rows, the network a fold, every method as mean and sd over folds, then what must be said."""
    values, summary = evaluation.values(), evaluation.summary()
    own = values[values["method"] == summary.index[0]]
    several = len(own) > 1
    rows = published_rows(evaluation.published)
    rows += [
        [f"{row['method']} fold {row['fold']}", *(number(row[key]) for key in METRICS)]
        for _, row in own.iterrows()
        if several
    ]
    rows += [[]] if several else []
    rows += [[method, *cells] for method, cells in summary_rows(summary)]
    over = "; mean ±sd over folds" if several else ""
    console.table(evaluation.title + over, ["", *METRICS.values()], rows)
    for note in evaluation.notes:
        console.say(str(note))
    if last_line:
        console.say(last_line)


def show_genes(evaluation: Evaluation) -> None:
    """PCC of every gene, mean over folds."""
    genes = evaluation.per_gene().drop(columns="marks")
    rows = [[str(row.iloc[0]), *(number(value) for value in row.iloc[1:])] for _, row in genes.iterrows()]
    console.table("PCC of every gene, mean and sd over folds", list(genes.columns), rows)


def summary_rows(summary: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The name of every method, with mean and sd of its metrics as cells."""
    return [
        (str(method), [mean_sd(row[(key, "mean")], row[(key, "std")]) for key in METRICS])
        for method, row in summary.iterrows()
    ]


def published_rows(published: Sequence[PublishedRow]) -> list[list[str]]:
    """The paper's rows and a line under them; where it has no figure, a dash."""
    nan = float("nan")
    rows = [
        [row.label, *(mean_sd(row.mean.get(key, nan), row.sd.get(key, nan)) for key in METRICS)] for row in published
    ]
    return [*rows, []] if rows else []


def mean_sd(mean: float, sd: float) -> str:
    """``0.210 ±.030``: a narrow table breaks it at the blank."""
    return number(mean) if pd.isna(sd) else f"{number(mean)} ±{number(sd).removeprefix('0')}"


def number(value: float) -> str:
    """Three decimals, or a dash where there is no number."""
    return "-" if pd.isna(value) else f"{value:.3f}"
