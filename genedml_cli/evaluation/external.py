"""Score every fold's model on sections of other donors, as table 2 of the paper. Letters: S spots, M genes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from genedml.checkpoint import ModelCard, load_card
from genedml.errors import GeneDMLError
from genedml.metrics import HIGH_GENES
from genedml_cli import console
from genedml_cli.datasets.samples import ALL_SECTIONS, EVERY_FOLD
from genedml_cli.datasets.shared_counts import check_shared
from genedml_cli.evaluation.evaluation import label_note, newest_run, unfinished_notes
from genedml_cli.evaluation.external_scores import Wanted, all_genes, score_section
from genedml_cli.evaluation.external_sections import (
    CountedSection,
    ExternalSections,
    check_scales,
    features_for,
    features_key,
    find_sections,
    seen_in_training,
    seen_note,
)
from genedml_cli.evaluation.points import Point, merged
from genedml_cli.evaluation.published import PublishedRow, published_table, rows_beside
from genedml_cli.evaluation.scores import Evaluation, write_if_possible
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.gene_map import with_gene_map
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import write_json, write_text
from genedml_cli.machine.compute import AUTO, Compute, all_deterministic
from genedml_cli.machine.devices import prepare_encoder
from genedml_cli.notes import Note, marks_of, texts_of
from genedml_cli.outputs.hub_models import from_hub, results_of
from genedml_cli.outputs.run_folder import RECORD, model_files, model_files_in, read_record, reference_file
from genedml_cli.prediction.ensemble import Ensemble, load_models, notes_for_others

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

    @property
    def checklist(self) -> tuple[Point, ...]:
        """What a trustworthy table contains, and which of it this one does, over all sections."""
        return merged({one.title: one.checklist for one in self.sections})

    def values(self) -> pd.DataFrame:
        """One row for each section, method and fold's model; of what was measured only."""
        tables = [one.values().assign(marks=marks_of([*self.notes, *one.notes])) for one in self.sections]
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
    skip_off_image: bool = False,
    weights: Path | None = None,
    compute: Compute = AUTO,
    gene_map: Path | None = None,
    ceiling_if_possible: bool = False,
) -> External:
    """Score every fold's model of a run on sections of other donors, and write the tables into the run's folder.

    Genes are matched by name; those that a section's counts lack are named and left out. Its labels are then made by
    the models' transform from the genes that are there: a library over the panel is over these.

    Args:
        run: the run folder, or ``hf://owner/name``, of which the folds' models are scored, or that of all sections if
            there is no fold; the newest under ``runs/`` if None.
        external: a sample sheet, or the name of a data set, such as ``visium-breast``.
        root: folder that holds the data.
        allow_partial: use a data set of which sections are missing, and say so.
        allow_off_tissue: take spots even if most lie off the tissue.
        features, weights: where feature files are kept; the encoder's weights file, instead of the hub.
        skip_off_image: leave out spots that lie off the image.
        compute: where and how the arithmetic runs.
        gene_map: of genes that were renamed, see :mod:`genedml_cli.expression.gene_map`.
        ceiling_if_possible: also how far the labels of two halves of the counts agree, where they can be halved.

    Raises:
        GeneDMLError: whatever the user can fix; every donor was seen in training; too few genes in common.
    """
    found = find_sections(external, root, allow_partial, allow_off_tissue, skip_off_image)
    sections = replace(found, gene_map=gene_map)
    runs = [newest_run() if run is None else from_hub(run)]
    wanted = Wanted(null=True, ceiling=ceiling_if_possible)
    (result,) = score_external(runs, sections, features, weights, compute, wanted)
    return replace(result, written=write_if_possible(result.write))


def score_external(
    runs: Sequence[Path],
    sections: ExternalSections,
    features: Path,
    weights: Path | None,
    compute: Compute,
    wanted: Wanted = Wanted(),  # noqa: B008  frozen
) -> list[External]:
    """Scores of every fold's model of runs with one encoder on the same sections, in order of the runs; unwritten.

    A section is encoded, and its labels are made, once for all runs.

    Args:
        runs: run folders.
        sections: those of donors that a model of any run has seen are left out for all.
        features, weights, compute: as for :func:`evaluate_external`.
        wanted: of the scores that take time.

    Raises:
        GeneDMLError: as for :func:`evaluate_external`, or runs on other weights of the encoder.
    """
    for run in runs:
        if not run.is_dir():
            raise GeneDMLError(f"--external goes with a run folder, to score every fold of it; {run} is none.")
    files = [_models_of(run) for run in runs]
    cards = [load_card(file) for of_run in files for file in of_run]
    seen = seen_in_training(cards, sections.samples)
    if len(seen) == len(sections.samples):
        raise GeneDMLError(f"Nothing of {sections.source} is external to {runs[0]}. {seen_note(seen)}")
    unseen = [sample for sample in sections.samples if sample.name not in seen]
    counts = {sample.name: with_gene_map(read_counts(sample.counts), sections.gene_map) for sample in unseen}
    shared = check_shared(unseen, counts)
    scored: list[list[tuple[Evaluation, int]]] = [[] for _ in runs]
    with all_deterministic(compute.deterministic), console.progress("Sections", len(unseen)) as advance:
        encoder = prepare_encoder(cards[0].config.encoder, weights, compute)
        models = [load_models(of_run, encoder=encoder) for of_run in files]
        check_scales(unseen, models, sections.skip_off_image)
        for sample in unseen:
            section = CountedSection(sample, counts.pop(sample.name), tuple(filter(None, [shared.get(sample.name)])))
            encoded = features_for(sample, models, sections, features)
            for run, of_run, part in zip(runs, models, scored, strict=True):
                features_of_run = encoded[features_key(of_run)]
                part.append(score_section(section, of_run, features_of_run, _folder(run, sections), wanted))
            advance(note=sample.name)
    notes = [note for note in (sections.partial, Note(None, seen_note(seen)) if seen else None) if note]
    return [
        _external(run, sections.name, of_run, part, notes)
        for run, of_run, part in zip(runs, models, scored, strict=True)
    ]


def _models_of(run: Path) -> list[Path]:
    """The folds' models, or that of all sections where there is no fold."""
    tested = any(name != ALL_SECTIONS for name in model_files_in(run))
    return model_files(run, EVERY_FOLD if tested else None)


def _folder(run: Path, sections: ExternalSections) -> Path:
    return results_of(run) / f"external-{sections.name}"


def _external(
    run: Path, name: str, models: Ensemble, scored: Sequence[tuple[Evaluation, int]], notes: Sequence[Note]
) -> External:
    published, published_notes = _published(run, name, models.cards)
    return External(
        f"{results_of(run).name} on {name}: {console.count(len(scored), 'section')}, "
        f"{console.count(len(models.files), 'model')}",
        tuple(evaluation for evaluation, _ in scored),
        tuple(spots for _, spots in scored),
        len(all_genes(models.cards)),
        (*_notes(models, run), *notes, *published_notes),
        published,
        scored[0][0].folder,
    )


def _notes(models: Ensemble, run: Path) -> list[Note]:
    notes = [label_note(models.cards[0].config.labels), *notes_for_others(models.cards)]
    notes += unfinished_notes(run, [card.fold for card in models.cards])
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
