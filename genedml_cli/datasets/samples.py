"""Sample sheets: which sections there are, and whose tissue they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.sheets import Row, columns_of, is_file_name, number, read_rows
from genedml_cli.files.paths import takes_paths

REQUIRED_COLUMNS = ("sample", "slide", "spots", "counts", "patient")
OPTIONAL_COLUMNS = {"fold": False, "um_per_px": True}  # and whether their cells may be empty
OUTS = "outs"
"""The column that stands for spots and counts: a folder of Space Ranger, or an ``.h5ad`` that holds both."""
OUTS_COLUMNS = {"sample": False, "patient": False, "spots": True, "counts": True, **OPTIONAL_COLUMNS}
EVERY_FOLD, ALL_SECTIONS = "all", "all-sections"
"""What ``--fold`` takes beside the name of a fold: all folds, and the model that is trained on every section."""


@dataclass(frozen=True)
class Sample:
    """One section: where its files are, whose tissue it is, which fold tests it.

    ``um_per_px`` is of level 0, ``pitch_um`` the array's, both where they are known. ``donor`` is who the tissue came
    from, where two data sets call one person by two names; the patient if left empty.
    """

    name: str
    slide: Path
    spots: Path
    counts: Path
    patient: str
    fold: str
    um_per_px: float | None = None
    pitch_um: float | None = None
    donor: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "donor", self.donor or self.patient)

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """All that is read of it."""
        return self.slide, self.spots, self.counts


@takes_paths
def read_sheet(path: Path, root: Path | None = None) -> list[Sample]:
    """Read a sample sheet: CSV with ``sample,slide,spots,counts,patient`` and optionally ``fold,um_per_px``.

    Paths are relative to ``root``, else to the sheet. Without ``fold``, every patient is one. A column ``outs`` may
    stand for ``spots`` and ``counts``; then a section without ``sample`` is called as its slide, and one without
    ``patient`` counts as a patient's only one, which is warned of. Of folders of Space Ranger the sample has the files.

    Raises:
        GeneDMLError: unreadable, unknown or missing columns, empty cells, names twice, files that are not there.
    """
    columns = columns_of(path, "sample sheet", REQUIRED_COLUMNS)
    if OUTS in columns:
        rows = read_rows(path, "sample sheet", ("slide", OUTS), OUTS_COLUMNS, "section")
    else:
        rows = read_rows(path, "sample sheet", REQUIRED_COLUMNS, OPTIONAL_COLUMNS, "section")
    base = root or path.parent
    samples = [_sample_of_row(row, base, path) for row in rows]
    if "patient" not in columns and len(samples) > 1:
        console.warn(
            f"{path.name} has no column patient: every section counts as another patient's. If two are of one patient, "
            "scores come out too good; say so in that column."
        )
    _check(samples, str(path))
    return samples


def _sample_of_row(row: Row, base: Path, path: Path) -> Sample:
    from genedml_cli.files.space_ranger import positions_in  # and what reads tables: slow to import
    from genedml_cli.files.spatialdata_files import STORE
    from genedml_cli.files.tenx import table_in

    slide = base / str(row["slide"])
    name = row["sample"] or slide.stem
    patient = (row["patient"] or name).strip()
    spots, counts = (base / str(row[column] or row[OUTS]) for column in ("spots", "counts"))
    return Sample(
        name,
        slide,
        positions_in(spots) if spots.is_dir() and spots.suffix != STORE else spots,
        table_in(counts) if counts.is_dir() and counts.suffix != STORE else counts,
        patient,
        row["fold"] or patient,
        number(row, "um_per_px", path, name),
    )


def _check(samples: Sequence[Sample], where: str) -> None:
    names = [sample.name for sample in samples]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GeneDMLError(f"{where} names samples twice: {', '.join(twice)}. Give each a name of its own.")
    for what, said in (("samples", names), ("patients", {sample.patient for sample in samples})):
        first: dict[str, str] = {}
        for name in sorted(said):  # some file systems, and people who write sheets, do not tell A1 from a1
            if first.setdefault(name.casefold(), name) != name:
                raise GeneDMLError(
                    f"{where} names {what} {first[name.casefold()]} and {name}, alike but for capitals. Write one name "
                    "for one, and names that differ for two."
                )
    reserved = next((one.fold for one in samples if one.fold in (EVERY_FOLD, ALL_SECTIONS)), None)
    if reserved is not None:
        raise GeneDMLError(f"{where} calls a fold {reserved}, which has a meaning for --fold. Rename it.")
    for row, sample in enumerate(samples, 1):
        bad = next((name for name in (sample.name, sample.fold) if not is_file_name(name)), None)
        if bad is not None:
            raise GeneDMLError(
                f"{where}, row {row}: {bad[:80]!a} names a sample or a fold, but cannot be a file name. Rename it."
            )
    missing = [file for one in samples for file in (one.slide, one.spots, one.counts) if not _is_there(file)]
    if missing:
        raise GeneDMLError(
            f"{where} names {len(missing)} files that are not there (first: {missing[0]}). Paths are relative to "
            "--root, else to the sheet."
        )


def _is_there(file: Path) -> bool:
    try:
        return file.is_file() or file.is_dir()
    except OSError:  # a name longer than the system takes
        return False
