"""The null of moved maps: against a loop over spots, on planted truth, and where it is not defined."""

import numpy as np
import pytest
from scipy.stats import norm, pearsonr

from genedml.metrics import partial_pcc, pcc, residual
from genedml_cli.evaluation.null import (
    DRAWS,
    FEWEST_DRAWS,
    LEAST_OVERLAP,
    Moves,
    above_null,
    draws_of,
    fewest_found,
    moves_of,
    null_p_values,
)
from genedml_cli.spots.lattice import flat
from genedml_cli.spots.spots import Spots


def square(columns: int, rows: int) -> Spots:
    return of_array(np.array([(x, y) for y in range(rows) for x in range(columns)]))


def of_array(array_xy: np.ndarray, across_px: float = 100.0) -> Spots:
    return Spots(tuple(map(str, range(len(array_xy)))), array_xy * [across_px, 100.0] + 50, array_xy)


def visium(columns: int, rows: int) -> Spots:
    """Array indices as Space Ranger writes them: columns count every second one, in every second row."""
    return of_array(np.array([(2 * x + y % 2, y) for y in range(rows) for x in range(columns)]), 100 / 3**0.5)


def smooth(spots: Spots, genes: int, seed: int, times: int = 2) -> np.ndarray:
    values, near = np.random.default_rng(seed).normal(size=(len(spots), genes)), spots.neighbors()
    for _ in range(times):
        values = (near @ values) / np.asarray(near.sum(axis=1))
    return values


def sources(moves: Moves, spots: int) -> np.ndarray:
    """For every draw and spot, the spot whose value stands there after the move; -1 where there is none."""
    table = np.full((len(moves), spots), -1)
    stands = {tuple(cell): spot for cell, spot in zip(moves.cells.tolist(), moves.spot, strict=True)}
    for draw, (symmetry, shift) in enumerate(zip(moves.symmetry, moves.shift, strict=True)):
        for place, spot in zip((moves.turned[symmetry] + shift).tolist(), moves.spot, strict=True):
            if tuple(place) in stands:
                table[draw, stands[tuple(place)]] = spot
    assert ((table >= 0).sum(axis=1) == moves.covered).all()
    return table


@pytest.mark.parametrize(("spots", "turns"), [(square(7, 5), 4), (visium(6, 7), 6)])
def test_every_draw_is_a_turn_or_mirror_image_and_a_shift_of_the_array(spots, turns):
    source, places = sources(moves_of(spots), len(spots)), flat(spots.array.steps, spots.lattice)
    moves = set()
    for draw in source:
        covered = draw >= 0
        assert covered.sum() >= LEAST_OVERLAP * len(spots)
        assert len(set(draw[covered])) == covered.sum()
        before, after = places[draw[covered]], places[covered]
        design = np.column_stack([before, np.ones(len(before))])
        matrix = np.linalg.lstsq(design, after, rcond=None)[0]
        assert np.allclose(design @ matrix, after)
        linear, shift = matrix[:2].T, matrix[2]
        assert np.allclose(linear @ linear.T, np.eye(2))
        angle = np.degrees(np.arctan2(linear[1, 0], linear[0, 0])) / (360 / turns)
        assert np.isclose(angle, np.rint(angle), atol=1e-6)
        # Whatever would land on a spot does: none is left out that stays on the array.
        landed = {tuple(place) for place in np.rint(6 * (places @ matrix[:2] + shift)).astype(int)}
        assert len(landed & {tuple(place) for place in np.rint(6 * places).astype(int)}) == covered.sum()
        moves.add((round(angle) % turns, np.linalg.det(linear) > 0, tuple(np.rint(6 * shift).astype(int))))
    assert len(moves) == len(source)
    near = (spots.neighbors() @ spots.neighbors()).tolil()  # two steps away
    middle = max(range(len(spots)), key=lambda spot: len(near.rows[spot]))
    two_steps = {tuple(np.rint(6 * (places[spot] - places[middle])).astype(int)) for spot in near.rows[middle]}
    assert len(two_steps) == (25 if turns == 4 else 19)
    assert not moves & {(0, True, shift) for shift in two_steps}
    assert {(turn, mirrored) for turn, mirrored, _ in moves} == {(t, m) for t in range(turns) for m in (True, False)}


def test_all_moves_are_drawn_where_they_are_few_and_so_many_where_they_are_more():
    # Of 4 x 4 squares, shifts of (1, 1), (2, 0) and less cover half: 13 with each of 7 symmetries, none by itself.
    assert len(moves_of(square(4, 4))) == 7 * 13
    assert len(moves_of(square(20, 17))) == sum(len(moves) for moves in every_move(square(20, 17)))
    assert len(moves_of(square(60, 50))) == DRAWS
    for field in ("symmetry", "shift"):
        assert (getattr(moves_of(square(60, 50)), field) == getattr(moves_of(square(60, 50)), field)).all()


def every_move(spots: Spots) -> list[np.ndarray]:
    """By each symmetry of a full rectangle, the shifts that cover half of it, a shift alone by more than two."""
    width, height = spots.array_xy.max(axis=0) + 1
    moves = []
    for number in range(8):
        w, h = (width, height) if number % 2 == 0 else (height, width)
        dx, dy = np.meshgrid(np.arange(-w + 1, width), np.arange(-h + 1, height))
        covered = [
            np.minimum(side, shift + own) - np.maximum(0, shift)
            for side, own, shift in ((width, w, dx), (height, h, dy))
        ]
        enough = np.prod(covered, axis=0) >= LEAST_OVERLAP * width * height
        far = np.maximum(abs(dx), abs(dy)) > 2
        moves.append(np.argwhere(enough & (far if number == 0 else True)))
    return moves


def test_p_values_equal_a_loop_over_draws_and_sections():
    sections = [square(9, 6), visium(7, 7)]
    truth = [smooth(spots, 5, 0) for spots in sections]
    predicted = [smooth(spots, 5, 1) for spots in sections]
    moves = [moves_of(spots) for spots in sections]
    for number, spots in enumerate(sections):
        predicted[number][:, :2] += 0.4 * truth[number][:, :2]
        truth[number][:, 3], predicted[number][:, 4] = 0.3, 0.7
        # In one spot: constant wherever that is not covered.
        truth[number][:, 2] = np.arange(len(spots)) == len(spots) // 2
    alone = [p_values_by_loop(*part) for part in zip(truth, predicted, sections, moves, strict=True)]
    for place, expected in enumerate(alone):
        found = null_p_values([truth[place]], [predicted[place]], [moves[place]])
        assert np.isnan(found).tolist() == [False, False, False, True, False]
        np.testing.assert_allclose(found, expected)
        assert found[4] == 1
    # Both together: sums of z of one draw of each, which are drawn at random.
    together = null_p_values(truth, predicted, moves)
    z = [z_by_loop(*part) for part in zip(truth, predicted, sections, moves, strict=True)]
    every = np.stack([(z[0][1][:, None, gene] + z[1][1][None, :, gene]).ravel() for gene in range(2)], axis=1)
    observed = z[0][0][:2] + z[1][0][:2]
    expected = np.maximum((every >= observed).mean(axis=0), norm.sf(observed / np.sqrt(np.square(every).mean(axis=0))))
    np.testing.assert_allclose(together[:2], expected, atol=0.01)
    assert together[1] < min(alone[0][1], alone[1][1])  # evidence of both adds up


def z_by_loop(truth, predicted, spots, moves) -> tuple[np.ndarray, np.ndarray]:
    """Fisher's z by the root of spots less three, of the map in its place and of every draw, by gene."""

    def z(here: np.ndarray, there: np.ndarray) -> float:
        if np.ptp(here) == 0:
            return np.nan
        r = 0.0 if np.ptp(there) == 0 else pearsonr(here, there).statistic
        return np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9)) * (len(here) - 3) ** 0.5

    moved = [
        [z(truth[draw >= 0, gene], predicted[draw[draw >= 0], gene]) for gene in range(truth.shape[1])]
        for draw in sources(moves, len(spots))
    ]
    return np.array([z(truth[:, gene], predicted[:, gene]) for gene in range(truth.shape[1])]), np.array(moved)


def p_values_by_loop(truth, predicted, spots, moves) -> np.ndarray:
    observed, moved = z_by_loop(truth, predicted, spots, moves)
    p_values = []
    for here, draws in zip(observed, moved.T, strict=True):
        draws = draws[~np.isnan(draws)]
        if np.isnan(here) or len(draws) < FEWEST_DRAWS:
            p_values.append(np.nan)
            continue
        counted = (1 + sum(draws >= here - 1e-9)) / (1 + len(draws))
        rms = np.sqrt(np.mean(draws**2))
        p_values.append(max(counted, norm.sf(here / rms) if rms else 0.5))
    return np.array(p_values)


def test_a_map_of_its_gene_is_above_the_null_and_one_in_another_place_is_not():
    spots = square(16, 15)
    truth = smooth(spots, 40, 0)
    predicted = truth + 0.5 * truth.std() * smooth(spots, 40, 1, times=1)
    elsewhere = np.roll(predicted.reshape(15, 16, 40), (5, 6), axis=(0, 1)).reshape(240, 40)
    moves = moves_of(spots)
    assert above_null(null_p_values([truth], [predicted], [moves])).mean() == 1
    assert above_null(null_p_values([truth], [elsewhere], [moves])).mean() == 0


@pytest.mark.parametrize("times", [1, 6])
def test_p_values_of_maps_of_other_genes_are_what_they_say(times):
    """Independent maps, rough and smooth: p is below a level about as often as the level says, and none is found."""
    for spots in (square(16, 15), visium(12, 14)):
        p_values = null_p_values([smooth(spots, 1000, 0, times)], [smooth(spots, 1000, 1, times)], [moves_of(spots)])
        below = [(p_values <= level).mean() for level in (0.01, 0.05, 0.2, 0.5)]
        np.testing.assert_allclose(below, [0.01, 0.05, 0.2, 0.5], atol=0.04)
        assert below[0] <= 0.02
        assert 0.03 <= below[1] <= 0.075
        assert above_null(p_values).mean() == 0


def test_one_true_gene_among_many_is_found_where_there_are_draws_enough():
    spots = square(40, 30)
    truth, predicted = smooth(spots, 250, 0), smooth(spots, 250, 1)
    predicted[:, 7] += 3 * truth[:, 7]
    moves = moves_of(spots)
    assert draws_of([moves]) == DRAWS
    assert fewest_found(DRAWS, 250) == 1
    assert above_null(null_p_values([truth], [predicted], [moves])).nonzero()[0].tolist() == [7]
    few = moves_of(square(9, 8))
    assert fewest_found(len(few), 250) > 1
    assert draws_of([few, few]) == DRAWS  # combinations of theirs
    assert fewest_found(499, 250) == 10


def test_a_map_of_depth_alone_is_above_the_null_and_not_above_that_given_depth():
    spots = square(16, 15)
    depth = smooth(spots, 1, 2)[:, 0]
    truth = 2 * depth[:, None] + smooth(spots, 30, 3)
    predicted = 3 * depth[:, None] + 0.05 * smooth(spots, 30, 4)
    moves = moves_of(spots)
    assert pcc(truth, predicted).mean() > 0.8
    assert above_null(null_p_values([truth], [predicted], [moves])).mean() == 1
    assert abs(partial_pcc(truth, predicted, depth)).mean() < 0.3
    given_depth = null_p_values([residual(truth, depth)], [residual(predicted, depth)], [moves])
    assert above_null(given_depth).mean() == 0
    pure = null_p_values([residual(truth, depth)], [residual(np.tile(depth[:, None], 30), depth)], [moves])
    assert (pure == 1).all()


def test_without_an_array_or_with_too_few_spots_there_is_no_null():
    scattered = Spots(("a", "b", "c"), np.random.default_rng(0).random((3, 2)) * 1000)
    assert len(moves_of(scattered)) == 0
    for spots in (scattered, of_array(np.array([[3, 4]])), square(3, 2)):
        values = np.random.default_rng(1).normal(size=(len(spots), 4))
        p_values = null_p_values([values], [values], [moves_of(spots)])
        assert np.isnan(p_values).all()
        assert np.isnan(above_null(p_values)).all()


def test_spots_apart_from_the_others_and_two_in_one_place_take_part_once():
    array_xy = np.array([*square(8, 8).array_xy, (30, 30), (0, 0)])
    spots = of_array(array_xy)
    moves = moves_of(spots)
    source = sources(moves, len(spots))
    assert len(source) >= FEWEST_DRAWS
    assert (source[:, 65] == -1).all()
    assert (source != 65).all()
    assert ((source >= 0).sum(axis=1) >= LEAST_OVERLAP * 65).all()
    truth = smooth(spots, 3, 0)
    assert (null_p_values([truth], [truth], [moves]) < 0.02).all()


def test_false_discoveries_equal_a_loop_and_genes_without_p_value_do_not_count():
    p_values = np.array([0.001, np.nan, 0.02, 0.045, 0.012, 0.9])
    ranked = sorted(p_values[~np.isnan(p_values)])
    last = max(rank for rank, p in enumerate(ranked, 1) if p <= 0.05 * rank / len(ranked))
    expected = [np.nan if np.isnan(p) else float(p <= ranked[last - 1]) for p in p_values]
    np.testing.assert_array_equal(above_null(p_values), expected)
    assert expected[2:4] == [1, 0]
