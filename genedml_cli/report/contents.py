"""What a page says, before it is HTML: values of both kinds of report, which the template lays out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genedml.encoders.table import licence_of
from genedml_cli import __version__
from genedml_cli.datasets.datasets import DATASETS
from genedml_cli.notes import Note

PAPER = (
    "Song Y, Fan J, Chang H, Cai W. Gene-DML: Dual-Pathway Multi-Level Discrimination for Gene Expression Prediction "
    "from Histopathology Images."
)
GENES_LISTED = 3000  # more would make the page too large to send


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: what is read.
        value: what its column is sorted by; None where the text is.
        bar: share of the cell's width to fill, 0 to 1; None for no bar.
    """

    text: str
    value: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Args:
        key: its name in the page's addresses.
        columns: headings.
        rows: cells in the order of the columns.
        caption: what must be known to read it.
        sortable: by a click on a heading, and searchable by the first column.
        noun: what its rows are.
    """

    key: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = False
    noun: str = "rows"


@dataclass(frozen=True)
class Picture:
    """An image inside the page.

    Args:
        uri: its data.
        alt: what it shows, for those who do not see it.
        caption: below it.
        width: in CSS pixels.
        height: in CSS pixels.
    """

    uri: str
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class GeneMaps:
    """A gene's panels side by side."""

    gene: str
    score: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class MapGroup:
    """Genes that are shown for one reason."""

    title: str
    genes: Sequence[GeneMaps]


@dataclass(frozen=True)
class Line:
    """A line of a chart in its pixels: points as SVG takes them, and the dot of the chosen epoch."""

    name: str
    points: str
    dot: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """A value over epochs, a line a fold; ticks are (place, label)."""

    title: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]


@dataclass(frozen=True)
class Contents:
    """A whole page.

    Args:
        title: of what it reports.
        kind: ``run``, ``prediction``, ``comparison`` of runs, or ``model``.
        lead: the result in a sentence or two.
        facts: the summary, (name, value).
        warnings: notes that must be read first.
        notes: the others.
        tissue: the section with its spots; None where its slide is not at hand.
        tissue_note: which section it is, or why it is not there.
        scores: methods against metrics, of a run.
        checklist: what a trustworthy table of scores contains, and which of it is here, where there is truth.
        differences: of several runs from the first.
        folds: a row a fold, of a run.
        sections: a row a section, of a run.
        charts: of training.
        charts_note: how to read them.
        maps: groups of genes.
        maps_note: how they were chosen.
        atlas: every gene of every section, as :func:`genedml_cli.report.atlas.atlas_of` packs it; empty where no
            section is at hand, as of a model of the hub.
        novelty: the map, of a prediction that has it.
        novelty_note: what novelty means and what it says here; empty for a run.
        genes: a row a gene.
        provenance: (name, value).
        settings: the configuration as TOML; empty where it is in the model alone.
        cite: whom.
    """

    title: str
    kind: str
    lead: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    notes: Sequence[str]
    tissue: Picture | None
    tissue_note: str
    maps: Sequence[MapGroup]
    maps_note: str
    atlas: Mapping[str, Any]
    genes: Table
    provenance: Sequence[tuple[str, str]]
    cite: Sequence[str]
    scores: Table | None = None
    checklist: Table | None = None
    differences: Table | None = None
    folds: Table | None = None
    sections: Table | None = None
    charts: Sequence[Chart] = field(default_factory=tuple)
    charts_note: str = ""
    novelty: Picture | None = None
    novelty_note: str = ""
    settings: str = ""


def number_cell(value: float, sd: float = np.nan, bar: bool = False) -> Cell:
    """``0.513 ±.054``, or a dash where there is no number; ``bar`` draws a PCC of 0 to 1."""
    if np.isnan(value):
        return Cell("-")
    spread = "" if np.isnan(sd) else f" \u00b1{sd:.3f}".replace("0.", ".", 1)
    return Cell(f"{value:.3f}{spread}", float(value), float(np.clip(value, 0, 1)) if bar else None)


def gene_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str, elsewhere: str) -> Table:
    """A row a gene, the first :data:`GENES_LISTED` of them; ``elsewhere`` holds them all."""
    left_out = f" The first {GENES_LISTED:,} of {len(rows):,} genes; all are in {elsewhere}."
    said = caption + (left_out if len(rows) > GENES_LISTED else "")
    return Table("genes", columns, rows[:GENES_LISTED], said, sortable=True, noun="genes")


def parted(notes: Sequence[Note]) -> tuple[list[str], list[str]]:
    """Notes that warn, and the others, each once."""
    once = list(dict.fromkeys(notes))
    return [str(note) for note in once if note.warns], [str(note) for note in once if not note.warns]


def citations(encoder: str, datasets: Sequence[str], models: str = "") -> list[str]:
    """The paper, this software, the model, the encoder and the data.

    Args:
        encoder: its name.
        datasets: names of the published data sets that were trained on.
        models: what predicted, where the page is not of a run, which is its own model.
    """
    model = [f"The model: {models}."] if models else []
    data = [f"The data it was trained on, {name}: {DATASETS[name].source}." for name in datasets if name in DATASETS]
    return [
        PAPER,
        f"genedml {__version__}, this software.",
        *model,
        f"The image encoder {encoder}, licence {licence_of(encoder)}.",
        *data,
    ]
