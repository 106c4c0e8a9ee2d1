"""genedml compare: several methods, seeds and folds as one grid and one table."""

import json

import pandas as pd
import pytest
from conftest import tiny_config

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml_cli.commands.choices import choose_methods
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.runs.comparison import compare
from genedml_cli.runs.planning import RunSettings

TINY = ("encoder=tiny", "labels.panel_size=20", "views.local_grid=0", "training.epochs=2")


@pytest.fixture(scope="module")
def compared(world, run, tmp_path_factory):
    """Gene-DML and a line with two seeds on one fold, and the folder."""
    out = tmp_path_factory.mktemp("compare")
    configs = {"gene-dml": tiny_config(), "linear": load_config(overrides=["method=linear", *TINY])}
    samples = read_sheet(world / "samples.csv")
    return compare(samples, out, configs, 2, RunSettings(fold="P1", features=run.parent / "features")), out


def test_every_cell_is_a_run_and_the_table_their_means(compared):
    table, out = compared
    for name, title in (("gene-dml", "Gene-DML"), ("linear", "Linear")):
        each = [evaluate(out / name / f"seed-{seed}").summary().loc[title, ("pcc_a", "mean")] for seed in (2021, 2022)]
        assert table.summary().loc[title, ("pcc_a", "mean")] == pytest.approx(sum(each) / 2)
    assert set(table.references["method"]) == {"ridge", "depth alone", "constant"}


def test_differences_costs_and_files_are_there(compared):
    table, out = compared
    means = table.summary().xs("mean", axis=1, level=1)["pcc_a"]
    assert table.differences().loc["Linear", ("pcc_a", "mean")] == pytest.approx(means["Linear"] - means["Gene-DML"])
    assert table.costs.loc["Linear", "parameters"] == 8 * 20 + 20
    assert (table.costs["seconds_a_fold"] > 0).all()
    assert len(pd.read_csv(out / "seconds.csv")) == 4
    written = json.loads((out / "compare.json").read_text())
    assert written["differences_from"] == "Gene-DML"
    assert {row.get("method") for row in written["rows"]} >= {"Gene-DML", "Linear"}
    assert (out / "compare.png").stat().st_size > 10_000


def test_what_scores_lower_than_ridge_is_said_once_with_its_name(compared):
    table, _ = compared
    means, ridge = table.summary()[("pcc_a", "mean")], table.reference_summary().loc["ridge", ("pcc_a", "mean")]
    behind = [name for name, score in means.items() if round(score, 3) < round(ridge, 3)]
    told = [note.text for note in table.notes if note.text.startswith("ridge (")]
    assert told == [f"ridge ({ridge:.3f}) scores higher in PCC(A) than {', '.join(behind)}."] * bool(behind)
    assert not any("scores higher here" in note.text for note in table.notes)


def test_the_same_command_again_trains_nothing(compared, world, run, monkeypatch):
    table, out = compared
    monkeypatch.setattr("genedml_cli.runs.fold.train_fold", lambda *_: pytest.fail("trained again"))
    configs = {"gene-dml": tiny_config(), "linear": load_config(overrides=["method=linear", *TINY])}
    samples = read_sheet(world / "samples.csv")
    again = compare(samples, out, configs, 2, RunSettings(fold="P1", features=run.parent / "features"))
    pd.testing.assert_frame_equal(again.scores, table.scores)


def test_methods_whose_scores_do_not_compare_are_refused_before_anything_is_trained(world, tmp_path):
    configs = {
        "gene-dml": tiny_config(),
        "linear": load_config(overrides=["method=linear", *TINY, "labels.smooth=false"]),
    }
    with pytest.raises(GeneDMLError, match="linear and gene-dml have other settings of labels"):
        compare(read_sheet(world / "samples.csv"), tmp_path / "out", configs)
    assert not (tmp_path / "out").exists()


def test_methods_are_chosen_by_name():
    assert choose_methods("triplex, linear,triplex") == ["triplex", "linear"]
    assert {"gene-dml", "st-net", "histogene", "hist2st", "egn", "bleep", "triplex", "m2ost"} <= set(
        choose_methods("all")
    )
    with pytest.raises(GeneDMLError, match=r"No method is called 'tripleks'"):
        choose_methods("linear,tripleks")
