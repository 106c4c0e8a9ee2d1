"""A picture of where a prediction would be made: the slide, its tissue and the spots, before anything is encoded.

Letters: S spots.
"""

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from genedml_cli.figures.genes import LETTER, LINE
from genedml_cli.figures.maps import length_label, scale_bar_um
from genedml_cli.figures.style import DOTS_PER_INCH, STYLE, check_picture_path
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import atomic_write, refuse_overwriting_inputs
from genedml_cli.outputs.predictions import spot_diameter_px
from genedml_cli.slides.sections import number_sections
from genedml_cli.slides.slide import Slide
from genedml_cli.spots.placing import Placing, Site, place_spots

SIDE_INCHES, NARROWEST_INCHES = 7.2, 3.0  # the longer side; the picture of a narrow slide
OUTLINE, ON_TISSUE, OFF_TISSUE = "black", "#F0E442", "#D55E00"  # Okabe and Ito's, told apart without colour vision


@takes_paths
def preview(slide: Path, spots: Path | None, out: Path, placing: Placing) -> str:
    """Draw the tissue and the spots that ``predict`` with the same arguments would take; say how many there are.

    Spots that predict would refuse for lying off the tissue are drawn, with a warning.

    Args:
        out: ``.png``, ``.pdf`` or ``.svg``; the others as for :func:`genedml_cli.spots.placing.place_spots`.

    Raises:
        GeneDMLError: as there; a picture that cannot be written.
    """
    check_picture_path(out)
    refuse_overwriting_inputs([out], [slide, spots, placing.tissue])
    with (
        place_spots(slide, spots, replace(placing, allow_off_tissue=True), scale_needed=False) as placed,
        rc_context(STYLE),
        atomic_write(out) as temporary,
    ):
        preview_figure(placed, placing.section is None).savefig(temporary, dpi=DOTS_PER_INCH)
        return describe(placed)


def describe(placed: Site) -> str:
    """Spots, where they come from, and the tissue, in a line."""
    slide = placed.slide
    if placed.on_tissue is None:
        origin = f"{placed.grid} grid of {placed.grid_pitch_um:g} \u00b5m"
    else:
        origin = f"{placed.source}, {placed.on_tissue:.0%} on tissue"
    area = ""
    if slide.knows_scale:
        area = f" {placed.tissue.area_px * slide.um_per_px**2 / 1e6:.3g} mm\u00b2"
    return f"{len(placed.spots):,} spots ({origin}); tissue{area} ({placed.tissue.source})"


def preview_figure(placed: Site, numbered: bool = True) -> Figure:
    """The whole slide, the outline of the tissue, and spots at their size, with a legend, a scale bar and um/px.

    ``numbered`` puts a number to every section, where there are several.
    """
    width, height = placed.slide.size_px
    longer = max(width, height)
    across, down = max(width / longer * SIDE_INCHES, NARROWEST_INCHES), height / longer * SIDE_INCHES
    lines = textwrap.wrap(f"{placed.slide.path.name}: {describe(placed)}", int(across / LETTER))
    heading, footing = LINE * (len(lines) + 1), 5 * LINE
    inches = heading + down + footing
    figure = Figure((across, inches))
    axis = figure.add_axes((0, footing / inches, 1, down / inches))
    extent = (0, width, height, 0)
    axis.imshow(placed.slide.thumbnail(int(SIDE_INCHES * DOTS_PER_INCH)), extent=extent, aspect="equal")
    rows, columns = placed.tissue.mask.shape
    x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    if 0 < placed.tissue.mask.mean() < 1 and min(rows, columns) > 1:
        axis.contour(x, y, placed.tissue.mask, levels=[0.5], colors=OUTLINE, linewidths=0.8)
    signs = [Line2D([], [], color=OUTLINE, linewidth=0.8, label="outline of the tissue")]
    on_tissue = placed.tissue.holds(placed.spots.xy_px)
    for chosen, colour, where in ((on_tissue, ON_TISSUE, "on tissue"), (~on_tissue, OFF_TISSUE, "off tissue")):
        if chosen.any():
            axis.add_collection(_circles(placed, chosen, colour, axis))
            label = f"{chosen.sum():,} spots {where}"
            signs.append(Line2D([], [], linewidth=0, marker="o", markerfacecolor="none", color=colour, label=label))
    if numbered:
        _number_sections(placed, axis)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    figure.text(LINE / 2 / across, 1 - LINE / 2 / inches, "\n".join(lines), va="top")
    figure.legend(handles=signs, loc="lower left", frameon=False, fontsize=7, borderpad=0)
    _draw_scale(figure, axis, placed.slide)
    return figure


def _number_sections(placed: Site, axis: Axes) -> None:
    """At the middle of every section its number, where a slide has several."""
    numbers = number_sections(placed.tissue, placed.slide) * placed.tissue.mask
    to_px = np.array(placed.slide.size_px) / numbers.shape[::-1]
    box = {"facecolor": "white", "edgecolor": OUTLINE, "boxstyle": "circle", "linewidth": 0.8}
    for number in range(1, numbers.max() + 1) if numbers.max() > 1 else ():
        x, y = (np.argwhere(numbers == number)[:, ::-1].mean(axis=0) + 0.5) * to_px
        axis.text(x, y, str(number), ha="center", va="center", bbox=box)


def _circles(placed: Site, chosen: Bool[np.ndarray, " S"], colour: str, axis: Axes) -> EllipseCollection:
    """Spots at their size."""
    diameter = np.full(chosen.sum(), spot_diameter_px(placed.spots, placed.slide))
    place = {"units": "xy", "offsets": placed.spots.xy_px[chosen], "transOffset": axis.transData}
    return EllipseCollection(
        diameter, diameter, diameter * 0, **place, facecolor="none", edgecolor=colour, linewidth=0.8
    )


def _draw_scale(figure: Figure, axis: Axes, slide: Slide) -> None:
    """Below the slide a scale bar and um/px, or that it is not known."""
    across, inches = figure.get_size_inches()
    level = axis.get_position().y0 - 0.75 * LINE / inches
    bar, text = 0.0, "no scale bar: um/px is not known"
    if slide.knows_scale:
        width_um = slide.size_px[0] * slide.um_per_px
        length_um = scale_bar_um(width_um)
        bar = length_um / slide.um_per_px / max(slide.size_px) * SIDE_INCHES / across
        text = f"{length_label(length_um)} (1 slide px is {slide.um_per_px:.4g} \u00b5m)"
    left = LINE / 2 / across
    figure.add_artist(Line2D([left, left + bar], [level, level], color="black", linewidth=2, solid_capstyle="butt"))
    figure.text(left + bar + LINE / 2 / across, level, text, fontsize=7, va="center_baseline")
