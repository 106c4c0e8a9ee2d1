"""Where features live: chosen by free memory, never seen in the numbers; and what a batch runs over."""

import pickle
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import tiny_config

from genedml.checkpoint import EncoderRecord
from genedml.networks.gene_dml import GeneDML, GeneDMLConfig
from genedml.networks.linear_path import pooled_vectors
from genedml.networks.network import Shape
from genedml.ridge import fit_ridge
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.labels import Labels
from genedml_cli.features import placement
from genedml_cli.features.placement import PlacedFeatures, Placement, place
from genedml_cli.features.section_data import SectionData
from genedml_cli.features.section_features import SectionFeatures, load_features, save_features
from genedml_cli.machine import memory
from genedml_cli.machine.memory import free_on_host
from genedml_cli.prediction.section import predict_section
from genedml_cli.spots.spots import Spots
from genedml_cli.training.learner import Learner
from genedml_cli.training.loop import SpotLoader, train_fold

WIDTH, TOKENS, GENES = 8, 3, 20
NEEDS = GeneDML.needs(GeneDMLConfig())
COUNTS = (30, 41, 25)
GIGABYTE = 10**9


def make_features(spots: int, orientations: int, seed: int) -> SectionFeatures:
    random = torch.Generator().manual_seed(seed)
    array_xy = np.stack([np.arange(spots) % 7, np.arange(spots) // 7], axis=1)
    return SectionFeatures(
        Spots(tuple(map(str, range(spots))), array_xy * 400.0, array_xy),
        torch.randn(orientations, spots, TOKENS, WIDTH, generator=random).half(),
        torch.randn(4 * spots, WIDTH, generator=random).half(),
        torch.randperm(4 * spots, generator=random)[:spots],
        torch.randint(-1, 4 * spots, (spots, 25), generator=random).index_fill(1, torch.tensor([12]), 0),
        EncoderRecord("tiny", WIDTH, TOKENS, ""),
        0.5,
        "",
    )


def test_pooled_features_are_the_own_tile_and_means_over_the_grid_and_its_ring():
    features = make_features(9, 1, 0)
    tiles = features.tiles.float().numpy()
    ring = [place for place in range(25) if place // 5 in (0, 4) or place % 5 in (0, 4)]
    for spot, (own, grid) in enumerate(zip(features.own.tolist(), features.neighbor.tolist(), strict=True)):
        around = [np.mean([tiles[grid[at]] for at in places if grid[at] >= 0], axis=0) for places in (range(25), ring)]
        np.testing.assert_allclose(features.at_three_scales[spot], np.concatenate([tiles[own], *around]), atol=1e-5)


def test_the_linear_path_of_a_network_sees_what_ridge_does():
    features = make_features(9, 1, 0)
    batch = PlacedFeatures([features], "cpu", NEEDS).batch(torch.zeros(9, dtype=torch.int64), torch.arange(9))
    np.testing.assert_allclose(pooled_vectors(batch).numpy(), features.at_three_scales, atol=1e-5)


@pytest.fixture
def sections(tmp_path: Path) -> list[SectionData]:
    """Three sections whose features are in files, in eight orientations; some spots have no label."""
    random, data = np.random.default_rng(0), []
    for number, spots in enumerate(COUNTS):
        save_features(make_features(spots, 8, number), tmp_path / f"{number}.safetensors", {})
        y = random.random((spots, GENES), dtype=np.float32)
        labels = Labels(y, y, random.random(spots) > 0.2, np.zeros(spots), 0, 0)
        sample = Sample(str(number), tmp_path, tmp_path, tmp_path, f"P{number}", f"P{number}")
        data.append(SectionData(sample, load_features(tmp_path / f"{number}.safetensors"), labels))
    return data


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Section, row and orientation of 50 spots of the first and the last section."""
    random = torch.Generator().manual_seed(1)
    section = torch.randint(2, (50,), generator=random) * 2
    row = torch.tensor([int(torch.randint(COUNTS[one], (1,), generator=random)) for one in section])
    return section, row, torch.randint(8, (50,), generator=random)


@pytest.mark.parametrize("where", Placement)
def test_a_batch_is_the_same_wherever_features_are(sections, batch, where):
    views = PlacedFeatures([data.features for data in sections], "cpu", NEEDS, where).batch(*batch)
    for spot, (section, row, orientation) in enumerate(zip(*(part.tolist() for part in batch), strict=True)):
        features = sections[section].features
        assert torch.equal(views.tokens[spot], features.local[orientation, row].float())
        seen = features.neighbor[row]
        assert torch.equal(views.neighbor_mask[spot], seen >= 0)
        assert torch.equal(views.neighbor[spot][seen >= 0], features.tiles[seen[seen >= 0]].float())
        own = views.sections[views.section[spot]]
        assert torch.equal(own.pooled, features.pooled.float())
        assert views.row[spot] == row


def test_a_batch_holds_the_sections_it_touches_and_no_others(sections, batch):
    views = PlacedFeatures([data.features for data in sections], "cpu", NEEDS).batch(*batch)
    assert [len(section.pooled) for section in views.sections] == [COUNTS[0], COUNTS[2]]


def test_the_sections_of_others_do_not_change_a_batch(sections, batch):
    placed = PlacedFeatures([data.features for data in sections], "cpu", NEEDS)
    views = placed.batch(*batch)
    views = replace(views, label=torch.rand(50, GENES))
    # as if the global transformer ran over every section at each step
    everywhere = replace(views, sections=placed.sections, section=batch[0])
    config = tiny_config()
    network = GeneDML(config.network, Shape(GENES, WIDTH, TOKENS, 5)).eval()
    few, all_ = (network.losses(one, torch.Generator().manual_seed(1)) for one in (views, everywhere))
    assert all(torch.equal(few[name], all_[name]) for name in all_)


@pytest.mark.parametrize(
    ("device_bytes", "host_bytes", "where"),
    [
        (GIGABYTE, GIGABYTE, "on the device"),
        (1000, GIGABYTE, "in host memory"),
        (1000, 1000, "read from disk as needed"),
    ],
)
def test_the_place_follows_free_memory_and_is_said(sections, monkeypatch, capfd, device_bytes, host_bytes, where):
    monkeypatch.setattr(placement, "free_on_device", lambda _: device_bytes)
    monkeypatch.setattr(placement, "free_on_host", lambda: host_bytes)
    place([data.features for data in sections], torch.device("meta"), NEEDS)
    size = sum(8 * spots * TOKENS * WIDTH * 2 + 4 * spots * WIDTH * 2 for spots in COUNTS) / 1e6
    assert f"Features of 3 sections: {size:.2f} MB, {where}." in " ".join(capfd.readouterr().err.split())


def test_training_is_the_same_from_memory_and_from_disk(sections, monkeypatch, capfd):
    config = tiny_config("training.epochs=2", "training.augment=true", "training.batch_size=20", "training.refit=true")
    found = []
    for free in (GIGABYTE, 0):
        monkeypatch.setattr(placement, "free_on_host", lambda free=free: free)
        found.append(train_fold(sections[:2], sections[2:], [], config, "cpu"))
    said = capfd.readouterr().err
    assert "in host memory" in said
    assert "read from disk" in said
    for name, value in found[0].state.items():
        assert torch.equal(value, found[1].state[name]), name


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def test_an_open_feature_file_takes_no_memory_but_for_what_is_looked_at(tmp_path):
    large = torch.zeros(8, 20000, 50, 16, dtype=torch.float16)  # 256 MB
    save_features(
        SectionFeatures(
            Spots(tuple(map(str, range(20000))), np.random.default_rng(0).random((20000, 2))),
            large,
            large[0, :, 0],
            torch.arange(20000),
            torch.arange(20000)[:, None],
            EncoderRecord("tiny", 16, 50, ""),
            None,
            "",
        ),
        tmp_path / "large.safetensors",
        {},
    )
    before = resident_bytes()
    features = load_features(tmp_path / "large.safetensors")
    upright = features.upright.local[0, ::50].sum()
    assert resident_bytes() - before < large.nbytes / 4
    assert upright == 0


def test_to_another_process_goes_the_name_of_the_file(sections):
    features = sections[0].features
    assert len(pickle.dumps(features)) < 2000
    assert torch.equal(pickle.loads(pickle.dumps(features)).local, features.local)
    in_memory = make_features(5, 1, 0)
    assert torch.equal(pickle.loads(pickle.dumps(in_memory)).local, in_memory.local)


Memory = namedtuple("Memory", "available")


def test_free_memory_is_what_the_container_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(10_000))
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "cgroup")
    assert free_on_host() == 10_000
    (tmp_path / "cgroup").write_text("0::/job")
    for name, text in {"max": "3000", "current": "1500", "stat": "inactive_file 500\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_on_host() == 2000


def test_the_fused_optimiser_learns_what_the_plain_one_does(sections, monkeypatch):
    config = tiny_config("training.epochs=3", "training.batch_size=20")
    fused = train_fold(sections, [], [], config, "cpu")
    monkeypatch.setattr("genedml_cli.training.learner.FUSED", ())
    plain = train_fold(sections, [], [], config, "cpu")
    for one, other in zip(fused.log, plain.log, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_training_leaves_the_callers_random_numbers_alone(sections):
    config = tiny_config("training.epochs=2", "training.batch_size=20")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = train_fold(sections, [], [], config, "cpu")
    assert torch.equal(torch.rand(3), expected)
    assert train_fold(sections, [], [], config, "cpu").log == first.log


def test_the_kept_weights_are_their_moving_average(sections):
    config = tiny_config("training.weight_average=0.5", "training.batch_size=200", "training.sections_per_batch=0")
    settings = config.training
    placed = PlacedFeatures([data.features for data in sections], "cpu", NEEDS)
    loader = SpotLoader(sections, placed, settings, "cpu", NEEDS)
    network = GeneDML(config.network, Shape(GENES, WIDTH, TOKENS, 5))
    learner, random, expected = Learner(network, settings, "cpu"), torch.Generator().manual_seed(0), None
    for _ in range(3):
        learner.train_epoch(loader.epoch(random), random)
        now = network.head.output.weight.detach().clone()
        expected = now if expected is None else (expected + now) / 2
    torch.testing.assert_close(learner.averaged.head.output.weight.detach(), expected)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_output_is_averaged_over_array_neighbours_where_labels_are(sections, smooth):
    config = tiny_config("network.array_mean=true", "network.linear_share=0.0").network
    plain = tiny_config("network.array_mean=false", "network.linear_share=0.0").network
    shape = Shape(GENES, WIDTH, TOKENS, 5, smooth=smooth)
    network, without = GeneDML(config, shape), GeneDML(plain, shape)
    without.load_state_dict(network.state_dict())
    features = sections[0].features.upright
    predicted, alone = (predict_section(one, features, "cpu", batch_spots=7) for one in (network, without))
    neighbors = features.spots.neighbors()
    means = neighbors @ alone / neighbors.sum(axis=1).A1[:, None] if smooth else alone
    np.testing.assert_allclose(predicted, means, atol=1e-5)


def test_its_share_of_the_output_is_the_ridge_of_the_training_sections(sections, monkeypatch):
    monkeypatch.setattr("genedml.networks.gene_dml.ALIGNED_SPOTS", 10)  # of batches of thirty
    config = tiny_config("network.array_mean=false", "network.linear_share=0.25", "training.epochs=1")
    trained = train_fold(sections, [], [], config, "cpu")
    network = GeneDML(config.network, trained.shape).without_training()
    network.load_state_dict(trained.state)
    features = sections[0].features.upright
    output = predict_section(network, features, "cpu")
    network.linear = None
    rows = [(data.features.at_three_scales[data.labels.valid], data.labels.y[data.labels.valid]) for data in sections]
    ridge = fit_ridge(rows, [data.sample.donor for data in sections]).predict(features.at_three_scales)
    expected = 0.75 * predict_section(network, features, "cpu") + 0.25 * ridge
    np.testing.assert_allclose(output, expected, atol=1e-3)


@pytest.mark.parametrize("refit", [True, False])
def test_what_is_linear_is_fitted_on_averaged_vectors_of_the_sections_trained_on_in_the_end(sections, refit):
    settings = [f"training.refit={str(refit).lower()}", "training.epochs=1"]
    config = tiny_config("network.array_mean=true", "network.linear_share=0.25", *settings)
    trained = train_fold(sections[:2], sections[2:], [], config, "cpu")
    rows, fitted_on = [], sections if refit else sections[:2]
    for data in fitted_on:
        valid, spots = data.labels.valid, data.features.spots
        rows.append((spots.array_mean(data.features.at_three_scales, valid)[valid], data.labels.y[valid]))
    ridge = fit_ridge(rows, [data.sample.donor for data in fitted_on])
    np.testing.assert_allclose(trained.state["linear.weight"].numpy(), ridge.weight, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("where", Placement)
def test_no_step_waits_for_cuda_and_its_batches_are_the_hosts(sections, batch, where):
    config, device = tiny_config("training.batch_size=20"), torch.device("cuda")
    features = [data.features for data in sections]
    placed, on_host = PlacedFeatures(features, device, NEEDS, where), PlacedFeatures(features, "cpu", NEEDS)
    for name in ("section", "row", "tokens", "neighbor", "neighbor_mask"):
        own, other = (getattr(features.batch(*batch), name) for features in (placed, on_host))
        assert torch.equal(own.cpu(), other)
    loader = SpotLoader(sections, placed, config.training, device, NEEDS)
    learner = Learner(GeneDML(config.network, Shape(GENES, WIDTH, TOKENS, 5)), config.training, device)
    random = torch.Generator().manual_seed(0)
    learner.train_epoch(loader.epoch(random), random)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for drawn in loader.epoch(random):
            learner.step(drawn, random)
    finally:
        torch.cuda.set_sync_debug_mode("default")
