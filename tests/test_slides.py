"""Slides: their um/px, and the same pixels however they are read."""

from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.slides.raster import BLOCK_PX, Raster
from genedml_cli.slides.slide import best_level, open_slide

HER2ST_UM_PER_PX = 0.687


def write_png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A 1500 x 1200 px image without structure, so that any shift shows."""
    return write_png(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 256, (1200, 1500, 3), np.uint8))


def test_um_per_px_of_a_pyramidal_tiff(world):
    with open_slide(world / "slides/P1.tif") as slide:
        assert slide.um_per_px == pytest.approx(0.5)
        assert slide.source.downsamples == pytest.approx((1, 4, 16))


def test_plain_image_has_no_um_per_px(red_spot):
    with open_slide(red_spot[0]) as slide:
        assert not slide.knows_scale
        with pytest.raises(GeneDMLError, match=r"red\.png .*--um-per-px.*--pitch-um"):
            _ = slide.um_per_px


def test_dots_per_inch_of_a_tiff_without_a_microscope_are_not_believed(tmp_path):
    import tifffile

    path = tmp_path / "printed.tif"
    pixels = np.zeros((256, 256, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", resolution=(72, 72), resolutionunit="INCH")
    assert openslide.OpenSlide(path).properties[openslide.PROPERTY_NAME_MPP_X]
    with open_slide(path) as slide:
        assert not slide.knows_scale


@pytest.mark.parametrize("um_per_px", [500.0, 0.0005, 0.0, -1.0, float("nan")])
def test_um_per_px_of_no_microscope_is_refused(red_spot, um_per_px):
    with pytest.raises(GeneDMLError, match=r"um/px for red\.png is outside 0\.05\.\.20"):
        open_slide(red_spot[0], um_per_px)


@pytest.mark.parametrize(("um_per_px", "warned"), [(0.51, False), (0.6, True)])
def test_um_per_px_over_the_slides_own_warns(world, capfd, um_per_px, warned):
    with open_slide(world / "slides/P1.tif", um_per_px) as slide:
        assert slide.um_per_px == um_per_px
    captured = capfd.readouterr()
    assert ("P1.tif says 0.5 um/px; taking 0.6" in captured.err) == warned
    assert not captured.out


@pytest.mark.parametrize("um_per_px", [0.5, 0.7, 0.3])
def test_raster_is_the_same_whatever_region_asks(noise, um_per_px):
    with open_slide(noise, 0.5) as slide:
        whole = Raster(slide, um_per_px)
        width, height = whole.size_px
        expected = np.pad(whole.read(0, 0, width, height), ((300, 300), (300, 300), (0, 0)), constant_values=255)
        pieces = Raster(slide, um_per_px, cache_bytes=0)
        for x, y in [(BLOCK_PX - 60, BLOCK_PX - 70), (-50, -50), (width - 100, height - 100), (3, height - 90)]:
            region = pieces.read(x, y, 130, 120)
            np.testing.assert_array_equal(region, expected[y + 300 : y + 420, x + 300 : x + 430])


def test_blocks_join_without_a_seam(tmp_path):
    across = np.linspace(0, 255, 3000).astype(np.uint8)
    ramp = write_png(tmp_path / "ramp.png", np.tile(across[None, :, None], (8, 1, 3)))
    with open_slide(ramp, 0.5) as slide:
        line = Raster(slide, 0.75).read(0, 2, 2000, 1)[0, :, 0].astype(int)
    assert np.abs(line - np.linspace(0, 255, 2000)).max() <= 1.5


def test_raster_at_native_um_per_px_is_the_image(noise):
    with open_slide(noise, 0.5) as slide:
        np.testing.assert_array_equal(Raster(slide, 0.5).read(0, 0, 1500, 1200), np.asarray(Image.open(noise)))


def test_raster_beyond_the_edges_is_white(noise):
    with open_slide(noise, 0.5) as slide:
        assert (Raster(slide, 0.5).read(5000, -4000, 30, 20) == 255).all()


@pytest.mark.parametrize("um_per_px", [0.5, 1.0, 0.66, 0.25])
def test_red_square_is_in_its_place_at_any_um_per_px(red_spot, um_per_px):
    with open_slide(red_spot[0], 0.5) as slide:
        raster = Raster(slide, um_per_px)
        size = raster.size_px
        pixels = raster.read(0, 0, *size)
    factor = 0.5 / um_per_px
    assert size == (int(1200 * factor), int(900 * factor))
    y, x = np.nonzero(pixels[..., 1] < 128)
    edges = np.array([x.min(), x.max() + 1, y.min(), y.max() + 1])
    assert np.abs(edges - np.array([556, 668, 344, 456]) * factor).max() <= 1
    middle = pixels[round(400 * factor), round(612 * factor)]
    assert middle.tolist() == [255, 0, 0]


def test_every_level_of_a_pyramid_shows_the_same_tissue(world):
    with open_slide(world / "slides/P1.tif") as slide:
        fine = Image.fromarray(Raster(slide, 0.5).read(0, 0, 2016, 1792))
        coarse = Raster(slide, 2.0).read(0, 0, 504, 448)
    np.testing.assert_allclose(coarse, np.asarray(fine.reduce(4)), atol=2)


@pytest.mark.parametrize(("scale", "level"), [(0.5, 0), (1.0, 0), (3.9, 0), (4.0, 1), (15.0, 1), (64.0, 2)])
def test_best_level_is_never_coarser_than_asked(scale, level):
    assert best_level((1.0, 4.0, 16.0), scale) == level


def test_best_level_forgives_rounded_downsamples():
    assert best_level((1.0, 4.0003), 4.0) == 1


@pytest.mark.parametrize(("max_px", "size"), [(300, (300, 225)), (5000, (1200, 900))])
def test_thumbnail_keeps_proportions_and_is_never_enlarged(red_spot, max_px, size):
    with open_slide(red_spot[0]) as slide:
        thumbnail = slide.thumbnail(max_px)
    assert thumbnail.shape == (size[1], size[0], 3)
    scale = size[0] / 1200
    assert thumbnail[int(400 * scale), int(612 * scale)].tolist() == [255, 0, 0]


def test_thumbnail_in_bands_is_the_thumbnail_at_once(noise, monkeypatch):
    with open_slide(noise) as slide:
        at_once = slide.thumbnail(300)
        monkeypatch.setattr("genedml_cli.slides.slide.THUMBNAIL_BAND_PX", 1500 * 100)
        np.testing.assert_allclose(slide.thumbnail(300), at_once, atol=1)


@pytest.mark.parametrize(("mode", "pixel"), [("RGBA", (200, 0, 0, 0)), ("P", 0)])
def test_other_kinds_of_pixels_become_rgb_on_white(tmp_path, mode, pixel):
    image = Image.new(mode, (20, 10), pixel)
    if mode == "P":
        image.putpalette([255, 255, 255])
    path = tmp_path / "clear.png"
    image.save(path)
    with open_slide(path, 0.5) as slide:
        assert (Raster(slide, 0.5).read(0, 0, 20, 10) == 255).all()


def test_half_transparent_red_is_pink(tmp_path):
    pink = write_png(tmp_path / "pink.png", np.full((4, 4, 4), (255, 0, 0, 128), np.uint8))
    with open_slide(pink, 0.5) as slide:
        assert Raster(slide, 0.5).read(1, 1, 1, 1)[0, 0] == pytest.approx([255, 127, 127], abs=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("empty.svs", b""),
        ("text.png", b"not an image"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    ],
)
def test_files_that_are_no_image(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(GeneDMLError, match=name):
        open_slide(path)


def test_half_an_image_is_broken(noise):
    noise.write_bytes(noise.read_bytes()[:100_000])
    with pytest.raises(GeneDMLError, match=r"noise\.png is broken: .* Fetch the file again"):
        open_slide(noise)


def test_missing_slide_is_named(tmp_path):
    with pytest.raises(GeneDMLError, match=r"There is no slide .*gone\.svs\. Check the path"):
        open_slide(tmp_path / "gone.svs")


def test_sixteen_bits_are_refused(tmp_path):
    path = write_png(tmp_path / "deep.png", np.full((10, 10), 40_000, np.uint16))
    with pytest.raises(GeneDMLError, match=r"deep\.png has more than 8 bits a channel.*8-bit RGB"):
        open_slide(path)


def test_too_large_a_plain_image_is_refused_before_it_is_decoded(noise, monkeypatch):
    monkeypatch.setattr("genedml_cli.slides.slide.IMAGE_LIMIT_PX", 1000)
    with pytest.raises(GeneDMLError, match=r"1500 x 1200 px.*vips tiffsave noise\.png"):
        open_slide(noise)


def test_pillows_own_limit_is_lifted_only_while_opening(noise, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    open_slide(noise).close()
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_damaged_tiles_name_the_file(real_slides):
    with open_slide(real_slides / "unreadable.svs") as slide, pytest.raises(GeneDMLError, match=r"unreadable\.svs"):
        Raster(slide, slide.um_per_px).read(0, 0, *slide.size_px)


@pytest.mark.parametrize("x", [600, 2 * BLOCK_PX - 40])
def test_real_slide_is_read_as_openslide_reads_it(real_slides, x):
    path = real_slides / "cmu-1-small-region.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.size_px == (2220, 2967)
        assert slide.um_per_px == pytest.approx(0.499)
        region = Raster(slide, slide.um_per_px).read(x, 1900, 200, 150)
        expected = np.asarray(reference.read_region((x, 1900), 0, (200, 150)).convert("RGB"))
    assert expected.std() > 5
    np.testing.assert_allclose(region, expected, atol=1)
