"""A picture of where a prediction would be made: the slide, its tissue and the spots, before anything is encoded."""

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from genedml_cli.figures import DOTS_PER_INCH, LETTER, LINE, STYLE, check_picture_path
from genedml_cli.paths import takes_paths
from genedml_cli.results import spot_diameter_px
from genedml_cli.siting import Placing, Site, place_spots
from genedml_cli.storage import arriving, check_apart

SIDE_INCHES, NARROWEST_INCHES = 7.2, 3.0  # the longer side; the picture of a narrow slide
OUTLINE, ON_TISSUE, OFF_TISSUE = "black", "#F0E442", "#D55E00"  # Okabe and Ito's, told apart without colour vision


@takes_paths
def preview(slide: Path, spots: Path | None, out: Path, placing: Placing) -> str:
    """Draw the tissue and the spots that ``predict`` with the same arguments would take; say how many there are.

    Spots that predict would refuse for lying off the tissue are drawn, with a warning.

    Args:
        out: ``.png``, ``.pdf`` or ``.svg``; the others as for :func:`genedml_cli.siting.place_spots`.

    Raises:
        GeneDMLError: as there; a picture that cannot be written.
    """
    check_picture_path(out)
    check_apart([out], [slide, spots, placing.tissue])
    with (
        place_spots(slide, spots, replace(placing, allow_off_tissue=True), scale_needed=False) as placed,
        rc_context(STYLE),
        arriving(out) as temporary,
    ):
        preview_figure(placed).savefig(temporary, dpi=DOTS_PER_INCH)
        return describe(placed)


def describe(placed: Site) -> str:
    """Spots, where they come from, and the tissue, in a line."""
    record, slide = placed.record, placed.slide
    if "grid" in record:
        origin = f"{record['grid']} grid of {record['grid_pitch_um']:g} \u00b5m"
    else:
        origin = f"{record['spots']}, {record['spots_on_tissue']:.0%} on tissue"
    area = ""
    if slide.knows_scale:
        area = f" {placed.tissue.area_px * slide.um_per_px**2 / 1e6:.3g} mm\u00b2"
    return f"{len(placed.spots):,} spots ({origin}); tissue{area} ({record['tissue']})"


def preview_figure(placed: Site) -> Figure:
    """The whole slide, the outline of the tissue, and spots at their size, those off the tissue in another colour."""
    width, height = placed.slide.size_px
    longer = max(width, height)
    across, down = max(width / longer * SIDE_INCHES, NARROWEST_INCHES), height / longer * SIDE_INCHES
    lines = textwrap.wrap(f"{placed.slide.path.name}: {describe(placed)}", int(across / LETTER))
    heading = LINE * (len(lines) + 1)
    figure = Figure((across, down + heading))
    axis = figure.add_axes((0, 0, 1, down / (down + heading)))
    extent = (0, width, height, 0)
    axis.imshow(placed.slide.thumbnail(int(SIDE_INCHES * DOTS_PER_INCH)), extent=extent, aspect="equal")
    rows, columns = placed.tissue.mask.shape
    x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    if 0 < placed.tissue.mask.mean() < 1 and min(rows, columns) > 1:
        axis.contour(x, y, placed.tissue.mask, levels=[0.5], colors=OUTLINE, linewidths=0.8)
    on_tissue = placed.tissue.holds(placed.spots.xy_px)
    diameter = np.full(len(placed.spots), spot_diameter_px(placed.spots, placed.slide))
    for chosen, colour in ((on_tissue, ON_TISSUE), (~on_tissue, OFF_TISSUE)):
        spot = diameter[chosen]
        place = {"units": "xy", "offsets": placed.spots.xy_px[chosen], "transOffset": axis.transData}
        axis.add_collection(
            EllipseCollection(spot, spot, spot * 0, **place, facecolor="none", edgecolor=colour, linewidth=0.8)
        )
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    figure.text(LINE / 2 / across, 1 - LINE / 2 / (down + heading), "\n".join(lines), va="top")
    return figure
