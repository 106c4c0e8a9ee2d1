"""Where the tissue is on a slide: found on a thumbnail, or as the user says.

Letters: H, W rows and columns of cells; S places. A cell is a pixel of the thumbnail on which tissue is found.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from genedml.errors import GeneDMLError, reading, reason_of
from genedml_cli import console
from genedml_cli.slides.pixels import check_whole
from genedml_cli.slides.regions import REGION_SUFFIXES, draw_polygons, moved, read_regions
from genedml_cli.slides.slide import Slide
from genedml_cli.slides.stain import stained

CELL_UM = 8.0  # a nucleus: what is smaller is texture, not tissue or glass
MAX_CELLS, CELLS_WITHOUT_SCALE = 4096, 1024  # of the longer side
MASK_SUFFIXES = (".png", ".tif", ".tiff")
MASK_FORMATS = ("PNG", "TIFF")
PROPORTIONS_TOLERANCE = 0.01
BEYOND_SCANNED = 0.05  # of the scanned area's side, by which outlines may well be drawn over its edge
PLACES_JUDGED = 10_000
MICROMETRES_MARGIN = 0.3  # outlines drawn for the study may well take in glass, but not by chance the tissue elsewhere


@dataclass(frozen=True)
class Tissue:
    """What of a slide is tissue.

    Args:
        mask: true where it is.
        size_px: width and height of the slide at level 0.
        source: who says so: ``found``, or the name of a file.
    """

    mask: Bool[np.ndarray, "H W"]
    size_px: tuple[int, int]
    source: str

    def holds(self, xy_px: Float[np.ndarray, "S 2"]) -> Bool[np.ndarray, " S"]:
        """Whether places in level-0 pixels are on tissue; beyond the slide there is none."""
        shape_xy = np.array(self.mask.shape[::-1])
        cells = np.floor(xy_px * shape_xy / np.array(self.size_px)).astype(np.int64)
        inside = ((cells >= 0) & (cells < shape_xy)).all(axis=1)
        x, y = cells[inside].T
        on_tissue = np.zeros(len(xy_px), dtype=bool)
        on_tissue[inside] = self.mask[y, x]
        return on_tissue

    @property
    def area_px(self) -> float:
        """Level-0 pixels of tissue."""
        width, height = self.size_px
        return float(self.mask.mean()) * width * height


def find_tissue(slide: Slide) -> Tissue:
    """Tissue as the stain on a thumbnail shows it, gaps closed where no spot fits in and specks dropped; perhaps none.

    Where um/px is unknown a cell is taken to have ``CELL_UM``.
    """
    thumbnail = slide.thumbnail(_cells(slide))
    cell_um = slide.um_per_px * slide.size_px[0] / thumbnail.shape[1] if slide.knows_scale else CELL_UM
    return Tissue(stained(thumbnail, cell_um), slide.size_px, "found")


def read_tissue(path: Path, slide: Slide) -> Tissue:
    """Tissue as a file says: a black and white picture of the slide's proportions, or outlines as QuPath exports them.

    Raises:
        GeneDMLError: neither of these, malformed, of another slide, or without tissue or glass.
    """
    if not path.is_file():
        raise GeneDMLError(f"There is no {path}. Check the path of --tissue: it starts at the current folder.")
    name = path.name.lower()
    if name.endswith(REGION_SUFFIXES):
        mask = _draw_regions(path, slide)
    elif name.endswith(MASK_SUFFIXES):
        mask = _read_mask(path, slide)
    else:
        raise GeneDMLError(
            f"{path} must end with {', '.join((*REGION_SUFFIXES, *MASK_SUFFIXES))}: outlines as QuPath exports them, "
            "or a picture that is black where there is no tissue (a JPEG would blur it)."
        )
    if not mask.any():
        raise GeneDMLError(f"{path} marks no tissue: all of it is black. White, or any colour, is tissue.")
    return Tissue(mask, slide.size_px, path.name)


def _draw_regions(path: Path, slide: Slide) -> Bool[np.ndarray, "H W"]:
    areas = read_regions(path)
    corners = np.concatenate([rings[0] for rings in areas.tissue])
    (left, top), (right, bottom) = (edge(corners, axis=0) for edge in (np.min, np.max))
    origin_px = np.array(_origin_of(path, slide, (right, bottom)), dtype=float)
    width, height = slide.size_px
    scale = _cells(slide) / max(width, height)
    mask = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), dtype=bool)
    ignored = np.zeros_like(mask)
    to_cells = np.array(mask.shape[::-1]) / slide.size_px
    with reading(str(path), "Simplify or merge them."):
        draw_polygons(moved(areas.tissue, origin_px), to_cells, mask)
        draw_polygons(moved(areas.ignored, origin_px), to_cells, ignored)
    fit_as_um = slide.knows_scale and max(right / width, bottom / height) <= slide.um_per_px
    if not mask.any():
        are = "micrometres" if fit_as_um else "of another slide"
        raise GeneDMLError(
            f"No area of {path} lies on {slide.path.name} ({width} x {height} px): they span x {left:.6g}..{right:.6g},"
            f" y {top:.6g}..{bottom:.6g}. Are they {are}? Give level-0 pixels, as QuPath writes them."
        )
    if fit_as_um:
        cells_xy = np.argwhere(mask)[:, ::-1]
        _doubt_pixels(path, slide, (cells_xy[:: 1 + len(cells_xy) // PLACES_JUDGED] + 0.5) / to_cells)
    if not (mask & ~ignored).any():
        raise GeneDMLError(f"The areas of {path} that QuPath ignores (classes with *) cover all its tissue. Fix them.")
    return mask & ~ignored


def _origin_of(path: Path, slide: Slide, furthest_xy: tuple[float, float]) -> tuple[int, int]:
    """Where on the slide the outlines of a file begin to count: at its scanned area, as QuPath does, if they fit it."""
    if slide.scanned is None:
        return 0, 0
    scanned = slide.scanned
    size = f"the scanned area ({scanned.width} x {scanned.height} px at x {scanned.x}, y {scanned.y})"
    beyond = max(furthest_xy[0] - scanned.width, furthest_xy[1] - scanned.height)
    if beyond > BEYOND_SCANNED * max(scanned.width, scanned.height):
        console.warn(
            f"{path.name} has corners beyond {size} of {slide.path.name}, so its x and y are taken from the corner of "
            "the whole canvas, not from that of the scanned area, as QuPath counts. Look at it with --preview."
        )
        return 0, 0
    console.note(f"{path.name}: x and y are counted from {size} of {slide.path.name}, as QuPath does.")
    return scanned.x, scanned.y


def _doubt_pixels(path: Path, slide: Slide, xy_px: Float[np.ndarray, "S 2"]) -> None:
    """Warn where places in outlines are off the tissue that is found, but on it if taken for micrometres."""
    tissue = find_tissue(slide)
    px, um = (float(tissue.holds(places).mean()) for places in (xy_px, xy_px / slide.um_per_px))
    if um - px > MICROMETRES_MARGIN:
        console.warn(
            f"Of the areas of {path.name} {px:.0%} is tissue on {slide.path.name}, but {um:.0%} would be if their "
            "numbers were micrometres. They are taken for level-0 pixels, as QuPath writes them."
        )


def _read_mask(path: Path, slide: Slide) -> Bool[np.ndarray, "H W"]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=MASK_FORMATS) as image:
                image.verify()  # the checksums of a PNG, which decoding passes over
            with Image.open(path, formats=MASK_FORMATS) as image:
                of_scanned = _is_of_scanned_area(image.size, path, slide)
                check_whole(path, image)
                plain = image.mode in ("1", "L", "RGB", "F") or image.mode.startswith("I")
                pixels = np.asarray(image if plain and not image.has_transparency_data else image.convert("RGBA"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise GeneDMLError(f"{path} is larger than a mask need be: save it with about {CELL_UM:g} um/px.") from error
    except GeneDMLError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind on a broken file
        raise GeneDMLError(f"The mask {path} cannot be read: {reason_of(error)}. Save it as an 8-bit PNG.") from error
    colours = pixels if pixels.ndim == 3 else pixels[..., None]
    mask: Bool[np.ndarray, "H W"] = np.all(colours[..., 3:], axis=2) & np.any(colours[..., :3], axis=2)
    if mask.all():
        raise GeneDMLError(f"{path} marks all of the slide as tissue. Is it a mask? Black is where there is none.")
    return _on_canvas(mask, slide) if of_scanned else mask


def _on_canvas(mask: Bool[np.ndarray, "H W"], slide: Slide) -> Bool[np.ndarray, "_ _"]:
    """The mask of a slide's scanned area within one of the whole canvas."""
    assert slide.scanned is not None
    scale = mask.shape[1] / slide.scanned.width
    width, height, left, top = (round(px * scale) for px in (*slide.size_px, slide.scanned.x, slide.scanned.y))
    canvas = np.zeros((height, width), dtype=bool)
    inside = mask[: height - top, : width - left]
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas


def _is_of_scanned_area(size_px: tuple[int, int], path: Path, slide: Slide) -> bool:
    """Whether a mask is of the scanned area, as QuPath writes it, or else of the whole canvas: by its proportions.

    Raises:
        GeneDMLError: it is of neither, or may be of both.
    """
    (width, height), (slide_width, slide_height) = size_px, slide.size_px

    def has_proportions(of_width: int, of_height: int) -> bool:
        expected = width * of_height / of_width
        return abs(height - expected) <= 1 + PROPORTIONS_TOLERANCE * expected

    whole = has_proportions(slide_width, slide_height)
    scanned = slide.scanned is not None and has_proportions(slide.scanned.width, slide.scanned.height)
    if whole and scanned and not _is_nearly_all(slide):
        raise GeneDMLError(
            f"{path} may be of the whole canvas of {slide.path.name}, or of its scanned area, which has the same "
            "proportions. Give outlines as GeoJSON, which QuPath counts from the scanned area."
        )
    if not whole and not scanned:
        expected = width * slide_height / slide_width
        raise GeneDMLError(
            f"{path} has {width} x {height} px, which are not the proportions of {slide.path.name} ({slide_width} x "
            f"{slide_height} px; {width} x {expected:.0f} would be). Draw the mask on the whole slide, not on a part."
        )
    return scanned and not whole


def _is_nearly_all(slide: Slide) -> bool:
    """Whether a mask of the scanned area lies as one of the whole canvas would."""
    assert slide.scanned is not None
    away = np.subtract((*slide.origin_xy, slide.scanned.width, slide.scanned.height), (0, 0, *slide.size_px))
    return bool((np.abs(away) <= PROPORTIONS_TOLERANCE * min(slide.size_px)).all())


def _cells(slide: Slide) -> int:
    if not slide.knows_scale:
        return CELLS_WITHOUT_SCALE
    return min(MAX_CELLS, max(1, round(max(slide.size_px) * slide.um_per_px / CELL_UM)))
