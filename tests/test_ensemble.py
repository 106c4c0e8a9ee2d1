"""Folds that predict together: each file is read and hashed once, whatever is predicted with it."""

import numpy as np
import pytest
import torch

from genedml import checkpoint
from genedml.checkpoint import checkpoint_bytes, load_card, load_checkpoint, load_state
from genedml.errors import GeneDMLError
from genedml.networks.registry import build
from genedml_cli.machine.compute import Compute
from genedml_cli.outputs.run_folder import model_files
from genedml_cli.prediction.ensemble import load_models
from genedml_cli.prediction.prediction import predict_slide
from genedml_cli.spots.placing import Placing


def test_a_folds_file_is_hashed_once_for_many_slides_and_predicts_as_what_it_holds(run, p1, monkeypatch):
    hashed = []
    own = checkpoint.weights_sha256
    monkeypatch.setattr(checkpoint, "weights_sha256", lambda state: hashed.append(1) or own(state))
    files = model_files(run)
    models = load_models(files, compute=Compute("cpu"))
    first, second = (predict_slide(models, p1["slide"], p1["spots"], Placing()) for _ in range(2))
    assert len(hashed) == len(files) == 3
    assert np.array_equal(first.X, second.X)
    for number, file in enumerate(files):
        held = models.network(number).state_dict()
        assert all(torch.equal(held[key], value) for key, value in load_state(file).items())
        assert not models.network(number).training


def test_a_model_holds_no_more_than_it_predicts_with_and_one_that_does_predicts_the_same(run, tmp_path):
    file, older = run / "fold-P1.safetensors", tmp_path / "fold-P1.safetensors"
    card, state = load_card(file), load_state(file)
    whole = build(card.config.method, card.config.network, card.shape).state_dict()
    more = {name: value for name, value in whole.items() if name not in state}
    assert {name.split(".")[0] for name in more} == {"gene_encoder", "image_group", "gene_group"}
    older.write_bytes(checkpoint_bytes(card, state | more))
    assert set(load_state(older)) == set(whole)
    held = load_checkpoint(older)[1].state_dict()
    assert held.keys() == state.keys()
    assert all(torch.equal(held[name], value) for name, value in state.items())
    more.popitem()
    older.write_bytes(checkpoint_bytes(card, state | more))
    with pytest.raises(GeneDMLError, match=r"do not fit its own card \(1 of them"):
        load_checkpoint(older)
