"""Slides in DICOM, by any file of theirs: the pixels, um/px and predictions of a plain pyramid of the same levels."""

import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
from dicom_slides import write_dicom
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.prediction.prediction import predict
from genedml_cli.slides.slide import open_slide
from genedml_cli.slides.slide_files import content_sha256


@pytest.fixture
def plain(p1: dict[str, Path]) -> openslide.OpenSlide:
    """The first slide of the tiny world, a pyramid in TIFF."""
    return openslide.OpenSlide(p1["slide"])


def pixels(slide: openslide.OpenSlide, level: int) -> Image.Image:
    return slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB")


def write_series(folder: Path, slide: openslide.OpenSlide, jpeg: bool = False) -> list[Path]:
    """The levels of a slide, a file each."""
    folder.mkdir()
    um_per_px = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
    return [
        write_dicom(folder / f"DCM_{level}.dcm", pixels(slide, level), um_per_px * down, level, jpeg)
        for level, down in enumerate(slide.level_downsamples)
    ]


def test_a_slide_in_dicom_predicts_as_the_plain_pyramid(plain, p1, quick_run, tmp_path):
    file = write_series(tmp_path / "series", plain)[1]
    with open_slide(file) as slide, open_slide(p1["slide"]) as reference:
        assert slide.source.sizes_px == reference.source.sizes_px
        assert slide.um_per_px == pytest.approx(reference.um_per_px)
    expected = predict(p1["slide"], p1["spots"], quick_run, fold="P1")
    found = predict(file, p1["spots"], quick_run, fold="P1")
    np.testing.assert_array_equal(found.X, expected.X)
    assert list(found.var_names) == list(expected.var_names)


def test_jpeg_tiles_of_dicom_are_those_of_the_slide_but_for_the_compression(plain, tmp_path):
    file = write_series(tmp_path / "series", plain, jpeg=True)[0]
    with open_slide(file) as slide:
        for level, (width, height) in enumerate(plain.level_dimensions):
            away = np.asarray(slide.source.read(level, 0, 0, width, height)) - np.asarray(pixels(plain, level), float)
            assert 0 < np.abs(away).mean() < 4
            assert np.abs(away.mean(axis=(0, 1))).max() < 1


def test_a_slide_in_dicom_is_known_by_all_its_files(plain, tmp_path):
    files = write_series(tmp_path / "series", plain)
    before = content_sha256(files[0])
    assert content_sha256(files[1]) == before
    shutil.copy(files[0], files[1])
    assert content_sha256(files[0]) != before


def test_dicom_of_another_kind_and_a_part_of_a_file_are_refused_by_name(plain, tmp_path):
    file = write_series(tmp_path / "series", plain)[0]
    content = file.read_bytes()
    file.write_bytes(content.replace(b"77.1.6", b"77.1.4"))  # an ophthalmic photograph
    with pytest.raises(GeneDMLError, match=r"DCM_0\.dcm"):
        open_slide(file)
    file.write_bytes(content[: len(content) // 2])
    with open_slide(file) as slide, pytest.raises(GeneDMLError, match=r"DCM_0\.dcm is damaged at x"):
        slide.thumbnail(2000)
