"""What a prediction says of its own worth: each gene's cross-validated score, each spot's novelty."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import LEARNING, tiny_config
from PIL import Image

from genedml.checkpoint import checkpoint_bytes, fingerprint, load_card, load_state, network_sha256
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.features.section_features import load_features
from genedml_cli.outputs.formats import export, write
from genedml_cli.prediction.prediction import predict
from genedml_cli.references.novelty import load_novelty
from genedml_cli.runs.run import train


def test_a_prediction_says_what_each_gene_was_worth_in_cross_validation(run, p1):
    data = predict(**p1, model=run)
    genes = pd.read_csv(run / "genes.csv", index_col="gene").loc[data.var_names]
    assert np.allclose(data.var["cv_pcc"], genes["pcc"], atol=1e-4)
    assert np.allclose(data.var["cv_pcc_sd"], genes["pcc_sd"], atol=1e-4, equal_nan=True)
    assert np.allclose(data.var["baseline_pcc"], genes["ridge_pcc"], atol=1e-4)
    alone = predict(**p1, model=run / "fold-P1.safetensors")
    assert np.allclose(alone.var["cv_pcc"][data.var_names], data.var["cv_pcc"])


def test_later_scores_leave_a_model_the_same_and_other_weights_do_not(run, tmp_path):
    file = run / "fold-P1.safetensors"
    card, state = load_card(file), load_state(file)
    scored, trained, changed = (tmp_path / f"{name}.safetensors" for name in ("scored", "trained", "changed"))
    scored.write_bytes(checkpoint_bytes(replace(card, cross_validated=None), state))
    trained.write_bytes(checkpoint_bytes(replace(card, training_patients=("P9",)), state))
    changed.write_bytes(checkpoint_bytes(card, {name: value + 1 for name, value in state.items()}))
    assert fingerprint(scored) == fingerprint(file)
    assert len({fingerprint(one) for one in (file, trained, changed)}) == 3


def test_min_cv_pcc_keeps_the_genes_that_reached_it(run, p1, tmp_path):
    every = predict(**p1, model=run)
    bar = float(every.var["cv_pcc"].median())
    kept = predict(**p1, model=run, min_cv_pcc=bar)
    assert set(kept.var_names) == set(every.var_names[every.var["cv_pcc"] >= bar])
    assert np.allclose(kept.X, every[:, kept.var_names].X)
    write(every, tmp_path / "every.h5ad")
    exported = export(tmp_path / "every.h5ad", tmp_path / "worthy.csv", min_cv_pcc=bar)
    assert list(exported.var_names) == list(kept.var_names)
    assert f"SELECTED: {kept.n_vars} of {every.n_vars} genes" in (tmp_path / "worthy.csv-metadata.json").read_text()
    named = export(tmp_path / "every.h5ad", tmp_path / "one.csv", [str(kept.var_names[0])], min_cv_pcc=bar)
    assert list(named.var_names) == [kept.var_names[0]]
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(GeneDMLError, match="No gene has a cross-validated PCC of 1"):
        predict(**p1, model=run, min_cv_pcc=1.0, out=tmp_path / "none.h5ad")
    assert not list(tmp_path.iterdir())


def test_folds_trained_one_by_one_end_with_the_scores_of_all(run, tmp_path, world):
    part = tmp_path / "part"
    shutil.copytree(run, part)
    for kind in ("fold", "novelty", "ridge"):
        (part / f"{kind}-P2.safetensors").unlink()
    samples, features = read_sheet(world / "samples.csv"), run.parent / "features"
    train(samples, part, tiny_config(*LEARNING), fold="P1", features=features)
    assert load_card(part / "fold-P1.safetensors").cross_validated.folds == (2,) * 20
    train(samples, part, tiny_config(*LEARNING), features=features)
    cards = [load_card(folder / "fold-P1.safetensors") for folder in (run, part)]
    assert cards[0].cross_validated.folds == (3,) * 20
    assert repr(cards[0].cross_validated) == repr(cards[1].cross_validated)


def test_held_out_spots_are_familiar_and_a_slide_of_another_kind_is_not(run, p1, tmp_path, capfd):
    held_out = predict(**p1, model=run, fold="P1")
    assert held_out.obs["novelty"].mean() == pytest.approx(0.5, abs=0.05)
    assert "NOVEL" not in " ".join(held_out.uns["genedml"]["notes"])
    with Image.open(p1["slide"]) as image:
        Image.fromarray(255 - np.asarray(image.convert("RGB"))).save(tmp_path / "negative.png")
    capfd.readouterr()
    negative = predict(tmp_path / "negative.png", p1["spots"], run, um_per_px=0.5, allow_off_tissue=True)
    assert negative.obs["novelty"].min() > 0.99
    assert any(note.startswith("NOVEL: 100% of this slide's spots") for note in negative.uns["genedml"]["notes"])
    assert "unlike the training slides (novelty above 0.95; of a slide like them it is 5%)" in " ".join(
        capfd.readouterr().err.split()
    )


def test_novelty_is_the_share_of_held_out_spots_that_were_nearer(run):
    own = {name: load_features(next((run.parent / "features").glob(f"{name}.*"))) for name in ("P1", "P2", "P3")}
    measure = load_novelty(run / "novelty-P1.safetensors", network_sha256(run / "fold-P1.safetensors"))
    train = np.concatenate([own[name].at_three_scales for name in ("P2", "P3")])
    mean, sd = train.mean(axis=0), train.std(axis=0)
    direction = np.linalg.svd((train - mean) / sd, full_matrices=False)[2][:16]
    points = [(pooled - mean) / sd @ direction.T for pooled in (own["P1"].at_three_scales, train)]
    distance = np.sort(np.linalg.norm(points[0][:, None] - points[1][None], axis=2), axis=1)[:, :10].mean(axis=1)
    nearer = np.array([(distance < one).mean() for one in distance])
    assert np.allclose(measure.novelty(own["P1"]), nearer, atol=0.05)


def test_a_broken_novelty_file_is_refused_and_a_missing_one_leaves_the_column_out(run, p1, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    (own / "novelty-P1.safetensors").write_bytes(b"no tensors")
    with pytest.raises(GeneDMLError):
        predict(**p1, model=own)
    for kind in ("novelty", "ridge"):
        shutil.copy(own / f"{kind}-P2.safetensors", own / f"{kind}-P1.safetensors")
        with pytest.raises(GeneDMLError, match=rf"{kind}-P1\.safetensors cannot be read: it is of (an)?other "):
            predict(**p1, model=own)
        shutil.copy(run / f"{kind}-P1.safetensors", own)
    (own / "novelty-P1.safetensors").unlink()
    assert "novelty" not in predict(**p1, model=own).obs
