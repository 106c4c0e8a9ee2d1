"""What must be said with scores and predictions: notes, and the marks of those that warn."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """What a note warns of, as it is printed before its text; examples/scores.md explains each."""

    ALL_SECTIONS = "ALL SECTIONS"
    CHOSEN_ON_TEST = "CHOSEN ON TEST"
    DOUBTFUL_JOIN = "DOUBTFUL JOIN"
    DOUBTFUL_SPOTS = "DOUBTFUL SPOTS"
    FEW_PATIENTS = "FEW PATIENTS"
    LEAKING = "LEAKING"
    NOT_RAW = "NOT RAW"
    NOVEL = "NOVEL"
    OFF_IMAGE = "OFF IMAGE"
    ONE_PATIENT = "ONE PATIENT"
    PANEL = "PANEL"
    PARTIAL = "PARTIAL"
    SAME_DONOR = "SAME DONOR"
    SCALE = "SCALE"
    SCALES = "SCALES"
    SEEN = "SEEN"
    SELECTED = "SELECTED"
    SPOT_SIZE = "SPOT SIZE"
    UNFINISHED = "UNFINISHED"


@dataclass(frozen=True)
class Note:
    """What must be said with every score or prediction that it is of; printed and stored as ``MARK: text``.

    Args:
        mark: what it warns of: such a note stands in every table, file and picture; None of one that does not warn.
        text: the rest.
    """

    mark: Mark | None
    text: str

    def __str__(self) -> str:
        return self.text if self.mark is None else f"{self.mark}: {self.text}"

    @classmethod
    def of(cls, stored: str) -> "Note":
        """The note that a file holds as a text."""
        before, _, after = stored.partition(": ")
        return cls(Mark(before), after) if before in set(Mark) else cls(None, stored)

    @property
    def warns(self) -> bool:
        """Whether it must stand with every score."""
        return self.mark is not None


SHARED_PATIENTS = Note(
    None, "Cross-validated scores are of folds that share patients with their training: of a new one expect less."
)


def texts_of(notes: Iterable[Note]) -> list[str]:
    """The notes as files hold them."""
    return [str(note) for note in notes]


def marks_of(notes: Iterable[Note]) -> str:
    """The notes that must stand in every table and picture, files included: those that warn, each once."""
    return " ".join(dict.fromkeys(str(note) for note in notes if note.warns))


def names_of_marks(notes: Iterable[Note]) -> str:
    """The marks of the notes that warn, each once, without what they say: for a picture, which has little room."""
    return ", ".join(dict.fromkeys(str(note.mark) for note in notes if note.warns))


def panels_note(shared: int, most: int) -> Note:
    """What must be said where the mean over folds has fewer genes than the panel of one."""
    return Note(
        None,
        f"Genes: {shared} of {most}. Each fold takes its panel from its own training sections, and predict gives the "
        f"genes that all of them have. For all {most}: a model of all sections (train --fold all-sections), one "
        "panel for all folds (train --panel all, which looks at the sections tested, too), or one fold (--fold N).",
    )
