"""Counts -> labels; gene panels (METHOD section 1).

Letters: S spots, M genes of the panel.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix

from genedml.config import LabelsConfig
from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.h5_files import check_tenx, checked, opened_h5, read_h5ad
from genedml_cli.inputs import check_mtx, check_names, read_count_table
from genedml_cli.spots import Spots

MIN_MATCHED = 10

JOIN_WARNED, JOIN_REFUSED = 0.05, 0.5
"""Share of a section's spots without counts: a few are usual in the authors' own tables; most are a mistake."""

WHOLE = "whole_numbers"
"""In ``uns`` of counts that were read: whether they are whole numbers, as raw counts are."""


MOST_COUNTS = 2**24
"""Beyond which single precision does not hold whole numbers; spots have some 10,000 of a gene."""

GENES_10X = "Gene Expression"
"""What Space Ranger and Cell Ranger call the kind of the features that are genes."""

GENE_IDS = "gene_ids"
"""In ``var`` of counts and predictions, as scanpy's 10x readers call it: a gene's Ensembl id, empty if unknown."""

OTHER_GENE_IDS = ("gene_id", "ensembl_id", "ensembl_ids")
"""What other writers of ``.h5ad`` call that column."""


@dataclass(frozen=True)
class Labels:
    """What the network learns for the spots of one section.

    Args:
        y: labels; NaN in the rows of spots that have none.
        valid: spots that have a label: with counts, and with a panel sum above zero.
        depth: log10(1 + total counts), averaged like the labels; NaN where there are no counts.
        without_counts: spots that the count table does not name.
        empty: spots with counts but none in the panel, which have no defined label.
        whole: whether the counts are whole numbers, as raw ones are.
    """

    y: Float[np.ndarray, "S M"]
    valid: Bool[np.ndarray, " S"]
    depth: Float[np.ndarray, " S"]
    without_counts: int
    empty: int
    whole: bool = True


def read_counts(path: Path) -> anndata.AnnData:
    """Read raw counts, spots in rows: ``.tsv[.gz]``, ``.csv[.gz]``, ``.h5ad``, 10x ``.h5`` or a 10x ``mtx`` folder.

    Where ``X`` of an ``.h5ad`` is not of whole numbers, ``layers["counts"]`` or ``raw`` is taken; where these are not
    either, a warning says so, and ``uns[WHOLE]`` is False. ``var[GENE_IDS]`` is there where the file had such ids.

    Raises:
        GeneDMLError: not there, unreadable, of an unknown kind, empty, negative, not a number, or a spot named twice.
    """
    if not path.exists():
        raise GeneDMLError(f"There are no counts {path}. Check the path.")
    with reading(f"The counts {path}", "Give raw counts, spots in rows, as .tsv, .csv, .h5ad, 10x .h5 or 10x mtx."):
        data = _read_any(path)
        if 0 in data.shape:
            raise GeneDMLError(f"{path} holds {data.n_obs} spots and {data.n_vars} genes: nothing to learn from.")
        table = _whole_table(data)
        data.X = csr_matrix(data.X if table is None else table, dtype=np.float32)
    data.uns[WHOLE] = table is not None
    if not np.isfinite(data.X.data).all() or (data.X.data < 0).any():
        raise GeneDMLError(f"{path} holds negative numbers or NaN, so it is no table of raw counts.")
    if data.X.nnz and data.X.data.max() > MOST_COUNTS:
        raise GeneDMLError(
            f"{path} says that a spot has {data.X.data.max():.4g} counts of a gene, more than any has, so it is "
            "damaged or no table of raw counts. Fetch it again, or export it anew."
        )
    if data.obs_names.has_duplicates:
        twice = data.obs_names[data.obs_names.duplicated()]
        raise GeneDMLError(f"{path} names {len(twice)} spots twice (first: {twice[0]}). Give every spot one row.")
    check_names(data.obs_names, "spot", path)
    check_names(data.var_names, "gene", path)
    if table is None:
        console.warn(not_raw_note([path.name]))
    data.var_names_make_unique()
    named = next((column for column in (GENE_IDS, *OTHER_GENE_IDS) if column in data.var), None)
    if named is not None:
        data.var[GENE_IDS] = data.var[named].astype(object).fillna("").astype(str)
    return data


def gene_ids_of(counts: anndata.AnnData) -> dict[str, str]:
    """Gene name to Ensembl id, of the genes whose id the counts had."""
    if GENE_IDS not in counts.var:
        return {}
    return {gene: gene_id for gene, gene_id in counts.var[GENE_IDS].items() if gene_id}


def agreed_gene_ids(sources: Sequence[Mapping[str, str]], genes: Sequence[str]) -> tuple[str, ...]:
    """The ids of ``genes``; empty for a gene that no source knows, or for which two differ: no id beats a wrong one.

    Args:
        sources: gene name to id, of sections or of folds.
        genes: which.

    Returns:
        One id a gene; nothing at all where no source knows any.
    """
    found = [{source[gene] for source in sources if source.get(gene)} for gene in genes]
    differ = [gene for gene, ids in zip(genes, found, strict=True) if len(ids) > 1]
    if differ:
        console.note(f"{len(differ)} genes (first: {differ[0]}) have ids that differ; they are left without one.")
    return tuple(next(iter(ids)) if len(ids) == 1 else "" for ids in found) if any(found) else ()


def derive_panel(counts: Iterable[anndata.AnnData], size: int) -> tuple[str, ...]:
    """The genes present in every section with the largest raw counts over all, largest first.

    Raises:
        GeneDMLError: the sections have fewer than ``size`` genes in common.
    """
    totals: pd.Series | None = None
    for section in counts:
        own = pd.Series(np.asarray(section.X.sum(axis=0), dtype=np.float64).ravel(), index=section.var_names)
        totals = own if totals is None else (totals + own).dropna()
    if totals is None or len(totals) < size:
        found = 0 if totals is None else len(totals)
        raise GeneDMLError(
            f"The sections have {found} genes in common, the panel needs {size}. Are all named in one way (symbols or "
            "Ensembl ids)? A smaller panel: --set labels.panel_size=N."
        )
    # A stable sort of names first, so that equal sums come in one order everywhere.
    return tuple(totals.sort_index().sort_values(ascending=False, kind="stable").index[:size])


def match_panel(counts: anndata.AnnData, panel: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The genes of a panel that the counts have, by name, and those they do not, both in its order.

    Raises:
        GeneDMLError: fewer than 10 are there (of a smaller panel: fewer than all).
    """
    there = set(counts.var_names)
    found = tuple(gene for gene in panel if gene in there)
    if len(found) < min(MIN_MATCHED, len(panel)):
        raise GeneDMLError(
            f"{len(found)} of the panel's {len(panel)} genes are in the counts, too few to score. The panel has "
            f"{', '.join(panel[:3])}, the counts {', '.join(counts.var_names[:3])}: are both of one species and named "
            "in one way (symbols or Ensembl ids)?"
        )
    return found, tuple(gene for gene in panel if gene not in there)


def make_labels(counts: anndata.AnnData, spots: Spots, panel: Sequence[str], config: LabelsConfig) -> Labels:
    """Labels of spots from the raw counts of their section, joined by name.

    ``log(1 + scale * c / library)``, then the mean over the labelled spots among a spot's array neighbours.

    Raises:
        GeneDMLError: no name is in both tables, or genes of the panel are not in the counts.
    """
    place = pd.Index(counts.obs_names).get_indexer(pd.Index(spots.names))
    joined = place >= 0
    if not joined.any():
        raise GeneDMLError(
            f"No spot has counts: spots are called {', '.join(spots.names[:3])}, counts "
            f"{', '.join(counts.obs_names[:3])}. Names must be the same in both."
        )
    columns = pd.Index(counts.var_names).get_indexer(pd.Index(panel))
    if (columns < 0).any():
        missing = [gene for gene, column in zip(panel, columns, strict=True) if column < 0]
        raise GeneDMLError(
            f"{len(missing)} of the panel's {len(panel)} genes are not in the counts (first: {', '.join(missing[:3])})."
        )
    rows = counts.X[np.where(joined, place, 0)]
    panel_counts = np.asarray(rows[:, columns].todense(), dtype=np.float64)
    total = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()
    panel_sum = panel_counts.sum(axis=1)
    valid = joined & (panel_sum > 0)
    library = panel_sum if config.library == "panel" else total
    ratio = config.scale * panel_counts / np.where(valid, library, 1.0)[:, None]
    y = np.log10(1 + ratio) if config.log_base == "10" else np.log1p(ratio)
    depth = np.log10(1 + total)[:, None]
    if config.smooth:
        neighbors = spots.neighbors()
        y, depth = _mean_over(neighbors, valid, y), _mean_over(neighbors, joined, depth)
    return Labels(
        np.where(valid[:, None], y, np.nan).astype(np.float32),
        valid,
        np.where(joined, depth[:, 0], np.nan),
        int((~joined).sum()),
        int((joined & ~valid).sum()),
        bool(counts.uns.get(WHOLE, True)),
    )


def check_join(labels: Labels, section: str, counts: Path) -> str:
    """Warn of spots without counts; refuse where most have none, since the rest then only share names by chance.

    Returns:
        What must be said with every score; empty where nothing must.

    Raises:
        GeneDMLError: most spots have no counts.
    """
    said = f"{labels.without_counts} of {len(labels.valid)} spots of {section} have no counts in {counts.name}"
    if labels.without_counts > JOIN_REFUSED * len(labels.valid):
        raise GeneDMLError(f"{said}: are they of another section? Give the counts of these spots.")
    if labels.without_counts > JOIN_WARNED * len(labels.valid):
        console.warn(f"{said}; they are left out.")
        return f"DOUBTFUL JOIN: {said}: of another section? Spots of another section share names by chance."
    return ""


def not_raw_note(names: Sequence[str]) -> str:
    """What must be said of counts that are not whole numbers; empty if there are none."""
    if not names:
        return ""
    return (
        f"NOT RAW: {', '.join(names)}: counts that are not whole numbers, so not raw. Labels of normalised counts are "
        "wrong, and so is every score against them."
    )


def _whole_table(data: anndata.AnnData) -> Any:
    """Whole numbers, if the file holds them: ``X``, else ``layers["counts"]``, else ``raw``."""
    raw = None if data.raw is None else data.raw[:, data.var_names].X
    for table in (data.X, data.layers.get("counts"), raw):
        if table is not None and _is_whole(table):
            return table
    return None


def _is_whole(table: Any) -> bool:
    values = csr_matrix(table).data
    return bool((values == np.rint(values)).all())


def _mean_over(
    neighbors: csr_matrix, present: Bool[np.ndarray, " S"], values: Float[np.ndarray, "S M"]
) -> Float[np.ndarray, "S M"]:
    among = neighbors.multiply(present[None, :].astype(float)).tocsr()
    count = np.asarray(among.sum(axis=1))
    return (among @ np.where(present[:, None], values, 0.0)) / np.maximum(count, 1)


def _read_any(path: Path) -> anndata.AnnData:
    name = path.name.removesuffix(".gz")
    if path.is_dir():
        import scanpy

        check_mtx(path)
        return _genes_alone(checked(scanpy.read_10x_mtx(path, gex_only=False)), path)
    if name.endswith(".h5ad"):
        return read_h5ad(path)
    if name.endswith(".h5"):
        import scanpy

        with opened_h5(path) as file:
            check_tenx(file)  # scanpy takes a part of the table, and would read beyond it
            return _genes_alone(checked(scanpy.read_10x_h5(path, gex_only=False)), path)
    if name.endswith((".tsv", ".csv", ".txt")):
        return _as_anndata(read_count_table(path))
    raise ValueError("known are .tsv, .csv (also .gz), .h5ad, 10x .h5 and 10x mtx folders")


def _genes_alone(data: anndata.AnnData, path: Path) -> anndata.AnnData:
    """Without the features of other kinds that a 10x file may hold; says which."""
    if "feature_types" not in data.var:
        return data
    kinds = data.var["feature_types"].astype(str)
    others = kinds[kinds != GENES_10X].value_counts()
    if others.empty:
        return data
    listed = ", ".join(f"{count} of the kind {kind!r}" for kind, count in others.head(5).items())
    console.note(f"{path.name} holds features that are no {GENES_10X}, which are left out: {listed}.")
    return data[:, (kinds == GENES_10X).to_numpy()].copy()


def _as_anndata(table: pd.DataFrame) -> anndata.AnnData:
    obs, var = pd.DataFrame(index=table.index.astype(str)), pd.DataFrame(index=table.columns)
    return anndata.AnnData(csr_matrix(table.to_numpy(), dtype=np.float32), obs=obs, var=var)
