"""A run: every fold of a set of samples trained and tested, in one folder."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import anndata
import numpy as np
import torch
from jaxtyping import Float

from genedml.checkpoint import EncoderRecord, ModelCard, build_network, checkpoint_bytes, load_card, weights_sha256
from genedml.config import Config, LabelsConfig
from genedml.encoders import Encoder
from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.compute import AUTO, Compute
from genedml_cli.counts import gene_ids_of, read_counts
from genedml_cli.datasets import published_panel
from genedml_cli.devices import all_deterministic, all_like, prepare_encoder
from genedml_cli.evaluation import evaluate_run
from genedml_cli.expression import (
    agreed_gene_ids,
    check_join,
    check_labelled,
    derive_panel,
    gene_columns,
    make_labels,
)
from genedml_cli.features import SectionFeatures, encoder_record, extract
from genedml_cli.fold_notes import counts_note, fold_notes, panel_note, same_slides_note, scale_note, scales_of
from genedml_cli.inference import predict_section
from genedml_cli.inputs import check_names, read_text
from genedml_cli.joins import check_shared
from genedml_cli.locks import claimed, forget_all_dead, in_turn
from genedml_cli.novelty import NoveltyModel, fit_novelty, fit_novelty_to_all, save_novelty
from genedml_cli.outputs import write
from genedml_cli.paths import takes_paths
from genedml_cli.references import fit_depth_line, mean_label, reference_file, reference_layers
from genedml_cli.results import origin_record, to_anndata
from genedml_cli.ridge import RidgeModel, fit_ridge, save_ridge
from genedml_cli.run_record import (
    RunRecord,
    in_words,
    log_file,
    model_file,
    model_files_in,
    state_file,
    unfinished,
    what_is_kept,
    written_in,
)
from genedml_cli.samples import ALL_SECTIONS, EVERY_FOLD, Fold, Sample, all_sections, make_folds
from genedml_cli.scores import Evaluation
from genedml_cli.sections import SectionData, left_out_together
from genedml_cli.spot_files import read_spots
from genedml_cli.stopping import keeping
from genedml_cli.storage import VERSION, arriving, check_apart
from genedml_cli.training import Trained, threads_for, train_fold
from genedml_cli.workers import spread
from genedml_cli.worth import record_scores


@dataclass(frozen=True)
class Inputs:
    """What every fold of a run draws on."""

    features: dict[str, SectionFeatures]
    counts: dict[str, anndata.AnnData]
    panels: dict[str, tuple[str, ...]]
    shared: dict[str, str] = field(default_factory=dict)
    """What must be said of sections that have the counts of another one."""


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
            has no scores, and :func:`genedml_cli.prediction.predict` takes it before the folds. One section is enough.
            It is trained for the median of the epochs that the run's folds chose, where there are some; else sections
            are held out to choose their number first.
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
        GeneDMLError: whatever the user can mend; folds already finished stay.
    """
    said = {"panel": panel, "dataset": dataset, "partial": partial, "deterministic": compute.deterministic}
    _check_panel(panel)
    chosen = _chosen(samples, fold, out)
    record = RunRecord.of(out, config, samples, said)
    record.check()
    check_apart(written_in(out), [Path(panel), *(file for sample in samples for file in sample.files)])
    with ExitStack() as claims, keeping(functools.partial(what_is_kept, out, features)):
        for one in chosen:
            claims.enter_context(claimed(out / f"fold-{one.name}", f"{in_words(one.name)} of {out}"))
        record.check()  # by now: another process may have begun another run
        forget_all_dead(out)
        forget_all_dead(out / "predictions")
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
            origin = {"dataset": dataset, "partial": partial, "panel": panel_note(panel, dataset)}
            run_fold = functools.partial(_run_fold, **fixed, origin=origin)
            genes = max(map(len, inputs.panels.values()))
            threads = threads_for(config, encoder.info.width, genes, encoder.device)
            _run_folds(folds, run_fold, all_like(encoder.device, threads)[: len(folds)], threads, out)
        return _score(out)


def _check_encoder(out: Path, encoder: EncoderRecord) -> None:
    """Refuse to add folds to those of an encoder with other weights."""
    for file in model_files_in(out).values():
        known = load_card(file).encoder
        if known != encoder:
            raise GeneDMLError(
                f"{file} was trained on other weights of {known.name} than those here now. Give another --out."
            )


def _check_panel(panel: str) -> None:
    if panel not in ("training", "all") and not Path(panel).is_file():
        published_panel(panel)


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
    _check_panels(panels, counts)
    _check_labelled(folds, counts, panels, config.labels)
    extracted = extract(
        used, encoder, config.views, features, config.training.augment, allow_off_tissue, skip_off_image
    )
    return Inputs(extracted, counts, panels, shared)


def _counts_of(sample: Sample) -> anndata.AnnData:
    try:
        return read_counts(sample.counts)
    except GeneDMLError as error:
        error.add_note(f"This was section {sample.name}.")
        raise


def _check_panels(panels: Mapping[str, Sequence[str]], counts: Mapping[str, anndata.AnnData]) -> None:
    for genes in {tuple(genes) for genes in panels.values()}:
        for name, section in counts.items():
            missing = [gene for gene, at in zip(genes, gene_columns(section, genes), strict=True) if at < 0]
            if missing:
                raise GeneDMLError(
                    f"{len(missing)} of the panel's {len(genes)} genes are not in the counts of {name}: "
                    f"{', '.join(missing[:3])} ...; these have {', '.join(section.var_names[:3])} ... Name genes as "
                    "the counts do (symbols or Ensembl ids), and leave out those that a section lacks."
                )


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


def load_panel(panel: str, fold: Fold, counts: Mapping[str, anndata.AnnData], size: int) -> tuple[str, ...]:
    """The genes of a fold, as ``panel`` of :func:`train` says.

    Raises:
        GeneDMLError: an unknown panel, an empty file, or too few genes in common.
    """
    if panel in ("training", "all"):
        sections = (*fold.train, *fold.validation) if panel == "training" else tuple(counts)
        names = [section.name if isinstance(section, Sample) else section for section in sections]
        return derive_panel([counts[name] for name in names], size)
    if Path(panel).is_file():
        with reading(f"The panel {panel}", "Give a text file with one gene a line."):
            genes = tuple(dict.fromkeys(read_text(Path(panel)).split()))
        check_names(genes, "gene", Path(panel))
        if not genes:
            raise GeneDMLError(f"The panel {panel} is empty. Give one gene a line.")
        return genes
    return published_panel(panel)


def _run_folds(
    folds: Sequence[Fold], run_fold: Callable[..., str], devices: Sequence[torch.device], threads: int, out: Path
) -> None:
    """As many folds at a time as there are devices, or shares of a CPU."""
    with console.progress("Folds", len(folds)) as advance:
        for name in spread(functools.partial(run_fold, at_once=len(devices)), folds, devices, threads):
            console.note(f"{in_words(name)} is done: {model_file(out, name)}")
            advance(note=in_words(name).lower())


def _run_fold(
    fold: Fold,
    device: torch.device,
    *,
    inputs: Inputs,
    out: Path,
    config: Config,
    encoder: EncoderRecord,
    origin: Mapping[str, str],
    at_once: int,
) -> str:
    """Train one fold, test it, fit its references; returns its name.

    Repeatable, in any process that sees the same files: neither device nor order nor other folds change what it writes.
    The checkpoint is written last, so that it marks a finished fold.
    """
    genes, config = inputs.panels[fold.name], _config_of(fold, config)
    train, validation, test = (
        [_section(sample, inputs, genes, config) for sample in side]
        for side in (fold.train, fold.validation, fold.test)
    )
    state = state_file(out, fold.name)
    words, log = in_words(fold.name), log_file(out, fold.name)
    trained = train_fold(train, validation, test, config, device, words, at_once, state, log)
    fitted = [*train, *validation]
    content = {name: features.slide_sha256 for name, features in inputs.features.items()}
    said = [*fold_notes(fold, config), "" if fold.tests_nothing else origin["panel"], origin["partial"]]
    said += [same_slides_note(fold, content), counts_note(fold, inputs.counts), scale_note(fitted, test, config)]
    said += [note for data in (*fitted, *test) for note in data.notes]
    card = _card(fold, inputs, config, genes, encoder, trained, fitted, origin["dataset"], said)
    ridge, file = fit_ridge(fitted), model_file(out, fold.name)
    beside = weights_sha256(trained.state)
    save_ridge(ridge, genes, beside, reference_file(file, "ridge"))
    novelty = _novelty(fitted, test)
    if novelty is not None:
        save_novelty(novelty, beside, reference_file(file, "novelty"))
    network = build_network(card)
    network.load_state_dict(trained.state)
    network.to(device)
    for data in test:
        predicted = predict_section(network, data.features, device)
        tested = _tested(data, predicted, card, ridge)
        if novelty is not None:
            tested.obs["novelty"] = novelty.novelty(data.features)[data.labels.valid].astype(np.float32)
        write(tested, out / "predictions" / f"{data.sample.name}.h5ad")
    with arriving(file) as temporary:
        temporary.write_bytes(checkpoint_bytes(card, trained.state))
    state.unlink(missing_ok=True)
    return fold.name


def _config_of(fold: Fold, config: Config) -> Config:
    """The settings of a fold's training; of all sections, which end with all of them trained on, some are other."""
    if not fold.tests_nothing:
        return config
    epochs = config.training.epochs
    if fold.epochs_of_folds:
        epochs = round(median(fold.epochs_of_folds.values()))
    return replace(config, training=replace(config.training, select_on="validation", refit=True, epochs=epochs))


def _novelty(fitted: Sequence[SectionData], test: Sequence[SectionData]) -> NoveltyModel | None:
    """In the measure of the sections tested; where there are none, of each of those fitted, the others aside."""
    features = [data.features for data in fitted]
    if test:
        return fit_novelty(features, [data.features for data in test])
    return fit_novelty_to_all(features, left_out_together(fitted))


def _section(sample: Sample, inputs: Inputs, genes: Sequence[str], config: Config) -> SectionData:
    features = inputs.features[sample.name]
    try:
        labels = make_labels(inputs.counts[sample.name], features.spots, genes, config.labels)
        check_labelled(labels, sample.name, sample.counts)
        joined = check_join(labels, sample.name, sample.counts)
    except GeneDMLError as error:
        error.add_note(f"This was section {sample.name}.")
        raise
    shared = inputs.shared.get(sample.name, "")
    return SectionData(sample, features, labels, (joined, shared, *features.notes))


def _card(
    fold: Fold,
    inputs: Inputs,
    config: Config,
    genes: Sequence[str],
    encoder: EncoderRecord,
    trained: Trained,
    fitted: Sequence[SectionData],
    dataset: str,
    notes: Sequence[str],
) -> ModelCard:
    seen = (*fold.train, *fold.validation, *(fold.test if config.training.select_on == "test" else ()))
    held_out = trained.held_out_pcc
    slope, intercept = fit_depth_line(fitted)
    return ModelCard(
        config=config,
        genes=tuple(genes),
        um_per_px=scales_of(fitted),
        gene_ids=agreed_gene_ids([gene_ids_of(inputs.counts[data.sample.name]) for data in fitted], genes),
        encoder=encoder,
        fold=fold.name,
        mean_label=tuple(mean_label(fitted).tolist()),
        depth_line=(tuple(slope.tolist()), tuple(intercept.tolist())),
        training_slides={sample.name: inputs.features[sample.name].slide_sha256 for sample in seen},
        training_patients=tuple(sorted({sample.patient for sample in seen})),
        training_donors=tuple(sorted({sample.donor for sample in seen})),
        notes=tuple(filter(None, dict.fromkeys(notes))),
        scores={"epoch": trained.epoch, "held_out_pcc": [] if held_out is None else held_out.tolist()},
        made_by={
            **VERSION,
            "torch": str(torch.__version__),
            "seed": config.training.seed,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "dataset": dataset,
        },
    )


def _tested(
    data: SectionData, predicted: Float[np.ndarray, "S M"], card: ModelCard, ridge: RidgeModel
) -> anndata.AnnData:
    """Predictions of a test section beside its truth and references, for the spots that have a label."""
    made_by = {
        **card.made_by,
        "sample": data.sample.name,
        **({} if data.features.um_per_px is None else {"um_per_px": data.features.um_per_px}),
        **origin_record(data.features.origin_xy),
        "patient": data.sample.patient,
        "fold": card.fold,
        "notes": list(card.notes),
        "ridge_alpha": ridge.alpha,
        "spots_without_counts": data.labels.without_counts,
        "spots_without_panel_counts": data.labels.empty,
    }
    references = reference_layers(card, ridge, data.features, data.labels.depth)
    layers = {"truth": data.labels.y, **references}
    result = to_anndata(predicted, card.genes, data.features.spots, card.config.labels, made_by, layers, card.gene_ids)
    result.obs["depth"] = data.labels.depth
    result.var["held_out_pcc"] = card.scores["held_out_pcc"] or np.nan
    result.var["ridge_held_out_pcc"] = ridge.inner_pcc
    return result[data.labels.valid].copy()


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
