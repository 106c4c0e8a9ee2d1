"""Texts and JSON that others wrote, and names in them: refused where they are too large or no text."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genedml.errors import CONTROL, GeneDMLError, reading
from genedml_cli.text import gigabytes

TEXT_LIMIT_BYTES = 2**31
"""Of a table, unpacked: a Visium section of all genes takes a sixth of it."""


SMALL_LIMIT_BYTES = 2**26


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file, unpacked if its name ends with ``.gz``; to its very end or not at all.

    Raises:
        OSError, EOFError, ValueError, zlib.error: not a file, cut off, damaged, or above the limit.
    """
    check_regular(path)
    limit = TEXT_LIMIT_BYTES if limit is None else limit
    packed = path.name.endswith(".gz")
    with gzip.open(path) if packed else path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it holds more than {gigabytes(limit)}{' unpacked' if packed else ''}")
    return content


def read_text(path: Path) -> str:
    """A small file of UTF-8, with or without a byte order mark.

    Raises:
        OSError, ValueError: as :func:`read_bytes`; other encodings.
    """
    return decoded(read_bytes(path, SMALL_LIMIT_BYTES))


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON file that genedml wrote: names and values.

    Raises:
        GeneDMLError: it cannot be read.
    """
    with reading(f"The record {path}", "Copy it again, or make it again."):
        values = json.loads(read_text(path))
        if not isinstance(values, dict):
            raise ValueError("it holds no names and values")
        return values


def check_names(names: Iterable[Any], what: str, path: Path) -> None:
    """Refuse missing names, and those that would steer a terminal or break a line of a file written later.

    Raises:
        GeneDMLError: naming the first.
    """
    names = list(names)
    unnamed = sum(not isinstance(name, str) for name in names)
    if unnamed:
        raise GeneDMLError(f"{path} leaves {unnamed} of {len(names)} {what}s without a name. Give every {what} one.")
    bad = next((name for name in names if CONTROL.search(name)), None)
    if bad is not None:
        raise GeneDMLError(f"{path} names a {what} {bad!a}, with a control character in it. Rename it.")


def check_regular(path: Path) -> None:
    """Refuse what is not there, and what is no file with an end.

    Raises:
        ValueError: so it is.
    """
    if not path.is_file():
        raise ValueError("it is no regular file" if path.exists() else "there is no such file")


def decoded(content: bytes) -> str:
    """Text of UTF-8, with or without a byte order mark.

    Raises:
        ValueError: another encoding.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise ValueError("it is UTF-16 or binary; save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save it as UTF-8 text") from error
