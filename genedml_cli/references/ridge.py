"""The linear reference: ridge regression on pooled multi-scale features of the same sections.

Letters: S spots, W width of the pooled features, M genes, N labelled spots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from genedml.errors import reading
from genedml.metrics import column_nanmean, nanmean, pcc
from genedml_cli.features.section_data import SectionData, left_out_together
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.references.pooled import pooled_features
from genedml_cli.references.reference_file import load_reference, save_reference

ALPHAS = tuple(10.0**power for power in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5))

Labelled = tuple[np.ndarray, np.ndarray]  # x [N W] and y [N M] of one section; N differs between sections


@dataclass(frozen=True)
class RidgeModel:
    """The fitted plane, the scaling of its inputs included, and each gene's PCC inside the training side.

    ``alpha`` is the penalty that it was fitted with; files do not keep it.
    """

    weight: Float[np.ndarray, "W M"]
    intercept: Float[np.ndarray, " M"]
    inner_pcc: Float[np.ndarray, " M"]
    alpha: float | None = None

    def predict(self, features: SectionFeatures) -> Float[np.ndarray, "S M"]:
        """Labels of every spot of a section."""
        return pooled_features(features) @ self.weight + self.intercept


def fit_ridge(train: Sequence[SectionData]) -> RidgeModel:
    """Fit on ``train``; the penalty is chosen by leaving out one donor of ``train`` at a time.

    Of a single donor one section is left out at a time; of a single section the penalty is the middle one.
    """
    groups = left_out_together(train)
    labelled = [_labelled(data) for data in train]
    inner = {alpha: _inner_pcc(labelled, groups, alpha) for alpha in ALPHAS} if len(set(groups)) > 1 else {}
    alpha = max(inner, key=lambda candidate: nanmean(inner[candidate])) if inner else ALPHAS[len(ALPHAS) // 2]
    inner_pcc = inner.get(alpha, np.full(train[0].labels.y.shape[1], np.nan))
    return _plane(_fit(labelled, alpha), alpha, inner_pcc)


def save_ridge(model: RidgeModel, genes: Sequence[str], network: str, path: Path) -> None:
    """Write the model whole, so that sections seen later have the reference too.

    Args:
        model: the reference.
        genes: its genes, in order.
        network: SHA-256 of the network that it stands beside (:func:`genedml.checkpoint.network_sha256`).
        path: of the file.
    """
    tables = {"weight": model.weight, "intercept": model.intercept, "inner_pcc": model.inner_pcc}
    save_reference(tables, network, path, genes)


def load_ridge(path: Path, genes: Sequence[str], network: str) -> RidgeModel:
    """Read the reference of ``genes`` beside a network.

    Raises:
        GeneDMLError: unreadable, fitted for other genes or beside another network, or changed since it was written.
    """
    with reading(f"The ridge reference {path}", "Remove it to go without."):
        tables = load_reference(path, network, genes)
        model = RidgeModel(tables["weight"], tables["intercept"], tables["inner_pcc"])
        if model.weight.shape[1:] != (len(genes),) or {model.intercept.shape, model.inner_pcc.shape} != {(len(genes),)}:
            raise ValueError("its weights are of another number of genes")
        return model


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


def _plane(model: Pipeline, alpha: float, inner_pcc: Float[np.ndarray, " M"]) -> RidgeModel:
    scaler, ridge = model.named_steps["standardscaler"], model.named_steps["ridge"]
    weight = np.atleast_2d(ridge.coef_).T / scaler.scale_[:, None]
    intercept = np.broadcast_to(ridge.intercept_, weight.shape[1]) - scaler.mean_ @ weight
    return RidgeModel(weight.astype(np.float32), intercept.astype(np.float32), inner_pcc, alpha)


def _fit(sections: Sequence[Labelled], alpha: float) -> Pipeline:
    x, y = (np.concatenate(parts) for parts in zip(*sections, strict=True))
    return make_pipeline(StandardScaler(), Ridge(alpha)).fit(x, y)
