"""The models that come with genedml: their size, their cards, and that predict finds them."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import EXAMPLES

from genedml import DEFAULT_PRETRAINED, PRETRAINED
from genedml.checkpoint import fingerprint, load_card, load_state
from genedml.config import target_name
from genedml.errors import GeneDMLError
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.files.hdf5 import layers_of
from genedml_cli.notes import SHARED_PATIENTS
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.run_folder import model_files
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.page import report
from genedml_cli.runs import panels

SHIPPED = PRETRAINED[DEFAULT_PRETRAINED]
CARDS = {file.stem.removeprefix("fold-"): load_card(file) for file in sorted(SHIPPED.glob("fold-*.safetensors"))}


def test_it_is_small_whole_and_of_the_published_panel():
    assert sum(file.stat().st_size for folder in PRETRAINED.values() for file in folder.iterdir()) <= 8e6
    assert list(CARDS) == ["C2", "C3", "C4", "C5", "C6"]
    for fold, card in CARDS.items():
        assert set(card.training_slides) == set(CARDS) - {fold}
        assert card.genes == published_panel("HER2ST")
        assert load_state(SHIPPED / f"fold-{fold}.safetensors")


def test_its_page_and_its_table_say_what_its_models_carry():
    table = pd.read_csv(SHIPPED / "genes.csv", index_col="gene")
    for card in CARDS.values():
        scored = card.cross_validated
        assert set(scored.folds) == {5}
        carried = np.column_stack([scored.pcc, scored.pcc_sd, scored.ridge_pcc])
        assert np.allclose(table.loc[list(card.genes), ["cv_pcc", "cv_pcc_sd", "baseline_pcc"]], carried)
    page = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for row, column in (("Gene-DML", "cv_pcc"), ("ridge on the same features", "baseline_pcc")):
        said = next(line for line in page.splitlines() if line.startswith(f"| {row} |")).split("|")[2]
        assert float(said) == pytest.approx(table[column].mean(), abs=6e-4)
    assert f"{table['cv_pcc'].max():.2f}".lstrip("0") in page
    assert table["cv_pcc"].idxmax() in page


def test_the_one_of_residuals_is_a_model_of_all_sections_that_carries_the_scores_of_its_folds(p1, capfd):
    (file,) = model_files(Path("pretrained-pearson"))
    card = load_card(file)
    assert (file.stem, target_name(card.config.labels)) == ("all-sections", "pearson")
    assert set(card.training_slides) == set(CARDS)
    table = pd.read_csv(file.parent / "genes.csv", index_col="gene").loc[list(card.genes)]
    assert np.allclose(table["cv_pcc"], card.cross_validated.pcc)
    page = (file.parent / "README.md").read_text(encoding="utf-8")
    assert f"| Gene-DML | {table['cv_pcc'].mean():.3f} ".replace("0.", ".") in page
    data = predict(**p1, model=Path("pretrained-pearson"))
    assert "pretrained-pearson comes with genedml" in " ".join(capfd.readouterr().err.split())
    assert SHARED_PATIENTS in record_of(data).notes
    assert {"ridge", "lower", "upper", "z"} == set(layers_of(data))
    assert "log1p" not in data.uns


def test_nothing_of_the_machine_that_made_them_is_in_them():
    for card in [*CARDS.values(), load_card(*model_files(Path("pretrained-pearson")))]:
        words = " ".join(str(value) for value in card.made_by.values()).split()
        assert words
        assert not any(word.startswith("/") for word in words)


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
    with pytest.raises(
        GeneDMLError, match=r"pretrained_pearson holds no trained fold\. Did you mean pretrained-pearson\?"
    ):
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
