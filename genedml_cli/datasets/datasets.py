"""The named data sets: what is known of them, as a table. Where their files lie: :mod:`genedml_cli.datasets.layouts`.

To add one, add a row to :data:`DATASETS`.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from genedml.errors import GeneDMLError
from genedml_cli.datasets.layouts import Layout, her2st_authors_files, hest_files
from genedml_cli.datasets.samples import Sample
from genedml_cli.files.paths import takes_paths
from genedml_cli.notes import Mark, Note

HEST_LICENCE = "CC BY-NC-SA 4.0 (HEST-1k)"


@dataclass(frozen=True)
class Section:
    """One section as the facts give it.

    Args:
        name: as the authors call it.
        hest_id: as HEST-1k calls it.
        patient: whose tissue it is, as this data set calls them.
        donor: the same, by a name that all data sets share.
        fold: the published fold that tests it.
        um_per_px: of level 0.
        spots: how many lie under tissue.
    """

    name: str
    hest_id: str
    patient: str
    donor: str
    fold: str
    um_per_px: float
    spots: int


@dataclass(frozen=True)
class Dataset:
    """One row of the table.

    Args:
        name: as ``--dataset`` takes it.
        platform: how expression was measured.
        pitch_um: distance of neighbouring spots.
        licence: on which terms its files come.
        source: whom to cite.
        sections: those that can be used.
        layouts: where its files may lie below a root, the first that is there being taken.
        panel: file of the published panel, where there is one.
    """

    name: str
    platform: str
    pitch_um: float
    licence: str
    source: str
    sections: tuple[Section, ...]
    layouts: tuple[Layout, ...] = (hest_files,)
    panel: str | None = None

    @property
    def patients(self) -> tuple[str, ...]:
        """Patients in the order of the sections."""
        return tuple(dict.fromkeys(section.patient for section in self.sections))

    @property
    def folds(self) -> tuple[str, ...]:
        """Published folds in the order of the sections; of the same number as patients where none are published."""
        return tuple(dict.fromkeys(section.fold for section in self.sections))


@takes_paths
def dataset(name: str, root: Path, allow_partial: bool = False) -> list[Sample]:
    """The sections of a published data set found below ``root``.

    Raises:
        GeneDMLError: no such data set, or sections missing below ``root`` without ``allow_partial``.
    """
    known = find_dataset(name)
    found = [sample for section in known.sections if (sample := locate(known, section, root)) is not None]
    check_complete(known, root, [sample.name for sample in found], allow_partial)
    return found


def find_dataset(name: str) -> Dataset:
    """The row of the table.

    Raises:
        GeneDMLError: no such data set.
    """
    if name not in DATASETS:
        raise GeneDMLError(f"No data set is called {name!r}. There are: {', '.join(DATASETS)}.")
    return DATASETS[name]


def locate(known: Dataset, section: Section, root: Path) -> Sample | None:
    """A section with its files below ``root``; None unless all of them are there."""
    for layout in known.layouts:
        files = layout(section.name, section.hest_id, root)
        image = files.slide or files.patches
        if image and files.spots and files.counts:
            return Sample(
                section.name,
                image,
                files.spots,
                files.counts,
                section.patient,
                section.fold,
                section.um_per_px,
                known.pitch_um,
                section.donor,
            )
    return None


def locate_counts(known: Dataset, root: Path, allow_partial: bool = False) -> dict[str, Path]:
    """The count file of every section by name; images need not be there.

    Raises:
        GeneDMLError: counts missing below ``root`` without ``allow_partial``.
    """
    found = {}
    for section in known.sections:
        files = [layout(section.name, section.hest_id, root).counts for layout in known.layouts]
        counts = next((file for file in files if file is not None), None)
        if counts is not None:
            found[section.name] = counts
    check_complete(known, root, found, allow_partial, "the counts of ")
    return found


def check_complete(known: Dataset, root: Path, found: Iterable[str], allow_partial: bool, what: str = "") -> None:
    """Refuse a root that holds no section, or, without ``allow_partial``, not all.

    Raises:
        GeneDMLError: with the missing sections named.
    """
    there = set(found)
    missing = [section.name for section in known.sections if section.name not in there]
    if missing and (not allow_partial or not there):
        raise GeneDMLError(
            f"{root} holds {what}{len(there)} of the {len(known.sections)} sections of {known.name}; missing: "
            f"{', '.join(missing)}. "
            + (
                "Add them, or use what is there with --allow-partial."
                if there
                else f"Give its folder with --root, or fetch it: genedml data fetch {known.name} --root {root}"
            )
        )


def partial_note(known: Dataset, found: Sequence[Sample]) -> Note | None:
    """What every result from part of a data set has to say."""
    total = len(known.sections)
    if len(found) == total:
        return None
    return Note(Mark.PARTIAL, f"{len(found)} of the {total} sections of {known.name}.")


def published_panel(name: str) -> tuple[str, ...]:
    """The 250 genes published for a data set, in order.

    Raises:
        GeneDMLError: no such data set, or one without a published panel.
    """
    with_panel = [known.name for known in DATASETS.values() if known.panel]
    if name not in with_panel:
        raise GeneDMLError(
            f"No panel is called {name!r}, and no file. Give training, all, {', '.join(with_panel)}, or a file."
        )
    return tuple((_facts() / str(DATASETS[name].panel)).read_text(encoding="utf-8").split())


def _facts() -> Traversable:
    return resources.files("genedml_cli") / "facts"


@cache
def _rows(file: str) -> tuple[Mapping[str, str], ...]:
    with (_facts() / file).open(encoding="utf-8") as stream:
        return tuple(csv.DictReader(stream))


def _st_sections(file: str) -> tuple[Section, ...]:
    """The sections of a table of ST sections; ``same_section_as`` there names a section of STNet by its HEST id."""
    donors = {row["hest_id"]: row["patient"] for row in _rows("samples_STNet.csv")}
    return tuple(
        Section(
            row["section"],
            row["hest_id"],
            row["patient"],
            donors[row["same_section_as"]] if row["same_section_as"] else row["patient"],
            row["fold"],
            float(row["um_per_px"]),
            int(row["spots_under_tissue"]),
        )
        for row in _rows(file)
    )


def _visium_sections(file: str) -> tuple[Section, ...]:
    """The usable Visium sections; each is its own patient and fold but for those whose ``usable`` names a shared donor,
    as in "yes: Block A, sections 1 and 2 are one donor"."""
    sections = []
    for row in _rows(file):
        usable, _, remark = row["usable"].partition(": ")
        if usable != "yes":
            continue
        patient = remark.split(",")[0] if remark.endswith("one donor") else row["hest_id"]
        scale, spots = float(row["um_per_px"]), int(row["spots_under_tissue"])
        sections.append(Section(row["hest_id"], row["hest_id"], patient, patient, patient, scale, spots))
    return tuple(sections)


DATASETS: dict[str, Dataset] = {
    known.name: known
    for known in (
        Dataset(
            "HER2ST",
            platform="Spatial Transcriptomics",
            pitch_um=200.0,
            licence=f"{HEST_LICENCE}; its authors' own files: CC BY 4.0",
            source="HER2-positive breast cancer: Andersson et al. 2021, Nature Communications 12:6012",
            sections=_st_sections("samples_HER2ST.csv"),
            layouts=(hest_files, her2st_authors_files),
            panel="genes250_HER2ST.txt",
        ),
        Dataset(
            "STNet",
            platform="Spatial Transcriptomics",
            pitch_um=200.0,
            licence=HEST_LICENCE,
            source="breast cancer: He et al. 2020, Nature Biomedical Engineering 4:827",
            sections=_st_sections("samples_STNet.csv"),
            panel="genes250_STNet.txt",
        ),
        Dataset(
            "skinST",
            platform="Spatial Transcriptomics",
            pitch_um=150.0,
            licence=HEST_LICENCE,
            source="cutaneous squamous cell carcinoma: Ji et al. 2020, Cell 182:497",
            sections=_st_sections("samples_skinST.csv"),
            panel="genes250_skinST.txt",
        ),
        Dataset(
            "visium-breast",
            platform="Visium",
            pitch_um=100.0,
            licence=HEST_LICENCE,
            source="breast cancer: 10x Genomics, and Janesick et al. 2023, Nature Communications 14:8353",
            sections=_visium_sections("samples_visium_breast.csv"),
        ),
    )
}
