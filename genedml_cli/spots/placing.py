"""Where to predict on a slide: the spots that are given, held against the tissue, or a grid over it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.notes import Mark, Note
from genedml_cli.slides.sections import only_section
from genedml_cli.slides.slide import Slide, open_slide
from genedml_cli.slides.tissue import Tissue, find_tissue, read_tissue
from genedml_cli.spots.grid import lay_grid
from genedml_cli.spots.lattice import Lattice, slopes
from genedml_cli.spots.section import check_full_image, open_section
from genedml_cli.spots.spot_files import read_spots, spots_file
from genedml_cli.spots.spots import Spots, on_image, some_of

GRID_PITCH_UM = 100.0

# Of the spots of five ST sections and a Visium one, .98 to 1 are on the tissue that is found; of those of the other 35
# HER2ST sections put on each of the five, at most .86, mostly less than .50. With x and y exchanged .57 to .92 remain,
# since tissue lies in the middle of a slide: .08 to .43 less.
LEAST_ON_TISSUE = 0.6
OWN_ON_TISSUE = 0.9
EXCHANGE_MARGIN = 0.05
FEWEST_SPOTS = 30  # fewer may well be chosen at an edge
GRID = "grid"
"""In the place of a spot table's name."""
LEAST_PITCH_UM = 40.0
"""No array of spots is as fine, but the bins of Visium HD are. Pixels of Space Ranger's pictures make 10 um of 100."""


@dataclass(frozen=True)
class Site:
    """A slide, the spots to predict on it, and the tissue that they were held against or laid over.

    Args:
        slide: opened.
        spots: inside it.
        tissue: of the slide.
        source: file name of the spot table; :data:`GRID` of a grid.
        on_tissue: share of a table's spots that lie on the tissue; None of a grid, which lies there.
        grid: packing of a grid; None of a table.
        grid_pitch_um: distance of a grid's spots; None of a table.
        notes: what must be said with results.
    """

    slide: Slide
    spots: Spots
    tissue: Tissue
    source: str
    on_tissue: float | None = None
    grid: Lattice | None = None
    grid_pitch_um: float | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Placing:
    """How spots come to stand on a slide.

    Args:
        um_per_px: of level 0, where the slide does not say.
        pitch_um: distance of neighbouring spots: of a table, from which um/px follows where it is not known; of a grid
            it is 100 by default.
        grid: packing of a grid.
        tissue: what is tissue, over what is found (see :func:`genedml_cli.slides.tissue.read_tissue`).
        allow_off_tissue: take a table's spots even if most lie off the tissue.
        skip_off_image: leave out a table's spots that lie off the image, with a note; else they are refused.
        section: of several on the slide, the only one whose spots are taken or over which a grid is laid (see
            :mod:`genedml_cli.slides.sections`).
    """

    um_per_px: float | None = None
    pitch_um: float | None = None
    grid: Lattice = "hex"
    tissue: Path | None = None
    allow_off_tissue: bool = False
    skip_off_image: bool = False
    section: int | None = None


@contextmanager
def place_spots(slide: Path, spots: Path | None, placing: Placing, scale_needed: bool = True) -> Iterator[Site]:
    """Open a slide with the spots of a table or, without one, of a grid over its tissue.

    Args:
        slide: anything OpenSlide opens, or a plain section image.
        spots: a spot table or a folder of Space Ranger (see :func:`genedml_cli.spots.spot_files.read_spots`).
        placing: how they come to stand there.
        scale_needed: whether um/px of a table's slide has to be known.

    Raises:
        GeneDMLError: as the functions named; spots that are not of the slide; no tissue or um/px to lay a grid; a
            section that the slide has not, or without spots.
    """
    spots = None if spots is None else spots_file(spots)
    table = None if spots is None else read_spots(spots)
    left_out: list[Note] = []
    if table is not None and placing.skip_off_image:
        table, left_out = on_image(slide, table)
    if table is None:
        opened = open_slide(slide, placing.um_per_px)
    else:
        opened = open_section(slide, table, placing.um_per_px, placing.pitch_um, scale_needed=scale_needed)
    with opened:
        if table is None:
            check_full_image(opened)
        where = find_tissue(opened) if placing.tissue is None else read_tissue(placing.tissue, opened)
        if placing.section is not None:
            where, ground = only_section(where, opened, placing.section)
            table = None if table is None else spots_on(ground, table, opened)
        notes = [*opened.notes, *left_out]
        if spots is None or table is None:
            pitch_um = GRID_PITCH_UM if placing.pitch_um is None else placing.pitch_um
            table = lay_grid(where, opened, placing.grid, pitch_um)
            site = Site(opened, table, where, GRID, grid=placing.grid, grid_pitch_um=pitch_um, notes=tuple(notes))
        else:
            share = check_on_tissue(table, opened, where, placing.allow_off_tissue)
            notes += doubt_spots(table, share, spots)
            site = Site(opened, table, where, spots.name, share, notes=tuple(notes))
        say_what_is_derived(opened, table, placing.pitch_um)
        yield site


def spots_on(ground: Tissue, spots: Spots, slide: Slide) -> Spots:
    """The spots that lie at a section.

    Raises:
        GeneDMLError: none does.
    """
    chosen = ground.holds(spots.xy_px)
    if not chosen.any():
        raise GeneDMLError(
            f"None of the {len(spots)} spots lies at the section asked for of {slide.path.name} ({ground.source}). "
            "Look at all of them without --section: genedml predict SLIDE --spots FILE --preview FILE.png."
        )
    console.note(f"{chosen.sum()} of {len(spots)} spots lie at the section asked for ({ground.source}).")
    return some_of(spots, chosen)


def check_on_tissue(spots: Spots, slide: Slide, tissue: Tissue, allow_off_tissue: bool = False) -> float:
    """The share of spots whose centre is on tissue; refused if it says that the spots are not of this slide.

    Few spots are not judged. A share that a section's own spots hardly have is warned of, and an array that runs across
    the image where tissue cannot tell whether x and y are exchanged or the image is turned.

    Raises:
        GeneDMLError: far more would be on tissue with x and y exchanged, or too few are, unless ``allow_off_tissue``:
            then it is a warning.
    """
    share, exchanged = (float(tissue.holds(xy_px).mean()) for xy_px in (spots.xy_px, spots.xy_px[:, ::-1]))
    judged = len(spots) >= FEWEST_SPOTS
    problem = ""
    found = f"Of the {len(spots)} spots {share:.0%} lie on the tissue of {slide.path.name}"
    if judged and exchanged >= LEAST_ON_TISSUE and exchanged - share > EXCHANGE_MARGIN:
        problem = f"{found}, but {exchanged:.0%} would with x and y exchanged. Exchange the two in the spot table."
    elif judged and share < LEAST_ON_TISSUE:
        problem = (
            f"{found}; of a section's own it is nearly all. Are they of another slide, or pixels of a smaller image?"
        )
    elif judged and share < OWN_ON_TISSUE:
        console.warn(f"{found}; of a section's own it is nearly all. Are they of another section, or is tissue missed?")
    elif exchanged - share > -EXCHANGE_MARGIN and _runs_across(spots):
        console.warn(
            f"The array's columns run along y and its rows along x on {slide.path.name}. Unless the image is turned by "
            "a quarter, x and y of the spots are exchanged."
        )
    if problem and not allow_off_tissue:
        raise GeneDMLError(
            f"{problem} To look at them: genedml predict SLIDE --spots FILE --allow-off-tissue --preview FILE.png. If "
            "they are right, --allow-off-tissue takes them."
        )
    if problem:
        console.warn(problem)
    return share


def say_what_is_derived(slide: Slide, spots: Spots, pitch_um: float | None = None) -> None:
    """One line: um/px and who says it, the kind of array, its pitch, neighbours of a spot, rows that are left out.

    A pitch in um that was not given and no array of spots has is warned of.
    """
    scale = f"{slide.um_per_px:.4g} um/px {slide.um_per_px_from}" if slide.knows_scale else "um/px unknown"
    left_out = f"; {spots.left_out}" if spots.left_out else ""
    console.note(f"{slide.path.name}: {scale}; {spots.describe()}{left_out}.")
    pitch_said = pitch_um is not None or spots.pitch_um is not None
    if not pitch_said and slide.knows_scale and spots.knows_pitch and len(spots) >= FEWEST_SPOTS:
        apart_um = spots.pitch_px * slide.um_per_px
        if apart_um < LEAST_PITCH_UM:
            console.warn(
                f"The array's pitch of {spots.pitch_px:.4g} px is {apart_um:.3g} um at {slide.um_per_px:.4g} um/px; "
                "Visium's is 100 um, ST's 200, that of Visium HD's bins 2, 8 or 16. Is um/px wrong, or are the spots "
                "pixels of a smaller image?"
            )


def doubt_spots(spots: Spots, share: float, file: Path) -> list[Note]:
    """What must be said with results of spots of which fewer are on tissue than of a section's own."""
    if share >= OWN_ON_TISSUE or len(spots) < FEWEST_SPOTS:
        return []
    text = (
        f"{share:.0%} of {file.name} lie on the tissue found, of a section's own it is nearly all; they may be of "
        "another section."
    )
    return [Note(Mark.DOUBTFUL_SPOTS, text)]


def _runs_across(spots: Spots) -> bool:
    """Whether pixels move along y with the array's columns and along x with its rows."""
    steps_px = None if spots.array_xy is None else slopes(spots.array_xy, spots.xy_px)
    if steps_px is None:
        return False
    across = np.abs(steps_px[[0, 1], [1, 0]])
    return bool((across > np.abs(steps_px[[0, 1], [0, 1]])).all())
