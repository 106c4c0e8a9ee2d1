"""The files that a slide consists of: their content, and whether they stay as they are while they are read."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genedml.errors import GeneDMLError
from genedml_cli.files.storage import sha256_of


class Watched:
    """A slide that is to stay as it is while it is read: by length and time of the last change of its files."""

    def __init__(self, path: Path) -> None:
        self._path, self._state = path, _state_of(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watched) and (self._path, self._state) == (other._path, other._state)

    def __hash__(self) -> int:
        return hash((self._path, tuple(self._state or ())))

    def check(self) -> None:
        """Refuse what was read of it, if it is another by now.

        Raises:
            GeneDMLError: removed, replaced, cut or rewritten.
        """
        state = _state_of(self._path)
        if state != self._state:
            what = "was changed" if state else "vanished"
            raise GeneDMLError(
                f"{self._path} {what} while it was read. Wait until it is in its place and nothing writes it, then run "
                "again."
            )


def content_sha256(path: Path) -> str:
    """SHA-256 of all files that a slide consists of; read once in a process, as long as they stay as they are.

    Raises:
        GeneDMLError: one cannot be read.
    """
    return _content_sha256(path.absolute(), tuple(_state_of(path) or ()))


@dataclass(frozen=True)
class Fingerprint:
    """The content of a slide or of another file or folder, and by what it is known again without reading it.

    Args:
        files: name, length and time of the last change (ns) of every file of it.
        sha256: as :func:`content_sha256` gives it.
    """

    files: tuple[tuple[str, int, int], ...]
    sha256: str


def fingerprint(path: Path, last: Fingerprint | None = None) -> Fingerprint:
    """The fingerprint of a slide, file or folder; it is read only where its files are not as those of ``last``.

    Raises:
        GeneDMLError: one cannot be read.
    """
    files = tuple(_state_of(path) or ())
    if last is not None and files and files == last.files:
        return last
    return Fingerprint(files, _content_sha256(path.absolute(), files))


@cache
def _content_sha256(path: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    files = files_of(path)
    if files == [path]:
        return sha256_of(path)
    return hashlib.sha256("".join(f"{file.name} {sha256_of(file)}\n" for file in files).encode()).hexdigest()


def files_of(path: Path) -> list[Path]:
    """Where a slide keeps its pixels: MIRAX in a folder beside it, DICOM and Hamamatsu VMS in files beside it."""
    kind = path.suffix.lower()
    if kind == ".mrxs":
        return [path, *sorted(file for file in path.with_suffix("").rglob("*") if file.is_file())]
    if kind == ".dcm":
        return sorted(path.parent.glob(f"*{path.suffix}"))
    if kind in (".vms", ".vmu"):
        return sorted(file for file in path.parent.iterdir() if file.name.startswith(path.stem))
    return [path]


def _state_of(path: Path) -> list[tuple[str, int, int]] | None:
    # Not by inodes, of which some network file systems draw new ones at will.
    try:
        files = [file for part in files_of(path) for file in (part, *sorted(part.rglob("*")))]  # also of a folder
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        return None
