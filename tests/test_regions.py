"""Outlines as QuPath's users have them: classes to be ignored, lines, packed files, and where x and y begin."""

import gzip
import json
import pickle
import zipfile

import anndata
import numpy as np
import pytest
from PIL import Image
from scanned import write_leica
from test_tissue import HOLED, UM_PER_PX, feature, overlap, picture, planted, polygon, ring, slide_of

from genedml.config import LabelsConfig, ViewsConfig
from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import Sample
from genedml_cli.features.extraction import extract
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.prediction_record import PredictionRecord
from genedml_cli.outputs.predictions import to_anndata
from genedml_cli.slides.slide import open_slide
from genedml_cli.slides.tissue import read_tissue
from genedml_cli.spots.placing import Placing, place_spots

ALL = polygon(ring(100, 120, 300, 320))
LEFT = polygon(ring(100, 120, 200, 320))


def classed(geometry, classification):
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": classification, "isLocked": True}}


@pytest.mark.parametrize(
    "classification",
    [
        "Artefact*",
        {"name": "Ignore*", "color": [180, 180, 180]},
        {"name": "Ignore*: Positive", "colorRGB": -1},
        {"names": ["Tumor", "Background*"], "color": [1, 2, 3]},
        {"name": "Positive", "parent": {"name": "Ignore*"}},
    ],
)
def test_areas_of_classes_with_an_asterisk_are_taken_out_whatever_wrote_them(tmp_path, capsys, classification):
    stored = {"type": "FeatureCollection", "features": [classed(LEFT, classification), classed(ALL, {"name": "Tumor"})]}
    (tmp_path / "r.geojson").write_text(json.dumps(stored))
    expected = planted()
    expected[:, :200] = False
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), expected) == 1
    assert "* are taken out of the tissue, as QuPath ignores them" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("classification", [None, "Region*", {"name": "Region*"}, {"names": ["Stroma"]}, {}])
def test_other_classes_and_qupaths_region_are_tissue(tmp_path, classification):
    (tmp_path / "r.geojson").write_text(json.dumps([classed(ALL, classification)]))
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), planted()) == 1


def test_a_hole_of_what_is_ignored_stays_tissue_and_its_class_counts_in_collections(tmp_path):
    within = {"type": "GeometryCollection", "geometries": [HOLED, {"type": "Point", "coordinates": [1, 2]}]}
    (tmp_path / "r.geojson").write_text(json.dumps([classed(ALL, None), classed(within, "Ignore*")]))
    expected = np.zeros_like(planted())
    expected[180:260, 160:240] = True
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), expected) > 0.94  # an edge that is drawn twice


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([classed(ALL, "Ignore*")], r"holds no area but those of Ignore\*, which QuPath ignores"),
        ([{**feature(ALL), "properties": {"isMissing": True}}], r"holds no area but missing TMA cores"),
        ([classed(LEFT, "Tumor"), classed(ALL, "Ignore*")], r"cover all its tissue"),
    ],
)
def test_a_file_of_nothing_but_what_is_ignored_is_refused(tmp_path, stored, message):
    (tmp_path / "r.geojson").write_text(json.dumps(stored))
    with slide_of(picture(), tmp_path) as slide, pytest.raises(GeneDMLError, match=message):
        read_tissue(tmp_path / "r.geojson", slide)


def test_lines_and_points_are_left_out_with_a_note(tmp_path, capsys):
    lines = [
        {"type": "LineString", "coordinates": [[0, 0], [99, 99]]},
        {"type": "MultiLineString", "coordinates": [[[0, 0], [99, 99]]]},
        {"type": "Point", "coordinates": [5, 5]},
        {"type": "MultiPoint", "coordinates": [[5, 5]]},
    ]
    (tmp_path / "r.geojson").write_text(json.dumps([*map(feature, lines), feature(ALL)]))
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), planted()) == 1
    assert "r.geojson: 4 objects without an area (lines, points) left out." in capsys.readouterr().err


def tma_core(geometry, is_missing):
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "tmaCore", "isMissing": is_missing}}


def test_missing_cores_of_a_tissue_microarray_are_no_tissue_and_are_counted_in_a_note(tmp_path, capsys):
    right = polygon(ring(200, 120, 300, 320))
    cores = [tma_core(LEFT, True), tma_core(right, False)]
    (tmp_path / "r.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": cores}))
    expected = planted()
    expected[:, :200] = False
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), expected) == 1
    assert "r.geojson: 1 missing TMA core left out." in capsys.readouterr().err


def test_what_is_drawn_on_a_missing_core_stays_tissue(tmp_path):
    (tmp_path / "r.geojson").write_text(json.dumps([tma_core(LEFT, True), feature(ALL)]))
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), planted()) == 1


@pytest.mark.parametrize("name", ["r.geojson.gz", "r.json.gz", "r.zip", "r.geojson.zip"])
def test_packed_outlines_are_read(tmp_path, name):
    text = json.dumps(feature(ALL)).encode()
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            packed.writestr("r.geojson", text)
    else:
        (tmp_path / name).write_bytes(gzip.compress(text))
    with slide_of(picture(), tmp_path) as slide:
        assert overlap(read_tissue(tmp_path / name, slide), planted()) == 1


def test_a_zip_without_outlines_or_that_is_none_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as packed:
        packed.writestr("readme.txt", "none")
    (tmp_path / "s.zip").write_bytes(b"none")
    with slide_of(picture(), tmp_path) as slide:
        with pytest.raises(GeneDMLError, match="holds 0 files of GeoJSON, not one"):
            read_tissue(tmp_path / "r.zip", slide)
        with pytest.raises(GeneDMLError, match=r"s\.zip cannot be read as GeoJSON"):
            read_tissue(tmp_path / "s.zip", slide)


CANVAS, AT = (1300, 900), (700, 400)


@pytest.fixture
def leica(tmp_path):
    """The picture as the scanned area of a larger canvas."""
    write_leica(tmp_path / "slide.scn", picture(), AT, CANVAS, UM_PER_PX)
    return tmp_path / "slide.scn"


def on_canvas() -> np.ndarray:
    mask = np.zeros(CANVAS[::-1], dtype=bool)
    mask[AT[1] : AT[1] + 400, AT[0] : AT[0] + 500] = planted()
    return mask


def test_outlines_count_from_the_scanned_area_as_qupaths_do(leica, tmp_path, capsys):
    (tmp_path / "r.geojson").write_text(json.dumps(feature(ALL)))
    with open_slide(leica) as slide:
        assert (slide.size_px, slide.origin_xy) == (CANVAS, AT)
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), on_canvas()) > 0.98
    assert "counted from the scanned area (500 x 400 px at x 700, y 400)" in " ".join(capsys.readouterr().err.split())


def test_outlines_that_do_not_fit_the_scanned_area_count_from_the_canvas(leica, tmp_path, capsys):
    (tmp_path / "r.geojson").write_text(json.dumps(polygon(ring(800, 520, 1000, 720))))
    with open_slide(leica) as slide:
        assert overlap(read_tissue(tmp_path / "r.geojson", slide), on_canvas()) > 0.98
    assert "are taken from the corner of the whole canvas" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("of", ["canvas", "scanned area"])
def test_a_mask_is_of_the_canvas_or_of_the_scanned_area_by_its_proportions(leica, tmp_path, of):
    mask = on_canvas() if of == "canvas" else planted()
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with open_slide(leica) as slide:
        assert overlap(read_tissue(tmp_path / "mask.png", slide), on_canvas()) > 0.99


def test_a_mask_that_may_be_of_both_is_refused(tmp_path):
    write_leica(tmp_path / "slide.scn", picture(), AT, (1500, 1200), UM_PER_PX)
    Image.fromarray(planted()).save(tmp_path / "mask.png")
    with open_slide(tmp_path / "slide.scn") as slide, pytest.raises(GeneDMLError, match="may be of the whole canvas"):
        read_tissue(tmp_path / "mask.png", slide)


def first_centre(path) -> np.ndarray:
    (outline,) = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"]
    corners = np.array(outline)
    return (corners.min(axis=0) + corners.max(axis=0)) / 2


def test_spots_go_to_qupath_as_it_counts_also_from_an_h5ad_written_before(leica, tmp_path):
    (tmp_path / "s.csv").write_text("name,x,y\na,900,600\nb,950,600\n")
    with place_spots(leica, tmp_path / "s.csv", Placing(allow_off_tissue=True)) as placed:
        spots, origin_xy = placed.spots, placed.slide.origin_xy
    record = PredictionRecord(
        genedml="0",
        method="gene-dml",
        label_settings=LabelsConfig(),
        notes=(),
        fold="1",
        sample="s",
        qupath_origin_xy_px=origin_xy,
    )
    data = to_anndata(np.zeros((2, 1), np.float32), ["GNAS"], spots, record)
    assert data.obsm["spatial"][0].tolist() == [900, 600]
    write(data, tmp_path / "p.h5ad")
    write(data, tmp_path / "at_once.geojson")
    write(anndata.read_h5ad(tmp_path / "p.h5ad"), tmp_path / "later.geojson")
    for name in ("at_once", "later"):
        assert first_centre(tmp_path / f"{name}.geojson") == pytest.approx([200, 200], abs=0.01)


def test_features_of_a_run_know_where_qupath_counts_from_in_other_processes_too(leica, tmp_path):
    (tmp_path / "s.csv").write_text("name,x,y\na,900,600\nb,950,600\n")
    sample = Sample("s", leica, tmp_path / "s.csv", tmp_path / "none.csv", "p", "1", 1.0)
    features = extract([sample], load_encoder("tiny"), ViewsConfig(neighbor_grid=1), tmp_path / "features")["s"]
    assert features.origin_xy == AT
    assert pickle.loads(pickle.dumps(features)).origin_xy == AT
