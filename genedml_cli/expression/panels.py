"""Gene panels: derived from counts, matched to counts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Int

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.tenx import GENE_IDS

MIN_MATCHED = 10
BY_NAME, BY_ID = "name", "Ensembl id"
ENSEMBL_ID, VERSION = r"ENS[A-Z]*G\d{6,}(\.\d+)?", r"(?<=\d)\.\d+$"
MOSTLY = 0.5
GENE_MAP = "gene_map"
"""In ``uns`` of counts: what genes that were renamed are called now, by their older names."""


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
    """The genes of a panel that the counts have, and those they do not, both in its order; says what joined them.

    Raises:
        GeneDMLError: fewer than 10 are there (of a smaller panel: fewer than all).
    """
    join = join_genes(counts, panel)
    there = join.columns >= 0
    found = tuple(gene for gene, is_there in zip(panel, there, strict=True) if is_there)
    if len(found) < min(MIN_MATCHED, len(panel)):
        several = " and ".join(f"var[{column!r}]" for column in _columns_with(counts, panel))
        turned = np.isin(list(panel), counts.obs_names).sum() > len(found)
        raise GeneDMLError(
            f"The counts have {len(found)} of the panel's {len(panel)} genes, too few to score. The panel has "
            f"{', '.join(panel[:3])}, the counts {', '.join(counts.var_names[:3])}: "
            + (
                "these are turned, genes in rows. Give them with spots in rows; pandas turns a table with .T."
                if turned
                else f"{several} have them: make the right one the names."
                if several
                else "are both of one species and named in one way (symbols or Ensembl ids)?"
            )
        )
    say_join(join)
    return found, tuple(gene for gene, is_there in zip(panel, there, strict=True) if not is_there)


class GeneJoin(NamedTuple):
    """The column of each gene of a panel in the counts, -1 where there is none; how many were joined by what."""

    columns: Int[np.ndarray, " M"]
    by: dict[str, int]


def say_join(join: GeneJoin, section: str = "") -> None:
    """A line of how many genes of a panel were joined by what, where not all are by name; ``section`` begins it."""
    if len(join.by) > 1 or (join.by and BY_NAME not in join.by):
        counted = ", ".join(f"{number} by {how}" for how, number in join.by.items())
        there = int((join.columns >= 0).sum())
        console.note(f"{section}Of the panel's {len(join.columns)} genes the counts have {there}: {counted}.")


def gene_columns(counts: anndata.AnnData, panel: Sequence[str]) -> Int[np.ndarray, " M"]:
    """The columns of :func:`join_genes`."""
    return join_genes(counts, panel).columns


def join_genes(counts: anndata.AnnData, panel: Sequence[str]) -> GeneJoin:
    """Where the genes of a panel stand in the counts.

    By name or, if more are there so, by Ensembl id; those that are left by Ensembl id whatever its version, then by
    what a gene map in ``uns`` says both are called now. Where that
    has not enough of them, but just one other column of ``var``, it is by that. Where no other has, those that are left
    are joined by name whatever its capitals, if these do not tell mouse from man. A gene that could be two is none.
    """
    columns = pd.Index(counts.var_names).get_indexer(pd.Index(panel))
    how = BY_NAME
    if GENE_IDS in counts.var and (columns < 0).any():
        by_id = _places_in(counts.var[GENE_IDS], panel)
        columns, how = (by_id, BY_ID) if (by_id >= 0).sum() > (columns >= 0).sum() else (columns, BY_NAME)
    by = {how: int((columns >= 0).sum())}
    columns = _joined_more(columns, _by_bare_id(counts, panel, columns), by, "Ensembl id without its version")
    columns = _joined_more(columns, _by_map(counts, panel, columns), by, "gene map")
    others = {} if (columns >= 0).sum() >= min(MIN_MATCHED, len(panel)) else _columns_with(counts, panel)
    if len(others) == 1:
        column, columns = next(iter(others.items()))
        by = {f"var[{column!r}]": int((columns >= 0).sum())}
    if not others:
        columns = _joined_more(columns, _by_capitals(counts, panel, columns), by, "name in other capitals")
    return GeneJoin(columns, {how: number for how, number in by.items() if number})


def _joined_more(
    columns: Int[np.ndarray, " M"], more: Int[np.ndarray, " M"], by: dict[str, int], how: str
) -> Int[np.ndarray, " M"]:
    """The columns with those that ``how`` finds more, which are counted in ``by``."""
    by[how] = int((more >= 0).sum())
    return np.where(more >= 0, more, columns)


def _by_bare_id(counts: anndata.AnnData, panel: Sequence[str], columns: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """Of genes that have no column yet, and are Ensembl ids."""
    ids = counts.var[GENE_IDS] if GENE_IDS in counts.var else pd.Series(counts.var_names)
    wanted = pd.Series(list(panel), dtype=str)
    places = _places_in(_bare(ids), _bare(wanted).tolist())
    return np.where((columns < 0) & wanted.str.fullmatch(ENSEMBL_ID).to_numpy(dtype=bool), places, -1)


def _by_map(counts: anndata.AnnData, panel: Sequence[str], columns: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """Of genes that have no column yet."""
    renamed = counts.uns.get(GENE_MAP)
    if not renamed:
        return np.full(len(panel), -1)
    now = pd.Series([renamed.get(name, name) for name in counts.var_names], dtype=str)
    wanted = pd.Series([renamed.get(gene, gene) for gene in panel], dtype=str)
    places = np.where((columns < 0) & ~wanted.duplicated(keep=False), _places_in(now, wanted.tolist()), -1)
    places[np.isin(places, columns[columns >= 0])] = -1
    return places


def _bare(ids: pd.Series) -> pd.Series:
    return ids.astype(str).str.replace(VERSION, "", regex=True)


def _by_capitals(
    counts: anndata.AnnData, panel: Sequence[str], columns: Int[np.ndarray, " M"]
) -> Int[np.ndarray, " M"]:
    """Of genes that have no column yet; none where most of all differ as mouse (Gnas) and man (GNAS) do."""
    names = pd.Series(counts.var_names, dtype=str)
    places = np.where(columns < 0, _places_in(names.str.casefold(), [gene.casefold() for gene in panel]), -1)
    places[np.isin(places, columns[columns >= 0])] = -1
    pairs = [(gene, names[place]) for gene, place in zip(panel, places, strict=True) if place >= 0]
    across = [{first, second} == {first.upper(), first.capitalize()} for first, second in pairs]
    all_joined = len(pairs) + int((columns >= 0).sum())
    return np.full(len(panel), -1) if sum(across) > MOSTLY * all_joined else places


def _columns_with(counts: anndata.AnnData, panel: Sequence[str]) -> dict[str, Int[np.ndarray, " M"]]:
    """Columns of ``var`` that have enough genes of a panel, each with where they are."""
    places = {column: _places_in(counts.var[column], panel) for column in counts.var if column != GENE_IDS}
    return {column: at for column, at in places.items() if (at >= 0).sum() >= min(MIN_MATCHED, len(panel))}


def _places_in(names: pd.Series, panel: Sequence[str]) -> Int[np.ndarray, " M"]:
    """Where each gene of a panel stands; -1 where it does not, or stands several times."""
    index = pd.Index(names.astype(object))
    once = ~index.duplicated(keep=False)
    return pd.Series(np.flatnonzero(once), index=index[once]).reindex(list(panel)).fillna(-1).to_numpy(dtype=int)
