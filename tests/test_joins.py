"""Counts that join by name may be another section's: what their names and columns say of it is refused or marked."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from genedml.config import LabelsConfig
from genedml.errors import GeneDMLError
from genedml_cli.datasets.checking import check_samples
from genedml_cli.datasets.samples import Sample
from genedml_cli.datasets.shared_counts import check_shared, told_apart
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.labels import check_join, make_labels
from genedml_cli.spots.spots import Spots

BARCODES, GENES = ["AAAC", "AAAG", "AAAT", "AACC"], ["A", "B", "C"]
RANDOM = np.random.default_rng(7)


def table(names: list[str], **columns: list) -> anndata.AnnData:
    counts = csr_matrix(RANDOM.integers(1, 99, (len(names), 3)), dtype=np.float32)
    return anndata.AnnData(counts, pd.DataFrame(columns, index=names), pd.DataFrame(index=GENES))


def joined(spots: list[str], counts: anndata.AnnData) -> str:
    """The note that stands with every score of these spots; empty where there is none."""
    labels = make_labels(counts, Spots(tuple(spots), 100.0 * np.arange(2 * len(spots)).reshape(-1, 2)), GENES, PLAIN)
    return str(check_join(labels, "S1", Path("counts.h5")) or "")


PLAIN = LabelsConfig(smooth=False)


def named(form: str, *tags: object) -> list[str]:
    return [form.format(barcode, tag) for tag in tags or ("",) for barcode in BARCODES]


@pytest.mark.parametrize(
    ("spots", "counts", "said"),
    [
        (
            named("{}-1"),
            named("{}-{}", 1, 2, 3),
            "3 sections (such as AAAC-1, AAAC-2, AAAC-3), and these spots are all named -1",
        ),
        (named("{}-1"), [*named("{}-1"), *named("{}-1-1")], "2 sections (such as AAAC-1, AAAC-1-1), and"),
        (named("{}-1"), [*named("{}-1"), *named("S2_{}-1")], "2 sections (such as AAAC-1, S2_AAAC-1)"),
        (BARCODES, [*BARCODES, *named("{}-1")], "2 sections (such as AAAC, AAAC-1), and these spots are without a tag"),
        (["1x2", "1x3"], ["1x2", "1x3", "1x2-1", "1x3-1"], "2 sections (such as 1x2, 1x2-1)"),
        (["b1", "b2"], ["b1", "b2", "b1-1", "b2-1"], "2 sections (such as b1, b1-1)"),
        (["b1", "b2"], ["b1", "b2", "S2_b1", "S2_b2"], "2 sections (such as S2_b1, b1)"),
    ],
)
def test_spots_that_do_not_say_which_of_several_sections_they_are_of_are_marked(spots, counts, said):
    mark = joined(spots, table(counts))
    assert mark.startswith("DOUBTFUL JOIN: counts.h5 holds spots of ")
    assert said in mark
    assert "S1 may have another's counts" in mark


@pytest.mark.parametrize(
    ("spots", "counts"),
    [
        (named("{}-1"), named("{}-1")),
        (named("{}-2"), named("{}-{}", 1, 2, 3)),
        (named("S2_{}-1"), named("{1}_{0}-1", "S1", "S2")),
        (named("{}-1_1"), named("{}-1_{}", 1, 2)),
        (["1x2", "1x3"], ["1x2", "1x3", "2x2", "2x3", "total"]),
        (["spot_1", "spot_2"], ["spot_1", "spot_2", "spot_3"]),
        (["1_1", "1_2"], ["1_1", "1_2", "2_1", "2_2", "1"]),
    ],
)
def test_spots_whose_names_say_which_section_they_are_of_are_not(spots, counts):
    assert joined(spots, table(counts)) == ""


@pytest.mark.parametrize("column", ["library_id", "sample", "Sample_ID", "batch"])
def test_spots_with_counts_of_two_sections_are_marked(column):
    counts = table([*named("{}-1"), "AAAC-2", "AAAG-2"], **{column: [*"ABABBA"]})
    assert f"gives these spots counts of 2 sections ({column} A, B)" in joined(named("{}-1"), counts)
    assert "gives these spots counts of 2 sections" not in joined(["AAAC-1", "AAAT-1"], counts)


@pytest.mark.parametrize("column", ["sample", "batch", "section"])
def test_a_column_of_parts_of_one_section_marks_nothing(column):
    assert joined(named("{}-1"), table(named("{}-1"), **{column: [*"AABB"]})) == ""


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (named("{}-1-{}", 0, 1), r"counts are of 2 sections \(such as AAAC-1-0, AAAC-1-1\): give the table of one"),
        (named("{}-1_{}", 1, 2), r"counts are of 2 sections \(such as AAAC-1_1, AAAC-1_2\)"),
        (named("{1}_{0}-1", "S1", "S2"), r"counts are of 2 sections \(such as S1_AAAC-1, S2_AAAC-1\)"),
        (BARCODES, r"barcodes are the same, but not what stands beside them: name them alike"),
        (["GGGG-1", "GGGC-1"], r"Names must be the same in both\."),
    ],
)
def test_names_that_do_not_join_say_what_stands_beside_the_barcodes(counts, said):
    with pytest.raises(GeneDMLError, match=rf"No spot has counts: .*{said}"):
        joined(named("{}-1"), table(counts))


@pytest.mark.parametrize(
    ("columns", "names", "said"),
    [
        ({"library_id": [*"AABB"]}, ["AAAC-1", "AAAG-1"] * 2, r"spots of 2 sections \(library_id A, B\): give one"),
        (
            {},
            ["AAAC-1", "AAAC-1", "AAAC-2", "AAAG-1"],
            r"spots of 2 sections \(such as AAAC-1, AAAC-2\): give one section's table",
        ),
        ({}, ["AAAC-1", "AAAC-1", "AAAT-1", "AAAG-1"], r"names 1 spot twice .* Give every spot one row"),
    ],
)
def test_names_that_stand_twice_say_which_sections_the_table_is_of(columns, names, said, tmp_path):
    data = table(["a", "b", "c", "d"], **columns)
    data.obs_names = names
    data.write_h5ad(tmp_path / "counts.h5ad")
    with pytest.raises(GeneDMLError, match=said):
        read_counts(tmp_path / "counts.h5ad")


def test_a_section_without_counts_in_the_panel_is_refused():
    counts = table(BARCODES)
    counts.X = csr_matrix(np.array([[0, 0, 5]] * 4), dtype=np.float32)
    spots = Spots(tuple(BARCODES), np.array([[0.0, 0], [0, 100], [100, 0], [100, 100]]))
    labels = make_labels(counts, spots, ["A", "B"], PLAIN)
    with pytest.raises(GeneDMLError, match=r"No spot of S1 has counts in the panel in counts\.h5, so none has a label"):
        check_join(labels, "S1", Path("counts.h5"))


def sample(folder: Path, name: str, donor: str, spots: list[str], counts: str) -> Sample:
    file = folder / f"{name}.csv"
    pd.DataFrame({"name": spots, "x": 100.0 * np.arange(len(spots)), "y": 5.0}).to_csv(file, index=False)
    return Sample(name, folder / f"{name}.jpg", file, folder / counts, donor, name)


def test_counts_that_samples_have_in_common_are_refused_or_marked(tmp_path):
    """Of two donors they are wrong for one; of one donor they may be one section that was scanned twice."""
    names, counts = named("{}-1"), table(named("{}-{}", 1, 2))
    first, second = (sample(tmp_path, name, name, names, "aggr.h5") for name in ("S1", "S2"))
    with pytest.raises(
        GeneDMLError, match=r"S1 and S2 are given the same counts of the same spots, from aggr\.h5, which"
    ):
        check_shared([first, second], {"S1": counts, "S2": counts})
    again = sample(tmp_path, "S3", "S1", names, "copy.h5")
    other_order = counts[:, ["C", "A", "B"]].copy()
    notes = check_shared([first, again], {"S1": counts, "S3": other_order})
    assert notes.keys() == {"S1", "S3"}
    assert str(notes["S1"]).startswith(
        "DOUBTFUL JOIN: S1 and S3 are given the same counts of the same spots, from aggr.h5 and"
    )


def test_counts_of_one_file_are_right_where_names_tell_sections_apart(tmp_path):
    counts = table(named("{}-{}", 1, 2))
    samples = [sample(tmp_path, f"S{tag}", f"P{tag}", named("{}-{}", tag), "aggr.h5") for tag in (1, 2)]
    assert check_shared(samples, {"S1": counts, "S2": counts}) == {}


def test_a_sheet_of_all_sections_of_one_table_tells_them_apart(tmp_path):
    """The section tagged -1, which may be the first or have no tag of its own, is the first where others are tagged."""
    aggregated = table(named("{}-{}", 1, 2, 3))
    aggregated.write_h5ad(tmp_path / "aggr.h5ad")
    samples = [sample(tmp_path, f"S{tag}", f"P{tag}", named("{}-{}", tag), "aggr.h5ad") for tag in (1, 2, 3)]
    counts = {f"S{tag}": read_counts(tmp_path / "aggr.h5ad") for tag in (1, 2, 3)}
    assert check_shared(samples, counts) == {}
    assert joined(named("{}-1"), counts["S1"]) == ""
    assert not any("holds spots of" in problem for check in check_samples(samples) for problem in check.problems)
    again = sample(tmp_path, "S4", "P4", named("{}-1"), "aggr.h5ad")
    assert told_apart([*samples, again]) == {"S2", "S3"}
    assert any("holds spots of" in problem for problem in check_samples([samples[0]])[0].problems)


def test_sections_with_spots_of_the_same_names_have_counts_of_their_own(tmp_path):
    samples = [sample(tmp_path, name, name, BARCODES, f"{name}.csv") for name in ("S1", "S2")]
    assert check_shared(samples, {name: table(BARCODES) for name in ("S1", "S2")}) == {}


def test_data_check_names_both_sections_that_have_the_same_counts(tmp_path):
    table(named("{}-1")).write_h5ad(tmp_path / "counts.h5ad")
    samples = [sample(tmp_path, name, name, named("{}-1"), "counts.h5ad") for name in ("S1", "S2")]
    for check in check_samples(samples):  # slides there are none, which is another problem
        assert any(
            problem.startswith("S1 and S2 are given the same counts of the same spots, from counts.h5ad")
            for problem in check.problems
        )
