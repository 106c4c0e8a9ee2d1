"""Spots of a section: names, level-0 pixels, and the array they stand on; which slide they can be of.

Letters: S spots. Pixel and array positions are (x, y): x counts columns, y rows.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.space_ranger import Pictures
from genedml_cli.files.spatialdata_files import StoreImage
from genedml_cli.notes import Mark, Note
from genedml_cli.slides.slide import Slide, open_slide
from genedml_cli.spots.lattice import (
    FEWEST_PLACES,
    Array,
    Lattice,
    flat,
    indexed_array,
    nearest_distances,
    placed_array,
    slopes,
    spans_both,
)

OFF_ARRAY = 0.5
"""Pitches that half the spots may be off a straight array; on the 36 sections of HER2ST the most is .08."""

SUMMED = re.compile(r"s_(\d+(?:\.\d+)?)um_\d+_\d+")
"""How bins of Visium HD and pseudo-spots are called: ``s_100um_00012_00034``."""
SAME_SIZE = 0.05
"""How much sizes of spots may differ and be called one."""
MOST_SPOTS = 20_000
"""Of a table of one section: every spot sees all others in the global view, and so it is in the section-wise networks,
whose attention grows with the square: 5 blocks of width 1,024 cost .5 TFLOP at 5,000 spots and 8 at 20,000. Visium's
largest array has 14,336."""
LEAST_AREA = 0.25
"""Area of an index step by a step over the square of the longer one: 1 on squares, .58 on Visium, 0 on a line."""
FEW_OUTSIDE = 0.5
"""Of the spots: fewer off the image may be of a section that the image cuts off, as HEST's TENX92."""
LARGEST_PITCH_RATIO = 1.25  # times; pitches as people say them are within a few per cent
# Half way between the farthest array neighbour and the nearest spot that is none, in pitches.
NEIGHBOR_RADIUS: dict[Lattice, float] = {"square": (2**0.5 + 2) / 2, "hex": (1 + 3**0.5) / 2}

CELLS: dict[Lattice, float] = {"square": 9.0, "hex": 7 * 3**0.5 / 2}
"""Area of a spot and its array neighbours, in squares of the pitch."""


@dataclass(frozen=True)
class Geometry:
    """What is derived of the array of spots.

    Args:
        array: its packing: ``square``, ``hex`` or ``none``.
        told_by: what told the packing.
        pitch_px: distance of neighbouring spots in level-0 pixels; None where it is not known.
        neighbors_per_spot: mean number of a spot's neighbours.
    """

    array: str
    told_by: str
    pitch_px: float | None
    neighbors_per_spot: float


@dataclass(frozen=True)
class Spots:
    """Where to predict.

    Args:
        names: one a spot, unique.
        xy_px: centres in level-0 pixels.
        array_xy: column and row on the array, where the file has them.
        left_out: how many rows of the file are no spots of these, and why, in words; empty if there are none.
        pitch_um: distance of neighbouring spots, where the file says it.
        pictures: what Space Ranger's folder says of the image, where the table lies in one.
        image: whose pixels the centres are, where a SpatialData store says it.
        mean_within_px: how far what is predicted for a spot is averaged; None for over its array neighbours.
    """

    names: tuple[str, ...]
    xy_px: Float[np.ndarray, "S 2"]
    array_xy: Int[np.ndarray, "S 2"] | None = None
    left_out: str = ""
    pitch_um: float | None = None
    pictures: Pictures | None = None
    image: StoreImage | None = None
    mean_within_px: float | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def summed_um(self) -> float | None:
        """Side of the spots, where bins or transcripts were summed into them: their names say it; None of others."""
        sizes = {size[1] if (size := SUMMED.match(name)) else None for name in self.names}
        size_um = sizes.pop() if len(sizes) == 1 else None
        return None if size_um is None else float(size_um)

    @cached_property
    def array(self) -> Array | None:
        """The array they are of, by its indices where they are known; None where positions alone form none."""
        return placed_array(self.xy_px) if self.array_xy is None else indexed_array(self.array_xy, self.xy_px)

    @property
    def lattice(self) -> Lattice:
        """How the array is packed: in squares (ST, also its checkerboard, and Visium HD) or hexagonal (Visium)."""
        return "square" if self.array is None else self.array.lattice

    @cached_property
    def grid_xy(self) -> Int[np.ndarray, "S 2"]:
        """Cell of every spot on a grid whose 3x3 block holds its array neighbours; without an array, by distance."""
        if self.array is not None:
            return self.array.steps
        start = self.xy_px - self.xy_px.min(axis=0)
        return np.rint(start / self.spacing_px if start.any() else start).astype(np.int64)

    @property
    def knows_pitch(self) -> bool:
        """Whether the pitch of the array is told by its indices, or by positions that are many and dense enough."""
        return self.array is not None and self.array.pitch_px is not None

    @property
    def pitch_px(self) -> float:
        """Distance of neighbouring spots of the array in level-0 pixels, by a line fitted over all of it.

        Raises:
            GeneDMLError: nothing tells it; the distance to the nearest spot would be that of a choice of spots.
        """
        if self.array is None or self.array.pitch_px is None:
            why, fix = "too few, or too far apart", "spots with array_row and array_col, or "
            if self.array_xy is not None:
                why, fix = "their array positions may be of a full array or of one with every second place", ""
                if len(self) < FEWEST_PLACES:
                    why = f"too few, or {why}"
            raise GeneDMLError(
                f"The pitch of the array cannot be told from {console.count(len(self), 'spot')}: {why}. "
                f"Give --um-per-px, or {fix}all spots of the section."
            )
        return self.array.pitch_px

    @cached_property
    def spacing_px(self) -> float:
        """The pitch, or else the median distance to the nearest other place: to draw spots by. 0 of a single place."""
        if self.knows_pitch:
            return self.pitch_px
        distances = nearest_distances(self.xy_px)
        return float(np.median(distances)) if len(distances) else 0.0

    def neighbors(self) -> csr_matrix:
        """[S, S] ones where two spots are array neighbours (on squares the 8 around, on hexagons 6), itself included.

        A checkerboard is a square array turned by 45 degrees: 4 neighbours at its pitch, 4 at 1.41 times that. Spots
        that form no array have no neighbours but at their own place.
        """
        if self.array is None:
            place, radius = self.xy_px, 0.0
        else:
            place, radius = flat(self.array.steps, self.lattice), NEIGHBOR_RADIUS[self.lattice]
        return _within(place, radius)

    def averaged(self) -> csr_matrix:
        """[S, S] ones where what is predicted for a spot is a mean over another: its array neighbours, if nothing else
        is said.
        """
        return self.neighbors() if self.mean_within_px is None else _within(self.xy_px, self.mean_within_px)

    def mean_as_on(self, lattice: Lattice, pitch_um: float, um_per_px: float) -> "Spots":
        """The same, averaged over as large an area as a spot of another array and its neighbours, if these are finer.

        ``pitch_um`` is of the other array, ``um_per_px`` of these positions. Means over the few neighbours of a fine
        grid are rougher than what a model of a coarse array was trained to predict.
        """
        if not self.knows_pitch:
            return self
        area, other = CELLS[self.lattice] * (self.pitch_px * um_per_px) ** 2, CELLS[lattice] * pitch_um**2
        if area * LARGEST_PITCH_RATIO**2 >= other:
            return self
        return replace(self, mean_within_px=(other / np.pi) ** 0.5 / um_per_px)

    def array_mean(
        self, values: Float[np.ndarray, "S M"], among: Bool[np.ndarray, " S"] | None = None
    ) -> Float[np.ndarray, "S M"]:
        """Of every spot the mean over itself and its neighbours (:meth:`averaged`): labels are, and what predicts them.

        :func:`genedml.networks.inputs.array_mean` is the same on the device, with its gradient.

        Args:
            values: one row a spot.
            among: spots that take part, all if None; a spot without any of them around is 0.
        """
        among = np.ones(len(self), dtype=bool) if among is None else among
        near = self.averaged().multiply(among[None, :].astype(float)).tocsr()
        count = np.asarray(near.sum(axis=1))
        return np.asarray(near @ np.where(among[:, None], values, 0.0)) / np.maximum(count, 1)

    @cached_property
    def geometry(self) -> Geometry:
        """What is derived of the array, for results."""
        each = (self.neighbors().sum() - len(self)) / len(self)
        return Geometry(
            "none" if self.array is None else self.array.lattice,
            "pixel positions" if self.array is None else self.array.told_by,
            self.pitch_px if self.knows_pitch else None,
            float(each),
        )

    def describe(self) -> str:
        """:attr:`geometry` in words."""
        pitch = f"pitch {self.pitch_px:.4g} px" if self.knows_pitch else "pitch unknown"
        packing = {"square": "square array", "hex": "hexagonal array", "none": "no array"}[self.geometry.array]
        return (
            f"{packing} by {self.geometry.told_by}, {pitch}, {self.geometry.neighbors_per_spot:.1f} neighbours a spot"
        )


def _within(place: Float[np.ndarray, "S 2"], radius: float) -> csr_matrix:
    """[S, S] ones where two places lie within ``radius``, each within its own."""
    pairs, spots = cKDTree(place).query_pairs(radius, output_type="ndarray"), np.arange(len(place))
    rows = np.concatenate([pairs[:, 0], pairs[:, 1], spots])
    columns = np.concatenate([pairs[:, 1], pairs[:, 0], spots])
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(place), len(place)))


def check_array(spots: Spots, path: Path) -> None:
    """Refuse array positions of several places, or among which the pixels do not lie as on an array.

    Raises:
        GeneDMLError: so it is in the table ``path``.
    """
    if spots.array_xy is None:
        return
    places = np.unique(np.column_stack([spots.array_xy, spots.xy_px]), axis=0)
    indices, at_px = places[:, :2].astype(np.int64), places[:, 2:]
    twice = len(places) - len(np.unique(indices, axis=0))
    if twice:
        raise GeneDMLError(
            f"{path} gives {console.count(twice, 'array position')} to spots at several places, as a table of several "
            "sections does. Give the spots of one section; if these are of one, fix their array positions."
        )
    heaped = len(places) - len(np.unique(at_px, axis=0))
    if heaped:
        raise GeneDMLError(
            f"In {path} {heaped} of {len(places)} array positions have the pixel of another one. Fix the positions in "
            "pixels, or leave out the array positions."
        )
    off_px, apart = _off_array(indices, at_px), nearest_distances(at_px)
    why = ""
    if len(apart) and off_px > OFF_ARRAY * np.median(apart):
        why = (
            f"half the spots lie {off_px:.0f} px or more from where the array has them, and {np.median(apart):.0f} px "
            "from the next"
        )
    elif _is_flat(indices, at_px):
        why = "columns and rows of the array run along one line in pixels"
    if why:
        raise GeneDMLError(
            f"In {path} pixels and array positions contradict each other: {why}. Are these columns of another table? "
            "Fix them, or leave out the array positions."
        )


def _off_array(indices: Int[np.ndarray, "N 2"], at_px: Float[np.ndarray, "N 2"]) -> float:
    """Pixels that half the places are off a straight array; 0 of so few that every array fits them.

    Where places are enough they are fitted a second time without the half that is farthest off, such as spots with a
    wrong digit.
    """
    design = np.column_stack([indices, np.ones(len(indices))])
    fitted, _, rank, _ = np.linalg.lstsq(design, at_px, rcond=None)
    off = np.linalg.norm(design @ fitted - at_px, axis=1)
    off_px, straight = np.median(off), off <= np.median(off)
    if straight.sum() > rank:
        fitted = np.linalg.lstsq(design[straight], at_px[straight], rcond=None)[0]
        off_px = min(off_px, np.median(np.linalg.norm(design @ fitted - at_px, axis=1)))
    free = len(indices) - rank
    return float(off_px * (len(indices) / free) ** 0.5) if free > 0 else 0.0


def _is_flat(indices: Int[np.ndarray, "N 2"], at_px: Float[np.ndarray, "N 2"]) -> bool:
    """Whether pixels lie on a line where array positions do not, by the half of the places that fits an array best."""
    design = np.column_stack([indices, np.ones(len(indices))])
    off = np.linalg.norm(design @ np.linalg.lstsq(design, at_px, rcond=None)[0] - at_px, axis=1)
    indices, at_px = indices[off <= np.median(off)], at_px[off <= np.median(off)]
    steps_px = slopes(indices, at_px) if spans_both(indices) else None
    if steps_px is None:
        return False
    return bool(abs(np.linalg.det(steps_px)) < LEAST_AREA * np.square(steps_px).sum(axis=1).max())


def take_pitch(slide: Slide, spots: Spots, pitch_um: float) -> None:
    """Settle the um/px of a slide by the pitch of its array.

    Raises:
        GeneDMLError: spots that tell no pitch, or a um/px that no microscope has.
    """
    slide.set_um_per_px(pitch_um / spots.pitch_px, f"from the pitch of {pitch_um:g} um")


def on_image(path: Path, spots: Spots) -> tuple[Spots, list[Note]]:
    """The spots whose centre is on the image of a slide, and the note that says how many are left out, if any are.

    Raises:
        GeneDMLError: as :func:`genedml_cli.slides.slide.open_slide`. Where all lie outside, all are returned, to be
            refused.
    """
    with open_slide(path) as slide:
        outside = outside_image(spots, slide)
    if not outside.any() or outside.all():
        return spots, []
    note = Note(Mark.OFF_IMAGE, f"{outside.sum()} of {len(spots)} spots lie outside {path.name} and are left out.")
    console.warn(str(note))
    return some_of(spots, ~outside), [note]


def some_of(spots: Spots, chosen: Bool[np.ndarray, " S"]) -> Spots:
    """The spots that are chosen, in order."""
    array_xy = None if spots.array_xy is None else spots.array_xy[chosen]
    names = tuple(name for name, taken in zip(spots.names, chosen, strict=True) if taken)
    return replace(spots, names=names, xy_px=spots.xy_px[chosen], array_xy=array_xy)


def size_note(trained_um: Collection[float], spots: Spots, pitch_um: float | None) -> Note | None:
    """What must be said of predictions at spots of another size than a model's pseudo-spots had.

    Args:
        trained_um: sizes of the pseudo-spots it was trained on; nothing of a model of measured spots.
        spots: where it predicts.
        pitch_um: distance of neighbouring spots, which is the size of those that are not summed; None if unknown.
    """
    size_um = spots.summed_um or pitch_um
    if not trained_um or size_um is None or any(abs(size_um / um - 1) <= SAME_SIZE for um in trained_um):
        return None
    sizes = " and ".join(f"{um:g}" for um in sorted(trained_um))
    text = f"the model was trained on spots summed over {sizes} um, and these are of {size_um:.4g} um."
    return Note(Mark.SPOT_SIZE, f"{text} Sum at the same size: genedml data bin, --um {min(trained_um):g}.")


def outside_image(spots: Spots, slide: Slide) -> Bool[np.ndarray, " S"]:
    return np.any((spots.xy_px < 0) | (spots.xy_px >= np.array(slide.size_px)), axis=1)
