"""The whole path on the tiny world: train, predict, evaluate, and what must hold between them."""

import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy
from conftest import LEARNING, tiny_config

from genedml.checkpoint import load_card
from genedml.config import load_config
from genedml.encoders.table import ENCODERS
from genedml.errors import GeneDMLError
from genedml_cli.datasets.folds import make_folds
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, planted_genes
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.notes import SHARED_PATIENTS, Mark, Note
from genedml_cli.outputs.prediction_record import record_of, set_record
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.page import report
from genedml_cli.runs import planning
from genedml_cli.runs.run import train


def test_a_run_folder_holds_what_the_readme_says(run):
    names = {path.name for path in run.iterdir()}
    patients = ("P1", "P2", "P3")
    folds = {f"fold-{patient}{end}" for patient in patients for end in (".safetensors", ".log.csv")}
    folds |= {f"{kind}-{patient}.safetensors" for kind in ("ridge", "novelty") for patient in patients}
    assert folds | {"config.toml", "run.json", "metrics.csv", "metrics.json", "genes.csv", "predictions"} == names
    log = pd.read_csv(run / "fold-P1.log.csv")
    assert {"epoch", "prediction", "instance", "group", "total", "held_out_pcc"} <= set(log.columns)
    assert load_config(file=run / "config.toml") == tiny_config(*LEARNING)


def test_planted_genes_are_found_on_patients_never_seen(run):
    genes = evaluate(run).per_gene().set_index("gene")["pcc"]
    planted = genes.index.isin(planted_genes(SyntheticConfig(genes=20)))
    # One patient of 37 spots to train on: weak, but not noise. The demo's test asks for more of more.
    assert genes[planted].mean() > 0.15
    assert genes[planted].mean() > genes[~planted].mean() + 0.15


def test_no_patient_of_a_fold_was_trained_or_chosen_on(run):
    for fold in ("P1", "P2", "P3"):
        card = load_card(run / f"fold-{fold}.safetensors")
        assert fold not in card.training_patients
        assert len(card.training_patients) == 2


def test_the_table_has_the_references_and_the_files_say_the_same(run):
    result = evaluate(run)
    summary = result.summary()
    assert list(summary.index) == ["Gene-DML", "ridge", "ridge own tile", "place alone", "depth alone", "constant"]
    assert np.isnan(summary.loc["constant", ("pcc_a", "mean")])
    assert summary.loc["constant", ("mse", "mean")] > summary.loc["ridge", ("mse", "mean")]
    written = json.loads((run / "metrics.json").read_text())["methods"]["ridge"]["pcc_a"]["mean"]
    per_fold = pd.read_csv(run / "metrics.csv").query("method == 'ridge'")["pcc_a"]
    assert written == pytest.approx(summary.loc["ridge", ("pcc_a", "mean")])
    assert per_fold.mean() == pytest.approx(written)


def test_a_fold_without_its_checkpoint_is_not_finished_and_not_scored(run, tmp_path):
    interrupted = tmp_path / "interrupted"
    shutil.copytree(run, interrupted)
    (interrupted / "fold-P1.safetensors").unlink()
    result = evaluate(interrupted)
    assert {score.fold for score in result.scores} == {"P2", "P3"}
    assert "UNFINISHED: 2 of 3 folds." in result.marks


def test_depth_alone_is_a_line_fitted_on_the_spots_that_the_network_is_fitted_on(run, world):
    data = anndata.read_h5ad(run / "predictions" / "P1.h5ad")
    slope, intercept = load_card(run / "fold-P1.safetensors").depth_line
    expected = np.outer(data.obs["depth"], slope) + np.array(intercept)
    assert np.allclose(data.layers["depth_alone"], expected, atol=1e-5)
    (fold,) = (fold for fold in make_folds(read_sheet(world / "samples.csv")) if fold.name == "P1")
    (trained_on,) = fold.train  # without refit the other section only chooses the epoch
    other = anndata.read_h5ad(run / "predictions" / f"{trained_on.name}.h5ad")
    line = np.polyfit(other.obs["depth"], other[:, data.var_names[0]].layers["truth"][:, 0], 1)
    assert (slope[0], intercept[0]) == pytest.approx(line, rel=1e-3)


def test_counts_of_another_section_are_refused(world, run, tmp_path):
    sheet = pd.read_csv(world / "samples.csv")
    counts = pd.read_csv(world / sheet["counts"][0], sep="\t", index_col=0)
    counts.index = [name if number < 5 else f"other{number}" for number, name in enumerate(counts.index)]
    counts.to_csv(tmp_path / "other.tsv", sep="\t")
    sheet.loc[0, "counts"] = str(tmp_path / "other.tsv")
    sheet.to_csv(tmp_path / "sheet.csv", index=False)
    samples = read_sheet(tmp_path / "sheet.csv", root=world)
    with pytest.raises(GeneDMLError, match=r"spots of P1 have no counts in other\.tsv"):
        train(samples, tmp_path / "run", tiny_config(), panel="all", features=run.parent / "features")


def test_training_again_gives_the_same_bytes_and_keeps_finished_folds(world, run, tmp_path, capfd):
    samples, again = read_sheet(world / "samples.csv"), tmp_path / "again"
    train(samples, again, tiny_config(*LEARNING), fold="P2", features=run.parent / "features")
    own, other = (anndata.read_h5ad(folder / "predictions" / "P2.h5ad").X for folder in (run, again))
    assert np.array_equal(own, other)
    before = (again / "fold-P2.safetensors").stat().st_mtime_ns
    train(samples, again, tiny_config(*LEARNING), fold="P2", features=run.parent / "features")
    assert (again / "fold-P2.safetensors").stat().st_mtime_ns == before
    assert f"Fold P2 in {again} is there already" in capfd.readouterr().err
    with pytest.raises(GeneDMLError, match=r"config\.training\.epochs: 80 there, 3 here"):
        train(samples, again, tiny_config(*LEARNING, "training.epochs=3"), features=run.parent / "features")


def test_a_held_out_slide_is_predicted_as_in_the_run(run, p1, tmp_path):
    data = predict(**p1, model=run, out=tmp_path / "p1.h5ad", fold="P1")
    tested = anndata.read_h5ad(run / "predictions" / "P1.h5ad")
    assert data.uns["genedml"]["seen_in_training"] == 0
    assert np.allclose(data[tested.obs_names].X, tested.X, atol=2e-3)


def test_a_run_predicts_the_mean_of_its_folds_and_their_spread(run, p1, tmp_path, capfd):
    data = predict(**p1, model=run)
    folds = [predict(**p1, model=run / f"fold-P{n}.safetensors")[:, data.var_names].X for n in (1, 2, 3)]
    assert np.allclose(data.X, np.mean(folds, axis=0), atol=1e-5)
    assert np.allclose(data.layers["std"], np.std(folds, axis=0, ddof=1), atol=1e-5)
    assert data.uns["genedml"]["seen_in_training"] == 2
    assert "2 of 3 models were trained on this very slide" in capfd.readouterr().err


def test_order_of_spots_batch_size_and_other_folds_do_not_change_a_spot(run, p1, tmp_path):
    table = pd.read_csv(p1["spots"])
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "shuffled.csv", index=False)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run / "fold-P1.safetensors", alone)
    expected = predict(**p1, model=run, fold="P1")
    found = predict(p1["slide"], tmp_path / "shuffled.csv", alone, batch_spots=7)
    assert np.allclose(found[expected.obs_names].X, expected.X, atol=1e-4)


def test_which_spots_are_given_does_matter(run, p1, tmp_path):
    pd.read_csv(p1["spots"]).head(5).to_csv(tmp_path / "five.csv", index=False)
    whole, five = predict(**p1, model=run, fold="P1"), predict(p1["slide"], tmp_path / "five.csv", run, fold="P1")
    assert not np.allclose(five.X, whole[five.obs_names].X, atol=1e-4)


def test_a_single_spot_and_two_spots_at_one_place_are_predicted(run, p1, tmp_path):
    table = pd.read_csv(p1["spots"]).head(1)
    table.to_csv(tmp_path / "one.csv", index=False)
    pd.concat([table, table.assign(name="twin")]).to_csv(tmp_path / "two.csv", index=False)
    one = predict(p1["slide"], tmp_path / "one.csv", run)
    two = predict(p1["slide"], tmp_path / "two.csv", run)
    assert np.isfinite(one.X).all()
    assert np.allclose(two.X[0], two.X[1], atol=1e-5)


def test_a_slide_without_spots_is_predicted_on_a_grid_over_its_tissue(run, p1, tmp_path):
    data = predict(p1["slide"], None, run, tmp_path / "grid.h5ad", fold="P1", pitch_um=112, grid="square")
    made_by = scanpy.read_h5ad(tmp_path / "grid.h5ad").uns["genedml"]
    assert (made_by["spots"], made_by["grid"], made_by["grid_pitch_um"], made_by["tissue"]) == (
        "grid", "square", 112, "found",
    )  # fmt: skip
    given = predict(**p1, model=run, fold="P1")
    assert given.uns["genedml"]["spots_on_tissue"] == 1
    assert data.n_obs == pytest.approx(given.n_obs, rel=0.35)
    # Both grids have one pitch, but stand half of it apart: the tissue's pattern is the same at its scale.
    nearest = np.linalg.norm(data.obsm["spatial"][:, None] - given.obsm["spatial"], axis=2).argmin(axis=1)
    tumor = [gene for gene in data.var_names if gene.startswith("TUMOR")]
    pcc = [np.corrcoef(data[:, gene].X[:, 0], given[nearest, gene].X[:, 0])[0, 1] for gene in tumor]
    assert np.mean(pcc) > 0.4


def test_scanpy_uses_the_prediction_unchanged(run, p1, tmp_path):
    predict(**p1, model=run, out=tmp_path / "p1.h5ad")
    data = scanpy.read_h5ad(tmp_path / "p1.h5ad")
    assert data.uns["log1p"]["base"] == 10
    assert {"array_row", "array_col", "in_tissue"} <= set(data.obs.columns)
    table = pd.read_csv(p1["spots"]).set_index("name").loc[data.obs_names]
    assert np.array_equal(data.obsm["spatial"], table[["x", "y"]].to_numpy(float))
    scanpy.pp.pca(data, n_comps=5)
    scanpy.pp.neighbors(data, n_neighbors=5)
    scanpy.tl.leiden(data, flavor="igraph", n_iterations=2)
    assert data.obs["leiden"].nunique() > 1
    scanpy.tl.rank_genes_groups(data, "leiden", method="t-test")
    axes = scanpy.pl.spatial(data, color=data.var_names[0], library_id="P1", show=False)
    assert len(axes[0].collections) == 1


def test_evaluate_scores_a_prediction_against_its_counts(run, world, p1, tmp_path, capsys):
    predict(**p1, model=run, out=tmp_path / "p1.h5ad", fold="P1")
    result = evaluate(tmp_path / "p1.h5ad", world / "counts" / "P1.tsv.gz")
    of_run = evaluate(run).values().query("method == 'Gene-DML' and fold == 'P1'").iloc[0]
    own = result.values().query("method == 'Gene-DML'").iloc[0]
    assert own["pcc_a"] == pytest.approx(of_run["pcc_a"], abs=2e-3)
    both = (evaluate(run).values().query("fold == 'P1'"), result.values())
    references = [
        table.set_index("method").loc[["ridge", "ridge own tile", "place alone", "depth alone", "constant"]]
        for table in both
    ]
    for metric in ("mse", "pcc_a", "pcc_h_held_out"):
        assert np.allclose(references[0][metric], references[1][metric], atol=2e-3, equal_nan=True)
    assert (tmp_path / "p1.evaluation" / "metrics.csv").is_file()
    assert not any(note.mark is Mark.SEEN for note in result.notes)
    other = pd.read_csv(world / "counts" / "P1.tsv.gz", sep="\t", index_col=0)
    joined = other.rename(index={name: f"other {name}" for name in other.index[:4]})
    joined.to_csv(tmp_path / "joined.tsv", sep="\t")
    marks = evaluate(tmp_path / "p1.h5ad", tmp_path / "joined.tsv").notes
    assert any(
        str(note).startswith(f"DOUBTFUL JOIN: 4 of {len(other)} spots of p1.h5ad have no counts in joined.tsv")
        for note in marks
    )
    assert not any(note.mark is Mark.DOUBTFUL_JOIN for note in result.notes)
    assert "were of p1.h5ad against P1.tsv.gz; they are replaced" in " ".join(capsys.readouterr().err.split())
    other.index = [f"other{number}" if number else name for number, name in enumerate(other.index)]
    other.to_csv(tmp_path / "other.tsv", sep="\t")
    with pytest.raises(GeneDMLError, match=r"spots of p1\.h5ad have no counts in other\.tsv"):
        evaluate(tmp_path / "p1.h5ad", tmp_path / "other.tsv")
    data = anndata.read_h5ad(tmp_path / "p1.h5ad")
    set_record(data, replace(record_of(data), grid="hex"))
    data.obs_names = [f"r000c{number:03}" for number in range(data.n_obs)]
    data.write_h5ad(tmp_path / "grid.h5ad")
    with pytest.raises(
        GeneDMLError, match=r"of a grid have no truth.* genedml predict P1\.tif --spots FILE"
    ) as refused:
        evaluate(tmp_path / "grid.h5ad", world / "counts" / "P1.tsv.gz")
    assert all(str(name) in refused.value.__notes__[0] for name in (tmp_path / "grid.h5ad", "P1.tsv.gz"))


def test_evaluating_a_slide_seen_in_training_says_so(run, world, p1, tmp_path):
    predict(**p1, model=run, out=tmp_path / "p1.h5ad")
    result = evaluate(tmp_path / "p1.h5ad", world / "counts" / "P1.tsv.gz")
    assert "SEEN: 2 of 3 models were trained on this very slide" in result.marks


def test_a_test_slide_that_was_trained_on_under_another_name_is_marked(own_world, tmp_path):
    shutil.copy(own_world / "slides/P2.tif", own_world / "slides/P1.tif")
    words = {"fold": "P1", "features": tmp_path / "features"}
    result = train(read_sheet(own_world / "samples.csv"), tmp_path / "run", tiny_config("training.epochs=1"), **words)
    assert Note(Mark.LEAKING, "P1 is the slide of P2, which was trained on; scores flatter.") in result.notes


def test_a_fold_column_that_parts_one_patient_is_used_and_marked(world, run, p1, tmp_path):
    sheet = pd.read_csv(world / "samples.csv").assign(patient="P", fold=[0, 1, 2])
    sheet.to_csv(tmp_path / "leaking.csv", index=False)
    samples = read_sheet(tmp_path / "leaking.csv", root=world)
    settings = tiny_config(*LEARNING, "training.epochs=1")
    result = train(samples, tmp_path / "run", settings, fold="0", features=run.parent / "features")
    assert any(note.mark is Mark.LEAKING for note in result.notes)
    assert not any(note.mark is Mark.LEAKING for note in evaluate(run).notes)
    elsewhere = record_of(predict(**p1, model=tmp_path / "run")).notes
    assert not any(note.mark is Mark.LEAKING for note in elsewhere)
    assert SHARED_PATIENTS in elsewhere


def test_counts_that_hardly_join_are_marked_in_training_too(own_world, run, tmp_path):
    counts = pd.read_csv(own_world / "counts" / "P2.tsv.gz", sep="\t", index_col=0)
    renamed = counts.rename(index={name: f"other {name}" for name in counts.index[:4]})
    renamed.to_csv(own_world / "counts" / "P2.tsv.gz", sep="\t")
    samples, config = read_sheet(own_world / "samples.csv"), tiny_config("training.epochs=1")
    result = train(samples, tmp_path / "run", config, fold="P1", features=run.parent / "features")
    assert f"DOUBTFUL JOIN: 4 of {len(counts)} spots of P2 have no counts in P2.tsv.gz" in result.marks


def test_a_scale_that_the_slide_contradicts_is_marked(run, p1):
    scaled = Note(Mark.SCALE, "P1.tif taken as 0.4 um/px, where it says 0.5.")
    assert scaled in record_of(predict(**p1, model=run, um_per_px=0.4)).notes


def test_spots_off_the_tissue_are_refused_or_marked_each_time(own_world, run, tmp_path):
    spots = pd.read_csv(own_world / "spots" / "P2.csv")
    spots.assign(x=spots["x"] / 3, y=spots["y"] / 3).to_csv(own_world / "spots" / "P2.csv", index=False)
    samples, config = read_sheet(own_world / "samples.csv"), tiny_config("training.epochs=1")
    words = {"fold": "P1", "features": tmp_path / "features"}
    for name in ("first", "again"):  # encoded, and from what was kept
        result = train(samples, tmp_path / name, config, allow_off_tissue=True, **words)
        assert re.search(r"DOUBTFUL SPOTS: \d+% of P2\.csv lie on the tissue found", result.marks)
    with pytest.raises(GeneDMLError, match=r"lie on the tissue of P2\.tif"):
        train(samples, tmp_path / "refused", config, **words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"[]"),
        ("run.json", b'{"samples": 3}'),
        ("run.json", b'{"samples": [{"name": "P1"}], "dataset": "", "made_by": {}}'),
        ("run.json", b"\xff"),
        ("config.toml", b"\xff"),
        ("fold-P1.log.csv", b"pass,epoch\n1,1\n"),
        ("fold-P1.log.csv", b"pass,epoch,prediction\n1,one,0\n"),
        ("fold-P1.log.csv", b"pass,epoch,prediction\nx,1,0\n"),
    ],
)
def test_a_run_folder_of_other_files_is_a_sentence(run, tmp_path, name, content):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / name).write_bytes(content)
    with pytest.raises(
        GeneDMLError, match=rf"{name if name != 'fold-P1.log.csv' else 'training logs'}.* cannot be read"
    ):
        report(copied, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_choosing_on_test_is_marked(world, run, tmp_path):
    samples = read_sheet(world / "samples.csv")
    settings = tiny_config(*LEARNING, "training.epochs=1", "training.select_on=test")
    result = train(samples, tmp_path / "run", settings, fold="P1", features=run.parent / "features")
    assert any(note.mark is Mark.CHOSEN_ON_TEST for note in result.notes)
    assert "P1" in load_card(tmp_path / "run" / "fold-P1.safetensors").training_slides


def test_a_model_of_another_encoder_is_refused(run, p1, monkeypatch):
    monkeypatch.setattr(ENCODERS["tiny"].build, "VERSION", 2)
    with pytest.raises(GeneDMLError, match="trained on features of tiny with weights"):
        predict(**p1, model=run)


@pytest.fixture
def own_world(world, tmp_path) -> Path:
    """A world of its own, to change files of."""
    return Path(shutil.copytree(world, tmp_path / "world"))


@pytest.mark.parametrize("what", ["counts/P2.tsv.gz", "spots/P2.csv", "panel.txt", "slides/P2.tif"])
def test_folds_of_other_content_are_not_added_to_a_run(own_world, tmp_path, what):
    panel = own_world / "panel.txt"
    panel.write_text("\n".join(pd.read_csv(own_world / "counts/P1.tsv.gz", sep="\t", index_col=0).columns))
    samples, config = read_sheet(own_world / "samples.csv"), tiny_config("training.epochs=1", "labels.panel_size=20")
    words = {"features": tmp_path / "features", "panel": str(panel)}
    train(samples, tmp_path / "run", config, fold="P1", **words)
    file = own_world / what
    if file.suffix == ".tif":
        shutil.copy(own_world / "slides/P3.tif", file)
    else:
        content = file.read_bytes()
        text = gzip.decompress(content) if file.suffix == ".gz" else content
        turned = b"\n".join([text.rstrip().split(b"\n")[0], *reversed(text.rstrip().split(b"\n")[1:])])
        file.write_bytes(gzip.compress(turned) if file.suffix == ".gz" else turned)
    kind = file.parent.name.removesuffix("s") if file.suffix == ".tif" else file.parent.name
    named = "panel" if what == "panel.txt" else f"samples.P2.{kind}"
    for fold in ("P3", "P1"):  # one that is to be added, one that is there
        with pytest.raises(GeneDMLError, match=rf"run holds another run \({named}: another content\)"):
            train(samples, tmp_path / "run", config, fold=fold, **words)
    assert not (tmp_path / "run" / "fold-P3.safetensors").exists()


@pytest.mark.parametrize("what", ["counts/P2.tsv.gz", "slides/P2.tif"])
def test_a_file_exchanged_while_a_run_begins_is_noticed(own_world, tmp_path, monkeypatch, what):
    file, prepare = own_world / what, planning.prepare_encoder
    genes = list(pd.read_csv(own_world / "counts/P1.tsv.gz", sep="\t", index_col=0).columns)
    (own_world / "panel.txt").write_text("\n".join(genes))
    other = own_world / "other"
    if file.parent.name == "slides":
        shutil.copy(file.with_name(file.name.replace("P2", "P3")), other)
    else:
        content = file.read_bytes()
        head, *rows = (gzip.decompress(content) if file.suffix == ".gz" else content).rstrip().split(b"\n")
        turned = b"\n".join([head, *reversed(rows)])
        other.write_bytes(gzip.compress(turned) if file.suffix == ".gz" else turned)
    samples, config = read_sheet(own_world / "samples.csv"), tiny_config("training.epochs=1", "labels.panel_size=20")

    def exchange(*words: object) -> object:
        shutil.copy(other, file)
        return prepare(*words)

    monkeypatch.setattr(planning, "prepare_encoder", exchange)
    words = {"features": tmp_path / "features", "panel": str(own_world / "panel.txt")}
    with pytest.raises(GeneDMLError, match=rf"{re.escape(file.name)} was exchanged while this command ran"):
        train(samples, tmp_path / "run", config, fold="P1", **words)
    assert not list((tmp_path / "run").glob("fold-*"))


def test_a_run_writes_over_nothing_that_it_reads(own_world, tmp_path):
    run, samples = tmp_path / "run", read_sheet(own_world / "samples.csv")
    (run / "predictions").mkdir(parents=True)
    counts = Path(shutil.copy(samples[0].counts, run / "predictions" / "P1.h5ad"))
    panels = [run / "genes.csv", run / "ceiling.csv"]
    for panel in panels:
        panel.write_text("GENE1\nGENE2\n")
    before, words = {file: file.read_bytes() for file in (counts, *panels)}, {"features": tmp_path / "f"}
    refused = "is what is read, and would be written over"
    with pytest.raises(GeneDMLError, match=rf"P1\.h5ad {refused}"):
        train([replace(samples[0], counts=counts), *samples[1:]], run, tiny_config(), **words)
    for panel in panels:
        with pytest.raises(GeneDMLError, match=rf"{panel.name} {refused}"):
            train(samples, run, tiny_config(), panel=str(panel), **words)
    assert before == {file: file.read_bytes() for file in before}
