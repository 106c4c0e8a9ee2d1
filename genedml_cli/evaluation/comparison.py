"""Several configurations in one table: methods, settings or runs, scored on the same folds, panel, labels and spots."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from genedml_cli import console
from genedml_cli.evaluation.points import Point, merged
from genedml_cli.evaluation.published import PAPER, means_of
from genedml_cli.evaluation.scores import (
    ATTAINABLE,
    DEPTH,
    FULL_METRICS,
    METRICS,
    PLACE,
    RIDGE,
    SPLIT_HALVES,
    Evaluation,
    read_checklist,
    reference_notes,
)
from genedml_cli.figures.settings import draw_settings
from genedml_cli.files.provenance import maker
from genedml_cli.files.storage import write_json, write_text
from genedml_cli.notes import Note, marks_of, texts_of
from genedml_cli.outputs.reference_layers import REFERENCES


@dataclass(frozen=True)
class Scored:
    """The scores of one configuration with one seed.

    Args:
        row: its name in the table, as the paper prints it where the paper has it.
        seed: of its training.
        evaluation: its scores.
    """

    row: str
    seed: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Comparison:
    """Scores of every row, seed and fold.

    Args:
        title: what is compared, on what.
        name: of the files.
        noun: what a row is: setting, method or run.
        scores: columns ``noun``, seed, fold, and one for each metric.
        references: method, fold and metrics of what all rows have in common: ridge, depth, constant, the ceiling.
        published: the paper's means, rows in rows, metrics in columns; without rows where there are none.
        notes: what must be said with them.
        warnings: the notes that warn of every run, by its row and seed: its marks in every table.
        folder: where they are written.
        base: the row that the others are held against, fold by fold and seed by seed; empty for none.
        particulars: of every row, by what is told: encoder, preset, tile in um, parameters, seconds a fold.
        checklist: what a trustworthy table contains, and which of it the rows' own tables do.
    """

    title: str
    name: str
    noun: str
    scores: pd.DataFrame
    references: pd.DataFrame
    published: pd.DataFrame
    notes: tuple[Note, ...]
    warnings: Mapping[tuple[str, int], Sequence[Note]]
    folder: Path
    base: str = ""
    particulars: pd.DataFrame = field(default_factory=pd.DataFrame)
    checklist: tuple[Point, ...] = ()

    @property
    def over(self) -> str:
        """What means and standard deviations are taken over."""
        return " x ".join(console.count(self.scores[key].nunique(), key) for key in ("fold", "seed"))

    @property
    def metrics(self) -> list[str]:
        """All of :data:`genedml_cli.evaluation.scores.FULL_METRICS` where every row was scored in full."""
        return [key for key in FULL_METRICS if key in self.scores]

    @property
    def marks(self) -> str:
        """The marks of all runs, for the picture; of which rows, where a mark is not of all."""
        return marks_of(_with_rows(self.warnings))

    def row_marks(self) -> dict[str, str]:
        """The marks of the runs of every row; of a reference those of the first run, whose it is."""
        of_first = marks_of(next(iter(self.warnings.values())))
        of_rows: dict[str, list[Note]] = {}
        for (row, _), notes in self.warnings.items():
            of_rows.setdefault(row, []).extend(notes)
        references = dict.fromkeys(self.references["method"], of_first)
        return references | {row: marks_of(notes) for row, notes in of_rows.items()}

    def folds(self) -> pd.DataFrame:
        """Row x seed x fold: every metric, and the marks of the run."""
        runs = zip(self.scores[self.noun], self.scores["seed"], strict=True)
        return self.scores.assign(marks=[marks_of(self.warnings[run]) for run in runs])

    @property
    def picture(self) -> Path:
        """The plot of every metric against the rows."""
        return self.folder / f"{self.name}.png"

    def summary(self) -> pd.DataFrame:
        """Mean and sd of every metric over folds and seeds, in order of the rows."""
        return self.scores.groupby(self.noun, sort=False)[self.metrics].agg(["mean", "std"])

    def reference_summary(self) -> pd.DataFrame:
        """Mean and sd of every metric over folds, a row for each reference."""
        return self.references.groupby("method", sort=False)[self.metrics].agg(["mean", "std"])

    def differences(self) -> pd.DataFrame:
        """Mean and sd, over folds and seeds, of a metric less :attr:`base`'s in the same fold with the same seed."""
        table = self.scores.set_index([self.noun, "seed", "fold"])[self.metrics]
        rows = [name for name in table.index.unique(self.noun) if name != self.base]
        apart = {name: table.loc[name] - table.loc[self.base] for name in rows}
        return pd.DataFrame({name: values.agg(["mean", "std"]).unstack() for name, values in apart.items()}).T

    def write(self) -> None:
        """``NAME.csv`` (a line a row), ``NAME.folds.csv`` (row x seed x fold), ``NAME.json``, ``NAME.png``."""
        write_text(self.folder / f"{self.name}.csv", self.table().to_csv(index=False))
        write_text(self.folder / f"{self.name}.folds.csv", self.folds().to_csv(index=False))
        write_json(self.folder / f"{self.name}.json", self.to_dict())
        self.draw(self.picture)

    def draw(self, path: Path) -> None:
        """The plot of every metric against the rows; the suffix of ``path`` says the kind."""
        caption = f"Mean and sd over {self.over}. {self.marks}".strip()
        references = self.reference_summary().xs("mean", axis=1, level=1)
        draw_settings(self.title, METRICS, self.summary(), self.published, references, caption, path)

    def to_dict(self) -> dict[str, Any]:
        """Title, notes, and of every row mean and sd of every metric, beside the paper's means."""
        apart = self.differences() if self.base else pd.DataFrame()
        rows, marks = [], self.row_marks()
        for kind, summary in ((self.noun, self.summary()), ("reference", self.reference_summary())):
            for name, values in summary.iterrows():
                paper = self.published.loc[name].to_dict() if name in self.published.index else None
                row: dict[str, Any] = {
                    kind: name,
                    "measured": self._means(values),
                    "paper": paper,
                    "marks": marks[name],
                }
                if name in apart.index:
                    row["difference"] = self._means(apart.loc[name])
                if name in self.particulars.index:
                    row |= self.particulars.loc[name].to_dict()
                rows.append(row)
        values = {
            "title": self.title,
            "over": self.over,
            "notes": texts_of(self.notes),
            "rows": rows,
            "checklist": [point.to_dict() for point in self.checklist],
            "made_by": maker(),
        }
        return values | ({"differences_from": self.base} if self.base else {})

    def _means(self, values: pd.Series) -> dict[str, dict[str, float]]:
        return {key: {"mean": values[(key, "mean")], "sd": values[(key, "std")]} for key in self.metrics}

    def table(self) -> pd.DataFrame:
        """A line a row: mean and sd of every metric, the paper's means, particulars and differences."""
        tables = []
        for kind, summary in ((self.noun, self.summary()), ("reference", self.reference_summary())):
            tables.append(_flat(summary).rename_axis("row").reset_index().assign(kind=kind))
        table = pd.concat(tables, ignore_index=True)
        beside = [self.published.add_prefix("paper_"), self.particulars]
        beside += [_flat(self.differences()).add_prefix("difference_")] if self.base else []
        for columns in beside:
            if len(columns):
                table = table.merge(columns.rename_axis("row").reset_index(), how="left", on="row")
        return table.assign(over=self.over, marks=table["row"].map(self.row_marks()))


def compared(
    scored: Sequence[Scored],
    *,
    title: str,
    name: str,
    noun: str,
    folder: Path,
    published: pd.DataFrame | None = None,
    notes: Sequence[Note] = (),
    base: str = "",
    particulars: pd.DataFrame | None = None,
) -> Comparison:
    """One table of what was scored on the same folds; references are those of the first.

    Args:
        scored: every row and seed, in order.
        published: the paper's means by row, of :func:`means_of`.
        notes: what must be said besides what is said with the scores.
        title, name, noun, folder, base, particulars: see :class:`Comparison`.
    """
    evaluations = [one.evaluation for one in scored]
    tables = [evaluation.values() for evaluation in evaluations]
    scores = [
        table[table["method"] == one.evaluation.method].assign(**{noun: one.row, "seed": one.seed})
        for one, table in zip(scored, tables, strict=True)
    ]
    titles = [*(reference.title for reference in REFERENCES.values()), SPLIT_HALVES, ATTAINABLE]
    metrics = list(FULL_METRICS if all(evaluation.in_full for evaluation in evaluations) else METRICS)
    references = tables[0][tables[0]["method"].isin(titles)]
    # What a run says of the paper's rows is said of those of its own table.
    told = {
        (one.row, one.seed): [
            note
            for note in one.evaluation.notes
            if not note.text.startswith(PAPER) and note not in reference_notes(one.evaluation.scores)
        ]
        for one in scored
    }
    of_runs = _with_rows(told)
    folds = console.count(references["fold"].nunique(), "fold")
    over = Note(
        None, f"{', '.join(references['method'].unique())}: over the {folds} of the first run alone, not over seeds."
    )
    table = pd.concat(scores, ignore_index=True)[[noun, "seed", "fold", *metrics]]
    of_runs += _behind(table.groupby(noun, sort=False)["pcc_a"].mean(), references.groupby("method")["pcc_a"].mean())
    return Comparison(
        title,
        name,
        noun,
        table,
        references[["method", "fold", *metrics]],
        means_of({}) if published is None else published,
        tuple(dict.fromkeys([*of_runs, over, *notes])),
        {run: [note for note in of_run if note.warns] for run, of_run in told.items()},
        folder,
        base,
        pd.DataFrame() if particulars is None else particulars,
        merged({f"{one.row} {one.seed or ''}".strip(): _checklist(one.evaluation) for one in scored}),
    )


def _with_rows(notes: Mapping[tuple[str, int], Iterable[Note]]) -> list[Note]:
    """What is said of runs, each once; what is not of all of them names its rows, if it does not anyway."""
    runs: dict[Note, dict[tuple[str, int], None]] = {}
    for run, of_run in notes.items():
        for note in of_run:
            runs.setdefault(note, {})[run] = None
    return [
        replace(note, text=f"{', '.join(dict.fromkeys(row for row, _ in warned))}: {note.text}")
        if len(warned) < len(notes) and (note.warns or not any(row in note.text for row, _ in warned))
        else note
        for note, warned in runs.items()
    ]


def _checklist(evaluation: Evaluation) -> Sequence[Point]:
    """Of scores that are not in full, what was told when they were."""
    return evaluation.checklist or read_checklist(evaluation.folder)


def _behind(rows: pd.Series, references: pd.Series) -> list[Note]:
    """Which rows ridge, place or depth alone scores higher than."""
    notes = []
    for name in (RIDGE, PLACE, DEPTH):
        behind = [str(row) for row, score in rows.items() if round(score, 3) < round(references.get(name, 0.0), 3)]
        if behind:
            notes.append(
                Note(None, f"{name} ({references[name]:.3f}) scores higher in PCC(A) than {', '.join(behind)}.")
            )
    return notes


def _flat(summary: pd.DataFrame) -> pd.DataFrame:
    return summary.set_axis([f"{key}_{'sd' if of == 'std' else of}" for key, of in summary.columns], axis=1)
