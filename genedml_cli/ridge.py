"""The linear reference: ridge regression on pooled multi-scale features of the same sections.

Letters: S spots, P tiles of the neighbor grid, D encoder width, W = 3 D, M genes,
N labelled spots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from genedml_cli.features import SectionFeatures
from genedml_cli.metrics import column_nanmean, nanmean, pcc
from genedml_cli.sections import SectionData
from genedml_cli.tiling import OUTSIDE

ALPHAS = tuple(10.0**power for power in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5))

Labelled = tuple[np.ndarray, np.ndarray]  # x [N W] and y [N M] of one section; N differs between sections


@dataclass(frozen=True)
class RidgeResult:
    """Predictions of each test section, the penalty, and the per-gene PCC inside the training side at that penalty."""

    predicted: Mapping[str, Float[np.ndarray, "S M"]]
    alpha: float
    inner_pcc: Float[np.ndarray, " M"]


def ridge_reference(train: Sequence[SectionData], test: Sequence[SectionData]) -> RidgeResult:
    """Fit on ``train``, predict ``test``; the penalty is chosen by leaving out one patient of ``train`` at a time.

    Of a single patient one section is left out at a time; of a single section the penalty is the middle one.
    """
    groups = [data.sample.patient for data in train]
    if len(set(groups)) < 2:
        groups = [data.sample.name for data in train]
    labelled = [_labelled(data) for data in train]
    inner = {alpha: _inner_pcc(labelled, groups, alpha) for alpha in ALPHAS} if len(set(groups)) > 1 else {}
    alpha = max(inner, key=lambda candidate: nanmean(inner[candidate])) if inner else ALPHAS[len(ALPHAS) // 2]
    model = _fit(labelled, alpha)
    predicted = {data.sample.name: model.predict(pooled_features(data.features)) for data in test}
    return RidgeResult(predicted, alpha, inner.get(alpha, np.full(train[0].labels.y.shape[1], np.nan)))


def pooled_features(features: SectionFeatures) -> Float[np.ndarray, "S W"]:
    """Of every spot: its own tile's vector, the mean over its neighbor grid, the mean over the grid's outer ring."""
    side = round(features.neighbor.shape[1] ** 0.5)
    row, column = np.divmod(np.arange(side * side), side)
    ring = (np.minimum(row, column) == 0) | (np.maximum(row, column) == side - 1)
    place = features.neighbor.numpy()
    vectors = features.tiles.float().numpy()[np.maximum(place, 0)]
    inside = place != OUTSIDE
    return np.concatenate([features.pooled.float().numpy(), _mean(vectors, inside), _mean(vectors, inside & ring)], 1)


def _mean(vectors: Float[np.ndarray, "S P D"], mask: np.ndarray) -> Float[np.ndarray, "S D"]:
    count = np.maximum(mask.sum(axis=1), 1)[:, None]
    return (vectors * mask[:, :, None]).sum(axis=1) / count


def _labelled(data: SectionData) -> Labelled:
    valid = data.labels.valid
    return pooled_features(data.features)[valid], data.labels.y[valid]


def _inner_pcc(sections: Sequence[Labelled], groups: Sequence[str], alpha: float) -> Float[np.ndarray, " M"]:
    scores = []
    for left_out in sorted(set(groups)):
        pairs = list(zip(sections, groups, strict=True))
        model = _fit([section for section, group in pairs if group != left_out], alpha)
        scores += [pcc(y, model.predict(x)) for (x, y), group in pairs if group == left_out]
    return column_nanmean(np.stack(scores))


def _fit(sections: Sequence[Labelled], alpha: float) -> Pipeline:
    x, y = (np.concatenate(parts) for parts in zip(*sections, strict=True))
    return make_pipeline(StandardScaler(), Ridge(alpha)).fit(x, y)
