"""Tables of several sections are known by their columns and by the tags beside their barcodes."""

import pandas as pd
import pytest

from genedml_cli.merged_sections import sections_by_tag, sections_in, split_names


def obs(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"s{row}" for row in range(len(next(iter(columns.values()))))])


@pytest.mark.parametrize(
    ("table", "pictures", "said"),
    [
        (obs(library_id=[*"AABB"]), (), "2 sections (library_id A, B)"),
        (obs(Sample=pd.Categorical([*"AABB"])), (), "2 sections (Sample A, B)"),
        (obs(batch=[0, 0, 1, 1]), (), "2 sections (batch 0, 1)"),
        (obs(patient=["P1"] * 4, sample_id=[*"ABAB"]), ("A", "B"), "2 sections (sample_id A, B)"),
        (obs(x=[1, 2, 3, 4]), ("A", "B"), "2 sections (uns['spatial'] A, B)"),
        (obs(library_id=[*"AAAAABBCCDDEE"]), (), "5 sections (library_id A, B, C, D, ...)"),
        # One section: subset of a file of several; pieces within one capture area; numbers of spots.
        (obs(library_id=pd.Categorical([*"AAAA"], categories=["A", "B"])), ("A", "B"), ""),
        (obs(library_id=["A"] * 4, section=[1, 1, 2, 2]), (), ""),
        (obs(sample=["A", None, "A", "A"]), (), ""),
        (obs(sample_id=[1, 2, 3, 4]), (), ""),
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
        (["AAAC-1", "AACC-1", "AAAC-2", "AAAC-3"], "3 sections (-1, -2, -3)"),
        (["AAAC-1-0", "AAAC-1-1"], "2 sections (-1-0, -1-1)"),
        (["AAAC-1", "AAAC-1-1", "AACC-1"], "2 sections (-1, -1-1)"),
        (["AAAC-1_1", "AAAC-1_2"], "2 sections (-1_1, -1_2)"),
        (["S1_AAAC", "S2_AAAC"], "2 sections (S1_, S2_)"),
        (["10x12", "10x12-1"], "2 sections (no tag, -1)"),
        (["s_008um_00000_00001-1", "s_008um_00000_00001-2"], "2 sections (-1, -2)"),
        (["AAAC-1", "AACC-1"], ""),
        (["AAAC-1", "AACC-2"], ""),
        (["1_1", "1_2", "2_1"], ""),
        (["spot_1", "spot_2"], ""),
    ],
)
def test_sections_are_told_by_the_tags_of_repeated_barcodes(names, said):
    assert sections_by_tag(names) == said


def test_names_are_barcode_and_tag_or_all_barcode():
    assert split_names(["GATA2_ACGT-1", "3x5", "spot_7"]).to_numpy().tolist() == [
        ["ACGT", "GATA2_...-1"],
        ["3x5", ""],
        ["spot_7", ""],
    ]
