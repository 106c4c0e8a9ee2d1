"""One vector for each spot at three scales: what the references are fitted on.

Letters: S spots, U distinct tiles, P tiles of the neighbor grid, D encoder width, W = 3 D.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.features.tile_plan import OUTSIDE


def pooled_features(features: SectionFeatures) -> Float[np.ndarray, "S W"]:
    """Of every spot: its own tile's vector, the mean over its neighbor grid, the mean over the grid's outer ring."""
    side = round(features.neighbor.shape[1] ** 0.5)
    row, column = np.divmod(np.arange(side * side), side)
    ring = (np.minimum(row, column) == 0) | (np.maximum(row, column) == side - 1)
    place = features.neighbor.numpy()
    tiles, inside = features.tiles.numpy(), place != OUTSIDE
    means = [_mean(tiles, place, inside), _mean(tiles, place, inside & ring)]
    return np.concatenate([features.pooled.float().numpy(), *means], 1)


def _mean(
    tiles: Float[np.ndarray, "U D"], place: Int[np.ndarray, "S P"], mask: Bool[np.ndarray, "S P"]
) -> Float[np.ndarray, "S D"]:
    """One place after the other: all tiles of all spots at once would be 25 times what the spots are."""
    total = np.zeros((len(place), tiles.shape[1]), np.float32)
    for tile, there in zip(place.T, mask.T, strict=True):
        total += tiles[np.maximum(tile, 0)].astype(np.float32) * there[:, None]
    return total / np.maximum(mask.sum(axis=1), 1)[:, None].astype(np.float32)
