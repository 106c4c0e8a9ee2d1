"""Images that are no slide: refused by name, and before a pixel is decoded where they are too large."""

import zlib

import numpy as np
import pytest
import tifffile
from conftest import write_aperio
from hostile import write
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.slide import open_slide


@pytest.mark.parametrize(
    ("mode", "name", "message"),
    [
        ("L", "grey.png", "is greyscale; H&E needs its colours"),
        ("LA", "grey.png", "is greyscale; H&E needs its colours"),
        ("1", "line.png", "is black and white"),
        ("I;16", "deep.png", "has more than 8 bits a channel"),
        ("F", "deep.tif", "has more than 8 bits a channel"),
        ("CMYK", "ink.jpg", "is CMYK: inks"),
        ("CMYK", "ink.tif", "is CMYK: inks"),
    ],
)
def test_images_that_are_no_stain_are_refused_by_name(tmp_path, mode, name, message):
    Image.new(mode, (64, 48)).save(tmp_path / name)
    with pytest.raises(GeneDMLError, match=rf"{name} {message}.* Export it as 8-bit RGB"):
        open_slide(tmp_path / name)


def test_colours_of_sixteen_bits_are_refused_too(tmp_path):
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((40, 50, 3), np.uint16), photometric="rgb")
    with pytest.raises(GeneDMLError, match=r"deep\.tif has more than 8 bits a channel"):
        open_slide(tmp_path / "deep.tif")


TILED = {"tile": (64, 64), "metadata": None}


@pytest.mark.parametrize(
    ("shape", "kind", "photometric", "message"),
    [
        ((128, 128), np.uint8, "minisblack", "is greyscale"),
        ((128, 128), np.uint8, "miniswhite", "is greyscale"),
        ((128, 128, 3), np.uint16, "rgb", "has more than 8 bits a channel"),
        ((128, 128), np.uint16, "minisblack", "has more than 8 bits a channel"),
        ((128, 128, 4), np.uint8, "separated", "is CMYK: inks"),
        ((128, 128, 3), np.uint8, "cielab", "has pixels of kind LAB"),
    ],
)
def test_tiled_images_that_are_no_stain_are_refused_by_name(tmp_path, shape, kind, photometric, message):
    tifffile.imwrite(tmp_path / "tiled.tif", np.full(shape, 99, kind), photometric=photometric, **TILED)
    with pytest.raises(GeneDMLError, match=rf"tiled\.tif {message}.* Export it as 8-bit RGB"):
        open_slide(tmp_path / "tiled.tif")


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.tif", "tiled.tif"])
def test_images_stored_turned_are_refused(tmp_path, name):
    if name == "tiled.tif":
        tags = [(0x0112, "H", 1, 6, True)]
        tifffile.imwrite(
            tmp_path / name, np.full((128, 96, 3), 99, np.uint8), photometric="rgb", extratags=tags, **TILED
        )
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (64, 48)).save(tmp_path / name, exif=exif)
    with pytest.raises(GeneDMLError, match=rf"{name} is stored turned or mirrored \(EXIF orientation 6\)"):
        open_slide(tmp_path / name)


def test_a_png_that_says_so_behind_its_pixels_is_refused_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "slide.png", exif=exif)
    content = (tmp_path / "slide.png").read_bytes()
    starts = content.index(b"eXIf") - 4
    length = int.from_bytes(content[starts : starts + 4], "big") + 12
    chunk, rest = content[starts : starts + length], content[:starts] + content[starts + length :]
    end = rest.index(b"IEND") - 4
    (tmp_path / "slide.png").write_bytes(rest[:end] + chunk + rest[end:])
    with pytest.raises(GeneDMLError, match="is stored turned or mirrored"):
        open_slide(tmp_path / "slide.png")


@pytest.mark.parametrize("side", [20_000, 400_000])
@pytest.mark.parametrize("aperio", [False, True])
def test_tiles_that_no_scanner_writes_are_refused_before_openslide_takes_memory_for_one(tmp_path, side, aperio):
    file, pixels = tmp_path / "bomb.tif", np.full((1024, 1024, 3), 180, np.uint8)
    if aperio:
        write_aperio(file, pixels, 0.5)
    else:
        tifffile.imwrite(file, pixels, photometric="rgb", **TILED)
    with tifffile.TiffFile(file, mode="r+b") as written:
        for name in ("TileWidth", "TileLength"):
            written.pages.first.tags[name].overwrite(side, dtype="I")
    with pytest.raises(GeneDMLError, match=rf"bomb\.tif cannot be read: it says {side} x {side} px for one tile"):
        open_slide(file)


def test_pixels_that_are_not_square_have_no_known_scale(tmp_path, capsys):
    for name, across in (("square", 20_000), ("oblong", 40_000)):
        image = np.full((128, 128, 3), 99, np.uint8)
        tifffile.imwrite(
            tmp_path / f"{name}.tif", image, photometric="rgb", resolution=(across, 20_000), resolutionunit=3, **TILED
        )
    assert open_slide(tmp_path / "square.tif").um_per_px == pytest.approx(0.5)
    assert not open_slide(tmp_path / "oblong.tif").knows_scale
    assert "oblong.tif says 0.25 x 0.5 um/px, so its pixels are not square" in capsys.readouterr().err


def test_a_czi_that_openslide_cannot_read_says_how_to_convert_it(tmp_path):
    file = write(tmp_path / "slide.czi", b"ZISRAWFILE" + bytes(600))
    with pytest.raises(GeneDMLError, match=r"slide\.czi cannot be read: .* bfconvert FILE\.czi slide\.ome\.tiff"):
        open_slide(file)


@pytest.mark.parametrize("name", [".zattrs", "zarr.json"])
def test_an_ome_zarr_folder_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / "slide.zarr").mkdir()
    write(tmp_path / "slide.zarr" / name, b"{}")
    with pytest.raises(GeneDMLError, match=r"slide\.zarr is an OME-Zarr folder.* raw2ometiff --rgb"):
        open_slide(tmp_path / "slide.zarr")


def test_several_images_in_one_file_are_refused(tmp_path):
    pages = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(GeneDMLError, match=r"pages\.tif holds 2 images"):
        open_slide(tmp_path / "pages.tif")


def tiff_of_one_strip(path, rows):
    tifffile.imwrite(path, np.full((40, 50, 3), 120, np.uint8), photometric="rgb", rowsperstrip=40)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(rows)
    return path


def test_an_image_of_fewer_strips_than_it_says_is_refused(tmp_path):
    with pytest.raises(GeneDMLError, match=r"long\.tif says 50 x 80 px, but holds 50% of them"):
        open_slide(tiff_of_one_strip(tmp_path / "long.tif", 80))


@pytest.mark.parametrize("kind", ["gif", "eps", "webp"])
def test_images_of_other_formats_are_not_even_parsed(tmp_path, kind):
    Image.new("RGB", (64, 48)).save(tmp_path / f"picture.{kind}")
    with pytest.raises(GeneDMLError, match="no JPEG, PNG or TIFF image"):
        open_slide(tmp_path / f"picture.{kind}")


@pytest.mark.parametrize("bit", range(0, 400, 80))
def test_no_changed_bit_of_the_pixels_of_a_png_goes_unnoticed(tmp_path, bit):
    Image.fromarray(np.repeat(np.tri(80, 100, dtype=np.uint8)[..., None] * 200, 3, axis=2)).save(tmp_path / "s.png")
    content = bytearray((tmp_path / "s.png").read_bytes())
    content[content.index(b"IDAT") + 8 + bit // 8] ^= 1 << bit % 8
    with pytest.raises(GeneDMLError):
        open_slide(write(tmp_path / "s.png", bytes(content)))


def test_a_gigantic_declared_size_is_refused_before_a_pixel_is_decoded(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (10**6).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes((8, 2, 0, 0, 0)))
    file = write(
        tmp_path / "vast.png", b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    with pytest.raises(GeneDMLError, match=r"vast\.png has 1000000 x 1000000 px, too many"):
        open_slide(file)


def test_a_plain_image_that_memory_cannot_hold_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (640, 480)).save(tmp_path / "large.png")
    monkeypatch.setattr("genedml_cli.machine.memory.free_on_host", lambda: 10**6)
    with pytest.raises(GeneDMLError, match=r"large\.png .* 1\.00 MB of memory are free"):
        open_slide(tmp_path / "large.png")


def test_a_pyramid_larger_than_any_scan_is_refused(tmp_path, monkeypatch):
    write_aperio(tmp_path / "slide.svs", np.zeros((600, 600, 3), np.uint8), 0.5)
    monkeypatch.setattr("genedml_cli.slides.pyramids.SLIDE_LIMIT_PX", 599)
    with pytest.raises(GeneDMLError, match=r"slide\.svs cannot be read: it says 600 x 600 px"):
        open_slide(tmp_path / "slide.svs")


def test_a_thumbnail_given_as_a_slide_is_refused(red_spot):
    with open_slide(red_spot[0], 8.0) as slide, pytest.raises(GeneDMLError, match="this is a thumbnail of a slide"):
        Raster(slide, 0.5)
