"""Files from strangers: read within bounds, or refused. Errors other than GeneDMLError are for ``reading`` around it.

A file declares sizes before it holds anything: what is declared is compared with what there is before it is allocated.
"""

import csv
import gzip
import io
import itertools
import json
import math
import mmap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix, issparse

from genedml.errors import CONTROL, GeneDMLError, reading
from genedml_cli.memory import at_most, free_on_host
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

H5_KINDS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM, h5py.h5t.REFERENCE)
"""What the values of an AnnData file are made of; libhdf5 crashes on damaged ones of some other kinds."""
H5_FLOATS = tuple(getattr(h5py.h5t, f"IEEE_F{bits}{order}") for bits in (16, 32, 64) for order in ("LE", "BE"))
MTX_BYTES = {True: b"0123456789 \t", False: b"0123456789.eE+- \t"}
"""What a matrix of whole numbers is made of, and one of others."""
ENDS = "indptr"  # of a sparse table: where its rows end among the values
HEAP = b"GCOL\x01\0\0\0"
ROOM_BYTES = 2**29
"""Beside what a file declares: a damaged length of a text is up to 4 GB, which take seconds before they are refused."""


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file, unpacked if its name ends with ``.gz``; to its very end or not at all.

    Raises:
        OSError, EOFError, ValueError, zlib.error: not a file, cut off, damaged, or above the limit.
    """
    _check_regular(path)
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


@contextmanager
def opened_h5(path: Path, *, read: Iterable[str] = ()) -> Iterator[h5py.File]:
    """An HDF5 file that holds all it names.

    Args:
        path: the file.
        read: the groups and datasets that will be read; all, if none are named.

    Raises:
        OSError, RuntimeError, ValueError: no HDF5 file, damaged, pointing into other files, or declaring more than the
            memory of this machine holds.
    """
    _check_regular(path)
    _check_heaps(path)
    with h5py.File(path, "r") as file:
        wanted = tuple(read)
        with at_most(ROOM_BYTES):
            every = _datasets(file)
        tables = {name: table for name, table in every.items() if not wanted or _is_below(name, wanted)}
        declared = sum(table.nbytes for table in tables.values())
        check_memory(declared)
        for name, table in tables.items():
            _check_found(table, name)
            if name.endswith(ENDS):
                _check_ends(tables, name.removesuffix(ENDS))
        with at_most(ROOM_BYTES + 8 * path.stat().st_size + 4 * declared):
            yield file


def _check_heaps(path: Path) -> None:
    """Refuse texts stored without an end: libhdf5 steps through such a heap for ever.

    A heap is ``GCOL``, version 1, three zero bytes, its size; then objects: number, eight bytes, size, content in
    steps of eight. Number 0 is the free rest, whose size counts its own head.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            place, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
            while place + 16 <= min(end, len(content)):
                size = int.from_bytes(content[place + 8 : place + 16], "little")
                step = 16 + -(-size // 8) * 8 if any(content[place : place + 2]) else size
                if not 16 <= step <= end - place:
                    raise ValueError(f"its texts are damaged at byte {place}")
                place += step
            start = content.find(HEAP, start + 8)


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Every dataset by name. Walked here: libhdf5's own walk runs for minutes on some damaged files."""
    found, groups, seen = {}, {"": file}, set()
    while groups:
        above, group = groups.popitem()
        _check_attributes(group, above)
        for name in group:
            path, link = f"{above}{name}", group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{path} points into another file")
            entry = group.get(name) if isinstance(link, h5py.HardLink) else None
            if isinstance(entry, h5py.Dataset):
                if entry.external or entry.is_virtual:
                    raise ValueError(f"{path} lies in another file")
                _check_attributes(entry, path)
                _check_kind(entry.id.get_type(), path)
                _check_stored(entry, path)
                found[path] = entry
            elif isinstance(entry, h5py.Group) and (address := h5py.h5o.get_info(entry.id).addr) not in seen:
                seen.add(address)
                groups[f"{path}/"] = entry
    return found


def _check_attributes(entry: h5py.Group | h5py.Dataset, path: str) -> None:
    for name in entry.attrs:
        _check_kind(entry.attrs.get_id(name).get_type(), f"{name} of {path or '/'}")


def _check_stored(table: h5py.Dataset, path: str) -> None:
    """Refuse a table of which parts were never stored, or lost, for which libhdf5 would give zeros; and parts that
    would be taken as they lie in the file though they are packed.
    """
    layout = table.id.get_create_plist()
    if not table.size or layout.get_layout() == h5py.h5d.COMPACT:
        return
    if table.chunks is None:
        if not table.id.get_storage_size():
            raise ValueError(f"{path} holds 0 of its 1 parts")
        return
    parts: list[h5py.h5d.StoreInfo] = []
    table.id.chunk_iter(parts.append)
    grid = [range(0, side, step) for side, step in zip(table.shape, table.chunks, strict=True)]
    found, wanted = {part.chunk_offset for part in parts}, math.prod(map(len, grid))
    if len(found) < wanted or found != set(itertools.product(*grid)):
        raise ValueError(f"{path} holds {len(found)} of its {wanted} parts, or some in wrong places")
    whole, packed = math.prod(table.chunks) * table.id.get_type().get_size(), layout.get_nfilters()
    # A part that packing did not make smaller is stored as it is, and marked so.
    if any(part.size != whole for part in parts if part.filter_mask or not packed):
        raise ValueError(f"{path} has a part that is packed, but says that it is not")


def _check_found(table: h5py.Dataset, path: str) -> None:
    """Refuse a table that lists a part whose entry is so damaged that reading gives zeros. Reads all of it."""
    parts: list[h5py.h5d.StoreInfo] = []
    if table.chunks is not None:
        table.id.chunk_iter(parts.append)
    for part in parts:
        try:
            table.id.read_direct_chunk(part.chunk_offset)
        except RuntimeError as error:
            raise ValueError(f"{path} has a part that is not where the file says") from error


def _check_ends(tables: Mapping[str, h5py.Dataset], above: str) -> None:
    """Refuse a sparse table whose rows end before they begin, or elsewhere than its values: scipy cuts it silently."""
    ends = np.ravel(tables[f"{above}{ENDS}"][()])
    lengths = [tables[f"{above}{name}"].size for name in ("indices", "data") if f"{above}{name}" in tables]
    if not ends.size or ends[0] or (ends[1:] < ends[:-1]).any() or any(ends[-1] != length for length in lengths):
        raise ValueError(f"{above}{ENDS} does not part the {max(lengths, default=0)} values of its table into rows")


def _check_kind(kind: h5py.h5t.TypeID, path: str) -> None:
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for number in range(kind.get_nmembers()):
            _check_kind(kind.get_member_type(number), path)
    elif kind.get_class() not in H5_KINDS or (isinstance(kind, h5py.h5t.TypeFloatID) and kind not in H5_FLOATS):
        raise ValueError(f"{path} is of a kind that no AnnData file has")


def _is_below(name: str, parts: Iterable[str]) -> bool:
    return any(f"{name}/".startswith(f"{part}/") for part in parts)


def read_h5ad(path: Path) -> anndata.AnnData:
    """An AnnData file, its sparse tables checked: an index beyond the table would be read from foreign memory.

    Raises:
        Exception: whatever anndata raises; ValueError as :func:`opened_h5` and for wrong indices.
    """
    with opened_h5(path):
        return checked(anndata.read_h5ad(path))


def checked(data: anndata.AnnData) -> anndata.AnnData:
    """The same, if the indices of all its sparse tables lie inside them.

    Raises:
        ValueError: they do not.
    """
    tables = [data.X, None if data.raw is None else data.raw.X]
    for part in (layers_of(data), data.obsm, data.varm, data.obsp, data.varp):
        tables += list(part.values())
    for table in tables:
        if issparse(table) and table.format in ("csr", "csc"):
            table.check_format(full_check=True)
    return data


def layers_of(data: anndata.AnnData) -> dict[str, Any]:
    """The tables beside ``X``; from anndata 0.13 on, ``data.layers`` holds ``X`` as well, under None."""
    return {name: layer for name, layer in data.layers.items() if name is not None}


def check_tenx(file: h5py.File) -> None:
    """Refuse a 10x ``.h5`` whose indices lie outside its tables.

    Raises:
        KeyError, ValueError: so it is.
    """
    for table in file.values():
        if isinstance(table, h5py.Group) and "indptr" in table:
            values, indices, ends = (table[name][:] for name in ("data", "indices", "indptr"))
            csc_matrix((values, indices, ends), shape=tuple(table["shape"][:])).check_format(full_check=True)


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


def check_memory(needed: int) -> None:
    """Refuse what memory cannot hold, before it is asked for.

    Raises:
        ValueError: it cannot.
    """
    free = free_on_host()
    if needed > free:
        raise ValueError(f"it declares {gigabytes(needed)}, but {gigabytes(free)} of memory are free")


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


def _check_regular(path: Path) -> None:
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
