"""Several runs in one table: what is paired, what is refused, what is said."""

import shutil
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from typer.testing import CliRunner

from genedml.errors import GeneDMLError
from genedml_cli.app import app
from genedml_cli.commands.tables.comparison import show_comparison
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.comparison import Comparison
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.evaluation.points import State
from genedml_cli.evaluation.published import published_rows
from genedml_cli.evaluation.run_comparison import compare_runs, compare_scores
from genedml_cli.evaluation.scores import FULL_METRICS, METRICS, read_checklist
from genedml_cli.notes import Mark, Note
from genedml_cli.runs.run import train


@pytest.fixture(scope="module")
def run(run, tmp_path_factory):
    """A copy, in which a ceiling is kept that no other test expects."""
    return shutil.copytree(run.parent, tmp_path_factory.mktemp("ceiling") / "runs") / run.name


@pytest.fixture(scope="module")
def other(world, run, tmp_path_factory):
    """Another run of the same folds, one epoch long."""
    out = tmp_path_factory.mktemp("runs") / "short"
    train(read_sheet(world / "samples.csv"), out, tiny_config(), features=run.parent / "features")
    return out


def test_two_runs_stand_beside_each_other_as_each_stands_alone(run, other, capsys):
    both = compare_runs([run, other])
    summary = both.summary()
    assert list(summary.index) == [run.name, other.name]
    for path in (run, other):
        alone = evaluate(path).summary().loc["Gene-DML"][list(METRICS)]
        pd.testing.assert_series_equal(summary.loc[path.name], alone, check_names=False)
    show_comparison(both, written=False)
    shown = capsys.readouterr().out
    assert f"Difference from {run.name}" in shown
    states = [read_checklist(path)[0].state for path in (run, other)]
    assert both.checklist[0].state is max(states, key=[*State].index)
    assert "Checklist, variance of the prediction: done: " in " ".join(shown.split())
    assert "ridge" in shown


def test_runs_in_full_are_paired_in_every_score_and_held_against_the_ceiling(run, other, capsys):
    both = compare_runs([run, other], full=True)
    alone = {path: evaluate(path, ceiling_if_possible=True) for path in (run, other)}
    assert both.metrics == list(FULL_METRICS)
    for path in (run, other):
        expected = alone[path].summary().loc["Gene-DML"]
        pd.testing.assert_series_equal(both.summary().loc[path.name], expected, check_names=False)
    by_fold = [alone[path].values().query("method == 'Gene-DML'").set_index("fold") for path in (other, run)]
    for key in ("pcc_given_depth", "above_null_given_depth", "pcc_unsmoothed", "share_of_ceiling", "variance_ratio"):
        apart = by_fold[0][key] - by_fold[1][key]
        difference = both.differences().loc[other.name, key]
        assert [difference["mean"], difference["std"]] == pytest.approx([apart.mean(), apart.std()])
    attainable = alone[run].summary().loc["attainable", ("pcc_a", "mean")]
    assert both.reference_summary().loc["attainable", ("pcc_a", "mean")] == attainable
    rows = {row.get("run") or row["reference"]: row for row in both.to_dict()["rows"]}
    assert set(rows[other.name]["difference"]) == set(FULL_METRICS)
    show_comparison(both, written=False, full=True)
    shown = [line.split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert all(shown.count(name) == 2 for name in FULL_METRICS.values())


def test_runs_that_keep_their_ceiling_stand_beside_each_other_without_it(run, other):
    for path in (run, other):
        assert evaluate(path, with_ceiling=True).split_halves
    both = compare_runs([run, other])
    assert both.metrics == list(METRICS)
    assert "attainable" not in set(both.references["method"])
    mean = evaluate(run).summary().loc["Gene-DML", ("pcc_a", "mean")]
    assert both.summary().loc[run.name, ("pcc_a", "mean")] == mean


def test_the_papers_figures_stand_by_runs_of_its_method_whatever_their_rows_are_called(run, other):
    scores = replace(evaluate(run), published=tuple(published_rows((1,), "HER2ST")))
    for networks, paper in (
        (("gene-dml", "gene-dml"), {run.name: 0.331, other.name: 0.331}),
        (("m2ost", "linear"), {run.name: 0.231}),
    ):
        each = zip((run, other), networks, strict=True)
        both = compare_scores({path: replace(scores, network=network) for path, network in each})
        assert both.published["pcc_a"].to_dict() == paper


def test_every_row_has_the_marks_of_its_own_run_and_a_note_names_the_rows_it_is_of(run, other):
    of_all, of_other = Note(Mark.PARTIAL, "2 of 3 sections."), Note(Mark.LEAKING, "shared tissue.")
    notes = {run: (of_all,), other: (of_all, of_other)}
    both = compare_scores({path: replace(evaluate(path), notes=of_run) for path, of_run in notes.items()})
    expected = {run.name: str(of_all), other.name: f"{of_all} {of_other}", "ridge": str(of_all)}
    rows = {row.get("run") or row["reference"]: row["marks"] for row in both.to_dict()["rows"]}
    for marks in (both.table().set_index("row")["marks"], rows):
        assert {row: marks[row] for row in expected} == expected
    folds = both.folds().groupby("run")["marks"].unique()
    assert {row: [*marks] for row, marks in folds.items()} == {path.name: [expected[path.name]] for path in notes}
    named = Note(Mark.LEAKING, f"{other.name}: shared tissue.")
    assert [note for note in both.notes if note.warns] == [of_all, named]
    assert both.marks == f"{of_all} {named}"


def test_differences_are_paired_by_fold_and_seed(tmp_path):
    rows = [(row, seed, fold, value) for row, values in SCORES.items() for (seed, fold), value in values.items()]
    scores = pd.DataFrame(rows, columns=["method", "seed", "fold", "pcc_a"]).assign(
        **{key: 0.0 for key in METRICS if key != "pcc_a"}
    )
    empty = pd.DataFrame(columns=["method", "fold", *METRICS])
    table = Comparison("", "compare", "method", scores, empty, pd.DataFrame(), (), {}, tmp_path, base="A")
    found = table.differences().loc["B", "pcc_a"]
    assert found["mean"] == pytest.approx(0.1)
    assert found["std"] == pytest.approx(np.std([0.0, 0.1, 0.1, 0.2], ddof=1))


SCORES = {
    "A": {(1, "x"): 0.1, (1, "y"): 0.5, (2, "x"): 0.2, (2, "y"): 0.6},
    "B": {(2, "y"): 0.8, (1, "x"): 0.1, (1, "y"): 0.6, (2, "x"): 0.3},
}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data[:, :-1].copy(), "other genes"),
        (lambda data: data[1:].copy(), "other spots"),
        (lambda data: data.layers["truth"].__iadd__(1) is None or data, "other counts"),
    ],
    ids=["genes", "spots", "counts"],
)
def test_runs_of_other_genes_spots_or_counts_are_refused(run, other, tmp_path, change, what):
    changed = tmp_path / "changed"
    shutil.copytree(other, changed)
    file = changed / "predictions" / "P2.h5ad"
    change(anndata.read_h5ad(file)).write_h5ad(file)
    with pytest.raises(GeneDMLError, match=rf"changed and .* are of {what} \(first of section P2\)"):
        compare_runs([run, changed])


@pytest.mark.parametrize("more", ["--per-gene", "--ceiling", "--external sheet.csv", "--deterministic"])
def test_several_runs_go_without_what_is_of_one(run, other, more):
    done = CliRunner().invoke(app, ["evaluate", str(run), str(other), *more.split()])
    assert done.exit_code == 2
    assert more.split()[0] in done.output


def test_what_is_no_run_folder_is_called_so(run, tmp_path):
    with pytest.raises(GeneDMLError, match=r"There is no run folder .*nothing"):
        compare_runs([run, tmp_path / "nothing"])
    with pytest.raises(GeneDMLError, match=r"There is no run folder .*P1\.h5ad"):
        compare_runs([run, run / "predictions" / "P1.h5ad"])


def test_runs_of_other_sections_are_refused(run, other, tmp_path):
    fewer = tmp_path / "fewer"
    shutil.copytree(other, fewer)
    (fewer / "predictions" / "P3.h5ad").unlink()
    with pytest.raises(GeneDMLError, match=r"are of other sections \(P3 in one of them only\)"):
        compare_runs([run, fewer])
