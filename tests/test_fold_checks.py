"""What a method cannot be trained with is one sentence before anything is extracted or trained."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import tiny_config

from genedml.config import Config, load_config
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.runs import planning
from genedml_cli.runs.comparison import compare
from genedml_cli.runs.planning import RunSettings
from genedml_cli.runs.run import train

TABLE = "network.position=table"


@pytest.fixture
def samples(world, monkeypatch) -> list[Sample]:
    """The sections of the tiny world, of which nothing may be extracted."""
    monkeypatch.setattr(planning, "extract", lambda *_, **__: pytest.fail("it extracts"))
    return read_sheet(world / "samples.csv")


def with_spots(sample: Sample, folder: Path, first: int, last: int | None = None) -> Sample:
    """The same section, of whose spots only some rows of the file are left."""
    file = folder / f"{sample.name}.csv"
    pd.read_csv(sample.spots, dtype=str).iloc[first:last].to_csv(file, index=False)
    return replace(sample, spots=file)


def config_of(method: str, *settings: str) -> Config:
    tiny = ("encoder=tiny", "labels.panel_size=20", "views.local_grid=0")
    return load_config("features", overrides=[f"method={method}", *tiny, *settings])


def refused(samples: list[Sample], config: Config, out: Path, sentence: str) -> GeneDMLError:
    """A training of fold P1 that ends with this sentence and leaves nothing."""
    with pytest.raises(GeneDMLError, match=sentence) as raised:
        train(samples, out / "run", config, fold="P1", features=out / "features")
    assert not (out / "features").exists()
    assert not list((out / "run").rglob("*.*"))
    return raised.value


@pytest.mark.parametrize("method", ["histogene", "hist2st"])
def test_a_spot_beyond_the_tables_of_positions(method, samples, tmp_path):
    config = config_of(method, TABLE, "network.positions=5")
    error = refused(
        samples, config, tmp_path, r"A spot stands in column 7 of its section, but the position tables have 5"
    )
    assert any(note.startswith("This was section P") for note in error.__notes__)


@pytest.mark.parametrize("stem", ["features", "pixels"])
def test_a_spot_where_no_spot_of_the_training_sections_stands(stem, samples, tmp_path):
    first_rows = [sample if sample.name == "P1" else with_spots(sample, tmp_path, 0, 14) for sample in samples]
    config = config_of("histogene", TABLE, f"network.stem={stem}")
    error = refused(first_rows, config, tmp_path, r"where no spot of the training sections did.*position = \"sine\"")
    assert error.__notes__ == ["This was section P1."]


def test_egn_that_would_be_trained_on_one_section(samples, tmp_path):
    sentence = r"EGN looks up spots of other patients.*P\d is the only section.*--set training.select_on=test"
    refused(samples, config_of("egn"), tmp_path, sentence)


def test_held_out_sections_of_one_spot(samples, tmp_path):
    lonely = [sample if sample.name == "P1" else with_spots(sample, tmp_path, 0, 1) for sample in samples]
    refused(lonely, config_of("linear"), tmp_path, r"No PCC is defined on P\d, held out .* There are too few of them")


@pytest.mark.parametrize(
    ("method", "settings", "sentence"),
    [
        ("m2ost", ("views.neighbor_grid=3",), "M2OST sees 3 x 3 tiles and a wider grid, but views.neighbor_grid = 3"),
        ("st-net", ("network.turned_mean=true",), "network.turned_mean is of raw tiles"),
        ("hist2st", ("network.stem=pixels",), "network.width = 64, but the stem of pixels makes vectors of 1024"),
        ("histogene", ("network.width=30",), "Sine positions need a width that 4 divides"),
    ],
)
def test_settings_that_no_network_can_have(method, settings, sentence, samples, tmp_path):
    refused(samples, config_of(method, *settings), tmp_path, sentence)


def test_a_comparison_is_refused_whole_before_its_first_method_is_trained(samples, tmp_path):
    configs = {("gene-dml", ""): tiny_config(), ("egn", ""): config_of("egn")}
    with pytest.raises(GeneDMLError, match="EGN looks up spots of other patients"):
        compare(samples, tmp_path / "out", configs, 1, RunSettings(fold="P1", features=tmp_path / "features"))
    assert not (tmp_path / "features").exists()
    assert not list((tmp_path / "out").rglob("*.safetensors"))
