"""Folds that predict together: each file is read and hashed once, whatever is predicted with it."""

import numpy as np
import torch

from genedml import checkpoint
from genedml.checkpoint import load_state
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
