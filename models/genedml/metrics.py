"""Scores of predictions (METHOD section 6). Letters: S spots, M genes, F folds, H high genes, K explaining columns.

A gene that is constant in a section has no correlation, which is NaN; a prediction that is constant where its gene is
not has found nothing, which is 0. NaN among the values themselves is refused.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, diags

from genedml.errors import GeneDMLError

HIGH_GENES = 50


def pcc(truth: Float[np.ndarray, "S M"], predicted: Float[np.ndarray, "S M"]) -> Float[np.ndarray, " M"]:
    """Pearson correlation of every gene over the spots: NaN for a constant truth, 0 for a prediction alone constant.

    Raises:
        GeneDMLError: a value that is no finite number.
    """
    return _correlation(truth, predicted, _columns(len(truth)))


def partial_pcc(
    truth: Float[np.ndarray, "S M"], predicted: Float[np.ndarray, "S M"], given: Float[np.ndarray, " S"]
) -> Float[np.ndarray, " M"]:
    """Correlation of every gene with ``given``, such as sequencing depth, held fixed.

    The correlation of what is left of truth and prediction after the straight-line part of ``given`` is taken away.

    Raises:
        GeneDMLError: a value that is no finite number.
    """
    return _correlation(truth, predicted, _columns(len(truth), given))


def residual(
    values: Float[np.ndarray, "S M"], given: Float[np.ndarray, " S"] | None = None
) -> Float[np.ndarray, "S M"]:
    """What is left of every gene after its mean, and the straight-line part of ``given`` where there is one.

    Of two tables of residuals, :func:`pcc` is the :func:`pcc` or the :func:`partial_pcc` of the tables themselves.
    """
    return _unexplained(values, _columns(len(values), given))


def variance_ratio(truth: Float[np.ndarray, "S M"], predicted: Float[np.ndarray, "S M"]) -> Float[np.ndarray, " M"]:
    """Variance of every gene's prediction over the spots, over that of its truth; NaN for a constant truth.

    Raises:
        GeneDMLError: a value that is no finite number.
    """
    _check_finite({"truth": truth, "the prediction": predicted})
    return _ratio(np.square(residual(predicted)).sum(axis=0), np.square(residual(truth)).sum(axis=0))


def morans_i(values: Float[np.ndarray, "S M"], neighbors: csr_matrix) -> Float[np.ndarray, " M"]:
    """Moran's I of every gene (Moran 1950): how much alike neighbouring spots are, about 0 by chance.

    ``(S / sum w) * sum_ij w_ij z_i z_j / sum_i z_i^2``, z being values less their mean, and w 1 between array
    neighbours. NaN of a constant gene, and where no spot has a neighbour.

    Args:
        values: labels that are no mean over neighbours, which would make them alike.
        neighbors: [S, S] ones between neighbours; that a spot is its own does not count.

    Raises:
        GeneDMLError: a value that is no finite number.
    """
    _check_finite({"truth": values})
    z, weights = residual(values), neighbors - diags(neighbors.diagonal())
    return _ratio(len(z) * (z * (weights @ z)).sum(axis=0), weights.sum() * np.square(z).sum(axis=0))


def attainable(split_half: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The largest PCC with labels of whom two halves of the counts agree with PCC ``split_half``.

    Spearman and Brown: both halves together have reliability 2 r / (1 + r). Even the truth without noise correlates
    with such labels at its square root only. Where halves disagree, r < 0, nothing is attainable: 0. NaN stays NaN.
    """
    r = np.maximum(split_half, 0.0)  # of NaN it is NaN
    return np.sqrt(2 * r / (1 + r))


def high_genes(scores: Float[np.ndarray, "F M"]) -> Int[np.ndarray, " H"]:
    """The (up to) 50 genes with the best mean rank over folds; a gene without a score ranks last."""
    filled = np.where(np.isnan(scores), -np.inf, scores)
    ranks = (-filled).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return ranks.mean(axis=0).argsort(kind="stable")[:HIGH_GENES]


def nanmean(values: Sequence[float] | Float[np.ndarray, "..."]) -> float:
    """Mean of what is not NaN; NaN where nothing is left."""
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")


def column_nanmean(values: Float[np.ndarray, "S M"]) -> Float[np.ndarray, " M"]:
    """Mean of every column over what is not NaN; NaN where a column has nothing else."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(float))


def _columns(spots: int, given: Float[np.ndarray, " S"] | None = None) -> Float[np.ndarray, "S K"]:
    """What explains a part of every gene: the mean, and ``given`` where there is one."""
    return np.column_stack([np.ones(spots), *([] if given is None else [given])])


def _check_finite(tables: Mapping[str, Float[np.ndarray, "S _"]]) -> None:
    """Refuse NaN and infinity in tables, by what each is called."""
    for what, values in tables.items():
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise GeneDMLError(f"In {bad.sum()} of {len(bad)} spots {what} holds NaN or infinity: no score is defined.")


def _correlation(
    truth: Float[np.ndarray, "S M"], predicted: Float[np.ndarray, "S M"], explained_by: Float[np.ndarray, "S K"]
) -> Float[np.ndarray, " M"]:
    _check_finite({"truth": truth, "the prediction": predicted, "what is held fixed": explained_by})
    t, p = _unexplained(truth, explained_by), _unexplained(predicted, explained_by)
    scores = _ratio((t * p).sum(axis=0), np.sqrt((t**2).sum(axis=0) * (p**2).sum(axis=0)))
    found_nothing = (p == 0).all(axis=0) & (t != 0).any(axis=0)
    return np.where(found_nothing, 0.0, scores)


def _unexplained(values: Float[np.ndarray, "S M"], by: Float[np.ndarray, "S K"]) -> Float[np.ndarray, "S M"]:
    values = values.astype(np.float64)
    left = values - by @ np.linalg.lstsq(by, values, rcond=None)[0]
    # What rounding leaves of a fully explained column is no variation.
    nothing = np.linalg.norm(left, axis=0) <= 1e-6 * np.linalg.norm(values, axis=0)
    return np.where(nothing, 0.0, left)


def _ratio(over: Float[np.ndarray, " M"], under: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    return np.divide(over, under, out=np.full_like(under, np.nan), where=under > 0)
