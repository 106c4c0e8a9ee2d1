"""Methods beside each other on sections of other donors, as table 2 of the paper: a comparison on every section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from genedml_cli import console
from genedml_cli.evaluation.comparison import Comparison, Scored, compared
from genedml_cli.evaluation.external import External
from genedml_cli.evaluation.points import Point, merged
from genedml_cli.evaluation.published import PublishedRow
from genedml_cli.files.provenance import maker
from genedml_cli.files.storage import write_json, write_text
from genedml_cli.notes import Note, texts_of

ALL = "all sections"
"""The mean over the sections, where there are several."""


@dataclass(frozen=True)
class ExternalComparison:
    """Scores of every method, seed and fold's model on every section.

    Args:
        title: what is compared, on what.
        name: of the files.
        sections: the comparison on every section, by its name.
        sizes: of every section, its labelled spots and the genes of the panel that its counts have.
        panel: genes that the models predict.
        published: the paper's rows, each of one of its sections.
        folder: where they are written.
    """

    title: str
    name: str
    sections: Mapping[str, Comparison]
    sizes: Mapping[str, tuple[int, int]]
    panel: int
    published: tuple[PublishedRow, ...]
    folder: Path

    @cached_property
    def parts(self) -> dict[str, Comparison]:
        """The comparison on all sections first, every score the mean over them, where there are several."""
        every = list(self.sections.values())
        if len(every) == 1:
            return dict(self.sections)
        mean = replace(
            every[0],
            title=f"mean of {console.count(len(every), 'section')}",
            scores=_mean([one.scores for one in every], [every[0].noun, "seed", "fold"], every[0].metrics),
            references=_mean([one.references for one in every], ["method", "fold"], every[0].metrics),
            notes=self.shared_notes,
            warnings={run: [note for one in every for note in one.warnings[run]] for run in every[0].warnings},
            checklist=self.checklist,
        )
        return {ALL: mean, **self.sections}

    @property
    def checklist(self) -> tuple[Point, ...]:
        """What a trustworthy table contains, and which of it this one does, over all sections."""
        return merged({name: part.checklist for name, part in self.sections.items()})

    @property
    def shared_notes(self) -> tuple[Note, ...]:
        """What must be said of every section."""
        first, *others = self.sections.values()
        return tuple(note for note in first.notes if all(note in one.notes for one in others))

    @property
    def picture(self) -> Path:
        """The plot of every metric against the methods, over all sections."""
        return self.folder / f"{self.name}.png"

    def write(self) -> None:
        """``NAME.csv`` (section x row), ``NAME.folds.csv`` (section x row x seed x fold), ``NAME.json``, ``NAME.png``.

        In ``NAME.csv`` the paper's rows are of kind ``paper``.
        """
        tables = [_of_section(name, part.table().assign(**self._size(name))) for name, part in self.parts.items()]
        tables += [_paper_table(self.published)] if self.published else []
        write_text(self.folder / f"{self.name}.csv", pd.concat(tables, ignore_index=True).to_csv(index=False))
        folds = [_of_section(name, part.folds()) for name, part in self.sections.items()]
        write_text(self.folder / f"{self.name}.folds.csv", pd.concat(folds, ignore_index=True).to_csv(index=False))
        write_json(self.folder / f"{self.name}.json", self.to_dict())
        first = next(iter(self.parts.values()))
        replace(first, title=f"{self.title}: {first.title}").draw(self.picture)

    def to_dict(self) -> dict[str, Any]:
        """Title, notes, and of every section what a comparison's JSON holds; the paper's rows apart."""
        sections = {}
        for name, part in self.parts.items():
            own = {key: value for key, value in part.to_dict().items() if key not in ("made_by", "notes")}
            notes = texts_of([note for note in part.notes if note not in self.shared_notes])
            sections[name] = own | self._size(name) | {"notes": notes}
        return {
            "title": self.title,
            "notes": texts_of(self.shared_notes),
            "panel_genes": self.panel,
            "sections": sections,
            "published": [row.to_dict() for row in self.published],
            "made_by": maker(),
        }

    def _size(self, name: str) -> dict[str, int]:
        return dict(zip(("spots", "genes"), self.sizes.get(name, ()), strict=False))


def compared_externally(
    scored: Sequence[tuple[str, int, External]], *, title: str, name: str, folder: Path, base: str
) -> ExternalComparison:
    """One table of runs that were scored on the same external sections.

    Args:
        scored: the method, the seed and the scores of every run, in order.
        title, name, folder: see :class:`ExternalComparison`.
        base: see :class:`genedml_cli.evaluation.comparison.Comparison`.
    """
    first = scored[0][2]
    of_all = [note for note in first.notes if not note.warns]
    sections = {}
    for place, section in enumerate(first.sections):
        each = [
            Scored(method, seed, replace(one.sections[place], notes=(*one.notes, *one.sections[place].notes)))
            for method, seed, one in scored
        ]
        sections[section.title] = compared(
            each, title=section.title, name=name, noun="method", folder=folder, notes=of_all, base=base
        )
    sizes = {
        section.title: (spots, first.panel - len(section.unmatched))
        for section, spots in zip(first.sections, first.spots, strict=True)
    }
    return ExternalComparison(title, name, sections, sizes, first.panel, first.published, folder)


def _mean(tables: Sequence[pd.DataFrame], keys: list[str], metrics: list[str]) -> pd.DataFrame:
    return pd.concat(tables).groupby(keys, sort=False)[metrics].mean().reset_index()


def _of_section(name: str, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "section", name)
    return table


def _paper_table(published: Sequence[PublishedRow]) -> pd.DataFrame:
    return pd.DataFrame(
        {"section": row.dataset, "row": row.method, "kind": "paper"}
        | {f"{key}_mean": value for key, value in row.mean.items()}
        for row in published
    )
