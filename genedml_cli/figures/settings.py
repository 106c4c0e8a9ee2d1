"""Figures of settings: ours beside the paper's."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from genedml_cli.figures.genes import PAGE_WIDTH
from genedml_cli.figures.style import STYLE, save_figure

MEASURED_COLOUR, PAPER_COLOUR = "#0072B2", "#D55E00"  # told apart without colour vision


REFERENCE_LINES = ("--", (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), ":", "-.")


def draw_settings(
    title: str,
    metrics: Mapping[str, str],
    measured: pd.DataFrame,
    published: pd.DataFrame,
    references: pd.DataFrame,
    caption: str,
    path: Path,
) -> None:
    """Write :func:`settings_figure`; the suffix of ``path`` says the kind."""
    with rc_context(STYLE):
        save_figure(settings_figure(title, metrics, measured, published, references, caption), path)


def settings_figure(
    title: str,
    metrics: Mapping[str, str],
    measured: pd.DataFrame,
    published: pd.DataFrame,
    references: pd.DataFrame,
    caption: str,
) -> Figure:
    """Every metric against the setting: measured with error bars, the paper's beside, references as lines.

    Args:
        title: over all.
        metrics: what to call each metric.
        measured: settings in rows; (metric, ``mean`` or ``std``) in columns.
        published: settings in rows, metrics in columns; may lack both.
        references: methods in rows, metrics in columns.
        caption: below.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 5), layout="constrained")
    figure.suptitle(title, fontsize=9)
    place = np.arange(len(measured))
    apart = 0.08 if len(published) else 0.0
    handles: dict[str, Any] = {}
    for axis, (key, name) in zip(figure.subplots(2, 3, sharex=True).flat, metrics.items(), strict=True):
        axis.set_title(name, fontsize=8)
        handles["measured"] = axis.errorbar(
            place - apart,
            measured[(key, "mean")],
            measured[(key, "std")],
            color=MEASURED_COLOUR,
            fmt="o",
            markersize=4,
            capsize=2,
            linewidth=1,
        )
        if key in published and len(published):
            values = published[key].reindex(measured.index)
            handles["paper"] = axis.plot(place + apart, values, "D", color=PAPER_COLOUR, markersize=4)[0]
        for line, (method, row) in zip(REFERENCE_LINES, references.iterrows(), strict=False):
            if not np.isnan(row[key]):
                handles[str(method)] = axis.axhline(row[key], color="0.45", linestyle=line, linewidth=0.8)
        axis.set_xticks(place, measured.index, fontsize=7, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_xlim(-0.5, len(measured) - 0.5)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=7,
        title=textwrap.fill(caption, 130),
        title_fontsize=7,
    )
    return figure
