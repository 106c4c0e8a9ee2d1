"""The named data sets: the table, donors that two of them share, and folds over both."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import EXAMPLES

from genedml.errors import GeneDMLError
from genedml_cli.commands.choices import choose_config, choose_panel, choose_samples, only_dataset
from genedml_cli.datasets.datasets import DATASETS, dataset, locate_counts, published_panel
from genedml_cli.datasets.folds import make_folds, seen_donors
from genedml_cli.datasets.layouts import hest_names
from genedml_cli.datasets.samples import Sample

SAME_TISSUE = {"Patient E": "BC23567", "Patient F": "BC23810", "Patient G": "BC23903", "Patient H": "BC24044"}


@pytest.fixture(scope="module")
def hest_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HEST-1k's layout with an empty file for every section of every data set."""
    root = tmp_path_factory.mktemp("hest")
    for known in DATASETS.values():
        for section in known.sections:
            for file in hest_names(section.hest_id):
                (root / file).parent.mkdir(exist_ok=True)
                (root / file).touch()
    return root


def names(samples: tuple[Sample, ...] | list[Sample]) -> list[str]:
    return [sample.name for sample in samples]


@pytest.mark.parametrize("known", DATASETS.values(), ids=DATASETS)
def test_every_row_is_whole(known):
    assert DATASETS[known.name] is known
    assert all((known.licence, known.source, known.platform, known.layouts))
    for key in ("name", "hest_id"):
        assert len({getattr(section, key) for section in known.sections}) == len(known.sections)
    assert all(0.2 < section.um_per_px < 1 and section.spots > 100 for section in known.sections)
    assert known.pitch_um in (100, 150, 200)
    if known.panel:
        assert len(set(published_panel(known.name))) == len(published_panel(known.name)) == 250


def test_names_of_sections_are_unique_over_all_data_sets():
    every = [section.name for known in DATASETS.values() for section in known.sections]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("name", "sections", "patients", "folds"),
    [("HER2ST", 36, 8, 8), ("STNet", 68, 23, 8), ("skinST", 12, 4, 4), ("visium-breast", 7, 6, 6)],
)
def test_a_whole_data_set_in_hests_layout_has_folds_without_leaks(hest_root, name, sections, patients, folds):
    samples = dataset(name, hest_root)
    assert len(samples) == sections
    assert len({sample.patient for sample in samples}) == len(DATASETS[name].patients) == patients
    assert all(sample.spots == sample.counts and sample.um_per_px and sample.pitch_um for sample in samples)
    made = make_folds(samples)
    assert len(made) == len(DATASETS[name].folds) == folds
    assert not any(fold.leaks or fold.left_out for fold in made)


def test_visium_sections_of_one_block_are_one_donor_and_the_targeted_panel_is_no_section():
    sections = {section.hest_id: section for section in DATASETS["visium-breast"].sections}
    assert "TENX23" not in sections
    assert sections["TENX13"].donor == sections["TENX14"].donor == "Block A"
    assert len({section.donor for section in sections.values()}) == 6


def test_unknown_data_sets_are_told_the_known(tmp_path):
    with pytest.raises(GeneDMLError, match=r"No data set is called 'her2'\. There are: HER2ST, STNet, skinST, visium-"):
        dataset("her2", tmp_path)


def test_a_data_set_without_a_published_panel_is_told_those_with_one():
    with pytest.raises(GeneDMLError, match=r"No panel is called 'visium-breast'.*HER2ST, STNet, skinST, or a file"):
        published_panel("visium-breast")


@pytest.mark.parametrize("allow_partial", [True, False])
def test_a_folder_without_a_section_is_refused(tmp_path, allow_partial):
    with pytest.raises(GeneDMLError, match=r"holds 0 of the 36 sections of HER2ST; missing: A1, .*data fetch HER2ST"):
        dataset("HER2ST", tmp_path, allow_partial)


def test_tiles_are_taken_where_there_is_no_slide(hest_root, tmp_path):
    for folder, ending in (("patches", "h5"), ("st", "h5ad")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"NCBI761.{ending}").touch()
    (sample,) = dataset("skinST", tmp_path, allow_partial=True)
    assert (sample.slide.name, sample.spots.name) == ("NCBI761.h5", "NCBI761.h5ad")
    (tmp_path / "wsis").mkdir()
    (tmp_path / "wsis" / "NCBI761.tif").touch()
    assert dataset("skinST", tmp_path, allow_partial=True)[0].slide.name == "NCBI761.tif"


def test_sections_of_the_same_tissue_have_one_donor(hest_root):
    her2st, stnet = dataset("HER2ST", hest_root), dataset("STNet", hest_root)
    assert {s.patient: s.donor for s in her2st if s.donor != s.patient} == SAME_TISSUE
    assert all(sample.donor == sample.patient for sample in stnet)
    assert {sample.donor for sample in her2st} & {sample.donor for sample in stnet} == set(SAME_TISSUE.values())


def test_folds_of_two_data_sets_are_joined_and_no_donor_is_on_two_sides(hest_root):
    samples, partial = choose_samples(["HER2ST", "STNet"], None, hest_root, False)
    assert partial == ""
    folds = {fold.name: fold for fold in make_folds(samples)}
    assert list(folds) == [str(number) for number in range(8)]
    assert {"C2", "BC23377_C1"} <= set(names(folds["2"].test))
    # Patient G is tested in fold 6 and BC23903 in fold 3; the other three meet in one fold of both.
    left_out = {name: names(fold.left_out) for name, fold in folds.items() if fold.left_out}
    assert left_out == {"3": ["G1", "G2", "G3"], "6": ["BC23903_C1", "BC23903_C2", "BC23903_D1"]}
    assert str(folds["6"].left_out_note) == (
        "SAME DONOR: fold 6, which tests G1, G2, G3, is trained without BC23903_C1, BC23903_C2, BC23903_D1: the same "
        "tissue."
    )
    for fold in folds.values():
        sides = [{sample.donor for sample in side} for side in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert not fold.leaks
        assert len({*fold.train, *fold.validation, *fold.test, *fold.left_out}) == len(samples)


def test_a_fold_whose_other_sections_are_all_of_its_donors_is_refused():
    one = Sample("A1", Path(), Path(), Path(), "A", "0", donor="X")
    with pytest.raises(GeneDMLError, match="Fold 0 tests A1, and all other sections are of the same donors"):
        make_folds([one, replace(one, name="B1", patient="B", fold="1")])


def test_sections_of_donors_seen_in_training_are_found_under_any_name(hest_root):
    class Card:
        training_donors = ("Patient A", "BC23567")

    samples = dataset("HER2ST", hest_root) + dataset("STNet", hest_root)
    seen = seen_donors(Card(), samples)
    assert {sample.patient for sample in seen} == {"Patient A", "Patient E", "BC23567"}
    assert len(seen) == 6 + 3 + 3


def test_preset_and_panel_follow_one_data_set_and_no_two():
    assert [only_dataset(given) for given in (None, [], ["STNet"], ["STNet", "HER2ST"])] == [None, None, "STNet", None]
    assert choose_panel(None, "STNet") == "STNet"
    assert choose_panel(None, "visium-breast") == choose_panel(None, None) == "training"
    assert choose_panel("HER2ST", "STNet") == "HER2ST"
    assert choose_config("visium-breast", None, None, None).network.loss.groups == 18


def test_part_of_one_fold_is_parted_by_donor(hest_root, tmp_path):
    (tmp_path / "wsis").mkdir()
    (tmp_path / "st").mkdir()
    for section in DATASETS["STNet"].sections:
        if section.fold == "5":
            for file in hest_names(section.hest_id):
                (tmp_path / file).touch()
    samples, partial = choose_samples(["STNet"], None, tmp_path, True)
    assert partial.endswith("All are of the published fold 5, so each donor is a fold here.")
    folds = make_folds(samples)
    assert [fold.name for fold in folds] == ["BC23269", "BC23810", "BC23901"]
    assert not any(fold.leaks for fold in folds)


def test_counts_are_found_without_images(tmp_path):
    (tmp_path / "ST-cnts").mkdir()
    (tmp_path / "ST-cnts" / "B3.tsv.gz").touch()
    found = locate_counts(DATASETS["HER2ST"], tmp_path, allow_partial=True)
    assert found == {"B3": tmp_path / "ST-cnts" / "B3.tsv.gz"}
    with pytest.raises(GeneDMLError, match="holds the counts of 1 of the 36 sections of HER2ST; missing: A1"):
        locate_counts(DATASETS["HER2ST"], tmp_path)


@pytest.mark.data
def test_the_real_sections_of_her2st(her2st):
    with pytest.raises(GeneDMLError, match=r"holds 5 of the 36 sections of HER2ST; missing: A1, .*--allow-partial"):
        choose_samples(["HER2ST"], None, her2st, False)
    samples, partial = choose_samples(["HER2ST"], None, her2st, True)
    assert names(samples) == ["C2", "C3", "C4", "C5", "C6"]
    assert partial == (
        "PARTIAL: 5 of the 36 sections of HER2ST. All are of the published fold 2, so each section is a fold here."
    )
    assert [fold.leaks for fold in make_folds(samples)] == [True] * 5
    assert {sample.donor for sample in samples} == {"Patient C"}


def test_what_a_named_data_set_knows_is_not_overruled_and_sheets_are_never_partial(her2st):
    with pytest.raises(GeneDMLError, match=r"A named data set has its own um/px and pitch"):
        choose_samples(["HER2ST"], None, her2st, True, 0.5)
    with pytest.raises(GeneDMLError, match=r"--allow-partial goes with --dataset"):
        choose_samples(None, EXAMPLES / "her2st_patient_c.csv", her2st, True)
