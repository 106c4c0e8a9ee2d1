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
    """Slope and intercept of every gene's label over a spot's depth (METHOD section 6), by least squares.

    The slope is of labels and depths less their section's means: which sections were sequenced deeper says nothing of
    spots, and can turn its sign round. The line goes through the means over all spots; it is level where no depth
    varies.
    """
    labelled = [(data.labels.y[data.labels.valid], data.labels.depth[data.labels.valid]) for data in sections]
    centred = np.concatenate([depth - depth.mean() for _, depth in labelled])
    y, depth = np.concatenate([y for y, _ in labelled]).astype(np.float64), np.concatenate([d for _, d in labelled])
    spread = np.square(centred).sum()
    slope = centred @ y / spread if spread > 0 else np.zeros(y.shape[1])
    return slope, y.mean(axis=0) - slope * depth.mean()


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
