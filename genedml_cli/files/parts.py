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
MAKER = re.compile(rf"(.+)\.(\d+|{LEFT})\.[0-9a-f]{{8}}")
ABANDONED_S = 24 * 3600.0
"""A part of another machine, whose processes nobody here can see, is abandoned after so long without a change."""


def new_part(path: Path, process: int | str | None = None) -> Path:
    """A new name for what ``path`` is called until it is whole; of the same kind by its suffix.

    It holds machine, process and a random number, so that no lock is needed: locks do not hold on every network file
    system. ``process`` is this one, if it is not given.
    """
    maker = f"{socket.gethostname()}.{process or os.getpid()}.{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{maker}.part{path.suffix}")


def journal_of(part: Path) -> Path:
    """Says how far a part of a feature file has come."""
    return part.with_name(f"{part.name}.json")


def abandoned_parts(path: Path) -> list[Path]:
    """Parts of ``path``, and their journals, whose process is gone."""
    begin, end = f".{path.name}.", f".part{path.suffix}"
    parts = []
    for part in path.parent.glob(f"{escape(begin)}*{escape(end)}*"):
        maker = MAKER.fullmatch(part.name.removesuffix(".json").removesuffix(end).removeprefix(begin))
        if part.name.removesuffix(".json").endswith(end) and maker is not None and _is_abandoned(part, *maker.groups()):
            parts.append(part)
    return parts


def remove_abandoned(path: Path) -> None:
    """Remove what processes that are gone left of ``path``."""
    for part in abandoned_parts(path):
        remove(part)


def remove(part: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


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


def _is_abandoned(part: Path, machine: str, process: str) -> bool:
    if process == LEFT:
        return True
    if machine == socket.gethostname() and not _is_running(int(process)):
        return True
    with suppress(FileNotFoundError):  # its process has just renamed it
        return time.time() - part.stat().st_mtime > ABANDONED_S
    return False


def _is_running(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
