"""One process at a time on one output.

Files are whole without. Most locks spare work that would be done twice, or tell who starts a command twice; but what is
read, changed and written again, as the scores of a run are, may lose a change without.
"""

import errno
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from genedml.errors import GeneDMLError
from genedml_cli.files.parts import made_folder, user_number

SOON_S = 0.5
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that keep no locks."""


@contextmanager
def exclusive(path: Path, beside: bool = False) -> Iterator[None]:
    """Alone on ``path`` among the processes of this machine while the block runs; waits for whoever is at it.

    The lock is in the machine's temporary folder; where that cannot be used, nobody is kept apart.

    Args:
        path: what is worked on.
        beside: whether to be alone among all machines, and among jobs that have temporary folders of their own, too: by
            a second lock, a hidden file beside ``path``. Where the file system keeps no locks it holds nothing.
    """
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    with ExitStack() as ends:
        with suppress(OSError):
            ends.enter_context(_held(_locks_here() / f"{name}.lock", path))
        if beside:
            with suppress(OSError):
                ends.enter_context(_held(_hidden(path), path))
        yield


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
    with ExitStack() as ends:
        try:
            ends.enter_context(made_folder(path.parent))
            ends.enter_context(_held(_hidden(path), path, what or str(path)))
        except OSError as error:
            if error.errno not in NO_LOCKS:  # else nobody is refused
                raise cannot_write(path, error) from error
        yield


def cannot_write(path: Path, error: Exception) -> GeneDMLError:
    """What the system says against writing ``path``, as a sentence."""
    above = next((parent for parent in path.absolute().parents if parent.exists()), path)
    if not above.is_dir():
        return GeneDMLError(f"{path} cannot be written: {above} is a file. Give another output.")
    why = getattr(error, "strerror", None) or error
    return GeneDMLError(f"{path} cannot be written: {why}. Fix that, or give another output.")


def _hidden(path: Path) -> Path:
    return path.absolute().with_name(f".{path.name}.lock")


def _locks_here() -> Path:
    """A folder of this user on a disk of this machine.

    Raises:
        OSError: there is none, or somebody else put a folder or a link in its place.
    """
    folder = Path(tempfile.gettempdir()) / f"genedml-locks-{user_number()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user_number():
        raise PermissionError(errno.EACCES, "It is not this user's", str(folder))
    return folder


@contextmanager
def _held(file: Path, path: Path, refused: str = "") -> Iterator[None]:
    """A lock on ``path`` for the block; ``refused`` as of :func:`_acquire`."""
    # A lock that is only a file that is there would outlive a process that is killed.
    lock = FileLock(file, thread_local=False, fallback_to_soft=False)
    try:
        _acquire(lock, path, refused)
        yield
    finally:
        _release(lock)


def _acquire(lock: FileLock, path: Path, refused: str) -> None:
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
