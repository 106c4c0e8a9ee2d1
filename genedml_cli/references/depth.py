"""What a fold's model is measured against, fitted on the sections that its weights were fitted on.

The linear references (:mod:`genedml_cli.references.linear`), a line over sequencing depth for every gene, and the mean
label. A network that never learns from the validation sections is not held against references that do. Letters: S
spots, N labelled spots, M genes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from genedml.checkpoint import ModelCard
from genedml_cli.features.section_data import SectionData
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.outputs.reference_layers import CONSTANT, DEPTH
from genedml_cli.references.linear import LinearReferences, predict_linear

DepthLine = tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]


def mean_label(sections: Sequence[SectionData]) -> Float[np.ndarray, " M"]:
    """Mean label of every gene over the labelled spots of all sections."""
    return np.concatenate([data.labels.y[data.labels.valid] for data in sections]).mean(axis=0)


def label_sd(sections: Sequence[SectionData]) -> Float[np.ndarray, " M"]:
    """Standard deviation of every gene's label over the labelled spots of all sections, their offsets included."""
    return np.concatenate([data.labels.y[data.labels.valid] for data in sections]).std(axis=0, dtype=np.float64)


def fit_depth_line(sections: Sequence[SectionData]) -> DepthLine:
    """Slope and intercept of every gene's label over a spot's depth (METHOD section 6), by least squares."""
    y = np.concatenate([data.labels.y[data.labels.valid] for data in sections]).astype(np.float64)
    depth = np.concatenate([data.labels.depth[data.labels.valid] for data in sections])
    slope, intercept = np.linalg.lstsq(np.column_stack([depth, np.ones(len(depth))]), y, rcond=None)[0]
    return slope, intercept


def reference_layers(
    card: ModelCard, linear: LinearReferences, features: SectionFeatures, depth: Float[np.ndarray, " S"]
) -> Mapping[str, Float[np.ndarray, "S M"]]:
    """What each reference predicts of a section, as layers that ``evaluation.fold_scores`` scores."""
    slope, intercept = np.asarray(card.depth_line)
    return {
        **predict_linear(linear, features),
        DEPTH: depth[:, None] * slope + intercept,
        CONSTANT: np.tile(np.asarray(card.mean_label), (len(depth), 1)),
    }
