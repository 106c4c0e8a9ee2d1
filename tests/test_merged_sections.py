"""Tables of several sections are known by their columns and by the tags beside their barcodes."""

import re

import h5py
import numpy as np
import pandas as pd
import pytest

from genedml.errors import GeneDMLError
from genedml_cli.files.merged_sections import picture_keys, sections_by_tag, sections_in, split_names
from genedml_cli.spots.spot_files import read_spots

SECTIONS_OF_BINS = "2 sections (such as s_008um_00000_00001-1, s_008um_00000_00001-2)"
MERGED = ["AAAC-1-0", "AACC-1-0", "AAAC-1-1", "AAGG-1-1"]


def obs(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"s{row}" for row in range(len(next(iter(columns.values()))))])


@pytest.mark.parametrize(
    ("table", "pictures", "said"),
    [
        (obs(library_id=[*"AABB"]), (), "2 sections (library_id A, B)"),
        (obs(Sample=pd.Categorical([*"AABB"])).set_axis(MERGED), (), "2 sections (Sample A, B)"),
        (obs(batch=[0, 0, 1, 1]).set_axis(MERGED), (), "2 sections (batch 0, 1)"),
        (obs(patient=["P1"] * 4, sample_id=[*"ABAB"]), ("A", "B"), "2 sections (sample_id A, B)"),
        (obs(x=[1, 2, 3, 4]), ("A", "B"), "2 sections (uns['spatial'] A, B)"),
        (obs(library_id=[*"AAAAABBCCDDEE"]), (), "5 sections (library_id A, B, C, D, ...)"),
        # One section: subset of a file of several; pieces within one capture area; numbers of spots.
        (obs(library_id=pd.Categorical([*"AAAA"], categories=["A", "B"])), ("A", "B"), ""),
        (obs(library_id=["A"] * 4, section=[1, 1, 2, 2]), (), ""),
        (obs(sample=["A", None, "A", "A"]), (), ""),
        (obs(patient=["P1"] * 4), ("A", "B"), "2 sections (uns['spatial'] A, B)"),
        (obs(sample=["A"] * 4, patient=["P1"] * 4), ("A", "B"), ""),
        (obs(patient=[*"ABAB"]), (), ""),
        (obs(sample_id=[1, 2, 3, 4]), (), ""),
        (obs(batch=[0, 0, 1, 1]), (), ""),
        (obs(slice=[*"AABB"]).set_axis(["AAAC-1", "AACC-1", "AAGG-1", "AATT-1"]), (), ""),
        (obs(x=[1, 2]), ("A",), ""),
    ],
)
def test_sections_are_told_by_the_column_that_names_them(table, pictures, said):
    assert sections_in(table, pictures) == said


def test_the_section_of_some_rows_alone_is_asked():
    table = obs(library_id=[*"AABB"])
    assert not sections_in(table[:2], ("A", "B"))
    assert sections_in(table[1:3], ("A", "B")) == "2 sections (library_id A, B)"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["AAAC-1", "AACC-1", "AAAC-2", "AAAC-3"], "3 sections (such as AAAC-1, AAAC-2, AAAC-3)"),
        (["AAAC-1-0", "AAAC-1-1"], "2 sections (such as AAAC-1-0, AAAC-1-1)"),
        (["AAAC-1", "AAAC-1-1", "AACC-1"], "2 sections (such as AAAC-1, AAAC-1-1)"),
        (["AAAC-1_1", "AAAC-1_2"], "2 sections (such as AAAC-1_1, AAAC-1_2)"),
        (["S1_AAAC-1", "S2_AAAC-1"], "2 sections (such as S1_AAAC-1, S2_AAAC-1)"),
        (["10x12", "10x12-1"], "2 sections (such as 10x12, 10x12-1)"),
        (["16.92x9.015-1", "16.92x9.015-2"], "2 sections (such as 16.92x9.015-1, 16.92x9.015-2)"),
        (["s_008um_00000_00001-1", "s_008um_00000_00001-2"], SECTIONS_OF_BINS),
        (["16.92x9.015", "17.92x9.015", "18.92x9.99"], ""),
        (["17x9.015", "17x9.98", "17.0x9.0", "17.5x9"], ""),
        (["AAAC-1", "AACC-1"], ""),
        (["AAAC-1", "AACC-2"], ""),
        (["1_1", "1_2", "2_1"], ""),
        (["spot_1", "spot_2"], ""),
    ],
)
def test_sections_are_told_by_the_tags_of_repeated_barcodes(names, said):
    assert sections_by_tag(names) == said


def test_names_are_barcode_and_tag_or_all_barcode():
    assert split_names(["GATA2_ACGT-1", "3x5", "16.92x9.015", "spot_7"]).to_numpy().tolist() == [
        ["GATA2_ACGT-1", "ACGT", "GATA2_ -1"],
        ["3x5", "3x5", ""],
        ["16.92x9.015", "16.92x9.015", ""],
        ["spot_7", "spot_7", ""],
    ]


GRID = 100.0 * np.array([(x, y) for x in range(6) for y in range(5)]) + 50


@pytest.mark.parametrize("by", [lambda row: row // 15, lambda row: row % 2], ids=["halves", "in turns"])
@pytest.mark.parametrize("column", ["batch", "sampleID", "orig.ident", "section"])
def test_a_column_of_parts_of_one_section_refuses_no_table_of_spots_but_is_said(by, column, tmp_path, capfd):
    names = [f"{x / 100:.2f}x{y / 100:.3f}" for x, y in GRID + 2.5]
    table = pd.DataFrame({"name": names, "x": GRID[:, 0], "y": GRID[:, 1], column: by(np.arange(30))})
    table.to_csv(tmp_path / "spots.csv", index=False)
    assert read_spots(tmp_path / "spots.csv").names == tuple(names)
    assert f"names 2 sections ({column} 0, 1), read as parts of one" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("shift", [0, 30])
@pytest.mark.parametrize(
    "column", ["sample", "sampleID", "Sample.ID", "orig.ident", "patient", "donor_id", "Section ID", "image_id"]
)
def test_sections_that_lie_upon_each_other_are_told_by_a_column_of_any_kind(column, shift, tmp_path):
    table = pd.DataFrame([*GRID, *(GRID + shift)], columns=["x", "y"])
    table[column] = [*"A" * 30, *"B" * 30]
    table.insert(0, "name", [f"spot_{row}" for row in range(60)])
    table.to_csv(tmp_path / "spots.csv", index=False)
    with pytest.raises(GeneDMLError, match=rf"holds spots of 2 sections \({re.escape(column)} A, B\)"):
        read_spots(tmp_path / "spots.csv")


def test_pictures_are_of_sections_and_no_parts_of_one(tmp_path):
    of_one = {"images": {}, "scalefactors": {}, "metadata": {}, "is_single": "yes"}
    assert picture_keys(of_one) == []
    assert picture_keys({"A": of_one, "B": of_one}) == ["A", "B"]
    assert picture_keys(None) == []
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spatial/A/images/hires"] = 1
        file["spatial/images/hires"] = 1
        assert picture_keys(file["spatial"]) == ["A"]
