"""The regular array that spots were printed on, told from its indices or from positions alone.

Letters: S spots, N distinct places. A hexagonal array is counted in axial steps, one along a row and one at 60 degrees
to it, so that a spot's six neighbours lie in the 3x3 block around it.
"""

from typing import Literal

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


def nearest_distances(xy_px: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, " N"]:
    """Distance from each distinct position to the nearest other one; empty if there is only one."""
    places = np.unique(xy_px, axis=0)
    if len(places) < 2:
        return np.empty(0)
    return cKDTree(places).query(places, k=2)[0][:, 1]


def axial(array_xy: Int[np.ndarray, "S 2"]) -> Int[np.ndarray, "S 2"]:
    """Axial steps of a hexagonal array whose file counts every second column in every second row, as Visium's does."""
    column, row = array_xy.T
    return np.stack([(column - row) // 2, row], axis=1)


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
