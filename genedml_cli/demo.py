"""The whole path on a small synthetic data set: make, train, predict, evaluate, plot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from genedml.config import load_config
from genedml.metrics import nanmean, pcc
from genedml_cli import console
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, planted_genes, write_dataset
from genedml_cli.evaluation.evaluation import evaluate_prediction, labels_of_prediction
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.expression.counts import read_counts
from genedml_cli.files.paths import takes_paths
from genedml_cli.machine.compute import Compute
from genedml_cli.machine.stopping import on_stop
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.pictures import plot
from genedml_cli.runs.run import train

GENES_SHOWN = ("TUMOR1", "LYMPH1")
SETTINGS = (
    "training.epochs=30",
    "training.augment=false",
    "training.weight_average=0.9",
    "labels.panel_size=60",
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo made, and how well the planted genes were found on the held-out slide."""

    folder: Path
    prediction: Path
    picture: Path
    evaluation: Evaluation
    planted_pcc: float
    noise_pcc: float


@takes_paths
def run_demo(folder: Path) -> DemoResult:
    """Write a synthetic data set below ``folder``, train on all patients but one, predict and score that one.

    Raises:
        GeneDMLError: the folder cannot be written, or holds the demo of another version.
    """
    settings = SyntheticConfig()
    console.note(f"Making {settings.patients} synthetic slides in {folder / 'data'} ...")
    samples = read_sheet(write_dataset(folder / "data", settings))
    held_out, run = samples[-1], folder / "run"
    config = load_config("small", overrides=SETTINGS)
    console.note(f"Training on {len(samples) - 1} patients; {held_out.name} is held out ...")
    with on_stop(f"What was done is kept in {folder}. To go on, run the same command again."):
        features = folder / "features"
        train(samples, run, config, fold=held_out.fold, features=features, compute=Compute("cpu"))
    prediction = folder / f"{held_out.name}.h5ad"
    with_: dict[str, Any] = {"fold": held_out.fold, "compute": Compute("cpu"), "force": True}
    data = predict(held_out.slide, held_out.spots, run, prediction, **with_)
    evaluation = evaluate_prediction(prediction, held_out.counts)
    truth = labels_of_prediction(data, read_counts(held_out.counts)).y
    picture = folder / f"{held_out.name}.png"
    plot([prediction], GENES_SHOWN, picture, truth=held_out.counts)
    return DemoResult(folder, prediction, picture, evaluation, *_planted_and_noise(data, truth, settings))


def _planted_and_noise(data: anndata.AnnData, truth: np.ndarray, settings: SyntheticConfig) -> tuple[float, float]:
    """Mean PCC over the planted genes, and over the others."""
    planted = data.var_names.isin(planted_genes(settings))
    known = ~np.isnan(truth).any(axis=1)
    scores = pcc(truth[known], np.asarray(data.X)[known])
    return nanmean(scores[planted]), nanmean(scores[~planted])
