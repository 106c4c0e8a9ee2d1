"""One fold: trained, tested, its references fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import anndata
import numpy as np
import torch
from jaxtyping import Float

from genedml.checkpoint import EncoderRecord, ModelCard, build_network, checkpoint_bytes, weights_sha256
from genedml.config import Config
from genedml.errors import GeneDMLError
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.counts import gene_ids_of
from genedml_cli.expression.labels import check_join, check_labelled, make_labels
from genedml_cli.expression.panels import agreed_gene_ids
from genedml_cli.features.section_data import SectionData, left_out_together
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.files.provenance import VERSION
from genedml_cli.files.storage import arriving
from genedml_cli.notes import Note, texts_of
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.predictions import to_anndata
from genedml_cli.outputs.run_folder import in_words, log_file, model_file, reference_file, state_file
from genedml_cli.prediction.section import predict_section
from genedml_cli.references.depth import fit_depth_line, mean_label, reference_layers
from genedml_cli.references.novelty import NoveltyModel, fit_novelty, fit_novelty_to_all, save_novelty
from genedml_cli.references.ridge import RidgeModel, fit_ridge, save_ridge
from genedml_cli.runs.fold_notes import counts_note, fold_notes, panel_note, same_slides_note, scale_note, scales_of
from genedml_cli.spots.section import origin_record
from genedml_cli.training.loop import Trained, train_fold


@dataclass(frozen=True)
class Inputs:
    """What every fold of a run draws on."""

    features: dict[str, SectionFeatures]
    counts: dict[str, anndata.AnnData]
    panels: dict[str, tuple[str, ...]]
    shared: dict[str, Note] = field(default_factory=dict)
    """What must be said of sections that have the counts of another one."""


def run_fold(
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
    panel = None if fold.tests_nothing else panel_note(origin["panel"], origin["dataset"])
    notes = [*fold_notes(fold, config), panel, Note.of(origin["partial"]) if origin["partial"] else None]
    notes += [same_slides_note(fold, content), counts_note(fold, inputs.counts), scale_note(fitted, test, config)]
    notes += [note for data in (*fitted, *test) for note in data.notes]
    card = _card(fold, inputs, config, genes, encoder, trained, fitted, origin["dataset"], [*filter(None, notes)])
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


def _section(sample: Sample, inputs: Inputs, genes: Sequence[str], config: Config) -> SectionData:
    features = inputs.features[sample.name]
    try:
        labels = make_labels(inputs.counts[sample.name], features.spots, genes, config.labels)
        check_labelled(labels, sample.name, sample.counts)
        joined = check_join(labels, sample.name, sample.counts)
    except GeneDMLError as error:
        error.add_note(f"This was section {sample.name}.")
        raise
    notes = filter(None, (joined, inputs.shared.get(sample.name)))
    return SectionData(sample, features, labels, (*notes, *features.notes))


def _card(
    fold: Fold,
    inputs: Inputs,
    config: Config,
    genes: Sequence[str],
    encoder: EncoderRecord,
    trained: Trained,
    fitted: Sequence[SectionData],
    dataset: str,
    notes: Sequence[Note],
) -> ModelCard:
    seen = (*fold.train, *fold.validation, *(fold.test if config.training.select_on == "test" else ()))
    held_out = trained.held_out_pcc
    slope, intercept = fit_depth_line(fitted)
    return ModelCard(
        config=config,
        shape=trained.shape,
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
        notes=tuple(texts_of(dict.fromkeys(notes))),
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
        "method": card.config.method,
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
