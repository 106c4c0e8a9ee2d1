"""Counts as Cell Ranger, Space Ranger and STARsolo write them, and as they lie about: HDF5, and folders of a matrix.

Everything is checked before it is taken: errors other than GeneDMLError are for ``reading`` around it.
"""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix, csr_matrix, spmatrix

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.hdf5 import is_anndata, opened_h5, tenx_groups
from genedml_cli.files.space_ranger import BINS_FOLDER
from genedml_cli.files.text_files import decoded, read_bytes
from genedml_cli.files.text_tables import CELL_BYTES, first_line_end
from genedml_cli.machine.memory import check_memory

GENES_10X = "Gene Expression"
"""What Space Ranger and Cell Ranger call the kind of the features that are genes."""

GENE_IDS = "gene_ids"
"""In ``var`` of counts and predictions, as scanpy's 10x readers call it: a gene's Ensembl id, empty if unknown."""

MATRIX = re.compile(r".*matrix\.mtx(\.gz)?")
"""The matrix of a folder. GEO puts a sample's name before it, and before the names of the files beside it."""

GENOMES_FOLDER = "gene_bc_matrices"
TABLES = (
    *("filtered_feature_bc_matrix.h5", BINS_FOLDER, "filtered_feature_bc_matrix", "filtered_gene_bc_matrices"),
    *("outs", "Solo.out", "Gene", "filtered"),
    *("raw_feature_bc_matrix.h5", "raw_feature_bc_matrix", "raw_gene_bc_matrices", "raw"),
)
"""Where a folder of results has its table, the spots under tissue before all. A sample's name may stand before."""

SHOWN = 4

MTX_BYTES = {True: b"0123456789 \t", False: b"0123456789.eE+- \t"}
"""What a matrix of whole numbers is made of, and one of others."""


class Features(NamedTuple):
    """Columns of a table of 10x: their ids, names and kinds, the last two where the file has them."""

    ids: list[str]
    names: list[str] | None
    kinds: list[str] | None


def is_matrix(path: Path) -> bool:
    """Whether a file's name is that of a matrix of such a folder."""
    return MATRIX.fullmatch(path.name) is not None


def read_tenx_folder(folder: Path) -> anndata.AnnData:
    """The genes of a 10x folder, spots in rows; of a folder of results, such as ``outs/``, the table in it.

    Raises:
        GeneDMLError: several tables.
        OSError, EOFError, ValueError: no table, or files that are damaged, lacking or contradict each other.
    """
    tables = _tables_in(folder)
    if not tables:
        raise ValueError(f"it is a folder without a matrix.mtx, {TABLES[0]} or another table of 10x")
    if len(tables) > 1:
        named = ", ".join(map(str, tables[:SHOWN])) + (", ..." if len(tables) > SHOWN else "")
        raise GeneDMLError(f"{folder} holds {len(tables)} tables. Give one of them: {named}")
    return read_tenx_matrix(tables[0]) if is_matrix(tables[0]) else read_tenx_h5(tables[0])


def table_in(folder: Path) -> Path:
    """Where the table of a folder of results lies: its ``.h5`` or the folder of its matrix; else the folder itself."""
    try:
        tables = _tables_in(folder)
    except (OSError, ValueError):  # said where the counts are read
        return folder
    if len(tables) != 1:
        return folder
    return tables[0].parent if is_matrix(tables[0]) else tables[0]


def _tables_in(folder: Path) -> list[Path]:
    """Of every sample of a folder the best table: what stands before the names of files and folders is the sample."""
    if folder.name == BINS_FOLDER:
        sizes = ", ".join(sorted(size.name for size in folder.iterdir() if size.is_dir()))
        raise ValueError(
            f"it holds bins of several sizes ({sizes}); sum them into spots: genedml data bin OUTS --um 100 -o "
            "section.h5ad"
        )
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    tables = {_prefix(entry): [entry] for entry in entries if is_matrix(entry)}
    for name in TABLES:
        for entry in entries:
            sample = entry.name.removesuffix(name)
            if sample != entry.name and not tables.get(sample) and (entry.is_dir() or name.endswith(".h5")):
                tables[sample] = _tables_in(entry) if entry.is_dir() else [entry]
    if not tables and folder.name.endswith(GENOMES_FOLDER):
        tables = {genome.name: _tables_in(genome) for genome in entries if genome.is_dir()}
    return [table for of_sample in tables.values() for table in of_sample]


def read_tenx_matrix(matrix: Path) -> anndata.AnnData:
    """The genes of a ``matrix.mtx[.gz]``, spots in rows, with ``barcodes`` and ``features`` or ``genes`` beside it.

    Raises:
        OSError, EOFError, ValueError: files that are damaged, lacking or contradict each other.
    """
    features_file, barcodes_file = _beside(matrix, "features", "genes"), _beside(matrix, "barcodes")
    features, barcodes = _rows(features_file), [row[0] for row in _rows(barcodes_file)]
    counts = _matrix(matrix)
    if counts.shape == (len(features), len(barcodes)):
        counts = counts.T
    elif counts.shape != (len(barcodes), len(features)):
        raise ValueError(
            f"{matrix.name} is {counts.shape[0]} x {counts.shape[1]}, but {features_file.name} has {len(features)} "
            f"lines and {barcodes_file.name} {len(barcodes)}"
        )
    width = min(map(len, features), default=0)
    kinds = [row[2] for row in features] if width > 2 else None
    names = [row[1] for row in features] if width > 1 and {row[1] for row in features} != {GENES_10X} else None
    return feature_table(counts, barcodes, Features([row[0] for row in features], names, kinds), matrix)


def read_tenx_h5(path: Path) -> anndata.AnnData:
    """The genes of a 10x ``.h5``, spots in rows: of Cell Ranger 3 and later, or of one genome of an earlier one.

    Raises:
        OSError, RuntimeError, KeyError, ValueError: damaged, something else, or indices outside its table, which would
            be read from foreign memory.
    """
    with opened_h5(path) as file:
        if is_anndata(file):
            raise ValueError("it is an AnnData file: call it .h5ad")
        groups = tenx_groups(file)
        if "matrix" not in groups and len(groups) != 1:
            several = (
                f"tables of {len(groups)} genomes ({', '.join(groups)}), of which one is due" if groups else "no table"
            )
            raise ValueError(f"it holds {several} as 10x writes it")
        group = file["matrix" if "matrix" in groups else groups[0]]
        parts = tuple(group[name][:] for name in ("data", "indices", "indptr"))
        counts = csc_matrix(parts, shape=tuple(group["shape"][:]))
        counts.check_format(full_check=True)
        return feature_table(counts.T, list(group["barcodes"].asstr()[:]), features_of(group), path)


def features_of(group: h5py.Group) -> Features:
    """The features that a table of 10x in an HDF5 file names.

    Raises:
        ValueError: it names none.
    """
    texts = group.get("features", group)
    ids, names, kinds = (
        next((list(texts[name].asstr()[:]) for name in spellings if name in texts), None)
        for spellings in (("id", "genes"), ("name", "gene_names"), ("feature_type",))
    )
    if ids is None:
        raise ValueError("it does not name its genes")
    return Features(ids, names, kinds)


def feature_table(counts: spmatrix, barcodes: list[str], features: Features, path: Path) -> anndata.AnnData:
    """Spots x genes, without features of other kinds. Where genes have one name only, it is not taken for an id."""
    ids, names, kinds = features
    var = pd.DataFrame(index=pd.Index(ids if names is None else names, dtype=str))
    if names is not None:
        var[GENE_IDS] = ids
    data = anndata.AnnData(csr_matrix(counts, dtype=np.float32), pd.DataFrame(index=pd.Index(barcodes, dtype=str)), var)
    if kinds is None:
        return data
    others = pd.Series(kinds)[np.array(kinds) != GENES_10X].value_counts()
    if others.empty:
        return data
    listed = ", ".join(f"{count} of the kind {kind!r}" for kind, count in others.head(5).items())
    console.note(f"{path.name} holds features that are no {GENES_10X}, which are left out: {listed}.")
    return data[:, np.array(kinds) == GENES_10X].copy()


def _prefix(matrix: Path) -> str:
    return matrix.name[: matrix.name.rindex("matrix.mtx")]


def _beside(matrix: Path, *names: str) -> Path:
    files = [matrix.with_name(f"{_prefix(matrix)}{name}.tsv{packed}") for name in names for packed in (".gz", "")]
    there = next((file for file in files if file.exists()), None)
    if there is None:
        raise ValueError(f"beside {matrix.name} there is no {' or '.join(file.name for file in files)}")
    return there


def _rows(path: Path) -> list[list[str]]:
    """The cells of every line of a text parted by tabs."""
    rows = csv.reader(io.StringIO(decoded(read_bytes(path)), newline=""), delimiter="\t")
    return [row for row in rows if row]


def _matrix(path: Path) -> spmatrix:
    """A Matrix Market file, if it unpacks within bounds and declares no more than there is."""
    from scipy.io import mmread

    content = read_bytes(path)
    check_memory(CELL_BYTES * content.count(b"\n"))
    rows = [line for line in content.splitlines() if line.strip() and not line.startswith(b"%")]
    if not rows:
        raise ValueError(f"{path.name} is empty")
    check_memory(16 * sum(int(size) for size in rows[0].split()))
    # scipy reads beyond the end of the last number, and of 1e5 in a matrix of whole numbers the 1.
    whole = b"integer" in content[: first_line_end(content)].lower()
    if not content.endswith(b"\n") or any(row.translate(None, MTX_BYTES[whole]) for row in rows):
        raise ValueError(f"{path.name} is cut off, or holds something else than {'whole ' if whole else ''}numbers")
    return mmread(io.BytesIO(content))
