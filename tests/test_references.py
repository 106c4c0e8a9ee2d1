"""Linear references: ridge is scikit-learn's, what each of them sees, on which sections they are fitted, their file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genedml import ridge
from genedml.checkpoint import EncoderRecord
from genedml.config import TrainingConfig
from genedml.encoders.stain_texture import STANDARD
from genedml.metrics import column_nanmean, nanmean, pcc
from genedml.ridge import ALPHAS, fit_ridge
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.labels import Labels
from genedml_cli.features.section_data import SectionData
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.outputs.reference_layers import NUCLEI, OWN_TILE, PLACE, REFERENCES, RIDGE
from genedml_cli.outputs.run_folder import reference_file
from genedml_cli.references.depth import fit_depth_line
from genedml_cli.references.linear import VECTORS, fit_linear, load_linear, predict_linear, save_linear
from genedml_cli.references.reference_file import save_reference
from genedml_cli.spots.spots import Spots
from genedml_cli.training.loop import learnt_from

GROUPS = ("A", "B", "A", "C", "C")


def sections(width: int, genes: int = 6, noise: float = 3.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five of 40 to 60 spots whose labels are linear in x, but for noise; one column never varies, one in C alone."""
    random = np.random.default_rng(7)
    plane, made = random.normal(size=(width, genes)), []
    for number, group in enumerate(GROUPS):
        x = random.normal(1000.0, 1.0, (40 + 5 * number, width)) + random.normal(size=width)
        x[:, 0] = 0.1
        if group != "C":
            x[:, 1] = 5.0
        y = (x - 1000) @ plane + noise * width**0.5 * random.normal(size=(len(x), genes)) + 9 * number
        made.append((x.astype(np.float32), y.astype(np.float32)))
    return made


def fit_naively(parts: list[tuple[np.ndarray, np.ndarray]], alpha: float):
    """scikit-learn's, in double precision, on labels centred within sections."""
    x = np.concatenate([x.astype(np.float64) for x, _ in parts])
    y = np.concatenate([y.astype(np.float64) - y.mean(axis=0, dtype=np.float64) for _, y in parts])
    return make_pipeline(StandardScaler(), Ridge(alpha)).fit(x, y)


def inner_pcc_naively(parts: list[tuple[np.ndarray, np.ndarray]], alpha: float) -> np.ndarray:
    """A refit for every group that is left out."""
    scores = []
    for left_out in sorted(set(GROUPS)):
        pairs = list(zip(parts, GROUPS, strict=True))
        model = fit_naively([part for part, group in pairs if group != left_out], alpha)
        scores += [pcc(y, model.predict(x.astype(np.float64))) for (x, y), group in pairs if group == left_out]
    return column_nanmean(np.stack(scores))


@pytest.mark.parametrize("width", [12, 400])
@pytest.mark.parametrize("noise", [0.3, 3.0, 30.0])
def test_ridge_is_that_of_a_refit_for_every_donor_and_penalty(width, noise):
    """With more spots than columns and with fewer, near and far from the truth."""
    parts = sections(width, noise=noise)
    inner = {alpha: inner_pcc_naively(parts, alpha) for alpha in ALPHAS}
    best = max(ALPHAS, key=lambda alpha: nanmean(inner[alpha]))
    model, naive = fit_ridge(parts, GROUPS), fit_naively(parts, best)
    assert model.alpha == best
    np.testing.assert_allclose(model.inner_pcc, inner[best], atol=1e-6)
    x = parts[2][0]
    mean = np.concatenate([y for _, y in parts]).mean(axis=0)
    expected = naive.predict(x.astype(np.float64))
    np.testing.assert_allclose(pcc(expected, model.predict(x)), 1, atol=1e-6)
    np.testing.assert_allclose(model.predict(x), expected + mean, atol=2e-3 * np.abs(expected).max())


def test_large_matrices_in_single_precision_choose_the_same(monkeypatch):
    parts = sections(100)
    exact = fit_ridge(parts, GROUPS)
    monkeypatch.setattr(ridge, "WIDE", 50)
    single = fit_ridge(parts, GROUPS)
    assert single.alpha == exact.alpha
    assert not np.array_equal(single.weight, exact.weight)
    np.testing.assert_allclose(single.inner_pcc, exact.inner_pcc, atol=1e-5)


def test_the_penalty_of_one_column_is_the_least_as_pcc_is_the_same_for_all_but_for_rounding():
    for seed in range(6):
        random = np.random.default_rng(seed)
        parts = [((x := random.normal(size=(180, 1))), 2 * x + random.normal(size=(180, 40))) for _ in range(3)]
        model = fit_ridge([(x.astype(np.float32), y) for x, y in parts], ["a", "b", "c"])
        assert model.alpha == ALPHAS[0]
        assert model.weight == pytest.approx(np.full((1, 40), 2.0), abs=0.3)


def test_how_sections_differ_teaches_ridge_nothing_and_predictions_keep_the_mean_label():
    parts = sections(12)
    shifted = [(x, y + 100 * number) for number, (x, y) in enumerate(parts)]
    model, other = fit_ridge(parts, GROUPS), fit_ridge(shifted, GROUPS)
    np.testing.assert_allclose(model.weight, other.weight, atol=1e-4)
    for fitted, of in ((model, parts), (other, shifted)):
        x, y = (np.concatenate(tables) for tables in zip(*of, strict=True))
        np.testing.assert_allclose(fitted.predict(x).mean(axis=0), y.mean(axis=0), rtol=1e-3, atol=0.05)


def test_of_one_group_the_penalty_is_the_middle_one_and_no_gene_has_a_score():
    model = fit_ridge(sections(12), ["A"] * 5)
    assert model.alpha == ALPHAS[5]
    assert np.isnan(model.inner_pcc).all()


def section(name: str, encoder: str = "stain-texture", seed: int = 0) -> SectionData:
    """3 x 3 spots, a tile each, the labels of gene 0 the nuclei of the tile and of gene 1 those around; no spot 8."""
    random = np.random.default_rng(seed)
    width, spots = len(STANDARD), 9
    array_xy = np.stack(np.divmod(np.arange(spots), 3), axis=1)
    tiles = torch.as_tensor(random.normal(size=(spots, width)), dtype=torch.float32)
    own = torch.arange(spots)
    record = EncoderRecord(encoder, width, 197, "0")
    placed = Spots(tuple(f"s{spot}" for spot in range(spots)), 100.0 * array_xy, array_xy)
    features = SectionFeatures(placed, torch.zeros(1, spots, 1, width), tiles, own, own[:, None], record, 0.5, "0")
    nuclei = tiles[:, [*STANDARD].index("nucleus")].numpy()
    beside = np.abs(array_xy[:, None] - array_xy).max(axis=2) <= 1
    around = beside @ nuclei / beside.sum(axis=1)
    valid = np.arange(spots) != 8
    y = np.where(valid[:, None], np.column_stack([nuclei, around]), np.nan).astype(np.float32)
    sample = Sample(name, Path("s.svs"), Path("s.csv"), Path("c.csv"), name, "0")
    return SectionData(sample, features, Labels(y, y, valid, np.ones(spots), 0, 1))


def test_every_linear_reference_is_a_row_of_tables():
    assert [name for name in REFERENCES if name in VECTORS] == list(VECTORS)


def test_nuclei_are_averaged_where_labels_are_and_the_own_tile_never_is():
    data = [section(name, seed=seed) for seed, name in enumerate("ABC")]
    averaged, alone = (fit_linear(data, smooth) for smooth in (True, False))
    assert [(name, model.averaged) for name, model in averaged.items()] == [
        (RIDGE, True),
        (OWN_TILE, False),
        (NUCLEI, True),
        (PLACE, False),
    ]
    assert not any(model.averaged for model in alone.values())
    truth = data[0].labels.y[:8]
    correlations = {
        smooth: pcc(truth, predict_linear(models, data[0].features)[NUCLEI][:8])
        for smooth, models in ((True, averaged), (False, alone))
    }
    assert correlations[True][1] == pytest.approx(1, abs=1e-5)
    assert correlations[False][0] == pytest.approx(1, abs=1e-5)
    assert max(correlations[True][0], correlations[False][1]) < 0.99


def test_nuclei_are_of_one_encoder_alone():
    data = [section(name, encoder="uni", seed=seed) for seed, name in enumerate("AB")]
    assert list(fit_linear(data, True)) == [RIDGE, OWN_TILE, PLACE]


def test_place_alone_knows_what_sections_have_at_the_same_place_wherever_they_lie_on_their_slides():
    """And what they have at different places it does not know."""
    array_xy = np.stack(np.divmod(np.arange(300), 15), axis=1)
    made = {}
    for number, name in enumerate("ABC"):
        data = section(name, encoder="uni", seed=number)
        xy_px = (100.0 + 10 * number) * array_xy + 1000 * number
        spots = Spots(tuple(map(str, range(300))), xy_px, array_xy)
        tiles = torch.as_tensor(np.random.default_rng(number).normal(size=(300, 4)), dtype=torch.float32)
        every = torch.arange(300)
        local, grid = torch.zeros(1, 300, 1, 4), every[:, None]
        features = replace(data.features, spots=spots, local=local, tiles=tiles, own=every, neighbor=grid)
        x, y = array_xy.T
        label = np.column_stack([np.sin(x / 4), (x - 9) * (y - 7), np.sin(x / 4 + 2 * number)]).astype(np.float32)
        labels = Labels(label, label, np.ones(300, dtype=bool), np.ones(300), 0, 1)
        made[name] = replace(data, features=features, labels=labels)
    layers = predict_linear(fit_linear([made["A"], made["B"]], True), made["C"].features)
    same, too, elsewhere = pcc(made["C"].labels.y, layers[PLACE])
    assert min(same, too) > 0.99 > 0.1 > elsewhere
    assert np.abs(pcc(made["C"].labels.y, layers[RIDGE])).max() < 0.3


def test_references_are_fitted_on_what_the_network_is_fitted_on():
    """Not on sections that only choose its epoch."""
    train, validation = ["A", "B"], ["C"]
    settings = TrainingConfig()
    assert learnt_from(train, validation, settings) == ["A", "B"]
    assert learnt_from(train, validation, replace(settings, refit=True)) == ["A", "B", "C"]
    assert learnt_from(train, validation, replace(settings, select_on="test")) == ["A", "B", "C"]


def test_references_come_back_from_their_file(tmp_path):
    data = [section(name, seed=seed) for seed, name in enumerate("AB")]
    models, checkpoint = fit_linear(data, True), tmp_path / "fold-1.safetensors"
    assert load_linear(checkpoint, ["X", "Y"], "0") == {}
    save_linear(models, ["X", "Y"], "0", checkpoint)
    again = load_linear(checkpoint, ["X", "Y"], "0")
    expected = predict_linear(models, data[1].features)
    assert list(again) == list(models)
    for name, predicted in predict_linear(again, data[1].features).items():
        assert np.array_equal(predicted, expected[name])


def test_the_file_of_an_earlier_version_is_ridge_on_vectors_that_are_not_averaged(tmp_path):
    features, checkpoint = section("A").features, tmp_path / "fold-1.safetensors"
    weight = np.random.default_rng(2).normal(size=(3 * len(STANDARD), 2)).astype(np.float32)
    tables = {"weight": weight, "intercept": np.ones(2, np.float32), "inner_pcc": np.zeros(2)}
    save_reference(tables, "0", reference_file(checkpoint, "ridge"), ["X", "Y"])
    predicted = predict_linear(load_linear(checkpoint, ["X", "Y"], "0"), features)
    assert list(predicted) == [RIDGE]
    np.testing.assert_allclose(predicted[RIDGE], features.at_three_scales @ weight + 1, atol=1e-5)


def of_depth(name: str, depth: np.ndarray, y: np.ndarray) -> SectionData:
    """A section of nine spots, the last without a label, with these depths and labels of two genes."""
    data = section(name)
    labels = replace(data.labels, y=y.astype(np.float32), depth=depth)
    return SectionData(data.sample, data.features, labels)


def test_the_line_over_depth_is_of_spots_within_sections_and_not_of_how_sections_differ():
    """Labels rise with depth in each section, and the deeper sections have the lower ones."""
    random, data, low = np.random.default_rng(0), [], np.linspace(0, 1, 9)
    for number, name in enumerate("ABC"):
        rising = 0.5 * low - 3.0 * number
        y = np.column_stack([rising, -rising]) + 0.01 * random.normal(size=(9, 2))
        y[8] = np.nan
        data.append(of_depth(name, low + 2 * number, y))
    depth, y = (
        np.concatenate([values[:8] for values in tables])
        for tables in zip(*((section.labels.depth, section.labels.y) for section in data), strict=True)
    )
    pooled = [np.polyfit(depth, y[:, gene], 1)[0] for gene in range(2)]
    slope, intercept = fit_depth_line(data)
    assert (np.sign(pooled) == [-1, 1]).all()
    assert slope == pytest.approx([0.5, -0.5], abs=0.05)
    assert slope * depth.mean() + intercept == pytest.approx(y.mean(axis=0), abs=1e-6)


def test_a_single_section_has_the_line_of_least_squares_and_one_of_one_depth_the_mean():
    random = np.random.default_rng(1)
    depth, y = random.normal(3, 0.2, 9), random.normal(size=(9, 2))
    slope, intercept = fit_depth_line([of_depth("A", depth, y)])
    expected = np.polyfit(depth[:8], y[:8], 1)
    np.testing.assert_allclose([slope, intercept], expected, rtol=1e-5)
    slope, intercept = fit_depth_line([of_depth("A", np.full(9, 3.0), y)])
    assert (slope == 0).all()
    np.testing.assert_allclose(intercept, y[:8].mean(axis=0), rtol=1e-5)
