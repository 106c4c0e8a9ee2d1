"""Pictures of genes over the section, and of scores against a setting. Letters: S spots, G genes shown."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from genedml.metrics import pcc
from genedml_cli.figures.maps import (
    OWN_RULE,
    SHARED_RULE,
    USUAL_LOOK,
    Look,
    SectionPicture,
    gene_range,
    length_label,
    range_labels,
    scale_bar_um,
    show_spots,
    show_tissue,
    value_range,
)
from genedml_cli.figures.style import STYLE, save_figure

# Lengths in inches; the type is 8 points, so a line of it takes some 0.15.
PAGE_WIDTH, PANEL_WIDTHS, LETTER, SMALL_LETTER = 7.2, (1.2, 2.2), 0.064, 0.056
GAP, BLOCK_GAP, BAND_GAP, LINE, MARGIN = 0.05, 0.2, 0.12, 0.15, 0.06
BAR_HEIGHT = 0.08
UNIT_HEIGHT = 0.11


def draw_genes(
    sections: Sequence[SectionPicture], genes: Sequence[str], path: Path, footnote: str = "", look: Look = USUAL_LOOK
) -> None:
    """Write :func:`genes_figure`; the suffix of ``path`` says the kind."""
    with rc_context(STYLE):
        save_figure(genes_figure(sections, genes, footnote, look), path)


def genes_figure(
    sections: Sequence[SectionPicture], genes: Sequence[str], footnote: str = "", look: Look = USUAL_LOOK
) -> Figure:
    """Truth of genes over sections, and each model's prediction with its PCC.

    Of several models on one section it is a table: a row a gene, a column a model. Else genes stand in a grid, each
    with a row a section. The section's tissue stands before its rows where it is at hand. Below the panels are the
    colours and the values at their two ends.

    Args:
        sections: with the same models, all with truth or all without.
        genes: in the order of the arrays' columns.
        footnote: what must be said with it.
        look: colours, their scale, and genes beside each other; one or more of which make a grid.
    """
    numbers = range(len(genes))
    if len(sections) == 1 and len(sections[0].predicted) > 1 and look.ncols is None:
        blocks = [_Block("", [_Row(sections[0], gene, genes[gene]) for gene in numbers])]
    else:
        blocks = [_Block(genes[gene], [_Row(section, gene) for section in sections]) for gene in numbers]
    page = _Page(blocks, footnote, look)
    shared = [gene_range([section.panels()[:, :, gene] for section in sections]) for gene in numbers]
    for place in range(len(blocks[0].rows)):
        for number in range(len(blocks)):
            page.draw_row(number, place, shared[blocks[number].rows[place].gene])
    page.tissues()
    page.headings_of_columns()
    return page.figure


@dataclass(frozen=True)
class _Row:
    """A gene over a section; ``label`` is the gene's name where it stands beside the row."""

    section: SectionPicture
    gene: int
    label: str = ""


@dataclass(frozen=True)
class _Block:
    """Rows below one title: a gene's name, or nothing where every row has its own."""

    title: str
    rows: Sequence[_Row]


class _Page:
    """Where everything stands: a page measured in inches from its upper left corner.

    Blocks fill bands from left to right; all have the same sections in their rows.
    """

    def __init__(self, blocks: Sequence[_Block], footnote: str, look: Look) -> None:
        rows = blocks[0].rows
        first = rows[0].section
        self.blocks, self.look = blocks, look
        self.has_tissue = any(row.section.tissue is not None for row in rows)
        self.names = ([] if first.truth is None else ["measured"]) + list(first.predicted)
        self.block = len(self.names)
        self.across, self.panel = self._fitted()
        self.heading_lines = [textwrap.wrap(name, max(8, int(self.panel / LETTER))) for name in self.names]
        self.title = 1.3 * LINE if blocks[0].title else GAP
        self.header = self.title + max(map(len, self.heading_lines)) * LINE
        self.above = LINE if first.truth is not None else 0.04
        scaled = any(row.section.um_per_px for row in rows)
        self.unit_height = UNIT_HEIGHT if first.unit else 0.0
        self.below = 1.5 * LINE + self.unit_height + (LINE if scaled and not self.has_tissue else 0)
        self.heights = [self.panel * row.section.height_to_width for row in rows]
        self.section_labels = [
            textwrap.fill(row.section.name, max(4, int(height / LETTER)))
            for row, height in zip(rows, self.heights, strict=True)
        ]
        self.bands = -(-len(blocks) // self.across)
        self.left = MARGIN + LINE * (1 + max(label.count("\n") for label in self.section_labels))
        self.width = self.x(self.across - 1, self.block - 1) + self.panel + 2 * MARGIN
        rule = SHARED_RULE if look.shared_scale else OWN_RULE
        where = f"Section {first.name}. " if rows[0].label and not self.has_tissue else ""
        notes = textwrap.wrap(f"{where}Colours: {rule}. {footnote}", int((self.width - 2 * MARGIN) / SMALL_LETTER))
        self.height = self._band_top(self.bands) + len(notes) * LINE + MARGIN
        self.figure = Figure(figsize=(self.width, self.height))
        for number, line in enumerate(notes, start=1):
            y = self._band_top(self.bands) + number * LINE
            self.text(MARGIN, y, line, fontsize=7, color="0.3", va="bottom")

    def _fitted(self) -> tuple[int, float]:
        """How many blocks stand side by side, and the width of a panel: as many as fit, evenly over the bands."""

        def panel(across: int) -> float:
            gaps = (across - 1 + self.has_tissue) * BLOCK_GAP + across * (self.block - 1) * GAP
            return (PAGE_WIDTH - 3 * MARGIN - 2 * LINE - gaps) / (across * self.block + self.has_tissue)

        most = len(self.blocks) if self.look.ncols is None else min(self.look.ncols, len(self.blocks))
        across = most
        if self.look.ncols is None:
            across = max((n for n in range(1, most + 1) if panel(n) >= PANEL_WIDTHS[0]), default=1)
            across = -(-most // -(-most // across))
        return across, float(np.clip(panel(across), *PANEL_WIDTHS))

    def x(self, column: int, place: int) -> float:
        """Left edge of a panel of the block in a column."""
        tissue = self.has_tissue * (self.panel + BLOCK_GAP)
        block = self.block * (self.panel + GAP) - GAP + BLOCK_GAP
        return self.left + tissue + column * block + place * (self.panel + GAP)

    def _band_top(self, band: int) -> float:
        rows = sum(self.heights) + len(self.heights) * (self.above + self.below)
        return MARGIN + band * (self.header + rows + BAND_GAP)

    def y(self, band: int, row: int) -> float:
        """Upper edge of a row's panels."""
        before = sum(self.heights[:row]) + row * (self.above + self.below)
        return self._band_top(band) + self.header + before + self.above

    def draw_row(self, block: int, place: int, shared: tuple[float, float]) -> None:
        """The panels of a row, with their PCC above and their colours below."""
        band, column = divmod(block, self.across)
        row = self.blocks[block].rows[place]
        panels = row.section.panels()[:, :, row.gene]
        ranges = [shared] if self.look.shared_scale else [value_range(values) for values in panels]
        for number, values in enumerate(panels):
            axis = self._section_axes(self.x(column, number), band, place)
            show_tissue(axis, row.section, pale=True)
            show_spots(axis, row.section, values, ranges[0 if self.look.shared_scale else number], self.look.colours)
            if row.section.truth is not None and number > 0:
                axis.set_title(_score(row.section.truth[:, row.gene], values), fontsize=8, pad=2)
            if number == 0 and row.label:
                axis.set_ylabel(row.label, labelpad=3, parse_math=False, fontstyle="italic", fontweight="bold")
            if number == column == 0 and not self.has_tissue and (place == 0 or not row.label):
                self._label_row(axis, band, place)
        self._colour_bars(band, column, place, ranges)

    def tissues(self) -> None:
        """The tissue before every row, or before the first of rows of one section."""
        for band in range(self.bands) if self.has_tissue else ():
            for place, row in enumerate(self.blocks[0].rows):
                if place == 0 or not row.label:
                    axis = self._section_axes(self.left, band, place)
                    show_tissue(axis, row.section)
                    self._label_row(axis, band, place)

    def _section_axes(self, x: float, band: int, place: int) -> Axes:
        axis = self._axes(x, self.y(band, place), self.panel, self.heights[place])
        left, right, top, bottom = self.blocks[0].rows[place].section.window_px
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        return axis

    def _label_row(self, axis: Axes, band: int, row: int) -> None:
        """The section's name beside its first panel and, where um/px is known, a scale bar below it."""
        section = self.blocks[0].rows[row].section
        if not axis.get_ylabel():
            axis.set_ylabel(self.section_labels[row], labelpad=3, parse_math=False)
        if section.um_per_px is None:
            return
        left, right, _, _ = section.window_px
        length_um = scale_bar_um((right - left) * section.um_per_px)
        inches = self.panel * length_um / section.um_per_px / (right - left)
        lower = 0.75 * LINE if self.has_tissue else 1.75 * LINE + self.unit_height
        x, y = self.left, self.y(band, row) + self.heights[row] + lower
        self._line(x, x + inches, y, 2)
        self.text(x + inches + 0.05, y, length_label(length_um), fontsize=7, va="center_baseline")

    def headings_of_columns(self) -> None:
        """The titles over their blocks, and over every column what it shows."""
        for number, block in enumerate(self.blocks):
            band, column = divmod(number, self.across)
            top = self._band_top(band)
            left, right = self.x(column, 0), self.x(column, self.block - 1) + self.panel
            if block.title:
                middle = (left + right) / 2
                self.text(middle, top, block.title, fontstyle="italic", fontweight="bold", ha="center", va="top")
                self._line(left, right, top + 1.15 * LINE, 0.6)
            for place, lines in enumerate(self.heading_lines):
                centre = self.x(column, place) + self.panel / 2
                self.text(centre, top + self.header, "\n".join(lines), ha="center", va="bottom")
        for band in range(self.bands) if self.has_tissue else ():
            y = self._band_top(band) + self.header
            self.text(self.left + self.panel / 2, y, "tissue", ha="center", va="bottom")

    def _colour_bars(self, band: int, column: int, place: int, ranges: Sequence[tuple[float, float]]) -> None:
        """Below the panels of a row: one below all of them, or one below each; their ends and their unit."""
        unit = self.blocks[0].rows[0].section.unit
        middle = self.y(band, place) + self.heights[place] + 0.75 * LINE
        wide = self.block // len(ranges)
        for number, (low, high) in enumerate(ranges):
            left = self.x(column, number * wide)
            right = self.x(column, number * wide + wide - 1) + self.panel
            ends = range_labels(low, high)
            self.text(left, middle, ends[0], fontsize=7, va="center_baseline")
            self.text(right, middle, ends[1], fontsize=7, ha="right", va="center_baseline")
            inset = SMALL_LETTER * max(map(len, ends)) + 0.06
            length = right - left - 2 * inset
            axis = self._axes(left + inset, middle - BAR_HEIGHT / 2, max(length, 0.1), BAR_HEIGHT)
            mappable = ScalarMappable(Normalize(0, 1), self.look.colours)
            bar = self.figure.colorbar(mappable, cax=axis, orientation="horizontal", ticks=[])
            bar.outline.set_visible(False)
            if unit:
                self.text((left + right) / 2, middle + UNIT_HEIGHT, unit, fontsize=6, ha="center", va="center_baseline")

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write at a place in inches."""
        self.figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **style)

    def _line(self, left: float, right: float, y: float, width: float) -> None:
        x, level = [left / self.width, right / self.width], 1 - y / self.height
        self.figure.add_artist(Line2D(x, [level, level], color="black", linewidth=width, solid_capstyle="butt"))

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)


def _score(truth: Float[np.ndarray, " S"], values: Float[np.ndarray, " S"]) -> str:
    known = ~np.isnan(truth)
    score = pcc(truth[known, None], values[known, None])[0]
    return "PCC -" if np.isnan(score) else f"PCC {score:.2f}"
