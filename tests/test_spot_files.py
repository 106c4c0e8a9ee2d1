"""Tables of spots as people have them: columns are told by their names, and a table of several sections is refused."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from genedml.errors import GeneDMLError
from genedml_cli.expression.counts import read_counts
from genedml_cli.spots.spot_files import read_spots

UNDER = [1, 0, 1, 1, 0, 0]
TABLE = pd.DataFrame(
    {
        "barcode": [f"{letters}-1" for letters in ("AAAC", "AAAG", "AACC", "ACAC", "AGAC", "ATTC")],
        "array_row": [3, 3, 4, 4, 5, 5],
        "array_col": [7, 8, 7, 8, 7, 8],
        "x": [700.0, 800.0, 701.0, 801.0, 702.0, 802.0],
        "y": [300.0, 301.0, 400.0, 401.0, 500.0, 501.0],
    }
)
XY_PX = TABLE[["x", "y"]].to_numpy()
FULLRES = {"x": "pxl_col_in_fullres", "y": "pxl_row_in_fullres"}


def write(table: pd.DataFrame, path: Path) -> Path:
    """A plain table, or with ``.h5ad`` its obs, indexed by barcode, with x and y in obsm."""
    if path.suffix == ".h5ad":
        write_h5ad(table.drop(columns=["x", "y"]), table[["x", "y"]].to_numpy(), path)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def write_h5ad(obs: pd.DataFrame, places: object, path: Path, pictures: tuple[str, ...] = ()) -> Path:
    data = anndata.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs.set_index("barcode"))
    if isinstance(places, pd.DataFrame):
        places = places.set_axis(data.obs_names)
    if places is not None:
        data.obsm["spatial"] = places
    data.uns["spatial"] = {name: {"scalefactors": {"tissue_hires_scalef": 1.0}} for name in pictures}
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "h5ad"])
@pytest.mark.parametrize(
    "values",
    [
        UNDER,
        [float(value) for value in UNDER],
        [bool(value) for value in UNDER],
        ["True" if value else "False" for value in UNDER],
        ["TRUE" if value else "FALSE" for value in UNDER],
        ["yes" if value else "No" for value in UNDER],
        ["1" if value else "0" for value in UNDER],
        pd.Categorical(["true" if value else "false" for value in UNDER]),
        pd.Categorical([bool(value) for value in UNDER]),
    ],
    ids=["numbers", "floats", "bool", "True", "TRUE", "yes", "text", "category", "bools"],
)
@pytest.mark.parametrize("columns", [{}, FULLRES])
def test_in_tissue_is_read_in_every_form_of_every_file(tmp_path, suffix, values, columns):
    if suffix == "h5ad" and columns:
        pytest.skip("positions are in obsm")
    table = TABLE.assign(in_tissue=values).rename(columns=columns)
    if suffix == "h5ad" and isinstance(values, pd.Categorical) and values.categories.dtype == bool:
        table["in_tissue"] = table["in_tissue"].astype(str)  # HDF5 keeps categories of texts
    spots = read_spots(write(table, tmp_path / f"spots.{suffix}"))
    assert spots.names == ("AAAC-1", "AACC-1", "ACAC-1")
    np.testing.assert_allclose(spots.xy_px, XY_PX[[0, 2, 3]])


@pytest.mark.parametrize("suffix", ["csv", "h5ad"])
@pytest.mark.parametrize("odd", ["maybe", 2, None])
def test_an_in_tissue_that_says_neither_is_refused_by_its_name(tmp_path, suffix, odd):
    table = TABLE.assign(in_tissue=pd.Series([*map(str, UNDER[:5]), None if odd is None else str(odd)]))
    with pytest.raises(GeneDMLError, match=r"The column in_tissue of .* holds .*, where 1 or 0 is due"):
        read_spots(write(table, tmp_path / f"spots.{suffix}"))


def test_a_column_of_the_kind_of_tissue_is_no_mark(tmp_path, capfd):
    assert len(read_spots(write(TABLE.assign(tissue="breast"), tmp_path / "spots.csv"))) == 6
    for values in (UNDER, ["1", "0", "2", "1", "1", "0"], ["stroma", "tumour"] * 3):
        assert len(read_spots(write(TABLE.assign(tissue=values), tmp_path / "classes.csv"))) == 6
    read_spots(write(TABLE.assign(tissue=UNDER), tmp_path / "seurat.csv"))
    told = " ".join(capfd.readouterr().err.split())
    assert "seurat.csv: the column tissue leaves out no spots; it would if it were called in_tissue." in told


@pytest.mark.parametrize("suffix", ["csv", "parquet", "h5ad"])
@pytest.mark.parametrize("column", ["in_tissue", "inTissue", "under_tissue", "on_tissue", "is_tissue", "Is Tissue"])
def test_every_column_that_says_on_tissue_leaves_out_spots_and_counts_them(tmp_path, suffix, column):
    spots = read_spots(write(TABLE.assign(**{column: UNDER}), tmp_path / f"spots.{suffix}"))
    assert spots.names == ("AAAC-1", "AACC-1", "ACAC-1")
    assert spots.left_out == f"3 of 6 spots left out by {column}"


def test_rows_left_out_by_two_columns_are_counted_together_and_none_are_not_spoken_of(tmp_path):
    table = TABLE.assign(in_tissue=UNDER, selected=[1, 1, 0, 1, 1, 1])
    assert read_spots(write(table, tmp_path / "a.csv")).left_out == "4 of 6 spots left out by in_tissue and selected"
    assert read_spots(write(TABLE.assign(in_tissue=1), tmp_path / "b.csv")).left_out == ""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("pxl_col_in_fullres", "pxl_row_in_fullres"),
        ("pixel_x", "pixel_y"),
        ("x_pixel", "y_pixel"),
        ("Pixel X", "Pixel Y"),
        ("x_px", "y_px"),
        ("imagecol", "imagerow"),
        ("image_col", "image_row"),
        ("X", "Y"),
        ("x_coord", "y_coord"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_positions_are_found_by_the_names_of_their_columns_in_any_order(tmp_path, suffix, x, y, order):
    table = TABLE.rename(columns={"x": x, "y": y})
    table = table[table.columns[::order]]
    spots = read_spots(write(table, tmp_path / f"spots.{suffix}"))
    np.testing.assert_allclose(spots.xy_px, XY_PX)
    assert spots.names == tuple(TABLE["barcode"])
    np.testing.assert_array_equal(spots.array_xy, TABLE[["array_col", "array_row"]])


def test_columns_that_say_pixels_go_before_x_and_y_and_what_was_read_is_said(tmp_path, capfd):
    table = TABLE.assign(pxl_col_in_fullres=XY_PX[:, 0], pxl_row_in_fullres=XY_PX[:, 1], x=0.5, y=0.25, id=range(6))
    np.testing.assert_allclose(read_spots(write(table, tmp_path / "both.csv")).xy_px, XY_PX)
    said = " ".join(capfd.readouterr().err.split())
    assert "positions are read from pxl_col_in_fullres, pxl_row_in_fullres, names from barcode" in said
    read_spots(write(TABLE, tmp_path / "plain.csv"))
    assert "are read from" not in capfd.readouterr().err


def test_whole_small_x_and_y_beside_pixels_are_array_positions_as_in_st_files(tmp_path):
    table = TABLE.rename(columns={"x": "x_pixel", "y": "y_pixel", "array_col": "x", "array_row": "y"})
    spots = read_spots(write(table.drop(columns="barcode"), tmp_path / "st.csv"))
    assert spots.names[:2] == ("7x3", "8x3")
    np.testing.assert_array_equal(spots.array_xy, TABLE[["array_col", "array_row"]])
    np.testing.assert_allclose(spots.xy_px, XY_PX)


@pytest.mark.parametrize("suffix", ["csv", "h5ad"])
def test_array_positions_of_st_spots_go_by_their_names_as_hest_exchanges_the_two(tmp_path, suffix):
    names = [f"{column}x{row}" for column, row in TABLE[["array_col", "array_row"]].to_numpy()]
    for columns in ({}, {"array_row": "array_col", "array_col": "array_row"}):
        table = TABLE.assign(barcode=names).rename(columns=columns)
        array_xy = read_spots(write(table, tmp_path / f"spots.{suffix}")).array_xy
        np.testing.assert_array_equal(array_xy, TABLE[["array_col", "array_row"]])
        assert array_xy.flags["C_CONTIGUOUS"]  # torch takes no others


@pytest.mark.parametrize(
    "named",
    [
        lambda table: table.assign(total=range(1000, 1006))[["total", "x", "y", "barcode"]],
        lambda table: table.rename(columns={"barcode": "spot_name"})[["array_row", "array_col", "x", "y", "spot_name"]],
        lambda table: table.assign(id=range(6))[["id", "x", "y", "barcode"]],
        lambda table: table.assign(id=range(6)).rename(columns={"barcode": ""})[["id", "x", "y", ""]],
        lambda table: table.rename(columns={"barcode": ""}),
        lambda table: table.rename(columns={"barcode": "Unnamed: 0"}),
        lambda table: table.rename(columns={"barcode": "my spots"}),
        lambda table: table.rename(columns={"barcode": "ID"})[["x", "y", "ID"]],
    ],
)
def test_the_column_of_names_is_found_wherever_it_stands(tmp_path, named):
    assert read_spots(write(named(TABLE), tmp_path / "spots.csv")).names == tuple(TABLE["barcode"])


@pytest.mark.parametrize("first", ["total_counts", "in_tissue", "z"])
def test_numbers_become_no_names_by_accident(tmp_path, first):
    table = TABLE.drop(columns="barcode").assign(total_counts=range(6), in_tissue="yes", z=0.5)
    with pytest.raises(GeneDMLError, match=r"has x and y but no names\. Add a column called name"):
        read_spots(write(table[[first, "x", "y"]], tmp_path / "spots.csv"))


@pytest.mark.parametrize("name", ["barcode", None])
def test_the_index_of_a_parquet_table_names_its_spots(tmp_path, name):
    TABLE.set_index("barcode").rename_axis(name).to_parquet(tmp_path / "spots.parquet")
    assert read_spots(tmp_path / "spots.parquet").names == tuple(TABLE["barcode"])


def test_a_column_that_is_there_twice_but_for_its_spelling_is_refused(tmp_path):
    with pytest.raises(GeneDMLError, match=r"has the columns x and X\. Leave one out"):
        read_spots(write(TABLE.assign(X=1.0), tmp_path / "spots.csv"))


@pytest.mark.parametrize("columns", [FULLRES, {"x": "X", "y": "Y"}, {"x": "imagecol", "y": "imagerow"}])
@pytest.mark.parametrize("order", [["y", "x"], ["x", "y"]])
def test_names_of_columns_go_before_their_order_in_obsm(tmp_path, columns, order):
    places = TABLE[order].rename(columns=columns)
    path = write_h5ad(TABLE.drop(columns=["x", "y"]), places, tmp_path / "spots.h5ad")
    np.testing.assert_allclose(read_spots(path).xy_px, XY_PX)


def test_columns_of_obsm_without_known_names_are_x_and_y_in_order(tmp_path):
    places = TABLE[["x", "y"]].set_axis(["spatial_1", "spatial_2"], axis=1)
    path = write_h5ad(TABLE.drop(columns=["x", "y"]), places, tmp_path / "spots.h5ad")
    np.testing.assert_allclose(read_spots(path).xy_px, XY_PX)


def test_positions_of_an_h5ad_may_stand_in_obs_as_hests_but_may_not_contradict_obsm(tmp_path):
    obs = TABLE.rename(columns=FULLRES)
    np.testing.assert_allclose(read_spots(write_h5ad(obs, None, tmp_path / "obs.h5ad")).xy_px, XY_PX)
    np.testing.assert_allclose(read_spots(write_h5ad(obs, XY_PX, tmp_path / "both.h5ad")).xy_px, XY_PX)
    np.testing.assert_allclose(read_spots(write_h5ad(TABLE.assign(x=1, y=2), XY_PX, tmp_path / "xy.h5ad")).xy_px, XY_PX)
    with pytest.raises(GeneDMLError, match=r"obsm\['spatial'\] and the columns pxl_col_in_fullres and .* contradict"):
        read_spots(write_h5ad(obs, XY_PX[:, ::-1], tmp_path / "exchanged.h5ad"))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "h5ad"])
@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("column", ["library_id", "sample", "Section", "batch", None])
def test_spots_of_several_sections_are_refused_with_or_without_array_positions(tmp_path, suffix, array, column):
    second = TABLE.assign(barcode=TABLE["barcode"] + "-B", x=TABLE["x"] + 30)
    table = pd.concat([TABLE.assign(barcode=TABLE["barcode"] + "-A"), second], ignore_index=True)
    if column is not None:
        table[column] = ["A"] * 6 + ["B"] * 6
    if not array:
        table = table.drop(columns=["array_row", "array_col"])
    with pytest.raises(GeneDMLError, match=r"holds spots of 2 sections \(.*A.*B\)\. Give those of one section"):
        read_spots(write(table, tmp_path / f"merged.{suffix}"))


def test_sections_that_only_pictures_tell_apart_are_refused_and_one_that_is_left_of_several_is_not(tmp_path):
    obs = TABLE.drop(columns=["x", "y"])
    with pytest.raises(GeneDMLError, match=r"holds spots of 2 sections \(uns\['spatial'\] A, B\)"):
        read_spots(write_h5ad(obs, XY_PX, tmp_path / "two.h5ad", ("A", "B")))
    assert len(read_spots(write_h5ad(obs.assign(library_id="A"), XY_PX, tmp_path / "one.h5ad", ("A", "B")))) == 6


def test_several_spots_at_one_array_position_hint_at_several_sections(tmp_path):
    second = TABLE.assign(barcode=[f"b{number}" for number in range(6)], x=TABLE["x"] + 30)
    with pytest.raises(
        GeneDMLError, match=r"gives 6 array positions .* as a table of several sections does\. Give"
    ) as told:
        read_spots(write(pd.concat([TABLE, second]), tmp_path / "merged.csv"))
    assert "leave out" not in str(told.value)


@pytest.mark.parametrize("names", [None, "PathCellObject", ["Tumor", None] * 3])
def test_a_measurement_table_of_qupath_goes_by_its_object_ids_where_its_names_name_none(tmp_path, names):
    table = pd.DataFrame({"Image": "S1.svs", "Object ID": [f"1f-{n}" for n in range(6)], "Object type": "Cell"})
    table = table.assign(**{"Name": names, "Centroid X px": XY_PX[:, 0], "Centroid Y px": XY_PX[:, 1]})
    spots = read_spots(write(table, tmp_path / "cells.csv"))
    assert spots.names == tuple(table["Object ID"])
    np.testing.assert_allclose(spots.xy_px, XY_PX)
    named = read_spots(write(table.assign(Name=list("ABCDEF")), tmp_path / "named.csv"))
    assert named.names == tuple("ABCDEF")
    with pytest.raises(GeneDMLError, match=r"have no name\.|names \d spots? twice"):
        read_spots(write(table.drop(columns="Object ID"), tmp_path / "nameless.csv"))


@pytest.mark.parametrize("index", [["barcode", "array_row"], ["array_row", "array_col", "barcode"]])
def test_every_level_of_the_index_of_a_parquet_table_is_a_column(tmp_path, index):
    TABLE.set_index(index).to_parquet(tmp_path / "spots.parquet")
    spots = read_spots(tmp_path / "spots.parquet")
    assert spots.names == tuple(TABLE["barcode"])
    np.testing.assert_array_equal(spots.array_xy, TABLE[["array_col", "array_row"]])
    TABLE.set_index(index, drop=False).rename_axis([None] * len(index)).to_parquet(tmp_path / "twice.parquet")
    assert read_spots(tmp_path / "twice.parquet").names == tuple(TABLE["barcode"])


def test_barcodes_of_obs_name_spots_and_counts_where_the_index_only_counts_rows(tmp_path, capfd):
    data = anndata.AnnData(np.arange(6, dtype=np.float32)[:, None] + 1, obs=TABLE.set_axis([*map(str, range(6))]))
    data.obsm["spatial"] = XY_PX
    data.write_h5ad(tmp_path / "counted.h5ad")
    spots = read_spots(tmp_path / "counted.h5ad")
    assert spots.names == tuple(TABLE["barcode"])
    assert "names are read from the barcodes of obs" in " ".join(capfd.readouterr().err.split())
    assert tuple(read_counts(tmp_path / "counted.h5ad").obs_names) == spots.names
    data.obs["barcode"] = "AAAC-1"
    data.write_h5ad(tmp_path / "alike.h5ad")
    assert read_spots(tmp_path / "alike.h5ad").names == tuple("012345")


def test_positions_may_stand_in_obsm_x_spatial(tmp_path):
    data = anndata.AnnData(np.zeros((6, 1), np.float32), obs=TABLE[["barcode"]].set_index("barcode"))
    data.obsm["X_spatial"] = XY_PX
    data.write_h5ad(tmp_path / "spots.h5ad")
    np.testing.assert_allclose(read_spots(tmp_path / "spots.h5ad").xy_px, XY_PX)
    data.obsm["spatial"] = XY_PX + 5
    data.write_h5ad(tmp_path / "both.h5ad")
    np.testing.assert_allclose(read_spots(tmp_path / "both.h5ad").xy_px, XY_PX + 5)


def test_counts_given_as_spots_are_called_so_in_a_sentence(tmp_path):
    counts = pd.DataFrame(1, index=[f"{x}x1" for x in range(4)], columns=[f"GENE{number}" for number in range(60)])
    counts.to_csv(tmp_path / "counts.csv")
    with pytest.raises(GeneDMLError, match=r"counts\.csv looks like a table of counts .* not of spots: give the file"):
        read_spots(tmp_path / "counts.csv")
