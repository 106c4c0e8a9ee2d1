"""The benchmark: what it counts is so, the plain way it compares with sees the same tiles, and its table."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from genedml.config import ViewsConfig, load_config
from genedml.networks.inputs import Batch, Section
from genedml_cli.benchmark import benchmark as bench
from genedml_cli.benchmark import training_speed
from genedml_cli.benchmark.naive import cut, over_all, read_region
from genedml_cli.benchmark.workloads import workloads
from genedml_cli.commands.tables.benchmark import show_benchmark
from genedml_cli.datasets.datasets import find_dataset
from genedml_cli.features.tile_plan import plan_tiles
from genedml_cli.machine.compute import Compute
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spot_files import read_spots


def test_the_plain_way_of_training_runs_over_all_sections_and_takes_the_same_spots():
    random = torch.Generator().manual_seed(0)
    sections = [
        Section(torch.randn(size, 8, generator=random), torch.randint(0, 9, (size, 2), generator=random))
        for size in (4, 6, 5)
    ]
    of_two = Batch([sections[2], sections[1]], torch.tensor([0, 1, 0]), torch.tensor([4, 5, 1]))
    plain = over_all(of_two, sections)
    assert len(plain.sections) == 3
    for batch in (of_two, plain):
        assert torch.equal(
            batch.pooled, sections[2].pooled[[4, 0, 1]].index_copy(0, torch.tensor([1]), sections[1].pooled[5:])
        )


@pytest.fixture(scope="module")
def result(world, tmp_path_factory):
    """A short run on a section of the tiny world, training on three sections."""
    out = tmp_path_factory.mktemp("benchmark") / "benchmark.json"
    settings = ("encoder=tiny", "views.local_grid=0", "labels.panel_size=20", "training.batch_size=64")
    few = replace(find_dataset("HER2ST"), sections=find_dataset("HER2ST").sections[:3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_speed, "find_dataset", lambda name: few)
        patch.setattr(bench, "STARTS", 1)
        found = bench.benchmark(
            world / "slides/P1.tif",
            world / "spots/P1.csv",
            load_config("small", overrides=settings),
            compute=Compute("cpu"),
            against_naive=True,
            max_spots=12,
            seconds=0.1,
            out=out,
        )
    return found, json.loads(out.read_text())


def test_every_part_is_measured_and_written(result):
    found, written = result
    assert set(found.extraction) == {"exact", "lattice"}
    assert found.section == "P1.tif, 12 spots"
    for part in (
        "decoding",
        "encoder_alone",
        "extraction",
        "plain_a_spot",
        "training",
        "prediction",
        "start",
        "typer_start",
    ):
        assert written[part], part
    assert written["machine"]["cores"] >= 1
    assert all(value > 0 for value in written["speeds"].values())
    assert found.decoding.megapixels > 0 < found.decoding.took.wall_s
    assert found.prediction.peak_bytes["device"] is None
    assert found.prediction.peak_bytes["host"] > 10**8
    for steps in (found.training.few, found.training.shuffled, found.training.plain):
        assert steps.spots > 0 < steps.waited_share < 1


def test_the_table_says_what_was_not_measured(result, capsys):
    show_benchmark(result[0])
    shown = capsys.readouterr().out
    assert "GPU: encoder, memory" in shown
    assert "not measured" in shown
    for word in ("HER2ST, 13620 spots", "Visium slide, 5000 spots", "of the pixels needed", "12 spots"):
        assert word in shown


def test_a_spot_costs_its_passes():
    part = bench.Extraction(25.0, 100, took=bench.Timing(10.0, 20.0), alone=bench.Timing(9.0, 18.0))
    assert part.tiles_per_s == 10
    assert part.a_spot == bench.Timing(2.5, 5.0)


def test_pixels_that_tiles_share_are_needed_once():
    corners = np.array([[0, 0], [10, 0], [-5, 500], [90, 90]])
    assert bench.union_px(corners, 20, (100, 600)) == 30 * 20 + 15 * 20 + 10 * 20


def test_the_plain_way_sees_the_tiles_of_the_plan(world):
    spots = read_spots(world / "spots/P1.csv")
    with open_slide(world / "slides/P1.tif") as slide:
        raster = Raster(slide, 0.5)
        plan = plan_tiles(spots.xy_px, raster.scale, raster.size_px, ViewsConfig())
        plain = cut(read_region(raster, *spots.xy_px[3].tolist(), 1120), ViewsConfig())
        for place, tile in enumerate(plan.neighbor[3].tolist()):
            if tile >= 0:
                x, y = plan.corners_xy[tile].tolist()
                np.testing.assert_array_equal(plain[place], raster.read(x, y, 224, 224))


def test_work_of_data_sets_is_theirs():
    work = {one.name: one for one in workloads(ViewsConfig())}
    assert (work["HER2ST"].spots, work["STNet"].spots, work["skinST"].spots) == (13620, 30655, 8671)
    assert work["HER2ST"].passes["exact"] == 25
    assert 1.6 < work["Visium slide"].passes["lattice"] < 1.9
