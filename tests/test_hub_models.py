"""A run pushed to a hub on the loopback address, and predicted with by its name from there."""

import json
import re
import shutil
import sys
from pathlib import Path

import anndata
import huggingface_hub.constants
import numpy as np
import pytest
from loopback_hub import ACCEPTED, COMMIT, LoopbackHub, serving
from safetensors import safe_open

from genedml.checkpoint import load_card, load_state
from genedml.errors import GeneDMLError
from genedml_cli import app
from genedml_cli.evaluation.external import evaluate_external
from genedml_cli.outputs.hub_models import LIST, from_hub, parse_name
from genedml_cli.outputs.local_models import local_models
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.page import report
from genedml_cli.runs.pushing import push, with_numbers

NAME = "hf://lab/tiny"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty repository; the cache holds nothing."""
    (tmp_path / "hub").mkdir()
    monkeypatch.setenv("HF_TOKEN", ACCEPTED)
    monkeypatch.chdir(tmp_path)
    with serving(LoopbackHub(tmp_path / "hub", "lab/tiny", gated=False), tmp_path / "cache", monkeypatch) as server:
        yield server


@pytest.fixture
def pushed(hub, run):
    """The hub, with the run in its repository."""
    push(run, NAME)
    return hub


def out_of_reach(monkeypatch):
    template = NOBODY + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)


def relist(hub, **changes):
    """Change the first row of the repository's list."""
    listed = json.loads((hub.folder / LIST).read_text())
    listed[0] |= changes
    (hub.folder / LIST).write_text(json.dumps(listed))


def test_a_pushed_run_predicts_by_its_name_what_the_run_predicts_and_again_without_network(
    pushed, run, p1, monkeypatch, capfd
):
    own = predict(p1["slide"], p1["spots"], run)
    monkeypatch.delenv("HF_TOKEN")
    by_name = predict(p1["slide"], p1["spots"], NAME)
    assert np.array_equal(by_name.X, own.X)
    for layer in own.layers:
        assert np.array_equal(by_name.layers[layer], own.layers[layer], equal_nan=True), layer
    assert f"Model: lab/tiny of the hub, commit {COMMIT[:12]}." in capfd.readouterr().err
    fetched = [name for name, _ in pushed.gets]
    assert len(fetched) == len(set(fetched)) == 1 + 3 * 3  # the list; models, ridge and novelty of three folds
    out_of_reach(monkeypatch)
    assert predict(p1["slide"], p1["spots"], f"{NAME}@{COMMIT}", fold="2").shape == own.shape
    assert len(pushed.gets) == len(fetched)
    assert own.uns["genedml"]["seen_in_training"] == by_name.uns["genedml"]["seen_in_training"] == 2


def test_no_name_of_a_patient_or_section_leaves_the_machine_and_the_card_counts_them(pushed, run):
    for file in pushed.folder.iterdir():
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as stored:
                text = str(stored.metadata())
        else:
            text = file.read_text()
        assert not re.search(r"\bP[123]\b|\.tif", file.name + text), file.name
    assert sorted(file.name for file in pushed.folder.glob("fold-*")) == [f"fold-{n}.safetensors" for n in (1, 2, 3)]
    own, theirs = load_card(run / "fold-P1.safetensors"), load_card(pushed.folder / "fold-1.safetensors")
    assert sorted(theirs.training_slides.values()) == sorted(own.training_slides.values())
    assert len(set(theirs.training_donors)) == len(set(own.training_donors)) == 2
    state = load_state(run / "fold-P1.safetensors")
    assert all((load_state(pushed.folder / "fold-1.safetensors")[key] == state[key]).all() for key in state)
    card = (pushed.folder / "README.md").read_text()
    assert "3 sections of 3 patients (3 donors)" in card
    assert "frozen encoder `tiny` (licence: " in card
    mean = json.loads((run / "metrics.json").read_text())["methods"]["Gene-DML"]["pcc_a"]["mean"]
    assert f"| Gene-DML | {mean:.3f} " in card
    assert pushed.made[0]["visibility"] == "private"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sha256": "0" * 64}, r"fold-1\.safetensors of lab/tiny is not the file of its list, by its SHA-256"),
        ({"size": 5}, r"fold-1\.safetensors of lab/tiny has \d+ bytes, in its list 5"),
        ({"size": 10**15}, r"its models take more than 20\.00 GB"),
        ({"name": "../../evil.safetensors"}, r"it names '\.\./\.\./evil\.safetensors', no file of a model"),
        ({"name": "fold-1.pth"}, r"it names 'fold-1\.pth', no file of a model"),
        ({"name": None}, r"no file of a model"),
    ],
)
def test_a_repository_whose_files_are_not_those_of_its_list_is_refused(pushed, tmp_path, changes, told):
    relist(pushed, **changes)
    with pytest.raises(GeneDMLError, match=told):
        from_hub(Path(NAME))
    assert not [file for file in (tmp_path / "cache").rglob("fold-*") if file.exists()]


@pytest.mark.parametrize("content", ["", "{}", "[]", "[3]", "[" * 50_000, '[{"name": "fold-1.safetensors"}]'])
def test_a_list_of_any_form_is_a_sentence(pushed, content):
    (pushed.folder / LIST).write_text(content)
    with pytest.raises(GeneDMLError, match=r"The list genedml\.json of lab/tiny"):
        from_hub(Path(NAME))


@pytest.mark.parametrize(
    "name",
    [
        "hf://",
        "hf://lab",
        "hf://lab/a/b",
        "hf://../x",
        "hf://lab/a@..",
        "hf://lab/a@b@c",
        "hf://lab/a--b",
        f"hf://lab/{'a' * 99}",
    ],
)
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(GeneDMLError, match="Write hf://owner/name"):
        parse_name(Path(name))


def test_names_in_notes_become_numbers_and_numbers_stay():
    named = {"Anna B": "donor-1", "Anna": "donor-2", "7": "donor-3", "S12-34.svs": "file-1"}
    note = "SCALE: S12-34.svs of Anna B, not of Anna or Annabel, has 7 of 0.7 um/px."
    assert with_numbers(note, named) == "SCALE: file-1 of donor-1, not of donor-2 or Annabel, has 7 of 0.7 um/px."


def test_a_hub_out_of_reach_a_gate_and_another_repository_are_sentences(pushed, monkeypatch):
    with pytest.raises(GeneDMLError, match=r"lab/other has no model that genedml push wrote"):
        from_hub(Path("hf://lab/other"))
    pushed.gated = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(GeneDMLError, match=r"(?s)models of lab/tiny are not here: it is gated.*hf auth login"):
        from_hub(Path(NAME))
    out_of_reach(monkeypatch)
    with pytest.raises(GeneDMLError, match=r"models of lab/tiny are not here: the hub cannot be reached"):
        from_hub(Path(NAME))


def test_who_may_not_write_and_what_is_no_run_puts_nothing_there(hub, run, tmp_path, monkeypatch):
    with pytest.raises(GeneDMLError, match="is no run folder with a finished model"):
        push(tmp_path, NAME)
    with pytest.raises(GeneDMLError, match="leave out @v1"):
        push(run, f"{NAME}@v1")
    monkeypatch.setenv("HF_TOKEN", "hf_mistyped")
    with pytest.raises(GeneDMLError, match=r"Nothing was put into lab/tiny: .*hf auth login"):
        push(run, NAME)
    assert not list(hub.folder.iterdir())


def test_external_sections_are_scored_by_a_name_and_the_trainings_own_slides_are_still_told(pushed, world, tmp_path):
    with pytest.raises(GeneDMLError, match=r"Nothing of .* is external .*this very slide"):
        evaluate_external(Path(NAME), str(world / "samples.csv"))
    shutil.copytree(world, tmp_path / "others")
    for slide in (tmp_path / "others" / "slides").glob("*.tif"):
        with slide.open("ab") as file:
            file.write(b"another")
    scored = evaluate_external(Path(NAME), str(tmp_path / "others" / "samples.csv"), features=tmp_path / "features")
    assert scored.folder.parent == Path("runs/lab--tiny")
    assert (scored.folder / "metrics.csv").is_file()


def test_report_of_a_name_shows_what_the_model_itself_knows(pushed, run):
    page = report(Path(NAME))
    assert page == Path("runs/lab--tiny/report.html")
    shown = page.read_text()
    card = load_card(run / "fold-P1.safetensors")
    assert card.cross_validated is not None
    for gene, score in zip(card.genes, card.cross_validated.pcc, strict=True):
        row = shown[shown.index(f">{gene}<") :]
        assert f"{score:.3f}" in row[: row.index("</tr>")], gene
    for text in ("3 sections of 3 patients", COMMIT, card.encoder.weights_sha256, "epochs = 80"):
        assert text in shown, text
    assert 'id="atlas-data"' not in shown and 'href="#maps"' not in shown
    with pytest.raises(GeneDMLError, match="predict a slide with it and report that"):
        report([Path(NAME), run])
    with pytest.raises(GeneDMLError, match="without --genes"):
        report(Path(NAME), genes=["GENE1"])


def test_models_lists_what_is_here(pushed, run, tmp_path, monkeypatch, capfd):
    shutil.copytree(run, tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "fold-1.safetensors").write_bytes(b"cut")
    from_hub(Path(NAME))
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", scan := scan_of(tmp_path / "cache"))
    found = {model.name: model for model in local_models()}
    assert list(found) == ["pretrained", "pretrained-pearson", "runs/broken", "runs/mine", NAME]
    assert (found[NAME].folds, found[NAME].genes, found[NAME].encoder, found[NAME].commit) == (3, 20, "tiny", COMMIT)
    assert "cannot be read" in found["runs/broken"].problem
    assert scan().repos
    monkeypatch.setattr(sys, "argv", ["genedml", "models"])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert not left.value.code
    shown = capfd.readouterr()
    assert NAME in shown.out
    assert "runs/broken" in shown.err


def scan_of(cache):
    from huggingface_hub import scan_cache_dir

    return lambda: scan_cache_dir(cache)


def test_predictions_of_a_named_model_are_written_as_any(pushed, p1, tmp_path):
    out = tmp_path / "out.h5ad"
    predict(p1["slide"], p1["spots"], NAME, out=out)
    assert anndata.read_h5ad(out).n_vars == 20
