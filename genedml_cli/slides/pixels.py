"""What kind of pixels an image holds: refused by name unless they are the colours of a stain."""

import logging
import re
from pathlib import Path

import tifffile
from PIL import Image, ImageFile

from genedml.errors import GeneDMLError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is an error of ours

ORIENTATION = 0x0112
UPRIGHT = 1
WHITE = 255
COLOURLESS = {"1": "black and white", "L": "greyscale", "LA": "greyscale"}
TIFF_MODES = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB", 10: "LAB"}
"""Photometric interpretations of TIFF as modes of Pillow."""
GREY = (0, 1)
THREE_CHANNELS = re.compile(r"""<(?:\w+:)?Pixels\b[^>]*\bSizeC=["']3["']""")


def check_pixels(path: Path, image: ImageFile.ImageFile) -> None:
    """Refuse a plain image that is not whole, or whose pixels are not the colours of a stain.

    Raises:
        GeneDMLError: greyscale, 16 bits, inks, several pages, parts that are missing, pixels to be shown turned.
    """
    deep = ";16" in str(getattr(image, "tile", "")) or image.mode.startswith(("I", "F"))
    _check_mode(path, image.mode, deep)
    check_upright(path, image)
    check_whole(path, image)
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise GeneDMLError(
            f"{path} holds {pages} images, and is no pyramid that OpenSlide knows. Export the one meant."
        )


def check_tiff(path: Path, size_px: tuple[int, int]) -> str:
    """Refuse a tiled TIFF by the kind of pixels that its first image says it has; else give its description.

    Args:
        path: the file.
        size_px: of its largest image, which OpenSlide takes for the slide.

    Raises:
        GeneDMLError: its first image is not its largest, greyscale, inks, another colour space, more than 8 bits,
            pixels to be shown turned.
        ValueError, tifffile.TiffFileError: it does not say.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        bits, photometric = int(page.bitspersample), int(page.photometric)
        turned = page.tags.valueof(ORIENTATION, UPRIGHT)
        description = str(page.description)
        first_px = (int(page.imagewidth), int(page.imagelength))
    if first_px != size_px:
        raise GeneDMLError(
            f"{path} holds an image of {size_px[0]} x {size_px[1]} px beside its first of {first_px[0]} x "
            f"{first_px[1]} px: a label or macro? Export the slide anew, its full resolution first."
        )
    if photometric in GREY and THREE_CHANNELS.search(description):
        raise GeneDMLError(
            f"{path} holds three channels as greyscale images of their own. If they are the red, green and blue of "
            "H&E, write them as one: raw2ometiff --rgb."
        )
    mode = TIFF_MODES.get(photometric, f"photometric {photometric}")
    _check_mode(path, "1" if mode == "L" and bits == 1 else mode, deep=bits > 8)
    if bits != 8:
        raise ValueError(f"it has {bits} bits a channel, not 8")
    _check_orientation(path, turned)
    return description


def _check_mode(path: Path, mode: str, deep: bool) -> None:
    if mode in COLOURLESS and not deep:
        raise GeneDMLError(f"{path} is {COLOURLESS[mode]}; H&E needs its colours. Export it as 8-bit RGB.")
    if deep:
        raise GeneDMLError(
            f"{path} has more than 8 bits a channel, without saying how many are used. Export it as 8-bit RGB."
        )
    if mode == "CMYK":
        raise GeneDMLError(f"{path} is CMYK: inks, whose colours depend on a press. Export it as 8-bit RGB.")
    if mode not in ("RGB", "RGBA", "P", "PA", "YCbCr"):
        raise GeneDMLError(f"{path} has pixels of kind {mode}, not 8-bit colour. Export it as 8-bit RGB.")


def check_upright(path: Path, image: Image.Image) -> None:
    """Refuse a plain image that says it is to be shown turned: some say so only behind their pixels, once decoded.

    Raises:
        GeneDMLError: it says so.
    """
    exif = Image.Image.getexif(image)  # that of PNG images would decode them
    _check_orientation(path, exif.get(ORIENTATION, UPRIGHT))


def _check_orientation(path: Path, orientation: int) -> None:
    """Programs differ on whether they turn such pixels, and so on where the spots lie."""
    if orientation != UPRIGHT:
        raise GeneDMLError(
            f"{path} is stored turned or mirrored (EXIF orientation {orientation}), so how x and y of its "
            "spots run is not known. Export it upright, as the spots were placed on it."
        )


def check_whole(path: Path, image: ImageFile.ImageFile) -> None:
    """Refuse an image whose strips or tiles do not cover it; Pillow would leave the rest black.

    Raises:
        GeneDMLError: with how much of it there is.
    """
    boxes = {tile[1] or (0, 0, *image.size) for tile in image.tile}
    held = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if held < image.width * image.height:
        share = held / (image.width * image.height)
        raise GeneDMLError(
            f"{path} says {image.width} x {image.height} px, but holds {share:.0%} of them. Fetch the file again or "
            "export it anew."
        )


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
