"""All scores of a fold, by hand or by a loop, and what is not known of predictions of earlier versions."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from test_null import of_array, smooth, square

from genedml.metrics import attainable, pcc
from genedml_cli.evaluation.fold_scores import THIRDS, moran_groups, score_fold
from genedml_cli.evaluation.null import above_null, moves_of, null_p_values
from genedml_cli.evaluation.scores import (
    CONSTANT,
    DEPTH,
    FULL_METRICS,
    METRICS,
    RIDGE,
    SPLIT_HALVES,
    Evaluation,
    FoldScores,
)
from genedml_cli.outputs.predictions import UNSMOOTHED
from genedml_cli.spots.spots import Spots

GENES = 12


def section(spots: Spots, seed: int, noise: float = 0.5, of_depth: float = 1.0) -> anndata.AnnData:
    """Truth, what predicts it but for noise, and a depth that drives a part of it."""
    random = np.random.default_rng(seed)
    depth = smooth(spots, 1, seed)[:, 0]
    unsmoothed = smooth(spots, GENES, seed + 1, times=1) + of_depth * depth[:, None]
    near = spots.neighbors()
    truth = (near @ unsmoothed) / np.asarray(near.sum(axis=1))
    data = anndata.AnnData(
        truth + noise * truth.std() * random.normal(size=truth.shape),
        obs=pd.DataFrame({"depth": depth}, index=list(spots.names)),
        var=pd.DataFrame({"morans_i": np.linspace(0.1, 0.8, GENES)}, index=[f"G{gene}" for gene in range(GENES)]),
        layers={"truth": truth, UNSMOOTHED: unsmoothed, "depth_alone": np.tile(depth[:, None], GENES)},
    )
    data.layers["ridge"] = truth + 2 * noise * truth.std() * random.normal(size=truth.shape)
    data.layers["lower"], data.layers["upper"] = np.full(truth.shape, -1e9), np.full(truth.shape, np.median(truth))
    data.layers["constant"] = np.full(truth.shape, truth.mean())
    data.obsm["spatial"] = spots.xy_px
    data.obs["array_col"], data.obs["array_row"] = spots.array_xy.T
    return data


def test_every_score_of_a_fold_equals_a_loop_over_sections_and_genes():
    spots = [square(9, 8), square(10, 7)]
    sections = [section(of_section, seed) for seed, of_section in enumerate(spots)]
    scores = {score.method: score for score in score_fold("0", sections, "Gene-DML", full=True)}
    assert list(scores) == ["Gene-DML", RIDGE, DEPTH, CONSTANT]
    for name, layer in (("Gene-DML", None), (RIDGE, "ridge")):
        each: dict[str, list[float]] = {}
        for data in sections:
            predicted = data.X if layer is None else data.layers[layer]
            truth = data.layers["truth"]
            plain, unsmoothed = pcc(truth, predicted), pcc(data.layers[UNSMOOTHED], predicted)
            each.setdefault("pcc_unsmoothed", []).append(sum(unsmoothed) / GENES)
            for third, start in zip(THIRDS, (0, 4, 8), strict=True):
                each.setdefault(third, []).append(sum(plain[start : start + 4]) / 4)
            each.setdefault("pcc_spatial", []).append(sum(plain) / GENES)
            inside = [np.mean(truth[:, gene] <= data.layers["upper"][:, gene]) for gene in range(GENES)]
            each.setdefault("coverage", []).append(np.nan if layer else sum(inside) / GENES)
            ratios = [np.var(predicted[:, gene]) / np.var(truth[:, gene]) for gene in range(GENES)]
            each.setdefault("variance_ratio", []).append(float(np.median(ratios)))
        for key, values in each.items():
            assert scores[name].full[key] == pytest.approx(sum(values) / 2, nan_ok=True), key
        truth = [data.layers["truth"] for data in sections]
        predicted = [data.X if layer is None else data.layers[layer] for data in sections]
        p_values = null_p_values(truth, predicted, [moves_of(of_section) for of_section in spots])
        assert scores[name].per_gene["above_null"].tolist() == above_null(p_values).tolist()
        assert scores[name].full["above_null"] == pytest.approx(sum(above_null(p_values)) / GENES)
    assert scores["Gene-DML"].full["above_null"] > 0.9
    assert scores["Gene-DML"].full["above_null_given_depth"] > 0.9
    assert scores["Gene-DML"].full["pcc_unsmoothed"] < scores["Gene-DML"].pcc_a


def test_depth_alone_is_above_the_null_and_has_no_score_given_depth_and_a_constant_has_none():
    sections = [section(square(12, 11), 0, of_depth=3.0)]
    scores = {score.method: score.full for score in score_fold("0", sections, "Gene-DML", full=True)}
    assert scores[DEPTH]["above_null"] == 1
    assert np.isnan(scores[DEPTH]["above_null_given_depth"])
    assert scores[CONSTANT].pop("variance_ratio") == 0
    assert np.isnan(list(scores[CONSTANT].values())).all()


def test_what_earlier_versions_did_not_keep_is_not_known_and_the_rest_is():
    data = section(square(9, 8), 0)
    del data.layers[UNSMOOTHED], data.layers["lower"], data.var["morans_i"]
    score = score_fold("0", [data], "Gene-DML", full=True)[0]
    unknown = {"pcc_unsmoothed", *THIRDS, "pcc_spatial", "coverage"}
    assert {name for name, value in score.full.items() if np.isnan(value)} == unknown
    assert np.isnan(score.per_gene["morans_i"]).all()
    assert score_fold("0", [data], "Gene-DML")[0].full == {}


@pytest.mark.parametrize("spots", [square(1, 1), square(3, 1), of_array(np.array([(0, 0), (9, 0), (0, 9), (9, 9)]))])
def test_few_spots_and_spots_far_apart_have_no_null_and_still_their_other_scores(spots):
    data = section(spots, 0)
    score = score_fold("0", [data], "Gene-DML", full=True)[0]
    assert np.isnan([score.full["above_null"], score.full["above_null_given_depth"]]).all()
    assert np.isnan(score.pcc_a) == np.isnan(score.full["pcc_unsmoothed"]) == (len(spots) == 1)


def test_a_gene_that_is_constant_in_one_section_is_left_out_there():
    sections = [section(square(9, 8), 0), section(square(9, 8), 1)]
    for layer in ("truth", UNSMOOTHED):
        sections[0].layers[layer][:, 5] = 0.25
    score = score_fold("0", sections, "Gene-DML", full=True)[0]
    second = pcc(sections[1].layers[UNSMOOTHED], sections[1].X)[5]
    assert score.per_gene["pcc_unsmoothed"][5] == pytest.approx(second)
    assert score.per_gene["above_null"][5] in (0, 1)
    assert [name for name, value in score.full.items() if np.isnan(value)] == []


def test_thirds_and_the_most_spatial_genes_are_by_morans_i_and_leave_out_genes_without():
    morans_i = np.array([0.3, np.nan, 0.1, 0.9, 0.2, 0.5, 0.4])
    groups = moran_groups(morans_i)
    assert [groups[third].tolist() for third in THIRDS] == [[2, 4], [0, 6], [5, 3]]
    assert groups["pcc_spatial"].tolist() == [3, 5, 6, 0, 4, 2]
    assert not any(len(group) for group in moran_groups(np.full(4, np.nan)).values())
    many = np.random.default_rng(0).permutation(200) / 200
    assert sorted(many[moran_groups(many)["pcc_spatial"]]) == pytest.approx(np.arange(150, 200) / 200)


def test_the_share_of_the_ceiling_is_of_the_genes_that_have_one():
    def fold(method: str, values: list[float], given_depth: list[float]) -> FoldScores:
        of_genes = {"pcc_given_depth": np.array(given_depth)}
        genes = ("A", "B", "C")
        return FoldScores(
            method, "0", genes, 0.0, 0.0, float(np.mean(values)), 0.0, np.array(values), None, 0, {}, of_genes
        )

    halves = fold(SPLIT_HALVES, [0.5, -0.1, 0.8], [0.2, 0.2, np.nan])
    evaluation = Evaluation(
        "", (fold("Gene-DML", [0.4, 0.3, 0.6], [0.1, 0.3, 0.2]),), (), Path(), split_halves=(halves,)
    )
    row = evaluation.values().set_index("method").loc["Gene-DML"]
    assert row["share_of_ceiling"] == pytest.approx((0.4 + 0.3 + 0.6) / (np.sqrt(1 / 1.5) + np.sqrt(1.6 / 1.8)))
    assert row["share_of_ceiling_given_depth"] == pytest.approx(0.4 / (2 * np.sqrt(0.4 / 1.2)))
    genes = evaluation.per_gene().set_index("gene")
    np.testing.assert_allclose(genes.loc[["A", "C"], "attainable_pcc"], attainable(np.array([0.5, 0.8])))
    assert genes.loc["B", "attainable_pcc"] == 0
    ceiling = evaluation.values().set_index("method").loc["attainable"]
    assert ceiling["pcc_a"] == pytest.approx(attainable(np.array([0.5, -0.1, 0.8])).mean())
    assert row["share_of_ceiling"] == pytest.approx(row["pcc_a"] / ceiling["pcc_a"])
    without = Evaluation("", evaluation.scores, (), Path()).values()
    assert without["share_of_ceiling"].isna().all()


def test_every_score_is_explained_in_a_line():
    lines = (Path(__file__).parents[1] / "examples" / "scores.md").read_text().splitlines()
    explained = " | ".join(line.split("|")[1].strip() for line in lines if line.startswith("| "))
    for name in FULL_METRICS.values():
        assert name.removeprefix("PCC, ") in explained


def test_every_score_stands_in_the_table_of_values_and_comparisons_keep_theirs():
    evaluation = Evaluation("", tuple(score_fold("0", [section(square(9, 8), 0)], "Gene-DML", full=True)), (), Path())
    assert list(METRICS) == list(FULL_METRICS)[: len(METRICS)]
    assert set(FULL_METRICS) <= set(evaluation.values())
    assert set(evaluation.to_dict()["methods"][RIDGE]) == set(FULL_METRICS)
    assert {"above_null", "pcc_given_depth", "variance_ratio", "morans_i"} <= set(evaluation.per_gene())
