"""Score every fold's model on sections of other donors, as table 2 of the paper. Letters: S spots, M genes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from genedml.checkpoint import ModelCard, load_card, load_checkpoint, network_sha256
from genedml.errors import GeneDMLError
from genedml.metrics import HIGH_GENES
from genedml.networks.registry import title_of
from genedml_cli import console
from genedml_cli.datasets.datasets import dataset, find_dataset, partial_note
from genedml_cli.datasets.folds import seen_donors
from genedml_cli.datasets.samples import ALL_SECTIONS, EVERY_FOLD, Sample, read_sheet
from genedml_cli.datasets.shared_counts import check_shared
from genedml_cli.evaluation.evaluation import label_note, left_out_note, newest_run, unfinished_notes, unmatched_notes
from genedml_cli.evaluation.published import PublishedRow, published_table, rows_beside
from genedml_cli.evaluation.scores import Evaluation, FoldScores, reference_notes, score_fold, write_if_possible
from genedml_cli.expression.counts import RAW, not_raw_note, read_counts
from genedml_cli.expression.labels import Labels, check_join, make_labels
from genedml_cli.expression.panels import gene_columns, match_panel
from genedml_cli.features.extraction import extract
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import write_json, write_text
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.devices import all_deterministic
from genedml_cli.notes import Note, marks_of, texts_of
from genedml_cli.outputs.run_folder import RECORD, model_files, model_files_in, read_record, reference_file
from genedml_cli.prediction.ensemble import Ensemble, load_models, notes_for_others
from genedml_cli.prediction.section import predict_section
from genedml_cli.references.depth import reference_layers
from genedml_cli.references.ridge import load_ridge
from genedml_cli.slides.patches import PATCHES_SUFFIX, open_patches
from genedml_cli.slides.slide_files import content_sha256
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots

PUBLISHED_TABLE, PUBLISHED_TRAINING, PUBLISHED_ON = 2, "HER2ST", "visium-breast"


@dataclass(frozen=True)
class External:
    """Scores on sections that no model of a run has to do with.

    Args:
        title: which run on what.
        sections: of every section, the scores of every fold's model: what are folds there are models here.
        spots: labelled spots of every section.
        panel: genes that the models predict.
        notes: what must be said of all sections.
        published: the paper's rows, each of one of its sections.
        folder: where the tables are written.
        written: whether they could be.
    """

    title: str
    sections: tuple[Evaluation, ...]
    spots: tuple[int, ...]
    panel: int
    notes: tuple[Note, ...]
    published: tuple[PublishedRow, ...]
    folder: Path
    written: bool = True

    def values(self) -> pd.DataFrame:
        """One row for each section, method and fold's model; of what was measured only."""
        tables = [one.values().assign(marks=marks_of(self.notes)) for one in self.sections]
        for table, one, spots in zip(tables, self.sections, self.spots, strict=True):
            table.insert(0, "section", one.title)
            table.insert(1, "spots", spots)
            table.insert(2, "genes", self.panel - len(one.unmatched))
        return pd.concat(tables, ignore_index=True)

    def write(self) -> None:
        """``metrics.csv``, ``metrics.json`` with the unmatched genes, and ``genes.csv``, as of a run, by section."""
        table = self.values()
        table.insert(0, "source", "measured")
        published = published_table(self.published).rename(columns={"dataset": "section"})
        write_text(self.folder / "metrics.csv", pd.concat([table, published], ignore_index=True).to_csv(index=False))
        genes = [one.per_gene().assign(section=one.title) for one in self.sections]
        write_text(self.folder / "genes.csv", pd.concat(genes, ignore_index=True).to_csv(index=False))
        write_json(self.folder / "metrics.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Title, notes, and of every section its scores, spots and unmatched genes; the paper's rows apart."""
        sections = {
            one.title: {key: value for key, value in one.to_dict().items() if key not in ("title", "published")}
            | {"spots": spots, "panel_genes": self.panel}
            for one, spots in zip(self.sections, self.spots, strict=True)
        }
        published = [row.to_dict() for row in self.published]
        return {"title": self.title, "notes": texts_of(self.notes), "sections": sections, "published": published}


@takes_paths
def evaluate_external(
    run: Path | None,
    external: str,
    root: Path | None = None,
    allow_partial: bool = False,
    allow_off_tissue: bool = False,
    features: Path = Path("features"),
    *,
    weights: Path | None = None,
    compute: Compute = AUTO,
) -> External:
    """Score every fold's model of a run on sections of other donors, and write the tables into the run's folder.

    Genes are matched by name; those that a section's counts lack are named and left out. Its labels are then made by
    the models' transform from the genes that are there: a library over the panel is over these.

    Args:
        run: the run folder, of which the folds' models are scored, or that of all sections if there is no fold; the
            newest under ``runs/`` if None.
        external: a sample sheet, or the name of a data set, such as ``visium-breast``.
        root: folder that holds the data.
        allow_partial: use a data set of which sections are missing, and say so.
        allow_off_tissue: take spots even if most lie off the tissue.
        features, weights: where feature files are kept; the encoder's weights file, instead of the hub.
        compute: where and how the arithmetic runs.

    Raises:
        GeneDMLError: whatever the user can fix; every donor was seen in training; too few genes in common.
    """
    run = newest_run() if run is None else run
    if not run.is_dir():
        raise GeneDMLError(f"--external goes with a run folder, to score every fold of it; {run} is none.")
    tested = any(name != ALL_SECTIONS for name in model_files_in(run))
    files = model_files(run, EVERY_FOLD if tested else None)
    cards = [load_card(file) for file in files]
    sheet = Path(external) if external.endswith(".csv") or Path(external).is_file() else None
    samples = read_sheet(sheet, root) if sheet else dataset(external, root or Path(), allow_partial)
    seen = seen_in_training(cards, samples)
    if len(seen) == len(samples):
        raise GeneDMLError(f"Nothing of {external} is external to {run}. {_seen_note(seen)}")
    name = sheet.stem if sheet else external
    folder, views = run / f"external-{name}", cards[0].config.views
    scored, unseen = [], [sample for sample in samples if sample.name not in seen]
    counts = {sample.name: read_counts(sample.counts) for sample in unseen}
    shared = check_shared(unseen, counts)
    with all_deterministic(compute.deterministic), console.progress("Sections", len(unseen)) as advance:
        models = load_models(files, weights, compute)
        for sample in unseen:
            _check_scale(sample, models)
        for sample in unseen:
            found = extract(
                [sample],
                models.encoder,
                views,
                features,
                allow_off_tissue=allow_off_tissue,
                tiles=models.needs.tiles,
            )
            shared_notes = tuple(filter(None, [shared.get(sample.name)]))
            table = counts.pop(sample.name)
            scored.append(_score_section(sample, table, models, found[sample.name], folder, shared_notes))
            advance(note=sample.name)
    published, published_notes = _published(run, name, cards)
    partial = None if sheet else partial_note(find_dataset(external), samples)
    result = External(
        f"{run.name} on {name}: {console.count(len(scored), 'section')}, {console.count(len(files), 'model')}",
        tuple(one for one, _ in scored),
        tuple(spots for _, spots in scored),
        len(_all_genes(cards)),
        (*_notes(models, run, partial), *([Note(None, _seen_note(seen))] if seen else []), *published_notes),
        published,
        folder,
    )
    return replace(result, written=write_if_possible(result.write))


def seen_in_training(cards: Sequence[ModelCard], samples: Sequence[Sample]) -> dict[str, str]:
    """The samples whose slide or donor any of the models was trained or chosen on, and which of the two."""
    slides = {slide for card in cards for slide in card.training_slides.values()}
    known = {sample.name for card in cards for sample in seen_donors(card, samples)}
    seen = {}
    for sample in samples:
        if sample.name in known:
            seen[sample.name] = f"of {sample.donor}"
        elif content_sha256(sample.slide) in slides:
            seen[sample.name] = "this very slide"
    return seen


def _seen_note(seen: Mapping[str, str]) -> str:
    named = ", ".join(f"{name} ({why})" for name, why in seen.items())
    return f"Left out, as their donors were seen in training: {named}."


def _check_scale(sample: Sample, models: Ensemble) -> None:
    """Before the hours of encoding, refuse what the models would see at another size."""
    views = models.cards[0].config.views
    if views.um_per_px != "native":
        return
    if sample.slide.suffix == PATCHES_SUFFIX:
        with open_patches(sample.slide, views) as patches:
            models.check_scale(sample.name, patches.um_per_px)
        return
    spots = read_spots(sample.spots)
    with open_section(sample.slide, spots, sample.um_per_px, sample.pitch_um, scale_needed=False) as slide:
        models.check_scale(sample.name, slide.um_per_px if slide.knows_scale else None)


def _score_section(
    sample: Sample,
    counts: anndata.AnnData,
    models: Ensemble,
    found: SectionFeatures,
    folder: Path,
    shared: Sequence[Note],
) -> tuple[Evaluation, int]:
    """Scores of every model on one section, and how many of its spots have a label in all."""
    scores: list[FoldScores] = []
    joined: list[Note | None] = []
    valid = np.ones(len(found.spots), dtype=bool)
    for file, card in zip(models.files, models.cards, strict=True):
        try:
            genes = match_panel(counts, card.genes)[0]
            labels = make_labels(counts, found.spots, genes, card.config.labels)
            joined.append(check_join(labels, sample.name, sample.counts))
        except GeneDMLError as error:
            error.add_note(f"This was section {sample.name}.")
            raise
        valid &= labels.valid
        _, network = load_checkpoint(file, models.device)
        predicted = predict_section(network, found, models.device)
        data = _with_references(predicted, found, labels, genes, card, file)
        scores += score_fold(card.fold, [data], title_of(card.config.method))
    every = _all_genes(models.cards)
    unmatched = tuple(gene for gene, at in zip(every, gene_columns(counts, every), strict=True) if at < 0)
    notes = [*filter(None, dict.fromkeys(joined)), *shared, *found.notes]
    notes += [*reference_notes(scores), *unmatched_notes(unmatched, len(every))]
    if not counts.uns[RAW]:
        notes.append(not_raw_note([sample.counts.name]))
    if not valid.all():
        notes.append(left_out_note(int((~valid).sum()), len(valid)))
    return Evaluation(sample.name, tuple(scores), tuple(notes), folder, unmatched=unmatched), int(valid.sum())


def _with_references(
    predicted: np.ndarray,
    features: SectionFeatures,
    labels: Labels,
    genes: Sequence[str],
    card: ModelCard,
    file: Path,
) -> anndata.AnnData:
    """Predictions of the labelled spots and matched genes, for :func:`genedml_cli.evaluation.scores.score_fold`."""
    column = pd.Index(card.genes).get_indexer(list(genes))
    kept = reference_file(file, "ridge")
    ridge = load_ridge(kept, card.genes, network_sha256(file)) if kept.is_file() else None
    references = reference_layers(card, ridge, features, labels.depth)
    layers = {"truth": labels.y, **{name: layer[:, column] for name, layer in references.items()}}
    held_out = {"held_out_pcc": card.scores["held_out_pcc"] or None}
    if ridge is not None:
        held_out["ridge_held_out_pcc"] = ridge.inner_pcc
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    for name, scores in held_out.items():
        var[name] = np.nan if scores is None else np.asarray(scores, dtype=float)[column]
    obs = pd.DataFrame({"depth": labels.depth}, index=pd.Index(features.spots.names, dtype=str))
    return anndata.AnnData(predicted[:, column], obs=obs, var=var, layers=layers)[labels.valid].copy()


def _all_genes(cards: Sequence[ModelCard]) -> tuple[str, ...]:
    """The genes of all models: folds may have panels of their own."""
    return tuple(dict.fromkeys(gene for card in cards for gene in card.genes))


def _notes(models: Ensemble, run: Path, partial: Note | None) -> list[Note]:
    notes = [label_note(models.cards[0].config.labels), *notes_for_others(models.cards)]
    notes += [*unfinished_notes(run, [card.fold for card in models.cards]), *([partial] if partial else [])]
    pairs = zip(models.cards, models.files, strict=True)
    without = [card.fold for card, file in pairs if not reference_file(file, "ridge").is_file()]
    if without:
        text = f"Ridge is left out of folds {', '.join(without)}: its file is not beside the model."
        notes.append(Note(None, text))
    text = (
        f"The {HIGH_GENES} genes of PCC(H) are those that a method ranks best on this very section, as published, "
        "which flatters; held out: ranked inside the training."
    )
    return [*notes, Note(None, text)]


def _published(
    run: Path, external: str, cards: Sequence[ModelCard]
) -> tuple[tuple[PublishedRow, ...], tuple[Note, ...]]:
    """Table 2, where it is of the same data: models of HER2ST on Visium breast sections."""
    trained_on = read_record(run)["dataset"] if (run / RECORD).is_file() else ""
    if external != PUBLISHED_ON:
        return (), ()
    if trained_on != PUBLISHED_TRAINING:
        return (), (Note(None, f"The paper's rows are left out: its models were trained on {PUBLISHED_TRAINING}."),)
    rows, notes = rows_beside(trained_on, cards[0].config.labels, [card.genes for card in cards], (PUBLISHED_TABLE,))
    unknown = Note(None, "The paper does not name its three Visium sections.")
    return rows, (*notes, *([unknown] if rows else []))
