"""Slides with a scanned area within a larger canvas: places are level-0 pixels of the canvas, whatever the bounds."""

import numpy as np
import openslide
import pytest
from PIL import Image
from scanned import write_leica
from test_tissue import UM_PER_PX, overlap, picture, planted

from genedml_cli.slides.raster import Raster
from genedml_cli.slides.slide import open_slide
from genedml_cli.slides.tissue import find_tissue
from genedml_cli.spots.placing import Placing, place_spots

CANVAS, AT = (1300, 900), (701, 403)


class MiraxLike(openslide.OpenSlide):
    """A slide as OpenSlide gives one of MIRAX: transparent beside its bounds, levels whose sides are rounded."""

    dimensions, level_count, level_downsamples = CANVAS, 2, (1.0, 3.0)
    level_dimensions = (CANVAS, (CANVAS[0] // 3, CANVAS[1] // 3))
    properties = {"openslide.vendor": "mirax", "openslide.mpp-x": "4.0", "openslide.mpp-y": "4.0"} | {
        f"openslide.bounds-{side}": str(px)
        for side, px in zip(("x", "y", "width", "height"), (*AT, 500, 400), strict=True)
    }

    def __init__(self, path) -> None:
        canvas = Image.new("RGBA", CANVAS, (0, 0, 0, 0))
        canvas.paste(picture(), AT)
        self.levels = [canvas, canvas.resize(self.level_dimensions[1], Image.Resampling.BOX)]

    @classmethod
    def detect_format(cls, path):
        return "mirax"

    def read_region(self, place, level, size):
        left, top = (round(px / self.level_downsamples[level]) for px in place)
        return self.levels[level].crop((left, top, left + size[0], top + size[1]))

    def close(self) -> None:
        pass


@pytest.fixture(params=["MIRAX", "Leica"])
def slide_file(request, tmp_path, monkeypatch):
    """The picture at ``AT`` of a canvas."""
    path = tmp_path / f"slide.{'mrxs' if request.param == 'MIRAX' else 'scn'}"
    if request.param == "MIRAX":
        path.touch()
        monkeypatch.setattr(openslide, "OpenSlide", MiraxLike)
    else:
        write_leica(path, picture(), AT, CANVAS, UM_PER_PX)
    return path


def test_tissue_lies_where_it_does_on_the_canvas(slide_file):
    whole = np.zeros(CANVAS[::-1], dtype=bool)
    whole[AT[1] : AT[1] + 400, AT[0] : AT[0] + 500] = planted()
    with open_slide(slide_file) as slide:
        assert (slide.size_px, slide.origin_xy, slide.um_per_px) == (CANVAS, AT, pytest.approx(UM_PER_PX))
        assert overlap(find_tissue(slide), whole) > 0.95


def test_pixels_at_a_place_are_those_of_the_canvas_at_full_resolution_and_coarser(slide_file):
    expected = np.full((*CANVAS[::-1], 3), 255, np.uint8)
    expected[AT[1] : AT[1] + 400, AT[0] : AT[0] + 500] = picture()
    with open_slide(slide_file) as slide:
        np.testing.assert_array_equal(Raster(slide, UM_PER_PX).read(650, 380, 400, 300), expected[380:680, 650:1050])
        coarse = Raster(slide, 3 * UM_PER_PX)
        left, top = (px // 3 for px in AT)
        away = (
            coarse.read(left + 40, top + 50, 50, 40).astype(int)
            - expected[1::3, 1::3][top + 50 : top + 90, left + 40 : left + 90]
        )
        assert np.median(np.abs(away)) <= 1


def test_a_grid_and_given_spots_lie_on_the_tissue_of_the_canvas(slide_file, tmp_path):
    with place_spots(slide_file, None, Placing()) as placed:
        corner, end = placed.spots.xy_px.min(axis=0) - AT, placed.spots.xy_px.max(axis=0) - AT
        assert (corner > (95, 115)).all() and (end < (305, 325)).all()
        given = placed.spots.xy_px
    rows = [f"s{number},{x},{y}" for number, (x, y) in enumerate(given)]
    (tmp_path / "spots.csv").write_text("\n".join(["name,x,y", *rows]))
    with place_spots(slide_file, tmp_path / "spots.csv", Placing()) as placed:
        assert placed.on_tissue == 1.0
        np.testing.assert_array_equal(placed.spots.xy_px, given)
