"""One process at a time on one output. A lock is a hidden file beside it; it vanishes with its process."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from genedml.errors import GeneDMLError
from genedml_cli.machine.stopping import at_end

SOON_S = 0.5
_held: dict[Path, int] = {}  # by this process, and how often


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Alone on ``path`` while the block runs; waits for whoever is at it. May be nested in one process.

    Raises:
        GeneDMLError: the folder cannot be written.
    """
    with _locked(path, waits=True):
        yield


@contextmanager
def claimed(path: Path, what: str = "") -> Iterator[None]:
    """As :func:`in_turn`, but refuses where another process is at it: for work that takes hours.

    What a process that was killed left half-written of it is removed.

    Args:
        path: the output, or a name that stands for several.
        what: the output in words, for the error.

    Raises:
        GeneDMLError: another process is at it, or the folder cannot be written.
    """
    with _locked(path, waits=False, what=what):
        name = escape(path.name)
        for file in (*path.parent.glob(f".{name}.part*"), *path.parent.glob(f"..{name}.part*.lock")):
            if not file.is_dir():  # a folder may hold what it was to take the place of
                file.unlink(missing_ok=True)
        yield


def forget_dead(path: Path) -> None:
    """Remove what a process that was killed left beside ``path``; nothing, if one is alive that writes it."""
    if _lock_file(path).exists():
        with suppress(GeneDMLError), claimed(path):
            pass


def forget_all_dead(folder: Path) -> None:
    """As :func:`forget_dead`, for everything in a folder but feature files that are to be gone on from."""
    for lock in folder.glob(".*.lock"):
        path = folder / lock.name.removeprefix(".").removesuffix(".lock")
        if journal_of(path) == part_of(path) or not journal_of(path).exists():
            forget_dead(path)


def forget_held() -> None:
    """Remove the locks of this process, which is about to end, whatever it was at."""
    for path in list(_held):
        _lock_file(path).unlink(missing_ok=True)


at_end(forget_held)  # the signal may have come as a lock was let go


def part_of(path: Path) -> Path:
    """What a file is called until it is whole; of the same kind by its suffix."""
    return path.with_name(f".{path.name}.part{path.suffix}")


def journal_of(path: Path) -> Path:
    """Says how far a feature file has come that is not whole yet."""
    return path.with_name(f".{path.name}.part.json")


@contextmanager
def _locked(path: Path, waits: bool, what: str = "") -> Iterator[None]:
    path = path.absolute()
    if path in _held:
        _held[path] += 1
        try:
            yield
        finally:
            _held[path] -= 1
        return
    made = not path.parent.exists()
    lock = _acquire(path, waits, what)
    _held[path] = 1
    try:
        yield
    finally:
        # While it is held: whoever waits for a file that is removed sees so, and begins anew.
        _lock_file(path).unlink(missing_ok=True)
        del _held[path]
        lock.release()
        if made:
            with suppress(OSError):  # something is in it, as it should be
                path.parent.rmdir()


def _acquire(path: Path, waits: bool, what: str) -> FileLock:
    file = _lock_file(path)
    lock = FileLock(file, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=SOON_S)  # whoever clears up after the dead holds it for a moment
        except Timeout as error:
            if not waits:
                raise GeneDMLError(
                    f"{what or path} is being made by {_holder(file)}. Wait for it to end, or give another output."
                ) from error
            _say_waiting(path, _holder(file))
            lock.acquire()
        with suppress(OSError):  # on a full disk the holder has no name, but holds it all the same
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    return lock


def cannot_write(path: Path, error: Exception) -> GeneDMLError:
    """What the system says against writing ``path``, as a sentence."""
    above = next((one for one in path.absolute().parents if one.exists()), path)
    if not above.is_dir():
        return GeneDMLError(f"{path} cannot be written: {above} is a file. Give another output.")
    why = getattr(error, "strerror", None) or error
    return GeneDMLError(f"{path} cannot be written: {why}. Fix that, or give another output.")


def _say_waiting(path: Path, holder: str) -> None:
    from genedml_cli import console

    console.note(f"Waiting for {path}, which {holder} is writing.")


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _holder(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(encoding="utf-8") or "another process"
    return "another process"
