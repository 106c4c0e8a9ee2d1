"""The one exception that a user is meant to read, and how a library's own becomes one."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""What steers a terminal or a text file instead of standing in it: control characters, lone surrogates, what turns the
direction of writing, and what has no width."""

REASON_CHARACTERS = 200
FULL = (errno.ENOSPC, errno.EDQUOT)
OUT_OF_MEMORY = "OutOfMemoryError"  # of torch, by its name: what only reads errors need not import it


class GeneDMLError(Exception):
    """Something the user can fix. The message says what, where and what next.

    Context is added on the way up with ``add_note``; the command line prints message and notes and exits with 1.
    """


@contextmanager
def reading(what: str, fix: str, kind: str = "") -> Iterator[None]:
    """Whatever a library raises while it reads a file, as one sentence: ``what`` cannot be read, why, and ``fix``.

    ``kind`` is what it was read as, where the name of the file does not say.

    Only calls of libraries belong in the block, and checks of what they gave: on a broken file they raise nearly every
    kind of exception, so every kind is taken to be of the file.

    Raises:
        GeneDMLError: what the block raised, whatever its kind.
    """
    try:
        yield
    except GeneDMLError:
        raise
    except Exception as error:
        raise GeneDMLError(f"{what} cannot be read{kind and ' as '}{kind}: {reason_of(error)}. {fix}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question, with a blank before it, for the known name that is spelt most like one that is not; else nothing."""
    near = get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""


def lines_of(error: Exception) -> list[str]:
    """What a user reads of an error: none of one that no user can fix, whose traceback is then needed."""
    notes = getattr(error, "__notes__", [])
    if isinstance(error, GeneDMLError):
        return [str(error), *notes]
    if isinstance(error, OSError) and isinstance(error.filename, str):
        named = f"{CONTROL.sub('?', error.filename)[:REASON_CHARACTERS]} cannot be reached: {reason_of(error)}."
        return [f"{named} Fix that, or give another file or folder.", *notes]
    if isinstance(error, OSError) and error.errno in FULL:  # of no file, so of the terminal, a pipe or a redirection
        return [
            f"What this command prints cannot be written: {reason_of(error)}. Files that it named are whole.",
            *notes,
        ]
    if isinstance(error, MemoryError) or type(error).__name__ == OUT_OF_MEMORY:
        fix = "Free it from other programs, or give fewer --batch-tiles or --batch-spots."
        return [f"This machine or its device has no memory left. {fix}", *notes]
    return []


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says, without control characters and of bounded length."""
    if isinstance(error, KeyError) and error.args:
        said = f"it lacks {error.args[0]}"
    elif isinstance(error, RecursionError):
        said = "it is nested too deeply"
    elif isinstance(error, MemoryError):
        said = "it declares more than this machine's memory holds"
    else:
        said = (isinstance(error, OSError) and error.strerror) or str(error)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = CONTROL.sub("?", lines[0]) if lines else type(error).__name__
    cut = reason if len(reason) <= REASON_CHARACTERS else f"{reason[:REASON_CHARACTERS]} ..."
    return cut.rstrip(".")
