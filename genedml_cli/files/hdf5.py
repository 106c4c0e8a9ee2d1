"""HDF5 and AnnData files from strangers: read within bounds, or refused. Errors are for ``reading`` around it.

A file declares sizes before it holds anything: what is declared is compared with what there is before it is allocated.
"""

import itertools
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from scipy.sparse import issparse

from genedml_cli.files.text_files import check_regular
from genedml_cli.machine.memory import check_memory

H5_KINDS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM, h5py.h5t.REFERENCE)
"""What the values of an AnnData file are made of; libhdf5 crashes on damaged ones of some other kinds."""
H5_FLOATS = tuple(getattr(h5py.h5t, f"IEEE_F{bits}{order}") for bits in (16, 32, 64) for order in ("LE", "BE"))
ENDS = "indptr"  # of a sparse table: where its rows end among the values
HEAP = b"GCOL\x01\0\0\0"


def plain_strings() -> AbstractContextManager[None]:
    """AnnData written in the block has strings that every version and R reads, whatever pandas holds them in."""
    return anndata.settings.override(allow_write_nullable_strings=False)


@contextmanager
def opened_h5(path: Path, *, read: Iterable[str] = (), streamed: bool = False) -> Iterator[h5py.File]:
    """An HDF5 file that holds all it names.

    Args:
        path: the file.
        read: the groups and datasets that will be read; all, if none are named.
        streamed: whether they are read part by part, so that memory need not hold them all.

    Raises:
        OSError, RuntimeError, ValueError: no HDF5 file, damaged, pointing into other files, or declaring more than the
            memory of this machine holds.
    """
    check_regular(path)
    _check_heaps(path)
    with h5py.File(path, "r") as file:
        wanted = tuple(read)
        tables = {name: table for name, table in _datasets(file).items() if not wanted or _is_below(name, wanted)}
        if not streamed:
            check_memory(sum(table.nbytes for table in tables.values()))
        for name, table in tables.items():
            _check_found(table, name)
            if name.endswith(ENDS):
                _check_ends(tables, name.removesuffix(ENDS))
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


def is_anndata(file: h5py.File) -> bool:
    """Whether an HDF5 file is of AnnData, of whatever version."""
    return "obs" in file and "var" in file


def tenx_groups(file: h5py.File) -> list[str]:
    """Names of the groups that hold a sparse table: those of 10x, in a file that is not of AnnData."""
    return [name for name, entry in file.items() if isinstance(entry, h5py.Group) and "indptr" in entry]


def read_h5ad(path: Path) -> anndata.AnnData:
    """An AnnData file, its sparse tables checked: an index beyond the table would be read from foreign memory.

    Raises:
        Exception: whatever anndata raises; ValueError as :func:`opened_h5`, for a 10x file and for wrong indices.
    """
    with opened_h5(path) as file:
        if not is_anndata(file) and tenx_groups(file):
            raise ValueError("it is a 10x file: call it .h5 to read its counts")
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
