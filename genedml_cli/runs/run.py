"""A run: every fold of a set of samples trained and tested, in one folder."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anndata
import torch

from genedml.checkpoint import EncoderRecord, load_card
from genedml.config import Config, LabelsConfig
from genedml.encoders.encoder import Encoder
from genedml.errors import GeneDMLError
from genedml.networks.registry import network_class
from genedml_cli import console
from genedml_cli.datasets.folds import Fold, all_sections, make_folds
from genedml_cli.datasets.panels import check_panel, check_panels, load_panel
from genedml_cli.datasets.samples import ALL_SECTIONS, EVERY_FOLD, Sample
from genedml_cli.datasets.shared_counts import check_shared
from genedml_cli.evaluation.evaluation import evaluate_run
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.labels import check_labelled, make_labels
from genedml_cli.features.extraction import extract
from genedml_cli.features.section_features import encoder_record
from genedml_cli.files.locks import claimed, in_turn
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import check_apart
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.devices import all_deterministic, all_like, prepare_encoder
from genedml_cli.machine.executors import spread
from genedml_cli.machine.stopping import keeping
from genedml_cli.outputs.run_folder import in_words, model_file, model_files_in, written_in
from genedml_cli.runs.fold import Inputs, run_fold
from genedml_cli.runs.record import RunRecord, unfinished, what_is_kept
from genedml_cli.runs.worth import record_scores
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.training.loop import shape_of, threads_for


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
    partial: str = "",
    dataset: str = "",
    allow_off_tissue: bool = False,
    skip_off_image: bool = False,
) -> Evaluation | None:
    """Train and test Gene-DML on every fold of ``samples``, or train one model on all of them.

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
        compute: where and how the arithmetic runs. On several CUDA devices as many folds are trained at a time; on a
            CPU, of a small network, as many as torch has threads, with the same bytes for any number of them.
        partial, dataset: what to say of a data set of which sections are missing; its name, if it is a published one.
        allow_off_tissue: take spots that lie off the tissue.
        skip_off_image: leave out spots that lie off the image.

    Returns:
        The scores over the folds that are there; None where there are none.

    Raises:
        GeneDMLError: whatever the user can fix; folds already finished stay.
    """
    said = {"panel": panel, "dataset": dataset, "partial": partial, "deterministic": compute.deterministic}
    check_panel(panel)
    chosen = _chosen(samples, fold, out)
    record = RunRecord.of(out, config, samples, said)
    record.check()
    check_apart(written_in(out), [Path(panel), *(file for sample in samples for file in sample.files)])
    with ExitStack() as claims, keeping(functools.partial(what_is_kept, out, features)):
        for one in chosen:
            claims.enter_context(claimed(out / f"fold-{one.name}", f"{in_words(one.name)} of {out}"))
        record.check()  # by now: another process may have begun another run
        folds = unfinished(chosen, out)
        if folds or weights is not None:  # weights that are named are held against those of folds that are there
            claims.enter_context(all_deterministic(compute.deterministic))
            encoder = prepare_encoder(config.encoder, weights, compute)
            _check_encoder(out, encoder_record(encoder))
        if folds:
            inputs = _gather(folds, samples, config, panel, features, encoder, allow_off_tissue, skip_off_image)
            record.check_unchanged({name: found.slide_sha256 for name, found in inputs.features.items()})
            record.write()
            fixed: dict[str, Any] = {"inputs": inputs, "out": out, "config": config, "encoder": encoder_record(encoder)}
            origin = {"dataset": dataset, "partial": partial, "panel": panel}
            one_fold = functools.partial(run_fold, **fixed, origin=origin)
            genes = max(map(len, inputs.panels.values()))
            shape = shape_of(next(iter(inputs.features.values())), genes, config)
            threads = threads_for(config, shape, encoder.device)
            _run_folds(folds, one_fold, all_like(encoder.device, threads)[: len(folds)], threads, out)
        return _score(out)


def _check_encoder(out: Path, encoder: EncoderRecord) -> None:
    """Refuse to add folds to those of an encoder with other weights."""
    for file in model_files_in(out).values():
        known = load_card(file).encoder
        if known != encoder:
            raise GeneDMLError(
                f"{file} was trained on other weights of {known.name} than those here now. Give another --out."
            )


def _gather(
    folds: Sequence[Fold],
    samples: Sequence[Sample],
    config: Config,
    panel: str,
    features: Path,
    encoder: Encoder,
    allow_off_tissue: bool,
    skip_off_image: bool,
) -> Inputs:
    """What the folds draw on."""
    used = [sample for sample in samples if any(sample in (*f.train, *f.validation, *f.test) for f in folds)]
    # What may be wrong with counts and panels is said before hours of encoding.
    counts = {sample.name: _counts_of(sample) for sample in used}
    shared = check_shared(used, counts)
    panels = {one.name: load_panel(panel, one, counts, config.labels.panel_size) for one in folds}
    check_panels(panels, counts)
    _check_labelled(folds, counts, panels, config.labels)
    needs = network_class(config.method).needs(config.network)
    flips = config.training.augment and needs.tokens
    extracted = extract(
        used, encoder, config.views, features, flips, allow_off_tissue, skip_off_image, tiles=needs.tiles
    )
    return Inputs(extracted, counts, panels, shared)


def _counts_of(sample: Sample) -> anndata.AnnData:
    try:
        return read_counts(sample.counts)
    except GeneDMLError as error:
        error.add_note(f"This was section {sample.name}.")
        raise


def _check_labelled(
    folds: Sequence[Fold],
    counts: Mapping[str, anndata.AnnData],
    panels: Mapping[str, Sequence[str]],
    config: LabelsConfig,
) -> None:
    """Refuse a section of which no spot has counts in the panel of a fold that it is of."""
    unsmoothed = replace(config, smooth=False)  # which spots have a label does not depend on it
    pairs = {
        (sample, tuple(panels[fold.name])) for fold in folds for sample in (*fold.train, *fold.validation, *fold.test)
    }
    spots = {sample: read_spots(sample.spots) for sample, _ in pairs}
    for sample, genes in sorted(pairs, key=lambda pair: pair[0].name):
        labels = make_labels(counts[sample.name], spots[sample], genes, unsmoothed)
        check_labelled(labels, sample.name, sample.counts)


def new_run_folder() -> Path:
    """A folder under ``runs/`` named by the time."""
    return Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}"


def _run_folds(
    folds: Sequence[Fold], run_fold: Callable[..., str], devices: Sequence[torch.device], threads: int, out: Path
) -> None:
    """As many folds at a time as there are devices, or shares of a CPU."""
    with console.progress("Folds", len(folds)) as advance:
        for name in spread(functools.partial(run_fold, at_once=len(devices)), folds, devices, threads):
            console.note(f"{in_words(name)} is done: {model_file(out, name)}")
            advance(note=in_words(name).lower())


def _score(out: Path) -> Evaluation | None:
    """Score the folds that are there, if any, and write into the run's models what each gene was worth."""
    if list(model_files_in(out)) == [ALL_SECTIONS]:
        return None
    with in_turn(out / "scores"):
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
