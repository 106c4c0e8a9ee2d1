"""The um/px that OME-TIFF says in its XML: PhysicalSizeX and Y, each with its unit."""

import html
import math
import re

PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
SIZE = re.compile(r"\b(PhysicalSize[XY](?:Unit)?)\s*=\s*[\"']([^\"']*)[\"']")
METRES = {
    "p": -12,
    "n": -9,
    "u": -6,
    "\u00b5": -6,
    "\u03bc": -6,
    "m": -3,
    "c": -2,
    "d": -1,
    "": 0,
    "da": 1,
    "h": 2,
    "k": 3,
}
MICROMETRES = {f"{prefix}m": 10.0 ** (power + 6) for prefix, power in METRES.items()}
MICROMETRES |= {"micron": 1.0, "\u00c5": 1e-4, "\u212b": 1e-4, "thou": 25.4, "in": 25_400.0, "pt": 25_400 / 72}
MICROMETRE = "\u00b5m"  # where no unit is given, as OME's schema says


def ome_um_per_px(description: str) -> tuple[float, float] | None:
    """Micrometres of a pixel across and down, of the first image that a TIFF's description tells of.

    Returns:
        None where it says nothing; NaN of a unit that is no length, as ``pixel``.

    Raises:
        ValueError: a size that is no number.
    """
    pixels = PIXELS.search(description)
    sizes = dict(SIZE.findall(html.unescape(pixels[1]))) if pixels else {}
    if "PhysicalSizeX" not in sizes:
        return None
    across = _micrometres(sizes["PhysicalSizeX"], sizes.get("PhysicalSizeXUnit", MICROMETRE))
    if "PhysicalSizeY" not in sizes:
        return across, across
    return across, _micrometres(sizes["PhysicalSizeY"], sizes.get("PhysicalSizeYUnit", MICROMETRE))


def _micrometres(size: str, unit: str) -> float:
    return float(size) * MICROMETRES.get(unit.strip(), math.nan)
