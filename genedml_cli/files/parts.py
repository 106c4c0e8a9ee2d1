"""Files in the making: each has a hidden name beside its own until it is whole, which no other process takes."""

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

import psutil

LEFT = "left"
"""In place of the number of a process: it was told to end, and left the part to whoever comes next."""
PART = re.compile(rf"\..+\.([^.]+)\.(\d+|{LEFT})\.[0-9a-f]{{8}}\.part(?:\..+)?")
"""The name of a part: its machine, its process."""
ABANDONED_S = 24 * 3600.0
"""A part of another machine, whose processes nobody here can see, is abandoned after so long without a change."""
PROCESS_NUMBERS = Path("/proc/self/ns/pid")
"""Of Linux: the same file for all processes that see each other; a container has its own."""


def new_part(path: Path, process: int | str | None = None) -> Path:
    """A new name for what ``path`` is called until it is whole; of the same kind by its suffix.

    It holds machine, process and a random number, so that no lock is needed: locks do not hold on every network file
    system. ``process`` is this one, if it is not given.
    """
    maker = f"{_machine()}.{process or os.getpid()}.{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{maker}.part{path.suffix}")


def journal_of(part: Path) -> Path:
    """Says how far a part of a feature file has come."""
    return part.with_name(f"{part.name}.json")


def abandoned_parts(path: Path) -> list[Path]:
    """Parts of ``path``, and their journals, whose process is gone."""
    begin, end = f".{path.name}.", f".part{path.suffix}"
    parts = path.parent.glob(f"{escape(begin)}*{escape(end)}*")
    return [part for part in parts if part.name.removesuffix(".json").endswith(end) and _is_abandoned(part)]


def remove_abandoned(path: Path) -> None:
    """Remove what processes that are gone left of ``path``."""
    for part in abandoned_parts(path):
        remove(part)


def remove(part: Path) -> None:
    """Remove a file or a folder, if it is there and can be removed: to write does not depend on it."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def clear_folder(folder: Path) -> None:
    """Remove a folder and what is in it; parts of processes at work, which need both, stay."""
    with suppress(OSError):  # it is not there, or not empty
        for file in folder.iterdir():
            if not PART.fullmatch(file.name) or _is_abandoned(file):
                remove(file)
        folder.rmdir()


def user_number() -> int:
    """By which the system knows who owns what this process writes; 0 where it has no such numbers."""
    return int(getattr(os, "geteuid", int)())


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """The folder is there in the block; if it was not before, and nothing was put into it, it is gone afterwards."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # something is in it, as it should be
                folder.rmdir()


def _machine() -> str:
    """This machine, and in which container on it: among whose processes a number means one."""
    container = 0
    with suppress(OSError):
        container = PROCESS_NUMBERS.stat().st_ino
    return f"{socket.gethostname().replace('.', '-')}-{container}"


def _is_abandoned(part: Path) -> bool:
    """Whether a file is a part whose process is gone. Another user's never is: their processes may be hidden."""
    name = PART.fullmatch(part.name)
    try:
        status = part.stat()
    except OSError:  # its process has just renamed it
        return False
    if name is None or status.st_uid != user_number():
        return False
    machine, process = name.groups()
    if process == LEFT or (machine == _machine() and not _is_running(int(process))):
        return True
    return time.time() - status.st_mtime > ABANDONED_S


def _is_running(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
