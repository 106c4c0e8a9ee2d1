"""The paper's protocol: its rows beside ours, external sections, the ceiling, native views, label targets."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from PIL import Image
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from genedml.checkpoint import load_card, network_sha256
from genedml.config import TARGETS, LabelsConfig, ViewsConfig, load_config, target_name
from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml.metrics import attainable, morans_i, nanmean, pcc
from genedml_cli.app import app
from genedml_cli.commands import options
from genedml_cli.commands.choices import choose_config, known_scale, to_overrides
from genedml_cli.commands.tables.external import show_external
from genedml_cli.commands.tables.scores import show_evaluation
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.evaluation import external, published
from genedml_cli.evaluation.ceiling import seed_of, split_half_pcc, thin
from genedml_cli.evaluation.checklist import POINTS
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.evaluation.external import evaluate_external
from genedml_cli.evaluation.points import State
from genedml_cli.evaluation.published import rows_beside
from genedml_cli.evaluation.scores import FULL_METRICS, Evaluation, FoldScores
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.labels import make_labels
from genedml_cli.features.extraction import encode_section, extract
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of, set_record
from genedml_cli.outputs.predictions import UNSMOOTHED
from genedml_cli.prediction.prediction import predict
from genedml_cli.references.linear import load_linear, predict_linear
from genedml_cli.runs.run import train
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of one epoch, trained as if the tiny world were HER2ST."""
    out = tmp_path_factory.mktemp("protocol") / "run"
    config = tiny_config()
    train(read_sheet(world / "samples.csv"), out, config, features=out.parent / "features", dataset="HER2ST")
    return out


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sheet of two sections of donors that no run has seen; the second lacks five genes of the panel."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_dataset(folder, SyntheticConfig(patients=2, spots_x=7, spots_y=6, genes=20, seed=9))
    counts = pd.read_csv(folder / "counts/P2.tsv.gz", sep="\t", index_col=0)
    renamed = {gene: f"other{number}" for number, gene in enumerate(counts.columns[:5])}
    counts.rename(columns=renamed).to_csv(folder / "counts/P2.tsv.gz", sep="\t")
    sheet = pd.read_csv(folder / "samples.csv")
    sheet.assign(sample=["X1", "X2"], patient=["Q1", "Q2"]).drop(columns="fold", errors="ignore").to_csv(
        folder / "samples.csv", index=False
    )
    return folder / "samples.csv"


# The paper's rows


def test_paper_rows_stand_over_a_run_of_their_data_set(run, monkeypatch, capsys):
    genes = load_card(run / "fold-P1.safetensors").genes
    monkeypatch.setattr(published, "published_panel", lambda name: genes)
    result = evaluate(run)
    show_evaluation(result, "")
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    names = [" ".join(words[:2]) for words in shown if len(words) > 4]
    assert names.index("Gene-DML (paper)") < names.index("Gene-DML fold")
    assert ["Gene-DML", "(paper)", "0.210", "±.030", "0.350", "±.040"] in [words[:6] for words in shown]
    table = pd.read_csv(run / "metrics.csv")
    paper = table[table["source"] == "paper"].set_index(["method", "fold"])
    assert paper.loc[("TRIPLEX (paper)", "mean"), "pcc_a"] == 0.314
    assert paper.loc[("TRIPLEX (paper)", "sd"), "mae"] == 0.05
    assert set(table[table["source"] == "measured"]["method"]) == {
        "Gene-DML",
        "ridge",
        "ridge own tile",
        "place alone",
        "depth alone",
        "constant",
    }
    written = json.loads((run / "metrics.json").read_text())
    assert {row["method"] for row in written["published"]} >= {"ST-Net", "Gene-DML"}
    assert written["methods"]["Gene-DML"]["mse"]["mean"] == pytest.approx(
        result.summary().loc["Gene-DML", "mse"].iloc[0]
    )


# All scores


def test_evaluate_in_full_prints_every_score_of_every_method_and_a_checklist(run):
    (run / "ceiling.csv").unlink(missing_ok=True)
    narrow, full = (CliRunner().invoke(app, ["evaluate", str(run), *more]) for more in ([], ["--full"]))
    assert narrow.exit_code == full.exit_code == 0
    rows = {line.split("  ")[0].strip() for line in full.output.splitlines()}
    assert set(FULL_METRICS.values()) <= rows
    assert not {"variance ratio", "share of ceiling"} & {line.split("  ")[0] for line in narrow.output.splitlines()}
    assert "Checklist, whole patients left out: done: " in narrow.output
    assert "ceiling of the labels: not done" in narrow.output
    assert "ceiling of the labels: not" not in full.output
    written = json.loads(CliRunner().invoke(app, ["evaluate", str(run), "--json"]).stdout)
    assert all(set(scores) == set(FULL_METRICS) for scores in written["methods"].values())
    assert [point["point"] for point in written["checklist"]] == list(POINTS)


def test_without_the_counts_all_but_the_ceiling_is_there_in_full(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/ceiling.csv").unlink(missing_ok=True)
    record = json.loads((run / "run.json").read_text())
    for sample in record["samples"]:
        sample["counts"] = str(tmp_path / "gone.tsv.gz")
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    result = evaluate(tmp_path / "run", ceiling_if_possible=True)
    (point,) = (point for point in result.checklist if point.name == "ceiling of the labels")
    assert point.state is State.NOT_POSSIBLE
    assert "There are no counts" in point.why
    pd.testing.assert_frame_equal(result.summary(), evaluate(tmp_path / "run").summary())


# What a run keeps for its scores


def test_a_run_keeps_unsmoothed_labels_and_morans_i_of_its_training_sections(run, world):
    samples = {sample.name: sample for sample in read_sheet(world / "samples.csv")}
    card, tested = load_card(run / "fold-P1.safetensors"), read_prediction(run / "predictions/P1.h5ad")
    alone = replace(card.config.labels, smooth=False)

    def unsmoothed(name: str) -> tuple[np.ndarray, Spots]:
        spots = read_spots(samples[name].spots)
        labels = make_labels(read_counts(samples[name].counts), spots, card.genes, alone)
        assert labels.valid.all()
        return labels.y, spots

    np.testing.assert_array_equal(tested.layers[UNSMOOTHED], unsmoothed("P1")[0])
    each = [morans_i(y, spots.neighbors()) for y, spots in map(unsmoothed, ("P2", "P3"))]
    np.testing.assert_allclose(tested.var["morans_i"], np.nanmean(each, axis=0))
    assert card.scores["morans_i"] == tested.var["morans_i"].tolist()


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "paper"])
def test_paper_rows_never_stand_beside_other_labels(name):
    panel = published_panel("HER2ST")
    assert len(rows_beside("HER2ST", LabelsConfig(), [panel])[0]) == 8
    rows, (said,) = rows_beside("HER2ST", TARGETS[name], [panel])
    assert not rows
    assert "left out: its labels are log10(1 + 10000 * count / sum over the panel), mean" in said.text


def test_paper_rows_need_the_published_panel_and_a_data_set():
    rows, (said,) = rows_beside("HER2ST", LabelsConfig(), [published_panel("STNet")])
    assert not rows
    assert "not the published panel of HER2ST" in said.text
    for unknown in ("", "visium-breast"):
        assert rows_beside(unknown, LabelsConfig(), [published_panel("STNet")]) == ((), ())


def test_a_run_of_one_fold_is_marked_in_every_table(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/predictions/P2.h5ad").unlink()
    result = evaluate(tmp_path / "run")
    assert result.marks.endswith("UNFINISHED: 2 of 3 folds.")
    assert (result.values()["marks"] == result.marks).all()
    assert "UNFINISHED" not in evaluate(run).marks


@pytest.mark.parametrize(("name", "kind"), [("missing.h5ad", "prediction"), ("missing", "run")])
def test_what_is_not_there_is_called_so(name, kind, tmp_path):
    with pytest.raises(GeneDMLError, match=rf"There is no {kind} .*{name}\. Check the path"):
        evaluate(tmp_path / name)


def test_labels_of_two_kinds_are_never_one_table(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/predictions/P2.h5ad"
    data = anndata.read_h5ad(file)
    record = record_of(data)
    set_record(data, replace(record, label_settings=replace(record.label_settings, smooth=False)))
    data.write_h5ad(file)
    with pytest.raises(GeneDMLError, match=r"P2\.h5ad has labels .* never stand in one table"):
        evaluate(tmp_path / "run")


def fold_scores(fold: str, pcc: np.ndarray, held_out: np.ndarray) -> FoldScores:
    genes = tuple(f"G{number}" for number in range(len(pcc)))
    return FoldScores("Gene-DML", fold, genes, 0.1, 0.2, float(pcc.mean()), 0.0, pcc, held_out, 0)


def test_pcc_h_is_of_the_best_mean_rank_over_folds_and_held_out_of_the_training_side():
    rng = np.random.default_rng(1)
    pcc, held_out = rng.normal(size=(3, 60)), rng.normal(size=(3, 60))
    scores = tuple(fold_scores(str(fold), pcc[fold], held_out[fold]) for fold in range(3))
    values = Evaluation("", scores, (), Path()).values()
    rank = (-pcc).argsort(axis=1).argsort(axis=1).mean(axis=0)
    best = sorted(range(60), key=lambda gene: rank[gene])[:50]
    assert values["pcc_h"].to_numpy() == pytest.approx(pcc[:, best].mean(axis=1))
    own = [pcc[fold, (-held_out[fold]).argsort()[:50]].mean() for fold in range(3)]
    assert values["pcc_h_held_out"].to_numpy() == pytest.approx(own)


# External sections


def test_external_scores_are_those_of_every_folds_own_prediction(run, elsewhere, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(external, "read_counts", lambda path: read.append(path.name) or read_counts(path))
    result = evaluate_external(run, str(elsewhere), features=run.parent / "features")
    assert read == ["P1.tsv.gz", "P2.tsv.gz"]
    values = result.values().query("method == 'Gene-DML'").set_index(["section", "fold"])
    assert [*values.index] == [(section, fold) for section in ("X1", "X2") for fold in ("P1", "P2", "P3")]
    for section, source in (("X1", "P1"), ("X2", "P2")):
        slide, spots = (elsewhere.parent / kind for kind in (f"slides/{source}.tif", f"spots/{source}.csv"))
        predict(slide, spots, run, tmp_path / "own.h5ad", fold="P3", force=True)
        alone = evaluate(tmp_path / "own.h5ad", elsewhere.parent / f"counts/{source}.tsv.gz")
        own = alone.values().query("method == 'Gene-DML'").iloc[0]
        for metric in ("mse", "mae", "pcc_a", "pcc_given_depth", "pcc_unsmoothed", "pcc_moran_high", "coverage"):
            assert values.loc[(section, "P3"), metric] == pytest.approx(own[metric], rel=1e-3, abs=1e-4)
        assert values.loc[(section, "P3"), "above_null"] == own["above_null"]
    summary = result.sections[0].summary()
    assert list(summary.index) == ["Gene-DML", "ridge", "ridge own tile", "place alone", "depth alone", "constant"]
    assert summary.loc["Gene-DML", ("mse", "std")] > 0


def test_the_ceiling_of_external_sections_is_of_the_labels_of_their_halves(run, elsewhere, capsys):
    features = run.parent / "features"
    plain = evaluate_external(run, str(elsewhere), features=features)
    full = evaluate_external(run, str(elsewhere), features=features, ceiling_if_possible=True)
    shared = [name for name in full.values()["method"].unique() if name in set(plain.values()["method"])]
    columns = [key for key in FULL_METRICS if not key.startswith("share_of_ceiling")]
    ours = full.values().set_index(["section", "method", "fold"]).loc[pd.IndexSlice[:, shared, :], columns]
    theirs = plain.values().set_index(["section", "method", "fold"])[columns]
    pd.testing.assert_frame_equal(ours, theirs.loc[ours.index])
    section, card = full.sections[1], load_card(run / "fold-P2.safetensors")
    counts = read_counts(elsewhere.parent / "counts/P2.tsv.gz")
    genes = tuple(gene for gene in card.genes if gene in set(counts.var_names))
    spots = read_spots(elsewhere.parent / "spots/P2.csv")
    expected, _ = split_half_pcc(
        counts, lambda table: make_labels(table, spots, genes, card.config.labels), seed_of("X2")
    )
    halves = next(score for score in section.split_halves if score.fold == "P2")
    assert halves.genes == genes
    np.testing.assert_allclose(halves.pcc, expected)
    own = section.values().set_index(["method", "fold"])
    most = next(score.pcc for score in section.ceiling if score.fold == "P2")
    assert own.loc[("ridge", "P2"), "share_of_ceiling"] == pytest.approx(
        own.loc[("ridge", "P2"), "pcc_a"] / most.mean(), rel=1e-6
    )
    show_external(full, full=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert "X2 in full; mean ±sd over models" in shown
    assert "ceiling of the labels: done: X1: the score is" in shown


def test_counts_without_halves_leave_external_sections_without_a_ceiling_and_say_why(run, elsewhere, tmp_path):
    shutil.copytree(elsewhere.parent, tmp_path / "smooth")
    for file in (tmp_path / "smooth/counts").iterdir():
        (pd.read_csv(file, sep="\t", index_col=0) + 0.5).to_csv(file, sep="\t")
    sheet = tmp_path / "smooth/samples.csv"
    result = evaluate_external(run, str(sheet), features=run.parent / "features", ceiling_if_possible=True)
    points = {point.name: point for point in result.checklist}
    assert points["ceiling of the labels"].state is State.NOT_POSSIBLE
    assert "not whole numbers" in points["ceiling of the labels"].why
    assert not result.sections[0].split_halves


def test_unmatched_genes_are_counted_and_named(run, elsewhere, tmp_path, capsys):
    show_external(evaluate_external(run, str(elsewhere), features=run.parent / "features"))
    shown = capsys.readouterr().out
    assert "X1, 20/20 genes" in shown
    assert "X2, 15/20 genes" in shown
    assert "Checklist, whole patients left out: done: " in shown
    assert "ceiling of the labels: not done: genedml evaluate with --full computes" in " ".join(shown.split())
    assert "X2: Genes: 15 of the panel's 20 are in the counts; not there: " in shown
    written = json.loads((run / "external-samples/metrics.json").read_text())["sections"]
    assert (len(written["X1"]["unmatched_genes"]), len(written["X2"]["unmatched_genes"])) == (0, 5)
    table = pd.read_csv(run / "external-samples/metrics.csv").groupby("section")["genes"].first()
    assert table.to_dict() == {"X1": 20, "X2": 15}


def test_external_references_are_the_runs_own(run, world, elsewhere, tmp_path):
    card = load_card(run / "fold-P1.safetensors")
    tested = anndata.read_h5ad(run / "predictions/P1.h5ad")
    (sample,) = (sample for sample in read_sheet(world / "samples.csv") if sample.name == "P1")
    features = extract([sample], load_encoder("tiny"), ViewsConfig(), tmp_path / "features")["P1"]
    fold, network = run / "fold-P1.safetensors", network_sha256(run / "fold-P1.safetensors")
    layers = predict_linear(load_linear(fold, card.genes, network), features)
    assert list(layers) == ["ridge", "ridge_own_tile", "place_alone"]  # nuclei are a column of stain-texture alone
    for layer, predicted in layers.items():
        again = pd.DataFrame(predicted, features.spots.names)
        np.testing.assert_allclose(again.loc[tested.obs_names], tested.layers[layer], atol=1e-4)
    with pytest.raises(GeneDMLError, match="other genes"):
        load_linear(fold, card.genes[:3], network)
    with pytest.raises(GeneDMLError, match="it is of another fold or run"):
        load_linear(fold, card.genes, network_sha256(run / "fold-P2.safetensors"))


def test_sections_of_donors_seen_in_training_are_left_out_and_named(run, world, elsewhere, tmp_path):
    new, seen = pd.read_csv(elsewhere), pd.read_csv(world / "samples.csv")
    for table, folder in ((new, elsewhere.parent), (seen, world)):
        for column in ("slide", "spots", "counts"):
            table[column] = [str(folder / path) for path in table[column]]
    slide = seen.iloc[[0]].assign(sample="renamed", patient="nobody")
    patient = new.iloc[[0]].assign(sample="again", patient="P2")
    mixed, old = tmp_path / "mixed.csv", tmp_path / "old.csv"
    pd.concat([new.iloc[[1]], slide, patient])[seen.columns.intersection(new.columns)].to_csv(mixed, index=False)
    result = evaluate_external(run, str(mixed), features=run.parent / "features")
    assert [one.title for one in result.sections] == ["X2"]
    assert any("renamed (this very slide), again (of P2)" in note.text for note in result.notes)
    seen.to_csv(old, index=False)
    with pytest.raises(GeneDMLError, match=r"Nothing of .*old\.csv is external to .*P1 \(of P1\)"):
        evaluate_external(run, str(old), features=run.parent / "features")


def test_too_few_genes_in_common_are_an_error(run, elsewhere, tmp_path):
    folder = tmp_path / "mouse"
    shutil.copytree(elsewhere.parent, folder)
    for file in (folder / "counts").iterdir():
        counts = pd.read_csv(file, sep="\t", index_col=0)
        keep = counts.columns[:9]
        counts.rename(columns=lambda gene, keep=keep: gene if gene in keep else f"{gene}x").to_csv(file, sep="\t")
    with pytest.raises(GeneDMLError, match="of the panel's 20 genes, too few") as caught:
        evaluate_external(run, str(folder / "samples.csv"), features=run.parent / "features")
    assert "This was section X1." in caught.value.__notes__


def test_table_2_stands_beside_visium_breast_only(run, elsewhere, monkeypatch, tmp_path, capsys):
    genes = load_card(run / "fold-P1.safetensors").genes
    monkeypatch.setattr(published, "published_panel", lambda name: genes)
    monkeypatch.setattr("genedml_cli.evaluation.external_sections.dataset", lambda *words: read_sheet(elsewhere))
    result = evaluate_external(run, "visium-breast", features=run.parent / "features")
    show_external(result)
    shown = capsys.readouterr().out
    assert "10x Visium-3 (paper)" in shown
    assert shown.index("Gene-DML (paper)") < shown.index("X1, 20/20")
    marks = result.values()["marks"]
    assert marks.str.startswith("PARTIAL: 2 of the 7 sections of visium-breast.").all()
    assert marks.str.contains("FEW PATIENTS").all()
    assert len(result.published) == 15
    assert not evaluate_external(run, str(elsewhere), features=run.parent / "features").published


def test_counts_that_lack_some_genes_score_the_others(run, elsewhere, tmp_path):
    folder = elsewhere.parent
    predict(folder / "slides/P2.tif", folder / "spots/P2.csv", run, tmp_path / "p2.h5ad")
    result = evaluate(tmp_path / "p2.h5ad", folder / "counts/P2.tsv.gz")
    assert len(result.unmatched) == 5
    assert len(result.per_gene()) == 15
    assert np.isfinite(result.summary().loc["Gene-DML", ("mse", "mean")])
    assert any(note.text.startswith("Genes: 15 of the panel's 20") for note in result.notes)


# The ceiling


def table_of(counts: np.ndarray) -> tuple[anndata.AnnData, Spots]:
    array_xy = np.array([(x, y) for y in range(20) for x in range(20)])
    spots = Spots(tuple(f"{x}x{y}" for x, y in array_xy), 500.0 + 100.0 * array_xy, array_xy)
    obs, var = pd.DataFrame(index=spots.names), pd.DataFrame(index=[f"G{gene}" for gene in range(counts.shape[1])])
    return anndata.AnnData(csr_matrix(counts, dtype=np.float32), obs=obs, var=var), spots


def test_halves_are_whole_and_as_likely(tmp_path):
    counts, _ = table_of(np.random.default_rng(0).poisson(5, (400, 30)))
    first, second = thin(counts, np.random.default_rng(1))
    np.testing.assert_array_equal((first.X + second.X).toarray(), counts.X.toarray())
    assert first.X.sum() / counts.X.sum() == pytest.approx(0.5, abs=0.01)
    counts.X.data[0] = 0.5
    with pytest.raises(GeneDMLError, match="not whole numbers"):
        thin(counts, np.random.default_rng(1))


def halves_of(counts, spots, genes, labels):
    return split_half_pcc(counts, lambda table: make_labels(table, spots, genes, labels), 0)


def test_the_ceiling_tells_signal_from_noise():
    rng = np.random.default_rng(2)
    signal = rng.lognormal(0, 1, (400, 12))
    genes = [f"G{gene}" for gene in range(12)]
    deep, flat = table_of(rng.poisson(3000 * signal)), table_of(rng.poisson(3, (400, 12)))
    assert nanmean(halves_of(*deep, genes, LabelsConfig())[0]) > 0.98
    assert abs(nanmean(halves_of(*flat, genes, LabelsConfig(smooth=False))[0])) < 0.15
    # Whoever knows the rates scores what the split halves say is attainable.
    counts, spots = table_of(rng.poisson(3 * signal))
    labels = LabelsConfig(scale=1.0, smooth=False)
    truth = np.log10(1 + signal / signal.sum(axis=1, keepdims=True))
    knowing = nanmean(pcc(make_labels(counts, spots, genes, labels).y, truth))
    split_half = np.array([nanmean(halves_of(counts, spots, genes, labels)[0])])
    assert 0.5 < split_half[0] < knowing - 0.05
    assert attainable(split_half)[0] == pytest.approx(knowing, abs=0.02)


def test_attainable_is_the_root_of_the_reliability():
    assert attainable(np.array([0.48, 1.0, 0.0])) == pytest.approx([0.805, 1, 0], abs=5e-4)
    assert attainable(np.array([-0.1])) == 0  # halves that disagree
    assert np.isnan(attainable(np.array([np.nan]))).all()
    # The truth against itself with noise of equal strength: halves of it agree at 1/3, it is found at 1/sqrt(2).
    rng = np.random.default_rng(3)
    truth = rng.normal(size=200_000)
    first, second = truth + rng.normal(0, 2**0.5, (2, len(truth)))
    whole = (first + second) / 2
    split_half = np.corrcoef(first, second)[:1, 1]
    assert np.corrcoef(truth, whole)[0, 1] == pytest.approx(attainable(split_half)[0], abs=5e-3)


def test_a_run_with_its_ceiling_has_two_rows_more_and_keeps_them(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    result = evaluate(copy, with_ceiling=True)
    values, summary = result.values(), result.summary()
    assert list(summary.index)[-2:] == ["split halves", "attainable"]
    for halves, row in zip(result.split_halves, values[values["method"] == "attainable"]["pcc_a"], strict=True):
        r = np.clip(halves.pcc, 0, None)
        assert row == pytest.approx(np.mean(np.sqrt(2 * r / (1 + r))))
    assert summary["mse"].loc[["split halves", "attainable"]].isna().all(axis=None)
    written = [(copy / name).read_text() for name in ("metrics.csv", "genes.csv")]
    assert "split_halves_pcc" in written[1]
    record = json.loads((copy / "run.json").read_text())
    for sample in record["samples"]:
        sample["counts"] = "gone.tsv.gz"
    (copy / "run.json").write_text(json.dumps(record))
    evaluate(copy)
    assert [(copy / name).read_text() for name in ("metrics.csv", "genes.csv")] == written


def test_a_prediction_has_a_ceiling_where_its_counts_are_raw(run, world, tmp_path):
    predict(world / "slides/P1.tif", world / "spots/P1.csv", run, tmp_path / "own.h5ad", fold="P1")
    result = evaluate(tmp_path / "own.h5ad", world / "counts/P1.tsv.gz", with_ceiling=True)
    assert 0 < result.summary().loc["attainable", ("pcc_a", "mean")] <= 1
    of_run = next(fold for fold in evaluate(run, with_ceiling=True).split_halves if fold.fold == "P1")
    assert result.split_halves[0].pcc == pytest.approx(of_run.pcc, abs=0.3)  # another toss of the coin


def test_a_ceiling_needs_the_counts_of_a_run(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/ceiling.csv").unlink(missing_ok=True)
    record = json.loads((run / "run.json").read_text())
    for sample in record["samples"]:
        sample["counts"] = "gone.tsv.gz"
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(GeneDMLError, match=r"There are no counts gone\.tsv\.gz") as caught:
        evaluate(tmp_path / "run", with_ceiling=True)
    assert "where train found them" in caught.value.__notes__[0]


@pytest.mark.data
def test_the_halves_of_her2st_agree_as_the_method_says(her2st, her2st_counts):
    panel = published_panel("HER2ST")
    scores = [
        nanmean(halves_of(counts, read_spots(her2st / f"ST-spotfiles/{name}_selection.tsv"), panel, LabelsConfig())[0])
        for name, counts in her2st_counts.items()
    ]
    assert np.mean(scores) == pytest.approx(0.48, abs=0.005)
    assert attainable(np.array([np.mean(scores)]))[0] == pytest.approx(0.80, abs=0.01)


# Native views


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """An image without um/px and without structure, so that any shift or resampling shows."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1300, 3), np.uint8)).save(path)
    return path


def test_native_tiles_are_level_0_pixels(noise, monkeypatch):
    spots = Spots(("a", "b"), np.array([[300.0, 300.0], [851.0, 444.0]]))
    encoder, seen = load_encoder("tiny"), []
    forward = type(encoder).forward
    monkeypatch.setattr(
        type(encoder), "forward", lambda self, tiles, *_: seen.extend(tiles.numpy()) or forward(self, tiles)
    )
    with open_slide(noise) as slide:
        encode_section(slide, spots, encoder, ViewsConfig(um_per_px="native", neighbor_grid=1))
    pixels = np.asarray(Image.open(noise))
    for x, y in ((300, 300), (851, 444)):
        expected = pixels[y - 112 : y + 112, x - 112 : x + 112]
        assert any(np.array_equal(tile, expected) for tile in seen)


def test_native_features_are_the_same_file_whether_um_per_px_is_known_or_not(noise, tmp_path):
    table = tmp_path / "spots.csv"
    pd.DataFrame({"name": ["a", "b"], "x": [300, 700], "y": [300, 500]}).to_csv(table, index=False)
    sample = Sample("s", noise, table, table, "p", "p")
    encoder = load_encoder("tiny")
    with pytest.raises(GeneDMLError):
        extract([sample], encoder, ViewsConfig(), tmp_path / "features")
    known = []
    for one in (sample, replace(sample, um_per_px=0.7), sample):
        found = extract([one], encoder, ViewsConfig(um_per_px="native"), tmp_path / "features")["s"]
        known.append((found.um_per_px, pickle.loads(pickle.dumps(found)).um_per_px))
    assert known == [(None, None), (0.7, 0.7), (None, None)]
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_a_native_model_predicts_a_slide_without_um_per_px(world, tmp_path, capsys):
    config = tiny_config("views.um_per_px=native")
    run, features = tmp_path / "run", tmp_path / "features"
    train(read_sheet(world / "samples.csv"), run, config, fold="P1", features=features)
    assert load_config(file=run / "config.toml") == config
    assert load_card(run / "fold-P1.safetensors").um_per_px == pytest.approx((0.5, 0.5))
    plain = tmp_path / "P1.png"
    with open_slide(world / "slides/P1.tif") as slide:
        slide.source.read(0, 0, 0, *slide.size_px).save(plain)
    data = predict(plain, world / "spots/P1.csv", run, tmp_path / "out.h5ad")
    assert "um/px of the slide P1.png is not known" in capsys.readouterr().err
    tiled = predict(world / "slides/P1.tif", world / "spots/P1.csv", run)
    np.testing.assert_allclose(data.X, tiled.X, atol=1e-4)
    stored = anndata.read_h5ad(tmp_path / "out.h5ad").uns
    assert stored["genedml"]["views_um_per_px"] == "native"
    assert "um_per_px" not in stored["genedml"]
    assert tiled.uns["genedml"]["um_per_px"] == pytest.approx(0.5)
    assert "um_per_px" not in stored["spatial"]["P1"]["metadata"]
    with pytest.raises(GeneDMLError, match=r"P1\.png has 0\.25 um/px\..*trained on slides of 0\.5 to 0\.5 um/px"):
        predict(plain, world / "spots/P1.csv", run, um_per_px=0.25)
    predict(plain, world / "spots/P1.csv", run, um_per_px=0.42)


def test_a_native_run_over_several_scales_is_marked(world, tmp_path):
    config, features = tiny_config("views.um_per_px=native", "training.epochs=1"), tmp_path / "features"
    samples = [replace(one, um_per_px=1.5 if one.name == "P3" else None) for one in read_sheet(world / "samples.csv")]
    marks = {name: train(samples, tmp_path / name, config, fold=name, features=features).marks for name in ("P3", "P1")}
    assert (
        "SCALES: views are in level-0 pixels: P3 (1.5 um/px) meet training sections of 0.5 to 0.5 um/px" in marks["P3"]
    )
    assert "SCALES" not in marks["P1"]


# Options


def test_targets_are_options_and_change_the_labels_alone():
    assert [target.value for target in options.Target] == list(TARGETS)
    for name, labels in TARGETS.items():
        config = choose_config(None, None, "small", None, ["labels.panel_size=7"], target=name)
        assert config.labels == replace(labels, panel_size=7)
        assert target_name(config.labels) == name
    assert target_name(LabelsConfig(scale=1.0)) is None
    assert TARGETS["log1p-10k"].describe() == "ln(1 + 10000 * count / sum over all genes)"
    assert TARGETS["pearson-unsmoothed"].describe() == (
        "Pearson residual of the count, given the spot's total over all genes"
    )
    with pytest.raises(GeneDMLError, match=r"take the totals of all genes \(labels\.library=all\).*--target pearson"):
        choose_config(None, None, "small", None, ["labels.transform=pearson"])


def test_options_of_selection_and_views_win_over_set():
    said = to_overrides(["training.select_on=validation"], select_on="test", um_per_px="native")
    config = choose_config(None, None, "small", None, said)
    assert (config.training.select_on, config.views.um_per_px) == ("test", "native")
    assert [known_scale(text) for text in (None, "0.687", "native")] == [None, 0.687, None]
    assert to_overrides([], um_per_px="0.687") == []
