"""Open a slide, know its um/px, read it at another.

Letters: H, W rows and columns of pixels. Coordinates are level-0 pixels, x before y, unless a name says otherwise.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from genedml.errors import GeneDMLError, reason_of
from genedml_cli import console
from genedml_cli.machine.memory import check_memory
from genedml_cli.notes import Mark, Note
from genedml_cli.slides.physical_size import ome_um_per_px
from genedml_cli.slides.pixels import check_pixels, check_upright, on_white
from genedml_cli.slides.pyramids import UM_PER_PX_RANGE, open_pyramid, plausible
from genedml_cli.slides.slide_files import Watched
from genedml_cli.slides.sources import ScannedArea, Source

IMAGE_LIMIT_PX = 2**30
IMAGE_DESCRIPTION = 0x010E
ZARR_FILES = (".zattrs", ".zgroup", "zarr.json")
IMAGE_FORMATS = ("JPEG", "PNG", "TIFF")


THUMBNAIL_BAND_PX = 2**26


class Slide:
    """A slide or section image.

    Args:
        path: the file.
        source: its pixels.
        um_per_px: of level 0; None while it is not known.
        file: watched since before it was opened.

    Attributes:
        notes: what must be said with whatever is made of it.
        um_per_px_from: who says the um/px.
    """

    def __init__(self, path: Path, source: Source, um_per_px: float | None, file: Watched) -> None:
        self.path = path
        self.file = file
        self.source = source
        self.notes: list[Note] = []
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
            text = f"{self.path.name} taken as {value:.4g} um/px, where it says {self._um_per_px:.4g}."
            self.notes.append(Note(Mark.SCALE, text))
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


def open_slide(path: Path, um_per_px: float | None = None) -> Slide:
    """Open anything OpenSlide reads, or a plain JPEG, PNG or TIFF image of a section.

    Args:
        path: the file.
        um_per_px: of level 0, over what the file says.

    Raises:
        GeneDMLError: not there, not an image, broken, or too large to hold in memory as a plain image.
    """
    check_slide_path(path)
    file = Watched(path)
    pyramid = open_pyramid(path, file)
    slide = _open_image(path, file) if pyramid is None else Slide(path, pyramid, pyramid.um_per_px, file)
    if um_per_px is not None:
        slide.set_um_per_px(um_per_px)
    return slide


def check_slide_path(path: Path) -> None:
    """Refuse what is no file, before anything else is done.

    Raises:
        GeneDMLError: not there, or a folder.
    """
    if path.is_dir() and any((path / name).is_file() for name in ZARR_FILES):
        raise GeneDMLError(
            f"{path} is an OME-Zarr folder, which is not read as a slide. Write it as an OME-TIFF pyramid, with "
            "raw2ometiff --rgb if bioformats2raw made it."
        )
    if path.is_dir():
        raise GeneDMLError(f"{path} is a folder, no slide. Name a file in it; for many slides: --slides SHEET.csv.")
    if not path.is_file():
        begins = "" if path.is_absolute() else ": it starts at the current folder"
        raise GeneDMLError(f"There is no slide {path}. Check the path{begins}.")


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
