"""What to read and what to encode for a list of spots.

Letters: S spots, P tiles of the neighbor grid (25), U distinct tiles. Positions are raster pixels (see
:class:`genedml_cli.slides.raster.Raster`): integers at the model's um/px.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from genedml.config import ViewsConfig
from genedml_cli.slides.raster import BLOCK_PX

OUTSIDE = -1


@dataclass(frozen=True)
class TilePlan:
    """Every distinct tile once, in scan order, and which of them each spot sees.

    Args:
        corners_xy: left upper corner of every tile.
        own: the tile that each spot stands in the middle of.
        neighbor: tile at each place of each spot's grid, row by row; -1 where it is off the slide.
        tile_px: side of a tile.
    """

    corners_xy: Int[np.ndarray, "U 2"]
    own: Int[np.ndarray, " S"]
    neighbor: Int[np.ndarray, "S P"]
    tile_px: int


def plan_tiles(
    xy_px: Float[np.ndarray, "S 2"],
    scale: float,
    size_px: tuple[int, int],
    views: ViewsConfig,
    tile_px: int | None = None,
) -> TilePlan:
    """Plan the tiles around spots.

    The middle of a spot's grid is its own tile or, in lattice mode, the tile of the lattice that holds its centre; a
    grid of one tile is the spot's own in both. The
    middle is always seen; the other tiles are off the slide where their centre is.

    Args:
        xy_px: spot centres in level-0 pixels, on the slide.
        scale: level-0 pixels of one raster pixel.
        size_px: width and height of the raster.
        views: tile size and grid.
        tile_px: plan tiles of this side around the spots alone, without a grid.
    """
    tile, side = (views.tile_px, views.neighbor_grid) if tile_px is None else (tile_px, 1)
    centres = np.rint(xy_px / scale).astype(np.int64)
    centres = np.minimum(centres, np.array(size_px) - 1)
    on_lattice = views.neighbors == "lattice" and side > 1
    middles = centres // tile * tile + tile // 2 if on_lattice else centres
    steps = (np.arange(side) - side // 2) * tile
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    around = middles[:, None, :] + offsets[None, :, :]
    seen = ((around >= 0) & (around < np.array(size_px))).all(axis=-1)
    seen[:, len(offsets) // 2] = True
    corners, place = np.unique(np.concatenate([centres, around[seen]]), axis=0, return_inverse=True)
    corners = corners - tile // 2
    order = np.lexsort((corners[:, 0], corners[:, 1] // BLOCK_PX))  # by bands of blocks, so that few stay in memory
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    own, others = np.split(rank[place.reshape(-1)], [len(centres)])
    neighbor = np.full(seen.shape, OUTSIDE, dtype=np.int64)
    neighbor[seen] = others
    return TilePlan(corners[order], own, neighbor, tile)
