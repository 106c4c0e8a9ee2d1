"""Counts -> labels (METHOD section 1; Pearson residuals: section 9).

Letters: S spots, M genes of the panel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from genedml.config import LabelsConfig
from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.expression.counts import RAW
from genedml_cli.expression.joins import doubt_of, without_counts
from genedml_cli.expression.panels import gene_columns
from genedml_cli.notes import Mark, Note
from genedml_cli.spots.spots import Spots

JOIN_WARNED, JOIN_REFUSED = 0.05, 0.5
"""Share of a section's spots without counts: a few are usual in the authors' own tables; most are a mistake."""

PEARSON_THETA = 100.0
"""Overdispersion of Pearson residuals: variance = mean + mean^2 / theta (Lause et al. 2021, Genome Biol 22:258)."""


@dataclass(frozen=True)
class Labels:
    """What the network learns for the spots of one section.

    Args:
        y: labels; NaN in the rows of spots that have none.
        unsmoothed: labels of each spot alone, before the mean over neighbours, if there is one; NaN as in ``y``.
        valid: spots that have a label: with counts, and with a library (of the panel or of all genes) above zero.
        depth: log10(1 + total counts), averaged like the labels; NaN where there are no counts.
        without_counts: spots that the count table does not name.
        empty: spots named in the count table whose library is zero, so that they have no defined label.
        raw: whether the counts can be raw.
        doubt: why the counts may be another section's though the names are the same; empty if nothing speaks for it.
        counts: counts of the panel's genes; 0 in the rows of spots that have none.
    """

    y: Float[np.ndarray, "S M"]
    unsmoothed: Float[np.ndarray, "S M"]
    valid: Bool[np.ndarray, " S"]
    depth: Float[np.ndarray, " S"]
    without_counts: int
    empty: int
    raw: bool = True
    doubt: str = ""
    counts: Float[np.ndarray, "S M"] | None = None


def make_labels(counts: anndata.AnnData, spots: Spots, panel: Sequence[str], config: LabelsConfig) -> Labels:
    """Labels of spots from the raw counts of their section, joined by name.

    ``log(1 + scale * c / library)`` or :func:`pearson_residuals`, then the mean over the labelled spots among a spot's
    array neighbours.

    Raises:
        GeneDMLError: no name is in both tables, or genes of the panel are not in the counts.
    """
    place = pd.Index(counts.obs_names).get_indexer(pd.Index(spots.names))
    joined = place >= 0
    if not joined.any():
        raise GeneDMLError(without_counts(counts, spots.names))
    columns = gene_columns(counts, panel)
    if (columns < 0).any():
        missing = [gene for gene, column in zip(panel, columns, strict=True) if column < 0]
        raise GeneDMLError(
            f"The counts lack {len(missing)} of the panel's {len(panel)} genes (first: {', '.join(missing[:3])})."
        )
    rows = counts.X[np.where(joined, place, 0)]
    panel_counts = np.asarray(rows[:, columns].todense(), dtype=np.float64)
    total = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()
    if config.transform == "pearson":
        valid = joined & (total > 0)
        y = np.zeros_like(panel_counts)
        y[valid] = pearson_residuals(panel_counts[valid], total[valid])
    else:
        panel_sum = panel_counts.sum(axis=1)
        valid = joined & (panel_sum > 0)
        library = panel_sum if config.library == "panel" else total
        ratio = config.scale * panel_counts / np.where(valid, library, 1.0)[:, None]
        y = np.log10(1 + ratio) if config.log_base == "10" else np.log1p(ratio)
    depth, unsmoothed = np.log10(1 + total)[:, None], y
    if config.smooth:
        y, depth = spots.array_mean(y, valid), spots.array_mean(depth, joined)
    return Labels(
        np.where(valid[:, None], y, np.nan).astype(np.float32),
        np.where(valid[:, None], unsmoothed, np.nan).astype(np.float32),
        valid,
        np.where(joined, depth[:, 0], np.nan),
        int((~joined).sum()),
        int((joined & ~valid).sum()),
        bool(counts.uns.get(RAW, True)),
        doubt_of(counts, spots.names, place),
        np.where(joined[:, None], panel_counts, 0.0).astype(np.float32),
    )


def pearson_residuals(counts: Float[np.ndarray, "S M"], total: Float[np.ndarray, " S"]) -> Float[np.ndarray, "S M"]:
    """``(c - mu) / sqrt(mu + mu^2 / 100)`` clipped at +-sqrt(S), as scanpy computes it over all genes of the section.

    ``mu`` is the spot's total times the gene's share in the section (METHOD section 9). Genes outside of the panel
    matter by their sum alone, so they are given to scanpy as one. A gene without counts is 0 in every spot.

    Args:
        counts: of the panel's genes in the spots of one section.
        total: counts of each spot over all genes; above zero.
    """
    from scanpy.experimental.pp import normalize_pearson_residuals

    every = anndata.AnnData(np.column_stack([counts, total - counts.sum(axis=1)]))
    with np.errstate(invalid="ignore"):  # 0 / 0 of a gene without counts
        residuals = normalize_pearson_residuals(every, theta=PEARSON_THETA, check_values=False, inplace=False)["X"]
    return np.where(counts.any(axis=0), residuals[:, :-1], 0.0)


def check_labelled(labels: Labels, section: str, counts: Path) -> None:
    """Refuse a section of which nothing can be learnt or scored.

    Raises:
        GeneDMLError: no spot has counts in the panel.
    """
    if not labels.valid.any():
        raise GeneDMLError(
            f"No spot of {section} has counts in the panel: {counts.name} names {labels.empty} of its "
            f"{len(labels.valid)} spots, with nothing in the panel's {labels.y.shape[1]} genes. Give the counts of "
            "this section, another --panel, or leave it out."
        )


def check_join(labels: Labels, section: str, counts: Path) -> Note | None:
    """Warn of spots without counts and of counts of several sections; refuse where most spots have none, since the rest
    then only share names by chance, and where none has a label.

    Returns:
        What must be said with every score, if anything must.

    Raises:
        GeneDMLError: most spots have no counts, or none has counts in the panel.
    """
    spots, doubts = len(labels.valid), []
    lacking = f"{labels.without_counts} of {spots} spots of {section} have no counts in {counts.name}"
    if labels.without_counts > JOIN_REFUSED * spots:
        more = f" {counts.name} {labels.doubt}." if labels.doubt else ""
        raise GeneDMLError(f"{lacking}: are they of another section? Give the counts of these spots.{more}")
    if not labels.valid.any():
        raise GeneDMLError(
            f"No spot of {section} has counts in the panel in {counts.name}, so none has a label. Are they raw counts "
            "of this section? Leave it out, or give another panel."
        )
    if labels.without_counts > JOIN_WARNED * spots:
        console.warn(f"{lacking}; they are left out.")
        doubts.append(f"{lacking}: of another section? Spots of another section share names by chance.")
    if labels.doubt:
        doubts.append(
            f"{counts.name} {labels.doubt}: {section} may have another's counts. Give its own section's table."
        )
        console.warn(doubts[-1])
    return Note(Mark.DOUBTFUL_JOIN, " ".join(doubts)) if doubts else None
