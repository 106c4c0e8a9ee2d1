"""Files that arrive whole, and who made them."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from genedml.errors import GeneDMLError
from genedml_cli.files.locks import cannot_write
from genedml_cli.files.parts import abandoned_parts, made_folder, new_part, remove_abandoned
from genedml_cli.text import json_text

BEFORE = "before"
"""What a folder is called while another takes its place."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; renamed to it on success, removed on failure.

    So a file that exists is finished. The folder is made if it is missing. Of several processes at one file each has a
    temporary path of its own, and the last leaves what stays. What a process that was killed left of it is removed.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    with written(path), made_folder(path.parent):
        remove_abandoned(path)
        temporary = new_part(path)
        try:
            yield temporary
            commit(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path) -> None:
    """Give a file that is whole its name; it has reached the disk before."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As :func:`atomic_write`, for a folder: a path where nothing is yet; what is there on success moves to ``path``.

    A folder of that name stays until the new one is complete.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    with written(path), made_folder(path.parent):
        for left in abandoned_parts(path):  # by a process that was killed, perhaps as it exchanged the two
            _put_back(left / BEFORE, path)
        remove_abandoned(path)
        around = new_part(path)
        try:
            around.mkdir()
            yield around / path.name
            if path.exists():
                path.replace(around / BEFORE)
            (around / path.name).replace(path)
        finally:
            _put_back(around / BEFORE, path)
            shutil.rmtree(around, ignore_errors=True)


def _put_back(before: Path, path: Path) -> None:
    """Give a folder its name again, if nothing else has it."""
    if before.exists() and not path.exists():
        before.replace(path)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """What the system says against writing ``path``, as a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error


@contextmanager
def shown_to_workers(folder: Path) -> Iterator[Path]:
    """A file in a folder while the block runs, which workers on other machines must see there, too.

    Raises:
        GeneDMLError: the folder cannot be written.
    """
    name = folder / "workers"
    mark = new_part(name)
    with written(mark):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(name)
        mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def refuse_overwriting_inputs(outs: Iterable[Path], read: Iterable[Path | None]) -> None:
    """Refuse to write over a file that is read.

    Raises:
        GeneDMLError: one of ``outs`` is one of ``read``, by whatever name.
    """
    known = {_identity(path) for path in read if path is not None} - {None}
    for out in outs:
        if _identity(out) in known:
            raise GeneDMLError(f"{out} is what is read, and would be written over. Give another output.")


def beside(target: Path, name: str) -> Path:
    """Where something drawn from a run folder or an ``.h5ad`` goes: into the folder, or beside the file.

    Where that cannot be written, as a folder of somebody else, it goes where the command is run.
    """
    place = target.with_suffix(f".{name}") if target.suffix == ".h5ad" else target / name
    writable = os.access(place.parent, os.W_OK) or not place.parent.is_dir()
    return place if writable else Path(f"{target.resolve().name.removesuffix('.h5ad')}.{name}")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON whole; NaN becomes null."""
    write_text(path, json_text(value))


def free_bytes(folder: Path) -> int:
    """What the disk of a folder has free; of its nearest parent, where it is not made yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content; of a folder, over the names and contents of its files.

    Raises:
        GeneDMLError: it is not there or cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{file.relative_to(path)} {sha256_of(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise GeneDMLError(f"{path} cannot be read: {error.strerror}.") from error


def _identity(path: Path) -> tuple[int, int] | None:
    """By which a file is known under all its names; None where nothing is, or nobody may look."""
    try:
        found = path.stat()
        return found.st_dev, found.st_ino
    except OSError:
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
