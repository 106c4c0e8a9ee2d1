"""The models that come with genedml: their size, their cards, and that predict finds them."""

import importlib
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import EXAMPLES, LEARNING, tiny_config

from genedml import DEFAULT_PRETRAINED, PRETRAINED
from genedml.checkpoint import ModelCard, fingerprint, load_card, load_checkpoint, load_state, network_sha256
from genedml.config import TARGETS, load_config
from genedml.errors import GeneDMLError
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.files.hdf5 import layers_of
from genedml_cli.notes import SHARED_PATIENTS
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.run_folder import model_files, model_files_in, reference_file
from genedml_cli.prediction.prediction import predict
from genedml_cli.references.linear import load_linear
from genedml_cli.references.novelty import load_novelty
from genedml_cli.report.page import report
from genedml_cli.runs import panels
from genedml_cli.runs.run import train

SHIPPED = PRETRAINED[DEFAULT_PRETRAINED]
LABELS = {"paper": "pretrained", "pearson": "pretrained-pearson"}
SECTIONS = ["C2", "C3", "C4", "C5", "C6"]


def cards_of(name: str) -> dict[str, ModelCard]:
    """The cards of a shipped run by their fold."""
    return {fold: load_card(file) for fold, file in model_files_in(PRETRAINED[name]).items()}


@pytest.fixture
def script(monkeypatch):
    """The script that makes what is shipped."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("pretrained_model")


def test_all_that_is_shipped_is_small():
    assert set(LABELS.values()) == set(PRETRAINED)
    assert sum(file.stat().st_size for folder in PRETRAINED.values() for file in folder.iterdir()) <= 8e6


@pytest.mark.parametrize(("label", "name"), LABELS.items())
def test_they_are_whole_and_of_the_published_panel_and_of_the_preset_as_it_is(label, name):
    cards = cards_of(name)
    assert list(cards) == SECTIONS
    for fold, card in cards.items():
        assert card.config == replace(load_config("small"), labels=TARGETS[label])
        assert set(card.training_slides) == set(SECTIONS) - {fold}
        assert card.genes == published_panel("HER2ST")
        file = PRETRAINED[name] / f"fold-{fold}.safetensors"
        assert load_checkpoint(file)
        network = network_sha256(file)
        assert list(load_linear(file, card.genes, network)) == ["ridge"]
        assert load_novelty(reference_file(file, "novelty"), network)


@pytest.mark.parametrize("name", PRETRAINED)
def test_their_pages_and_their_tables_say_what_the_models_carry(name, script):
    folder = PRETRAINED[name]
    table = pd.read_csv(folder / "genes.csv", index_col="gene")
    for card in cards_of(name).values():
        scored = card.cross_validated
        assert set(scored.folds) == {5}
        carried = np.column_stack([scored.pcc, scored.pcc_sd, scored.ridge_pcc])
        assert np.allclose(table.loc[list(card.genes), ["cv_pcc", "cv_pcc_sd", "baseline_pcc"]], carried)
    scores = pd.read_csv(folder / "scores.csv").pivot(index="fold", columns="method")["pcc_a"]
    assert list(scores.index) == SECTIONS
    for method, column in (("Gene-DML", "cv_pcc"), ("ridge", "baseline_pcc")):
        assert scores[method].mean() == pytest.approx(table[column].mean(), abs=6e-4)
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == script.with_scores(page, folder)
    assert f"| Gene-DML | {scores['Gene-DML'].mean():.3f} |".replace("0.", ".") in page


def test_the_card_counts_the_parameters_of_a_fold():
    state = load_state(model_files_in(SHIPPED)["C2"])
    all_of_them = sum(value.numel() for value in state.values())
    of_ridge = sum(value.numel() for name, value in state.items() if name.startswith("linear"))
    page = " ".join((SHIPPED / "README.md").read_text(encoding="utf-8").split())
    trained = (all_of_them - of_ridge) / 1e6
    assert f"{all_of_them / 1e6:.2f} million parameters a fold, of them {trained:.2f} million trained" in page


def test_the_readmes_picture_has_the_scores_of_its_fold(script):
    scores = pd.read_csv(SHIPPED / "scores.csv").set_index(["fold", "method"])["pcc_a"]["C6"]
    own, ridge, depth = (script.number(scores[method], ".3f") for method in ("Gene-DML", "ridge", "depth alone"))
    page = " ".join((EXAMPLES.parent / "README.md").read_text(encoding="utf-8").split())
    assert f"mean of all genes {own}, ridge {ridge}, depth alone {depth}" in page
    for picture in ("predicted.png", "worth.png"):
        assert (EXAMPLES / picture).stat().st_size < 300_000


def test_the_one_of_residuals_says_whose_patients_it_was_scored_on_and_where_its_folds_disagree(p1, capfd):
    data = predict(**p1, model=Path("pretrained-pearson"))
    assert "pretrained-pearson comes with genedml" in " ".join(capfd.readouterr().err.split())
    assert SHARED_PATIENTS in record_of(data).notes
    assert {"std", "ridge", "lower", "upper", "z"} == set(layers_of(data))
    assert "log1p" not in data.uns


@pytest.mark.parametrize("name", PRETRAINED)
def test_nothing_of_the_machine_that_made_them_is_in_them(name):
    for card in cards_of(name).values():
        words = " ".join(str(value) for value in card.made_by.values()).split()
        assert words
        assert not any(word.startswith("/") for word in words)


@pytest.fixture
def small_world(script, run, world, tmp_path, monkeypatch):
    """The script's command on a copy of the tiny run, whose folds are finished: into ``out``, where another file is."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").touch()
    samples = read_sheet(world / "samples.csv")
    monkeypatch.setattr(script, "read_sheet", lambda *_: samples)
    monkeypatch.setattr(
        script,
        "train",
        lambda samples, out, *_, **__: train(samples, out, tiny_config(*LEARNING), features=run.parent / "features"),
    )
    words = f"--root {world} --target pearson --run {tmp_path / 'run'} --out {tmp_path / 'out'}".split()
    monkeypatch.setattr(sys, "argv", ["pretrained_model.py", *words])
    return tmp_path / "out"


def test_the_script_leaves_a_folder_that_predicts_as_its_run(small_world, script, run, p1):
    script.main()
    kinds = {f"{kind}-P{number}.safetensors" for kind in ("fold", "ridge", "novelty") for number in (1, 2, 3)}
    assert {file.name for file in small_world.iterdir()} == kinds | {"README.md", "genes.csv", "scores.csv"}
    own, shipped = (predict(**p1, model=folder) for folder in (run, small_world))
    assert np.abs(own.X - shipped.X).max() < 2e-3
    assert np.allclose(own.obs["novelty"], shipped.obs["novelty"])
    assert np.allclose(own.layers["ridge"], shipped.layers["ridge"])
    assert np.allclose(own.var["cv_pcc"], shipped.var["cv_pcc"])
    page = (small_world / "README.md").read_text(encoding="utf-8")
    best = pd.read_csv(small_world / "genes.csv")["gene"][0]
    assert f"({best}) to " in page


def test_where_the_script_is_interrupted_what_was_there_stays(small_world, script, monkeypatch):
    own = script.copy

    def broken(model: Path, folder: Path) -> None:
        if model.stem == "fold-P2":
            raise KeyboardInterrupt
        own(model, folder)

    monkeypatch.setattr(script, "copy", broken)
    with pytest.raises(KeyboardInterrupt):
        script.main()
    assert [file.name for file in small_world.iterdir()] == ["earlier"]
    assert {file.name for file in small_world.parent.iterdir()} == {"run", "out"}


def test_predict_without_a_model_takes_it_and_says_so(p1, monkeypatch, capfd):
    monkeypatch.delenv("GENEDML_MODEL", raising=False)
    data = predict(**p1)
    said = " ".join(capfd.readouterr().err.split())
    assert data.n_vars == 250
    assert {"cv_pcc", "cv_pcc_sd", "cv_folds", "baseline_pcc"} <= set(data.var)
    assert {"std", "ridge", "lower", "upper", "z"} == set(layers_of(data))
    assert data.uns["genedml"]["panels"] == [" ".join(published_panel("HER2ST"))]
    assert "comes with genedml" in said
    assert str(SHIPPED / "README.md") in said.replace(" ", "")


def test_the_report_cites_it_and_the_data_it_was_trained_on(p1, tmp_path):
    predict(**p1, model=SHIPPED / "fold-C2.safetensors", out=tmp_path / "p1.h5ad")
    cited = report(tmp_path / "p1.h5ad").read_text(encoding="utf-8").split('id="cite"')[1]
    assert "HER2ST: HER2-positive breast cancer: Andersson et al. 2021" in cited
    assert f"fold-C2.safetensors (SHA-256 {fingerprint(SHIPPED / 'fold-C2.safetensors')[:12]})" in cited


def test_genedml_model_names_another(run, p1, monkeypatch):
    monkeypatch.setenv("GENEDML_MODEL", str(run))
    assert predict(**p1).var_names.tolist() == predict(**p1, model=run).var_names.tolist()


def test_the_script_that_draws_what_marks_are_worth_runs(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["worth.py", str(run), "-o", str(tmp_path / "worth.png")])
    runpy.run_path(str(EXAMPLES / "worth.py"), run_name="__main__")
    kept = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mean PCC"))
    first, last = (float(kept.split()[place]) for place in (-10, -1))
    assert first > last
    assert (tmp_path / "worth.png").stat().st_size > 10_000


def test_a_name_that_is_nearly_one_that_is_shipped_asks_for_it():
    with pytest.raises(GeneDMLError, match=r"There is no model pretrained_pearson\. Did you mean pretrained-pearson\?"):
        model_files("pretrained_pearson")


def test_it_is_named_pretrained_where_no_run_is_called_so(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert panels.find_panel("pretrained") == published_panel("HER2ST")
    assert model_files("pretrained", "C4") == [SHIPPED / "fold-C4.safetensors"]
    (tmp_path / "pretrained").mkdir()
    assert len(model_files("pretrained")) == 5
    shutil.copy(run / "fold-P1.safetensors", tmp_path / "pretrained")
    assert [str(file) for file in model_files("pretrained")] == ["pretrained/fold-P1.safetensors"]
    assert panels.find_panel("pretrained") == load_card(run / "fold-P1.safetensors").genes
