"""One process at a time on one output. A lock is a hidden file beside it; what a killed process left locks nothing."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from genedml.errors import GeneDMLError

SOON_S = 0.5


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Alone on ``path`` while the block runs; waits for whoever is at it. May be nested in one process.

    Raises:
        GeneDMLError: the folder cannot be written.
    """
    with _locked(path, waits=True):
        yield


@contextmanager
def claimed(path: Path, what: str = "", wanted: bool = True) -> Iterator[None]:
    """As :func:`exclusive`, but refuses where another process is at it: for work that takes hours.

    Args:
        path: the output, or a name that stands for several.
        what: the output in words, for the error.
        wanted: whether to do so; shards, which may run on machines that share no locks, do not.

    Raises:
        GeneDMLError: another process is at it, or the folder cannot be written.
    """
    if not wanted:
        yield
        return
    with _locked(path, waits=False, what=what):
        yield


def part_of(path: Path) -> Path:
    """What a file is called until it is whole; of the same kind by its suffix.

    Every machine has a name of its own for it, for locks do not hold on every network file system.
    """
    return path.with_name(f".{path.name}.{socket.gethostname()}.part{path.suffix}")


def journal_of(path: Path) -> Path:
    """Says how far a feature file has come that is not whole yet."""
    return part_of(path).with_suffix(".json")


def cannot_write(path: Path, error: Exception) -> GeneDMLError:
    """What the system says against writing ``path``, as a sentence."""
    above = next((parent for parent in path.absolute().parents if parent.exists()), path)
    if not above.is_dir():
        return GeneDMLError(f"{path} cannot be written: {above} is a file. Give another output.")
    why = getattr(error, "strerror", None) or error
    return GeneDMLError(f"{path} cannot be written: {why}. Fix that, or give another output.")


@contextmanager
def _locked(path: Path, waits: bool, what: str = "") -> Iterator[None]:
    path = path.absolute()
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, thread_local=False, is_singleton=True)  # one in this process, so that blocks may be nested
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path, waits, what)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        if (
            lock.lock_counter == 1
        ):  # while it is held: whoever waits for a file that is removed sees so, and begins anew
            file.unlink(missing_ok=True)
        lock.release()
        if made:
            with suppress(OSError):  # something is in it, as it should be
                path.parent.rmdir()


def _acquire(lock: FileLock, path: Path, waits: bool, what: str) -> None:
    file = Path(lock.lock_file)
    try:
        lock.acquire(timeout=SOON_S)
    except Timeout as error:
        holder = "another process"
        with suppress(OSError):
            holder = file.read_text(encoding="utf-8") or holder
        if not waits:
            raise GeneDMLError(
                f"{what or path} is being made by {holder}. Wait for it to end, or give another output."
            ) from error
        from genedml_cli import console

        console.note(f"Waiting for {path}, which {holder} is writing.")
        lock.acquire()
    with suppress(OSError):  # on a full disk the holder has no name, but holds it all the same
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
