"""A slide whose scanned area is a part of its canvas, as Leica's SCN, MIRAX and Ventana have it."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

DIMENSION = '<dimension sizeX="{}" sizeY="{}" r="{}" ifd="{}"/>'
IMAGE = """<image name="{name}" uuid="urn:uuid:{name}"><creationDate>2024-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400" version="1"/><pixels sizeX="{width}" sizeY="{height}">{dimensions}</pixels>
<view sizeX="{view[2]}" sizeY="{view[3]}" offsetX="{view[0]}" offsetY="{view[1]}" spacingZ="0"/><scanSettings>
<objectiveSettings><objective>{objective}</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image>"""
COLLECTION = """<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c"
uuid="urn:uuid:c" sizeX="{}" sizeY="{}"><barcode>MQ==</barcode>{}</collection></scn>"""


def write_leica(
    path: Path, scanned: Image.Image, at_xy: tuple[int, int], canvas: tuple[int, int], um_per_px: float
) -> None:
    """A Leica SCN of two levels, whose scanned area lies at ``at_xy`` of its canvas."""
    nm = um_per_px * 1000
    levels = [scanned, scanned.reduce(2)]
    macro = Image.new("RGB", (canvas[0] // 5, canvas[1] // 5), "white")
    (width, height), whole_nm = scanned.size, tuple(int(side * nm) for side in canvas)
    view = tuple(int(px * nm) for px in (*at_xy, width, height))
    of_macro = IMAGE.format(
        name="macro",
        width=macro.width,
        height=macro.height,
        dimensions=DIMENSION.format(*macro.size, 0, 0),
        view=(0, 0, *whole_nm),
        objective=0.6,
    )
    dimensions = "".join(DIMENSION.format(*level.size, r, r + 1) for r, level in enumerate(levels))
    of_scan = IMAGE.format(name="scan", width=width, height=height, dimensions=dimensions, view=view, objective=20)
    settings: dict = {"photometric": "rgb", "tile": (256, 256), "metadata": None, "software": False}
    settings |= {"resolution": (1e4 / um_per_px, 1e4 / um_per_px), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        description = COLLECTION.format(*whole_nm, of_macro + of_scan)
        writer.write(np.asarray(macro), description=description, **settings)
        for level in levels:
            writer.write(np.asarray(level), subfiletype=int(level is not scanned), **settings)
