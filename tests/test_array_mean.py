"""The mean over array neighbours that a network makes of its output: that of the labels, spot by spot."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from genedml.checkpoint import load_card
from genedml.networks.gene_dml_losses import centred_prediction_loss, prediction_loss
from genedml.networks.inputs import Batch, Section, array_mean
from genedml_cli.datasets.synthetic import SyntheticConfig
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.prediction.prediction import predict
from genedml_cli.spots.spots import Spots

GENES = 3


def square(rng):
    return np.stack(np.meshgrid(np.arange(7), np.arange(6)), axis=-1).reshape(-1, 2)


def hexagonal(rng):
    column, row = square(rng).T
    return np.stack([2 * column + row % 2, row], axis=1)


def checkerboard(rng):
    array_xy = square(rng)
    return array_xy[array_xy.sum(axis=1) % 2 == 0]


@pytest.fixture(params=[square, hexagonal, checkerboard], ids=lambda kind: kind.__name__)
def spots(request):
    """Spots of an array, in no order, a quarter of them missing."""
    rng = np.random.default_rng(3)
    array_xy = rng.permutation(request.param(rng))
    array_xy = array_xy[: len(array_xy) * 3 // 4]
    rise = 3**0.5 if request.param is hexagonal else 1
    return Spots(tuple(map(str, range(len(array_xy)))), array_xy * np.array([100.0, 100.0 * rise]), array_xy)


def on_squares(px):
    array_xy = square(None)
    return Spots(tuple(map(str, range(len(array_xy)))), array_xy * px, array_xy)


def section_of(spots):
    grid_xy = torch.as_tensor(spots.grid_xy)
    return Section(torch.zeros(len(spots), 1), grid_xy, spots.lattice == "hex", None, spots.array is not None)


def means_of(spots, values, there):
    """As labels are averaged: over the spots that are there, by the table of neighbours that labels use."""
    near = spots.neighbors()[:, there]
    return near @ values[there] / np.maximum(near.sum(axis=1), 1)


def test_it_is_the_mean_that_labels_are(spots):
    values = np.random.default_rng(0).normal(size=(len(spots), GENES))
    averaged = array_mean(torch.as_tensor(values), section_of(spots)).numpy()
    np.testing.assert_allclose(averaged, means_of(spots, values, np.arange(len(spots))), atol=1e-12)
    np.testing.assert_allclose(averaged, spots.array_mean(values), atol=1e-12)


def test_spots_that_take_no_part_are_in_no_mean(spots):
    random = np.random.default_rng(4)
    values, among = random.normal(size=(len(spots), GENES)), random.random(len(spots)) < 0.4
    values[~among] = np.nan
    near = spots.neighbors().toarray().astype(bool) & among
    expected = [values[row].mean(axis=0) if row.any() else np.zeros(GENES) for row in near]
    np.testing.assert_allclose(spots.array_mean(values, among), expected, atol=1e-12)


def test_a_batch_averages_over_what_it_holds_of_each_section(spots):
    rng, section = np.random.default_rng(1), section_of(spots)
    held = [rng.permutation(len(spots))[:12], rng.permutation(len(spots))[:9]]
    order = rng.permutation(21)
    number, row = np.repeat([0, 1], [12, 9])[order], np.concatenate(held)[order]
    batch = Batch([section, section], torch.as_tensor(number), torch.as_tensor(row))
    values = rng.normal(size=(21, GENES))
    averaged = batch.mean_over_neighbors(torch.as_tensor(values)).numpy()
    for one in (0, 1):
        table = np.full((len(spots), GENES), np.nan)
        table[row[number == one]] = values[number == one]
        expected = means_of(spots, table, held[one])[row[number == one]]
        np.testing.assert_allclose(averaged[number == one], expected, atol=1e-12)


def test_spots_that_form_no_array_stay_as_they_are():
    xy_px = np.random.default_rng(2).uniform(0, 1000, (12, 2))
    spots = Spots(tuple(map(str, range(12))), xy_px)
    assert spots.array is None
    values = torch.rand(12, GENES)
    assert torch.equal(array_mean(values, section_of(spots)), values)


def test_one_spot_alone_stays_as_it_is():
    values = torch.rand(1, GENES)
    assert torch.equal(array_mean(values, Section(torch.zeros(1, 1), torch.zeros(1, 2, dtype=torch.int64))), values)


def test_the_mean_error_of_a_section_weighs_less():
    label = torch.zeros(4, 1)
    predicted = torch.tensor([[1.0], [3.0], [5.0], [5.0]])  # errors 2 +- 1, and 5 +- 0
    section = torch.tensor([0, 0, 1, 1])
    expected = (1 + 1 + 0 + 0) / 4 + 0.1 * (4 + 4 + 25 + 25) / 4
    assert centred_prediction_loss(predicted, label, section, 2, 0.1).item() == pytest.approx(expected)
    whole = centred_prediction_loss(predicted, label, section, 2, 1.0)
    assert whole.item() == pytest.approx(prediction_loss(predicted, label).item())


@pytest.mark.parametrize(
    ("lattice", "pitch_um", "radius_um"),
    [("square", 200.0, 200 * (9 / np.pi) ** 0.5), ("hex", 300.0, 300 * (7 * 3**0.5 / 2 / np.pi) ** 0.5)],
)
def test_a_finer_grid_is_averaged_over_the_area_of_the_trainings_neighbours(lattice, pitch_um, radius_um):
    spots, um_per_px = on_squares(px=200.0), 0.5  # 100 um apart
    finer, values = (
        spots.mean_as_on(lattice, pitch_um, um_per_px),
        np.random.default_rng(0).normal(size=(len(spots), 3)),
    )
    expected = []
    for place in spots.xy_px:
        near = np.hypot(*(spots.xy_px - place).T) * um_per_px <= radius_um
        expected.append(values[near].mean(axis=0))
    np.testing.assert_allclose(finer.array_mean(values), expected, atol=1e-12)
    features = namedtuple("Features", "spots pooled")(finer, torch.zeros(len(spots), 1))
    section = SectionFeatures.section(features)
    np.testing.assert_allclose(array_mean(torch.as_tensor(values), section).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("pitch_um", [50.0, 100.0, 120.0])
def test_the_trainings_grid_and_a_coarser_one_are_averaged_over_their_own_neighbours(pitch_um):
    spots = on_squares(px=200.0)
    assert spots.mean_as_on("square", pitch_um, 0.5) is spots


def test_a_model_knows_the_array_it_was_trained_on(run, p1):
    card = load_card(run / "fold-P1.safetensors")
    assert card.array == ("square", pytest.approx(SyntheticConfig().pitch_um, rel=0.01))
    fine = predict(p1["slide"], None, run / "fold-P1.safetensors", pitch_um=card.array[1] / 2, grid="square")
    told = [note.text for note in record_of(fine).notes]
    assert any("closer together than those of the training" in text for text in told)
