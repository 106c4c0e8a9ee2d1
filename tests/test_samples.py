"""Sample sheets, and folds that no patient is on both sides of."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from genedml.errors import GeneDMLError
from genedml_cli.datasets.folds import Fold, make_folds
from genedml_cli.datasets.samples import Sample, read_sheet

SHEET = "sample,slide,spots,counts,patient\nA1,a.tif,a.csv,a.tsv,A\nB1,b.tif,b.csv,b.tsv,B\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that SHEET names."""
    for name in ("a.tif", "a.csv", "a.tsv", "b.tif", "b.csv", "b.tsv"):
        (tmp_path / name).touch()
    return tmp_path


def sheet(folder: Path, text: str) -> Path:
    path = folder / "samples.csv"
    path.write_text(text)
    return path


def test_sheet_without_fold_makes_each_patient_one(folder):
    first, second = read_sheet(sheet(folder, SHEET))
    assert first == Sample("A1", folder / "a.tif", folder / "a.csv", folder / "a.tsv", "A", "A")
    assert (second.name, second.patient, second.fold) == ("B1", "B", "B")


def test_sheet_with_fold_and_um_per_px(folder):
    text = "patient,sample,slide,spots,counts,fold,um_per_px\nA,A1,a.tif,a.csv,a.tsv,0,0.25\nB,7,b.tif,b.csv,b.tsv,1,\n"
    first, second = read_sheet(sheet(folder, text))
    assert (first.fold, first.um_per_px) == ("0", 0.25)
    assert (second.name, second.fold, second.um_per_px) == ("7", "1", None)


def test_paths_are_relative_to_root_where_it_is_given(folder, tmp_path_factory):
    elsewhere = sheet(tmp_path_factory.mktemp("elsewhere"), SHEET)
    assert read_sheet(elsewhere, root=folder)[0].slide == folder / "a.tif"


def test_absolute_paths_stay(folder):
    text = SHEET.replace("a.tif", str(folder / "b.tif"))
    assert read_sheet(sheet(folder, text))[0].slide == folder / "b.tif"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SHEET.replace("patient", "donor"),
            r"it lacks patient and has donor, which it does not know\. It takes sample, ",
        ),
        ("sample,slide,counts,patient\nA1,a.tif,a.tsv,A\n", "it lacks spots"),
        (SHEET.replace("\n", ",\n").replace("patient,", "patient,stain"), "it has stain, which it"),
        ("sample,slide,spots,counts,patient\n", r"samples\.csv has no rows\. Write one row a section"),
        ("", r"The sample sheet .*samples\.csv cannot be read: .* Give a CSV file with the columns sample, slide"),
        (
            SHEET.replace("b.tsv,B", "b.tsv,"),
            r"samples\.csv, line 3: the column patient is empty\. Fill it in, or remove the row",
        ),
        (SHEET.replace("b.tif", "b" * 600), r"line 3: the column slide holds 600 characters, too many"),
        (SHEET.replace("a.tsv", ""), "line 2: the column counts is empty"),
        (SHEET.replace("B1", "A1"), r"names samples twice: A1\. Give each a name of its own"),
        (SHEET.replace("B1", "a1"), "names samples A1 and a1, alike but for capitals"),
        (SHEET.replace("b.tsv,B", "b.tsv,a"), "names patients A and a, alike but for capitals"),
        (SHEET.replace("B1", "../B1"), r"'\.\./B1' names a sample or a fold, but cannot be a file name"),
        (SHEET.replace("B1", ".B1"), r"'\.B1' names a sample or a fold, but cannot be a file name"),
        (SHEET.replace("b.tif", "gone.tif"), r"names 1 files that are not there \(first: .*gone\.tif\).*--root"),
        (
            "sample,slide,spots,counts,patient,um_per_px\nA1,a.tif,a.csv,a.tsv,A,half\n",
            "um_per_px of A1 is 'half', not a number. Give one, or leave it empty",
        ),
    ],
)
def test_sheets_that_are_refused(folder, text, message):
    with pytest.raises(GeneDMLError, match=message):
        read_sheet(sheet(folder, text))


def test_missing_sheet_is_named(tmp_path):
    with pytest.raises(GeneDMLError, match=r"sample sheet .*gone\.csv cannot be read"):
        read_sheet(tmp_path / "gone.csv")


def section(name: str, fold: str | None = None) -> Sample:
    """A section of the patient that its name begins with."""
    return Sample(name, Path(), Path(), Path(), name[0], fold or name[0])


def names(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.name for sample in samples]


@pytest.fixture
def folds() -> list[Fold]:
    return make_folds([section(name) for name in ("A1", "A2", "B1", "C1", "C2", "D1")])


def test_every_patient_is_tested_once(folds):
    assert [names(fold.test) for fold in folds] == [["A1", "A2"], ["B1"], ["C1", "C2"], ["D1"]]


def test_validation_is_the_next_fold(folds):
    assert all(fold.validation == after.test for fold, after in pairwise([*folds, folds[0]]))


def test_parts_of_a_fold_are_all_sections_and_share_no_patient(folds):
    for fold in folds:
        assert sorted(names(fold.train) + names(fold.validation) + names(fold.test)) == [
            "A1",
            "A2",
            "B1",
            "C1",
            "C2",
            "D1",
        ]
        patients = [{sample.patient for sample in part} for part in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, patients)) == len(set.union(*patients))
        assert not fold.leaks


def test_folds_are_in_the_order_of_their_numbers():
    folds = make_folds(
        [section(f"{patient}1", number) for patient, number in zip("ABC", ("10", "9", "2"), strict=True)]
    )
    assert [fold.name for fold in folds] == ["2", "9", "10"]


def test_folds_that_part_a_patient_leak():
    folds = make_folds([section("A1", "0"), section("A2", "1"), section("B1", "1"), section("C1", "2")])
    assert [fold.leaks for fold in folds] == [True, True, False]


def test_validation_alone_can_leak():
    fold = Fold("0", (section("B1"),), (section("A1"),), (section("A2"),))
    assert fold.leaks


def test_of_two_folds_the_last_other_patient_is_held_out():
    first, second = make_folds([section("A1", "0"), section("B1", "1"), section("C1", "1"), section("C2", "1")])
    assert (names(first.train), names(first.validation), names(first.test)) == (["B1"], ["C1", "C2"], ["A1"])
    assert (names(second.train), names(second.validation)) == (["A1"], [])


def test_of_two_patients_the_last_section_is_held_out():
    first, _ = make_folds([section("A1"), section("B1"), section("B2")])
    assert (names(first.train), names(first.validation), names(first.test)) == (["B1"], ["B2"], ["A1"])


def test_one_fold_leaves_nothing_to_train_on():
    with pytest.raises(GeneDMLError, match=r"All 2 sections are in fold A, .*another patient"):
        make_folds([section("A1"), section("A2")])


def test_the_donor_is_the_patient_unless_said():
    assert section("A1").donor == "A"
    assert Sample("A1", Path(), Path(), Path(), "A", "0", donor="X").donor == "X"


def test_one_donor_of_two_names_is_held_out_whole_and_left_out_where_tested():
    samples = [section(name) for name in ("A1", "B1", "C1", "D1", "E1")]
    samples[3] = replace(samples[3], donor="B")
    folds = {fold.name: fold for fold in make_folds(samples)}
    assert names(folds["A"].validation) == ["B1", "D1"]
    assert (names(folds["B"].left_out), names(folds["B"].validation)) == (["D1"], ["C1"])
    assert (names(folds["D"].left_out), names(folds["D"].train)) == (["B1"], ["A1", "C1"])
    assert not any(fold.leaks for fold in folds.values())
