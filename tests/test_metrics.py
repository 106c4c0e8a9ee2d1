"""Scores against scipy, and where they are not defined."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from genedml.errors import GeneDMLError
from genedml.metrics import (
    column_nanmean,
    high_genes,
    morans_i,
    nanmean,
    partial_pcc,
    pcc,
    residual,
    variance_ratio,
)
from genedml_cli.evaluation.fold_scores import score_fold
from genedml_cli.evaluation.scores import FoldScores, reference_notes
from genedml_cli.spots.spots import Spots


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    depth = random.normal(size=40)
    truth = random.normal(size=(40, 6)) + depth[:, None]
    return truth, truth + random.normal(size=(40, 6)), depth


def test_ridge_that_scores_higher_is_said_and_one_that_does_not_is_not(tables):
    truth, predicted, depth = tables
    layers = {"truth": truth, "ridge": (truth + predicted) / 2, "depth_alone": predicted, "constant": predicted}
    section = anndata.AnnData(predicted, pd.DataFrame({"depth": depth}, index=[str(spot) for spot in range(40)]))
    section.layers.update(layers)
    scores = score_fold("0", [section], "Gene-DML")
    pcc_a = {score.method: f"{score.pcc_a:.3f}" for score in scores}
    (note,) = reference_notes(scores)
    behind = float(pcc_a["ridge"]) - float(pcc_a["Gene-DML"])
    assert re.search(r"worse than ridge on the same features by ([.\d]+)", note.text)[1] == f"{behind:.3f}"
    section.layers["ridge"] = predicted
    (note,) = reference_notes(score_fold("0", [section], "Gene-DML"))
    assert note.text == "Gene-DML is as good as ridge on the same features in PCC(A), to three decimals."
    del section.layers["ridge"]
    assert reference_notes(score_fold("0", [section], "Gene-DML")) == []


def test_how_far_the_network_is_ahead_of_ridge_is_said_beside_the_spread_over_folds():
    def text(*ahead):
        scores = [
            FoldScores(method, str(fold), ("G",), 0.1, 0.1, pcc, 0.0, np.array([pcc]), None, 0)
            for fold, gain in enumerate(ahead)
            for method, pcc in (("Gene-DML", 0.5 + gain), ("ridge", 0.5))
        ]
        return " ".join(note.text for note in reference_notes(scores))

    start = "Gene-DML is better than ridge on the same features by"
    assert text(0.1, 0.3) == f"{start} 0.200 in PCC(A), more than the sd of this difference over folds, 0.141."
    assert text(-0.2, 0.4) == f"{start} 0.100 in PCC(A), no more than the sd of this difference over folds, 0.424."
    assert text(0.1) == f"{start} 0.100 in PCC(A), of one fold, so without a spread."
    worse = "Gene-DML is worse than ridge on the same features by"
    assert text(-0.1, 0.05).startswith(
        f"{worse} 0.025 in PCC(A), no more than the sd of this difference over folds, 0.106."
    )
    assert text(0.0004, -0.0004).startswith("Gene-DML is as good as ridge on the same features in PCC(A)")
    assert text(0.1, np.nan) == text(0.1)


def test_depth_that_is_better_on_the_best_genes_alone_is_said():
    random = np.random.default_rng(0)
    depth = random.normal(size=60)
    truth = random.normal(size=(60, 80))
    truth[:, :50] += 3 * depth[:, None]
    depth_alone = np.tile(depth[:, None], 80)
    predicted = truth + 1.2 * np.where(np.arange(80) < 50, 3, 0.2) * random.normal(size=truth.shape)
    section = anndata.AnnData(predicted, pd.DataFrame({"depth": depth}, index=[str(spot) for spot in range(60)]))
    section.layers.update({"truth": truth, "depth_alone": depth_alone, "constant": 0 * truth})
    (note,) = reference_notes(score_fold("0", [section], "Gene-DML"))
    own, other = (np.sort(pcc(truth, values))[::-1] for values in (predicted, depth_alone))
    assert own.mean() > other.mean()
    sentence = (
        f"Sequencing depth alone scores higher here: PCC(H) {other[:50].mean():.3f} against {own[:50].mean():.3f}."
    )
    assert note.text == sentence


def test_errors_are_means_over_all_spots_and_genes_of_the_fold():
    random = np.random.default_rng(3)
    sections = []
    for spots in (2, 5, 90):
        section = anndata.AnnData(random.normal(size=(spots, 4)) * spots, layers={"truth": np.zeros((spots, 4))})
        section.obs["depth"] = random.normal(size=spots)
        sections.append(section)
    squared = absolute = count = 0.0
    for section in sections:
        for spot in range(section.n_obs):
            for gene in range(section.n_vars):
                squared += section.X[spot, gene] ** 2
                absolute += abs(section.X[spot, gene])
                count += 1
    score = score_fold("0", sections, "Gene-DML")[0]
    assert count == 97 * 4
    assert (score.mse, score.mae) == (pytest.approx(squared / count), pytest.approx(absolute / count))


def test_pcc_equals_scipy(tables):
    truth, predicted, _ = tables
    expected = [pearsonr(truth[:, gene], predicted[:, gene]).statistic for gene in range(6)]
    assert np.allclose(pcc(truth, predicted), expected)


@pytest.mark.parametrize("spots", [2, 3, 400])
def test_pcc_equals_scipy_at_any_size_scale_and_shift(spots):
    random = np.random.default_rng(spots)
    shift, scale = 10.0 ** random.integers(-3, 4, (2, 8))
    truth = (random.normal(size=(spots, 8)) * scale + shift).astype(np.float32)
    predicted = (truth + random.normal(size=(spots, 8)) * scale).astype(np.float32)
    expected = [pearsonr(*(x[:, gene].astype(float) for x in (truth, predicted))).statistic for gene in range(8)]
    np.testing.assert_allclose(pcc(truth, predicted), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(tables, bad):
    truth, predicted, depth = tables
    broken, shallow = predicted.copy(), depth.copy()
    broken[[3, 7], 1] = shallow[5] = bad
    with pytest.raises(GeneDMLError, match="In 2 of 40 spots the prediction holds NaN or infinity"):
        pcc(truth, broken)
    with pytest.raises(GeneDMLError, match="In 2 of 40 spots truth holds"):
        partial_pcc(broken, predicted, depth)
    with pytest.raises(GeneDMLError, match="In 1 of 40 spots what is held fixed holds"):
        partial_pcc(truth, predicted, shallow)


def test_no_spot_at_all_has_no_pcc():
    assert np.isnan(pcc(np.empty((0, 3)), np.empty((0, 3)))).all()


def test_partial_pcc_equals_the_formula_from_three_correlations(tables):
    truth, predicted, depth = tables
    for gene, found in enumerate(partial_pcc(truth, predicted, depth)):
        t, p = truth[:, gene], predicted[:, gene]
        tp, td, pd = (pearsonr(a, b).statistic for a, b in ((t, p), (t, depth), (p, depth)))
        assert found == pytest.approx((tp - td * pd) / np.sqrt((1 - td**2) * (1 - pd**2)))


def test_constant_genes_and_single_spots_have_no_pcc(tables):
    truth, predicted, depth = tables
    truth[:, 2], predicted[:, 4] = 0.3, 1e6
    scores = pcc(truth, predicted)
    assert np.isnan(scores).tolist() == [False, False, True, False, False, False]
    assert scores[4] == 0
    assert np.isnan(pcc(truth[:1], predicted[:1])).all()
    of_depth = partial_pcc(truth, np.tile(depth[:, None], 6), depth)
    assert np.nan_to_num(of_depth, nan=0.0).tolist() == [0.0] * 6


def test_residuals_have_the_pcc_and_the_partial_pcc_of_what_they_are_left_of(tables):
    truth, predicted, depth = tables
    assert np.allclose(pcc(residual(truth), residual(predicted)), pcc(truth, predicted))
    left = residual(truth, depth), residual(predicted, depth)
    assert np.allclose(pcc(*left), partial_pcc(truth, predicted, depth))


def test_variance_ratio_is_that_of_numpy(tables):
    truth, predicted, _ = tables
    truth[:, 2], predicted[:, 4] = 1e6, -3
    expected = np.var(predicted, axis=0) / np.where(np.arange(6) == 2, np.nan, np.var(truth, axis=0))
    np.testing.assert_allclose(variance_ratio(truth, predicted), expected)
    assert expected[4] == 0
    assert np.isnan(variance_ratio(truth[:1], predicted[:1])).all()
    truth[3, 0] = np.nan
    with pytest.raises(GeneDMLError, match="In 1 of 40 spots truth holds NaN"):
        variance_ratio(truth, predicted)


@pytest.mark.parametrize("across_px", [100.0, 100 / 3**0.5])
def test_morans_i_equals_a_loop_over_pairs_of_spots(across_px):
    random = np.random.default_rng(4)
    hexagonal = across_px < 100
    indices = [(2 * x + y % 2 if hexagonal else x, y) for y in range(6) for x in range(7) if random.random() < 0.8]
    array_xy = np.array([*indices, (60, 60)])  # a spot without neighbours
    spots = Spots(tuple(map(str, range(len(array_xy)))), array_xy * [across_px, 100.0], array_xy)
    values = random.normal(size=(len(spots), 4)) + array_xy[:, :1]
    values[:, 2] = 0.1
    reach = 1.2 if hexagonal else 1.5
    for gene, score in enumerate(morans_i(values, spots.neighbors())):
        z, pairs, weight = values[:, gene] - values[:, gene].mean(), 0.0, 0
        for one in range(len(spots)):
            for other in range(len(spots)):
                if one != other and np.linalg.norm(spots.xy_px[one] - spots.xy_px[other]) < reach * 100 * (
                    2 / 3**0.5 if hexagonal else 1
                ):
                    pairs, weight = pairs + z[one] * z[other], weight + 1
        expected = np.nan if gene == 2 else len(spots) / weight * pairs / np.sum(z**2)
        assert score == pytest.approx(expected, nan_ok=True)


def test_morans_i_of_checks_is_minus_one_and_of_spots_without_neighbors_not_defined():
    ring = np.array([(0, 1), (1, 0), (1, 2), (2, 1)])  # each has the two beside it diagonally
    spots = Spots(tuple("abcd"), ring * 100.0, ring)
    assert morans_i(np.array([[1.0], [-1.0], [-1.0], [1.0]]), spots.neighbors()) == pytest.approx(-1)
    alone = Spots(("a", "b"), np.array([[0.0, 0.0], [900.0, 900.0]]), np.array([[0, 0], [9, 9]]))
    assert np.isnan(morans_i(np.array([[1.0], [2.0]]), alone.neighbors())).all()
    with pytest.raises(GeneDMLError, match="NaN or infinity"):
        morans_i(np.array([[1.0], [np.nan]]), alone.neighbors())


def test_high_genes_have_the_best_mean_rank_over_folds():
    scores = np.zeros((2, 60))
    scores[0], scores[1] = np.arange(60), np.arange(60)
    scores[0, 3] = scores[1, 3] = 99
    scores[1, 59] = np.nan
    chosen = high_genes(scores)
    assert chosen[0] == 3
    assert len(chosen) == 50
    assert list(chosen).index(59) > 20


def test_means_leave_out_what_is_not_known():
    assert nanmean([1.0, float("nan"), 3.0]) == 2
    assert np.isnan(nanmean([float("nan")]))
    means = column_nanmean(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert means[0] == 2
    assert np.isnan(means[1])
