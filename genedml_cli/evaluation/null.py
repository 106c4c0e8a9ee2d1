"""How many genes are predicted better than by chance: against the same maps, shifted and turned on the array.

A map that is smooth over the tissue correlates with every other smooth map, so the PCC of a gene alone does not say
that its prediction is of this gene. Here the predicted map is moved as a whole: by one of the symmetries of the array
(8 of squares, 12 of hexagons) and a shift of whole steps. Moved so, it keeps its values and their autocorrelation and
loses its place. It is held against the truth of the spots that it then covers; those that leave the array are dropped.
A shift alone must be of more than two steps: in labels that are means over neighbours, nearer spots share counts.

PCC over fewer spots varies more, and Fisher's z of it with a variance of 1 / (spots - 3): so z sqrt(spots - 3) is what
moved maps and the map in its place are held against each other by, and of several sections the sum of it (Stouffer's),
against sums of one draw of each. Maps that are moved alike are alike, so that thousands of draws are worth hundreds:
p is the share of the draws that are at least as good, or what a normal distribution of their standard deviation says,
whichever is larger. For independent smooth maps it is below .05 in .05 to .06 of the cases, below .01 in .01.

Letters: S spots, M genes, D draws, C cells of the array with a spot, N cells of a turned array. ``(1 + at least as
good) / (1 + draws)``: Davison and Hinkley, Bootstrap Methods (1997), section 4.2; random shifts as surrogates, and
their variance over fewer places: Mrkvicka et al., Spatial Statistics 42 (2021) 100430; false discoveries: Benjamini and
Hochberg (1995).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.signal import correlate
from scipy.stats import false_discovery_control, norm

from genedml.metrics import pcc, residual
from genedml_cli.spots.lattice import Lattice
from genedml_cli.spots.spots import Spots

DRAWS = 5_000
"""At most: the smallest p value then passes for one of 250 genes."""
FEWEST_DRAWS = 99
"""With fewer no p value is small enough to say anything of many genes."""
LEAST_OVERLAP = 0.5
"""Share of the spots that a moved map must cover."""
NEAR_STEPS = 2
"""A shift alone is farther: means over neighbours have counts in common up to so many steps."""
FALSE_DISCOVERIES = 0.05
SEED = 2021
GENES_AT_ONCE = 25
TIE = 1e-9
"""Correlations that differ by less are the same, and of those nearer to 1 there is no larger z."""
CONSTANT = 1e-9
"""A gene with less of its variation in the spots that a map covers is constant there."""


@dataclass(frozen=True)
class Moves:
    """How the maps of a section are moved.

    Args:
        spot: that stands in every cell; of several in one cell only the first takes part.
        cells: column and row of every cell, counted from 0.
        turned: the same cells after each symmetry of the array, each counted from 0.
        symmetry: of every draw, its place in ``turned``.
        shift: of every draw, columns and rows by which its turned cells are shifted.
        covered: cells that every draw covers.
    """

    spot: Int[np.ndarray, " C"]
    cells: Int[np.ndarray, "C 2"]
    turned: Sequence[Int[np.ndarray, "C 2"]]
    symmetry: Int[np.ndarray, " D"]
    shift: Int[np.ndarray, "D 2"]
    covered: Int[np.ndarray, " D"]

    def __len__(self) -> int:
        return len(self.shift)


def moves_of(spots: Spots) -> Moves:
    """Moves that cover :data:`LEAST_OVERLAP` of the spots or more; none without an array.

    All there are, or at most :data:`DRAWS`, at random from those of as many symmetries, at random, as have so many.
    """
    if spots.array is None:
        nothing = np.empty((0, 2), dtype=np.int64)
        return Moves(nothing[:, 0], nothing, (), nothing[:, 0], nothing, nothing[:, 0])
    random, steps = np.random.default_rng(SEED), spots.array.steps
    cells, spot = np.unique(steps - steps.min(axis=0), axis=0, return_index=True)
    matrices, turned, draws = symmetries(spots.lattice), [], np.empty((0, 4), dtype=np.int64)
    for number in random.permutation(len(matrices)).tolist():
        if len(draws) >= DRAWS:
            break
        places = cells @ matrices[number].T
        turned.append(places - places.min(axis=0))
        shifts = _shifts(cells, turned[-1])
        if number == 0:
            shifts = shifts[_steps_away(shifts[:, :2], spots.lattice) > NEAR_STEPS]
        draws = np.concatenate([draws, np.column_stack([np.full(len(shifts), len(turned) - 1), shifts])])
    draws = draws[random.permutation(len(draws))[:DRAWS]]
    return Moves(spot, cells, turned, draws[:, 0], draws[:, 1:3], draws[:, 3])


def symmetries(lattice: Lattice) -> Sequence[Int[np.ndarray, "2 2"]]:
    """Turns and mirror images of an array in its steps, the one that changes nothing first."""
    turn, turns = (np.array([[0, -1], [1, 0]]), 4) if lattice == "square" else (np.array([[0, -1], [1, 1]]), 6)
    turned = [np.linalg.matrix_power(turn, number) for number in range(turns)]
    return [*turned, *(matrix @ [[0, 1], [1, 0]] for matrix in turned)]


def draws_of(moves: Sequence[Moves]) -> int:
    """Draws of the null of some sections: of one its moves, of several combinations of theirs; 0 without a null."""
    enough = [len(of_section) for of_section in moves if len(of_section) >= FEWEST_DRAWS]
    return enough[0] if len(enough) == 1 else DRAWS * bool(enough)


def null_p_values(
    truth: Sequence[Float[np.ndarray, "_ M"]], predicted: Sequence[Float[np.ndarray, "_ M"]], moves: Sequence[Moves]
) -> Float[np.ndarray, " M"]:
    """Of every gene, the probability that a moved map is as much like the truth as the prediction in its place.

    Sections with fewer than :data:`FEWEST_DRAWS` moves do not take part, nor those in which a gene has no PCC. NaN of a
    gene without a section, and of one with fewer draws in which its truth varies in every section.

    Args:
        truth, predicted: labels and predictions of every section; what :func:`genedml.metrics.residual` leaves of them,
            with depth held fixed, gives the null of the PCC given depth.
        moves: of every section, as :func:`moves_of` has them.

    Raises:
        GeneDMLError: a value that is no finite number.
    """
    random, draws, genes = np.random.default_rng(SEED), draws_of(moves), truth[0].shape[1]
    in_place, moved, known = np.zeros(genes), np.zeros((draws, genes)), np.zeros(genes, dtype=bool)
    for t, p, of_section in zip(truth, predicted, moves, strict=True):
        if len(of_section) < FEWEST_DRAWS:
            continue
        here = _scaled_z(pcc(t, p), np.array(len(of_section.spot)))
        each = _moved_z(t, p, of_section)
        drawn = each if len(each) == draws else each[random.integers(len(each), size=draws)]
        known |= ~np.isnan(here)
        in_place += np.nan_to_num(here)
        moved += np.where(np.isnan(here), 0.0, drawn)
    counted, defined = (moved >= in_place - TIE).sum(axis=0), (~np.isnan(moved)).sum(axis=0)
    spread = np.sqrt(np.nansum(np.square(moved), axis=0) / np.maximum(defined, 1))
    p_values = np.maximum((1 + counted) / (1 + defined), norm.sf(in_place / np.where(spread > 0, spread, np.inf)))
    return np.where(~known | (defined < FEWEST_DRAWS), np.nan, p_values)


def above_null(p_values: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """1 for genes above the null at a false discovery rate of :data:`FALSE_DISCOVERIES`, else 0; NaN without p."""
    known = ~np.isnan(p_values)
    above = np.full(len(p_values), np.nan)
    if known.any():
        above[known] = false_discovery_control(p_values[known], method="bh") <= FALSE_DISCOVERIES
    return above


def fewest_found(draws: int, genes: int) -> int:
    """How many of some genes must be above a null for any to be found: with few draws one alone cannot be."""
    return int(np.ceil(genes / (FALSE_DISCOVERIES * (1 + draws))))


def _shifts(cells: Int[np.ndarray, "C 2"], turned: Int[np.ndarray, "C 2"]) -> Int[np.ndarray, "_ 3"]:
    """Shift and covered cells of all moves that cover enough: how many cells each does is a correlation."""
    here, there = (np.zeros(places.max(axis=0) + 1) for places in (cells, turned))
    here[tuple(cells.T)] = there[tuple(turned.T)] = 1
    covered = np.rint(correlate(here, there, method="fft")).astype(np.int64)
    enough = covered >= LEAST_OVERLAP * len(cells)
    return np.column_stack([np.argwhere(enough) - np.array(there.shape) + 1, covered[enough]])


def _steps_away(shifts: Int[np.ndarray, "_ 2"], lattice: Lattice) -> Int[np.ndarray, " _"]:
    """Steps between neighbours that a shift is long."""
    x, y = shifts.T
    farther = np.maximum(np.abs(x), np.abs(y))
    return farther if lattice == "square" else np.maximum(farther, np.abs(x + y))


def _unit(values: Float[np.ndarray, "C M"]) -> Float[np.ndarray, "C M"]:
    """Every gene less its mean, at length 1, or 0 where it is constant."""
    left = residual(values)
    length = np.linalg.norm(left, axis=0)
    return left / np.where(length > 0, length, 1.0)


def _scaled_z(r: Float[np.ndarray, "..."], spots: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Fisher's z of PCC over some spots, in units of its standard deviation."""
    return np.arctanh(np.clip(r, TIE - 1, 1 - TIE)) * np.sqrt(np.maximum(spots - 3, 0))


def _moved_z(
    truth: Float[np.ndarray, "S M"], predicted: Float[np.ndarray, "S M"], moves: Moves
) -> Float[np.ndarray, "D M"]:
    """Of every draw :func:`_scaled_z` of PCC over the spots that it covers.

    As :func:`genedml.metrics.pcc` has it where a gene is constant: NaN for the truth, 0 for the prediction alone.
    """
    t, p = _unit(truth[moves.spot]), _unit(predicted[moves.spot])
    parts = [slice(start, start + GENES_AT_ONCE) for start in range(0, t.shape[1], GENES_AT_ONCE)]
    scores = np.concatenate([_moved_pcc(t[:, part], p[:, part], moves) for part in parts], axis=1)
    return _scaled_z(scores, moves.covered[:, None])


def _moved_pcc(t: Float[np.ndarray, "C M"], p: Float[np.ndarray, "C M"], moves: Moves) -> Float[np.ndarray, "D M"]:
    """Sums over the cells that each move covers are correlations of maps: products of their Fourier transforms.

    Maps end on a torus that is as much larger than they are as they are shifted, so that nothing comes round to meet.
    """
    farthest = np.max([places.max(axis=0) for places in moves.turned], axis=0) + np.maximum(moves.shift.max(axis=0), 0)
    sides = np.maximum(moves.cells.max(axis=0) - np.minimum(moves.shift.min(axis=0), 0), farthest) + 1
    shape = [next_fast_len(int(side), real=True) for side in sides]
    one = np.ones((len(t), 1))
    of_one, of_t, of_tt = (_transform(values, moves.cells, shape) for values in (one, t, np.square(t)))
    scores = np.empty((len(moves), t.shape[1]))
    for number, places in enumerate(moves.turned):
        draws = moves.symmetry == number
        column, row = (moves.shift[draws] % shape).T
        moved_one, moved_p, moved_pp = (_transform(values, places, shape) for values in (one, p, np.square(p)))
        pairs = (of_t, moved_p), (of_t, moved_one), (of_one, moved_p), (of_tt, moved_one), (of_one, moved_pp)
        sums = [irfft2(here * there.conj(), shape)[:, column, row].T for here, there in pairs]
        together, sum_t, sum_p, sum_tt, sum_pp = sums
        count = moves.covered[draws][:, None]
        varies_t, varies_p = sum_tt - sum_t**2 / count, sum_pp - sum_p**2 / count
        covary = together - sum_t * sum_p / count
        constant_t, constant_p = varies_t <= CONSTANT, varies_p <= CONSTANT
        pccs = covary / np.sqrt(np.where(constant_t | constant_p, 1.0, varies_t * varies_p))
        scores[draws] = np.where(constant_t, np.nan, np.where(constant_p, 0.0, pccs))
    return scores


def _transform(values: Float[np.ndarray, "N M"], places: Int[np.ndarray, "N 2"], shape: Sequence[int]) -> np.ndarray:
    """Fourier transforms of maps, 0 where there is no cell; genes first."""
    maps = np.zeros((values.shape[1], *shape))
    maps[:, places[:, 0], places[:, 1]] = values.T
    return np.asarray(rfft2(maps))
