"""Notes: how they are printed, stored and read, which of them warn, and that every mark is explained."""

import re
from pathlib import Path

import pytest

from genedml_cli.notes import Mark, Note, marks_of
from genedml_cli.runs.fold_notes import panel_note

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


def test_genes_are_marked_unless_the_training_sections_alone_chose_them():
    assert panel_note("training", "HER2ST") is None
    of_file = panel_note("lists/my_genes.txt", "HER2ST")
    assert str(of_file) == "PANEL: its genes are of my_genes.txt: nothing says which sections they were chosen by."
    for panel, dataset in (("all", ""), ("HER2ST", "HER2ST")):
        assert str(panel_note(panel, dataset)).startswith("PANEL: its genes were chosen by the counts of all sections,")
    assert "if of HER2ST" in str(panel_note("HER2ST", "skinST"))
