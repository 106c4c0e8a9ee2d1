"""The um/px that OME-TIFF says in its XML: PhysicalSizeX and Y, each with its unit."""

import html
import math
import re

PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
SIZE = re.compile(r"\b(PhysicalSize[XY](?:Unit)?)\s*=\s*[\"']([^\"']*)[\"']")
MICROMETRES = {"\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
MICROMETRES["\u00c5"] = MICROMETRES["\u212b"] = 1e-4
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
