"""Pixels read in blocks."""

from collections import OrderedDict

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from genedml.config import UmPerPx
from genedml.errors import GeneDMLError
from genedml_cli.slides.pixels import WHITE
from genedml_cli.slides.slide import Slide, best_level

COARSEST = 4.0
"""um/px of a slide over those of the views, beyond which they show nothing but enlarged pixels; slides of objectives
from 10x on are within 2."""


BLOCK_PX = 512


Block = tuple[int, int]
"""Column and row of a block of a raster."""


class Raster:
    """A slide resampled to one um/px, as if it were one large image; white beyond its edges.

    Decoded in whole blocks on a fixed lattice and kept in a bounded cache, so that a pixel's value never depends on
    which region asked for it.

    Args:
        slide: the slide.
        um_per_px: of the raster; ``native`` for level-0 pixels, which needs no um/px of the slide.
        cache_bytes: bound of the cache.
        zoom: pixels of that um/px which one of the raster spans.

    Attributes:
        level: of the slide, from which it is resampled.
        level_scale: pixels of that level in one of the raster.
        decoded_px: pixels of that level decoded so far.
    """

    def __init__(self, slide: Slide, um_per_px: UmPerPx, cache_bytes: int = 512 * 2**20, zoom: float = 1.0) -> None:
        self.slide = slide
        self.scale = zoom if um_per_px == "native" else zoom * um_per_px / slide.um_per_px
        if self.scale < 1 / COARSEST:
            raise GeneDMLError(
                f"{slide.path.name} has {slide.um_per_px:.4g} um/px and the model looks at {um_per_px:g}: this is a "
                "thumbnail of a slide. Give the slide at full resolution, and spots in its pixels; or fix the um/px "
                "or the pitch that you said (--um-per-px, --pitch-um, or the sheet's columns)."
            )
        width, height = slide.size_px
        self.size_px = (max(1, int(width / self.scale)), max(1, int(height / self.scale)))
        downsamples = slide.source.downsamples
        self.level = best_level(downsamples, self.scale)
        self.level_scale = self.scale / downsamples[self.level]
        self.decoded_px = 0
        self._cached_blocks = max(4, cache_bytes // (BLOCK_PX * BLOCK_PX * 3))
        self._blocks: OrderedDict[Block, UInt8[np.ndarray, "H W 3"]] = OrderedDict()

    def read(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
        """A region in raster pixels; it may reach over the edges."""
        out = np.full((height, width, 3), WHITE, dtype=np.uint8)
        for block in self.blocks(x, y, width, height):
            pixels = self._cached(block)
            left, top = block[0] * BLOCK_PX - x, block[1] * BLOCK_PX - y
            x0, y0 = max(0, left), max(0, top)
            x1, y1 = min(width, left + pixels.shape[1]), min(height, top + pixels.shape[0])
            if x1 > x0 and y1 > y0:
                out[y0:y1, x0:x1] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def blocks(self, x: int, y: int, width: int, height: int) -> list[Block]:
        """The blocks of a region in raster pixels that are on the slide."""
        last_x, last_y = ((side - 1) // BLOCK_PX for side in self.size_px)
        rows = range(max(0, y // BLOCK_PX), min(last_y, (y + height - 1) // BLOCK_PX) + 1)
        columns = range(max(0, x // BLOCK_PX), min(last_x, (x + width - 1) // BLOCK_PX) + 1)
        return [(column, row) for row in rows for column in columns]

    def decode(self, block: Block) -> UInt8[np.ndarray, "H W 3"]:
        """Pixels of a block on the slide, whether or not they are in the cache; for any thread."""
        width, height = self._block_size(block)
        x0, y0, x1, y1 = self._level_box(block)
        x, y = block[0] * BLOCK_PX * self.level_scale - x0, block[1] * BLOCK_PX * self.level_scale - y0
        region = self.slide.source.read(self.level, x0, y0, x1 - x0, y1 - y0)
        right, bottom = x + width * self.level_scale, y + height * self.level_scale
        inside = (x, y, min(right, region.width), min(bottom, region.height))
        return np.asarray(region.resize((width, height), Image.Resampling.BICUBIC, box=inside))

    def keep(self, block: Block, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        """Put a decoded block into the cache and count it."""
        x0, y0, x1, y1 = self._level_box(block)
        self.decoded_px += (x1 - x0) * (y1 - y0)
        self._blocks[block] = pixels
        while len(self._blocks) > self._cached_blocks:
            self._blocks.popitem(last=False)

    @property
    def cached_bytes(self) -> int:
        """Size of the cache now."""
        return sum(pixels.nbytes for pixels in self._blocks.values())

    def _cached(self, block: Block) -> UInt8[np.ndarray, "H W 3"]:
        if block not in self._blocks:
            self.keep(block, self.decode(block))
        self._blocks.move_to_end(block)
        return self._blocks[block]

    def _block_size(self, block: Block) -> tuple[int, int]:
        width, height = self.size_px
        return min(BLOCK_PX, width - block[0] * BLOCK_PX), min(BLOCK_PX, height - block[1] * BLOCK_PX)

    def _level_box(self, block: Block) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is read for a block, in pixels of the level."""
        scale, (x, y) = self.level_scale, (block[0] * BLOCK_PX, block[1] * BLOCK_PX)
        margin = int(3 * max(1.0, scale)) + 1  # wider than the resampling filter, so that blocks join without a seam
        width, height = self._block_size(block)
        level_width, level_height = self.slide.source.sizes_px[self.level]
        return (
            max(0, int(x * scale) - margin),
            max(0, int(y * scale) - margin),
            min(level_width, int((x + width) * scale) + margin),
            min(level_height, int((y + height) * scale) + margin),
        )
