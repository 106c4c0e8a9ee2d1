"""Pictures of genes over the section, and of scores against a setting. Letters: S spots, G genes shown."""

import textwrap
from collections.abc import Sequence
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


def draw_genes(
    sections: Sequence[SectionPicture], genes: Sequence[str], path: Path, footnote: str = "", look: Look = USUAL_LOOK
) -> None:
    """Write :func:`genes_figure`; the suffix of ``path`` says the kind."""
    with rc_context(STYLE):
        save_figure(genes_figure(sections, genes, footnote, look), path)


def genes_figure(
    sections: Sequence[SectionPicture], genes: Sequence[str], footnote: str = "", look: Look = USUAL_LOOK
) -> Figure:
    """A grid of genes; of each, a row a section: the truth, and each model's prediction with its PCC.

    Every row starts with the section's tissue where it is at hand. Below the panels are the colours and the values at
    their two ends.

    Args:
        sections: with the same models, all with truth or all without.
        genes: in the order of the arrays' columns.
        footnote: what must be said with it.
        look: colours, their scale, and genes beside each other.
    """
    page = _Page(sections, genes, footnote, look)
    shared = [gene_range([section.panels()[:, :, gene] for section in sections]) for gene in range(len(genes))]
    for row, section in enumerate(sections):
        for gene in range(len(genes)):
            panels = section.panels()[:, :, gene]
            ranges = [shared[gene]] if look.shared_scale else [value_range(values) for values in panels]
            for place, values in enumerate(panels):
                axis = page.axes(row, gene, place)
                show_tissue(axis, section, pale=True)
                show_spots(axis, section, values, ranges[0 if look.shared_scale else place], look.colours)
                if section.truth is not None and place > 0:
                    axis.set_title(_score(section.truth[:, gene], values), fontsize=8, pad=2)
            page.colour_bars(row, gene, ranges)
    page.tissues()
    page.headers()
    return page.figure


class _Page:
    """Where everything stands: a page measured in inches from its upper left corner.

    Genes fill bands from left to right, and a band has a row a section.
    """

    def __init__(self, sections: Sequence[SectionPicture], genes: Sequence[str], footnote: str, look: Look) -> None:
        first = sections[0]
        self.genes, self.sections, self.look = genes, sections, look
        self.has_tissue = any(section.tissue is not None for section in sections)
        self.names = ([] if first.truth is None else ["measured"]) + list(first.predicted)
        self.block = len(self.names)
        self.across, self.panel = self._fitted()
        self.headings = [textwrap.wrap(name, max(8, int(self.panel / LETTER))) for name in self.names]
        self.header = 1.3 * LINE + max(map(len, self.headings)) * LINE
        self.above = LINE if first.truth is not None else 0.04
        scaled = any(section.um_per_px for section in sections)
        self.below = 1.5 * LINE + (LINE if scaled and not self.has_tissue else 0)
        self.heights = [self.panel * section.height_to_width for section in sections]
        self.row_labels = [
            textwrap.fill(section.name, max(4, int(height / LETTER)))
            for section, height in zip(sections, self.heights, strict=True)
        ]
        self.bands = -(-len(genes) // self.across)
        self.left = MARGIN + LINE * (1 + max(label.count("\n") for label in self.row_labels))
        self.width = self.x(self.across - 1, self.block - 1) + self.panel + 2 * MARGIN
        rule = SHARED_RULE if look.shared_scale else OWN_RULE
        notes = textwrap.wrap(f"Colours: {rule}. {footnote}", int((self.width - 2 * MARGIN) / SMALL_LETTER))
        self.height = self._band_top(self.bands) + len(notes) * LINE + MARGIN
        self.figure = Figure(figsize=(self.width, self.height))
        for number, line in enumerate(notes, start=1):
            y = self._band_top(self.bands) + number * LINE
            self.text(MARGIN, y, line, fontsize=7, color="0.3", va="bottom")

    def _fitted(self) -> tuple[int, float]:
        """How many genes stand side by side, and the width of a panel: as many as fit, evenly over the bands."""

        def panel(across: int) -> float:
            gaps = (across - 1 + self.has_tissue) * BLOCK_GAP + across * (self.block - 1) * GAP
            return (PAGE_WIDTH - 3 * MARGIN - 2 * LINE - gaps) / (across * self.block + self.has_tissue)

        most = len(self.genes) if self.look.ncols is None else min(self.look.ncols, len(self.genes))
        across = most
        if self.look.ncols is None:
            across = max((n for n in range(1, most + 1) if panel(n) >= PANEL_WIDTHS[0]), default=1)
            across = -(-most // -(-most // across))
        return across, float(np.clip(panel(across), *PANEL_WIDTHS))

    def x(self, column: int, place: int) -> float:
        """Left edge of a panel of the gene in a column."""
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

    def axes(self, row: int, gene: int, place: int) -> Axes:
        """A gene's panel, in the section's pixels."""
        band, column = divmod(gene, self.across)
        axis = self._section_axes(self.x(column, place), band, row)
        if not self.has_tissue and column == place == 0:
            self._label_row(axis, band, row)
        return axis

    def tissues(self) -> None:
        """The tissue at the start of every row."""
        for band in range(self.bands) if self.has_tissue else ():
            for row, section in enumerate(self.sections):
                axis = self._section_axes(self.left, band, row)
                show_tissue(axis, section)
                self._label_row(axis, band, row)

    def _section_axes(self, x: float, band: int, row: int) -> Axes:
        axis = self._axes(x, self.y(band, row), self.panel, self.heights[row])
        left, right, top, bottom = self.sections[row].window_px
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        return axis

    def _label_row(self, axis: Axes, band: int, row: int) -> None:
        """The section's name beside its first panel and, where um/px is known, a scale bar below it."""
        axis.set_ylabel(self.row_labels[row], labelpad=3, parse_math=False)
        section = self.sections[row]
        if section.um_per_px is None:
            return
        left, right, _, _ = section.window_px
        length_um = scale_bar_um((right - left) * section.um_per_px)
        inches = self.panel * length_um / section.um_per_px / (right - left)
        lines = 0.75 if self.has_tissue else 1.75
        x, y = self.left, self.y(band, row) + self.heights[row] + lines * LINE
        level = 1 - y / self.height
        self.figure.add_artist(_line([x / self.width, (x + inches) / self.width], [level, level], 2))
        self.text(x + inches + 0.05, y, length_label(length_um), fontsize=7, va="center_baseline")

    def headers(self) -> None:
        """The genes over their blocks, and over every column what it shows."""
        for gene, name in enumerate(self.genes):
            band, column = divmod(gene, self.across)
            top = self._band_top(band)
            left, right = self.x(column, 0), self.x(column, self.block - 1) + self.panel
            self.text((left + right) / 2, top, name, fontstyle="italic", fontweight="bold", ha="center", va="top")
            rule = 1 - (top + 1.15 * LINE) / self.height
            self.figure.add_artist(_line([left / self.width, right / self.width], [rule, rule], 0.6))
            for place, heading in enumerate(self.headings):
                centre = self.x(column, place) + self.panel / 2
                self.text(centre, top + self.header, "\n".join(heading), ha="center", va="bottom")
        for band in range(self.bands) if self.has_tissue else ():
            y = self._band_top(band) + self.header
            self.text(self.left + self.panel / 2, y, "tissue", ha="center", va="bottom")

    def colour_bars(self, row: int, gene: int, ranges: Sequence[tuple[float, float]]) -> None:
        """Below a gene's panels of a section: one below all of them, or one below each."""
        band, column = divmod(gene, self.across)
        middle = self.y(band, row) + self.heights[row] + 0.75 * LINE
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
