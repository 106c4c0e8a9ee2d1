"""Training logs -> charts over epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from genedml.errors import reading
from genedml_cli.report.contents import Chart, Line
from genedml_cli.training.learner import LACKED

WIDTH, HEIGHT = 440, 230  # of a chart in its own pixels; the template draws axes at its edges
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 40

PASS = "pass"

SCORE, PREDICTION = "held_out_pcc", "prediction"
TITLES = {SCORE: "PCC on the sections that choose the epoch", PREDICTION: "Prediction loss (MSE)"}
NO_LOSS = {PASS, "epoch", "learning_rate", "total", *TITLES}
"""Columns of a log that are no further part of a loss; nor are those that count batches."""


def read_logs(run: Path, folds: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The training logs of finished folds, by fold; those that are there. Each has the column :data:`PASS`.

    Raises:
        GeneDMLError: one of them cannot be read.
    """
    files = {fold: run / f"fold-{fold}.log.csv" for fold in folds}
    with reading(f"The training logs of {run}", "Train the run again."):
        logs = {fold: pd.read_csv(file) for fold, file in files.items() if file.is_file()}
        # Only a fold that is trained again, with its held-out sections, has a second pass.
        logs = {fold: log if PASS in log else log.assign(**{PASS: 1}) for fold, log in logs.items()}
        for log in logs.values():
            log[[PASS, "epoch", PREDICTION, *_parts(log)]].astype(float)
    return logs


def _parts(log: pd.DataFrame) -> list[str]:
    """What a chart is drawn of: the score, the error, and whatever other parts the network's loss has."""
    others = [name for name in log if name not in NO_LOSS and not str(name).startswith(LACKED)]
    return [*(name for name in TITLES if name in log), *others]


def charts_of(logs: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """A chart for each loss part and score that a log has, of the first pass over the training sections."""
    first = {fold: log[log[PASS] == 1] for fold, log in logs.items()}
    charts = []
    for column in dict.fromkeys(name for log in first.values() for name in _parts(log)):
        known = {fold: log for fold, log in first.items() if column in log and log[column].notna().any()}
        if known:
            charts.append(_chart(TITLES.get(column, f"{column.capitalize()} loss"), known, column))
    return charts


def chosen_epoch(log: pd.DataFrame) -> int | None:
    """The epoch with the best PCC on the sections that choose it; None where there are none."""
    scores = log["held_out_pcc"] if "held_out_pcc" in log else pd.Series(dtype=float)
    return None if scores.isna().all() else int(log.loc[scores.idxmax(), "epoch"])


def _chart(title: str, logs: Mapping[str, pd.DataFrame], column: str) -> Chart:
    epochs, values = (pd.concat([log[name] for log in logs.values()]) for name in ("epoch", column))
    x_values, x_ticks = _axis(1, float(epochs.max()), whole=True)
    y_values, y_ticks = _axis(float(values.min()), float(values.max()), whole=False)

    def place(epoch: float, value: float) -> tuple[float, float]:
        along = (epoch - x_values[0]) / (x_values[1] - x_values[0])
        up = (value - y_values[0]) / (y_values[1] - y_values[0])
        x, y = LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return round(float(x), 1), round(float(y), 1)

    lines = []
    for fold, log in logs.items():
        known = log[log[column].notna()]
        at = {int(epoch): place(float(epoch), float(value)) for epoch, value in known[["epoch", column]].to_numpy()}
        dot = at.get(chosen_epoch(log) or 0)
        lines.append(Line(f"fold {fold}", " ".join(f"{x},{y}" for x, y in at.values()), dot))
    return Chart(
        title,
        [(place(tick, y_values[0])[0], f"{tick:g}") for tick in x_ticks],
        [(place(x_values[0], tick)[1], f"{tick:g}") for tick in y_ticks],
        lines,
    )


def _axis(low: float, high: float, whole: bool) -> tuple[tuple[float, float], list[float]]:
    """Both ends of an axis, and its round ticks between them."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    ticks = MaxNLocator(5, integer=whole).tick_values(low, high)
    if whole:
        return (low, high), [float(tick) for tick in ticks if low <= tick <= high]
    return (float(ticks[0]), float(ticks[-1])), [float(np.round(tick, 10)) for tick in ticks]
