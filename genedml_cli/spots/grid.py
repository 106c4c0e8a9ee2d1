"""A regular array of spots over tissue, for slides on which nothing was measured. Letters: S spots."""

import numpy as np

from genedml.errors import GeneDMLError
from genedml_cli.slides.slide import Slide
from genedml_cli.slides.tissue import Tissue
from genedml_cli.spots.lattice import Lattice
from genedml_cli.spots.spots import Spots

MAX_SPOTS = 200_000


def lay_grid(tissue: Tissue, slide: Slide, lattice: Lattice, pitch_um: float) -> Spots:
    """Spots whose centres are on tissue, row by row: squares, as ST's, or every second row shifted, as Visium's.

    The array starts half a pitch inside the slide's upper left corner, whatever the tissue, so a place has one name
    with every mask. Names say row and column, as ``r003c012``; a hexagonal array counts columns as Visium does, every
    second one in every second row.

    Raises:
        GeneDMLError: no tissue, no um/px, or a pitch that leaves no spot or too many.
    """
    if not slide.knows_scale:
        raise GeneDMLError(
            f"{slide.path.name} does not say its um/px, and a grid is laid in um. Give --um-per-px (from the scanner)."
        )
    if not tissue.mask.any():
        raise GeneDMLError(
            f"No tissue was found on {slide.path.name}: nothing of size has the colours of H&E. Say where it is with "
            "--tissue mask.png or regions.geojson, or give --spots."
        )
    expected = tissue.area_px * slide.um_per_px**2 / pitch_um**2 if pitch_um > 0 else np.inf
    if not expected <= MAX_SPOTS:
        raise GeneDMLError(
            f"--pitch-um {pitch_um:g} would lay more than {MAX_SPOTS:,} spots on {slide.path.name}. Visium has 100, "
            "ST 200."
        )
    row_um = pitch_um * (3**0.5 / 2 if lattice == "hex" else 1)
    width_um, height_um = np.array(slide.size_px) * slide.um_per_px
    rows, columns = np.mgrid[: int(height_um / row_um) + 1, : int(width_um / pitch_um) + 1].reshape(2, -1)
    array_x = 2 * columns + rows % 2 if lattice == "hex" else columns
    column_um = pitch_um / 2 if lattice == "hex" else pitch_um
    xy_um = np.column_stack([array_x * column_um, rows * row_um]) + pitch_um / 2
    xy_px = xy_um / slide.um_per_px
    kept = tissue.holds(xy_px)
    if not kept.any():
        raise GeneDMLError(f"No spot of a grid of {pitch_um:g} um falls on the tissue of {slide.path.name}. Lessen it.")
    array_xy = np.column_stack([array_x, rows])[kept]
    return Spots(tuple(f"r{row:03}c{column:03}" for column, row in array_xy), xy_px[kept], array_xy)
