"""Every network that comes with genedml, trained on the tiny world from its preset for features."""

import anndata
import numpy as np
import pandas as pd
import pytest

from genedml.checkpoint import load_card
from genedml.config import DEFAULT_METHOD, load_config
from genedml.networks.registry import NETWORKS, network_class
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, planted_genes
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train

METHODS = [name for name in NETWORKS if name != DEFAULT_METHOD]  # which the session's run is of
SETTINGS = (
    "encoder=tiny",
    "labels.panel_size=20",
    "views.local_grid=0",
    "training.epochs=40",
    "training.patience=40",
    "training.batch_size=16",
    "training.learning_rate=0.005",
    "training.weight_average=0.9",
    "training.refit=false",
    "training.augment=false",
    "training.select_on=test",  # so that it is trained on two patients: EGN looks up spots of the other
)
# A step is a whole section there, so an epoch is two; with more weight the counts of so few spots drown the error.
SLOWER = ("training.epochs=60", "training.patience=60", "training.learning_rate=0.001")
OTHERWISE = {
    "histogene": SLOWER,
    "hist2st": (*SLOWER, "network.loss.counts=0.01", "network.graph.depth=1", "network.lstm_depth=1"),
}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Where the vectors of the tiny world are kept, encoded once for all methods."""
    return tmp_path_factory.mktemp("features")


@pytest.mark.parametrize("method", METHODS)
def test_it_is_trained_finds_the_planted_genes_and_predicts_from_its_file(method, world, features, p1, tmp_path):
    run = tmp_path / method
    config = load_config("features", overrides=[f"method={method}", *SETTINGS, *OTHERWISE.get(method, ())])
    train(read_sheet(world / "samples.csv"), run, config, fold="P1", features=features)
    title = NETWORKS[method].title
    assert list(evaluate(run).summary().index) == [
        title,
        "ridge",
        "ridge own tile",
        "place alone",
        "depth alone",
        "constant",
    ]
    genes = pd.read_csv(run / "genes.csv")
    planted = genes["gene"].isin(planted_genes(SyntheticConfig(genes=20)))
    assert genes["pcc"][planted].mean() > 0.3
    assert genes["pcc"][planted].mean() > genes["pcc"][~planted].mean() + 0.2
    again = predict(p1["slide"], p1["spots"], run, tmp_path / "again.h5ad", fold="P1")
    if network_class(method).needs(config.network).bank:
        bank = load_card(run / "fold-P1.safetensors").shape.bank
        assert bank == sum(pd.read_csv(world / "spots" / f"{name}.csv").shape[0] for name in ("P2", "P3"))
    kept = anndata.read_h5ad(run / "predictions" / "P1.h5ad")
    assert np.allclose(again.X, kept.X, atol=1e-5)


def test_the_turned_tiles_that_hist2st_learns_from_are_extracted(world, features, tmp_path):
    run, loss = tmp_path / "run", "network.loss.distillation=0.5"
    settings = [*SETTINGS, "training.augment=true", "training.epochs=1", loss, "network.loss.copies=2"]
    config = load_config("features", overrides=["method=hist2st", *settings])
    train(read_sheet(world / "samples.csv"), run, config, fold="P1", features=features)
    assert (pd.read_csv(run / "fold-P1.log.csv")["distillation"] > 0).all()
