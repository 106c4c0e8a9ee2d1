"""Gene panels: derived from counts, matched to counts."""

from collections.abc import Iterable, Mapping, Sequence

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Int

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.tenx import GENE_IDS

MIN_MATCHED = 10


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
    there = gene_columns(counts, panel) >= 0
    found = tuple(gene for gene, is_there in zip(panel, there, strict=True) if is_there)
    if len(found) < min(MIN_MATCHED, len(panel)):
        several = " and ".join(f"var[{column!r}]" for column in _columns_with(counts, panel))
        turned = np.isin(list(panel), counts.obs_names).sum() > len(found)
        raise GeneDMLError(
            f"{len(found)} of the panel's {len(panel)} genes are in the counts, too few to score. The panel has "
            f"{', '.join(panel[:3])}, the counts {', '.join(counts.var_names[:3])}: "
            + (
                "these are turned, genes in rows. Give them with spots in rows; pandas turns a table with .T."
                if turned
                else f"{several} have them: make the right one the names."
                if several
                else "are both of one species and named in one way (symbols or Ensembl ids)?"
            )
        )
    return found, tuple(gene for gene, is_there in zip(panel, there, strict=True) if not is_there)


def gene_columns(counts: anndata.AnnData, panel: Sequence[str]) -> Int[np.ndarray, " M"]:
    """The column of each gene of a panel in the counts, by name or, if more are there so, by Ensembl id; else -1.

    Where neither has enough of them, but just one other column of ``var``, it is by that.
    """
    columns = pd.Index(counts.var_names).get_indexer(pd.Index(panel))
    if GENE_IDS in counts.var and (columns < 0).any():
        by_id = _places_in(counts.var[GENE_IDS], panel)
        columns = by_id if (by_id >= 0).sum() > (columns >= 0).sum() else columns
    if (columns >= 0).sum() >= min(MIN_MATCHED, len(panel)):
        return columns
    others = _columns_with(counts, panel)
    return next(iter(others.values())) if len(others) == 1 else columns


def _columns_with(counts: anndata.AnnData, panel: Sequence[str]) -> dict[str, Int[np.ndarray, " M"]]:
    """Columns of ``var`` that have enough genes of a panel, each with where they are."""
    places = {column: _places_in(counts.var[column], panel) for column in counts.var if column != GENE_IDS}
    return {column: at for column, at in places.items() if (at >= 0).sum() >= min(MIN_MATCHED, len(panel))}


def _places_in(names: pd.Series, panel: Sequence[str]) -> Int[np.ndarray, " M"]:
    """Where each gene of a panel stands; -1 where it does not, or stands several times."""
    index = pd.Index(names.astype(object))
    once = ~index.duplicated(keep=False)
    return pd.Series(np.flatnonzero(once), index=index[once]).reindex(list(panel)).fillna(-1).to_numpy(dtype=int)
