"""Runs beside each other: which of them may stand in one table, what they are called in it, and the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.evaluation.comparison import Comparison, Scored, compared
from genedml_cli.evaluation.evaluation import finished_sections, score_run
from genedml_cli.evaluation.published import means_of_networks
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.outputs.prediction_record import record_of

NAMED = 3
"""Sections that a refusal names."""


def compare_runs(runs: Sequence[Path], full: bool = False) -> Comparison:
    """Run folders beside each other, held against the first; raises as :func:`read_comparable`.

    ``full`` scores all of :data:`genedml_cli.evaluation.scores.FULL_METRICS`, with the ceiling where the counts are.
    """
    sections = read_comparable(runs)
    return compare_scores(
        {run: score_run(run, of_run, full=full, ceiling_if_possible=full) for run, of_run in sections.items()}
    )


def read_comparable(runs: Sequence[Path]) -> dict[Path, dict[Path, anndata.AnnData]]:
    """The predicted test sections of every run, by their files.

    Raises:
        GeneDMLError: a run that is not there or cannot be scored, one that is named twice, or runs of other sections,
            folds, panels or labels.
    """
    for run in runs:
        if not run.is_dir():
            raise GeneDMLError(f"There is no run folder {run}. Several runs are compared by their folders.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise GeneDMLError("The same run is named twice.")
    sections = {run: finished_sections(run) for run in runs}
    check_comparable({run: list(of_run.values()) for run, of_run in sections.items()})
    return sections


def compare_scores(evaluations: Mapping[Path, Evaluation]) -> Comparison:
    """Scores of :func:`read_comparable` runs in one table, held against the first; rows as :func:`names_beside`."""
    runs = list(evaluations)
    names = names_beside(runs, [evaluation.method for evaluation in evaluations.values()])
    scored = [Scored(name, 0, evaluation) for name, evaluation in zip(names, evaluations.values(), strict=True)]
    first = next(iter(evaluations.values()))
    title = f"{console.count(len(runs), 'run')} beside each other" + f", {first.title.partition(': ')[2]}"
    networks = {one.row: one.evaluation.network for one in scored}
    published = means_of_networks(first.published, networks)
    return compared(scored, title=title, name="runs", noun="run", folder=Path(), published=published, base=names[0])


def names_beside(targets: Sequence[Path], methods: Sequence[str]) -> list[str]:
    """What runs or predictions are called beside each other: their methods, or else what tells their paths apart.

    Args:
        targets: paths, each once.
        methods: the title of each one's method.
    """
    if len(set(methods)) == len(methods):
        return list(methods)
    parts = [
        target.resolve().with_suffix("").parts if target.suffix == ".h5ad" else target.resolve().parts
        for target in targets
    ]
    ends = ([" / ".join(part[-count:]) for part in parts] for count in range(1, max(map(len, parts)) + 1))
    return next(names for names in ends if len(set(names)) == len(names))


def check_comparable(runs: Mapping[Path, Sequence[anndata.AnnData]]) -> None:
    """Refuse runs whose scores do not stand in one table.

    Raises:
        GeneDMLError: naming the first two that differ, and in what.
    """
    (first, reference), *others = ((run, _tested(sections)) for run, sections in runs.items())
    for run, tested in others:
        if reference.keys() != tested.keys():
            only = sorted(reference.keys() ^ tested.keys())[:NAMED]
            raise _differ(first, run, "sections", f"{', '.join(only)} in one of them only")
        for section, ours in reference.items():
            for what, value in ours.items():
                if tested[section][what] != value:
                    raise _differ(first, run, what, f"first of section {section}")


def _differ(first: Path, other: Path, what: str, how: str) -> GeneDMLError:
    return GeneDMLError(
        f"{other} and {first} are of other {what} ({how}): their scores do not stand in one table. Train both on the "
        "same sections, folds, panel and labels."
    )


def _tested(sections: Sequence[anndata.AnnData]) -> dict[str, dict[str, Any]]:
    """Of every section, by its name, all that scores depend on besides the prediction."""
    records = [record_of(section) for section in sections]
    return {
        record.sample: {
            "folds": record.fold,
            "labels": record.label,
            "genes": tuple(section.var_names),
            "spots": tuple(section.obs_names),
            "counts": np.asarray(section.layers["truth"]).tobytes(),
        }
        for record, section in zip(records, sections, strict=True)
    }
