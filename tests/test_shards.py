"""Shards: run in any order, on whatever machine, they give what one command gives; collecting names what is missing."""

import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import tiny_config
from test_ablation import contents
from test_cohort import write_good, write_sheet
from typer.testing import CliRunner

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml_cli import app
from genedml_cli.cohort.cohort import SUMMARY, Cohort, predict_cohort
from genedml_cli.cohort.shares import Share, join_shares, settings_of
from genedml_cli.cohort.slide import FAILED, KEPT, PREDICTED, CohortSlide, CohortTask, Outcome
from genedml_cli.commands.tables.cohort import show_cohort
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.files.locks import claimed
from genedml_cli.files.provenance import command_line
from genedml_cli.machine.shards import Shard, parse_shard
from genedml_cli.runs.ablation import ablate
from genedml_cli.runs.comparison import compare
from genedml_cli.runs.planning import RunSettings
from genedml_cli.runs.run import train_with
from genedml_cli.spots.placing import Placing

LINE = ("encoder=tiny", "labels.panel_size=20", "training.epochs=1")


def results(folder: Path) -> dict[str, bytes]:
    """What a cohort's folder holds, but for what tells when and by whom it was made."""
    told = ("summary.csv", "cohort.html")
    files = [path for path in folder.glob("[!.]*") if path.name not in told and not path.name.startswith("shard-")]
    return {path.name: path.read_bytes() for path in files}


def states(done) -> dict[str, str]:
    return {one.name: one.state for one in done.outcomes}


def test_shards_in_disorder_one_twice_one_missing_give_what_one_command_gives(quick_run, tmp_path, monkeypatch):
    rows = {f"s{number}": write_good(tmp_path, number) for number in range(6)}
    sheet, parts, whole = write_sheet(tmp_path, rows | {"bad": {"slide": "none.png"}}), tmp_path / "a", tmp_path / "b"
    monkeypatch.setattr(sys, "argv", ["genedml"])
    predict_cohort(sheet, quick_run, whole, fold="P1")

    def shard(number: int) -> dict[str, str]:
        monkeypatch.setattr(sys, "argv", ["genedml", "--shard", f"{number}/3"])
        return states(predict_cohort(sheet, quick_run, parts, fold="P1", shard=Shard(number, 3)))

    assert shard(2) == {"s2": PREDICTED, "s5": PREDICTED}
    assert shard(0) == {"s0": PREDICTED, "s3": PREDICTED, "bad": FAILED}
    with claimed(parts / SUMMARY):
        assert shard(2) == {"s2": KEPT, "s5": KEPT}
        with pytest.raises(GeneDMLError, match="is being made by"):
            predict_cohort(sheet, quick_run, parts, fold="P1")
    lacking = predict_cohort(sheet, quick_run, parts, fold="P1", collect=True)
    assert {one.name: one.problem for one in lacking.failed if one.name != "bad"} == dict.fromkeys(
        ("s1", "s4"), "no shard has predicted it. Run the same command with --shard 1/3."
    )
    with pytest.raises(GeneDMLError, match="3 of 7 slides failed: s1, s4, bad"):
        lacking.refuse_failures()
    assert shard(1) == {"s1": PREDICTED, "s4": PREDICTED}
    assert [one.name for one in predict_cohort(sheet, quick_run, parts, fold="P1", collect=True).failed] == ["bad"]
    assert results(parts) == results(whole)
    tables = [pd.read_csv(folder / "summary.csv").drop(columns=["state", "minutes"]) for folder in (parts, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_what_shards_left_is_joined_only_where_it_is_of_one_cohort(quick_run, tmp_path):
    sheet, out = write_sheet(tmp_path, {name: write_good(tmp_path, 1) for name in "ab"}), tmp_path / "out"
    with pytest.raises(GeneDMLError, match="No shard of this cohort is in"):
        predict_cohort(sheet, quick_run, out, fold="P1", collect=True)
    for number, fold in enumerate(("P1", "P2")):
        predict_cohort(sheet, quick_run, out, fold=fold, shard=Shard(number, 2))
    with pytest.raises(GeneDMLError, match=r"shard-1-of-2\.json was made with other models"):
        predict_cohort(sheet, quick_run, out, fold="P1", collect=True)
    predict_cohort(sheet, quick_run, out, fold="P1", shard=Shard(1, 2), resume=False)
    (tmp_path / "other").mkdir()
    rows = {name: write_good(tmp_path / "other", 1) for name in "ab"}
    rows["b"] |= {"um_per_px": 0.51, "slide": str(tmp_path / rows["b"]["slide"])}
    for name in "ab":
        rows[name]["spots"] = str(tmp_path / rows[name]["spots"])
    moved = write_sheet(tmp_path / "other", rows)
    (out / "shard-0-of-2.json").rename(tmp_path / "shard-0-of-2.json")
    with pytest.raises(GeneDMLError, match=r"shard-1-of-2\.json was made with other um_per_px, skip_off_image of b\."):
        predict_cohort(moved, quick_run, out, fold="P1", collect=True, placing=Placing(skip_off_image=True))
    (tmp_path / "shard-0-of-2.json").rename(out / "shard-0-of-2.json")
    with pytest.raises(GeneDMLError, match=r"shard-0-of-2\.json was made with other slide of a\."):
        predict_cohort(moved, quick_run, out, fold="P1", collect=True)
    Share(Shard(0, 3), {}, {}, ()).write(out)
    with pytest.raises(GeneDMLError, match=r"different N: 2, 3\. Remove the files shard-\*-of-N\.json of all but one"):
        predict_cohort(sheet, quick_run, out, fold="P1", collect=True)
    (out / "shard-0-of-3.json").unlink()
    (out / "a.h5ad").unlink()
    (failed,) = predict_cohort(sheet, quick_run, out, fold="P1", collect=True).failed
    assert failed.name == "a" and "was made and is gone" in failed.problem and "--shard 0/2" in failed.problem


def test_of_a_slide_its_shard_alone_speaks(tmp_path):
    def leave(shard: Shard, **states: str) -> None:
        outcomes = tuple(Outcome(name, tmp_path / name, state, problem="bad") for name, state in states.items())
        Share(shard, settings_of(task), {}, outcomes).write(tmp_path)

    task = CohortTask((), tmp_path)
    leave(Shard(0, 2), a=PREDICTED)  # of a sheet of a and b, before another slide was put above them
    leave(Shard(1, 2), a=FAILED)
    (tmp_path / "a.h5ad").touch()
    joined = join_shares([CohortSlide(name, tmp_path / name, None) for name in ("above", "a", "b")], task)
    again = "no shard has predicted it. Run the same command with --shard 0/2."
    assert [(one.state, one.problem) for one in joined] == [(FAILED, again), (FAILED, "bad"), (FAILED, again)]


def test_folds_of_a_grid_in_shards_are_those_of_one_command(world, tmp_path):
    samples, config = read_sheet(world / "samples.csv"), tiny_config()

    def settings(**how: object) -> RunSettings:
        return RunSettings(features=tmp_path / "features", **how)

    whole = ablate(samples, tmp_path / "whole", "k", config, (3, 4), 1, settings())
    grid = tmp_path / "grid"
    for number in (1, 2):
        assert ablate(samples, grid, "k", config, (3, 4), 1, settings(shard=Shard(number, 3))) is None
    assert not list(grid.rglob("metrics.csv")) and not list(grid.glob("k.*"))
    with pytest.raises(GeneDMLError, match=r"2 of the folds are missing: Fold P1 of .*k=3.*, Fold P1 of .*as-conf"):
        ablate(samples, grid, "k", config, (3, 4), 1, settings(collect=True))
    ablate(samples, grid, "k", config, (3, 4), 1, settings(shard=Shard(0, 3)))
    collected = ablate(samples, grid, "k", config, (3, 4), 1, settings(collect=True))
    pd.testing.assert_frame_equal(collected.summary(), whole.summary())
    left = {name: content for name, content in contents(grid).items() if not name.startswith("seconds")}
    assert left == contents(tmp_path / "whole")
    assert sum(len(pd.read_csv(file)) for file in grid.glob("seconds-*-of-3.csv")) == 6


def test_folds_of_a_run_and_of_a_comparison_in_shards_are_those_of_one_command(world, tmp_path):
    samples, config = read_sheet(world / "samples.csv"), load_config(overrides=["method=linear", *LINE])

    def settings(**how: object) -> RunSettings:
        return RunSettings(features=tmp_path / "features", **how)

    def models(folder: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in folder.glob("fold-*.safetensors")}

    whole = train_with(samples, tmp_path / "whole", config, settings())
    calls = {
        "run": lambda out, **how: train_with(samples, out, config, settings(**how)),
        "grid": lambda out, **how: compare(samples, out, {("linear", ""): config}, 1, settings(**how)),
    }
    for name, call in calls.items():
        out = tmp_path / name
        with claimed(out / "compare.csv"), claimed(out / "fold-P2"):  # shards claim nothing
            assert call(out, shard=Shard(1, 2)) is None
        with pytest.raises(GeneDMLError, match=r"2 of the folds are missing: Fold P1 of .*, Fold P3 of "):
            call(out, collect=True)
        assert call(out, shard=Shard(0, 2)) is None
        assert not list(out.rglob("metrics.csv"))
        means = call(out, collect=True).summary().loc["Linear", ("pcc_a", "mean")]
        assert means == whole.summary().loc["Linear", ("pcc_a", "mean")]
    assert models(tmp_path / "grid" / "linear" / "seed-2021") == models(tmp_path / "run") == models(tmp_path / "whole")


def test_a_shard_takes_its_share_of_sections_and_needs_a_folder(world, tmp_path):
    def code(*words: object) -> int:
        return CliRunner().invoke(app.app, [*map(str, words)]).exit_code

    words = ("--samples", world / "samples.csv", "--encoder", "stain-texture", "--features", tmp_path / "features")
    assert code("extract", *words, "--set", "training.augment=false", "--shard", "1/2") == 0
    assert [file.name.split(".")[0] for file in (tmp_path / "features").glob("*.safetensors")] == ["P2"]
    assert code("train", *words, "--shard", "0/3") == 2
    assert code("train", *words, "-o", tmp_path / "run", "--shard", "3/3") == 2
    assert not (tmp_path / "run").exists()


def test_a_thousand_outcomes_are_told_in_a_second(tmp_path):
    outcomes = tuple(Outcome(f"slide-{number}", Path("a.svs"), PREDICTED, 2500, 250, 1.0) for number in range(1000))
    show_cohort(Cohort(tmp_path, outcomes[:1]))  # imports what draws tables
    began = time.process_time()
    show_cohort(Cohort(tmp_path, outcomes))
    assert time.process_time() - began < 1  # of the processor


@pytest.mark.parametrize("text", ["3/3", "1", "-1/3", "a/b", "1/0", ""])
def test_what_is_no_shard(text):
    with pytest.raises(ValueError, match="the first is 0/40 and the last 39/40"):
        parse_shard(text)
    assert parse_shard("39/40").take(range(100)) == [39, 79]


def test_the_command_that_is_kept_does_not_say_who_did_the_work(monkeypatch):
    for more in ([], ["--on", "ray://head:10001"], ["--shard=3/40"]):
        monkeypatch.setattr(sys, "argv", ["genedml", "predict", *more, "-o", "out"])
        assert command_line() == "genedml predict -o out"
