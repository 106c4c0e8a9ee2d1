"""Texts and tables from strangers: read within bounds, or refused. Errors other than GeneDMLError are for ``reading``.

A file declares sizes before it holds anything: what is declared is compared with what there is before it is allocated.
"""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genedml.errors import CONTROL, GeneDMLError, reading
from genedml_cli.memory import check_memory
from genedml_cli.storage import gigabytes

TEXT_LIMIT_BYTES = 2**31
"""Of a table, unpacked: a Visium section of all genes takes a sixth of it."""
SMALL_LIMIT_BYTES = 2**26
ROWS_LIMIT, COLUMNS_LIMIT = 10_000_000, 2**16
CELLS_LIMIT, CELLS_LIMIT_BYTES = 6_000_000, 2**27
"""Of a table whose cells are read as text: a million spots with array positions, which take some seconds."""
CELL_BYTES, NUMBER_BYTES = 100, 24
"""What a cell takes as text and as a number, with all copies, while a table is read."""
SEPARATORS = ("\t", ",", ";")

SPOT_COLUMNS = ({"x", "y"}, {"pxl_row_in_fullres", "pxl_col_in_fullres"})
"""What no table of counts has, of a gene's name or of anything else."""

MTX_BYTES = {True: b"0123456789 \t", False: b"0123456789.eE+- \t"}
"""What a matrix of whole numbers is made of, and one of others."""


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
    return _decoded(read_bytes(path, SMALL_LIMIT_BYTES))


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


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV or TSV as they stand, without a guess of what is a number or missing.

    The separator is what the name says, else what the header has: tab, comma or semicolon. Blank lines are passed over.

    Raises:
        OSError, EOFError, ValueError, csv.Error: as :func:`read_bytes`; rows of another length than the header.
    """
    text = _decoded(read_bytes(path, CELLS_LIMIT_BYTES))
    separator = _separator(text, path)
    cells = text.count(separator) + text.count("\n") + text.count("\r")
    if cells > CELLS_LIMIT:
        raise ValueError(
            f"it has {cells} cells, more than the {CELLS_LIMIT} that are read of a text; spots may be .parquet"
        )
    check_memory(CELL_BYTES * cells)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    header = [cell.strip() for cell in next((row for row in lines if row), [])]
    if not header:
        raise ValueError("it is empty")
    _check_columns(len(header))
    rows = []
    for row in lines:
        if row and len(row) != len(header):
            raise ValueError(f"line {lines.line_num} has {len(row)} cells, the first line {len(header)}")
        if row:
            rows.append(row)
    return header, rows


def read_named_table(path: Path) -> pd.DataFrame:
    """Rows as text under their header; an empty cell is None.

    Raises:
        OSError, EOFError, ValueError, csv.Error: as :func:`read_rows`; a column that is named twice.
    """
    header, rows = read_rows(path)
    return named_table(header, rows)


def named_table(header: list[str], rows: list[list[str]]) -> pd.DataFrame:
    """Rows of text under their header; an empty cell is None.

    Raises:
        ValueError: a column that is named twice.
    """
    twice = next((name for name, times in Counter(header).items() if times > 1), None)
    if twice is not None and twice.replace(".", "", 1).isdigit():
        raise ValueError("its first line holds numbers where names of columns belong")
    if twice is not None:
        raise ValueError(f"it has two columns {twice!r}")
    return pd.DataFrame([[cell or None for cell in row] for row in rows], columns=header, dtype=object)


def read_count_table(path: Path) -> pd.DataFrame:
    """Numbers under their genes, named by the first column; the header may leave that one out, as R writes it.

    Raises:
        OSError, EOFError, ValueError: as :func:`read_bytes`; cells that are no numbers, rows of another length.
    """
    content = read_bytes(path)
    if not content.strip():
        raise ValueError("it is empty")
    lines = content.count(b"\n") + content.count(b"\r")
    if lines > ROWS_LIMIT:
        raise ValueError(f"it has {lines} lines, more than the {ROWS_LIMIT} of a table")
    end = _first_line_end(content)
    if end > SMALL_LIMIT_BYTES:
        raise ValueError("its first line is longer than that of any table")
    first = _decoded(content[:end])
    separator = _separator(first, path)
    header = next(csv.reader([first], delimiter=separator), [])
    _check_columns(len(header))
    if any(columns <= set(header) for columns in SPOT_COLUMNS):
        raise ValueError("it is a table of spots, not of counts")
    if _are_counts(header[1:]):
        raise ValueError("its first line holds counts, where the names of the genes are due")
    if b"\0" in content:
        raise ValueError("it holds zero bytes, so it is no UTF-8 text")
    if not content[end:].strip():
        return pd.DataFrame(columns=pd.Index(header[1:], dtype=str), dtype=float)
    check_memory(NUMBER_BYTES * (content.count(separator.encode()) + lines))
    as_they_stand = {"header": None, "index_col": 0, "dtype": {0: str}, "keep_default_na": False, "na_values": [""]}
    table = pd.read_csv(io.BytesIO(content[end:]), sep=separator, **as_they_stand)
    if table.index.hasnans:
        raise ValueError("a row has no name")
    cells = table.shape[1] + 1
    if cells != len(header) and not (cells == len(header) + 1 and header[0]):
        raise ValueError(f"its rows have {cells} cells, the first line {len(header)}")
    table.columns = pd.Index(header[1:] if cells == len(header) else header, dtype=str)
    for gene, kind in zip(table.columns, table.dtypes, strict=True):
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
            raise ValueError(f"the column {gene} holds something else than numbers")
    return table


def check_mtx(folder: Path) -> None:
    """Refuse a 10x folder whose files unpack beyond bounds or declare more than there is.

    Raises:
        OSError, EOFError, ValueError: so it is.
    """
    for file in sorted(folder.iterdir()):
        if file.name.startswith(("matrix.mtx", "genes.tsv", "features.tsv", "barcodes.tsv")):
            content = read_bytes(file)
            if file.name.startswith("matrix.mtx"):
                check_memory(CELL_BYTES * content.count(b"\n"))
                rows = [line for line in content.splitlines() if line.strip() and not line.startswith(b"%")]
                check_memory(16 * sum(int(size) for size in rows[0].split()))
                # scipy reads beyond the end of the last number, and of 1e5 in a matrix of whole numbers the 1.
                whole = b"integer" in content[: _first_line_end(content)].lower()
                if not content.endswith(b"\n") or any(row.translate(None, MTX_BYTES[whole]) for row in rows):
                    kind = "whole numbers" if whole else "numbers"
                    raise ValueError(f"{file.name} is cut off, or holds something else than {kind}")


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


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise ValueError("it is UTF-16 or binary; save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save it as UTF-8 text") from error


def _separator(text: str, path: Path) -> str:
    first = text[: _first_line_end(text.encode("utf-8", "replace")[: 2**22])]
    by_name = "\t" if path.name.removesuffix(".gz").endswith((".tsv", ".txt")) else ","
    return next((mark for mark in (by_name, *SEPARATORS) if mark in first), by_name)


def _are_counts(header: list[str]) -> bool:
    """Whether a header is a row of numbers that are no Entrez ids, which are distinct and above zero."""
    numbers = [cell.strip() for cell in header]
    if not numbers or not all(cell.replace(".", "", 1).isdecimal() for cell in numbers):
        return False
    return len(set(numbers)) < len(numbers) or any(float(cell) == 0 or "." in cell for cell in numbers)


def _first_line_end(content: bytes) -> int:
    """Where the second line begins, whichever line ends the file has."""
    ends = [place for place in (content.find(b"\n"), content.find(b"\r")) if place >= 0]
    if not ends:
        return len(content)
    return min(ends) + (2 if content[min(ends) : min(ends) + 2] == b"\r\n" else 1)


def _check_columns(columns: int) -> None:
    if columns > COLUMNS_LIMIT:
        raise ValueError(f"it has {columns} columns, more than the {COLUMNS_LIMIT} of a table; give .h5ad")


def as_numbers(values: pd.Series) -> np.ndarray:
    """Numbers of a column of text or numbers, NaN where it is empty; booleans are none.

    Raises:
        ValueError, TypeError: something else stands in it.
    """
    if pd.api.types.is_bool_dtype(values.dtype):
        raise ValueError("it holds True and False")
    return pd.to_numeric(values).to_numpy(dtype=float, na_value=np.nan)
