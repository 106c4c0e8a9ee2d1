"""What a user sees: results on stdout, progress and warnings on stderr. The only module that knows rich."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.box import HORIZONTALS
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from genedml_cli.masking import shown

NAMES_WIDTH = 21  # of the first column, before a narrow terminal breaks names rather than numbers

# A file or a pipe has no width of its own; a table is not to be folded there.
_results = Console(soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)
_messages = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
_progress: Progress | None = None
_hidden = False
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
    from genedml_cli.storage import json_text

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


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", words: bool = False
) -> None:
    """A table on stdout: the first column reads left, the others right; an empty row is a line across.

    With ``words`` all columns read left.
    """
    grid = Table(
        title=escape(shown(title)) or None,
        caption=escape(shown(caption)) or None,
        title_justify="left",
        caption_justify="left",
        box=HORIZONTALS,
    )
    names = max((len(row[0]) for row in rows if row), default=0)
    for number, column in enumerate(columns):
        layout: dict[str, Any] = (
            {"no_wrap": names <= NAMES_WIDTH} if number == 0 else {"justify": "left" if words else "right"}
        )
        grid.add_column(escape(shown(column)), overflow="fold", **layout)
    for row in rows:
        if not row:
            grid.add_section()
            continue
        grid.add_row(*(escape(shown(cell)) for cell in row))
    _results.print(grid, soft_wrap=False)


def is_quiet() -> bool:
    """Whether notes are left out now."""
    return _quiet


def hide_progress(quiet: bool) -> None:
    """No progress lines from this process, as several would write over each other; with ``quiet`` no notes either."""
    global _hidden, _quiet
    _hidden, _quiet = True, quiet


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[..., None]]:
    """One progress line while the block runs; yields ``advance(steps=1, note="")``. Silent without a terminal.

    Lines nest: a fold's line stays above its epochs'.
    """
    global _progress
    outermost = _progress is None
    bars = _progress or _new_progress()
    if outermost:
        _progress = bars
        bars.start()
    task = bars.add_task(description, total=total, note="")

    def advance(steps: int = 1, note: str = "") -> None:
        bars.advance(task, steps)
        if note:
            bars.update(task, note=note)

    try:
        yield advance
    finally:
        if outermost:
            _progress = None
            bars.stop()
        else:
            bars.remove_task(task)


def _new_progress() -> Progress:
    hidden = _hidden or _quiet or _relay is not None or not _messages.is_terminal
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
