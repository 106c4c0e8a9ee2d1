"""How many genes are predicted better than by chance: against the same maps, shifted and turned on the array.

A map that is smooth over the tissue correlates with every other smooth map, so the PCC of a gene alone does not say
that its prediction is of this gene. Here the predicted map is moved as a whole: by one of the symmetries of the array
(8 of squares, 12 of hexagons) and a shift of whole steps. Moved so, it keeps its values and their autocorrelation and
loses its place. It is held against the truth of the spots that it then covers; those that leave the array are dropped.
A shift alone must be of more than two steps: in labels that are means over neighbours, nearer spots share counts.

Letters: S spots, M genes, D draws, N of them at a time. Random shifts as surrogates: Mrkvicka et al., Spatial
Statistics 42 (2021) 100430; ``(1 + at least as good) / (1 + draws)``: Davison and Hinkley, Bootstrap Methods (1997),
section 4.2; false discoveries: Benjamini and Hochberg (1995).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import correlate
from scipy.stats import false_discovery_control

from genedml.metrics import pcc, residual
from genedml_cli.spots.lattice import Lattice
from genedml_cli.spots.spots import Spots

DRAWS = 500
"""Taken at random from all, where the array has more."""
FEWEST_DRAWS = 99
"""With fewer no p value is small enough to say anything of many genes."""
LEAST_OVERLAP = 0.5
"""Share of the spots that a moved map must cover."""
NEAR_STEPS = 2
"""A shift alone is farther: means over neighbours have counts in common up to so many steps."""
FALSE_DISCOVERIES = 0.05
SEED = 2021
AT_ONCE = 50
TIE = 1e-9
"""Correlations that differ by less are the same."""


def moved_maps(spots: Spots) -> Int[np.ndarray, "D S"]:
    """For every draw and spot, the spot whose value stands there after the move; -1 where there is none.

    At most :data:`DRAWS` of all moves that cover :data:`LEAST_OVERLAP` of the spots; none where spots form no array. Of
    spots in one cell only the first takes part.
    """
    if spots.array is None:
        return np.empty((0, len(spots)), dtype=np.int32)
    cells, first = np.unique(spots.array.steps - spots.array.steps.min(axis=0), axis=0, return_index=True)
    turned = [cells @ symmetry.T for symmetry in symmetries(spots.lattice)]
    turned = [places - places.min(axis=0) for places in turned]
    moves = np.concatenate([_moves(cells, places, number) for number, places in enumerate(turned)])
    moves = moves[(moves[:, 0] > 0) | (_steps_away(moves[:, 1:], spots.lattice) > NEAR_STEPS)]
    if len(moves) > DRAWS:
        moves = moves[np.sort(np.random.default_rng(SEED).choice(len(moves), DRAWS, replace=False))]
    spot_in = np.full(cells.max(axis=0) + 1, -1, dtype=np.int32)
    spot_in[tuple(cells.T)] = first
    source = np.full((len(moves), len(spots)), -1, dtype=np.int32)
    for draw, (symmetry, *shift) in enumerate(moves):
        places = turned[symmetry] + shift
        inside = ((places >= 0) & (places < spot_in.shape)).all(axis=1)
        target = spot_in[tuple(places[inside].T)]
        source[draw, target[target >= 0]] = first[inside][target >= 0]
    return source


def symmetries(lattice: Lattice) -> Sequence[Int[np.ndarray, "2 2"]]:
    """Turns and mirror images of an array in its steps, the one that changes nothing first."""
    turn, turns = (np.array([[0, -1], [1, 0]]), 4) if lattice == "square" else (np.array([[0, -1], [1, 1]]), 6)
    turned = [np.linalg.matrix_power(turn, number) for number in range(turns)]
    return [*turned, *(matrix @ [[0, 1], [1, 0]] for matrix in turned)]


def null_p_values(
    truth: Float[np.ndarray, "S M"], predicted: Float[np.ndarray, "S M"], source: Int[np.ndarray, "D S"]
) -> Float[np.ndarray, " M"]:
    """Of every gene, the share of draws whose PCC is at least as high as that of the prediction in its place.

    NaN of a gene that has no PCC, and of one with fewer than :data:`FEWEST_DRAWS` draws in which its truth varies.

    Args:
        truth, predicted: labels and predictions; what :func:`genedml.metrics.residual` leaves of them, with depth held
            fixed, gives the null of the PCC given depth.
        source: of :func:`moved_maps`.

    Raises:
        GeneDMLError: a value that is no finite number.
    """
    observed = pcc(truth, predicted)
    t, p = _unit(truth), _unit(predicted)
    better, draws = np.zeros(len(observed)), np.zeros(len(observed))
    for start in range(0, len(source), AT_ONCE):
        scores = _moved_pcc(t, p, source[start : start + AT_ONCE])
        better += (scores >= observed - TIE).sum(axis=0)
        draws += (~np.isnan(scores)).sum(axis=0)
    return np.where(np.isnan(observed) | (draws < FEWEST_DRAWS), np.nan, (1 + better) / (1 + draws))


def above_null(p_values: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """1 for genes above the null at a false discovery rate of :data:`FALSE_DISCOVERIES`, else 0; NaN without p."""
    known = ~np.isnan(p_values)
    above = np.full(len(p_values), np.nan)
    if known.any():
        above[known] = false_discovery_control(p_values[known], method="bh") <= FALSE_DISCOVERIES
    return above


def _moves(cells: Int[np.ndarray, "C 2"], turned: Int[np.ndarray, "C 2"], symmetry: int) -> Int[np.ndarray, "_ 3"]:
    """Number of the symmetry and shift of all moves that cover enough: how many cells each does is a correlation."""
    here, there = (np.zeros(places.max(axis=0) + 1) for places in (cells, turned))
    here[tuple(cells.T)] = there[tuple(turned.T)] = 1
    covered = np.rint(correlate(here, there, method="fft"))
    shifts = np.argwhere(covered >= LEAST_OVERLAP * len(cells)) - np.array(there.shape) + 1
    return np.column_stack([np.full(len(shifts), symmetry), shifts])


def _steps_away(shifts: Int[np.ndarray, "_ 2"], lattice: Lattice) -> Int[np.ndarray, " _"]:
    """Steps between neighbours that a shift is long."""
    x, y = shifts.T
    farther = np.maximum(np.abs(x), np.abs(y))
    return farther if lattice == "square" else np.maximum(farther, np.abs(x + y))


def _unit(values: Float[np.ndarray, "S M"]) -> Float[np.ndarray, "S M"]:
    """Every gene less its mean, at length 1, or 0 where it is constant."""
    left = residual(values)
    length = np.linalg.norm(left, axis=0)
    return left / np.where(length > 0, length, 1.0)


def _moved_pcc(
    t: Float[np.ndarray, "S M"], p: Float[np.ndarray, "S M"], source: Int[np.ndarray, "N S"]
) -> Float[np.ndarray, "N M"]:
    """PCC over the spots that each draw covers, as :func:`genedml.metrics.pcc` has it where a gene is constant."""
    covers = source >= 0
    used = np.zeros(source.shape)
    np.put_along_axis(used, np.where(covers, source, 0), 1.0, axis=1)
    used[:, 0] = (source == 0).any(axis=1)
    count = covers.sum(axis=1, keepdims=True)
    nothing = np.zeros((1, p.shape[1]))
    padded = np.concatenate([p, nothing])  # -1 is the last row
    together = np.stack([np.einsum("sm,sm->m", t, padded[draw]) for draw in source])
    sum_t, sum_p = covers @ t, used @ p
    varies_t = covers @ np.square(t) - sum_t**2 / count
    varies_p = used @ np.square(p) - sum_p**2 / count
    covary = together - sum_t * sum_p / count
    constant_t, constant_p = varies_t <= 1e-12, varies_p <= 1e-12
    scores = covary / np.sqrt(np.where(constant_t | constant_p, 1.0, varies_t * varies_p))
    return np.where(constant_t, np.nan, np.where(constant_p, 0.0, scores))
