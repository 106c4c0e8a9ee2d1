"""The benchmark: every part is measured, written and shown."""

import json

import pytest

from genedml.config import load_config
from genedml_cli.benchmark.benchmark import benchmark
from genedml_cli.benchmark.training import SPOTS
from genedml_cli.commands.tables.benchmark import show_benchmark
from genedml_cli.datasets.datasets import find_dataset
from genedml_cli.machine.compute import Compute


@pytest.fixture(scope="module")
def result(world, tmp_path_factory):
    """A short run on a section of the tiny world."""
    out = tmp_path_factory.mktemp("benchmark") / "benchmark.json"
    settings = ("encoder=tiny", "views.local_grid=0", "labels.panel_size=20")
    config = load_config("small", overrides=settings)
    slide, spots = world / "slides/P1.tif", world / "spots/P1.csv"
    measured = benchmark(slide, spots, config, compute=Compute("cpu"), max_spots=12, seconds=0.1, out=out)
    return measured, json.loads(out.read_text())


def test_every_part_is_measured_and_written(result):
    measured, written = result
    assert measured.section == "P1.tif, 12 spots"
    assert written["machine"]["cores"] >= 1
    assert set(written["parts"]) == {"reading", "encoder alone", "extraction", "prediction", "training"}
    for name, part in written["parts"].items():
        assert part["count"] > 0 < part["seconds"]
        assert written["speeds"][name] == {f"{part['unit']}_per_s": part["count"] / part["seconds"]}
    assert measured.parts["reading"].count == 12 * measured.passes_a_spot
    assert 8 <= measured.parts["prediction"].count <= 12
    assert measured.parts["training"].count == SPOTS * measured.training_steps
    assert measured.decoded_megapixels > 0 < measured.matrix_tflops
    assert measured.peak_bytes["device"] is None
    assert measured.peak_bytes["host"] > 10**8


def test_the_table_says_what_was_not_measured(result, capsys):
    show_benchmark(result[0])
    shown = capsys.readouterr().out
    assert "peak memory, device" in shown
    assert "not measured" in shown
    assert "tiles a spot" in shown


def test_the_section_trained_on_is_of_the_mean_size_of_her2st():
    sections = find_dataset("HER2ST").sections
    assert round(sum(section.spots for section in sections) / len(sections)) == SPOTS
