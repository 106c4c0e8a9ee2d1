"""Pyramids of TIFF whose coarser levels are sub-images (SubIFDs), as OME-TIFF has them. OpenSlide sees only level 0.

Letters: H, W rows and columns of pixels; C samples of a pixel.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, RESUNIT, TiffPage

from genedml_cli.slides.physical_size import ome_um_per_px
from genedml_cli.slides.pixels import WHITE, check_tiff, on_white
from genedml_cli.slides.slide_files import Watched
from genedml_cli.slides.sources import Levels, Size

CACHE_BYTES = 2**26
"""Of decoded tiles, as neighbouring regions share those at their edges."""


def has_sub_images(path: Path) -> bool:
    """Whether a TIFF of colours has sub-images.

    Raises:
        ValueError, tifffile.TiffFileError: it does not say.
    """
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return bool(page.subifds) and _is_colour(page)


class SubImages(Levels):
    """The first image of a TIFF and its sub-images, read tile by tile.

    Args:
        path: the file.
        file: the same, watched since before it was opened.

    Raises:
        ValueError, tifffile.TiffFileError: its images are not all of one kind, or it is no TIFF.
    """

    def __init__(self, path: Path, file: Watched) -> None:
        self._tiff = tifffile.TiffFile(path)
        first = self._tiff.pages.first
        self._pages = [first, *sorted(first.pages, key=lambda page: -page.imagewidth)]
        for number, page in enumerate(self._pages):
            if not _is_colour(page) or page.samplesperpixel != first.samplesperpixel:
                raise ValueError(f"its level {number} has pixels of another kind than its first")
            if min(page.imagewidth, page.imagelength, *page.chunks) < 1:
                raise ValueError(f"its level {number} says {page.imagewidth} x {page.imagelength} px")
        sizes_px = [(page.imagewidth, page.imagelength) for page in self._pages]
        whole = np.array(sizes_px[0])
        super().__init__(path, file, sizes_px, [float((whole / size).mean()) for size in sizes_px])
        self._lock = Lock()
        tile_bytes = max(width * height for width, height in self.tiles_px()) * first.samplesperpixel
        self._tile = lru_cache(max(1, CACHE_BYTES // tile_bytes))(self._decode)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        page = self._pages[self.numbers[level]]
        columns, rows = self.tiles_px()[self.numbers[level]]
        right, lower = min(x + width, page.imagewidth), min(y + height, page.imagelength)
        region = np.full((height, width, page.samplesperpixel), WHITE, np.uint8)
        try:
            for top in range(y // rows * rows, lower, rows):
                for left in range(x // columns * columns, right, columns):
                    x0, y0, x1, y1 = max(x, left), max(y, top), min(right, left + columns), min(lower, top + rows)
                    tile = self._tile(self.numbers[level], top // rows, left // columns)
                    region[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        except Exception as error:  # tifffile and its decoders raise nearly every kind on a broken file
            raise self.damaged(level, x, y, error) from error
        return on_white(Image.fromarray(region))

    def close(self) -> None:
        self._tiff.close()

    def tiles_px(self) -> Sequence[Size]:
        return [(page.chunks[1], page.chunks[0]) for page in self._pages]

    def said_um_per_px(self) -> Sequence[float]:
        description = check_tiff(self.path, max(self.sizes_px))
        page = self._pages[0]
        measured = page.resolutionunit in (RESUNIT.INCH, RESUNIT.CENTIMETER)
        by_tags = [1 / density for density in page.get_resolution(RESUNIT.MICROMETER)] if measured else []
        return ome_um_per_px(description) or by_tags

    def _decode(self, number: int, row: int, column: int) -> UInt8[np.ndarray, "H W C"]:
        """A tile, or strip, of a level; white where the file leaves it out."""
        page = self._pages[number]
        down, across = page.chunked[-3:-1] if _is_interleaved(page) else page.chunked[1:3]
        planes = [0] if _is_interleaved(page) else range(page.samplesperpixel)
        samples = []
        for plane in planes:
            index = (plane * down + row) * across + column
            with self._lock:
                length = page.databytecounts[index]
                self._tiff.filehandle.seek(page.dataoffsets[index])
                content = self._tiff.filehandle.read(length)
            tile, _, shape = page.decode(content if length else None, index, jpegtables=page.jpegtables)
            samples.append(np.full(shape[1:], WHITE, np.uint8) if tile is None else tile[0])
        return np.concatenate(samples, axis=-1)


def _is_interleaved(page: TiffPage) -> bool:
    return page.planarconfig == PLANARCONFIG.CONTIG


def _is_colour(page: TiffPage) -> bool:
    """Whether tifffile makes of it red, green and blue of 8 bits, perhaps with transparency."""
    is_jpeg = page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG
    colours = page.photometric == PHOTOMETRIC.RGB or is_jpeg
    is_flat = page.imagedepth == page.tiledepth == 1
    return colours and is_flat and page.dtype == np.uint8 and page.samplesperpixel in (3, 4)
