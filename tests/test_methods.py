"""Every network that comes with genedml, trained on the tiny world from its preset for features."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from genedml.checkpoint import checkpoint_bytes, load_card, load_state
from genedml.config import DEFAULT_METHOD, load_config
from genedml.errors import GeneDMLError
from genedml.networks.registry import NETWORKS, network_class, title_of, variant_of
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, planted_genes
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.labels import make_labels
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train
from genedml_cli.spots.spot_files import read_spots

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
    title = title_of(method, variant_of(method, config.network))
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
        check_bank(run / "fold-P1.safetensors", world, ("P2", "P3"))
    kept = anndata.read_h5ad(run / "predictions" / "P1.h5ad")
    assert np.allclose(again.X, kept.X, atol=1e-5)


def check_bank(file: Path, world: Path, sections: Sequence[str]) -> None:
    """The card names each row of the bank by section and spot; its label is that spot's; none is of other sections."""
    card, label = load_card(file), load_state(file)["bank.label"]
    expected = {}
    for name in sections:
        spots = read_spots(world / "spots" / f"{name}.csv")
        labels = make_labels(read_counts(world / "counts" / f"{name}.tsv.gz"), spots, card.genes, card.config.labels)
        expected |= {(name, spot): y for spot, y in zip(spots.names, labels.y, strict=True)}
    assert len(card.bank) == card.shape.bank == len(label)
    assert {*card.bank} == expected.keys()
    assert np.allclose(label, np.stack([expected[row] for row in card.bank]))


def test_names_of_a_bank_of_other_length_or_of_unseen_sections_are_refused(world, features, tmp_path):
    config = load_config("features", overrides=["method=bleep", *SETTINGS, "training.epochs=1"])
    train(read_sheet(world / "samples.csv"), tmp_path, config, fold="P1", features=features)
    file = tmp_path / "fold-P1.safetensors"
    card, state = load_card(file), load_state(file)
    for bank in (card.bank[1:], (("elsewhere", "3x4"), *card.bank[1:])):
        file.write_bytes(checkpoint_bytes(replace(card, bank=bank), state))
        with pytest.raises(GeneDMLError, match=f"it names {len(bank)} spots for a bank of {card.shape.bank}"):
            load_card(file)


def test_the_turned_tiles_that_hist2st_learns_from_are_extracted(world, features, tmp_path):
    run, loss = tmp_path / "run", "network.loss.distillation=0.5"
    settings = [*SETTINGS, "training.augment=true", "training.epochs=1", loss, "network.loss.copies=2"]
    config = load_config("features", overrides=["method=hist2st", *settings])
    train(read_sheet(world / "samples.csv"), run, config, fold="P1", features=features)
    assert (pd.read_csv(run / "fold-P1.log.csv")["distillation"] > 0).all()
