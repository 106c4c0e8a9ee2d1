"""What a user sees: results on stdout, progress and warnings on stderr. The only module that knows rich."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.box import HORIZONTALS
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from genedml_cli.text import shown

TOLD_EVERY_S = 30.0
NAMES_WIDTH = 21  # of the first column, before a narrow terminal breaks names rather than numbers
BETWEEN = 2  # two columns of a table
NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?±[\d.]+)?%?(/[\d.,]+)?")

# A file or a pipe has no width of its own; a table is not to be folded there, unless COLUMNS says so.
_KNOWS_WIDTH = sys.stdout.isatty() or "COLUMNS" in os.environ
_results = Console(soft_wrap=True, highlight=False, emoji=False, width=None if _KNOWS_WIDTH else 200)
_messages = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
_progress: Progress | None = None
_quiet = False
_about = ""

Message = tuple[Literal["note", "warn"], str]
_relay: Callable[[Message], None] | None = None


@contextmanager
def quieted() -> Iterator[None]:
    """Neither progress nor notes while the block runs; results, warnings and errors stay."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


@contextmanager
def unheard() -> Iterator[None]:
    """Neither notes nor warnings while the block runs: all of them were said before."""
    global _relay
    before, _relay = _relay, lambda _: None
    try:
        yield
    finally:
        _relay = before


@contextmanager
def about(name: str) -> Iterator[None]:
    """Notes and warnings of the block begin with ``name``: of one slide of many, say."""
    global _about
    before, _about = _about, f"{name}: "
    try:
        yield
    finally:
        _about = before


def relay(send: Callable[[Message], None]) -> None:
    """From now on leave the terminal to another process: notes and warnings go to ``send``, progress is not drawn.

    The other process hands them to :func:`pass_on`.
    """
    global _relay
    _relay = send


def pass_on(message: Message) -> None:
    """Show a note or warning that another process sent."""
    kind, text = message
    (warn if kind == "warn" else note)(text)


def say(text: str) -> None:
    """A result, on stdout."""
    _results.print(escape(shown(text)))


def document(value: Any) -> None:
    """A result for programs: the one JSON document on stdout. What JSON has no word for (NaN) is null."""
    from genedml_cli.text import json_text

    _results.out(json_text(value), end="", highlight=False)


def note(text: str) -> None:
    """What is going on, on stderr."""
    if _quiet:
        return
    if _relay is not None:
        _relay(("note", _about + text))
        return
    _messages.print(escape(shown(_about + text)), style="dim")


def warn(text: str) -> None:
    """Something the user should know before trusting the result, on stderr."""
    if _relay is not None:
        _relay(("warn", _about + text))
        return
    _messages.print(f"[bold yellow]Warning:[/] {escape(shown(_about + text))}")


def stopped(text: str) -> None:
    """What is kept of what was interrupted, on stderr."""
    _messages.print(escape(shown(text)))


def error(text: str) -> None:
    """Why it stopped, on stderr."""
    _messages.print(f"[bold red]Error:[/] {escape(shown(text))}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: numbers read right, all else left; an empty row is a line across.

    No word is cut: where the terminal is too narrow for the longest words beside each other, every row is a list.
    """
    cells = [[escape(shown(cell)) for cell in row] for row in rows]
    heads = [escape(shown(column)) for column in columns]
    by_column = [[row[place] for row in cells if len(row) > place] for place in range(len(heads))]
    widths = _widths([[head, *column] for head, column in zip(heads, by_column, strict=True)], _results.width)
    if widths is None:
        _list_rows(title, heads, cells)
        return
    grid = Table(title=escape(shown(title)) or None, title_justify="left", box=HORIZONTALS, show_edge=False)
    grid.padding, grid.pad_edge = (0, BETWEEN - 1, 0, 0), False
    for head, column, width in zip(heads, by_column, widths, strict=True):
        grid.add_column(head, width=width, justify="right" if _are_numbers(column) else "left", overflow="fold")
    for row in cells:
        if row:
            grid.add_row(*row)
        else:
            grid.add_section()
    _results.print(grid, soft_wrap=False)


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, ``-`` or nothing where one is missing."""
    filled = [cell for cell in cells if cell not in ("", "-")]
    return bool(filled) and all(NUMBER.fullmatch(cell) for cell in filled)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Of every column: up to its longest text, at least its longest word; None where ``room`` is too small."""
    plain = [[Text.from_markup(cell).plain for cell in column] for column in columns]
    full = [max(cell_len(cell) for cell in column) for column in plain]
    widths = [max((cell_len(word) for cell in column for word in cell.split()), default=1) for column in plain]
    widths[0] = full[0] if full[0] <= NAMES_WIDTH else widths[0]
    left = room - BETWEEN * (len(columns) - 1) - sum(widths)
    if left < 0:
        return None
    for place in sorted(range(len(columns)), key=lambda place: full[place] - widths[place]):
        more = min(left, full[place] - widths[place])
        widths[place] += more
        left -= more
    return widths


def _list_rows(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that is too wide: the first cell of a row, and below it the others with the names of their columns."""
    for line in filter(None, [escape(shown(title))]):
        _results.print(line)
    for row in filter(None, rows):
        _results.print(f"\n{row[0]}")
        for head, cell in zip(heads[1:], row[1:], strict=False):
            if cell:
                _results.print(f"  {head}: {cell}" if head else f"  {cell}")


@contextmanager
def progress(description: str, total: int, told: str = "") -> Iterator[Callable[..., None]]:
    """One progress line while the block runs; yields ``advance(steps=1, note="")``.

    Lines nest: a fold's line stays above its epochs'. Without a terminal it is silent, but where ``told`` says what a
    step is called: then a line of text comes after the first step that has a note, and after one each half minute.
    """
    global _progress
    outermost = _progress is None
    bars = _progress or _new_progress()
    if outermost:
        _progress = bars
        bars.start()
    task = bars.add_task(description, total=total, note="")
    lines = _Lines(description, total, told) if told and bars.disable else None

    def advance(steps: int = 1, note: str = "") -> None:
        bars.advance(task, steps)
        if note:
            bars.update(task, note=note)
        if lines is not None:
            lines.advance(steps, note)

    try:
        yield advance
    finally:
        if outermost:
            _progress = None
            bars.stop()
        else:
            bars.remove_task(task)


class _Lines:
    """Text where no progress line is drawn: after the first step that has something to say, then each half minute."""

    def __init__(self, description: str, total: int, step: str) -> None:
        self._description, self._total, self._step = description, total, step
        self._done, self._next = 0, time.monotonic()

    def advance(self, steps: int, text: str) -> None:
        self._done += steps
        if text and time.monotonic() >= self._next:
            self._next = time.monotonic() + TOLD_EVERY_S
            note(f"{self._description}: {self._step} {self._done} of {self._total}: {text}")


def _new_progress() -> Progress:
    hidden = _quiet or _relay is not None or not _messages.is_terminal
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim"),
    ]
    return Progress(*columns, console=_messages, disable=hidden)


def count(number: int, noun: str) -> str:
    """``1 fold``, ``5 folds``, ``2,604 spots``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
