"""Tiles of a raster, decoded in threads ahead of whoever reads them.

Letters: U tiles of a plan, N some of them, H and W their side.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from jaxtyping import Int, UInt8

from genedml_cli.slides.raster import Block, Raster

READERS = min(32, os.cpu_count() or 1)
"""UNI on a GPU asks for some 160 million pixels of the views a second (examples/benchmark.md)."""
AHEAD_OF_EACH = 4
"""Blocks decoded ahead by each reader: all that is held beyond the raster's cache."""


class _Ahead:
    """The blocks that will be needed, each once, in the order of their first use."""

    def __init__(self, raster: Raster, wanted: Iterator[Block], pool: ThreadPoolExecutor, limit: int) -> None:
        self._raster = raster
        self._wanted = wanted
        self._pool = pool
        self._limit = limit
        self._coming: dict[Block, Future[UInt8[np.ndarray, "H W 3"]]] = {}
        self._go_on()

    def fetch(self, block: Block) -> None:
        """Put a block into the raster's cache, and those before it."""
        while block in self._coming:
            first = next(iter(self._coming))
            self._raster.keep(first, self._coming.pop(first).result())
            self._go_on()

    def _go_on(self) -> None:
        for future in self._coming.values():
            if future.done():
                future.result()  # an error far ahead is raised now, not when its block is needed
        while len(self._coming) < self._limit:
            block = next(self._wanted, None)
            if block is None:
                return
            self._coming[block] = self._pool.submit(self._raster.decode, block)


@contextmanager
def reading_ahead(
    raster: Raster, corners_xy: Int[np.ndarray, "U 2"], tile_px: int, readers: int = READERS, first: int = 0
) -> Iterator[Callable[[slice], UInt8[np.ndarray, "N H W 3"]]]:
    """Yield what gives some tiles of a plan; to be asked for them in the order of the plan.

    Args:
        raster: to read from.
        corners_xy: left upper corner of every tile, in raster pixels.
        tile_px: side of a tile.
        first: the first tile that will be asked for.
        readers: threads; they end with the block, whatever ends it.

    Raises:
        GeneDMLError: what a thread met, or that the slide is another by now, at the next tile that is asked for; the
            latter also at the end of the block.
    """
    corners = corners_xy.tolist()
    wanted = dict.fromkeys(block for x, y in corners[first:] for block in raster.blocks(x, y, tile_px, tile_px))
    pool = ThreadPoolExecutor(readers, "reader")

    try:
        ahead = _Ahead(raster, iter(wanted), pool, AHEAD_OF_EACH * readers)

        def read(places: slice) -> UInt8[np.ndarray, "N H W 3"]:
            raster.slide.file.check()
            tiles = np.empty((len(corners[places]), tile_px, tile_px, 3), np.uint8)
            for tile, (x, y) in zip(tiles, corners[places], strict=True):
                for block in raster.blocks(x, y, tile_px, tile_px):
                    ahead.fetch(block)
                tile[:] = raster.read(x, y, tile_px, tile_px)
            return tiles

        yield read
        raster.slide.file.check()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
