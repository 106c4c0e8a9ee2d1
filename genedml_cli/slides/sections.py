"""Several sections on one slide: tissue that lies apart, numbered.

Letters: H, W rows and columns of cells, as of :mod:`genedml_cli.slides.tissue`; N sections.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Int
from scipy.ndimage import distance_transform_edt, find_objects, label

from genedml.errors import GeneDMLError
from genedml_cli.slides.slide import Slide
from genedml_cli.slides.tissue import CELL_UM, Tissue

APART_UM = 1000.0
"""Pieces of tissue that are nearer belong to one section."""
LEAST_SHARE = 0.05
"""Of the area of the largest section; smaller pieces belong to the section that is nearest."""
COARSE_UM = 50.0
"""Of the side of the cells on which distances are measured."""


def number_sections(tissue: Tissue, slide: Slide) -> Int[np.ndarray, "H W"]:
    """The number of the section that is nearest to a cell, from 1; 0 throughout where there is no tissue.

    Sections are numbered from left to right, those above one another from top to bottom.
    """
    mask = tissue.mask
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int64)
    cell_um = slide.um_per_px * slide.size_px[0] / mask.shape[1] if slide.knows_scale else CELL_UM
    step = max(1, int(COARSE_UM / cell_um))
    rows, columns = mask.shape
    whole = np.pad(mask, ((0, -rows % step), (0, -columns % step)))
    shares = whole.reshape(whole.shape[0] // step, step, -1, step).mean(axis=(1, 3))
    coarse = shares > 0
    pieces, _ = label(distance_transform_edt(~coarse) * step * cell_um <= APART_UM / 2)
    areas = np.bincount(pieces.ravel(), shares.ravel())
    large = np.flatnonzero(areas >= LEAST_SHARE * areas.max())
    boxes = find_objects(pieces * coarse)
    number_of = np.zeros(len(areas), dtype=np.int64)
    number_of[large[_in_order([boxes[piece - 1] for piece in large])]] = np.arange(len(large)) + 1
    numbers = number_of[pieces] * coarse
    nearest = distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    return numbers[tuple(nearest)].repeat(step, 0).repeat(step, 1)[:rows, :columns]


def only_section(tissue: Tissue, slide: Slide, section: int) -> tuple[Tissue, Tissue]:
    """The tissue of one section of a slide, and all that is nearer to it than to the others, as tissue.

    Raises:
        GeneDMLError: there is no section of that number.
    """
    numbers = number_sections(tissue, slide)
    count = int(numbers.max())
    if not 1 <= section <= count:
        raise GeneDMLError(
            f"There is no section {section} on {slide.path.name}: its tissue ({tissue.source}) is "
            f"{count} {'section' if count == 1 else 'sections'}, {APART_UM / 1000:g} mm or more apart. Look at their "
            "numbers: genedml predict SLIDE --preview FILE.png."
        )
    ground = replace(tissue, mask=numbers == section, source=f"{tissue.source}, section {section} of {count}")
    return replace(ground, mask=ground.mask & tissue.mask), ground


def _in_order(boxes: list[tuple[slice, slice]]) -> Int[np.ndarray, " N"]:
    """Places of boxes from left to right; those whose middle is above or below another's, from top to bottom."""
    tops = [rows.start for rows, _ in boxes]
    rights = [columns.stop for _, columns in boxes]
    middles = [(columns.start + columns.stop) / 2 for _, columns in boxes]
    order: list[int] = []
    column: list[int] = []
    for place in np.argsort(middles, kind="stable"):
        if column and middles[place] > rights[column[0]]:
            order += sorted(column, key=lambda other: tops[other])
            column = []
        column.append(place)
    return np.array(order + sorted(column, key=lambda other: tops[other]))
