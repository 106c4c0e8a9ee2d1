"""Ablations, tables 3-6 and 8-15 of the paper: a grid of settings and seeds, every one a run folder, and one table."""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from genedml.config import Config
from genedml.errors import GeneDMLError
from genedml.networks.registry import Sweep, network_class, network_info
from genedml.schema import from_dict, to_dict
from genedml_cli import console
from genedml_cli.datasets.samples import Sample
from genedml_cli.evaluation.comparison import Comparison, Scored, compared
from genedml_cli.evaluation.published import means_of, published_rows, rows_beside
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.files.locks import claimed
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import refuse_overwriting_inputs
from genedml_cli.machine.stopping import on_stop
from genedml_cli.notes import Note
from genedml_cli.runs.grid import train_grid
from genedml_cli.runs.planning import RunSettings
from genedml_cli.training.learner import LACKED

AS_CONFIGURED = "as-configured"


@dataclass(frozen=True)
class Setting:
    """One row of an ablation: its name, as the paper prints it, and what it changes under ``network``."""

    name: str
    changes: Mapping[str, Any]

    def config(self, base: Config, seed: int) -> Config:
        """``base`` with these changes and this seed.

        Raises:
            GeneDMLError: a value that the setting cannot take.
        """
        values = to_dict(base)
        values["training"]["seed"] = seed
        for key, value in self.changes.items():
            *sections, name = key.split(".")
            functools.reduce(operator.getitem, sections, values["network"])[name] = value
        return from_dict(Config, values)

    def folder(self, base: Config) -> str:
        """Where its runs are; one place for the settings of all tables that change nothing."""
        unchanged = self.config(base, base.training.seed) == base
        return AS_CONFIGURED if unchanged else self.name.removeprefix("+").replace(" ", "-")


@takes_paths
def ablate(
    samples: Sequence[Sample],
    out: Path,
    name: str,
    config: Config,
    values: Sequence[float] = (),
    seeds: int = 3,
    settings: RunSettings = RunSettings(),  # noqa: B008  frozen
) -> Comparison | None:
    """Train every setting of an ablation with several seeds, and make one table of all.

    Args:
        samples: the sections, with their folds.
        out: the folder of the grid: ``SETTING/seed-N`` are run folders, ``references/`` is what they share. What is
            finished there is kept.
        name: of a sweep of the network (:class:`genedml.networks.registry.NetworkInfo`).
        config: what is common to all settings; seeds count on from ``training.seed``.
        values: other values than the paper's.
        seeds: how many.
        settings: of all runs, whose folds are one queue. Of a data set of the paper its values are taken, and its rows
            stand beside.

    Returns:
        The table; None of a shard, which scores nothing.

    Raises:
        GeneDMLError: whatever the user can fix; folds already finished stay.
    """
    sweep = choose_sweep(config.method, name)
    cells = [
        (setting, seed, setting.config(config, seed))
        for setting in choose_settings(sweep, settings.dataset, values)
        for seed in range(config.training.seed, config.training.seed + seeds)
    ]
    configs = {f"{setting.folder(config)}/seed-{seed}": own for setting, seed, own in cells}
    refuse_overwriting_inputs(out.glob(f"{name}.*"), [file for sample in samples for file in sample.files])
    kept = f"Folds are kept in {out}, begun ones as of a minute or an epoch ago. To go on, run the same command again."
    whole = settings.shard is None
    with claimed(out / f"{name}.csv", f"The ablation {name} in {out}", wanted=whole), on_stop(kept):
        evaluations = train_grid(samples, out, configs, settings)
        if not whole:
            return None
        result = _collect(name, sweep, settings.dataset, cells, list(evaluations.values()), out)
        result.write()
    return result


def choose_sweep(method: str, name: str) -> Sweep:
    """What an ablation of a network varies.

    Raises:
        GeneDMLError: the network has no such ablation.
    """
    sweeps = network_info(method).sweeps
    if name not in sweeps:
        raise GeneDMLError(f"{method} has no ablation {name!r}. There are: {', '.join(sweeps) or 'none'}.")
    return sweeps[name]


def choose_settings(sweep: Sweep, dataset: str = "", values: Sequence[float] = ()) -> list[Setting]:
    """The rows of an ablation: ``values`` if given, else the paper's for the data set, else the defaults.

    Raises:
        GeneDMLError: ``values`` for one that has none.
    """
    if not sweep.key:
        if values:
            raise GeneDMLError(f"The ablation of {sweep.title} takes no --values: it switches parts on and off.")
        return [Setting(name, changes) for name, changes in sweep.switches.items()]
    if not values:
        values = _published_values(sweep, dataset) or sweep.values
    return [Setting(f"{sweep.symbol}={value:g}", {sweep.key: value}) for value in dict.fromkeys(values)]


def parse_values(text: str | None) -> list[float]:
    """Numbers separated by commas.

    Raises:
        GeneDMLError: something else than a number.
    """
    try:
        return [float(word) for word in (text or "").split(",") if word.strip()]
    except ValueError as error:
        raise GeneDMLError(f"--values takes numbers separated by commas, such as 5,10,20; it got {text!r}.") from error


def _published_values(sweep: Sweep, dataset: str) -> list[float]:
    table = sweep.paper_tables.get(dataset)
    return [float(row.setting.partition("=")[2]) for row in published_rows([table], dataset)] if table else []


def _collect(
    name: str,
    sweep: Sweep,
    dataset: str,
    cells: Sequence[tuple[Setting, int, Config]],
    evaluations: Sequence[Evaluation],
    folder: Path,
) -> Comparison:
    config, table = cells[0][2], sweep.paper_tables.get(dataset)
    panels = [score.genes for evaluation in evaluations for score in evaluation.scores]
    published, of_paper = rows_beside(dataset, config.labels, panels, (table,)) if table else ((), ())
    scored = [Scored(cell.name, seed, scores) for (cell, seed, _), scores in zip(cells, evaluations, strict=True)]
    return compared(
        scored,
        title=f"Ablation: {sweep.title}" + (f", {dataset}" if dataset else ""),
        name=name,
        noun="setting",
        folder=folder,
        published=means_of({row.setting: row for row in published}),
        notes=[*_own_notes(cells, evaluations), *of_paper],
    )


def _own_notes(cells: Sequence[tuple[Setting, int, Config]], evaluations: Sequence[Evaluation]) -> list[Note]:
    """What must be said of the grid as a whole."""
    config = cells[0][2]
    texts = network_class(config.method).cautions(config.network) + _part_notes(cells, evaluations)
    return [Note(None, text) for text in texts]


def _part_notes(cells: Sequence[tuple[Setting, int, Config]], evaluations: Sequence[Evaluation]) -> list[str]:
    """In how many of the runs an optional part of the loss never acted, or not in every batch, by their logs."""
    partly: dict[str, list[str]] = {}
    never: dict[str, list[str]] = {}
    for (setting, _, _), evaluation in zip(cells, evaluations, strict=True):
        logs = [pd.read_csv(file) for file in sorted(evaluation.folder.glob("fold-*.log.csv"))]
        lacked = [column for column in (logs[0] if logs else ()) if column.startswith(LACKED)]
        for column in lacked:
            part = column.removeprefix(LACKED)
            if not any(part in log and log[part].notna().any() for log in logs):
                never.setdefault(part, []).append(setting.name)
            elif any((log[column] > 0).any() for log in logs):
                partly.setdefault(part, []).append(setting.name)
    runs_of = console.count(len(evaluations), "run")
    return [
        f"Some batches have too few spots for the {part} term: it {acted} in {len(names)} of {runs_of} "
        f"({', '.join(dict.fromkeys(names))})."
        for acted, parts in (("never acted", never), ("acted in a part of the batches", partly))
        for part, names in parts.items()
    ]
