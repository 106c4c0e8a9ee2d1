"""Files that arrive whole, and who made them."""

import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genedml.errors import GeneDMLError
from genedml_cli import __version__
from genedml_cli.masking import masked


@contextmanager
def arriving(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; renamed to it on success, removed on failure.

    So a file that exists is finished. The folder is made if it is missing.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise GeneDMLError(f"{path} cannot be written: {error.strerror}.") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise GeneDMLError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def arriving_folder(path: Path) -> Iterator[Path]:
    """As :func:`arriving`, for a folder: a path where nothing is yet; what is there on success moves to ``path``.

    A folder of that name stays until the new one is complete.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        around = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise GeneDMLError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        yield around / path.name
        if path.exists():
            path.replace(around / "before")
        (around / path.name).replace(path)
    except OSError as error:
        raise GeneDMLError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(around, ignore_errors=True)


def beside(target: Path, name: str) -> Path:
    """Where something drawn from a run folder or an ``.h5ad`` goes: into the folder, or beside the file."""
    return target.with_suffix(f".{name}") if target.suffix == ".h5ad" else target / name


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with arriving(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON whole; NaN becomes null."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Readable JSON; NaN becomes null, a path its text."""
    return json.dumps(_without_nan(value), indent=2, default=os.fspath) + "\n"


def free_bytes(folder: Path) -> int:
    """What the disk of a folder has free; of its nearest parent, where it is not made yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def gigabytes(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e7 else f"{size_bytes / 1e6:.2f} MB"


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


def maker() -> dict[str, str]:
    """Version, command line and time: the part of an output's provenance that every output shares."""
    return {
        "genedml": __version__,
        "command": masked(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return value
