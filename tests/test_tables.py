"""Tables on the terminal: no word is cut, texts read left and numbers right, whatever the width."""

import re

import pytest
from rich.console import Console

from genedml_cli import console
from genedml_cli.commands.tables import datasets
from genedml_cli.datasets.datasets import DATASETS

ROWS = [["first", "prov-gigapath/prov-gigapath", "12"], [], ["second", "a few words", "0.210 ±.030"], ["c", "-", "-"]]


def shown_at(width, monkeypatch, capsys, draw):
    monkeypatch.setattr(console, "_results", Console(width=width, soft_wrap=True, highlight=False))
    draw()
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_word_is_cut_and_no_line_is_longer_than_the_terminal(width, monkeypatch, capsys):
    shown = shown_at(width, monkeypatch, capsys, lambda: console.table("A title", ["name", "hub", "score"], ROWS))
    words = set(shown.split())
    assert {word for row in ROWS for cell in row for word in cell.split()} <= words
    if width >= 40:
        assert max(map(len, shown.splitlines())) <= width


def test_texts_stand_left_and_numbers_right(monkeypatch, capsys):
    shown = shown_at(80, monkeypatch, capsys, lambda: console.table("", ["name", "hub", "score"], ROWS))
    head, _, first, _, second, third = (line.rstrip() for line in shown.splitlines())
    assert head.index("hub") == first.index("prov") == second.index("a few") == third.index("-")
    assert len(head) == len(first) == len(second) == len(third)


def test_the_data_sets_fit_80_columns(monkeypatch, capsys):
    shown = shown_at(80, monkeypatch, capsys, lambda: datasets.show_datasets(DATASETS.values()))
    assert re.search(r"^visium-breast  Visium +7 +6 +6 +100  -", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80
