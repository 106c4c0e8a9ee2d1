"""Where to predict: a grid is regular and on tissue; given spots are held against it; all is seen before encoding."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED_DATA, tiny_config
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree
from test_tissue import GLASS, PINK

from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml_cli.datasets.checking import check_samples
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.features.extraction import encode_section, extract
from genedml_cli.notes import texts_of
from genedml_cli.report.preview import preview, preview_figure
from genedml_cli.slides.slide import open_slide
from genedml_cli.slides.tissue import Tissue, find_tissue
from genedml_cli.spots.grid import lay_grid
from genedml_cli.spots.lattice import nearest_distances
from genedml_cli.spots.placing import OWN_ON_TISSUE, Placing, check_on_tissue, doubt_spots, place_spots
from genedml_cli.spots.section import check_on_slide
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots

TISSUE = (200, 180, 1000, 1380)  # left, top, right, bottom, upright on a square slide
UM_PER_PX = 2.0


@pytest.fixture
def upright(tmp_path: Path) -> Path:
    """A 1500 x 1500 px slide of 2 um/px whose tissue is higher than wide and off the middle."""
    image = Image.new("RGB", (1500, 1500), GLASS)
    ImageDraw.Draw(image).rectangle((*TISSUE[:2], TISSUE[2] - 1, TISSUE[3] - 1), fill=PINK)
    image.save(tmp_path / "upright.png")
    return tmp_path / "upright.png"


def table(folder: Path, xy_px: np.ndarray, array_xy: np.ndarray | None = None, name: str = "spots.csv") -> Path:
    columns = {"name": [f"s{number}" for number in range(len(xy_px))], "x": xy_px[:, 0], "y": xy_px[:, 1]}
    if array_xy is not None:
        columns |= {"array_col": array_xy[:, 0], "array_row": array_xy[:, 1]}
    pd.DataFrame(columns).to_csv(folder / name, index=False)
    return folder / name


def on_tissue(step: int = 100) -> np.ndarray:
    x, y = np.meshgrid(np.arange(TISSUE[0] + 50, TISSUE[2], step), np.arange(TISSUE[1] + 50, TISSUE[3], step))
    return np.column_stack([x.ravel(), y.ravel()]).astype(float)


def grid_over(path: Path, lattice: str, pitch_um: float = 100.0) -> Spots:
    with open_slide(path, UM_PER_PX) as slide:
        return lay_grid(find_tissue(slide), slide, lattice, pitch_um)


@pytest.mark.parametrize(("lattice", "neighbours"), [("hex", 6), ("square", 4)])
def test_a_grid_has_its_pitch_exactly_and_is_known_as_what_it_is(upright, lattice, neighbours):
    spots = grid_over(upright, lattice)
    assert nearest_distances(spots.xy_px) == pytest.approx(50)
    assert spots.lattice == lattice
    assert spots.pitch_px == pytest.approx(50)
    near = cKDTree(spots.xy_px).query_ball_point(spots.xy_px, 50.01, return_length=True) - 1
    inside = (np.abs(spots.xy_px - np.array([600, 750])) < np.array([300, 500])).all(axis=1)
    assert (near[inside] == neighbours).all()
    pixels_only = Spots(spots.names, spots.xy_px)
    assert (spots.neighbors() != pixels_only.neighbors()).nnz == 0


def test_a_hexagonal_grid_counts_as_visium_does(upright):
    spots = grid_over(upright, "hex")
    column, row = spots.array_xy.T
    assert (column % 2 == row % 2).all()
    assert spots.xy_px[:, 0] == pytest.approx(25 + 25 * column)
    assert spots.xy_px[:, 1] == pytest.approx(25 + 25 * 3**0.5 * row)


@pytest.mark.parametrize("lattice", ["hex", "square"])
def test_grid_spots_are_on_tissue_ordered_and_named_by_their_place(upright, lattice):
    spots = grid_over(upright, lattice)
    left, top, right, bottom = TISSUE
    cell = 8 / UM_PER_PX
    x, y = spots.xy_px.T
    assert ((x > left - cell) & (x < right + cell) & (y > top - cell) & (y < bottom + cell)).all()
    density = 50**2 * (3**0.5 / 2 if lattice == "hex" else 1)
    assert len(spots) == pytest.approx((right - left) * (bottom - top) / density, rel=0.05)
    assert list(spots.names) == sorted(set(spots.names))
    assert spots.names[0] == f"r{spots.array_xy[0, 1]:03}c{spots.array_xy[0, 0]:03}"


def test_a_place_has_one_name_with_every_mask(upright):
    with open_slide(upright, UM_PER_PX) as slide:
        found = find_tissue(slide)
        half = found.mask.copy()
        half[: len(half) // 2] = False
        whole, part = (lay_grid(Tissue(mask, slide.size_px, ""), slide, "hex", 80.0) for mask in (found.mask, half))
    place = dict(zip(whole.names, whole.xy_px.tolist(), strict=True))
    assert 0 < len(part) < len(whole)
    assert all(place[name] == xy for name, xy in zip(part.names, part.xy_px.tolist(), strict=True))


@pytest.mark.parametrize(
    ("pitch_um", "message"),
    [
        (0, "more than 200,000 spots"),
        (-5, "more than"),
        (float("nan"), "more than"),
        (1, "more than"),
        (1e5, "No spot"),
    ],
)
def test_pitches_that_are_refused(upright, pitch_um, message):
    with pytest.raises(GeneDMLError, match=message):
        grid_over(upright, "hex", pitch_um)


def test_a_grid_needs_tissue_and_um_per_px(upright, tmp_path):
    Image.new("RGB", (600, 500), GLASS).save(tmp_path / "glass.png")
    with pytest.raises(GeneDMLError, match=r"No tissue was found on glass\.png.*--tissue mask\.png"):
        grid_over(tmp_path / "glass.png", "hex")
    with (
        pytest.raises(GeneDMLError, match=r"upright\.png does not say its um/px, and a grid.*--um-per-px"),
        place_spots(upright, None, Placing(pitch_um=100)),
    ):
        pass


def test_spots_of_the_slide_are_taken_and_their_share_is_remembered(upright, tmp_path):
    with place_spots(upright, table(tmp_path, on_tissue()), Placing(um_per_px=UM_PER_PX)) as placed:
        assert (placed.slide.um_per_px, placed.slide.um_per_px_from) == (UM_PER_PX, "as given")
        assert (placed.tissue.source, placed.source, placed.on_tissue) == ("found", "spots.csv", 1.0)
        assert (placed.grid, placed.grid_pitch_um) == (None, None)


@pytest.mark.parametrize("indexed", [True, False])
def test_um_per_px_from_a_pitch_is_told_and_that_of_a_part_of_the_array_is_right_or_refused(
    upright, tmp_path, capfd, indexed
):
    places = on_tissue()
    array_xy = (places // 100).astype(int) if indexed else None
    with place_spots(upright, table(tmp_path, places, array_xy), Placing(pitch_um=200)) as placed:
        assert placed.slide.um_per_px == pytest.approx(2)
        assert placed.slide.um_per_px_from == "from the pitch of 200 um"
    derived = " ".join(capfd.readouterr().err.split())
    told_by = "array" if indexed else "pixel"
    assert f"upright.png: 2 um/px from the pitch of 200 um; square array by {told_by} positions, pitch 100" in derived
    part = np.random.default_rng(0).choice(len(places), 12, replace=False)
    some = table(tmp_path, places[part], None if array_xy is None else array_xy[part])
    if indexed:
        with place_spots(upright, some, Placing(pitch_um=200)) as placed:
            assert placed.slide.um_per_px == pytest.approx(2)
    else:
        with (
            pytest.raises(GeneDMLError, match=r"pitch of the array cannot be told from 12 spots.*--um-per-px"),
            place_spots(upright, some, Placing(pitch_um=200)),
        ):
            pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda xy_px: xy_px[:, ::-1],
            r"Of the 96 spots \d\d% lie on the tissue of upright\.png, but 100% would",
        ),
        (lambda xy_px: xy_px * 0.3, r"of a section's own it is nearly all\. Are they of another slide, or pixels of"),
        (lambda xy_px: xy_px + np.array([480, 0]), r"--allow-off-tissue takes them"),
    ],
    ids=["exchanged", "of a smaller image", "of another slide"],
)
def test_spots_off_the_tissue_are_refused_unless_allowed(upright, tmp_path, capfd, change, message):
    spots = table(tmp_path, change(on_tissue()))
    with pytest.raises(GeneDMLError, match=message), place_spots(upright, spots, Placing(um_per_px=UM_PER_PX)):
        pass
    with place_spots(upright, spots, Placing(um_per_px=UM_PER_PX, allow_off_tissue=True)) as placed:
        assert placed.on_tissue < 0.75
    assert "Of the 96 spots" in capfd.readouterr().err


@pytest.mark.parametrize("indexed", [True, False])
def test_spots_off_the_image_are_left_out_and_counted_where_that_is_asked(upright, tmp_path, capfd, indexed):
    places = np.concatenate([on_tissue(), [[-50.0, 230.0], [650.0, 1530.0]]])
    array_xy = (places // 100).astype(int) if indexed else None
    spots = table(tmp_path, places, array_xy)
    sentence = r"2 of 98 spots do not lie inside upright\.png .*first: s96.*--skip-off-image"
    with pytest.raises(GeneDMLError, match=sentence), place_spots(upright, spots, Placing(um_per_px=UM_PER_PX)):
        pass
    with place_spots(upright, spots, Placing(um_per_px=UM_PER_PX, skip_off_image=True)) as placed:
        assert texts_of(placed.notes) == ["OFF IMAGE: 2 of 98 spots lie outside upright.png and are left out."]
        assert placed.spots.names == tuple(f"s{number}" for number in range(96))
        np.testing.assert_array_equal(placed.spots.xy_px, places[:96])
        assert indexed is False or np.array_equal(placed.spots.array_xy, array_xy[:96])
    assert "OFF IMAGE: 2 of 98" in " ".join(capfd.readouterr().err.split())
    with (
        pytest.raises(GeneDMLError, match="No spot lies inside"),
        place_spots(upright, table(tmp_path, places - 5000), Placing(um_per_px=UM_PER_PX, skip_off_image=True)),
    ):
        pass


def test_extraction_leaves_out_spots_off_the_image_where_that_is_asked(world, tmp_path):
    sample = read_sheet(world / "samples.csv")[0]
    spots = pd.read_csv(sample.spots)
    spots.loc[3, "x"] = -40.0
    spots.to_csv(tmp_path / "spots.csv", index=False)
    cut, views = replace(sample, spots=tmp_path / "spots.csv"), tiny_config("views.neighbor_grid=1").views
    with pytest.raises(GeneDMLError):
        extract([cut], load_encoder("tiny"), views, tmp_path / "features")
    found = extract([cut], load_encoder("tiny"), views, tmp_path / "features", skip_off_image=True)["P1"]
    assert len(found.spots) == len(spots) - 1
    assert str(found.notes[0]) == f"OFF IMAGE: 1 of {len(spots)} spots lie outside P1.tif and are left out."
    assert check_samples([sample])[0].problems == []
    assert "do not lie inside" in check_samples([cut])[0].problems[0]
    assert check_samples([cut], skip_off_image=True)[0].problems == []


def test_spots_that_hardly_are_of_the_slide_are_marked(upright, tmp_path, capfd):
    for shift_px, marked in ((0, False), (90, True)):
        spots = table(tmp_path, on_tissue() + np.array([shift_px, 0]))
        with place_spots(upright, spots, Placing(um_per_px=UM_PER_PX)) as placed:
            share = placed.on_tissue
            assert (0.6 < share < 0.9) == marked
            assert any(str(note).startswith(f"DOUBTFUL SPOTS: {share:.0%} of") for note in placed.notes) == marked
        assert (
            "Are they of another section, or is tissue missed?" in " ".join(capfd.readouterr().err.split())
        ) == marked


def test_the_users_own_tissue_decides(upright, tmp_path):
    spots = table(tmp_path, on_tissue()[:, ::-1])
    outline = [[0, 0], [1499, 0], [1499, 1100], [0, 1100]]
    (tmp_path / "own.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [outline]}))
    with place_spots(upright, spots, Placing(um_per_px=UM_PER_PX, tissue=tmp_path / "own.geojson")) as placed:
        assert placed.tissue.source == "own.geojson"


def test_a_few_spots_are_not_judged(upright, tmp_path):
    few = np.array([[1200.0, 100.0 + 40 * number] for number in range(20)])
    with place_spots(upright, table(tmp_path, few), Placing(um_per_px=UM_PER_PX)) as placed:
        assert placed.on_tissue == 0


def test_an_array_that_runs_across_is_warned_of_only_where_tissue_cannot_tell(tmp_path, capfd):
    image = Image.new("RGB", (1500, 1500), GLASS)
    draw = ImageDraw.Draw(image)
    draw.rectangle((300, 300, 1199, 1199), fill=PINK)
    image.save(tmp_path / "even.png")
    draw.rectangle((300, 750, 1199, 1499), fill=GLASS)
    image.save(tmp_path / "turned.png")
    x, y = np.meshgrid(np.arange(350, 1200, 100), np.arange(350, 1200, 100))
    xy_px = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    half = xy_px[xy_px[:, 1] < 750]
    for name, places, across, warned in (
        ("even.png", xy_px, False, False),
        ("even.png", xy_px, True, True),
        ("turned.png", half, True, False),
    ):
        array_xy = (places[:, ::-1] if across else places) // 100
        with place_spots(tmp_path / name, table(tmp_path, places, array_xy.astype(int)), Placing(um_per_px=UM_PER_PX)):
            pass
        assert ("x and y of the spots are exchanged" in capfd.readouterr().err) == warned


def test_extraction_refuses_spots_off_the_tissue_unless_allowed(world, tmp_path):
    sample = read_sheet(world / "samples.csv")[0]
    spots = pd.read_csv(sample.spots)
    spots.assign(x=spots["x"] * 0.4, y=spots["y"] * 0.4).to_csv(tmp_path / "shrunk.csv", index=False)
    shrunk, views = replace(sample, spots=tmp_path / "shrunk.csv"), tiny_config("views.neighbor_grid=1").views
    with pytest.raises(GeneDMLError, match=r"lie on the tissue of P1\.tif"):
        extract([shrunk], load_encoder("tiny"), views, tmp_path / "features")
    found = extract([shrunk], load_encoder("tiny"), views, tmp_path / "features", allow_off_tissue=True)
    assert len(found["P1"].spots) == len(spots)


def test_a_thumbnail_given_as_the_slide_is_refused(upright):
    with open_slide(upright, 8.0) as slide, pytest.raises(GeneDMLError, match=r"8 um/px and the model looks at 0\.5: "):
        encode_section(slide, Spots(("a",), np.array([[600.0, 700.0]])), load_encoder("tiny"), tiny_config().views)


def test_the_preview_shows_slide_outline_and_spots(upright, tmp_path):
    said = preview(upright, None, tmp_path / "p.png", Placing(um_per_px=UM_PER_PX, grid="square", pitch_um=200))
    assert re.fullmatch(r"96 spots \(square grid of 200 \u00b5m\); tissue 3\.[89]\d? mm\u00b2 \(found\)", said)
    with Image.open(tmp_path / "p.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    assert max(pixels.shape) > 2000
    yellow = (np.abs(pixels - np.array([240, 228, 66])) < 40).all(axis=2)
    assert yellow.mean() > 0.002
    assert (pixels.max(axis=2) < 60).mean() > 0.001


def test_the_preview_draws_what_predict_would_refuse(upright, tmp_path, capfd):
    said = preview(upright, table(tmp_path, on_tissue() * 0.3), tmp_path / "p.svg", Placing(um_per_px=UM_PER_PX))
    assert "% on tissue" in said
    assert "of another slide" in capfd.readouterr().err
    drawn = (tmp_path / "p.svg").read_text()
    assert "#d55e00" in drawn.lower()
    on, off = (int(re.search(rf"(\d+) spots {where} tissue", drawn)[1]) for where in ("on", "off"))
    assert on + off == len(on_tissue()) and off > on


@pytest.mark.parametrize(
    ("um_per_px", "text"),
    [(UM_PER_PX, f"1 mm (1 slide px is {UM_PER_PX:.4g} \u00b5m)"), (None, "no scale bar: um/px is not")],
)
def test_the_preview_says_its_scale_and_what_its_colours_are(upright, um_per_px, text, tmp_path):
    preview(upright, table(tmp_path, on_tissue()), tmp_path / "p.svg", Placing(um_per_px=um_per_px))
    drawn = (tmp_path / "p.svg").read_text()
    assert text in drawn
    assert "outline of the tissue" in drawn
    assert "spots on tissue" in drawn and "spots off tissue" not in drawn


@pytest.mark.parametrize(("width", "inches"), [(1500, 7.2 / 3), (300, 7.2 / 15)])
def test_the_previews_scale_bar_is_as_long_as_it_says(upright, width, inches, tmp_path):
    """1 mm on a slide of 3 mm, and 200 um on one of 0.6 mm by 3 mm that is narrower than its picture."""
    with Image.open(upright) as image:
        image.crop((300, 0, 300 + width, 1500)).save(tmp_path / "part.png")
    with place_spots(tmp_path / "part.png", None, Placing(um_per_px=UM_PER_PX)) as placed:
        figure = preview_figure(placed)
    (bar,) = (line for line in figure.findobj(Line2D) if line.get_linewidth() == 2 and line.axes is None)
    assert np.ptp(bar.get_xdata()) * figure.get_figwidth() == pytest.approx(inches)


@pytest.mark.data
@pytest.mark.parametrize("name", ["C2", "C3", "C4", "C5", "C6"])
def test_real_sections_hold_their_spots_and_a_grid_covers_them(her2st, name):
    (slide,) = (her2st / f"ST-imgs/C/{name}").glob("*.jpg")
    own = her2st / f"ST-spotfiles/{name}_selection.tsv"
    with place_spots(slide, own, Placing(pitch_um=200)) as placed:
        assert placed.on_tissue > 0.95
        grid = lay_grid(placed.tissue, placed.slide, "square", 200.0)
        far = cKDTree(placed.spots.xy_px).query(grid.xy_px)[0] > placed.spots.pitch_px
        assert far.mean() < 0.02
        assert len(grid) == pytest.approx(len(placed.spots), rel=0.06)


@pytest.mark.data
def test_no_spots_of_another_real_section_pass_unmarked(her2st):
    (slide,) = (her2st / "ST-imgs/C/C4").glob("*.jpg")
    unmarked, marked = [], []
    with open_slide(slide, 0.687) as opened:
        tissue = find_tissue(opened)
        for file in sorted((her2st / "ST-spotfiles").glob("*.tsv")):
            with suppress(GeneDMLError):
                spots = read_spots(file)
                check_on_slide(spots, opened)
                kept = marked if check_on_tissue(spots, opened, tissue) < OWN_ON_TISSUE else unmarked
                kept.append(file.name.split("_")[0])
    assert unmarked == ["C4"]
    assert len(marked) < 12


def test_a_real_visium_section_holds_its_spots_and_its_printed_frame_is_no_tissue():
    folder = SHARED_DATA / "visium_mouse_colon"
    if not folder.is_dir():
        pytest.skip("the real Visium section is not on this machine")
    files = folder / "d0_naive_colon_he.jpg", folder / "d0_naive_colon_visium.h5ad"
    with place_spots(*files, Placing(pitch_um=100)) as placed:
        assert placed.on_tissue > 0.95
        grid = lay_grid(placed.tissue, placed.slide, "hex", 100.0)
        far = cKDTree(placed.spots.xy_px).query(grid.xy_px)[0] > placed.spots.pitch_px
        assert far.mean() < 0.02
        # More than the section's own, as narrow lumens of the gut count as tissue.
        assert len(grid) == pytest.approx(len(placed.spots), rel=0.1)


@pytest.mark.parametrize(
    ("step", "um_per_px", "pitch_um", "warned"),
    [
        (10, 2.0, None, True),
        (50, 2.0, None, False),
        (10, 2.0, 20.0, False),
        (10, None, None, False),
    ],
)
def test_an_array_finer_than_any_is_asked_about(upright, capfd, step, um_per_px, pitch_um, warned):
    """So lie spots in pixels of Space Ranger's picture on the full image, where all of it is tissue."""
    spots = table(upright.parent, on_tissue(step)[:400])
    with place_spots(upright, spots, Placing(um_per_px=um_per_px, pitch_um=pitch_um), scale_needed=False):
        told = " ".join(capfd.readouterr().err.split())
    asked = "array's pitch of 10 px is 20 um at 2 um/px; Visium's is 100 um, ST's 200"
    assert (asked in told) == warned


def test_rows_left_out_are_counted_in_the_derived_line_and_the_mark_says_the_doubt(upright, capfd):
    spots = table(upright.parent, on_tissue())
    rows = pd.read_csv(spots)
    rows.assign(in_tissue=[0, 0] + [1] * (len(rows) - 2)).to_csv(spots, index=False)
    with place_spots(upright, spots, Placing(um_per_px=UM_PER_PX)):
        told = " ".join(capfd.readouterr().err.split())
    assert f"neighbours a spot; 2 of {len(rows)} spots left out by in_tissue." in told
    (mark,) = doubt_spots(read_spots(spots), 0.72, spots)
    assert mark.text.endswith("of a section's own it is nearly all; they may be of another section.")


@pytest.mark.parametrize(("exchanged", "advice"), [(59, "are they of another slide"), (60, "exchange the two")])
def test_to_exchange_x_and_y_is_advised_only_where_most_spots_then_lie_on_tissue(tmp_path, exchanged, advice):
    """Of 100 spots 30 lie on tissue as they are, and so many with x and y exchanged."""
    xy = np.column_stack([np.arange(100), np.arange(100) + 100]).astype(float)
    mask = np.zeros((200, 200), dtype=bool)
    mask[xy[:30, 1].astype(int), xy[:30, 0].astype(int)] = True
    mask[xy[:exchanged, 0].astype(int), xy[:exchanged, 1].astype(int)] = True
    slide = tmp_path / "slide.png"
    Image.fromarray(np.zeros((200, 200, 3), dtype=np.uint8)).save(slide)
    spots = Spots(tuple(map(str, range(100))), xy + 0.5)
    with open_slide(slide, um_per_px=1.0) as opened, pytest.raises(GeneDMLError) as refused:
        check_on_tissue(spots, opened, Tissue(mask, (200, 200), "found"))
    assert "30% lie on the tissue" in str(refused.value)
    assert advice in str(refused.value).lower()
