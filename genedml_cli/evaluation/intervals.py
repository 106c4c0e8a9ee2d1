"""Do intervals hold what they promise? Letters: S spots, M genes."""

import anndata
import numpy as np
from jaxtyping import Float


def coverage(section: anndata.AnnData) -> Float[np.ndarray, " M"] | None:
    """Share of a section's labels that lie in their interval, for every gene; None of a section without intervals.

    ``uns["genedml"]["interval"]`` is the share that is to lie there. The intervals of a run's test section are
    calibrated on sections of other folds alone (:mod:`genedml_cli.runs.intervals`).

    Args:
        section: labelled spots with ``truth``, ``lower`` and ``upper`` in ``layers``.

    Returns:
        NaN of a gene that has no interval.
    """
    if not {"lower", "upper"} <= set(section.layers):
        return None
    truth, lower, upper = (np.asarray(section.layers[name]) for name in ("truth", "lower", "upper"))
    inside = ((lower <= truth) & (truth <= upper)).mean(axis=0)
    return np.where(np.isnan(lower).any(axis=0), np.nan, inside)
