"""OME-TIFF says um/px with a unit; a unit that is no length, or pixels that are not square, are no um/px."""

import numpy as np
import pytest
import tifffile

from genedml_cli.slides.slide import open_slide

PIXELS = '<?xml version="1.0"?><OME><Image ID="Image:0"><Pixels ID="P" SizeX="256" {}/></Image></OME>'


def write_ome(path, sizes, **layout):
    tifffile.imwrite(
        path,
        np.full((256, 256, 3), 99, np.uint8),
        photometric="rgb",
        description=PIXELS.format(sizes).encode(),
        resolution=(72, 72),
        resolutionunit="INCH",
        metadata=None,
        **layout,
    )
    return path


@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {}], ids=["tiled", "plain"])
@pytest.mark.parametrize(
    ("sizes", "um_per_px"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5"', 0.5),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="um" PhysicalSizeY="0.5" PhysicalSizeYUnit="um"', 0.5),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="500" PhysicalSizeYUnit="nm"', 0.5),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm"', 0.25),
        ('PhysicalSizeX="0.0005" PhysicalSizeXUnit="mm" PhysicalSizeY="0.0005" PhysicalSizeYUnit="mm"', 0.5),
        ('PhysicalSizeX="5e-5" PhysicalSizeXUnit="cm" PhysicalSizeY="5e-5" PhysicalSizeYUnit="cm"', 0.5),
        ('PhysicalSizeX="5000" PhysicalSizeXUnit="&#8491;" PhysicalSizeY="5e5" PhysicalSizeYUnit="pm"', 0.5),
        ('PhysicalSizeX="0.02" PhysicalSizeXUnit="thou" PhysicalSizeY="2e-5" PhysicalSizeYUnit="in"', 0.508),
        ('PhysicalSizeX="5e-7" PhysicalSizeXUnit="m" PhysicalSizeY="5e-10" PhysicalSizeYUnit="km"', 0.5),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="0.5" PhysicalSizeY="1.0"', None),
        ('PhysicalSizeX="352.8" PhysicalSizeY="352.8"', None),
        ("", None),
    ],
)
def test_um_per_px_of_ome_tiff_has_its_unit(tmp_path, sizes, um_per_px, layout):
    with open_slide(write_ome(tmp_path / "slide.ome.tif", sizes, **layout)) as slide:
        assert slide.knows_scale == (um_per_px is not None)
        assert um_per_px is None or slide.um_per_px == pytest.approx(um_per_px)
