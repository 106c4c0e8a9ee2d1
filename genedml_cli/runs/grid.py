"""A grid: runs of named configurations on the same sections, such as an ablation's or a comparison's.

Runs are planned together, so that what they have in common is made once; their folds are trained as one queue of jobs,
and then every run is scored.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from genedml.checkpoint import load_card
from genedml.config import Config
from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.datasets.folds import Fold, all_sections, make_folds
from genedml_cli.datasets.panels import check_panel
from genedml_cli.datasets.samples import ALL_SECTIONS, EVERY_FOLD, Sample
from genedml_cli.evaluation.evaluation import evaluate_run
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.files.locks import claimed, exclusive
from genedml_cli.files.storage import refuse_overwriting_inputs, write_text
from genedml_cli.files.text_files import read_text
from genedml_cli.machine.compute import Compute, all_deterministic
from genedml_cli.machine.crew import Executor, Failed
from genedml_cli.machine.devices import pick_device, room_for_processes
from genedml_cli.machine.executors import executor
from genedml_cli.machine.shards import Shard
from genedml_cli.outputs.run_folder import in_words, model_file, model_files_in, plan_file, written_in
from genedml_cli.runs.count_tables import CountTables
from genedml_cli.runs.fold import FoldDone, FoldTrainer
from genedml_cli.runs.fold_plan import FoldJob, FoldPlan
from genedml_cli.runs.intervals import record_intervals
from genedml_cli.runs.planning import Plans, Run, RunSettings, plan_runs
from genedml_cli.runs.record import RunRecord, describe, unfinished
from genedml_cli.runs.worth import record_scores
from genedml_cli.training.loop import shape_of, threads_for

SECONDS = "seconds"
"""Of a table in the folder of a grid: how long every fold took; every shard has one of its own."""
REFERENCES = "references"
"""The folder of a grid that holds what does not depend on the network: ridge regression and novelty of every fold."""


def train_grid(
    samples: Sequence[Sample], out: Path, cells: Mapping[str, Config], settings: RunSettings
) -> dict[str, Evaluation]:
    """Train and test every cell of a grid.

    Args:
        samples: the sections, with their folds.
        out: the folder of the grid. Every cell is a run folder in it; folds that are finished there are kept.
        cells: configurations by name; a name is the path of the run folder below ``out``, as ``k=9/seed-1``.
        settings: of all runs.

    Returns:
        The scores of every cell, by its name, in order; of a shard none.

    Raises:
        GeneDMLError: whatever the user can fix; folds already finished stay.
    """
    if settings.fold == ALL_SECTIONS:
        raise GeneDMLError(f"A grid compares scores; --fold {ALL_SECTIONS} has none. Name a fold, or all.")
    evaluations = train_runs(
        samples, {out / name: config for name, config in cells.items()}, settings, out / REFERENCES
    )
    return {name: evaluation for name in cells if (evaluation := evaluations[out / name]) is not None}


def train_runs(
    samples: Sequence[Sample], configs: Mapping[Path, Config], settings: RunSettings, references: Path | None = None
) -> dict[Path, Evaluation | None]:
    """Train and test runs, and score each: None for one that has only a model of all sections, and in a shard.

    Args:
        samples: the sections, with their folds.
        configs: by the folder of the run.
        settings: of all runs.
        references: where runs keep what does not depend on the network; None for one run.

    Raises:
        GeneDMLError: whatever the user can fix; folds already finished stay.
    """
    check_panel(settings.panel)
    engine = None if settings.on is None else executor(settings.on, settings.compute)
    chosen = _share({out: _chosen(samples, settings.fold, out) for out in configs}, settings.shard)
    records = _records(samples, configs, settings)
    counts = CountTables(settings.gene_map)
    with ExitStack() as ends:
        for out, folds in chosen.items():
            for fold in folds:
                what = f"{in_words(fold.name)} of {out}"
                ends.enter_context(claimed(out / f"fold-{fold.name}", what, wanted=settings.shard is None))
            records[out].check()  # by now: another process may have begun another run
        runs = [Run(out, config, records[out], unfinished(chosen[out], out)) for out, config in configs.items()]
        if settings.collect:
            _refuse_missing(runs)
        ends.enter_context(all_deterministic(settings.compute.deterministic))
        plans = plan_runs(runs, samples, settings, counts, references)
        jobs = _jobs(plans, ends)
        if jobs:
            times = None if references is None else references.parent / _times_file(settings.shard)
            _train_folds(jobs, engine or _executor_for(plans, settings.compute), counts, times)
        return {out: None if settings.shard else _score(out) for out in configs}


def _share(chosen: Mapping[Path, Sequence[Fold]], shard: Shard | None) -> dict[Path, list[Fold]]:
    """The folds of every run that are a shard's, of the queue of all; all of them without a shard."""
    queue = [(out, fold) for out, folds in chosen.items() for fold in folds]
    taken = queue if shard is None else shard.take(queue)
    return {out: [fold for of_run, fold in taken if of_run == out] for out in chosen}


def _refuse_missing(runs: Sequence[Run]) -> None:
    """Refuse to score what shards have not finished.

    Raises:
        GeneDMLError: naming the folds.
    """
    missing = [f"{in_words(fold.name)} of {run.folder}" for run in runs for fold in run.folds]
    if missing:
        raise GeneDMLError(
            f"{len(missing)} of the folds are missing: {', '.join(missing)}. Run their shards again; --shard with the "
            "same N, or the same command with neither --shard nor --collect, trains them."
        )


def _times_file(shard: Shard | None) -> str:
    return f"{SECONDS}.csv" if shard is None else f"{SECONDS}-{shard.number}-of-{shard.count}.csv"


def _records(samples: Sequence[Sample], configs: Mapping[Path, Config], settings: RunSettings) -> dict[Path, RunRecord]:
    """The records of runs to be; refuses folders that hold other runs, or in which something would be written over."""
    said = {
        "panel": settings.panel,
        "dataset": settings.dataset,
        "partial": settings.partial,
        "deterministic": settings.compute.deterministic,
        "gene_map": None if settings.gene_map is None else str(settings.gene_map),
    }
    sheet = describe(samples)
    records = {out: RunRecord.of(out, config, sheet, said) for out, config in configs.items()}
    read = [
        Path(settings.panel),
        *filter(None, [settings.gene_map]),
        *(file for sample in samples for file in sample.files),
    ]
    for out, record in records.items():
        record.check()
        refuse_overwriting_inputs(written_in(out), read)
    return records


def _jobs(plans: Plans, ends: ExitStack) -> list[FoldJob]:
    """Put the plans into the run folders, until the end of the stack."""
    jobs = []
    for out, of_run in plans.items():
        for plan in of_run:
            ends.callback(partial(plan_file(out, plan.fold.name).unlink, missing_ok=True))
            jobs.append(plan.write(out))
    return jobs


def _executor_for(plans: Plans, compute: Compute) -> Executor:
    """What folds are trained on where nobody says it: see :func:`genedml_cli.runs.run.train`."""
    device = pick_device(compute.device)
    threads = max(_threads_of(of_run[0], device) for of_run in plans.values())
    return executor(str(room_for_processes(device, threads)), compute)


def _threads_of(plan: FoldPlan, device: torch.device) -> int:
    features = next(iter(plan.sections.values())).open_features()
    return threads_for(plan.config, shape_of(features, len(plan.genes), plan.config), device)


def seconds_of(out: Path) -> dict[str, list[float]]:
    """How long the folds of every cell of a grid took, as far as it is known, by the cell's name."""
    seconds: dict[str, list[float]] = {}
    for file in sorted(out.glob(f"{SECONDS}*.csv")):
        with reading(f"The times {file}", "Remove the file: they are then not known."):
            table = pd.read_csv(file, dtype={"run": str, "fold": str, "seconds": float})
            for run, times in table.groupby("run"):
                seconds.setdefault(str(run), []).extend(times["seconds"].tolist())
    return seconds


def _put_on_record(done: FoldDone, times: Path) -> None:
    before = read_text(times) if times.exists() else "run,fold,seconds\n"
    run = done.job.run.absolute().relative_to(times.parent.absolute()).as_posix()  # a cluster gives absolute paths back
    write_text(times, f"{before}{run},{done.job.fold},{done.seconds:.2f}\n")


def _train_folds(jobs: Sequence[FoldJob], engine: Executor, counts: CountTables, times: Path | None) -> None:
    several, failed = len({job.run for job in jobs}) > 1, []
    with console.progress("Folds", len(jobs)) as advance:
        for done in engine.run(partial(FoldTrainer, counts), FoldTrainer.run, jobs):
            if isinstance(done, Failed):
                failed.append(done)
                continue
            job = done.job
            words = f"{in_words(job.fold)} of {job.run}" if several else in_words(job.fold)
            console.note(f"{words} is done: {model_file(job.run, job.fold)}")
            if times is not None:
                _put_on_record(done, times)
            advance(note=words.lower())
    if failed:
        named = "; ".join(f"{in_words(one.job.fold)} of {one.job.run}: {one.reason}" for one in failed)
        raise GeneDMLError(
            f"A process ended without a word ({named}). {failed[0].remedy}. What was finished stays; run the same "
            "command again."
        )


def _score(out: Path) -> Evaluation | None:
    """Score the folds that are there, if any; what each gene was worth, and intervals, go into the run's models."""
    if list(model_files_in(out)) == [ALL_SECTIONS]:
        return None
    with exclusive(out / "scores", beside=True):  # another machine may have trained another fold of it
        record_intervals(out)
        evaluation = evaluate_run(out)
        record_scores(out, evaluation)
    return evaluation


def _chosen(samples: Sequence[Sample], name: str, out: Path) -> list[Fold]:
    if name == ALL_SECTIONS:
        models = {fold: file for fold, file in model_files_in(out).items() if fold != ALL_SECTIONS}
        return [all_sections(samples, {fold: int(load_card(file).scores["epoch"]) for fold, file in models.items()})]
    folds = make_folds(samples)
    if name == EVERY_FOLD:
        return folds
    chosen = [fold for fold in folds if fold.name == name]
    if not chosen:
        there = ", ".join(fold.name for fold in folds)
        raise GeneDMLError(f"There is no fold {name}. There are: {there}, {EVERY_FOLD} and {ALL_SECTIONS}.")
    return chosen
