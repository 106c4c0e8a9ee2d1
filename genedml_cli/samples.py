"""Sample sheets and folds by patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from genedml.errors import GeneDMLError

REQUIRED_COLUMNS = ("sample", "slide", "spots", "counts", "patient")
OPTIONAL_COLUMNS = ("fold", "um_per_px")


@dataclass(frozen=True)
class Sample:
    """One section: where its files are, whose tissue it is, which fold tests it.

    ``um_per_px`` is of level 0, ``pitch_um`` the array's, both where they are known.
    """

    name: str
    slide: Path
    spots: Path
    counts: Path
    patient: str
    fold: str
    um_per_px: float | None = None
    pitch_um: float | None = None


@dataclass(frozen=True)
class Fold:
    """Sections to train on, to choose the checkpoint on, and to test on."""

    name: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def leaks(self) -> bool:
        """Whether a patient is on both sides: trained or chosen on, and tested."""
        seen = {sample.patient for sample in (*self.train, *self.validation)}
        return any(sample.patient in seen for sample in self.test)


def read_sheet(path: Path, root: Path | None = None) -> list[Sample]:
    """Read a sample sheet: CSV with ``sample,slide,spots,counts,patient`` and optionally ``fold,um_per_px``.

    Paths are relative to ``root``, else to the sheet. Without ``fold``, every patient is one.

    Raises:
        GeneDMLError: unreadable, unknown or missing columns, empty cells, names twice, files that are not there.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise GeneDMLError(f"The sample sheet {path} cannot be read: {error}.") from error
    unknown = [column for column in table.columns if column not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    missing = [column for column in REQUIRED_COLUMNS if column not in table.columns]
    if unknown or missing:
        raise GeneDMLError(
            f"{path} lacks the columns {', '.join(missing) or 'none'} and has unknown ones: "
            f"{', '.join(unknown) or 'none'}. It takes {', '.join(REQUIRED_COLUMNS)} and, if you like, "
            f"{', '.join(OPTIONAL_COLUMNS)}."
        )
    if table.empty:
        raise GeneDMLError(f"The sample sheet {path} has no rows.")
    empty = table[[column for column in table.columns if column != "um_per_px"]].isna()
    if empty.any(axis=None):
        row, column = next((row, column) for column in empty for row in empty.index[empty[column]])
        raise GeneDMLError(f"{path}, line {row + 2}: the column {column} is empty.")
    base = root or path.parent
    samples = [_sample_of_row(row, base, path) for row in table.to_dict("records")]
    _check(samples, str(path))
    return samples


def make_folds(samples: Sequence[Sample]) -> list[Fold]:
    """One fold for each value of ``fold``, tested on its sections and trained on the others.

    The checkpoint is chosen on the patients of the fold that follows in order, where at least two other folds remain;
    else on the last patient, or for want of a second one the last section, of the training side. A single training
    section leaves nothing to choose on.

    Raises:
        GeneDMLError: a single fold leaves nothing to train on.
    """
    names = sorted({sample.fold for sample in samples}, key=_fold_order)
    if len(names) < 2:
        raise GeneDMLError(
            f"All {len(samples)} sections are in fold {names[0]}, so none is left to train on. Add sections of another "
            "patient, or a column fold that parts them (it is then marked as leaking)."
        )
    return [_make_fold(name, names, samples) for name in names]


def _make_fold(name: str, names: Sequence[str], samples: Sequence[Sample]) -> Fold:
    test = tuple(sample for sample in samples if sample.fold == name)
    rest = [sample for sample in samples if sample.fold != name]
    if len(names) > 2:
        chosen = names[(names.index(name) + 1) % len(names)]
        held = [sample for sample in rest if sample.fold == chosen]
    else:
        patients = sorted({sample.patient for sample in rest})
        last = [sample for sample in rest if sample.patient == patients[-1]] if len(patients) > 1 else rest[-1:]
        held = last if len(last) < len(rest) else []
    return Fold(name, tuple(sample for sample in rest if sample not in held), tuple(held), test)


def _fold_order(name: str) -> tuple[bool, float, str]:
    return (not name.isdigit(), float(name) if name.isdigit() else 0.0, name)


def _sample_of_row(row: Mapping[Any, Any], base: Path, path: Path) -> Sample:
    um_per_px = row.get("um_per_px")
    known = um_per_px is not None and not pd.isna(um_per_px)
    try:
        scale = float(str(um_per_px)) if known else None
    except ValueError as error:
        raise GeneDMLError(f"{path}: um_per_px of {row['sample']} is {um_per_px!r}, not a number.") from error
    return Sample(
        str(row["sample"]),
        base / str(row["slide"]),
        base / str(row["spots"]),
        base / str(row["counts"]),
        str(row["patient"]),
        str(row.get("fold", row["patient"])),
        scale,
    )


def _check(samples: Sequence[Sample], where: str) -> None:
    names = [sample.name for sample in samples]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GeneDMLError(f"{where} names samples twice: {', '.join(twice)}.")
    bad = [name for name in (*names, *(s.fold for s in samples)) if Path(name).name != name or name.startswith(".")]
    if bad:
        raise GeneDMLError(f"{where}: {bad[0]!r} names a sample or a fold, but cannot be a file name. Rename it.")
    missing = [file for sample in samples for file in (sample.slide, sample.spots, sample.counts) if not file.exists()]
    if missing:
        raise GeneDMLError(
            f"{where} names {len(missing)} files that are not there (first: {missing[0]}). Paths are relative to "
            "--root, else to the sheet."
        )
