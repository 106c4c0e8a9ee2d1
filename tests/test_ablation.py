"""Ablations: the grid, its resuming, the paper's rows beside."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config

from genedml.config import Config, load_config
from genedml.errors import GeneDMLError
from genedml.networks.registry import GENE_DML as NETWORK
from genedml_cli.commands.ablate import Table
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.published import published_rows
from genedml_cli.evaluation.scores import CONSTANT, DEPTH, METRICS, OWN_TILE, PLACE, RIDGE, Evaluation, FoldScores
from genedml_cli.figures import settings
from genedml_cli.notes import Mark, Note, texts_of
from genedml_cli.runs import ablation, count_tables, fold_references
from genedml_cli.runs import run as runs
from genedml_cli.runs.ablation import ablate, choose_settings, parse_values
from genedml_cli.runs.fold import FoldTrainer
from genedml_cli.runs.grid import train_grid
from genedml_cli.runs.planning import RunSettings

PUBLISHED = RunSettings(dataset="HER2ST", panel="HER2ST")


@pytest.fixture
def pretended(monkeypatch):
    """Training that takes no time: scores that rise with the seed, the same for every setting but lambda's."""

    def evaluation(run: Path, config: Config, panel: str) -> Evaluation:
        genes = published_panel("HER2ST") if panel == "HER2ST" else ("A", "B", "C")
        pcc = np.full(len(genes), config.training.seed / 10_000 + config.network.loss.group_weight)
        scores = [
            FoldScores(method, fold, genes, 0.2, 0.3, float(pcc.mean()), 0.1, pcc, None, 0)
            for method in ("Gene-DML", RIDGE, DEPTH, CONSTANT)
            for fold in ("0", "1")
        ]
        return Evaluation("pretended", tuple(scores), (Note(None, "Label: some."), Note(Mark.PARTIAL, "5 of 36.")), run)

    def train_grid(samples, out, cells, settings):
        return {name: evaluation(out / name, config, settings.panel) for name, config in cells.items()}

    monkeypatch.setattr(ablation, "train_grid", train_grid)


def write_logs(run: Path, *without_group: Sequence[int], batches: int = 2) -> None:
    """Of each fold a log as training leaves it: how many batches of each epoch went without the group term."""
    run.mkdir(parents=True, exist_ok=True)
    for fold, counts in enumerate(without_group):
        steps = [{"group": 1.5} if count < batches else {} for count in counts]
        log = pd.DataFrame([{**step, "batches_without_group": n} for step, n in zip(steps, counts, strict=True)])
        log.to_csv(run / f"fold-{fold}.log.csv", index=False)


def test_runs_in_which_k_never_or_partly_acted_are_counted(pretended, tmp_path):
    for setting, logs in {"k=9": [[0, 0]], "k=18": [[2, 2], [0, 1]], "k=36": [[2, 2], [2, 2]]}.items():
        for seed in (1, 2):
            write_logs(tmp_path / setting / f"seed-{seed}", *logs)
    base = tiny_config("training.seed=1")
    texts = texts_of(ablate([], tmp_path, "k", base, values=(9, 18, 36), seeds=2).notes)
    said = "Some batches have too few spots for the group term: it "
    assert f"{said}never acted in 2 of 6 runs (k=36)." in texts
    assert f"{said}acted in a part of the batches in 2 of 6 runs (k=18)." in texts
    assert not any(said in note.text for note in ablate([], tmp_path, "k", base, values=(9,), seeds=2).notes)


def test_what_the_references_are_over_and_how_little_the_alignment_weighs_is_said(pretended, tmp_path):
    notes = ablate([], tmp_path, "tau", load_config("small"), values=(0.07,), seeds=1).notes
    of_references = f"{RIDGE}, {DEPTH}, {CONSTANT}: over the 2 folds of the first run alone, not over seeds"
    assert any(note.text.startswith(of_references) for note in notes)
    assert any(note.text.startswith("The alignment terms weigh 1/100 against the prediction") for note in notes)
    assert json.loads((tmp_path / "tau.json").read_text())["notes"] == texts_of(notes)
    papers = ablate([], tmp_path, "tau", Config(), values=(0.07,), seeds=1).notes
    assert not any("alignment terms weigh" in note.text for note in papers)


def contents(folder: Path) -> dict[str, bytes]:
    """Models, references and tables of a grid, by their paths."""
    kinds = ("*.safetensors", "*.csv", "*.npz")
    files = (path for kind in kinds for path in folder.rglob(kind) if path.name != "seconds.csv")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_interrupted_grid_goes_on_and_makes_once_what_no_cell_changes(world, tmp_path, monkeypatch):
    samples, config, counts, ridges = read_sheet(world / "samples.csv"), tiny_config(), [], []
    read, fit = count_tables.read_counts, fold_references.fit_linear
    monkeypatch.setattr(count_tables, "read_counts", lambda path: counts.append(path.name) or read(path))
    monkeypatch.setattr(fold_references, "fit_linear", lambda learnt, *a: ridges.append(len(learnt)) or fit(learnt, *a))
    options = (3, 4), 2, RunSettings(fold="P1", features=tmp_path / "features")
    whole = ablate(samples, tmp_path / "whole", "k", config, *options)
    assert sorted(counts) == [f"P{number}.tsv.gz" for number in (1, 2, 3)]
    assert ridges == [1]  # of four cells; the third section chooses the epoch

    run, grid = FoldTrainer.run, tmp_path / "grid"

    def stop_at_the_third(trainer, job):
        if "as-configured" in str(job.run):
            raise KeyboardInterrupt
        return run(trainer, job)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FoldTrainer, "run", stop_at_the_third)
        ablate(samples, grid, "k", config, *options)
    assert not list(grid.glob("k.*"))
    assert not list(grid.rglob("*.plan.json"))
    first = grid / "k=3" / "seed-2021" / "predictions" / "P1.h5ad"
    written = first.stat().st_mtime_ns
    resumed = ablate(samples, grid, "k", config, *options)
    assert first.stat().st_mtime_ns == written
    assert ridges == [1, 1]
    pd.testing.assert_frame_equal(resumed.summary(), whole.summary())
    assert contents(grid) == contents(tmp_path / "whole")
    assert load_config(file=grid / "k=3" / "seed-2021" / "config.toml").network.loss.groups == 3
    assert list(resumed.reference_summary().index) == [RIDGE, OWN_TILE, PLACE, DEPTH, CONSTANT]
    assert (grid / "k.png").stat().st_size > 10_000


def test_a_cell_of_a_grid_is_the_run_that_training_it_alone_gives(world, tmp_path):
    samples, words = read_sheet(world / "samples.csv"), {"fold": "P1", "features": tmp_path / "features"}
    cells = {"one": tiny_config(), "others/seed-7": tiny_config("training.seed=7", "labels.smooth=false")}
    evaluations = train_grid(samples, tmp_path / "grid", cells, RunSettings(**words, on="2"))
    assert list(evaluations) == list(cells)
    for name, config in cells.items():
        alone = runs.train(samples, tmp_path / "alone" / name, config, **words)
        assert evaluations[name].values().equals(alone.values())
        assert contents(tmp_path / "grid" / name) == contents(tmp_path / "alone" / name)
        predicted = (anndata.read_h5ad(tmp_path / of / name / "predictions" / "P1.h5ad") for of in ("grid", "alone"))
        in_grid, by_itself = (data.uns["genedml"]["ridge_alpha"] for data in predicted)
        assert in_grid == by_itself
    assert len(list((tmp_path / "grid" / "references").iterdir())) == 2  # of two kinds of labels


@pytest.mark.parametrize("name", [name for name, sweep in NETWORK.sweeps.items() if sweep.paper_tables])
@pytest.mark.parametrize("dataset", ["HER2ST", "STNet", "skinST"])
def test_settings_are_called_as_in_the_paper(name, dataset):
    rows = [row.setting for row in published_rows([NETWORK.sweeps[name].paper_tables[dataset]], dataset)]
    settings = choose_settings(NETWORK.sweeps[name], dataset)
    assert [setting.name for setting in settings] == rows
    assert all(setting.config(Config(), 7).training.seed == 7 for setting in settings)  # every key is a setting


def test_components_switch_the_pathways_and_full_is_the_same_run_in_every_table():
    base = Config()
    switched = {s.name: s.config(base, 7).network.loss for s in choose_settings(NETWORK.sweeps["components"])}
    assert {name: (loss.instance, loss.group) for name, loss in switched.items()} == {
        "bimodal only": (False, False),
        "+multi-scale instance": (True, False),
        "+instance-group": (False, True),
        "both": (True, True),
    }
    folders = [[s.folder(base) for s in choose_settings(sweep, "HER2ST")] for sweep in NETWORK.sweeps.values()]
    assert [names.count("as-configured") for names in folders] == [1, 1, 1, 1, 1]
    assert choose_settings(NETWORK.sweeps["components"])[0].config(base, 7).training.seed == 7


def test_all_additions_are_the_preset_small():
    base, additions = load_config("small"), choose_settings(NETWORK.sweeps["additions"])
    assert {setting.name: setting.folder(base) for setting in additions}["all"] == "as-configured"
    (none,) = [setting.config(base, 7).network for setting in additions if setting.name == "none"]
    assert (none.array_mean, none.loss.centred, none.linear_share) == (False, False, 0)


def test_the_command_offers_every_ablation():
    assert [table.value for table in Table] == list(NETWORK.sweeps)


def test_the_papers_rows_stand_beside_with_marks_and_what_means_are_over(pretended, tmp_path):
    result = ablate([], tmp_path, "lambda", Config(), seeds=2, settings=PUBLISHED)
    assert result.over == "2 folds x 2 seeds"
    table = pd.read_csv(tmp_path / "lambda.csv").set_index("row")
    assert list(table.index[:4]) == ["lambda=0.3", "lambda=0.5", "lambda=0.8", "lambda=1"]
    assert table.loc["lambda=0.3", "paper_pcc_a"] == 0.326
    assert table.loc["lambda=0.3", "pcc_a_mean"] == pytest.approx(0.3 + 0.20215)
    assert table.loc["lambda=0.3", "pcc_a_sd"] == pytest.approx(np.std([0, 0, 1e-4, 1e-4], ddof=1))
    assert set(table["marks"]) == {"PARTIAL: 5 of 36."}
    assert table["paper_mse"].isna().sum() == len((RIDGE, DEPTH, CONSTANT))
    told = json.loads((tmp_path / "lambda.json").read_text())
    assert told["rows"][0]["paper"]["pcc_h"] == 0.525
    assert any("table 10;" in note for note in told["notes"])


@pytest.mark.parametrize(("panel", "smooth"), [("training", True), ("HER2ST", False)])
def test_labels_or_genes_that_are_not_the_papers_have_no_paper_row(pretended, tmp_path, panel, smooth):
    config = replace(Config(), labels=replace(Config().labels, smooth=smooth))
    result = ablate([], tmp_path, "tau", config, seeds=1, settings=RunSettings(dataset="HER2ST", panel=panel))
    assert result.published.empty
    references = result.reference_summary().xs("mean", axis=1, level=1)
    drawn = settings.settings_figure("", METRICS, result.summary(), result.published, references, "")
    assert "paper" not in {text.get_text() for text in drawn.legends[0].get_texts()}
    assert any("paper's rows are left out" in note.text for note in result.notes)


def test_values_that_cannot_be_are_refused_before_anything_is_trained(tmp_path):
    for name, values, words in (("components", (1,), "takes no --values"), ("k", (2.5,), "loss.groups")):
        with pytest.raises(GeneDMLError, match=words):
            ablate([], tmp_path / "grid", name, Config(), values=values)
    with pytest.raises(GeneDMLError, match="separated by commas"):
        parse_values("5,x")
    assert parse_values("5, 10") == [5, 10]
    assert not (tmp_path / "grid").exists()


def test_the_plot_shows_means_bars_the_paper_and_references(pretended, tmp_path):
    result = ablate([], tmp_path, "lambda", Config(), seeds=2, settings=PUBLISHED)
    references = result.reference_summary().xs("mean", axis=1, level=1)
    drawn = settings.settings_figure(
        result.title, METRICS, result.summary(), result.published, references, result.marks
    )
    assert [axis.get_title() for axis in drawn.axes] == list(METRICS.values())
    pcc = drawn.axes[2]
    assert len(pcc.containers) == 1
    paper = next(line for line in pcc.lines if line.get_marker() == "D")
    assert list(paper.get_ydata()) == [0.326, 0.331, 0.331, 0.322]
    assert [label.get_text() for label in drawn.axes[-1].get_xticklabels()] == list(result.summary().index)
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {"measured", "paper", RIDGE, DEPTH, CONSTANT}
    assert "PARTIAL" in drawn.legends[0].get_title().get_text()


def test_ablations_are_named(tmp_path):
    with pytest.raises(GeneDMLError, match="There are: components, k, lambda, tau"):
        ablation.choose_sweep("gene-dml", "nothing")
