"""The regular array that spots were printed on, told from its indices or from positions alone.

Letters: S spots, N distinct places. Arrays are counted in *steps* to the nearest spot, so that a spot's neighbours lie
in the 3x3 block around it: along a row and at 60 degrees to it on hexagons, along two directions at 90 degrees on
squares. Indices of a file are such steps on a square array that is printed in full (ST). Where they leave out every
second place, x + y being even (or odd) for all spots, the nearest spots stand diagonally:

- Visium: an index step along x is .58 of one along y in pixels, so six spots are nearest: a hexagonal array.
- The checkerboard of ST's slides of 2,000 spots: both are alike, so four are nearest, sqrt(2) index steps away, and
  four more stand two index steps away: a square array turned by 45 degrees, as positions alone say, too.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

Lattice = Literal["square", "hex"]
NEXT_TURN: dict[Lattice, float] = {"square": np.pi / 2, "hex": np.pi / 3}
REACH = 1.25
"""Of the pitch: farther than a neighbour that is off its place, nearer than the next but one (1.41 or 1.73)."""
TOLERANCE = 0.25
"""Of the pitch: how far places may lie from the fitted array, as a root mean square, for them to be one."""
FEWEST_PLACES = 9
"""Fewer places tell no array: some of any few lie as if on one, and all may have even x + y."""
MANY_PLACES = 30
"""So many places of even x + y are not chosen so from an array that is printed in full, however far apart they lie."""
LEAST_SPREAD = 0.4
"""Index steps (least singular value) that places must lie off a line: an error of pixels grows by its inverse."""
PITCH_TOLERANCE, LEAST_BESIDE = 0.15, 1.0
"""Of places that tell the pitch: as ``TOLERANCE``, at most .09 on the 36 sections of HER2ST; and how many others each
has a step away, on average."""
SAME_STEP = 0.75
"""An index step along x of that many along y, or less, is no step of squares; on hexagons it is .58."""


class Array(NamedTuple):
    """An array: its packing, the steps of every spot, where they are from, its pitch in pixels (None if not told)."""

    lattice: Lattice
    steps: Int[np.ndarray, "S 2"]
    told_by: Literal["array positions", "pixel positions"]
    pitch_px: float | None


def nearest_distances(xy_px: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, " N"]:
    """Distance from each distinct position to the nearest other one; empty if there is only one."""
    places = np.unique(xy_px, axis=0)
    if len(places) < 2:
        return np.empty(0)
    return cKDTree(places).query(places, k=2)[0][:, 1]


def indexed_array(array_xy: Int[np.ndarray, "S 2"], xy_px: Float[np.ndarray, "S 2"]) -> Array:
    """The array of spots whose file gives column and row on it.

    The pitch of a part of an array is that of the whole, since steps are known. It is None of a single place, of a line
    whose indices are not one apart, of a few places nearly on a line, and where the kind of array is not known: on even
    steps whose x + y are all even or all odd without being a checkerboard for sure, on uneven ones where they are both.
    Neighbours are then those one index step away.
    """
    places = np.unique(np.column_stack([array_xy, xy_px]), axis=0)
    indices, at_px = places[:, :2].astype(np.int64), places[:, 2:]
    steps_px = slopes(indices, at_px) if spans_both(indices) else None
    if steps_px is None:
        return Array("square", array_xy, "array positions", _pitch_of_line(indices, at_px))
    column, row = np.linalg.norm(steps_px, axis=1)
    even_steps = min(column, row) >= SAME_STEP * max(column, row)
    every_second = len(np.unique(indices.sum(axis=1) % 2)) == 1
    if every_second and not even_steps:
        steps = _axial(array_xy if column < row else array_xy[:, ::-1])
        return Array("hex", steps, "array positions", _pitch(steps, xy_px))
    if every_second and _is_checkerboard(indices):
        steps = _diagonal(array_xy)
        return Array("square", steps, "array positions", _pitch(steps, xy_px))
    known = even_steps and not every_second
    return Array("square", array_xy, "array positions", _pitch(array_xy, xy_px) if known else None)


def spans_both(indices: Int[np.ndarray, "N 2"]) -> bool:
    """Whether places lie far enough off a line to tell both steps of their array."""
    return len(indices) > 2 and bool(
        np.linalg.svd(indices - indices.mean(axis=0), compute_uv=False)[-1] >= LEAST_SPREAD
    )


def placed_array(xy_px: Float[np.ndarray, "S 2"]) -> Array | None:
    """The array that positions alone form; None where they form none, or are too few to tell.

    Its pitch is told only by places that are many and dense enough: of a few spots that are chosen from an array, the
    distance to the next is that of the choice.
    """
    places = np.unique(xy_px, axis=0)
    if len(places) < FEWEST_PLACES:
        return None
    lattice: Lattice = "hex" if looks_hexagonal(xy_px) else "square"
    steps = fit_grid(xy_px, lattice)
    if steps is None:
        return None
    pitch_px = _pitch(steps, xy_px) if _tells_pitch(steps, xy_px, lattice) else None
    return Array(lattice, steps, "pixel positions", pitch_px)


def flat(steps: Int[np.ndarray, "S 2"], lattice: Lattice) -> Float[np.ndarray, "S 2"]:
    """Where spots lie, in pitches, if the array is even."""
    if lattice == "square":
        return steps.astype(float)
    q, r = steps.T
    return np.stack([q + r / 2, r * 3**0.5 / 2], axis=1)


def _axial(array_xy: Int[np.ndarray, "S 2"]) -> Int[np.ndarray, "S 2"]:
    column, row = array_xy.T
    return np.stack([(column - row) // 2, row], axis=1)


def _diagonal(array_xy: Int[np.ndarray, "S 2"]) -> Int[np.ndarray, "S 2"]:
    column, row = array_xy.T
    return np.stack([(column + row) // 2, (row - column) // 2], axis=1)


def _is_checkerboard(indices: Int[np.ndarray, "N 2"]) -> bool:
    """Whether places whose x + y are all even or all odd cannot well be chosen from an array that is printed in full.

    Every second row may be of either array, so it is none for sure.
    """
    if len(np.unique(indices[:, 0] % 2)) == 1 or len(indices) < FEWEST_PLACES:
        return False
    beside = 2 * len(cKDTree(indices).query_pairs(1.5, output_type="ndarray")) / len(indices)
    return bool(beside >= LEAST_BESIDE or len(indices) >= MANY_PLACES)


def _pitch(steps: Int[np.ndarray, "S 2"], xy_px: Float[np.ndarray, "S 2"]) -> float | None:
    steps_px = slopes(steps, xy_px)
    return None if steps_px is None else float(np.linalg.norm(steps_px, axis=1).mean())


def _pitch_of_line(indices: Int[np.ndarray, "N 2"], xy_px: Float[np.ndarray, "N 2"]) -> float | None:
    """Pixels of an index step along a row or column of squares: none where indices of a line are not one apart."""
    spans = np.ptp(indices, axis=0) > 0
    if spans.sum() != 1:
        return None
    along = np.unique(indices[:, spans])
    if np.gcd.reduce(np.diff(along)) != 1:
        return None
    design = np.column_stack([indices[:, spans], np.ones(len(indices))])
    return float(np.linalg.norm(np.linalg.lstsq(design, xy_px, rcond=None)[0][0]))


def _tells_pitch(steps: Int[np.ndarray, "S 2"], xy_px: Float[np.ndarray, "S 2"], lattice: Lattice) -> bool:
    places, first = np.unique(xy_px, axis=0, return_index=True)
    grid = steps[first]
    fitted = slopes(grid, places)
    if fitted is None:
        return False
    off = places - places.mean(axis=0) - (grid - grid.mean(axis=0)) @ fitted
    off_px = np.sqrt((off**2).sum() / (len(places) - 3))  # three numbers of each axis are fitted
    beside = 2 * len(cKDTree(flat(grid, lattice)).query_pairs(1.01, output_type="ndarray")) / len(places)
    return bool(off_px <= PITCH_TOLERANCE * np.linalg.norm(fitted, axis=1).mean() and beside >= LEAST_BESIDE)


def slopes(grid_xy: Int[np.ndarray, "S 2"], xy_px: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, "2 2"] | None:
    """Pixels moved for one step along each grid direction, or None where the spots do not span both."""
    design = np.column_stack([grid_xy, np.ones(len(grid_xy))])
    solution, _, rank, _ = np.linalg.lstsq(design, xy_px, rcond=None)
    return solution[:2] if rank == 3 else None


def looks_hexagonal(xy_px: Float[np.ndarray, "S 2"]) -> bool:
    """Whether places have no neighbours at 1.41 pitches: on squares every inner place has."""
    pitch_px = np.median(nearest_distances(xy_px))
    tree = cKDTree(xy_px)
    near = tree.query_ball_point(xy_px, REACH * pitch_px, return_length=True)
    wide = tree.query_ball_point(xy_px, 1.58 * pitch_px, return_length=True)
    return bool(np.mean(wide > near) <= 0.5)


def fit_grid(xy_px: Float[np.ndarray, "S 2"], lattice: Lattice) -> Int[np.ndarray, "S 2"] | None:
    """Array steps of every spot from its position alone, the least of them 0; None where places form no such array.

    Neighbouring places give the array's two directions. From place to neighbouring place the steps are then counted,
    so that a small error of the pitch does not grow with the distance.
    """
    places, place_of_spot = np.unique(xy_px, axis=0, return_inverse=True)
    distances = nearest_distances(places)
    if not len(distances):
        return None
    pairs = cKDTree(places).query_pairs(REACH * float(np.median(distances)), output_type="ndarray")
    basis = _basis(places[pairs[:, 1]] - places[pairs[:, 0]], NEXT_TURN[lattice])
    grid = _count_steps(places, pairs, np.linalg.inv(basis))
    fitted = slopes(grid, places)
    if fitted is None:
        return None
    off = places - places.mean(axis=0) - (grid - grid.mean(axis=0)) @ fitted
    if np.sqrt((off**2).sum(axis=1).mean()) > TOLERANCE * np.linalg.norm(fitted, axis=1).mean():
        return None
    return (grid - grid.min(axis=0))[place_of_spot.reshape(-1)]


def _basis(steps_px: Float[np.ndarray, "E 2"], next_turn: float) -> Float[np.ndarray, "2 2"]:
    """One step along each direction of the array, from the steps between neighbours, whichever way they go."""
    turns = 2 * np.pi / next_turn
    angle = np.angle(np.exp(1j * turns * np.arctan2(steps_px[:, 1], steps_px[:, 0])).mean()) / turns
    pitch_px = np.linalg.norm(steps_px, axis=1).mean()
    return pitch_px * np.array([[np.cos(turn), np.sin(turn)] for turn in (angle, angle + next_turn)])


def _count_steps(
    places: Float[np.ndarray, "N 2"], pairs: Int[np.ndarray, "E 2"], inverse: Float[np.ndarray, "2 2"]
) -> Int[np.ndarray, "N 2"]:
    size = (len(places), len(places))
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=size)
    grid = np.zeros(places.shape, dtype=np.int64)
    islands = connected_components(graph, directed=False)[1]
    for start in np.unique(islands, return_index=True)[1]:
        order, before = breadth_first_order(graph, start, directed=False)
        grid[start] = np.rint((places[start] - places[0]) @ inverse)
        for place in order[1:]:
            step = (places[place] - places[before[place]]) @ inverse
            grid[place] = grid[before[place]] + np.rint(step).astype(np.int64)
    return grid
