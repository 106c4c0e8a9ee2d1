"""The null of moved maps: against a loop over spots, on planted truth, and where it is not defined."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from genedml.metrics import partial_pcc, pcc, residual
from genedml_cli.evaluation.null import DRAWS, FEWEST_DRAWS, LEAST_OVERLAP, above_null, moved_maps, null_p_values
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


@pytest.mark.parametrize(("spots", "turns"), [(square(7, 5), 4), (visium(6, 7), 6)])
def test_every_draw_is_a_turn_or_mirror_image_and_a_shift_of_the_array(spots, turns):
    source, places = moved_maps(spots), flat(spots.array.steps, spots.lattice)
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
    assert len(moved_maps(square(4, 4))) == 7 * 13
    assert len(moved_maps(square(20, 17))) == DRAWS
    assert len(moved_maps(visium(14, 20))) == DRAWS
    assert (moved_maps(square(20, 17)) == moved_maps(square(20, 17))).all()


@pytest.mark.parametrize("spots", [square(9, 6), visium(7, 7)])
def test_p_values_equal_a_loop(spots):
    truth, predicted = smooth(spots, 5, 0), smooth(spots, 5, 1)
    predicted[:, :2] += truth[:, :2]
    truth[:, 3], predicted[:, 4] = 0.3, 0.7
    truth[:, 2] = np.arange(len(spots)) == len(spots) // 2  # in one spot: constant wherever that is not covered
    source = moved_maps(spots)
    expected = []
    for gene in range(5):
        observed = pcc(truth, predicted)[gene]
        at_least = draws = 1
        for draw in source:
            covered = [spot for spot in range(len(spots)) if draw[spot] >= 0]
            there = truth[covered, gene]
            moved = predicted[draw[covered], gene]
            if np.ptp(there) == 0:
                continue
            draws += 1
            at_least += (0 if np.ptp(moved) == 0 else pearsonr(there, moved).statistic) >= observed - 1e-9
        expected.append(at_least / draws if not np.isnan(observed) and draws > FEWEST_DRAWS else np.nan)
    assert np.isnan(expected).tolist() == [False, False, False, True, False]
    assert expected[4] == 1
    np.testing.assert_allclose(null_p_values(truth, predicted, source), expected)


def test_a_map_of_its_gene_is_above_the_null_and_one_in_another_place_is_not():
    spots = square(16, 15)
    truth = smooth(spots, 40, 0)
    predicted = truth + 0.5 * truth.std() * smooth(spots, 40, 1, times=1)
    elsewhere = np.roll(predicted.reshape(15, 16, 40), (5, 6), axis=(0, 1)).reshape(240, 40)
    source = moved_maps(spots)
    assert above_null(null_p_values(truth, predicted, source)).mean() == 1
    assert above_null(null_p_values(truth, elsewhere, source)).mean() == 0


def test_maps_of_other_genes_are_better_than_chance_by_chance_alone():
    spots = square(16, 15)
    p_values = null_p_values(smooth(spots, 300, 0), smooth(spots, 300, 1), moved_maps(spots))
    assert (p_values <= 0.05).mean() <= 0.06
    assert above_null(p_values).mean() == 0


def test_a_map_of_depth_alone_is_above_the_null_and_not_above_that_given_depth():
    spots = square(16, 15)
    depth = smooth(spots, 1, 2)[:, 0]
    truth = 2 * depth[:, None] + smooth(spots, 30, 3)
    predicted = 3 * depth[:, None] + 0.05 * smooth(spots, 30, 4)
    source = moved_maps(spots)
    assert pcc(truth, predicted).mean() > 0.8
    assert above_null(null_p_values(truth, predicted, source)).mean() == 1
    assert abs(partial_pcc(truth, predicted, depth)).mean() < 0.3
    given_depth = null_p_values(residual(truth, depth), residual(predicted, depth), source)
    assert above_null(given_depth).mean() == 0
    pure = null_p_values(residual(truth, depth), residual(np.tile(depth[:, None], 30), depth), source)
    assert (pure == 1).all()


def test_without_an_array_or_with_too_few_spots_there_is_no_null():
    scattered = Spots(("a", "b", "c"), np.random.default_rng(0).random((3, 2)) * 1000)
    assert len(moved_maps(scattered)) == 0
    for spots in (scattered, of_array(np.array([[3, 4]])), square(3, 2)):
        values = np.random.default_rng(1).normal(size=(len(spots), 4))
        p_values = null_p_values(values, values, moved_maps(spots))
        assert np.isnan(p_values).all()
        assert np.isnan(above_null(p_values)).all()


def test_spots_apart_from_the_others_and_two_in_one_place_take_part_once():
    array_xy = np.array([*square(8, 8).array_xy, (30, 30), (0, 0)])
    spots = of_array(array_xy)
    source = moved_maps(spots)
    assert len(source) >= FEWEST_DRAWS
    assert (source[:, 65] == -1).all()
    assert (source != 65).all()
    assert ((source >= 0).sum(axis=1) >= LEAST_OVERLAP * 65).all()
    truth = smooth(spots, 3, 0)
    assert (null_p_values(truth, truth, source) < 0.02).all()


def test_false_discoveries_equal_a_loop_and_genes_without_p_value_do_not_count():
    p_values = np.array([0.001, np.nan, 0.02, 0.045, 0.012, 0.9])
    ranked = sorted(p_values[~np.isnan(p_values)])
    last = max(rank for rank, p in enumerate(ranked, 1) if p <= 0.05 * rank / len(ranked))
    expected = [np.nan if np.isnan(p) else float(p <= ranked[last - 1]) for p in p_values]
    np.testing.assert_array_equal(above_null(p_values), expected)
    assert expected[2:4] == [1, 0]
