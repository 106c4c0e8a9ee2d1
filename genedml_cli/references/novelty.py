"""How far a spot is from what a fold was trained on, in the measure of spots it was tested on.

Letters: S spots, W width of the pooled features, K principal components, N spots of the training sections, Q quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from genedml.errors import GeneDMLError, reading
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.references.reference_file import load_reference, save_reference

COMPONENTS = 16
NEAREST = 10
MOST_SPOTS = 2000
QUANTILES = 101


@dataclass(frozen=True)
class NoveltyModel:
    """The training spots in the space of their main components, and how far held-out spots are from them.

    Distance is the mean over the ten nearest training spots. On the sections left out of HER2ST C2-C6 it ranks the
    spots by their error with a Spearman correlation of .42; Mahalanobis distances of the same components reach .25.

    Args:
        mean, scale: of every pooled feature over the training spots.
        components: of the features so scaled.
        spots: at most 2,000 training spots.
        held_out: quantiles, from 0 to 1, of the distances of the fold's test spots.
    """

    mean: Float[np.ndarray, " W"]
    scale: Float[np.ndarray, " W"]
    components: Float[np.ndarray, "K W"]
    spots: Float[np.ndarray, "N K"]
    held_out: Float[np.ndarray, " Q"]

    def novelty(self, features: SectionFeatures) -> Float[np.ndarray, " S"]:
        """Share of the held-out spots that were nearer to the training spots: 0 is familiar, 1 beyond all of them."""
        return np.interp(self._distance(features), self.held_out, np.linspace(0, 1, len(self.held_out)))

    def _distance(self, features: SectionFeatures) -> Float[np.ndarray, " S"]:
        pooled = features.at_three_scales
        if pooled.shape[1] != len(self.mean):
            raise GeneDMLError(
                f"The novelty measure beside the model is of features of width {len(self.mean)}, not "
                f"{pooled.shape[1]}: it is another model's. Copy the model and what lies beside it again."
            )
        place = (pooled - self.mean) / self.scale @ self.components.T
        nearest = range(1, min(NEAREST, len(self.spots)) + 1)
        return np.asarray(cKDTree(self.spots).query(place, nearest)[0].mean(axis=1))

    def distances(self, sections: Sequence[SectionFeatures]) -> Float[np.ndarray, " S"]:
        """Of all spots of some sections from the training spots."""
        return np.concatenate([self._distance(features) for features in sections])

    def in_units_of(self, distances: Float[np.ndarray, " S"]) -> "NoveltyModel":
        """The same measure, its unit the distances of held-out spots."""
        quantiles = np.quantile(distances, np.linspace(0, 1, QUANTILES)).astype(np.float32)
        return NoveltyModel(self.mean, self.scale, self.components, self.spots, quantiles)


def fit_novelty(train: Sequence[SectionFeatures], held_out: Sequence[SectionFeatures]) -> NoveltyModel:
    """Fit on all spots of ``train``, calibrate on those of ``held_out``, which the fold has not seen."""
    model = _fit(train)
    return model.in_units_of(model.distances(held_out))


def fit_novelty_to_all(train: Sequence[SectionFeatures], groups: Sequence[str]) -> NoveltyModel | None:
    """Fit on all spots of ``train`` where none are held out; None of a single group, whose distances tell nothing.

    It is calibrated on each group in turn, by the distances of its spots from those of the others.
    """
    pairs = list(zip(train, groups, strict=True))
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        return None
    distances = [
        _fit([features for features, group in pairs if group != name]).distances(
            [features for features, group in pairs if group == name]
        )
        for name in names
    ]
    return _fit(train).in_units_of(np.concatenate(distances))


def _fit(train: Sequence[SectionFeatures]) -> NoveltyModel:
    """The measure, not calibrated yet."""
    from sklearn.decomposition import PCA  # a second to import, for which no prediction waits
    from sklearn.preprocessing import StandardScaler

    pooled = np.concatenate([features.at_three_scales for features in train])
    scaler = StandardScaler().fit(pooled)
    scaled = scaler.transform(pooled)
    # The full decomposition is deterministic; "auto" draws random numbers for wide features.
    pca = PCA(min(COMPONENTS, *scaled.shape), svd_solver="full").fit(scaled)
    every = len(scaled) / min(len(scaled), MOST_SPOTS)
    kept = scaled[(np.arange(min(len(scaled), MOST_SPOTS)) * every).astype(int)]
    values = (scaler.mean_, scaler.scale_, pca.components_, kept @ pca.components_.T)
    mean, scale, components, spots = (np.ascontiguousarray(value, dtype=np.float32) for value in values)
    return NoveltyModel(mean, scale, components, spots, np.zeros(QUANTILES, np.float32))


def save_novelty(model: NoveltyModel, network: str, path: Path) -> None:
    """Write the model whole, with the SHA-256 of the network beside which it stands."""
    save_reference(vars(model), network, path)


def load_novelty(path: Path, network: str) -> NoveltyModel:
    """Read the measure beside a network.

    Raises:
        GeneDMLError: unreadable, beside another network, or changed since it was written.
    """
    with reading(f"The novelty measure {path}", "Remove it to go without."):
        model = NoveltyModel(**load_reference(path, network))
        kept, width = model.components.shape
        if (model.mean.shape, model.scale.shape) != ((width,), (width,)) or model.spots.shape[1:] != (kept,):
            raise ValueError("its tables do not fit each other")
        if (
            not len(model.spots)
            or not len(model.held_out)
            or not all(np.isfinite(v).all() for v in vars(model).values())
        ):
            raise ValueError("its tables are empty, or hold NaN")
        return model
