"""One process at a time on one output.

Whatever is written is right without: these spare work that would be done twice, and tell who starts a command twice.
"""

import errno
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from genedml.errors import GeneDMLError
from genedml_cli.files.parts import made_folder

SOON_S = 0.5


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Alone on ``path`` among the processes of this machine while the block runs; waits for whoever is at it.

    The lock is in the machine's temporary folder. Processes of other machines are not kept apart, for a lock on a
    network file system may hold nothing, or outlive its machine; nor is anybody where there is no temporary folder.
    """
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    lock = FileLock(_locks_here() / f"{name}.lock", thread_local=False)
    with suppress(OSError):
        Path(lock.lock_file).parent.mkdir(mode=0o700, exist_ok=True)
        _acquire(lock, path)
    try:
        yield
    finally:
        _release(lock)


@contextmanager
def claimed(path: Path, what: str = "", wanted: bool = True) -> Iterator[None]:
    """As :func:`exclusive`, but refuses where another process is at it: for commands, which take hours.

    The lock is a hidden file beside ``path``, where commands on other machines see it if the file system keeps locks.

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
    lock = FileLock(path.absolute().with_name(f".{path.name}.lock"), thread_local=False)
    with ExitStack() as ends:
        try:
            ends.enter_context(made_folder(path.parent))
            _acquire(lock, path, what or str(path))
        except OSError as error:
            if error.errno != errno.ENOLCK:  # the file system keeps no locks: then nobody is refused
                raise cannot_write(path, error) from error
        ends.callback(_release, lock)
        yield


def cannot_write(path: Path, error: Exception) -> GeneDMLError:
    """What the system says against writing ``path``, as a sentence."""
    above = next((parent for parent in path.absolute().parents if parent.exists()), path)
    if not above.is_dir():
        return GeneDMLError(f"{path} cannot be written: {above} is a file. Give another output.")
    why = getattr(error, "strerror", None) or error
    return GeneDMLError(f"{path} cannot be written: {why}. Fix that, or give another output.")


def _locks_here() -> Path:
    """A folder of this user on a disk of this machine."""
    return Path(tempfile.gettempdir()) / f"genedml-locks-{getattr(os, 'getuid', int)()}"


def _acquire(lock: FileLock, path: Path, refused: str = "") -> None:
    """Wait for a lock; where there is something to be ``refused``, raise an error that names it instead."""
    file = Path(lock.lock_file)
    try:
        lock.acquire(timeout=SOON_S)
    except Timeout as error:
        holder = "another process"
        with suppress(OSError):
            holder = file.read_text(encoding="utf-8") or holder
        if refused:
            raise GeneDMLError(
                f"{refused} is being made by {holder}. Wait for it to end, or give another output."
            ) from error
        from genedml_cli import console

        console.note(f"Waiting for {path}, which {holder} is writing.")
        lock.acquire()
    with suppress(OSError):  # on a full disk the holder has no name, but holds it all the same
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")


def _release(lock: FileLock) -> None:
    if lock.is_locked:
        # While it is held: whoever waits for a file that is removed sees so, and begins anew.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
