"""Published presets on raw pixels: one step of each; a backbone from hub or file, and its model without either."""

import shutil
import sys
from dataclasses import replace

import anndata
import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from loopback_hub import LoopbackHub, serving
from safetensors.torch import load_file, save_file

from genedml.checkpoint import load_card, load_state
from genedml.config import Config, load_config
from genedml.encoders.encoder import load_encoder, starting_weights
from genedml.errors import GeneDMLError
from genedml.networks.registry import build, network_class
from genedml_cli import app
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.labels import make_labels
from genedml_cli.features.extraction import extract
from genedml_cli.features.section_data import SectionData
from genedml_cli.machine.devices import seeded
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train
from genedml_cli.training.loop import train_fold

ONE_STEP = ("encoder=tiny", "training.epochs=1", "labels.panel_size=20", "labels.smooth=false")
# ST-Net's head of zeros lets nothing through in the first step, and at 1e-6 its second moves less than numbers resolve.
SMALLER = {
    "st-net": ("network.pretrained=false", "training.epochs=2", "training.learning_rate=0.01"),
    "bleep": ("network.pretrained=false",),
    "triplex": (
        "network.pretrained=false",
        *(f"network.{view}_transformer.depth=1" for view in ("neighbor", "global", "fusion")),
    ),
    "egn": ("network.width=64", "network.transformer.depth=2"),
    "m2ost": ("network.transformer.depth=1",),
    "histogene": ("network.width=64", "network.transformer.depth=1"),
    "hist2st": (
        "network.transformer.depth=1",
        "network.graph.depth=1",
        "network.lstm_depth=1",
        "network.loss.copies=1",
    ),
}
FIRST = {
    "st-net": "backbone.model.features.conv0.weight",
    "bleep": "backbone.model.conv1.weight",
    "triplex": "backbone.model.conv1.weight",
    "egn": "embed.embed.weight",
    "m2ost": "stem.embeddings.0.embed.1.weight",
    "histogene": "stem.2.weight",
    "hist2st": "stem.1.weight",
}
"""The layer that sees the pixels."""


@pytest.fixture(scope="module")
def two_spots(tmp_path_factory):
    """Two sections of two spots each, of two patients; and a folder for what is made of them."""
    folder = tmp_path_factory.mktemp("two-spots")
    write_dataset(folder, SyntheticConfig(patients=2, spots_x=2, spots_y=1, genes=20))
    return folder


def sections_of(folder, config: Config) -> list[SectionData]:
    samples = read_sheet(folder / "samples.csv")
    tiles = network_class(config.method).needs(config.network).tiles
    assert tiles
    found = extract(samples, load_encoder("tiny"), config.views, folder / "features", tiles=tiles)
    data = []
    for sample in samples:
        counts = read_counts(sample.counts)
        labels = make_labels(counts, found[sample.name].spots, tuple(counts.var_names), config.labels)
        data.append(SectionData(sample, found[sample.name], labels))
    return data


@pytest.mark.parametrize("method", SMALLER)
def test_one_step_of_the_published_preset_moves_the_layer_that_sees_the_pixels(method, two_spots):
    config = load_config("published", overrides=[f"method={method}", *ONE_STEP, *SMALLER[method]])
    sections = sections_of(two_spots, config)
    trained = train_fold(sections if method == "egn" else sections[:1], [], [], config, "cpu")
    with seeded(config.training.seed, torch.device("cpu")):
        before = build(method, config.network, trained.shape).state_dict()[FIRST[method]]
    after = trained.state[FIRST[method]]
    assert all(np.isfinite(value) for value in trained.log[-1].values())
    assert after.isfinite().all()
    assert (after != before).float().mean() > 0.5


def test_a_network_on_pixels_that_is_given_vectors_alone_says_what_to_extract(two_spots):
    config = load_config("published", overrides=["method=m2ost", *ONE_STEP, *SMALLER["m2ost"]])
    sections = [replace(data, features=replace(data.features, raw=())) for data in sections_of(two_spots, config)]
    with pytest.raises(
        GeneDMLError, match=r"looks at raw pixels, and the features of 2 of 2 sections are vectors alone"
    ):
        train_fold(sections, [], [], config, "cpu")


TINY = "test_resnet.r160_in1k"
PUBLISHED = (
    *("--method", "bleep", "--preset", "published", "--encoder", "tiny", "--set", f"network.backbone={TINY}"),
    *("--set", "training.epochs=1", "--set", "labels.panel_size=20", "--set", "training.learning_rate=1e-6"),
)


def genedml(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command as its users run it, in this process, which has the tiny encoder; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["genedml", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        app.main()
    return int(left.value.code or 0)


@pytest.fixture
def six_spots(tmp_path):
    """Three sections of six spots each, of three patients; the words that train a fold of them."""
    write_dataset(tmp_path, SyntheticConfig(patients=3, spots_x=3, spots_y=2, genes=20))
    words = ("train", "--samples", tmp_path / "samples.csv", "--features", tmp_path / "features", *PUBLISHED)
    return tmp_path, words


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has the weights of one backbone, of which nothing is in the cache."""
    (tmp_path / "hub").mkdir()
    torch.manual_seed(7)
    backbone = timm.create_model(TINY)
    save_file(backbone.state_dict(), tmp_path / "hub" / "model.safetensors")
    with serving(LoopbackHub(tmp_path / "hub", f"timm/{TINY}", gated=False), tmp_path / "cache", monkeypatch) as server:
        yield server


def test_a_backbone_comes_from_the_hub_once_and_its_model_predicts_without(hub, six_spots, monkeypatch):
    folder, words = six_spots
    out = folder / "run"
    assert genedml(monkeypatch, *words, "--fold", "P1", "--out", out) == 0
    assert [name for name, _ in hub.gets] == ["model.safetensors"]
    trained, served = load_state(out / "fold-P1.safetensors"), load_file(hub.folder / "model.safetensors")
    of_backbone = [name for name in trained if name.startswith("backbone.model.") and name.endswith("weight")]
    assert len(of_backbone) > 20
    for name in of_backbone:  # the steps are small, so it is still next to where it started
        assert torch.allclose(trained[name], served[name.removeprefix("backbone.model.")], atol=1e-3)
    hub.shutdown()
    shutil.rmtree(folder / "cache")
    kept = anndata.read_h5ad(out / "predictions" / "P1.h5ad")
    again = predict(folder / "slides" / "P1.tif", folder / "spots" / "P1.csv", out, fold="P1")
    assert np.allclose(again.X, kept.X, atol=1e-5)
    start = starting_weights(TINY, hub.folder / "model.safetensors").sha256
    assert load_card(out / "fold-P1.safetensors").made_by["backbone_sha256"] == start
    assert kept.uns["genedml"]["backbone_sha256"] == start


def test_what_extract_made_for_a_method_train_takes_without_encoding_or_reading(six_spots, monkeypatch, capsys):
    folder, words = six_spots
    words = (*words, "--set", "network.pretrained=false")
    assert genedml(monkeypatch, "extract", *words[1:]) == 0
    assert "18 as raw pixels" in flat(capsys.readouterr().out)
    made = {file.name: file.stat().st_mtime_ns for file in (folder / "features").iterdir()}
    assert sum(".tiles-224px-x1." in name for name in made) == 3
    for place in ("extraction.encode_plan", "tiles.read_tiles"):
        monkeypatch.setattr(f"genedml_cli.features.{place}", lambda *_: pytest.fail("it reads the slide again"))
    assert genedml(monkeypatch, *words, "--fold", "P1", "--out", folder / "run") == 0
    assert {file.name: file.stat().st_mtime_ns for file in (folder / "features").iterdir()} == made


def test_a_fold_of_other_starting_weights_is_not_added_to_a_run(six_spots, monkeypatch, capfd):
    folder, words = six_spots
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_file(timm.create_model(TINY, num_classes=0).state_dict(), folder / f"{seed}.safetensors")
    words = (*words, "--out", folder / "run", "--backbone-weights")
    assert genedml(monkeypatch, *words, folder / "1.safetensors", "--fold", "P1") == 0
    assert genedml(monkeypatch, *words, folder / "2.safetensors", "--fold", "P2") == 1
    assert "fold-P1.safetensors started from other weights than those here now" in flat(capfd.readouterr().err)
    assert not (folder / "run" / "fold-P2.safetensors").exists()


def test_a_comparison_starts_every_backbone_from_the_file_of_its_method(six_spots, monkeypatch):
    folder, (_, *words) = six_spots
    given, starts = [], {}
    for seed, method in enumerate(("st-net", "bleep")):
        torch.manual_seed(seed)
        save_file(timm.create_model(TINY, num_classes=0).state_dict(), file := folder / f"{method}.safetensors")
        given += ["--backbone-weights", f"{method}={file}"]
        starts[method] = starting_weights(TINY, file).sha256
    rest = words[: words.index("--method")] + words[words.index("--preset") :]
    rest += ["--set", "views.local_grid=0"]
    words = ("--methods", "st-net,st-net:features,bleep", *rest, *given, "--seeds", "1", "--fold", "P1")
    assert genedml(monkeypatch, "compare", *words, "--out", folder / "two") == 0
    cards = {method: load_card(folder / "two" / f"{method}/seed-2021/fold-P1.safetensors") for method in starts}
    assert {method: card.made_by["backbone_sha256"] for method, card in cards.items()} == starts
    without = load_card(folder / "two" / "st-net-features/seed-2021/fold-P1.safetensors")
    assert "backbone_sha256" not in without.made_by


def test_a_hub_out_of_reach_is_one_sentence_with_the_way_out_and_leaves_nothing(hub, six_spots, monkeypatch, capfd):
    folder, words = six_spots
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", NOBODY + "/{repo_id}/{filename}")
    assert genedml(monkeypatch, *words, "--out", folder / "run") == 1
    told = flat(capfd.readouterr().err)
    assert f"The weights of {TINY} are not here: the hub cannot be reached" in told
    assert f"https://huggingface.co/timm/{TINY}" in told
    assert "--backbone-weights FILE" in told
    assert not (folder / "run").exists()
    assert not (folder / "features").exists()


def test_a_file_for_a_method_without_backbone_is_refused_before_anything_is_done(six_spots, tmp_path):
    folder, _ = six_spots
    config = load_config(
        "features", overrides=["method=st-net", "encoder=tiny", "labels.panel_size=20", "views.local_grid=0"]
    )
    samples, file = read_sheet(folder / "samples.csv"), tmp_path / "any.safetensors"
    with pytest.raises(GeneDMLError, match="--backbone-weights has a file for st-net, which starts from no weights"):
        train(samples, folder / "run", config, features=folder / "features", backbone_weights=file)
    assert not (folder / "run").exists()


NOBODY = "http://127.0.0.1:9"


def flat(text: str) -> str:
    """Without the breaks of lines."""
    return " ".join(text.split())
