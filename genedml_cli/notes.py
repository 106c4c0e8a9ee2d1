"""What must be said with a score: marks and how they are told apart."""

from collections.abc import Sequence

LEAKING = "LEAKING"  # the mark of a patient on both sides of a fold


SHARED_PATIENTS = (
    "Cross-validated scores are of folds that share patients with their training: of a new one expect less."
)


def marks_of(notes: Sequence[str]) -> str:
    """The notes that must stand in every table and picture, files included: those that warn, in capitals."""
    return " ".join(dict.fromkeys(note for note in notes if warns(note)))


def mark_of(note: str) -> str:
    """What a note that warns begins with, such as ``NOVEL``."""
    return note.split(":")[0]


def warns(note: str) -> bool:
    """Whether a note is one that must stand with every score: it begins in capitals."""
    return mark_of(note).isupper()


def panels_note(shared: int, most: int) -> str:
    """What must be said where the mean over folds has fewer genes than the panel of one."""
    return (
        f"Genes: {shared} of {most}. Each fold takes its panel from its own training sections, and predict gives the "
        f"genes that all of them have. For all {most}: a model of all sections (train --fold all-sections), one "
        "panel for all folds (train --panel all, which looks at the sections tested, too), or one fold (--fold N)."
    )
