"""One fold: trained, tested, its references fitted."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import anndata
import numpy as np
import torch
from jaxtyping import Float

from genedml.checkpoint import ModelCard, build_network, checkpoint_bytes, weights_sha256
from genedml.config import Config
from genedml.errors import GeneDMLError
from genedml.networks.registry import variant_of
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.counts import gene_ids_of
from genedml_cli.expression.labels import check_join, check_labelled, make_labels
from genedml_cli.expression.panels import agreed_gene_ids
from genedml_cli.features.section_data import SectionData
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.files.provenance import VERSION
from genedml_cli.files.storage import atomic_write
from genedml_cli.machine.crew import Place
from genedml_cli.machine.devices import threads_of_torch
from genedml_cli.notes import Note, texts_of
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.prediction_record import PredictionRecord
from genedml_cli.outputs.predictions import UNSMOOTHED, add_z, to_anndata
from genedml_cli.outputs.reference_layers import RIDGE, held_out_column
from genedml_cli.outputs.run_folder import in_words, log_file, model_file, reference_file, state_file
from genedml_cli.prediction.section import predict_section
from genedml_cli.references.depth import fit_depth_line, label_sd, mean_label, reference_layers
from genedml_cli.references.linear import LinearReferences, save_linear
from genedml_cli.references.novelty import save_novelty
from genedml_cli.references.spatial import spatial_variability
from genedml_cli.runs.count_tables import CountTables
from genedml_cli.runs.fold_notes import (
    array_of,
    counts_note,
    fold_notes,
    same_slides_note,
    scale_note,
    scales_of,
    twins_note,
)
from genedml_cli.runs.fold_plan import FoldJob, FoldPlan, read_plan
from genedml_cli.runs.fold_references import References, find_references
from genedml_cli.training.loop import Trained, learnt_from, shape_of, threads_for, train_fold


@dataclass(frozen=True)
class FoldDone:
    """A fold that is finished, and the seconds of its training, without the references that all networks share."""

    job: FoldJob
    seconds: float


@dataclass(frozen=True)
class FoldTrainer:
    """Trains folds by their plans at a place."""

    counts: CountTables
    place: Place

    def run(self, job: FoldJob) -> FoldDone:
        """Train a fold, test it, fit its references.

        Repeatable, in any process that sees the same files: neither place nor order nor other folds change what it
        writes. The checkpoint is written last, so that it marks a finished fold.
        """
        plan, device = read_plan(job), torch.device(self.place.device)
        sections = {name: section.open_features() for name, section in plan.sections.items()}
        shape = shape_of(next(iter(sections.values())), len(plan.genes), plan.config)
        with threads_of_torch(threads_for(plan.config, shape, device)):
            return FoldDone(job, self._run(job.run, plan, sections, device))

    def _run(self, out: Path, plan: FoldPlan, sections: Mapping[str, SectionFeatures], device: torch.device) -> float:
        fold, config = plan.fold, _config_of(plan.fold, plan.config)
        tables = {sample.name: self.counts.read_planned(sample, plan.sections[sample.name]) for sample in fold.sections}
        train, validation, test = (
            [_section(sample, plan, sections[sample.name], tables[sample.name], config) for sample in side]
            for side in (fold.train, fold.validation, fold.test)
        )
        state, log = state_file(out, fold.name), log_file(out, fold.name)
        words, at_once = in_words(fold.name), self.place.of
        started = time.monotonic()
        trained = train_fold(train, validation, test, config, device, words, at_once, state, log, plan.start)
        took_s = time.monotonic() - started
        learnt, seen = learnt_from(train, validation, config.training), [*train, *validation]
        content = {name: features.slide_sha256 for name, features in sections.items()}
        twins = {name: section.twins for name, section in plan.sections.items()}
        notes = [*fold_notes(fold, config, [len(data.labelled_spots) for data in learnt])]
        notes += [None if fold.tests_nothing else plan.panel_note]
        notes += [Note.of(plan.partial) if plan.partial else None]
        notes += [same_slides_note(fold, content), twins_note(fold, twins)]
        notes += [counts_note(fold, tables), scale_note(seen, test, config)]
        notes += [note for data in (*seen, *test) for note in data.notes]
        gene_ids = agreed_gene_ids([gene_ids_of(tables[data.sample.name]) for data in seen], plan.genes)
        card = _card(plan, config, trained, learnt, seen, content, gene_ids, [*filter(None, notes)])
        references = find_references(learnt, seen, test, config.labels.smooth, plan.references)
        _write(out, card, trained, references, test, device)
        state.unlink(missing_ok=True)
        return took_s


def _write(
    out: Path,
    card: ModelCard,
    trained: Trained,
    references: References,
    test: Sequence[SectionData],
    device: torch.device,
) -> None:
    """What a fold leaves in the run folder: references, predictions of its test sections, and the checkpoint."""
    file, weights = model_file(out, card.fold), weights_sha256(trained.state)
    linear, novelty = references.linear, references.novelty
    save_linear(linear, card.genes, weights, file)
    if novelty is not None:
        save_novelty(novelty, weights, reference_file(file, "novelty"))
    network = build_network(card)
    network.load_state_dict(trained.state)
    network.to(device)
    for data in test:
        predicted = predict_section(network, data.features, device)
        tested = _tested(data, predicted, card, linear)
        if novelty is not None:
            tested.obs["novelty"] = novelty.novelty(data.features)[data.labels.valid].astype(np.float32)
        write(tested, out / "predictions" / f"{data.sample.name}.h5ad")
    with atomic_write(file) as temporary:
        temporary.write_bytes(checkpoint_bytes(card, trained.state))


def _section(
    sample: Sample, plan: FoldPlan, features: SectionFeatures, counts: anndata.AnnData, config: Config
) -> SectionData:
    try:
        labels = make_labels(counts, features.spots, plan.genes, config.labels)
        check_labelled(labels, sample.name, sample.counts)
        joined = check_join(labels, sample.name, sample.counts)
    except GeneDMLError as error:
        error.add_note(f"This was section {sample.name}.")
        raise
    notes = filter(None, (joined, plan.sections[sample.name].shared))
    return SectionData(sample, features, labels, (*notes, *features.notes))


def _card(
    plan: FoldPlan,
    config: Config,
    trained: Trained,
    learnt: Sequence[SectionData],
    seen: Sequence[SectionData],
    slides: Mapping[str, str],
    gene_ids: Sequence[str],
    notes: Sequence[Note],
) -> ModelCard:
    fold = plan.fold
    chosen_by = (*fold.train, *fold.validation, *(fold.test if config.training.select_on == "test" else ()))
    held_out = trained.held_out_pcc
    slope, intercept = fit_depth_line(learnt)
    return ModelCard(
        config=config,
        shape=trained.shape,
        genes=plan.genes,
        um_per_px=scales_of(seen),
        spot_um=tuple(sorted({um for data in seen if (um := data.features.spots.summed_um)})),
        array=array_of(seen),
        gene_ids=tuple(gene_ids),
        encoder=plan.encoder,
        fold=fold.name,
        mean_label=tuple(mean_label(learnt).tolist()),
        label_sd=tuple(label_sd(learnt).tolist()),
        depth_line=(tuple(slope.tolist()), tuple(intercept.tolist())),
        training_slides={sample.name: slides[sample.name] for sample in chosen_by},
        training_patients=tuple(sorted({sample.patient for sample in chosen_by})),
        training_donors=tuple(sorted({sample.donor for sample in chosen_by})),
        bank=trained.bank,
        notes=tuple(texts_of(dict.fromkeys(notes))),
        scores={
            "epoch": trained.epoch,
            "held_out_pcc": [] if held_out is None else held_out.tolist(),
            "morans_i": spatial_variability(seen).tolist(),
        },
        made_by={
            **VERSION,
            "torch": str(torch.__version__),
            "seed": config.training.seed,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "dataset": plan.dataset,
            **({} if plan.start is None else {"backbone_sha256": plan.start.sha256}),
        },
    )


def _tested(
    data: SectionData, predicted: Float[np.ndarray, "S M"], card: ModelCard, linear: LinearReferences
) -> anndata.AnnData:
    """Predictions of a test section beside its truth and references, for the spots that have a label."""
    record = PredictionRecord(
        **card.made_by,
        method=card.config.method,
        variant=variant_of(card.config.method, card.config.network),
        label_settings=card.config.labels,
        notes=tuple(Note.of(text) for text in card.notes),
        um_per_px=data.features.um_per_px,
        qupath_origin_xy_px=data.features.origin_xy,
        fold=card.fold,
        sample=data.sample.name,
        patient=data.sample.patient,
        ridge_alpha=linear[RIDGE].alpha,
        spots_without_counts=data.labels.without_counts,
        spots_without_panel_counts=data.labels.empty,
    )
    references = reference_layers(card, linear, data.features, data.labels.depth)
    layers = {"truth": data.labels.y, UNSMOOTHED: data.labels.unsmoothed, **references}
    result = to_anndata(predicted, card.genes, data.features.spots, record, layers, card.gene_ids)
    result.obs["depth"] = data.labels.depth
    add_z(result, np.asarray(card.mean_label), np.asarray(card.label_sd))
    result.var["held_out_pcc"] = card.scores["held_out_pcc"] or np.nan
    for layer, model in linear.items():
        result.var[held_out_column(layer)] = model.inner_pcc
    result.var["morans_i"] = card.scores["morans_i"]
    return result[data.labels.valid].copy()


def _config_of(fold: Fold, config: Config) -> Config:
    """The settings of a fold's training; of all sections, which end with all of them trained on, some are other."""
    if not fold.tests_nothing:
        return config
    epochs = config.training.epochs
    if fold.epochs_of_folds:
        epochs = round(median(fold.epochs_of_folds.values()))
    return replace(config, training=replace(config.training, select_on="validation", refit=True, epochs=epochs))
