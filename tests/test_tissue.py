"""Tissue: what is found is what was painted, whatever else is on the glass; what the user draws goes before it."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from genedml.errors import GeneDMLError
from genedml_cli.datasets.synthetic import SyntheticConfig, make_section
from genedml_cli.slides.slide import Slide, open_slide
from genedml_cli.slides.tissue import Tissue, find_tissue, read_tissue

UM_PER_PX = 4.0
PINK, PURPLE, GLASS = (214, 130, 178), (120, 84, 150), (243, 242, 243)
SQUARE = (100, 120, 300, 320)  # left, top, right, bottom, in pixels: 0.64 mm2


def picture(glass=GLASS, size=(500, 400)) -> Image.Image:
    """A square of eosin with a core of haematoxylin on glass."""
    image = Image.new("RGB", size, glass)
    draw = ImageDraw.Draw(image)
    draw.rectangle((SQUARE[0], SQUARE[1], SQUARE[2] - 1, SQUARE[3] - 1), fill=PINK)
    draw.rectangle((150, 170, 249, 269), fill=PURPLE)
    return image


def slide_of(image: Image.Image, folder: Path, um_per_px: float | None = UM_PER_PX) -> Slide:
    image.save(folder / "slide.png")
    return open_slide(folder / "slide.png", um_per_px)


def planted() -> np.ndarray:
    mask = np.zeros((400, 500), dtype=bool)
    mask[SQUARE[1] : SQUARE[3], SQUARE[0] : SQUARE[2]] = True
    return mask


def overlap(tissue: Tissue, expected: np.ndarray) -> float:
    """Intersection over union, pixel by pixel of level 0."""
    height, width = expected.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    found = tissue.holds(np.column_stack([x, y]) + 0.5).reshape(height, width)
    return (found & expected).sum() / (found | expected).sum()


LIGHTS = {
    "grey glass": (0.85, 0.85, 0.85),
    "dark glass": (0.5, 0.5, 0.5),
    "yellow glass": (1.0, 0.97, 0.7),
    "bluish glass": (0.9, 0.95, 1.0),
}
PENS = {
    "black pen": (25, 22, 30),
    "green pen": (20, 140, 70),
    "blue pen": (30, 60, 175),
    "red pen": (190, 35, 55),
    "magenta pen": (200, 20, 130),
    "purple pen": (110, 40, 150),
    "orange pen": (235, 120, 30),
    "brown pen": (110, 65, 40),
    "yellow pen": (245, 225, 60),
}


def dirty(kind: str) -> Image.Image:
    """The picture with something on it that is no tissue."""
    image = picture((238, 218, 238) if kind == "pink glass" else GLASS)
    if kind in LIGHTS:
        image = Image.fromarray(np.round(np.asarray(image) * LIGHTS[kind]).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    if kind in PENS:
        draw.line((340, 30, 470, 360), fill=PENS[kind], width=40)
        image.paste(image.crop((320, 0, 500, 400)).filter(ImageFilter.GaussianBlur(3)), (320, 0))
    if kind == "dark border":
        draw.rectangle((0, 0, 499, 399), outline=(12, 10, 14), width=24)
    if kind == "coverslip edge":
        draw.line((60, 0, 70, 399), fill=(148, 150, 152), width=5)
        draw.line((65, 0, 75, 399), fill=(255, 255, 255), width=4)
        draw.line((0, 365, 499, 355), fill=(120, 122, 125), width=3)
    if kind == "dust":
        draw.ellipse((380, 80, 440, 140), fill=(90, 90, 92))
    if kind == "JPEG noise":
        stored = io.BytesIO()
        noise = np.random.default_rng(1).normal(0, 9, (400, 500, 3))
        Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(stored, "JPEG", quality=30)
        return Image.open(stored)
    if kind == "transparent":
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray(np.where(planted(), 255, 0).astype(np.uint8)))
    return image


@pytest.mark.parametrize("quality", [None, 30, 90])
@pytest.mark.parametrize("um_per_px", [UM_PER_PX, 2 * UM_PER_PX])
def test_tissue_beside_black_padding_is_kept_and_padding_is_none(tmp_path, um_per_px, quality):
    section = picture().crop((0, 120, 300, 320))  # its tissue reaches three edges
    expected = np.zeros((256, 317), dtype=bool)
    expected[:200, :300] = planted()[120:320, :300]
    whole = Image.new("RGB", (317, 256))
    whole.paste(section)
    if quality:
        stored = io.BytesIO()
        whole.save(stored, "JPEG", quality=quality)
        whole = Image.open(stored)
    with slide_of(whole, tmp_path, um_per_px) as slide:
        tissue = find_tissue(slide)
    assert overlap(tissue, expected) > 0.98
    assert not tissue.holds(np.array([[300.5, 100], [100, 200.5], [316, 255]])).any()


def test_tissue_of_a_picture_that_was_turned_on_black_is_found(tmp_path):
    section = picture().crop((100, 120, 300, 400))  # its tissue reaches three edges
    expected = np.asarray(Image.fromarray(planted()[120:400, 100:300]).rotate(20, expand=True))
    with slide_of(section.rotate(20, expand=True), tmp_path) as slide:
        assert overlap(find_tissue(slide), expected) > 0.95


@pytest.mark.parametrize(
    "kind",
    [
        "clean",
        *LIGHTS,
        *PENS,
        "pink glass",
        "dark border",
        "coverslip edge",
        "dust",
        "JPEG noise",
        "transparent",
    ],
)
def test_the_painted_tissue_is_found_and_nothing_else(tmp_path, kind):
    with slide_of(dirty(kind), tmp_path) as slide:
        assert overlap(find_tissue(slide), planted()) > 0.9


def stroma(dilution: float, light: tuple[float, float, float]) -> Image.Image:
    """The square as uneven tissue with ``dilution`` of a section's stain, beside eosin that bled into the glass."""
    nuclei = gaussian_filter(np.random.default_rng(3).normal(0, 1, (400, 500)), 3)
    depth = planted() * np.clip(0.2 + 0.1 * nuclei / nuclei.std(), 0.02, None) * dilution
    bled = gaussian_filter(np.roll(planted(), 130, axis=1) * 0.04, 25)
    density = (depth + bled * ~planted())[..., None] * np.array([0.6, 1.25, 0.65])
    glass = np.array(GLASS) * light
    return Image.fromarray(np.round((glass + 1) * 10**-density - 1).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("light", [(1.0, 1.0, 1.0), (0.6, 0.6, 0.55)])
@pytest.mark.parametrize("dilution", [1.0, 0.5, 0.35])
def test_pale_stroma_is_tissue_and_eosin_in_the_glass_is_not(tmp_path, dilution, light):
    with slide_of(stroma(dilution, light), tmp_path) as slide:
        assert overlap(find_tissue(slide), planted()) > 0.93


@pytest.mark.parametrize("depth", [0.3, 0.15])
def test_fat_is_tissue_where_its_membranes_are_seen(tmp_path, depth):
    """The right half of the square is lumens of 80 um between membranes of 4 um."""
    image = np.asarray(picture()).copy()
    y, x = np.mgrid[:400, :500]
    membrane = (x % 20 == 0) | ((y + 10 * (x // 20 % 2)) % 20 == 0)
    fat = planted() & (x >= 200)
    shade = 10 ** -(depth * membrane[fat][:, None] * np.array([0.35, 1.0, 0.5]))
    image[fat] = np.round(np.array(GLASS) * shade).astype(np.uint8)
    with slide_of(Image.fromarray(image), tmp_path) as slide:
        assert overlap(find_tissue(slide), planted()) > 0.93


@pytest.mark.parametrize(("depth", "torn"), [(0.3, 0.0), (0.15, 0.0), (0.3, 0.2)])
def test_fat_of_hardly_seen_and_torn_membranes_is_tissue_where_it_hangs_on_some(tmp_path, depth, torn):
    """Cells of 100 um with membranes of 2 um, drawn at 2 um/px, beside a square of uneven tissue and far from it."""
    chance = np.random.default_rng(4)
    places = np.stack(np.meshgrid(np.arange(1000) + 0.5, np.arange(800) + 0.5), -1)
    distances, nearest = cKDTree(chance.uniform(0, (1000, 800), (320, 2))).query(places, k=2)
    seen = chance.random((320, 320)) >= torn
    membrane = (np.diff(distances)[..., 0] < 1.4) & seen[nearest.min(axis=2), nearest.max(axis=2)]
    fat = np.zeros((800, 1000), dtype=bool)
    fat[240:640, 600:900] = True
    shade = 10 ** -(depth * (membrane & fat)[..., None] * np.array([0.35, 1.0, 0.5]))
    beside = np.asarray(stroma(1.0, (1.0, 1.0, 1.0)).resize((1000, 800)))
    image = Image.fromarray(np.round((beside * shade).clip(0, 255)).astype(np.uint8))
    with slide_of(image, tmp_path, 2.0) as slide:
        found = find_tissue(slide).holds(places.reshape(-1, 2)).reshape(800, 1000)
    assert found[fat].mean() > 0.6
    fat[240:640, 200:600] = True
    assert found[~fat].mean() < 0.01


def test_bluer_haematoxylin_is_no_ink(tmp_path):
    image = np.asarray(stroma(1.0, (1.0, 1.0, 1.0))).astype(float)
    bluer = Image.fromarray(np.round(GLASS * (image / GLASS) ** np.array([2.45, 1.0, 1.0])).astype(np.uint8))
    with slide_of(bluer, tmp_path) as slide:
        assert overlap(find_tissue(slide), planted()) > 0.93


def test_tissue_of_a_synthetic_slide_is_where_it_grew(world):
    section = make_section(SyntheticConfig(patients=3, spots_x=7, spots_y=6, genes=20), 1, 1)
    with open_slide(world / "slides/P1.tif") as slide:
        found = find_tissue(slide)
        grown = Tissue(section.tissue.inside > 0, slide.size_px, "grown")
        y, x = np.mgrid[: slide.size_px[1] : 7, : slide.size_px[0] : 7].reshape(2, -1)
        places = np.column_stack([x, y]).astype(float)
        here, there = found.holds(places), grown.holds(places)
        assert (here & there).sum() > 0.95 * (here | there).sum()
        assert found.holds(section.xy_px).all()


def test_small_holes_are_filled_and_specks_dropped_by_their_size_in_um(tmp_path):
    image = picture()
    draw = ImageDraw.Draw(image)
    for centre, radius in (((125, 150), 10), ((270, 280), 24), ((400, 60), 20), ((430, 250), 40)):
        x, y = centre
        inside = x < 300
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=GLASS if inside else PINK)
    # A hole of 5,000 um2 and one of 29,000; a speck of 20,000 um2 and a piece of 80,000.
    places = np.array([[125, 150], [270, 280], [400, 60], [430, 250]], float)
    with slide_of(image, tmp_path) as slide:
        assert find_tissue(slide).holds(places).tolist() == [True, False, False, True]
    with open_slide(tmp_path / "slide.png") as slide:
        assert find_tissue(slide).holds(places).tolist() == [False, False, True, True]


def test_glass_between_tissue_and_the_slides_edge_is_no_hole(tmp_path):
    image = Image.new("RGB", (200, 200), PINK)
    ImageDraw.Draw(image).rectangle((0, 0, 19, 199), fill=GLASS)
    with slide_of(image, tmp_path, um_per_px=2.0) as slide:
        found = find_tissue(slide)
        assert found.holds(np.array([[6.0, 100.0], [100.0, 100.0]])).tolist() == [False, True]


@pytest.mark.parametrize(("colour", "share"), [(GLASS, 0.0), (PINK, 1.0)])
def test_a_slide_of_one_kind_is_not_parted_into_two(tmp_path, colour, share):
    noise = np.random.default_rng(2).normal(0, 6, (300, 300, 3))
    image = Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
    with slide_of(image, tmp_path) as slide:
        assert find_tissue(slide).mask.mean() == share


def test_beyond_the_slide_there_is_no_tissue():
    everywhere = Tissue(np.ones((3, 4), dtype=bool), (400, 300), "all")
    places = np.array([[0, 0], [399.9, 299.9], [-0.1, 5], [400, 5], [5, 300]])
    assert everywhere.holds(places).tolist() == [True, True, False, False, False]
    assert everywhere.area_px == 120_000


MASKS = {
    "0 and 255": lambda mask: Image.fromarray(mask * np.uint8(255)),
    "0 and 1": lambda mask: Image.fromarray(mask * np.uint8(1)),
    "bits": lambda mask: Image.fromarray(mask),
    "16 bit": lambda mask: Image.fromarray(mask * np.uint16(900)),
    "colours": lambda mask: Image.fromarray(mask[..., None] * np.array([0, 0, 200], np.uint8)),
    "transparent": lambda mask: Image.fromarray(
        np.dstack([np.full((*mask.shape, 3), 255, np.uint8), mask * np.uint8(255)])
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_size_and_kind_says_what_is_tissue(tmp_path, kind):
    MASKS[kind](planted()[::5, ::5].copy()).save(tmp_path / "mask.png")
    with slide_of(picture(), tmp_path) as slide:
        tissue = read_tissue(tmp_path / "mask.png", slide)
    assert tissue.source == "mask.png"
    assert overlap(tissue, planted()) == 1


def polygon(*rings: list) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


def ring(left: float, top: float, right: float, bottom: float) -> list:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(geometry: dict) -> dict:
    return {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": geometry}


HOLED, OTHER = polygon(ring(100, 120, 300, 320), ring(160, 180, 240, 260)), polygon(ring(400, -50, 600, 80))
BOTH = {"type": "MultiPolygon", "coordinates": [HOLED["coordinates"], OTHER["coordinates"]]}


@pytest.mark.parametrize(
    "stored",
    [
        BOTH,
        feature(BOTH),
        [feature(HOLED), feature(OTHER)],
        {"type": "FeatureCollection", "features": [feature(HOLED), feature(OTHER)]},
        {"type": "GeometryCollection", "geometries": [HOLED, OTHER]},
    ],
    ids=["geometry", "feature", "list", "collection", "geometries"],
)
def test_outlines_as_qupath_exports_them_say_what_is_tissue_holes_left_out(tmp_path, stored):
    (tmp_path / "regions.geojson").write_text(json.dumps(stored))
    expected = planted()
    expected[180:260, 160:240] = False
    expected[:80, 400:] = True
    with slide_of(picture(), tmp_path) as slide:
        tissue = read_tissue(tmp_path / "regions.geojson", slide)
    assert overlap(tissue, expected) > 0.97


def write_outline(folder: Path, scale: float) -> Path:
    path = folder / "r.geojson"
    path.write_text(json.dumps(polygon([[scale * x, scale * y] for x, y in ring(160, 170, 240, 250)])))
    return path


@pytest.mark.parametrize(("um_per_px", "enlarged"), [(0.5, 4), (2.0, 1)])
def test_outlines_in_micrometres_are_doubted_and_those_in_pixels_are_not(um_per_px, enlarged, tmp_path, capsys):
    image = picture().resize((500 * enlarged, 400 * enlarged), Image.Resampling.NEAREST)
    with slide_of(image, tmp_path, um_per_px) as slide:
        read_tissue(write_outline(tmp_path, enlarged), slide)
        assert capsys.readouterr().err == ""
        read_tissue(write_outline(tmp_path, enlarged * um_per_px), slide)
    doubt = "100% would be if their numbers were micrometres. They are taken for level-0 pixels"
    assert doubt in " ".join(capsys.readouterr().err.split())


def test_outlines_of_which_none_lies_on_the_slide_may_be_micrometres(tmp_path):
    with slide_of(picture(), tmp_path, 8.0) as slide:
        with pytest.raises(GeneDMLError, match=r"Are they micrometres\? Give level-0 pixels"):
            read_tissue(write_outline(tmp_path, 8.0), slide)
        with pytest.raises(GeneDMLError, match=r"Are they of another slide\?"):
            read_tissue(write_outline(tmp_path, 80.0), slide)


def test_overlapping_outlines_add_up(tmp_path):
    stored = [feature(HOLED), feature(polygon(ring(150, 150, 200, 200)))]
    (tmp_path / "regions.geojson").write_text(json.dumps(stored))
    with slide_of(picture(), tmp_path) as slide:
        holds = read_tissue(tmp_path / "regions.geojson", slide).holds(np.array([[180.0, 190.0], [220.0, 220.0]]))
    assert holds.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"r\.geojson cannot be read as GeoJSON: .*QuPath"),
        ("7", r"holds 'int', which is no closed area"),
        ('{"type": "Polygon"}', r"it lacks coordinates"),
        ('{"features": []}', r"it lacks type"),
        ('{"type": "FeatureCollection", "features": []}', r"holds no area\. Draw the tissue"),
        ('{"type": "Feature", "geometry": null}', r"holds no area"),
        ('{"type": "LineString", "coordinates": [[0, 0], [1, 1]]}', r"holds no area\. Draw the tissue"),
        (json.dumps(polygon([[0, 0], [1, 1]])), r"at least three corners"),
        (json.dumps(polygon([[0, 0], [1], [2, 2]])), r"cannot be read as GeoJSON"),
        (json.dumps(polygon(ring(0, 0, float("nan"), 9))), r"a corner that is on no slide"),
        (json.dumps(polygon(ring(0, 0, 1e300, 9))), r"a corner that is on no slide"),
        (
            json.dumps(polygon(ring(900, 900, 950, 990))),
            r"No area of .* lies on slide\.png \(500 x 400 px\).*900\.\.950",
        ),
        ("[" * 1_000_000, r"is nested too deeply"),
        ('{"type": "Feature", "geometry": ' * 100_000, r"is nested too deeply"),
        (json.dumps(polygon(ring(0, 0, 10**400, 9))), r"cannot be read as GeoJSON"),
        (json.dumps(polygon(ring(0, 0, float("inf"), 9))), r"a corner that is on no slide"),
        (json.dumps(polygon(ring(0, 0, 400, 300)) | {"type": ["Polygon"]}), r"which is no closed area"),
    ],
)
def test_outlines_that_are_refused(tmp_path, text, message):
    (tmp_path / "r.geojson").write_text(text)
    with slide_of(picture(), tmp_path) as slide, pytest.raises(GeneDMLError, match=message):
        read_tissue(tmp_path / "r.geojson", slide)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("part.png", Image.new("L", (100, 100), 1), r"100 x 100 px, which are not the proportions.*100 x 80 would be"),
        ("black.png", Image.new("L", (100, 80)), r"marks no tissue: all of it is black"),
        ("white.png", Image.new("L", (100, 80), 255), r"marks all of the slide as tissue\. Is it a mask"),
        ("mask.jpg", Image.new("L", (100, 80), 255), r"must end with \.geojson, .*\.png.*a JPEG would blur it"),
        ("huge.png", Image.new("1", (11_000, 8_800)), r"larger than a mask need be"),
    ],
)
def test_masks_that_are_refused(tmp_path, name, image, message):
    image.save(tmp_path / name)
    with slide_of(picture(), tmp_path) as slide, pytest.raises(GeneDMLError, match=message):
        read_tissue(tmp_path / name, slide)


def test_outlines_that_would_take_minutes_to_draw_are_refused(tmp_path):
    corners = np.random.default_rng(1).uniform(0, 400, (100_000, 2))
    (tmp_path / "r.geojson").write_text(json.dumps(polygon(corners.tolist())))
    with slide_of(picture(), tmp_path) as slide, pytest.raises(GeneDMLError, match=r"r\.geojson.* cross or overlap"):
        read_tissue(tmp_path / "r.geojson", slide)


@pytest.mark.parametrize("bit", range(0, 400, 40))
def test_no_changed_bit_of_the_pixels_of_a_mask_goes_unnoticed(tmp_path, bit):
    Image.fromarray(np.tri(80, 100, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    content = bytearray((tmp_path / "mask.png").read_bytes())
    content[content.index(b"IDAT") + 8 + bit // 8] ^= 1 << bit % 8
    (tmp_path / "mask.png").write_bytes(content)
    with slide_of(picture(), tmp_path) as slide, pytest.raises(GeneDMLError):
        read_tissue(tmp_path / "mask.png", slide)


def test_a_mask_of_another_format_than_its_name_says_is_not_even_parsed(tmp_path):
    Image.new("RGB", (100, 80), 1).save(tmp_path / "mask.eps")
    (tmp_path / "mask.eps").rename(tmp_path / "mask.png")
    with slide_of(picture(), tmp_path) as slide, pytest.raises(GeneDMLError):
        read_tissue(tmp_path / "mask.png", slide)


def test_a_broken_and_a_missing_mask_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    with slide_of(picture(), tmp_path) as slide:
        with pytest.raises(GeneDMLError, match=r"The mask .*broken\.png cannot be read"):
            read_tissue(tmp_path / "broken.png", slide)
        with pytest.raises(GeneDMLError, match=r"There is no .*gone\.png\. Check the path of --tissue"):
            read_tissue(tmp_path / "gone.png", slide)
