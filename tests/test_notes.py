"""Notes: how they are printed, stored and read, which of them warn, and that every mark is explained."""

import re
from pathlib import Path

import pytest

from genedml_cli.notes import Mark, Note, marks_of

SCORES_PAGE = Path(__file__).parents[1] / "examples" / "scores.md"
IN_CAPITALS = re.compile(r"\b[A-Z]{3,}(?: [A-Z]{2,})*\b")
NO_MARKS = {"PCC", "MSE", "MAE"}


def marks_explained(page: str) -> list[str]:
    """All that stands in capitals in the chapter Marks."""
    chapter = page.partition("\n## Marks\n")[2].partition("\n## ")[0]
    return [words for words in IN_CAPITALS.findall(chapter) if words not in NO_MARKS]


def test_every_mark_is_explained_once_and_no_other():
    assert sorted(marks_explained(SCORES_PAGE.read_text())) == sorted(Mark)


@pytest.mark.parametrize(
    ("stored", "mark", "text"),
    [
        ("LEAKING: a patient is on both sides.", Mark.LEAKING, "a patient is on both sides."),
        ("NOT RAW: P1: counts of one sum.", Mark.NOT_RAW, "P1: counts of one sum."),
        ("SCALES: of several um/px.", Mark.SCALES, "of several um/px."),
        ("Genes: 3 of 4.", None, "Genes: 3 of 4."),
        ("HER2ST: a word in capitals is no mark.", None, "HER2ST: a word in capitals is no mark."),
        ("no colon", None, "no colon"),
    ],
)
def test_a_note_is_read_as_it_was_stored(stored, mark, text):
    note = Note.of(stored)
    assert (note.mark, note.text, note.warns) == (mark, text, mark is not None)
    assert str(note) == stored


def test_notes_that_warn_stand_together_each_once():
    leaking, seen = Note(Mark.LEAKING, "a."), Note(Mark.SEEN, "b.")
    assert marks_of([leaking, Note(None, "c."), seen, leaking]) == "LEAKING: a. SEEN: b."
