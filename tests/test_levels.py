"""Levels of a pyramid are used only if they show what level 0 shows; the result is then that of level 0 alone."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from scanned import write_leica
from scipy.ndimage import gaussian_filter

from genedml.errors import GeneDMLError
from genedml_cli.slides.levels import has_one_factor
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.placing import Placing, place_spots

UM_PER_PX = 2.0


@pytest.fixture(scope="module")
def section() -> Image.Image:
    """Tissue with texture, 1,402 x 1,001 px, to be taken for 2 um/px."""
    rng = np.random.default_rng(3)
    nuclei = sum(gaussian_filter(rng.normal(size=(1001, 1402)), width) * width for width in (3, 9, 27))
    y, x = np.mgrid[:1001, :1402]
    tissue = ((x - 640) / 420) ** 2 + ((y - 450) / 330) ** 2 < 1 + 0.6 * gaussian_filter(nuclei, 20)
    purple = np.clip(0.5 + 0.5 * nuclei, 0, 1)[..., None]
    stained = (1 - purple) * (224, 150, 190) + purple * (110, 70, 150)
    pixels = np.where(tissue[..., None], stained, (243, 242, 243)) + rng.normal(0, 2, (1001, 1402, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_levels(path, *levels: Image.Image, compression=None):
    with tifffile.TiffWriter(path) as writer:
        for number, level in enumerate(levels):
            writer.write(
                np.asarray(level),
                photometric="rgb",
                tile=(256, 256),
                subfiletype=int(number > 0),
                compression=compression,
                metadata=None,
                software=False,
            )
    return path


def padded(image: Image.Image, size) -> Image.Image:
    whole = Image.new("RGB", size, "white")
    whole.paste(image)
    return whole


def scaled(image: Image.Image, factor: int) -> Image.Image:
    return image.resize((image.width // factor, image.height // factor), Image.Resampling.BOX)


def spots_and_tissue(path):
    with place_spots(path, None, Placing(um_per_px=UM_PER_PX)) as placed:
        return placed.spots.xy_px, placed.tissue.area_px, placed.slide.source.downsamples


WRONG = {
    "padded to whole tiles": lambda image: padded(scaled(image, 2), (768, 512)),
    "padded alike on both sides": lambda image: padded(scaled(image, 2), (771, 550)),
    "a label": lambda image: Image.new("RGB", (301, 290), (250, 240, 120)),
    "another picture of the right shape": lambda image: scaled(image, 2).transpose(Image.Transpose.ROTATE_180),
    "blank": lambda image: Image.new("RGB", (701, 500), "white"),
    "squeezed": lambda image: image.resize((350, 500)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_level_that_shows_something_else_changes_neither_spots_nor_tissue(section, tmp_path, capsys, kind):
    alone = spots_and_tissue(write_levels(tmp_path / "alone.tif", section))
    path = write_levels(tmp_path / "slide.tif", section, WRONG[kind](section))
    capsys.readouterr()
    found = spots_and_tissue(path)
    assert found[2] == (1.0,)
    np.testing.assert_array_equal(found[0], alone[0])
    assert found[1] == alone[1] > 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Level 1 of slide.tif is passed over: ") == 1
    assert "Predictions may differ a little from those with a sound level" in said
    assert ("level 0's over" in said) != ("does not show what the finer levels show" in said)


def test_good_levels_beside_a_bad_one_are_used_and_show_the_right_pixels(section, tmp_path):
    levels = (scaled(section, 2), padded(scaled(section, 4), (512, 256)), scaled(section, 8))
    with open_slide(write_levels(tmp_path / "slide.tif", section, *levels), UM_PER_PX) as slide:
        assert slide.source.downsamples == pytest.approx((1, 2, 8), rel=0.01)
        raster = Raster(slide, 8.1 * UM_PER_PX)
        assert raster.level == 2
        shown = Image.fromarray(raster.read(0, 0, *raster.size_px)).resize(levels[2].size)
    away = np.asarray(shown, dtype=float) - np.asarray(levels[2])
    assert np.abs(away).mean() < 3


@pytest.mark.parametrize("how", [Image.Resampling.NEAREST, Image.Resampling.BOX, Image.Resampling.LANCZOS])
def test_levels_are_used_however_they_were_made(section, tmp_path, capsys, how):
    levels = [section.resize((-(-1402 // factor), 1001 // factor), how) for factor in (2, 4, 8, 16)]
    with open_slide(write_levels(tmp_path / "slide.tif", section, *levels), UM_PER_PX) as slide:
        assert len(slide.source.downsamples) == 5
    assert "passed over" not in capsys.readouterr().err


def test_levels_of_glass_alone_are_used(tmp_path):
    glass = Image.new("RGB", (1024, 1024), (240, 240, 241))
    with open_slide(write_levels(tmp_path / "slide.tif", glass, scaled(glass, 4))) as slide:
        assert slide.source.downsamples == (1, 4)


def test_levels_of_a_canvas_whose_scanned_area_was_rounded_are_used(section, tmp_path):
    odd = section.crop((0, 0, 601, 501))
    write_leica(tmp_path / "slide.scn", odd, (1800, 1400), (6010, 5010), UM_PER_PX)
    with open_slide(tmp_path / "slide.scn") as slide:
        assert len(slide.source.downsamples) == 2


@pytest.mark.parametrize(
    ("whole", "size", "same"),
    [
        ((46000, 32914), (2875, 2057), True),  # OpenSlide's CMU-1.svs, level 2
        ((51200, 38144), (200, 149), True),  # CMU-1.ndpi
        ((46000, 32914), (11520, 8448), False),  # to whole tiles of 256
        ((1400, 1000), (1024, 512), False),
        ((999, 777), (1, 1), True),
    ],
)
def test_one_factor_within_rounding(whole, size, same):
    assert has_one_factor(whole, size, 2.0) == same


def test_a_first_image_smaller_than_another_is_refused(section, tmp_path):
    write_levels(tmp_path / "slide.tif", scaled(section, 2), section)
    with pytest.raises(
        GeneDMLError, match=r"slide\.tif holds an image of 1402 x 1001 px beside its first of 701 x 500"
    ):
        open_slide(tmp_path / "slide.tif")


def test_a_damaged_level_is_said_when_it_is_needed(section, tmp_path):
    path = write_levels(tmp_path / "slide.tif", section, scaled(section, 4), compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, length = (file.pages[1].tags[name].value[0] for name in ("TileOffsets", "TileByteCounts"))
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    with open_slide(path, UM_PER_PX) as slide:
        assert Raster(slide, UM_PER_PX).read(0, 0, 100, 100).shape == (100, 100, 3)
        with pytest.raises(GeneDMLError, match=r"slide\.tif is damaged"):
            slide.thumbnail(200)
