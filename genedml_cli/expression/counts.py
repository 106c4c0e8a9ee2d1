"""Raw counts of every kind of file -> spots x genes."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, issparse

from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.expression.panels import ENSEMBL_ID
from genedml_cli.files.hdf5 import layers_of, read_h5ad
from genedml_cli.files.merged_sections import (
    column_key,
    names_in,
    picture_keys,
    sections_by_tag,
    sections_in,
    share_of_barcodes,
)
from genedml_cli.files.spatialdata_files import STORE, read_store
from genedml_cli.files.tenx import GENE_IDS, is_matrix, read_tenx_folder, read_tenx_h5, read_tenx_matrix
from genedml_cli.files.text_files import check_names
from genedml_cli.files.text_tables import read_count_table
from genedml_cli.notes import Mark, Note

RAW = "raw"
"""In ``uns`` of counts that were read: whether they can be raw."""

JUDGED_SPOTS, SAME_SUM = 5, 0.02
"""From so many spots on a table of 0 and 1 alone, or of sums that differ by such a share at most, is not raw."""

MOST_COUNTS = 2**24
"""Beyond which single precision does not hold whole numbers; spots have some 10,000 of a gene."""

OTHER_GENE_IDS = ("gene_id", "ensembl_id", "ensembl_ids", "ensembl")
"""What other writers of ``.h5ad`` call the column of Ensembl ids."""

SYMBOL_COLUMNS = (
    *("featurename", "genesymbols", "genesymbol", "symbol", "symbols", "genename", "genenames", "gene", "genes"),
    *("geneshortname", "hgncsymbol", "mgisymbol", "feature", "features"),
)
"""What writers of ``.h5ad`` whose genes go by Ensembl ids or numbers call the column of names, by ``column_key``."""

COUNT_LAYERS = (
    "counts",
    "raw_counts",
    "rawcounts",
    "counts_raw",
    "raw",
    "count",
    "raw_count",
    "umi",
    "umis",
    "umi_counts",
)
"""Layers that say that they are the raw counts, in capitals or not."""

CHUNK = 2**20

_NO_COUNTS = (
    "{} holds no counts: all its numbers are 0, so no spot has counts in the panel. Give the raw ones of this section."
)


def read_counts(path: Path) -> anndata.AnnData:
    """Read raw counts, spots in rows: ``.tsv[.gz]``, ``.csv[.gz]``, ``.h5ad``, 10x ``.h5`` or a 10x folder or matrix.

    Of an ``.h5ad`` the table of whole numbers is taken: ``raw``, which may have genes of its own, or a layer that is
    called like counts, or ``X``; what was taken is said where it is not ``X``. Where there is no such table, a warning
    says so, and ``uns[RAW]`` is False. Genes that go by Ensembl ids get their names if
    the file has them. ``var[GENE_IDS]`` is there where the file had such ids.

    Raises:
        GeneDMLError: not there, unreadable, of an unknown kind, empty, negative, not a number, turned, a spot named
            twice, or whole numbers only in layers that do not say that
            they are counts.
    """
    if not path.exists():
        raise GeneDMLError(f"There are no counts {path}. Check the path.")
    with reading(f"The counts {path}", "Give raw counts, spots in rows, as .tsv, .csv, .h5ad, 10x .h5 or 10x mtx."):
        with warnings.catch_warnings():  # genes are made unique below, spots that stand twice are refused
            warnings.filterwarnings("ignore", ".*names are not unique", UserWarning)
            data = _read_any(path)
        if 0 in data.shape:
            raise GeneDMLError(f"{path} holds {data.n_obs} spots and {data.n_vars} genes: nothing to learn from.")
        data.X = csr_matrix(data.X, dtype=np.float32)
        data.uns[RAW] = _is_raw(data.X)
    _check_numbers(data.X, path)
    check_names(data.obs_names, "spot", path)
    check_names(data.var_names, "gene", path)
    _check_rows(data, path)
    if not data.uns[RAW]:
        console.warn(str(not_raw_note([path.name])))
    data.var_names_make_unique()
    return data


def gene_ids_of(counts: anndata.AnnData) -> dict[str, str]:
    """Gene name to Ensembl id, of the genes whose id the counts had."""
    if GENE_IDS not in counts.var:
        return {}
    return {gene: gene_id for gene, gene_id in counts.var[GENE_IDS].items() if gene_id}


def not_raw_note(names: Sequence[str]) -> Note:
    """What must be said of counts that are not raw: those of these sections or files."""
    return Note(
        Mark.NOT_RAW,
        f"{', '.join(names)}: counts that are not whole numbers, only 0 and 1, or of one sum in every spot, "
        "so not raw. Labels of normalised counts are wrong, and so is every score against them.",
    )


def _read_any(path: Path) -> anndata.AnnData:
    name = path.name.removesuffix(".gz")
    if path.is_dir() and path.suffix == STORE:
        return _with_gene_names(_raw_counts(read_store(path)[0], path))
    if path.is_dir():
        return read_tenx_folder(path)
    if is_matrix(path):
        return read_tenx_matrix(path)
    if name.endswith(".h5ad"):
        return _with_gene_names(_raw_counts(read_h5ad(path), path))
    if name.endswith(".h5"):
        return read_tenx_h5(path)
    if name.endswith((".tsv", ".csv", ".txt")):
        table = read_count_table(path)
        obs, var = pd.DataFrame(index=table.index.astype(str)), pd.DataFrame(index=table.columns)
        return anndata.AnnData(csr_matrix(table.to_numpy(), dtype=np.float32), obs=obs, var=var)
    raise ValueError("known are .tsv, .csv (also .gz), .h5ad, 10x .h5 and 10x mtx folders")


def _raw_counts(data: anndata.AnnData, path: Path) -> anndata.AnnData:
    """Of all tables of an AnnData file the one of raw counts, with its genes; ``X`` where none is of whole numbers."""
    tables = {"X": data.X, **{f"layers[{name!r}]": layer for name, layer in layers_of(data).items()}}
    if data.raw is not None:
        tables["raw"] = data.raw.X
    tables = {name: table for name, table in tables.items() if table is not None and _has_counts(table)}
    whole = {name: table for name, table in tables.items() if _is_whole(table)}
    taken = _table_of_counts(whole, data, path)
    if taken is None:
        taken = next(iter(tables), None)
    if taken is None:
        raise GeneDMLError(_NO_COUNTS.format(path))
    var = _genes_of_raw(data) if taken == "raw" else data.var
    if taken != "X":
        beside = "; X holds other whole numbers" if "X" in whole else ""
        console.note(f"{path.name}: the counts are those of {taken}, {len(var)} genes{beside}.")
    obs = data.obs.set_axis(names_in(data.obs))
    counts = anndata.AnnData(csr_matrix(tables[taken], dtype=np.float32), obs=obs, var=var)
    counts.uns["pictures"] = picture_keys(data.uns.get("spatial"))
    return counts


def _table_of_counts(whole: Mapping[str, Any], data: anndata.AnnData, path: Path) -> str | None:
    """Which of the tables of whole numbers is that of the raw counts; None if there are none.

    A table that says that it is goes before ``X``, which may be cut to 0 and 1, clipped or corrected for depth.

    Raises:
        GeneDMLError: there are some beside ``X``, none of which says that it is.
    """
    named = {name.lower(): name for name in whole}
    known = [named[f"layers['{name}']"] for name in COUNT_LAYERS if f"layers['{name}']" in named]
    if "raw" in whole and data.raw.n_vars > data.n_vars:  # X and its layers are of some genes only
        return "raw"
    if "raw" in whole and ("X" not in whole or data.raw.n_vars == data.n_vars):
        known.append("raw")
    if "X" in whole:
        return known[0] if known and not _are_same(whole[known[0]], whole["X"]) else "X"
    if known or not whole:
        return next(iter(known), None)
    raise GeneDMLError(
        f"{path} holds no whole numbers in X, but in {' and '.join(whole)}: are these the raw counts? Put the raw "
        "ones into X or layers['counts']."
    )


def _are_same(first: Any, second: Any) -> bool:
    """Whether two tables hold the same numbers."""
    return not (csr_matrix(first) != csr_matrix(second)).nnz


def _genes_of_raw(data: anndata.AnnData) -> pd.DataFrame:
    """``raw.var``, its names made unique, with the columns that only ``var`` has."""
    var = data.raw.var.copy()
    var.index = anndata.utils.make_index_unique(pd.Index(var.index.astype(str)))
    if not data.var_names.is_unique:
        return var
    beside = data.var[[column for column in data.var if column not in var]]
    return var.join(beside.reindex(var.index).astype(object))


def _with_gene_names(data: anndata.AnnData) -> anndata.AnnData:
    """Genes by name, Ensembl ids beside them, as far as the file has both."""
    columns = {str(column).lower(): column for column in reversed(data.var.columns)}
    ids = next((columns[name] for name in (GENE_IDS, *OTHER_GENE_IDS) if name in columns), None)
    if ids is not None:
        data.var[GENE_IDS] = _texts(data.var[ids])
    are_ids, are_numbers = (
        pd.Series(data.var_names).str.fullmatch(kind).mean() >= 0.5 for kind in (ENSEMBL_ID, r"\d+")
    )
    if not are_ids and not are_numbers:
        return data
    by_key = {column_key(column): _texts(data.var[column]) for column in reversed(data.var.columns)}
    symbols = (by_key[key] for key in SYMBOL_COLUMNS if key in by_key)
    names = next((column for column in symbols if not column.str.fullmatch(ENSEMBL_ID + r"|\d*").all()), None)
    if names is not None:
        data.var[GENE_IDS if are_ids else "number"] = data.var_names.to_numpy(dtype=object)
        data.var_names = names.where(names != "", data.var_names).to_numpy(dtype=str)
    return data


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str)


def _check_numbers(table: csr_matrix, path: Path) -> None:
    """Refuse what no table of raw counts holds."""
    if not np.isfinite(table.data).all() or (table.data < 0).any():
        raise GeneDMLError(f"{path} holds negative numbers or NaN, so it is no table of raw counts.")
    most = table.data.max(initial=0)
    if not most:
        raise GeneDMLError(_NO_COUNTS.format(path))
    if most > MOST_COUNTS:
        raise GeneDMLError(
            f"{path} says that a spot has {most:.4g} counts of a gene, more than any has, so it is damaged or no table "
            "of raw counts. Fetch it again, or export it anew."
        )


def _check_rows(data: anndata.AnnData, path: Path) -> None:
    """Refuse genes in rows, and rows of one name."""
    if share_of_barcodes(data.var_names) > 0.5 > share_of_barcodes(data.obs_names):
        raise GeneDMLError(
            f"{path} is turned: its rows are genes ({', '.join(data.obs_names[:2])}), its columns spots "
            f"({', '.join(data.var_names[:2])}). Give it with spots in rows; pandas turns a table with .T."
        )
    if data.obs_names.has_duplicates:
        twice = data.obs_names[data.obs_names.duplicated()]
        several = sections_in(data.obs, data.uns.get("pictures", ())) or sections_by_tag(data.obs_names)
        fix = f"It holds spots of {several}: give one section's table." if several else "Give every spot one row."
        raise GeneDMLError(f"{path} names {console.count(len(twice), 'spot')} twice (first: {twice[0]}). {fix}")


def _has_counts(table: Any) -> bool:
    return any(chunk.any() for chunk in _values(table))


def _is_raw(table: csr_matrix) -> bool:
    """Whether counts can be raw: whole, more than 0 and 1, and not scaled to one sum, if there are spots to tell by."""
    if not _is_whole(table):
        return False
    sums = np.asarray(table.sum(axis=1), dtype=np.float64).ravel()
    sums = sums[sums > 0]
    if len(sums) < JUDGED_SPOTS:
        return True
    return bool(table.max() > 1 and sums.max() - sums.min() > SAME_SUM * sums.mean())


def _is_whole(table: Any) -> bool:
    """Whether all numbers of a table are whole and none is negative or missing."""
    return all(bool(((chunk == np.rint(chunk)) & (chunk >= 0)).all()) for chunk in _values(table))


def _values(table: Any) -> Iterator[np.ndarray]:
    """The numbers that a table stores, part by part: most tables show at once what they are."""
    values = np.ravel(table.data if issparse(table) else np.asarray(table))
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
