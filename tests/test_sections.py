"""Several sections on one slide: how they are numbered, that one can be chosen, and that the preview shows which."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from test_tissue import GLASS, PINK, stroma
from typer.testing import CliRunner

from genedml.errors import GeneDMLError
from genedml_cli.app import app
from genedml_cli.cohort.cohort import read_cohort
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.preview import preview_figure
from genedml_cli.slides.sections import number_sections
from genedml_cli.spots.placing import Placing, place_spots

UM_PER_PX = 4.0
MIDDLES = np.array([[200, 400.5], [800, 200], [1400, 300]])


def pieces(path: Path, size, *squares) -> Path:
    image = Image.new("RGB", size, GLASS)
    for left, top, side in squares:
        ImageDraw.Draw(image).rectangle((left, top, left + side - 1, top + side - 1), fill=PINK)
    image.save(path)
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Squares of 0.8 mm, 1.1 to 1.6 mm apart, the middle one with a piece 0.24 mm beside it; drawn out of order."""
    squares = (1300, 200, 200), (100, 300, 200), (700, 100, 200), (960, 100, 60)
    return pieces(tmp_path / "three.png", (1600, 600), *squares)


def numbers_at(slide: Path, places) -> list[int]:
    with place_spots(slide, None, Placing(UM_PER_PX)) as placed:
        numbers = number_sections(placed.tissue, placed.slide)
        columns, rows = (np.array(places) * numbers.shape[1] / placed.slide.size_px[0]).astype(int).T
        return numbers[rows, columns].tolist()


def test_sections_are_numbered_from_left_to_right_with_their_pieces_and_the_glass_near_them(three):
    assert numbers_at(three, [*MIDDLES, (990, 130), (480, 300), (990, 400)]) == [1, 2, 3, 2, 1, 2]
    with place_spots(three, None, Placing(UM_PER_PX)) as placed:
        texts = {text.get_text(): text.get_position() for text in preview_figure(placed).axes[0].texts}
    assert list(texts) == ["1", "2", "3"]
    np.testing.assert_allclose(np.array([texts["1"], texts["3"]]), MIDDLES[[0, 2]], atol=5)


def test_sections_above_one_another_are_numbered_from_top_to_bottom(tmp_path):
    squares = (110, 600, 200), (100, 100, 200), (600, 610, 200), (590, 110, 200)
    four = pieces(tmp_path / "four.png", (1000, 1000), *squares)
    assert numbers_at(four, [(200, 200), (200, 700), (700, 200), (700, 700)]) == [1, 2, 3, 4]


def test_a_piece_far_off_that_is_too_small_for_a_section_belongs_to_the_nearest(tmp_path):
    slide = pieces(tmp_path / "crumb.png", (1500, 500), (100, 100, 300), (800, 100, 300), (1420, 100, 60))
    assert numbers_at(slide, [(250, 250), (950, 250), (1450, 130)]) == [1, 2, 2]


def test_the_grid_lies_on_the_section_that_is_named_as_it_does_without(three):
    with place_spots(three, None, Placing(UM_PER_PX)) as placed:
        everywhere = dict(zip(placed.spots.names, placed.spots.xy_px.tolist(), strict=True))
    of_sections = {}
    for section in (1, 2, 3):
        with place_spots(three, None, Placing(UM_PER_PX, section=section)) as placed:
            assert placed.tissue.source == f"found, section {section} of 3"
            assert (np.linalg.norm(placed.spots.xy_px - MIDDLES[section - 1], axis=1) < 300).all()
            of_sections |= dict(zip(placed.spots.names, placed.spots.xy_px.tolist(), strict=True))
    assert of_sections == everywhere


def write_spots(path: Path, xy_px) -> Path:
    pd.DataFrame(xy_px, columns=["x", "y"]).rename_axis("name").rename("s{}".format).to_csv(path)
    return path


def test_the_spots_of_a_section_predict_as_on_that_section_alone(tmp_path, quick_run):
    """Spots of both sections on one slide, and of the second on its part of the image."""
    both, from_px = Image.new("RGB", (1524, 400), GLASS), 1024  # where blocks of the views begin, too
    for left in (0, from_px):
        both.paste(stroma(1.0, (1.0, 1.0, 1.0)), (left, 0))
    both.save(tmp_path / "both.png")
    both.crop((from_px, 0, 1524, 400)).save(tmp_path / "alone.png")
    place = np.stack(np.meshgrid([125.0, 175, 225, 275], [145.0, 195, 245, 295]), -1).reshape(-1, 2)
    spots = write_spots(tmp_path / "both.csv", np.vstack([place + np.array([from_px, 0]), place]))
    alone = predict(
        tmp_path / "alone.png", write_spots(tmp_path / "alone.csv", place), quick_run, um_per_px=2.0, fold="P1"
    )
    chosen = predict(tmp_path / "both.png", spots, quick_run, um_per_px=2.0, fold="P1", section=2)
    assert list(chosen.obs_names) == list(alone.obs_names)
    np.testing.assert_allclose(chosen.X, alone.X, atol=1e-5)
    assert chosen.X.std() > 0
    assert chosen.uns["genedml"]["tissue"] == "found, section 2 of 2"


def test_a_section_that_is_not_there_is_refused_with_how_many_there_are(three, tmp_path):
    sentence = r"There is no section 4 on three\.png: its tissue \(found\) is 3 sections, 1 mm or more apart\. Look at"
    with pytest.raises(GeneDMLError, match=sentence), place_spots(three, None, Placing(UM_PER_PX, section=4)):
        pass
    Image.new("RGB", (200, 200), GLASS).save(tmp_path / "glass.png")
    glass = place_spots(tmp_path / "glass.png", None, Placing(UM_PER_PX, section=1))
    with pytest.raises(GeneDMLError, match="There is no section 1"), glass:
        pass
    out = tmp_path / "a.png"
    result = CliRunner().invoke(
        app, ["predict", str(three), "--section", "4", "--um-per-px", "4", "--preview", str(out)]
    )
    assert (result.exit_code, out.exists()) == (1, False)


def test_spots_of_which_none_lies_at_the_section_are_refused(three, tmp_path):
    spots = write_spots(tmp_path / "spots.csv", MIDDLES[:2])
    sentence = r"None of the 2 spots lies at the section asked for of three\.png"
    with pytest.raises(GeneDMLError, match=sentence), place_spots(three, spots, Placing(UM_PER_PX, section=3)):
        pass


def test_a_sheet_says_the_section_and_a_result_of_another_is_not_kept(tmp_path, quick_run):
    pieces(tmp_path / "three.png", (1800, 250), (50, 50, 150), (800, 50, 150), (1550, 50, 150))
    sheet, out = tmp_path / "sheet.csv", tmp_path / "out"
    words = ["predict", "--slides", str(sheet), "--model", str(quick_run), "--fold", "P1", "--out", str(out)]
    words += ["--um-per-px", "2"]
    sheet.write_text("slide,name,section\nthree.png,A,1\nthree.png,B,2\n")
    assert CliRunner().invoke(app, words).exit_code == 0
    right = {name: anndata.read_h5ad(out / f"{name}.h5ad").obsm["spatial"][:, 0].max() for name in "AB"}
    assert right["A"] < 210 < 790 < right["B"] < 960
    sheet.write_text("slide,name,section\nthree.png,A,1\nthree.png,B,3\n")
    assert CliRunner().invoke(app, words).exit_code == 1
    assert "made from other tissue" in (out / "summary.csv").read_text()
    sheet.write_text("slide,name,section\nthree.png,A,1.5\n")
    with pytest.raises(GeneDMLError, match=r"sheet\.csv: section of A is 1\.5\. Give 1, 2"):
        read_cohort(sheet, Placing())
