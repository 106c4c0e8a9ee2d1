"""Pixels of slide files at several levels, and what the files say of them. The only module that knows OpenSlide.

Coordinates are pixels of a level, x before y.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

import openslide
from PIL import Image

from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.slides.levels import why_not
from genedml_cli.slides.physical_size import ome_um_per_px
from genedml_cli.slides.pixels import check_tiff, on_white
from genedml_cli.slides.slide_files import Watched
from genedml_cli.slides.sources import Levels, ScannedArea, Size
from genedml_cli.slides.sub_images import SubImages, has_sub_images

SLIDE_LIMIT_PX = 500_000  # of a side; the largest scans have some 300,000
TILE_LIMIT_PX = 2**28  # 1 GiB when decoded; scanners write 2^16 or so
SIDES = ("width", "height")
ANY_TIFF = "generic-tiff"
"""OpenSlide's name for tiled TIFF of no scanner that it knows."""
CZI_FIX = "Fetch the file again, or convert it: bfconvert FILE.czi slide.ome.tiff (Bio-Formats)."
UM_PER_PX_RANGE = (0.05, 20.0)
SQUARE_TOLERANCE = 0.05  # by which um/px of x and y may differ


class Pyramid(Levels):
    """The levels of a slide that OpenSlide reads."""

    def __init__(self, path: Path, file: Watched) -> None:
        self._slide = slide = openslide.OpenSlide(path)
        super().__init__(path, file, slide.level_dimensions, slide.level_downsamples)
        self.scanned = _scanned(slide)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        down = self.downsamples[level]
        try:
            region = self._slide.read_region((round(x * down), round(y * down)), self.numbers[level], (width, height))
        except Exception as error:
            raise self.damaged(level, x, y, error) from error
        return on_white(region)

    def close(self) -> None:
        self._slide.close()

    def tiles_px(self) -> Sequence[Size]:
        said = self._slide.properties
        sides = [
            [int(said.get(f"openslide.level[{level}].tile-{side}", 0)) for side in SIDES] for level in self.numbers
        ]
        return [(width, height) for width, height in sides]

    def said_um_per_px(self) -> Sequence[float]:
        said = self._slide.properties
        keys = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
        um_per_px = [float(said[key]) for key in keys if key in said]
        if said.get(openslide.PROPERTY_NAME_VENDOR) != ANY_TIFF:
            return um_per_px  # what scanners write is in colour; of any other TIFF libtiff makes 8-bit RGB
        return ome_um_per_px(check_tiff(self.path, self._slide.dimensions)) or um_per_px


def open_pyramid(path: Path, file: Watched) -> Levels | None:
    """A slide that OpenSlide knows; None if it does not.

    Args:
        path: the file.
        file: the same, watched since before it was opened.

    Raises:
        GeneDMLError: broken, of no scanner's size, or whose pixels are not the colours of a stain.
    """
    with reading(str(path), CZI_FIX if path.suffix.lower() == ".czi" else "Fetch the file again or export it anew."):
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor is None:
            return None
        kind: type[Pyramid | SubImages] = SubImages if vendor == ANY_TIFF and has_sub_images(path) else Pyramid
        levels = kind(path, file)
        width, height = levels.sizes_px[0]
        if max(width, height) > SLIDE_LIMIT_PX:
            raise ValueError(f"it says {width} x {height} px, larger than any scan")
        # OpenSlide and tifffile take memory for a whole tile at once; the former ends the process where there is none.
        for width, height in levels.tiles_px():
            if width * height > TILE_LIMIT_PX:
                raise ValueError(f"it says {width} x {height} px for one tile, larger than any scanner's")
        um_per_px = levels.said_um_per_px()
    levels.use_levels(_levels_to_use(kind, path, file))
    levels.um_per_px = plausible(path, um_per_px)
    return levels


@cache
def _levels_to_use(kind: type[Pyramid | SubImages], path: Path, file: Watched) -> tuple[int, ...]:
    """Numbers of the levels that show what level 0 shows; a warning names those that are passed over.

    With a handle of its own, as OpenSlide reads nothing more after one damaged tile.
    """
    with closing(kind(path, file)) as levels:
        used = [0]
        for level in range(1, len(levels.sizes_px)):
            try:
                reason = why_not(levels, used[-1], level)
            except GeneDMLError:  # damaged; to be said when what is damaged is needed
                reason = ""
            if not reason:
                used.append(level)
                continue
            console.warn(
                f"Level {level} of {path.name} is passed over: {reason}. Finer levels are read in its place, which "
                "takes longer. Predictions may differ a little from those with a sound level, as each level is "
                "resampled and compressed by itself."
            )
        return tuple(used)


def _scanned(slide: openslide.OpenSlide) -> ScannedArea | None:
    """The scanned area, where OpenSlide says it as QuPath needs it: by four whole numbers."""
    keys = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    values = [slide.properties.get(key, "") for key in keys]
    if not all(value.removeprefix("-").isdecimal() for value in values):
        return None
    area = ScannedArea(*(int(value) for value in values))
    whole = ScannedArea(0, 0, *slide.dimensions)
    return None if area == whole or min(area.width, area.height) < 1 else area


def plausible(path: Path, um_per_px: Sequence[float]) -> float | None:
    """The mean of um/px across and down, where both are there and as a microscope has them; else None.

    Image programs write 72 dpi and the like where nothing was measured; such a value is no um/px.
    """
    if len(um_per_px) != 2:
        return None
    x, y = um_per_px
    mean = (x + y) / 2
    low, high = UM_PER_PX_RANGE
    if abs(x - y) > SQUARE_TOLERANCE * mean:
        console.warn(f"{path.name} says {x:.4g} x {y:.4g} um/px, so its pixels are not square: taken as not known.")
        return None
    return mean if low <= mean <= high else None
