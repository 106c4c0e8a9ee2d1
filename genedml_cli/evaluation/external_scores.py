"""Scores of a run's models on one section of other donors. Letters: S spots, M genes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from genedml.checkpoint import SCORES_OF_GENES, ModelCard, network_sha256
from genedml.networks.registry import variant_of
from genedml_cli import __version__
from genedml_cli.datasets.samples import Sample
from genedml_cli.evaluation import ceiling
from genedml_cli.evaluation.checklist import Evidence, checklist
from genedml_cli.evaluation.evaluation import halves_if_possible, left_out_note, unmatched_notes
from genedml_cli.evaluation.external_sections import CountedSection
from genedml_cli.evaluation.fold_scores import score_fold
from genedml_cli.evaluation.scores import Evaluation, FoldScores, reference_notes
from genedml_cli.expression.counts import RAW, not_raw_note
from genedml_cli.expression.labels import Labels
from genedml_cli.expression.panels import gene_columns
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.notes import Note
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of, set_record
from genedml_cli.outputs.predictions import UNSMOOTHED, add_places
from genedml_cli.outputs.reference_layers import held_out_column
from genedml_cli.prediction.ensemble import Ensemble
from genedml_cli.prediction.intervals import add_interval, interval_note, interval_of_cards
from genedml_cli.prediction.section import predict_section
from genedml_cli.references.depth import reference_layers
from genedml_cli.references.linear import load_linear

NO_NULL = "it takes long for many models: evaluate RUN --external computes it of one run."


@dataclass(frozen=True)
class Wanted:
    """What of the scores is computed that takes time.

    Args:
        null: of moved maps.
        ceiling: where the counts can be halved; else the checklist says why.
    """

    null: bool = False
    ceiling: bool = False


def score_section(
    section: CountedSection, models: Ensemble, features: SectionFeatures, folder: Path, wanted: Wanted
) -> tuple[Evaluation, int]:
    """Scores of every model of a run on one section, and how many of its spots have a label in all.

    Args:
        section: its counts.
        models: of the run.
        features: of the section.
        folder: where the scores are to be written.
        wanted: what is computed besides.

    Raises:
        GeneDMLError: too few genes or spots are in the counts.
    """
    scores: list[FoldScores] = []
    tested: list[anndata.AnnData] = []
    for number, (file, card) in enumerate(zip(models.files, models.cards, strict=True)):
        genes, labels, _ = section.labels(card, features.spots)
        predicted = predict_section(models.network(number), features, models.device)
        data = _with_references(predicted, features, labels, genes, card, file)
        _complete(data, section.sample, card)
        tested.append(data)
        scores += score_fold(card.fold, [data], record_of(data).title, full=True, null=wanted.null)
    halves, no_ceiling = _halves(section, models, features) if wanted.ceiling else ((), "")
    valid = np.all([section.labels(card, features.spots)[1].valid for card in models.cards], axis=0)
    notes = _notes(section, models, features, scores, tested)
    notes += [] if valid.all() else [left_out_note(int((~valid).sum()), len(valid))]
    notes += [ceiling.NOTE] if halves else []
    unmatched = _unmatched(section, models)
    evaluation = Evaluation(
        section.sample.name, tuple(scores), tuple(notes), folder, split_halves=halves, unmatched=unmatched
    )
    donors = frozenset({section.sample.donor}.union(*(card.training_donors for card in models.cards)))
    evidence = Evidence(evaluation, tested, donors, no_ceiling, "" if wanted.null else NO_NULL)
    return replace(evaluation, checklist=checklist(evidence)), int(valid.sum())


def all_genes(cards: Sequence[ModelCard]) -> tuple[str, ...]:
    """The genes of all models: folds may have panels of their own."""
    return tuple(dict.fromkeys(gene for card in cards for gene in card.genes))


def _halves(section: CountedSection, models: Ensemble, features: SectionFeatures) -> tuple[tuple[FoldScores, ...], str]:
    """Split halves of the labels of every model, or why the counts have none."""

    def split() -> tuple[FoldScores, ...]:
        each = [(card, section.halves(card, features.spots)) for card in models.cards]
        return tuple(
            ceiling.halves_of_fold(card.fold, section.labels(card, features.spots)[0], [halves])
            for card, halves in each
        )

    return halves_if_possible(split, asked_for=False)


def _unmatched(section: CountedSection, models: Ensemble) -> tuple[str, ...]:
    """Genes of any model that the counts do not have."""
    every = all_genes(models.cards)
    return tuple(gene for gene, at in zip(every, gene_columns(section.counts, every), strict=True) if at < 0)


def _notes(
    section: CountedSection,
    models: Ensemble,
    features: SectionFeatures,
    scores: Sequence[FoldScores],
    tested: Sequence[anndata.AnnData],
) -> list[Note]:
    """What must be said of the section, its join and its references."""
    joined = [section.labels(card, features.spots)[2] for card in models.cards]
    notes = [*filter(None, dict.fromkeys(joined)), *section.shared, *features.notes]
    notes += filter(None, [models.size_note(features.spots, features.um_per_px)])
    notes += dict.fromkeys(note for data in tested for note in record_of(data).notes)
    unmatched = _unmatched(section, models)
    notes += [*reference_notes(scores, folds=False), *unmatched_notes(unmatched, len(all_genes(models.cards)))]
    return notes if section.counts.uns[RAW] else [*notes, not_raw_note([section.sample.counts.name])]


def _complete(data: anndata.AnnData, sample: Sample, card: ModelCard) -> None:
    """Add how a section was predicted, and its intervals where the model knows any."""
    record = PredictionRecord(
        genedml=__version__,
        method=card.config.method,
        variant=variant_of(card.config.method, card.config.network),
        label_settings=card.config.labels,
        notes=(),
        fold=card.fold,
        sample=sample.name,
        patient=sample.patient,
    )
    set_record(data, record)
    interval = interval_of_cards([card], list(data.var_names), None)
    if interval is not None:
        add_interval(data, interval, interval_note([card.calibration], interval.level))


def _with_references(
    predicted: np.ndarray,
    features: SectionFeatures,
    labels: Labels,
    genes: Sequence[str],
    card: ModelCard,
    file: Path,
) -> anndata.AnnData:
    """Predictions of the labelled spots and matched genes, with all that ``score_fold`` takes."""
    column = pd.Index(card.genes).get_indexer(list(genes))
    linear = load_linear(file, card.genes, network_sha256(file))
    references = reference_layers(card, linear, features, labels.depth)
    layers = {
        "truth": labels.y,
        UNSMOOTHED: labels.unsmoothed,
        **{name: layer[:, column] for name, layer in references.items()},
    }
    of_genes = {name: card.scores.get(name) or None for name in SCORES_OF_GENES}
    of_genes |= {held_out_column(layer): model.inner_pcc for layer, model in linear.items()}
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    for name, scores in of_genes.items():
        var[name] = np.nan if scores is None else np.asarray(scores, dtype=float)[column]
    obs = pd.DataFrame({"depth": labels.depth}, index=pd.Index(features.spots.names, dtype=str))
    data = anndata.AnnData(predicted[:, column], obs=obs, var=var, layers=layers)
    add_places(data, features.spots)
    return data[labels.valid].copy()
