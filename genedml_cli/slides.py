"""Open a slide, know its um/px, read it at another.

Letters: H, W rows and columns of pixels. Coordinates are level-0 pixels, x before y, unless a name says otherwise.
"""

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from genedml.config import UmPerPx
from genedml.errors import GeneDMLError, reason_of
from genedml_cli import console
from genedml_cli.memory import check_memory
from genedml_cli.physical_size import ome_um_per_px
from genedml_cli.pixels import check_pixels, check_upright
from genedml_cli.pyramids import UM_PER_PX_RANGE, WHITE, on_white, open_pyramid, plausible
from genedml_cli.slide_files import Watched
from genedml_cli.sources import ScannedArea, Source

IMAGE_LIMIT_PX = 2**30
IMAGE_DESCRIPTION = 0x010E
IMAGE_FORMATS = ("JPEG", "PNG", "TIFF")
COARSEST = 4.0
"""um/px of a slide over those of the views, beyond which they show nothing but enlarged pixels; slides of objectives
from 10x on are within 2."""
BLOCK_PX = 512
THUMBNAIL_BAND_PX = 2**26

Block = tuple[int, int]
"""Column and row of a block of a raster."""


class Slide:
    """A slide or section image.

    Args:
        path: the file.
        source: its pixels.
        um_per_px: of level 0; None while nobody knows it.
        file: watched since before it was opened.

    Attributes:
        notes: what must be said with whatever is made of it.
        um_per_px_from: who says the um/px.
    """

    def __init__(self, path: Path, source: Source, um_per_px: float | None, file: Watched) -> None:
        self.path = path
        self.file = file
        self.source = source
        self.notes: list[str] = []
        self.um_per_px_from = "of the slide"
        self._um_per_px = um_per_px

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of level 0."""
        return self.source.sizes_px[0]

    @property
    def scanned(self) -> ScannedArea | None:
        """What was scanned of a canvas that is larger: of MIRAX, Leica SCN, Ventana, Zeiss; None elsewhere."""
        return self.source.scanned

    @property
    def origin_xy(self) -> tuple[int, int]:
        """The level-0 pixel from which QuPath counts x and y: the corner of the scanned area."""
        return (0, 0) if self.scanned is None else (self.scanned.x, self.scanned.y)

    @property
    def um_per_px(self) -> float:
        """Micrometres of one level-0 pixel.

        Raises:
            GeneDMLError: unknown; it is never guessed.
        """
        if self._um_per_px is None:
            raise GeneDMLError(
                f"{self.path.name} does not say its um/px. Give --um-per-px (from the scanner; of many slides, the "
                "sheet's column um_per_px), or --pitch-um, the distance of neighbouring spots (ST 200, Visium 100), "
                "from which it follows."
            )
        return self._um_per_px

    @property
    def knows_scale(self) -> bool:
        """Whether um/px is known."""
        return self._um_per_px is not None

    def set_um_per_px(self, value: float, source: str = "as given") -> None:
        """Say the um/px of level 0, over what the file says; a difference above 5 % is warned of.

        Raises:
            GeneDMLError: a value that no microscope has.
        """
        low, high = UM_PER_PX_RANGE
        if not low <= value <= high:
            raise GeneDMLError(
                f"{value:g} um/px for {self.path.name} is outside {low:g}..{high:g}, so it is no microscope's. "
                "Check the unit (um, not nm or mm) and that spots are in full-resolution pixels."
            )
        if self._um_per_px is not None and abs(value / self._um_per_px - 1) > 0.05:
            console.warn(f"{self.path.name} says {self._um_per_px:.4g} um/px; taking {value:.4g} as you say.")
            said = f"where it says {self._um_per_px:.4g}"
            self.notes.append(f"SCALE: {self.path.name} taken as {value:.4g} um/px, {said}.")
        self._um_per_px, self.um_per_px_from = value, source

    def thumbnail(self, max_px: int) -> UInt8[np.ndarray, "H W 3"]:
        """The whole slide with its longer side at most ``max_px``."""
        width, height = self.size_px
        scale = max(width, height) / min(max_px, max(width, height))
        size = (max(1, round(width / scale)), max(1, round(height / scale)))
        level = best_level(self.source.downsamples, scale)
        level_width, level_height = self.source.sizes_px[level]
        step = level_height / size[1]
        rows = max(1, int(THUMBNAIL_BAND_PX / (level_width * step)))
        bands = []
        for top in range(0, size[1], rows):
            bottom = min(top + rows, size[1])
            y0, y1 = int(top * step), min(level_height, max(int(top * step) + 1, round(bottom * step)))
            band = self.source.read(level, 0, y0, level_width, y1 - y0)
            bands.append(np.asarray(band.resize((size[0], bottom - top), Image.Resampling.BOX, reducing_gap=2.0)))
        return np.concatenate(bands)

    def close(self) -> None:
        """Let go of the file."""
        self.source.close()

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Raster:
    """A slide resampled to one um/px, as if it were one large image; white beyond its edges.

    Decoded in whole blocks on a fixed lattice and kept in a bounded cache, so that a pixel's value never depends on
    which region asked for it.

    Args:
        slide: the slide.
        um_per_px: of the raster; ``native`` for level-0 pixels, which needs no um/px of the slide.
        cache_bytes: bound of the cache.

    Attributes:
        level: of the slide, from which it is resampled.
        level_scale: pixels of that level in one of the raster.
        decoded_px: pixels of that level decoded so far.
    """

    def __init__(self, slide: Slide, um_per_px: UmPerPx, cache_bytes: int = 512 * 2**20) -> None:
        self.slide = slide
        self.scale = 1.0 if um_per_px == "native" else um_per_px / slide.um_per_px
        if self.scale < 1 / COARSEST:
            raise GeneDMLError(
                f"{slide.path.name} has {slide.um_per_px:.4g} um/px and the model looks at {um_per_px:g}: this is a "
                "thumbnail of a slide. Give the slide at full resolution, and spots in its pixels; or mend the um/px "
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


def open_slide(path: Path, um_per_px: float | None = None) -> Slide:
    """Open anything OpenSlide reads, or a plain JPEG, PNG or TIFF image of a section.

    Args:
        path: the file.
        um_per_px: of level 0, over what the file says.

    Raises:
        GeneDMLError: not there, not an image, broken, or too large to hold in memory as a plain image.
    """
    if path.is_dir():
        raise GeneDMLError(f"{path} is a folder, no slide. Name a file in it; for many slides: --slides SHEET.csv.")
    if not path.is_file():
        begins = "" if path.is_absolute() else ": it starts at the current folder"
        raise GeneDMLError(f"There is no slide {path}. Check the path{begins}.")
    file = Watched(path)
    pyramid = open_pyramid(path, file)
    slide = _open_image(path, file) if pyramid is None else Slide(path, pyramid, pyramid.um_per_px, file)
    if um_per_px is not None:
        slide.set_um_per_px(um_per_px)
    return slide


def best_level(downsamples: tuple[float, ...], scale: float) -> int:
    """The coarsest level that is still at least as fine as ``scale`` level-0 pixels a pixel."""
    return max((level for level, down in enumerate(downsamples) if down <= scale * 1.001), default=0)


class _Plain(Source):
    downsamples = (1.0,)

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.sizes_px = (image.size,)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        return self._image.crop((x, y, x + width, y + height))

    def close(self) -> None:
        self._image.close()


def _open_image(path: Path, file: Watched) -> Slide:
    try:
        with _no_pixel_limit(), Image.open(path, formats=IMAGE_FORMATS) as image:
            image.verify()  # the checksums of a PNG, which decoding passes over
        with _no_pixel_limit(), Image.open(path, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > IMAGE_LIMIT_PX:
                raise GeneDMLError(
                    f"{path} has {width} x {height} px, too many for a plain image. Convert it to a tiled pyramidal "
                    f"TIFF, for example with: vips tiffsave {path.name} slide.tif --tile --pyramid --compression jpeg"
                )
            check_pixels(path, image)
            check_memory(12 * width * height)  # decoded, composited on white, and copied
            pixels = on_white(image)
            check_upright(path, image.crop((0, 0, 1, 1)))  # a part knows what is said behind the pixels, too
            description = str(getattr(image, "tag_v2", {}).get(IMAGE_DESCRIPTION, ""))
            return Slide(path, _Plain(pixels), plausible(path, ome_um_per_px(description) or ()), file)
    except UnidentifiedImageError as error:
        raise GeneDMLError(
            f"{path} is no slide that OpenSlide knows, and no JPEG, PNG or TIFF image. Check the file; if it was one, "
            f"it is cut short or damaged (it has {path.stat().st_size:,} bytes): copy it again."
        ) from error
    except GeneDMLError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind on a broken file
        raise GeneDMLError(
            f"The image {path} is broken: {reason_of(error)}. Fetch the file again or export it anew."
        ) from error


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    # Pillow's limit is below the size of an ST section; IMAGE_LIMIT_PX is checked before a pixel is decoded.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings(action="ignore"):  # what is wrong with a file is an error of ours, or nothing
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
