"""One vector for each spot at three scales: what the references are fitted on.

Letters: S spots, P tiles of the neighbor grid, D encoder width, W = 3 D.
"""

import numpy as np
from jaxtyping import Float

from genedml_cli.features import SectionFeatures
from genedml_cli.tiling import OUTSIDE


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
