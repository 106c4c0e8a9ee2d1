"""Pyramids of OME-TIFF, whose levels are sub-images: they give what a plain pyramid of the same levels gives."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_levels import UM_PER_PX, scaled, spots_and_tissue, write_levels
from test_levels import section as section  # a fixture

from genedml.errors import GeneDMLError
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.slide import open_slide


def write_ome(path: Path, levels: list[Image.Image], separate: bool = False, bigtiff: bool = False, **settings) -> Path:
    """Level 0 as the first image of an OME-TIFF of ``UM_PER_PX``, the others as sub-images of it."""
    unit = {"PhysicalSizeX": UM_PER_PX * 1000, "PhysicalSizeXUnit": "nm"}
    unit |= {"PhysicalSizeY": UM_PER_PX / 1000, "PhysicalSizeYUnit": "mm"}
    order = np.s_[...] if not separate else (2, 0, 1)
    settings = {
        "photometric": "rgb",
        "tile": (128, 256),
        "planarconfig": "separate" if separate else "contig",
    } | settings
    with tifffile.TiffWriter(path, ome=True, bigtiff=bigtiff) as writer:
        for number, level in enumerate(levels):
            pixels = np.asarray(level)
            writer.write(
                pixels.transpose(order) if separate else pixels,
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=int(number > 0),
                metadata={"axes": "CYX" if separate else "YXS", **unit} if number == 0 else None,
                **settings,
            )
    return path


def pyramid_of(image: Image.Image) -> list[Image.Image]:
    """Three levels with whole factors, between whose pixels OpenSlide has nothing to interpolate."""
    image = image.crop((0, 0, 1400, 1000))
    return [image, scaled(image, 2), scaled(image, 8)]


KINDS = {
    "interleaved": {},
    "planar": {"separate": True},
    "zlib": {"compression": "zlib", "predictor": True},
    "LZW, planar, BigTIFF": {"compression": "lzw", "separate": True, "bigtiff": True},
    "JPEG 2000": {"compression": "jpeg2000", "compressionargs": {"level": 0}},  # which OpenSlide does not read
}


@pytest.mark.parametrize("kind", KINDS)
def test_sub_images_give_the_pixels_of_a_plain_pyramid(section, tmp_path, kind):
    levels = pyramid_of(section)
    plain = write_levels(tmp_path / "plain.tif", *levels)
    with (
        open_slide(write_ome(tmp_path / "slide.ome.tif", levels, **KINDS[kind])) as slide,
        open_slide(plain, UM_PER_PX) as reference,
    ):
        assert slide.um_per_px == pytest.approx(UM_PER_PX)
        assert (slide.size_px, slide.source.sizes_px) == (reference.size_px, reference.source.sizes_px)
        assert slide.source.downsamples == pytest.approx(reference.source.downsamples)
        for level, um_per_px in enumerate((UM_PER_PX, 2.2 * UM_PER_PX, 8.5 * UM_PER_PX)):
            raster, expected = Raster(slide, um_per_px), Raster(reference, um_per_px)
            assert raster.level == level
            width, height = raster.size_px
            box = (-9, 3, width + 20, height)
            np.testing.assert_array_equal(raster.read(*box), expected.read(*box))
        np.testing.assert_array_equal(slide.thumbnail(150), reference.thumbnail(150))


def test_jpeg_of_sub_images_is_that_of_openslide(section, tmp_path):
    levels = pyramid_of(section)
    plain = write_levels(tmp_path / "plain.tif", *levels, compression="jpeg")
    with (
        open_slide(write_ome(tmp_path / "slide.ome.tif", levels, compression="jpeg", tile=(256, 256))) as slide,
        open_slide(plain, UM_PER_PX) as reference,
    ):
        assert len(slide.source.downsamples) == 3
        for um_per_px in (UM_PER_PX, 8.5 * UM_PER_PX):
            ours, theirs = (
                Raster(source, um_per_px).read(100, 100, 60, 50).astype(int) for source in (slide, reference)
            )
            assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_plain_pyramid_is_read_as_bigtiff_too(section, tmp_path, bigtiff):
    with tifffile.TiffWriter(tmp_path / "slide.tif", bigtiff=bigtiff) as writer:
        for number, level in enumerate(pyramid_of(section)):
            writer.write(
                np.asarray(level), photometric="rgb", tile=(256, 256), subfiletype=int(number > 0), metadata=None
            )
    with open_slide(tmp_path / "slide.tif", UM_PER_PX) as slide:
        assert len(slide.source.downsamples) == 3
        width, height = slide.size_px
        np.testing.assert_array_equal(
            Raster(slide, UM_PER_PX).read(0, 0, width, height), np.asarray(section)[:1000, :1400]
        )


def test_a_sub_image_that_shows_something_else_is_passed_over(section, tmp_path, capsys):
    alone = spots_and_tissue(write_ome(tmp_path / "alone.ome.tif", [section]))
    label = Image.new("RGB", (301, 290), (250, 240, 120))
    capsys.readouterr()
    found = spots_and_tissue(write_ome(tmp_path / "slide.ome.tif", [section, label]))
    assert "Level 1 of slide.ome.tif is passed over" in " ".join(capsys.readouterr().err.split())
    assert found[1:] == alone[1:]
    np.testing.assert_array_equal(found[0], alone[0])


def test_only_the_tiles_of_a_region_are_read(section, tmp_path):
    """All tiles of the full resolution but the first are damaged."""
    path = write_ome(tmp_path / "slide.ome.tif", pyramid_of(section), compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))[1:]
    content = bytearray(path.read_bytes())
    for start, length in places:
        content[start : start + length] = bytes(length)
    path.write_bytes(content)
    with open_slide(path) as slide:
        region = slide.source.read(0, 0, 0, 256, 128)
        np.testing.assert_array_equal(np.asarray(region), np.asarray(section)[:128, :256])
        with pytest.raises(GeneDMLError, match=r"slide\.ome\.tif is damaged at x 200, y 60: .* Fetch the file again"):
            slide.source.read(0, 200, 60, 100, 10)


@pytest.mark.parametrize(
    ("kind", "photometric", "message"),
    [(np.uint16, "rgb", "more than 8 bits"), (np.uint8, "minisblack", "is greyscale")],
)
def test_sub_images_that_are_no_stain_are_refused_by_name(tmp_path, kind, photometric, message):
    levels = [np.full((side, side, 3)[: 3 if photometric == "rgb" else 2], 99, kind) for side in (512, 256)]
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as writer:
        for number, level in enumerate(levels):
            count = 1 if number == 0 else None
            writer.write(level, photometric=photometric, tile=(128, 128), subifds=count, subfiletype=number)
    with pytest.raises(GeneDMLError, match=rf"slide\.ome\.tif.* {message}.* Export it as 8-bit RGB"):
        open_slide(tmp_path / "slide.ome.tif")


def test_colours_that_are_images_of_their_own_are_refused_with_what_to_do(tmp_path):
    planes = np.full((3, 256, 256), 99, np.uint8)
    tifffile.imwrite(tmp_path / "slide.ome.tif", planes, photometric="minisblack", tile=(128, 128), ome=True)
    with pytest.raises(GeneDMLError, match=r"slide\.ome\.tif holds three channels as .* raw2ometiff --rgb"):
        open_slide(tmp_path / "slide.ome.tif")


def test_a_first_image_without_pixels_is_refused(section, tmp_path):
    path = write_ome(tmp_path / "slide.ome.tif", pyramid_of(section))
    with tifffile.TiffFile(path, mode="r+b") as written:
        written.pages.first.tags["ImageLength"].overwrite(0, dtype="I")
    with pytest.raises(GeneDMLError, match=r"slide\.ome\.tif cannot be read: its level 0 says 1400 x 0 px"):
        open_slide(path)


def test_a_sub_image_of_another_kind_than_the_first_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.tif") as writer:
        writer.write(np.full((512, 512, 3), 99, np.uint8), photometric="rgb", tile=(128, 128), subifds=1)
        writer.write(np.full((256, 256), 99, np.uint8), photometric="minisblack", tile=(128, 128))
    with pytest.raises(GeneDMLError, match=r"slide\.tif cannot be read: its level 1 has pixels of another kind"):
        open_slide(tmp_path / "slide.tif")
