"""A run: every fold of a set of samples trained and tested, in one folder."""

import functools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from genedml.config import Config
from genedml_cli.datasets.samples import Sample
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.files.paths import takes_paths
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.shards import Shard
from genedml_cli.machine.stopping import on_stop
from genedml_cli.runs.grid import train_runs
from genedml_cli.runs.planning import RunSettings
from genedml_cli.runs.record import what_is_kept


@takes_paths
def train(
    samples: Sequence[Sample],
    out: Path,
    config: Config,
    *,
    fold: str = "all",
    panel: str = "training",
    features: Path = Path("features"),
    weights: Path | None = None,
    compute: Compute = AUTO,
    on: str | None = None,
    partial: str = "",
    dataset: str = "",
    allow_off_tissue: bool = False,
    skip_off_image: bool = False,
    backbone_weights: Path | None = None,
    shard: Shard | None = None,
    collect: bool = False,
    gene_map: Path | None = None,
) -> Evaluation | None:
    """Train and test a network on every fold of ``samples``, or train one model on all of them.

    Args:
        samples: the sections, with their folds.
        out: the run folder: ``fold-N.safetensors``, ``fold-N.log.csv``, ``ridge-N.safetensors``,
            ``novelty-N.safetensors``, ``predictions/``, ``config.toml``, ``run.json``, ``metrics.csv``,
            ``metrics.json``, ``genes.csv``. Finished folds are kept, of an interrupted one ``fold-N.state``.
        config: the merged configuration.
        fold: one fold; ``all``; or ``all-sections``, a model trained on every section, whose files are called so: it
            has no scores, and :func:`genedml_cli.prediction.prediction.predict` takes it before the folds. One section
            is enough. It is trained for the median of the epochs that the run's folds chose, where there are some;
            else sections are held out to choose their number first.
        panel: ``training`` derives it from each fold's training sections, ``all`` from all sections; else the name of
            a data set with a published panel, or a text file with one gene a line.
        features, weights: where feature files are kept; the encoder's weights file, instead of the hub.
        compute: where and how the arithmetic runs.
        on: where folds are trained, as :func:`genedml_cli.machine.executors.executor` takes it; on a CPU the bytes are
            the same, where torch has as many threads (:class:`genedml_cli.machine.crew.Place`). By itself one after the
            other here; on a CPU, of a small network, as many at a time as torch has threads.
        partial, dataset: what to say of a data set of which sections are missing; its name, if it is a published one.
        allow_off_tissue: take spots that lie off the tissue.
        skip_off_image: leave out spots that lie off the image.
        backbone_weights: weights file that the network's own backbone starts from, instead of the hub.
        shard: train the folds of this shard alone, and score none.
        collect: train none: score those that shards trained.
        gene_map: of genes that were renamed, see :mod:`genedml_cli.expression.gene_map`.

    Returns:
        The scores over the folds that are there; None where there are none, and of a shard.

    Raises:
        GeneDMLError: whatever the user can fix; folds already finished stay.
    """
    settings = RunSettings(
        fold,
        panel,
        features,
        weights,
        compute,
        on,
        partial,
        dataset,
        allow_off_tissue,
        skip_off_image,
        {} if backbone_weights is None else {config.method: backbone_weights},
        shard,
        collect,
        gene_map,
    )
    return train_with(samples, out, config, settings)


def train_with(samples: Sequence[Sample], out: Path, config: Config, settings: RunSettings) -> Evaluation | None:
    """As :func:`train`, with its settings as one value."""
    with on_stop(functools.partial(what_is_kept, out, settings.features)):
        return train_runs(samples, {out: config}, settings)[out]


def new_run_folder() -> Path:
    """A folder under ``runs/`` named by the time."""
    return Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}"
