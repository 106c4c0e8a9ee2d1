"""Texts and tables from strangers: read within bounds, or refused. Errors other than GeneDMLError are for ``reading``.

A file declares sizes before it holds anything: what is declared is compared with what there is before it is allocated.
"""

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from genedml_cli.files.text_files import SMALL_LIMIT_BYTES, decoded, read_bytes
from genedml_cli.machine.memory import check_memory

ROWS_LIMIT, COLUMNS_LIMIT = 10_000_000, 2**16
CELLS_LIMIT, CELLS_LIMIT_BYTES = 6_000_000, 2**27
"""Of a table whose cells are read as text: a million spots with array positions, which take some seconds."""
CELL_BYTES, NUMBER_BYTES = 100, 24
"""What a cell takes as text and as a number, with all copies, while a table is read."""
SEPARATORS = ("\t", ",", ";")

INDEX_NAMES = ("name", "spot", "spots", "barcode", "barcodes", "id", "spot_id", "cell", "index")
"""What stands above the names of spots in a table of counts."""

NAME_COLUMNS = (
    "barcode",
    "barcodes",
    "spot",
    "spots",
    "spot_id",
    "spot_name",
    "name",
    "cell",
    "cell_id",
    "cell_barcode",
)
"""Of these the names are taken where they do not stand first."""

NO_NUMBER = ("", "na", "nan", "n/a", "null", "none")
"""What programs write into a cell that is empty."""

SPOT_COLUMNS = ({"x", "y"}, {"pxl_row_in_fullres", "pxl_col_in_fullres"})
"""What no table of counts has, of a gene's name or of anything else."""


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV or TSV as they stand, without a guess of what is a number or missing.

    The separator is what the name says, else what the header has: tab, comma or semicolon. Passed over are blank lines
    and, as spreadsheets leave them, lines of separators alone and empty cells at the ends of lines.

    Raises:
        OSError, EOFError, ValueError, csv.Error: as :func:`read_bytes`; rows of another length than the header.
    """
    text = decoded(read_bytes(path, CELLS_LIMIT_BYTES))
    separator = _separator(text, path)
    cells = text.count(separator) + text.count("\n") + text.count("\r")
    if cells > CELLS_LIMIT:
        raise ValueError(
            f"it has {cells} cells, more than the {CELLS_LIMIT} that are read of a text; spots may be .parquet"
        )
    check_memory(CELL_BYTES * cells)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    header = [cell.strip() for cell in next((row for row in lines if row), [])]
    named = columns = len(_without_empty_end(header))
    if not named:
        raise ValueError("it is empty")
    _check_columns(len(header))
    rows = []
    for row in lines:
        cells = len(_without_empty_end(row))
        if cells > len(header) or 0 < cells <= len(row) < named:
            raise ValueError(f"line {lines.line_num} has {len(row)} cells, the first line {named}")
        columns = max(columns, cells)  # a last column without a name, which holds something
        if cells:
            rows.append(row)
    return header[:columns], [row[:columns] + [""] * (columns - len(row)) for row in rows]


def _without_empty_end(row: list[str]) -> list[str]:
    """A line without the empty cells at its end."""
    cells = len(row)
    while cells and not row[cells - 1].strip():
        cells -= 1
    return row[:cells]


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
    """Numbers under their genes, named by the first column or a later one that is called like names.

    The header may leave the first one out, as R writes it. A first column that numbers the rows is no gene.

    Raises:
        OSError, EOFError, ValueError: as :func:`read_bytes`; cells that are no numbers, rows of another length.
    """
    content = read_bytes(path)
    if not content.strip():
        raise ValueError("it is empty")
    lines = content.count(b"\n") + content.count(b"\r")
    if lines > ROWS_LIMIT:
        raise ValueError(f"it has {lines} lines, more than the {ROWS_LIMIT} of a table")
    end = first_line_end(content)
    if end > SMALL_LIMIT_BYTES:
        raise ValueError("its first line is longer than that of any table")
    first = decoded(content[:end])
    separator = _separator(first, path)
    first_line = next(csv.reader([first], delimiter=separator), [])
    header = first_line[:1] + _without_empty_end(first_line[1:])
    _check_columns(len(header))
    place = _place_of_names(header)
    header = [header[place], *header[:place], *header[place + 1 :]]
    if any(columns <= set(header) for columns in SPOT_COLUMNS):
        raise ValueError("it is a table of spots, not of counts")
    if _are_counts(header[1:]):
        raise ValueError("its first line holds counts, where the names of the genes are due")
    if b"\0" in content:
        raise ValueError("it holds zero bytes, so it is no UTF-8 text")
    if not content[end:].strip():
        return pd.DataFrame(columns=pd.Index(header[1:], dtype=str), dtype=float)
    cells = content.count(separator.encode())
    if not cells:
        raise ValueError("no tab, comma or semicolon separates its cells (spaces do not); save it with one of them")
    check_memory(NUMBER_BYTES * (cells + lines))
    as_they_stand = {
        "header": None,
        "index_col": place,
        "dtype": {place: str},
        "keep_default_na": False,
        "na_values": [""],
    }
    table = pd.read_csv(io.BytesIO(content[end:]), sep=separator, **as_they_stand)
    table = _without_empty_cells(table, header, len(first_line) - len(header))
    if table.index.hasnans:
        raise ValueError("a row has no name")
    cells = table.shape[1] + 1
    if cells != len(header) and not (cells == len(header) + 1 and header[0]):
        raise ValueError(f"its rows have {cells} cells, the first line {len(header)}")
    table.columns = pd.Index(header[1:] if cells == len(header) else header, dtype=str)
    if place and any(np.array_equal(table.iloc[:, 0], np.arange(start, start + len(table))) for start in (0, 1)):
        table = table.iloc[:, 1:]
    _check_cells(table)
    return table


def _place_of_names(header: list[str]) -> int:
    """Which column names the spots: the first, unless another and only that one is called so."""
    places = [place for place, cell in enumerate(header) if cell.strip().lower() in NAME_COLUMNS]
    return places[0] if len(places) == 1 else 0


def _check_cells(table: pd.DataFrame) -> None:
    """Refuse cells that are empty or hold something else than numbers.

    Raises:
        ValueError: naming the first by its spot and its gene.
    """
    of_numbers = {kind: is_numeric_dtype(kind) and not is_bool_dtype(kind) for kind in set(table.dtypes)}
    lacking = table.isna().any().to_numpy()
    # of 15,000 columns nearly all are whole, and looking at each alone takes seconds
    for number in np.flatnonzero(lacking | ~table.dtypes.map(of_numbers).to_numpy(bool)).tolist():
        gene, cells = table.columns[number], table.iloc[:, number]
        is_number = of_numbers[cells.dtype]
        odd = cells[(cells if is_number else pd.to_numeric(cells.astype(str), errors="coerce")).isna()]
        texts = odd.astype(object).where(odd.notna(), "").astype(str).str.strip()
        if texts.empty or texts.iloc[0].lower() not in NO_NUMBER:
            first = f" ({texts.iloc[0][:20]!a} in row {texts.index[0]})" if len(texts) else ""
            raise ValueError(f"the column {gene} holds something else than numbers{first}")
        raise ValueError(f"row {texts.index[0]} has an empty cell under {gene}; write 0 for none")


def _without_empty_cells(table: pd.DataFrame, header: list[str], unnamed: int) -> pd.DataFrame:
    """A table without lines of separators alone, and without the columns at its end that have no name.

    Args:
        table: numbers, by the names of spots.
        header: the first line, without the empty cells at its end.
        unnamed: how many these were.

    Raises:
        ValueError: a column without a name holds numbers.
    """
    blank = np.zeros(len(table), dtype=bool)
    without_name = np.flatnonzero(table.index.isna())
    blank[without_name] = table.iloc[without_name].isna().all(axis=1)
    table = table[~blank]
    # Where no cell stands above the names of spots, the last column has the last name.
    corner = table.shape[1] < len(header) + unnamed if unnamed else header[0].strip().lower() in ("", *INDEX_NAMES)
    named = len(header) - 1 if corner else len(header)
    nameless = table.iloc[:, named:]
    if nameless.notna().any(axis=None):
        if unnamed:
            raise ValueError("a column without a name holds numbers")
        return table
    return table.iloc[:, :named]


def _separator(text: str, path: Path) -> str:
    first = text[: first_line_end(text.encode("utf-8", "replace")[: 2**22])]
    by_name = "\t" if path.name.removesuffix(".gz").endswith((".tsv", ".txt")) else ","
    return next((mark for mark in (by_name, *SEPARATORS) if mark in first), by_name)


def _are_counts(header: list[str]) -> bool:
    """Whether a header is a row of numbers that are no Entrez ids, which are distinct and above zero."""
    numbers = [cell.strip() for cell in header]
    if not numbers or not all(cell.replace(".", "", 1).isdecimal() for cell in numbers):
        return False
    return len(set(numbers)) < len(numbers) or any(float(cell) == 0 or "." in cell for cell in numbers)


def first_line_end(content: bytes) -> int:
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
    if is_bool_dtype(values.dtype):
        raise ValueError("it holds True and False")
    return pd.to_numeric(values).to_numpy(dtype=float, na_value=np.nan)
