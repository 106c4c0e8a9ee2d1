"""Pictures of genes over the section, and of scores against a setting. Letters: S spots, G genes shown."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from genedml.errors import GeneDMLError
from genedml_cli.maps import (
    COLOURS,
    SCALE_RULE,
    SectionPicture,
    length_label,
    scale_bar_um,
    show_spots,
    show_tissue,
)
from genedml_cli.metrics import pcc
from genedml_cli.storage import arriving

SUFFIXES = (".png", ".pdf", ".svg")
DOTS_PER_INCH = 300
STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.5, "svg.fonttype": "none", "pdf.fonttype": 42}

# Lengths in inches; the type is 8 points, so a line of it takes some 0.15.
PAGE_WIDTH, PANEL_WIDTHS, LETTER, SMALL_LETTER = 7.2, (1.2, 2.2), 0.064, 0.056
GAP, BLOCK_GAP, LINE, MARGIN = 0.05, 0.2, 0.15, 0.06
BAR_WIDTH, BAR_SPACE = 0.09, 0.55

MEASURED_COLOUR, PAPER_COLOUR = "#0072B2", "#D55E00"  # told apart without colour vision
REFERENCE_LINES = ("--", ":", "-.")


def check_picture_path(path: Path) -> None:
    """Refuse a picture of a kind that cannot be written.

    Raises:
        GeneDMLError: another suffix than png, pdf or svg.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise GeneDMLError(f"{path} must end with {', '.join(SUFFIXES)}.")


def draw_genes(sections: Sequence[SectionPicture], genes: Sequence[str], path: Path, footnote: str = "") -> None:
    """Write :func:`genes_figure`; the suffix of ``path`` says the kind."""
    with rc_context(STYLE):
        _save(genes_figure(sections, genes, footnote), path)


def genes_figure(sections: Sequence[SectionPicture], genes: Sequence[str], footnote: str = "") -> Figure:
    """A row a section: its tissue, then of every gene the truth and each model's prediction with its PCC.

    The colours of every panel run from its own 1st to its own 99th percentile, so that they compare patterns.

    Args:
        sections: with the same models, all with truth or all without.
        genes: in the order of the arrays' columns.
        footnote: what must be said with it.
    """
    page = _Page(sections, genes, footnote)
    for row, section in enumerate(sections):
        axes = [page.axes(row, column) for column in range(page.columns)]
        axes[0].set_ylabel(page.row_labels[row], labelpad=3, parse_math=False)
        if page.has_tissue:
            show_tissue(axes.pop(0), section)
        shown = [*([] if section.truth is None else [section.truth]), *section.predicted.values()]
        for number, axis in enumerate(axes):
            gene, place = divmod(number, page.block)
            show_tissue(axis, section, pale=True)
            values = shown[place][:, gene]
            show_spots(axis, section, values)
            if section.truth is not None and place > 0:
                axis.set_title(_score(section.truth[:, gene], values), fontsize=8, pad=2)
        if section.um_per_px is not None:
            page.scale_bar(row, section, section.um_per_px)
    page.headers()
    page.colour_bar()
    return page.figure


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
        _save(settings_figure(title, metrics, measured, published, references, caption), path)


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
    handles: dict[str, Any] = {}
    for axis, (key, name) in zip(figure.subplots(2, 3, sharex=True).flat, metrics.items(), strict=True):
        axis.set_title(name, fontsize=8)
        handles["measured"] = axis.errorbar(
            place - 0.08,
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
            handles["paper"] = axis.plot(place + 0.08, values, "D", color=PAPER_COLOUR, markersize=4)[0]
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


class _Page:
    """Where everything stands: a page measured in inches from its upper left corner."""

    def __init__(self, sections: Sequence[SectionPicture], genes: Sequence[str], footnote: str) -> None:
        first = sections[0]
        self.genes, self.sections = genes, sections
        self.has_tissue = any(section.tissue is not None for section in sections)
        self.names = ([] if first.truth is None else ["measured"]) + list(first.predicted)
        self.block = len(self.names)
        self.columns = self.has_tissue + len(genes) * self.block
        blocks = len(genes) - 1 + self.has_tissue
        free = PAGE_WIDTH - 2 * MARGIN - 2 * LINE - BAR_SPACE - blocks * (BLOCK_GAP - GAP) - (self.columns - 1) * GAP
        self.panel = float(np.clip(free / self.columns, *PANEL_WIDTHS))
        self.headings = [textwrap.wrap(name, max(8, int(self.panel / LETTER))) for name in self.names]
        heading = max(map(len, self.headings)) * LINE
        self.above = LINE if first.truth is not None else 0.04
        self.below = LINE + 0.03 if any(section.um_per_px for section in sections) else 0.04
        self.top = MARGIN + 1.3 * LINE + heading
        self.heights = [self.panel * section.height_to_width for section in sections]
        self.row_labels = [
            textwrap.fill(section.name, max(4, int(height / LETTER)))
            for section, height in zip(sections, self.heights, strict=True)
        ]
        self.left = MARGIN + LINE * (1 + max(label.count("\n") for label in self.row_labels))
        self.width = self.x(self.columns - 1) + self.panel + BAR_SPACE + MARGIN
        notes = textwrap.wrap(f"Colours: {SCALE_RULE}. {footnote}", int((self.width - 2 * MARGIN) / SMALL_LETTER))
        self.height = self.y(len(sections)) + len(notes) * LINE + MARGIN
        self.figure = Figure(figsize=(self.width, self.height))
        for number, line in enumerate(reversed(notes)):
            self.text(MARGIN, self.height - MARGIN - number * LINE, line, fontsize=7, color="0.3", va="bottom")

    def x(self, column: int) -> float:
        """Left edge of a column's panels."""
        wide = max(0, (column - self.has_tissue) // self.block) + (self.has_tissue and column > 0)
        return self.left + column * (self.panel + GAP) + wide * (BLOCK_GAP - GAP)

    def y(self, row: int) -> float:
        """Upper edge of a row, with its titles."""
        return self.top + sum(self.heights[:row]) + row * (self.above + self.below)

    def axes(self, row: int, column: int) -> Axes:
        """The panel at a place, in the section's pixels."""
        height = self.heights[row]
        axis = self._axes(self.x(column), self.y(row) + self.above, self.panel, height)
        left, right, top, bottom = self.sections[row].window_px
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        return axis

    def headers(self) -> None:
        """The genes over their blocks, and over every column what it shows."""
        for number, gene in enumerate(self.genes):
            first = self.has_tissue + number * self.block
            left, right = self.x(first), self.x(first + self.block - 1) + self.panel
            self.text((left + right) / 2, MARGIN, gene, fontstyle="italic", fontweight="bold", ha="center", va="top")
            rule = 1 - (MARGIN + 1.15 * LINE) / self.height
            ends = [left / self.width, right / self.width]
            self.figure.add_artist(_line(ends, [rule, rule], 0.6))
            for place, heading in enumerate(self.headings):
                centre = self.x(first + place) + self.panel / 2
                self.text(centre, self.top, "\n".join(heading), ha="center", va="bottom")
        if self.has_tissue:
            self.text(self.x(0) + self.panel / 2, self.top, "tissue", ha="center", va="bottom")

    def scale_bar(self, row: int, section: SectionPicture, um_per_px: float) -> None:
        """Below the row's first panel; it holds for the whole row."""
        left, right, _, _ = section.window_px
        length_um = scale_bar_um((right - left) * um_per_px)
        inches = self.panel * length_um / um_per_px / (right - left)
        x, y = self.x(0), self.y(row) + self.above + self.heights[row] + 0.55 * LINE
        level = 1 - y / self.height
        self.figure.add_artist(_line([x / self.width, (x + inches) / self.width], [level, level], 2))
        self.text(x + inches + 0.05, y, length_label(length_um), fontsize=7, va="center_baseline")

    def colour_bar(self) -> None:
        """One for all panels, at the right."""
        top, bottom = self.y(0) + self.above, self.y(len(self.sections)) - self.below
        length = min(bottom - top, 1.6)
        axis = self._axes(self.width - MARGIN - BAR_SPACE + 0.1, (top + bottom - length) / 2, BAR_WIDTH, length)
        bar = self.figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), cax=axis, ticks=[0, 1])
        bar.ax.set_yticks([0, 1], ["low", "high"])
        bar.ax.tick_params(labelsize=7, width=0.5, length=2, pad=1.5)
        bar.outline.set_visible(False)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write at a place in inches."""
        self.figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **style)

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)


def _line(x: Sequence[float], y: Sequence[float], width: float) -> Line2D:
    return Line2D(x, y, color="black", linewidth=width, solid_capstyle="butt")


def _score(truth: Float[np.ndarray, " S"], values: Float[np.ndarray, " S"]) -> str:
    known = ~np.isnan(truth)
    score = pcc(truth[known, None], values[known, None])[0]
    return "PCC -" if np.isnan(score) else f"PCC {score:.2f}"


def _save(figure: Figure, path: Path) -> None:
    check_picture_path(path)
    with arriving(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
