"""What to read and what to encode for a list of spots.

Letters: S spots, P tiles of the neighbor grid (25), U distinct tiles. Positions are raster pixels (see
:class:`genedml_cli.slides.Raster`): integers at the model's um/px.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from genedml.config import ViewsConfig
from genedml_cli.slides import BLOCK_PX

OUTSIDE = -1


@dataclass(frozen=True)
class TilePlan:
    """Every distinct tile once, in scan order, and which of them each spot sees.

    Args:
        corners_xy: left upper corner of every tile.
        neighbor: tile at each place of each spot's grid, row by row; -1 where the tile's centre is off the slide.
        tile_px: side of a tile.
    """

    corners_xy: Int[np.ndarray, "U 2"]
    neighbor: Int[np.ndarray, "S P"]
    tile_px: int

    @property
    def local(self) -> Int[np.ndarray, " S"]:
        """The tile that each spot stands in the middle of: the centre of its grid."""
        return self.neighbor[:, self.neighbor.shape[1] // 2]


def plan_tiles(xy_px: Float[np.ndarray, "S 2"], scale: float, size_px: tuple[int, int], views: ViewsConfig) -> TilePlan:
    """Plan the tiles around spots.

    Args:
        xy_px: spot centres in level-0 pixels, on the slide.
        scale: level-0 pixels of one raster pixel.
        size_px: width and height of the raster.
        views: tile size and grid.
    """
    tile, side = views.tile_px, views.neighbor_grid
    centres = np.rint(xy_px / scale).astype(np.int64)
    centres = np.minimum(centres, np.array(size_px) - 1)
    steps = (np.arange(side) - side // 2) * tile
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    tiles = centres[:, None, :] + offsets[None, :, :]
    inside = ((tiles >= 0) & (tiles < np.array(size_px))).all(axis=-1)
    corners = tiles - tile // 2
    distinct, place = np.unique(corners[inside], axis=0, return_inverse=True)
    order = np.lexsort((distinct[:, 0], distinct[:, 1] // BLOCK_PX))  # by bands of blocks, so that few stay in memory
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    neighbor = np.full(inside.shape, OUTSIDE, dtype=np.int64)
    neighbor[inside] = rank[place.reshape(-1)]
    return TilePlan(distinct[order], neighbor, tile)
