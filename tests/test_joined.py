"""Encoders joined by ``+``: their vectors side by side, through training and prediction as one."""

import numpy as np
import pytest
import torch
from conftest import tiny_config

from genedml.checkpoint import load_card
from genedml.encoders.encoder import load_encoder
from genedml.encoders.joined import load_encoders
from genedml.encoders.table import licence_of
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train

NAME = "stain-texture+tiny"


def test_vectors_stand_side_by_side_on_the_coarser_grid():
    tiles = torch.from_numpy(np.random.default_rng(4).integers(0, 255, (3, 224, 224, 3), dtype=np.uint8))
    first, second, both = load_encoder("stain-texture"), load_encoder("tiny"), load_encoders(NAME)
    one, two, joined = first(tiles), second(tiles), both(tiles)
    width = first.info.width
    assert (both.info.tokens, both.info.width) == joined.tokens.shape[1:] == (1 + 4, width + 8)
    assert torch.equal(joined.pooled, torch.cat([one.pooled, two.pooled], dim=1))
    assert torch.equal(joined.tokens[:, 0], joined.pooled)
    assert torch.equal(joined.tokens[..., width:], two.tokens)  # its five tokens are the coarser grid
    quarter = one.tokens[:, 1:].reshape(3, 14, 14, width)[:, 7:, :7].mean(dim=(1, 2))  # left below
    assert torch.allclose(joined.tokens[:, 3, :width], quarter, atol=1e-5)


def test_joined_encoders_are_known_by_all_of_them_and_their_order():
    hashes = {load_encoders(name).weights_sha256 for name in (NAME, "tiny+stain-texture", "tiny", "stain-texture")}
    assert len(hashes) == 4
    assert licence_of("uni+phikon") == "CC BY-NC-ND 4.0 and Owkin, non-commercial"


def test_a_model_on_joined_encoders_predicts_its_test_section_again(world, p1, tmp_path):
    config = tiny_config(f"encoder={NAME}", "views.neighbor_grid=1")
    train(read_sheet(world / "samples.csv"), tmp_path / "run", config, fold="P1", features=tmp_path / "features")
    assert load_card(tmp_path / "run" / "fold-P1.safetensors").encoder.name == NAME
    stored = read_prediction(tmp_path / "run" / "predictions" / "P1.h5ad")
    found = predict(p1["slide"], p1["spots"], tmp_path / "run")
    np.testing.assert_allclose(found[stored.obs_names, stored.var_names].X, stored.X, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny+", "tiny+tiny", "tiny+unni"])
def test_names_that_join_nothing_are_refused(name):
    with pytest.raises(GeneDMLError, match=r"No encoder is called|twice"):
        load_encoders(name)


def test_a_weights_file_is_of_one_encoder(tmp_path):
    with pytest.raises(GeneDMLError, match="a file of one encoder"):
        load_encoders(NAME, tmp_path / "x.safetensors")
