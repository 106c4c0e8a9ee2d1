"""The whole path on the tiny world: train, predict, evaluate."""

from pathlib import Path

import anndata
import numpy as np
import pytest

from genedml.config import load_config
from genedml_cli.evaluation import evaluate
from genedml_cli.prediction import predict
from genedml_cli.runs import train
from genedml_cli.samples import read_sheet

SETTINGS = (
    "encoder=tiny",
    "labels.panel_size=20",
    "training.epochs=30",
    "training.learning_rate=0.003",
    "loss.groups=4",
    "network.shared_width=16",
)


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = load_config("small", overrides=SETTINGS)
    train(read_sheet(world / "samples.csv"), out, config, features=out.parent / "features")
    return out


def test_run(run):
    e = evaluate(run)
    print(e.values().to_string())
    print(e.per_gene().to_string())
    assert 0
