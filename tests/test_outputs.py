"""Files of predictions: every kind holds the same, arrives whole, and opens where users open it."""

import errno
import gzip
import json
import os
import resource
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import EXAMPLES, tiny_config
from typer.testing import CliRunner

from genedml.checkpoint import load_card
from genedml.config import TARGETS, LabelsConfig
from genedml.errors import GeneDMLError
from genedml_cli.app import app
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.files import storage
from genedml_cli.files.storage import atomic_folder
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs import spatialdata_store
from genedml_cli.outputs.formats import FORMATS, export, how_to_open, write
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of
from genedml_cli.outputs.predictions import add_tissue_image, spots_of, to_anndata
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.page import report
from genedml_cli.report.pictures import plot
from genedml_cli.runs.run import train
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spot_files import read_spots

GENES = ("ERBB2", "GNAS", "FASN", "XBP1", "CD74", "COL1A1")
IDS = ("ENSG00000141736", "ENSG00000087460", "ENSG00000169710", "ENSG00000100219", "", "ENSG00000108821")


@pytest.fixture(scope="module")
def prediction(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ``.h5ad`` of a slide whose genes follow the place of the spot, with layers and ids."""
    spots, file = read_spots(world / "spots" / "P1.csv"), tmp_path_factory.mktemp("prediction") / "p1.h5ad"
    place = spots.xy_px / spots.xy_px.max()
    rng = np.random.default_rng(0)
    y = place @ rng.normal(size=(2, len(GENES))) + 0.05 * rng.normal(size=(len(spots), len(GENES))) + 2
    record = PredictionRecord(
        genedml="0",
        slide="p1.svs",
        slide_sha256="0",
        encoder="tiny",
        method="gene-dml",
        label_settings=LabelsConfig(),
        notes=(Note(Mark.PARTIAL, "a test."),),
        models=("fold-1.safetensors 0",),
        panels=(" ".join(GENES),),
        um_per_px=1.0,
    )
    data = to_anndata(y, GENES, spots, record, {"std": np.full(y.shape, 0.125)}, IDS)
    data.obs["novelty"] = rng.random(len(spots))
    for name in ("training_mean", "depth_slope", "depth_intercept"):
        data.var[name] = 0.0
    with open_slide(world / "slides" / "P1.tif") as slide:
        add_tissue_image(data, slide, spots)
    write(data, file)
    return file


@pytest.fixture
def data(prediction: Path) -> anndata.AnnData:
    """What :func:`prediction` holds."""
    return anndata.read_h5ad(prediction)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_kind_is_written_whole_and_says_how_to_open_it(data, tmp_path, suffix, monkeypatch):
    if suffix == ".zarr":
        pytest.importorskip("spatialdata")
    path = tmp_path / "new" / f"out{suffix}"
    write(data, path)
    assert path.exists()
    assert not [left for left in path.parent.iterdir() if left.name.startswith(".")]
    assert str(path) in how_to_open(path) or suffix == ".geojson"
    before = {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")}
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(GeneDMLError):
        write(data, path)
    assert {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")} == before


def test_strings_are_written_as_every_version_of_anndata_reads_them(prediction):
    """Of pandas 3 they would be of a kind that came with anndata 0.11."""
    kinds = set()
    with h5py.File(prediction) as file:
        file.visititems(lambda _, item: kinds.add(item.attrs.get("encoding-type")))
    assert "string-array" in kinds
    assert not {kind for kind in kinds if kind and kind.startswith("nullable")}


def test_an_unknown_suffix_is_refused_before_any_work(tmp_path):
    with pytest.raises(GeneDMLError, match=r"out\.xlsx must end with one of \.h5ad, \.zarr, \.csv"):
        predict(tmp_path / "no.svs", tmp_path / "no.csv", tmp_path / "no", out=tmp_path / "out.xlsx")


def test_without_spatialdata_the_sentence_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(spatialdata_store, "find_spec", lambda name: None)
    with pytest.raises(GeneDMLError, match=r"pip install 'genedml\[spatialdata\]'"):
        predict(tmp_path / "no.svs", tmp_path / "no.csv", tmp_path / "no", out=tmp_path / "out.zarr")


def test_a_wide_table_has_a_column_a_gene_and_its_units_beside_it(data, tmp_path):
    write(data, tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table.columns) == ["spot", "x_px", "y_px", "array_row", "array_col", "novelty", *GENES]
    assert list(table["spot"]) == list(data.obs_names)
    assert np.array_equal(table[["x_px", "y_px"]], data.obsm["spatial"])
    assert np.array_equal(table[list(GENES)].astype(np.float32), data.X)
    beside = json.loads((tmp_path / "out.csv-metadata.json").read_text())
    columns = beside["tableSchema"]["columns"]
    assert [column["titles"] for column in columns] == list(table.columns)
    assert columns[6]["dc:description"].startswith("predicted label of ERBB2 (ENSG00000141736): log10(1 + 10000")
    assert columns[10]["dc:description"].startswith("predicted label of CD74: log10")
    assert beside["notes"][0]["notes"] == ["PARTIAL: a test."]


def test_a_table_that_cannot_be_written_leaves_the_earlier_one_and_its_units(data, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    write(data, tmp_path / "out.csv")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(GeneDMLError):
        write(data[:, :2].copy(), tmp_path / "out.csv")
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_a_compressed_table_is_the_same_text(data, tmp_path):
    for name in ("out.csv", "out.csv.gz"):
        write(data, tmp_path / name)
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()) == (tmp_path / "out.csv").read_bytes()


def test_a_long_table_has_a_row_a_spot_and_gene_and_the_layers(data, tmp_path):
    write(data, tmp_path / "out.parquet", long=True)
    table = pd.read_parquet(tmp_path / "out.parquet")
    places = ["spot", "x_px", "y_px", "array_row", "array_col", "novelty"]
    assert list(table.columns) == [*places, "gene", "gene_id", "predicted", "std"]
    assert len(table) == data.n_obs * data.n_vars
    again = table.pivot(index="spot", columns="gene", values="predicted").loc[list(data.obs_names), list(GENES)]
    assert np.array_equal(again, data.X)
    assert (table["std"] == 0.125).all()
    assert dict(zip(table["gene"], table["gene_id"], strict=True)) == dict(zip(GENES, IDS, strict=True))
    assert "log10(1 + 10000" in table.attrs["genedml"]["columns"]["predicted"]
    assert "panels" not in table.attrs["genedml"]


def test_qupath_gets_a_round_detection_a_spot_with_genes_as_measurements(data, tmp_path):
    data.X[1, 0] = np.nan
    write(data, tmp_path / "out.geojson")
    collection = json.loads((tmp_path / "out.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    assert "log10(1 + 10000" in collection["genedml"]["label"]
    assert len(collection["features"]) == data.n_obs
    first, second = collection["features"][:2]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["name"] == data.obs_names[0]
    assert list(first["properties"]["measurements"]) == [*GENES, "novelty"]
    assert first["properties"]["measurements"]["GNAS"] == pytest.approx(data.X[0, 1], abs=1e-5)
    assert "ERBB2" not in second["properties"]["measurements"]
    (ring,) = first["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    corners = np.array(ring)
    radius = next(iter(data.uns["spatial"].values()))["scalefactors"]["spot_diameter_fullres"] / 2
    # QuPath makes an ellipse of the polygon's bounding box.
    assert first["geometry"]["isEllipse"]
    assert np.allclose(corners.min(axis=0), data.obsm["spatial"][0] - radius, atol=0.01)
    assert np.allclose(corners.max(axis=0), data.obsm["spatial"][0] + radius, atol=0.01)


def test_spatialdata_has_image_spots_and_table_in_level_0_pixels(world, prediction, data, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    export(prediction, tmp_path / "out.zarr")
    store = spatialdata.read_zarr(tmp_path / "out.zarr")
    with open_slide(world / "slides" / "P1.tif") as slide:
        width, height = slide.size_px
    extent = spatialdata.get_extent(store["image"], coordinate_system="global")
    assert extent["x"] == pytest.approx((0, width))
    assert extent["y"] == pytest.approx((0, height), abs=3)
    centres = np.stack([store["spots"].geometry.x, store["spots"].geometry.y], axis=1)
    assert np.array_equal(centres, data.obsm["spatial"])
    scales = next(iter(data.uns["spatial"].values()))["scalefactors"]
    assert np.allclose(store["spots"]["radius"], scales["spot_diameter_fullres"] / 2)
    for name in ("image", "spots", "table"):
        spatialdata.models.get_model(store[name])().validate(store[name])
    shapes, table = spatialdata.match_element_to_table(store, "spots", "table")
    assert list(shapes["spots"].index) == list(table.obs_names) == list(data.obs_names)
    assert np.array_equal(table.X, data.X)
    assert table.uns["genedml"]["label"] == data.uns["genedml"]["label"]


def test_a_store_is_replaced_but_no_other_folder(data, tmp_path):
    pytest.importorskip("spatialdata")
    write(data[:, :2].copy(), tmp_path / "out.zarr")
    write(data, tmp_path / "out.zarr")
    assert anndata.read_zarr(tmp_path / "out.zarr" / "tables" / "table").n_vars == len(GENES)
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("kept")
    with pytest.raises(GeneDMLError):
        write(data, tmp_path / "mine.zarr")
    assert (tmp_path / "mine.zarr" / "thesis.txt").read_text() == "kept"


def test_a_store_whose_exchange_is_stopped_is_the_earlier_one(tmp_path, monkeypatch):
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "earlier").write_text("kept")
    replace, calls = Path.replace, iter(range(10))

    def stopped(self: Path, target: Path) -> Path:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out.zarr") as folder:
        folder.mkdir(exist_ok=True)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "out.zarr",
        "out.zarr/earlier",
    ]


def test_export_takes_the_named_genes_in_their_order(prediction, tmp_path):
    written = export(prediction, tmp_path / "two.csv", ["FASN", "ERBB2", "FASN"])
    assert list(written.var_names) == ["FASN", "ERBB2"]
    assert list(pd.read_csv(tmp_path / "two.csv").columns[-2:]) == ["FASN", "ERBB2"]


def test_what_cannot_be_exported_is_refused(prediction, data, tmp_path):
    with pytest.raises(GeneDMLError, match=r"does not predict ERBB3\. Near to that: ERBB2"):
        export(prediction, tmp_path / "out.csv", ["ERBB3"])
    with pytest.raises(GeneDMLError, match=r"does not predict ACTB, TNF\. All 6 genes"):
        export(prediction, tmp_path / "out.csv", ["ACTB", "TNF"])
    with pytest.raises(GeneDMLError):
        export(prediction, tmp_path / "out.csv", min_cv_pcc=0.5)
    with pytest.raises(GeneDMLError, match=r"out\.geojson cannot be long; only tables can: \.csv, \.csv\.gz, \.parq"):
        export(prediction, tmp_path / "out.geojson", long=True)
    with pytest.raises(GeneDMLError):
        export(prediction, prediction, ["ERBB2"])
    anndata.AnnData(np.ones((2, 2), np.float32)).write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(GeneDMLError):
        export(tmp_path / "other.h5ad", tmp_path / "out.csv")
    data.var_names = ["spot", *GENES[1:]]
    with pytest.raises(GeneDMLError, match="The gene spot has the name of another column"):
        write(data, tmp_path / "out.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["other.h5ad"]


def test_a_section_of_a_run_has_no_image_and_spots_of_half_the_pitch(data, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    diameter = next(iter(data.uns.pop("spatial").values()))["scalefactors"]["spot_diameter_fullres"]
    write(data, tmp_path / "out.zarr")
    store = spatialdata.read_zarr(tmp_path / "out.zarr")
    assert not store.images
    assert np.allclose(store["spots"]["radius"], diameter / 2)


def test_squidpy_uses_the_file_unchanged(prediction):
    squidpy = pytest.importorskip("squidpy")
    data = anndata.read_h5ad(prediction)
    # Releases from 1.9 on have only the second name.
    name = "spatial_neighbors" if hasattr(squidpy.gr, "spatial_neighbors") else "spatial_neighbors_grid"
    getattr(squidpy.gr, name)(data, n_neighs=4)
    squidpy.gr.spatial_autocorr(data, mode="moran", show_progress_bar=False)
    assert (data.uns["moranI"]["I"] > 0.5).all()
    panels = squidpy.pl.spatial_scatter(data, color=["GNAS", "FASN"], return_ax=True)
    assert len(panels) == 2
    assert all(panel.images for panel in panels)


@pytest.mark.parametrize(
    ("script", "needs", "picture", "line"),
    [
        ("scanpy_clusters.py", "leidenalg", "clusters.png", "spots: "),
        ("squidpy_neighbors.py", "squidpy", "structured.png", "most structured: "),
    ],
)
def test_the_examples_run(prediction, tmp_path, script, needs, picture, line, monkeypatch, capsys):
    pytest.importorskip(needs)
    monkeypatch.setattr(sys, "argv", [script, str(prediction), str(tmp_path / "figures")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert line in shown
    assert any(gene in shown for gene in GENES)
    assert (tmp_path / "figures" / picture).stat().st_size > 10_000


def test_residuals_say_their_units_and_go_through_scanpy(prediction, tmp_path, monkeypatch, capsys):
    pytest.importorskip("leidenalg")
    data = anndata.read_h5ad(prediction)
    record = replace(record_of(data), label_settings=TARGETS["pearson"])
    residuals = to_anndata(data.X - data.X.mean(axis=0), tuple(data.var_names), spots_of(data), record)
    assert "log1p" not in residuals.uns
    residuals.uns["spatial"] = data.uns["spatial"]
    residuals.write_h5ad(tmp_path / "residuals.h5ad")
    monkeypatch.setattr(sys, "argv", ["scanpy_clusters.py", str(tmp_path / "residuals.h5ad"), str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / "scanpy_clusters.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "in Pearson residual of the count" in capsys.readouterr().out


def test_ids_go_from_the_counts_into_the_model_and_the_prediction(world, tmp_path):
    sheet = pd.read_csv(world / "samples.csv")
    for place, counts in enumerate(sheet["counts"]):
        table = pd.read_csv(world / counts, sep="\t", index_col=0)
        ids = [f"ENSG{number:011d}" for number in range(table.shape[1])]
        ids[3] = f"ENSG9999999999{place}"
        var = pd.DataFrame({"gene_ids": ids}, index=table.columns)
        section = anndata.AnnData(table.to_numpy(np.float32), pd.DataFrame(index=table.index), var)
        section.write_h5ad(tmp_path / f"{place}.h5ad")
        sheet.loc[place, "counts"] = str(tmp_path / f"{place}.h5ad")
    sheet.to_csv(tmp_path / "sheet.csv", index=False)
    samples, run = read_sheet(tmp_path / "sheet.csv", root=world), tmp_path / "run"
    train(samples, run, tiny_config("views.neighbor_grid=1"), fold="P1", panel="all", features=tmp_path / "features")
    card = load_card(run / "fold-P1.safetensors")
    known = dict(zip(table.columns, ids, strict=True)) | {table.columns[3]: ""}
    assert dict(zip(card.genes, card.gene_ids, strict=True)) == known
    data = predict(world / "slides" / "P1.tif", world / "spots" / "P1.csv", run)
    assert data.var["gene_ids"].to_dict() == known
    assert anndata.read_h5ad(run / "predictions" / "P1.h5ad").var["gene_ids"].to_dict() == known


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_takes_no_more_is_a_sentence_and_leaves_nothing(data, tmp_path, suffix):
    if suffix == ".zarr":
        pytest.importorskip("spatialdata")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(GeneDMLError, match=rf"out\{suffix}.* cannot be written: .*File too large"):
            write(data, tmp_path / f"out{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_too_small_to_write_is_a_sentence_and_leaves_nothing(data, tmp_path):
    """libhdf5 crashes where memory is lacking, so it is asked before, and a limit of the process counts."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**20, before[1]))
    try:
        with pytest.raises(GeneDMLError, match=r"To write .*out\.h5ad takes 0\.\d\d GB of memory; \d\.\d+ MB are free"):
            write(data, tmp_path / "out.h5ad")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def locked_run(run, tmp_path, monkeypatch) -> Path:
    """A run on a disk that takes nothing, as a read-only mount; tests may run as root, whom no permission stops."""
    folder = tmp_path / "locked"
    shutil.copytree(run, folder)
    (folder / "metrics.csv").unlink()
    new_part, access = storage.new_part, os.access

    def refused(path: Path) -> Path:
        if path.is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return new_part(path)

    monkeypatch.setattr(storage, "new_part", refused)
    monkeypatch.setattr(os, "access", lambda path, mode: (path != folder or mode != os.W_OK) and access(path, mode))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_run_that_cannot_be_written_is_scored_and_reported_all_the_same(run, locked_run, capfd):
    result = evaluate(locked_run)
    pd.testing.assert_frame_equal(result.summary(), evaluate(run).summary())
    assert not result.written
    assert "The scores are not kept:" in " ".join(capfd.readouterr().err.split())
    shown = CliRunner().invoke(app, ["evaluate", str(locked_run)])
    assert shown.exit_code == 0
    assert "The same as CSV" not in shown.stdout
    assert not (locked_run / "metrics.csv").exists()
    assert report(locked_run) == Path("locked.report.html")
    assert Path("locked.report.html").stat().st_size > 10_000


@pytest.mark.parametrize("suffix", [".h5ad", ".csv", ".zarr"])
def test_a_result_that_is_there_is_written_over_only_when_told_to(prediction, tmp_path, suffix):
    if suffix == ".zarr":
        pytest.importorskip("spatialdata")
    out = tmp_path / f"out{suffix}"
    export(prediction, out)
    content = out.read_bytes() if out.is_file() else sorted(out.rglob("*"))
    with pytest.raises(GeneDMLError, match=r"is there already\. Give another --out, or write over it with --force\."):
        export(prediction, out, genes=["GNAS"])
    assert content == (out.read_bytes() if out.is_file() else sorted(out.rglob("*")))
    assert export(prediction, out, genes=["GNAS"], force=True).n_vars == 1


def test_predict_refuses_an_older_result_before_it_loads_a_model(run, p1, tmp_path):
    out = tmp_path / "p1.h5ad"
    out.write_text("of last week")
    with pytest.raises(GeneDMLError):
        predict(p1["slide"], p1["spots"], tmp_path / "no-model", out)
    assert out.read_text() == "of last week"
    data = predict(p1["slide"], p1["spots"], run, out, fold="P1", force=True)
    assert anndata.read_h5ad(out).shape == data.shape


def test_public_calls_take_paths_as_text(prediction, run, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export(str(prediction), "out.csv").n_vars == len(GENES)
    assert Path("out.csv").is_file()
    assert evaluate(str(run)).folder == run
    assert plot([str(run)], ["TUMOR1"], "out.png")[0] == Path("out.png")
    slide, spots = (str(world / name) for name in ("slides/P1.tif", "spots/P1.csv"))
    data = predict(slide, spots, str(run), "out.h5ad", fold="P1", weights=None)
    assert anndata.read_h5ad("out.h5ad").shape == data.shape
    assert read_sheet(str(world / "samples.csv")) == read_sheet(world / "samples.csv")
    assert report("out.h5ad", "out.html") == Path("out.html")
