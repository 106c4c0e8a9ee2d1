"""Which spot of an array a place belongs to. Letters: N places, S spots."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from genedml_cli.spots.lattice import Lattice

CHUNK = 2**20
MOST_STEPS = 2**20
"""Columns or rows of an array, more than fit on a slide at 1 um."""


@dataclass(frozen=True)
class Packing:
    """An array of spots that leaves no gap: every place belongs to the spot whose centre is nearest.

    Squares begin at (0, 0); centres of hexagons stand at (0, 0), every second row shifted by half a step, and columns
    are counted as Visium does, every second one in every second row.

    Args:
        kind: ``square`` or ``hex``.
        um: from a spot to the next.
    """

    kind: Lattice
    um: float

    @property
    def area_um2(self) -> float:
        """Of one spot."""
        return self.um**2 * (1 if self.kind == "square" else 3**0.5 / 2)

    def spots_at(self, xy_um: Float[np.ndarray, "N 2"]) -> Int[np.ndarray, "N 2"]:
        """Column and row on the array of the spot at each place; places count from 0."""
        parts = [self._some(xy_um[start : start + CHUNK]) for start in range(0, len(xy_um), CHUNK)]
        return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)

    def _some(self, xy_um: Float[np.ndarray, "N 2"]) -> Int[np.ndarray, "N 2"]:
        if self.kind == "square":
            return np.floor(xy_um / self.um).astype(np.int64)
        x, y = (xy_um / (self.um, self.um * 3**0.5 / 2)).T
        below = np.floor(y).astype(np.int64)
        best = np.zeros((len(x), 2), np.int64)
        least = np.full(len(x), np.inf)
        for row in (below, below + 1):
            shift = row % 2
            column = 2 * np.rint(x - shift / 2).astype(np.int64) + shift
            apart = (x - column / 2) ** 2 + 0.75 * (y - row) ** 2
            nearer = apart < least
            best[nearer] = np.column_stack([column, row])[nearer]
            least[nearer] = apart[nearer]
        return best

    def centres_um(self, array_xy: Int[np.ndarray, "S 2"]) -> Float[np.ndarray, "S 2"]:
        """Where the spots of these columns and rows have their centres."""
        if self.kind == "square":
            return (array_xy + 0.5) * self.um
        return array_xy * np.array([self.um / 2, self.um * 3**0.5 / 2])


def numbered(array_xy: Int[np.ndarray, "N 2"]) -> tuple[Int[np.ndarray, "S 2"], Int[np.ndarray, " N"]]:
    """The spots that occur, row by row, and which of them each place belongs to."""
    keys, spot = np.unique(array_xy[:, 1] * MOST_STEPS + array_xy[:, 0], return_inverse=True)
    return np.column_stack([keys % MOST_STEPS, keys // MOST_STEPS]), spot.reshape(-1)
