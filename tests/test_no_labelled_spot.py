"""A section of which no spot has counts in the panel: said before anything is encoded or trained; old runs go on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import tiny_config

from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.evaluation.evaluation import evaluate_run
from genedml_cli.machine.compute import Compute
from genedml_cli.outputs.prediction_file import NoLabelledSpotError, read_prediction
from genedml_cli.runs import planning
from genedml_cli.runs import run as runs


@pytest.fixture
def samples(world) -> list[Sample]:
    return read_sheet(world / "samples.csv")


def without_counts(sample: Sample, folder: Path) -> Sample:
    """The same section, with nothing counted but of a gene that no other section has, so that no panel has it."""
    table = pd.read_csv(sample.counts, sep="\t", index_col=0) * 0
    table["ELSEWHERE"] = int(sample.name[1:])
    file = folder / f"{sample.name}.tsv"
    table.to_csv(file, sep="\t")
    return replace(sample, counts=file)


@pytest.mark.parametrize("empty", [{"P1"}, {"P2"}, {"P2", "P3"}], ids=["test", "training or validation", "both"])
def test_a_section_without_counts_is_said_before_anything_is_encoded(samples, tmp_path, empty, monkeypatch):
    monkeypatch.setattr(planning, "extract", lambda *_: pytest.fail("it encodes"))
    sheet = [without_counts(sample, tmp_path) if sample.name in empty else sample for sample in samples]
    with pytest.raises(GeneDMLError, match=rf"No spot of {min(empty)} has counts in the panel: {min(empty)}\.tsv"):
        runs.train(sheet, tmp_path / "run", tiny_config(), fold="P1", panel="all", compute=Compute("cpu"))
    assert not list((tmp_path / "run").rglob("*.*"))


def test_a_panel_of_one_gene_cannot_choose_an_epoch_and_is_refused_before_training(samples, tmp_path, monkeypatch):
    monkeypatch.setattr("genedml_cli.training.learner.Learner.train_epoch", lambda *_: pytest.fail("it trains"))
    (tmp_path / "panel.txt").write_text(str(pd.read_csv(samples[0].counts, sep="\t", index_col=0).columns[0]))
    words = {"fold": "P1", "panel": str(tmp_path / "panel.txt"), "features": tmp_path / "features"}
    with pytest.raises(GeneDMLError, match=r"No PCC is defined on P\d, held out to choose the epoch: no gene's label"):
        runs.train(samples, tmp_path / "run", tiny_config(), compute=Compute("cpu"), **words)


def emptied(run: Path, out: Path, *names: str) -> Path:
    """A run as an earlier version left it where test sections had no labelled spot."""
    shutil.copytree(run, out)
    for name in names:
        file = out / "predictions" / f"{name}.h5ad"
        read_prediction(file)[:0].copy().write_h5ad(file)
    return out


def test_an_older_run_with_an_empty_section_is_scored_without_it(run, tmp_path, capsys):
    old = emptied(run, tmp_path / "old", "P1")
    evaluation = evaluate_run(old)
    assert sorted({score.fold for score in evaluation.scores}) == ["P2", "P3"]
    assert "no spot of P1 has counts in the panel" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(NoLabelledSpotError):
        read_prediction(old / "predictions" / "P1.h5ad")


def test_an_older_run_of_empty_sections_alone_says_so(run, tmp_path):
    old = emptied(run, tmp_path / "old", "P1", "P2", "P3")
    with pytest.raises(GeneDMLError, match=r"Nothing of .*old can be scored: no spot of P1, P2, P3 has counts"):
        evaluate_run(old)


def test_a_table_without_counts_is_an_error_that_names_the_section(samples, tmp_path):
    file = tmp_path / "zero.tsv"
    (pd.read_csv(samples[1].counts, sep="\t", index_col=0) * 0).to_csv(file, sep="\t")
    sheet = [replace(sample, counts=file) if sample.name == "P2" else sample for sample in samples]
    with pytest.raises(GeneDMLError, match="no spot has counts in the panel") as error:
        runs.train(sheet, tmp_path / "run", tiny_config(), fold="P1", compute=Compute("cpu"))
    assert error.value.__notes__ == ["This was section P2."]
