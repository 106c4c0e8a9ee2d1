"""Pixels of slide files at several levels, and what the files say of them. The only module that knows OpenSlide.

Coordinates are pixels of a level, x before y.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

import openslide
from PIL import Image

from genedml.errors import GeneDMLError, reading, reason_of
from genedml_cli import console
from genedml_cli.slides.levels import why_not
from genedml_cli.slides.physical_size import ome_um_per_px
from genedml_cli.slides.pixels import check_tiff
from genedml_cli.slides.slide_files import Watched
from genedml_cli.slides.sources import ScannedArea, Source

SLIDE_LIMIT_PX = 500_000  # of a side; the largest scans have some 300,000
TILE_LIMIT_PX = 2**28  # 1 GiB when decoded; scanners write 2^16 or so
SIDES = ("width", "height")
UM_PER_PX_RANGE = (0.05, 20.0)
SQUARE_TOLERANCE = 0.05  # by which um/px of x and y may differ
WHITE = 255


class Pyramid(Source):
    """The levels of a slide that OpenSlide reads."""

    um_per_px: float | None = None
    """Of level 0, as the file says."""

    def __init__(self, slide: openslide.OpenSlide, path: Path, file: Watched) -> None:
        self._slide = slide
        self._path = path
        self._file = file
        self.scanned = _scanned(slide)
        self.use_levels(range(slide.level_count))

    def use_levels(self, numbers: Sequence[int]) -> None:
        """Take these of OpenSlide's levels for those of the slide."""
        self._numbers = tuple(numbers)
        self.downsamples = tuple(self._slide.level_downsamples[number] for number in numbers)
        self.sizes_px = tuple(self._slide.level_dimensions[number] for number in numbers)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        down = self.downsamples[level]
        try:
            region = self._slide.read_region((round(x * down), round(y * down)), self._numbers[level], (width, height))
        except Exception as error:
            self._file.check()
            raise GeneDMLError(
                f"{self._path} is damaged at x {x * down:.0f}, y {y * down:.0f}: {reason_of(error)}. Fetch the file "
                "again."
            ) from error
        return on_white(region)

    def close(self) -> None:
        self._slide.close()


def open_pyramid(path: Path, file: Watched) -> Pyramid | None:
    """A slide that OpenSlide knows; None if it does not.

    Args:
        path: the file.
        file: the same, watched since before it was opened.

    Raises:
        GeneDMLError: broken, of no scanner's size, or whose pixels are not the colours of a stain.
    """
    with reading(f"As OpenSlide says, {path}", "Fetch the file again or export it anew."):
        if openslide.OpenSlide.detect_format(path) is None:
            return None
        slide = openslide.OpenSlide(path)
        pyramid = Pyramid(slide, path, file)
        keys = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
        um_per_px: Sequence[float] = [float(slide.properties[key]) for key in keys if key in slide.properties]
        width, height = pyramid.sizes_px[0]
        if max(width, height) > SLIDE_LIMIT_PX:
            raise ValueError(f"it says {width} x {height} px, larger than any scan")
        _check_tiles(slide)
        if slide.properties.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff":
            # what scanners write is in colour; here libtiff makes 8-bit RGB of anything
            description = check_tiff(path, slide.dimensions)
            um_per_px = ome_um_per_px(description) or um_per_px
    pyramid.use_levels(_levels_to_use(path, file))
    pyramid.um_per_px = plausible(path, um_per_px)
    return pyramid


@cache
def _levels_to_use(path: Path, file: Watched) -> tuple[int, ...]:
    """Numbers of the levels that show what level 0 shows; a warning names those that are passed over.

    With a handle of its own, as OpenSlide reads nothing more after one damaged tile.
    """
    with closing(Pyramid(openslide.OpenSlide(path), path, file)) as pyramid:
        used = [0]
        for level in range(1, len(pyramid.sizes_px)):
            try:
                reason = why_not(pyramid, used[-1], level)
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


def _check_tiles(slide: openslide.OpenSlide) -> None:
    """OpenSlide takes memory for a whole tile at once, and ends the process where there is none."""
    for level in range(slide.level_count):
        width, height = (int(slide.properties.get(f"openslide.level[{level}].tile-{side}", 0)) for side in SIDES)
        if width * height > TILE_LIMIT_PX:
            raise ValueError(f"it says {width} x {height} px for one tile, larger than any scanner's")


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


def on_white(image: Image.Image) -> Image.Image:
    """An image in memory, in colours, with white where it is transparent."""
    if image.mode == "RGB":
        image.load()
        return image.copy()
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (WHITE, WHITE):
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
    return Image.alpha_composite(background, image).convert("RGB")
