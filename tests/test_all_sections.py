"""The model of all sections: trained without a test, taken by predict, told apart from the folds in every score."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config

from genedml.checkpoint import load_card, network_sha256
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import ALL_SECTIONS, Sample, read_sheet
from genedml_cli.evaluation import external
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.features.section_features import load_features
from genedml_cli.notes import Mark
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.run_folder import model_files
from genedml_cli.prediction.prediction import predict
from genedml_cli.references.novelty import fit_novelty, load_novelty
from genedml_cli.report.page import report
from genedml_cli.runs import ablation, fold
from genedml_cli.runs.panels import find_panel
from genedml_cli.runs.planning import RunSettings
from genedml_cli.runs.run import train
from genedml_cli.training.loop import Trained

SETTINGS = tiny_config("labels.panel_size=12", "training.epochs=3")
PATIENTS = ("P1", "P2", "P3")


@pytest.fixture(scope="module")
def samples(world: Path) -> list[Sample]:
    return read_sheet(world / "samples.csv")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def after_folds(samples, features, tmp_path_factory) -> Path:
    """Three folds and then the model of all sections; how many epochs a fold chose is settled here."""
    out = tmp_path_factory.mktemp("after") / "run"
    with pytest.MonkeyPatch.context() as patch:
        train_fold = fold.train_fold
        chosen = {"Fold P1": 3, "Fold P2": 1, "Fold P3": 2}

        def settled(*given: Any) -> Trained:
            trained = train_fold(*given)
            return replace(trained, epoch=chosen.get(given[5], trained.epoch))

        patch.setattr(fold, "train_fold", settled)
        train(samples, out, SETTINGS, features=features)
        (out / "before.json").write_text((out / "metrics.json").read_text())
        train(samples, out, SETTINGS, fold=ALL_SECTIONS, features=features)
    return out


@pytest.fixture(scope="module")
def alone(samples, features, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    assert train(samples, out, SETTINGS, fold=ALL_SECTIONS, features=features) is None
    return out


def test_it_is_trained_on_all_for_the_median_of_the_folds_epochs(after_folds):
    card = load_card(after_folds / "all-sections.safetensors")
    epochs = [load_card(after_folds / f"fold-{name}.safetensors").scores["epoch"] for name in PATIENTS]
    assert epochs == [3, 1, 2]
    assert card.config.training.epochs == card.scores["epoch"] == median(epochs)
    assert len(pd.read_csv(after_folds / "all-sections.log.csv")) == 2
    assert tuple(card.training_slides) == card.training_patients == PATIENTS
    assert card.notes[0].startswith("ALL SECTIONS: the model was trained on every section of its run")
    assert "Epochs: 2, the median of those that the run's folds chose (P1 3, P2 1, P3 2)." in card.notes
    assert not any(note.startswith("LEAKING") for note in card.notes)


def test_the_scores_stay_those_of_the_folds_and_say_so(after_folds):
    before, now = (json.loads((after_folds / name).read_text()) for name in ("before.json", "metrics.json"))
    assert before["methods"] == now["methods"]
    assert "3 folds" in now["title"]
    added = [note for note in now["notes"] if note not in before["notes"]]
    assert added == ["These are scores of the folds' models; predict takes the one of all sections, which has none."]
    assert sorted(file.stem for file in (after_folds / "predictions").iterdir()) == list(PATIENTS)
    assert added[0] in report(after_folds).read_text(encoding="utf-8").replace("&#39;", "'")


def test_its_genes_are_worth_what_the_folds_scored(after_folds):
    card = load_card(after_folds / "all-sections.safetensors")
    genes = pd.read_csv(after_folds / "genes.csv", index_col="gene").reindex(card.genes)
    np.testing.assert_allclose(card.cross_validated.pcc, genes["pcc"].round(4))
    tested = [load_card(after_folds / f"fold-{name}.safetensors").genes for name in PATIENTS]
    assert list(card.cross_validated.folds) == [sum(gene in panel for panel in tested) for gene in card.genes]


def test_predict_takes_it_and_the_folds_when_told_to(after_folds, p1, capfd):
    data = predict(**p1, model=after_folds)
    said = " ".join(capfd.readouterr().err.split())
    made_by = data.uns["genedml"]
    assert [str(name).split()[0] for name in made_by["models"]] == ["all-sections.safetensors"]
    assert "trained on all sections; --fold all gives the mean of a run's folds." in said
    assert list(data.var_names) == list(find_panel(str(after_folds)))
    assert data.n_vars == 12
    assert {"cv_pcc", "cv_pcc_sd", "cv_folds", "baseline_pcc"} <= set(data.var)
    assert {"ridge", "ridge_own_tile", "place_alone", "lower", "upper", "z"} == set(data.layers)
    marks = [note.mark for note in record_of(data).notes if note.warns]
    assert marks == [Mark.ALL_SECTIONS, Mark.SEEN, Mark.FEW_PATIENTS]
    assert len(predict(**p1, model=after_folds, fold="all").uns["genedml"]["models"]) == 3
    assert model_files(after_folds, "P2") == [after_folds / "fold-P2.safetensors"]
    assert model_files(after_folds, ALL_SECTIONS) == model_files(after_folds)
    with pytest.raises(GeneDMLError, match=r"has no fold P9\. It has: P1, P2, P3, all-sections"):
        model_files(after_folds, "P9")


def test_the_mean_of_folds_with_panels_of_their_own_says_what_it_lacks(after_folds, p1, tmp_path):
    panels = [load_card(after_folds / f"fold-{name}.safetensors").genes for name in PATIENTS]
    shared = set.intersection(*map(set, panels))
    assert len(shared) < 12  # or this test shows nothing
    data = predict(**p1, model=after_folds, fold="all", out=tmp_path / "p1.h5ad")
    assert data.n_vars == len(shared)
    note = next(note.text for note in record_of(data).notes if note.text.startswith("Genes:"))
    assert note.startswith(f"Genes: {len(shared)} of 12. Each fold takes its panel from its own training sections")
    assert "train --fold all-sections" in note
    assert note in json.loads((after_folds / "before.json").read_text())["notes"]
    assert note in report(tmp_path / "p1.h5ad").read_text(encoding="utf-8")


def test_without_folds_sections_are_held_out_to_choose_the_epoch_and_then_trained_on(alone, p1):
    card = load_card(alone / "all-sections.safetensors")
    assert "The epoch was chosen on donors held out inside the training folds; then all were trained on." in card.notes
    log = pd.read_csv(alone / "all-sections.log.csv")
    assert log["pass"].max() == 2
    assert (log["pass"] == 2).sum() == card.scores["epoch"]
    assert len(card.scores["held_out_pcc"]) == 12
    assert tuple(card.training_slides) == PATIENTS
    assert card.cross_validated is None
    assert "cv_pcc" not in predict(**p1, model=alone).var
    with pytest.raises(GeneDMLError):
        predict(**p1, model=alone, min_cv_pcc=0.1)
    for score in (evaluate, report):
        with pytest.raises(GeneDMLError, match="holds a model of all sections only, so there is none to score it on"):
            score(alone)


def test_a_second_call_keeps_it_and_a_killed_one_gives_the_same_bytes(alone, samples, features, tmp_path, capfd):
    file = alone / "all-sections.safetensors"
    content = file.read_bytes()
    train(samples, alone, SETTINGS, fold=ALL_SECTIONS, features=features)
    assert f"The model of all sections in {alone} is there already; keeping it." in capfd.readouterr().err
    assert file.read_bytes() == content
    train(samples, tmp_path / "again", SETTINGS, fold=ALL_SECTIONS, features=features)
    assert (tmp_path / "again" / file.name).read_bytes() == content


def test_one_section_is_enough(world, samples, features, p1, tmp_path):
    out = tmp_path / "one"
    assert train(samples[1:2], out, SETTINGS, fold=ALL_SECTIONS, features=features) is None
    card = load_card(out / "all-sections.safetensors")
    assert tuple(card.training_slides) == ("P2",)
    assert "The model of all sections: nothing was held out to choose the epoch, so it is the last, 3." in card.notes
    assert not (out / "novelty-all-sections.safetensors").exists()  # of one section there is nothing to measure it by
    data = predict(**p1, model=out)
    assert "novelty" not in data.obs
    assert data.n_vars == 12
    with pytest.raises(GeneDMLError, match="For a model without scores: --fold all-sections"):
        train(samples[1:2], tmp_path / "two", SETTINGS, features=features)
    found = external.evaluate_external(out, str(world / "samples.csv"), features=features)
    assert [one.title for one in found.sections] == ["P1", "P3"]
    assert not any(note.mark is Mark.UNFINISHED for note in found.notes)


def test_its_novelty_is_in_the_measure_of_sections_left_out_in_turn(after_folds, features):
    file = after_folds / "novelty-all-sections.safetensors"
    model = load_novelty(file, network_sha256(after_folds / "all-sections.safetensors"))
    sections = {file.name.split(".")[0].split("-")[0]: load_features(file) for file in sorted(features.rglob("P*"))}
    assert set(sections) == set(PATIENTS)
    distances = []
    for name in PATIENTS:
        others = [found for other, found in sections.items() if other != name]
        distances.append(fit_novelty(others, [sections[name]]).distances([sections[name]]))
    quantiles = np.quantile(np.concatenate(distances), np.linspace(0, 1, 101))
    np.testing.assert_allclose(model.held_out, quantiles, rtol=1e-4)
    assert np.mean([model.novelty(found).mean() for found in sections.values()]) < 0.4  # which it was trained on


def test_what_cannot_be_is_a_sentence(samples, tmp_path, world):
    with pytest.raises(GeneDMLError, match="A grid compares scores"):
        ablation.ablate(samples, tmp_path / "grid", "k", SETTINGS, [3], settings=RunSettings(fold=ALL_SECTIONS))
    table = pd.read_csv(world / "samples.csv").assign(fold="all-sections")
    for column in ("slide", "spots", "counts"):
        table[column] = [str(world / name) for name in table[column]]
    table.to_csv(tmp_path / "samples.csv", index=False)
    with pytest.raises(GeneDMLError, match="calls a fold all-sections, which has a meaning for --fold"):
        read_sheet(tmp_path / "samples.csv")
