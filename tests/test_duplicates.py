"""Sections that are one under two names are found by their counts, and no others are."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from genedml_cli.datasets.checking import check_samples
from genedml_cli.datasets.duplicates import SectionCounts, best_correlation, find_twins, same_place, warn_of_twins
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.expression.counts import read_counts
from genedml_cli.runs.fold_notes import twins_note


def counts_of(table: AnnData, kept: np.ndarray, shift: int = 0, prefix: str = "") -> tuple[AnnData, pd.DataFrame]:
    """A part of a table whose spots are called ``XxY``, with other names and places, and its spot table."""
    xy = np.array([[int(part) for part in name.split("x")] for name in table.obs_names])[kept] + shift
    names = [f"{prefix}{x}x{y}" for x, y in xy.tolist()]
    part = AnnData(csr_matrix(table.X)[kept], obs=pd.DataFrame(index=names), var=table.var)
    spots = pd.DataFrame({"name": names, "array_row": xy[:, 1], "array_col": xy[:, 0]})
    return part, spots.assign(x=xy[:, 0] * 290.0, y=xy[:, 1] * 290.0)


def section_counts(folder, name: str, counts: AnnData, spots: pd.DataFrame) -> SectionCounts:
    spots.to_csv(folder / f"{name}.csv", index=False)
    sample = Sample(name, folder / "no.tif", folder / f"{name}.csv", folder / "no.tsv", "P", "P")
    return SectionCounts.of(sample, counts)


def made_table(seed: int, side: int = 12, genes: int = 30) -> AnnData:
    """Counts whose depth differs from spot to spot."""
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    depth = rng.gamma(1, 20, len(x))
    counts = rng.poisson(depth[:, None] * rng.gamma(1, 2, genes))
    names = [f"{a}x{b}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return AnnData(csr_matrix(counts.astype(np.float32)), obs=pd.DataFrame(index=names))


def test_a_copy_under_other_names_is_found_and_other_sections_are_not(tmp_path):
    whole = np.ones(144, dtype=bool)
    tables = {f"S{seed}": made_table(seed) for seed in range(4)}
    sections = {name: section_counts(tmp_path, name, *counts_of(table, whole)) for name, table in tables.items()}
    assert list(find_twins(sections)) == []
    cropped = np.arange(144) % 12 < 8
    sections["copy"] = section_counts(tmp_path, "copy", *counts_of(tables["S1"], cropped, 7, "spot"))
    assert list(find_twins(sections)) == [("S1", "copy", "96 of 96 spots have the same counts")]
    thinned = tables["S2"].copy()
    thinned.X = csr_matrix(np.random.default_rng(5).binomial(thinned.X.toarray().astype(int), 0.9).astype(np.float32))
    del sections["copy"]
    sections["near"] = section_counts(tmp_path, "near", *counts_of(thinned, cropped, 7, "spot"))
    ((first, second, how),) = find_twins(sections)
    assert (first, second) == ("S2", "near")
    text, _, correlation = how.rpartition(" ")
    assert text == "the total counts of 96 spots that meet correlate with"
    assert 0.99 < float(correlation) <= 1


def test_the_best_correlation_is_that_of_a_loop_over_shifts():
    rng = np.random.default_rng(0)
    maps = []
    for shape in ((9, 11), (10, 8)):
        here = (rng.random(shape) < 0.9).astype(float)
        maps.append((here, here * rng.normal(size=shape)))
    found = []
    for dx in range(-9, 9):
        for dy in range(-7, 11):
            pairs = [
                (maps[0][1][x, y], maps[1][1][x - dx, y - dy])
                for x, y in np.argwhere(maps[0][0])
                if 0 <= x - dx < 10 and 0 <= y - dy < 8 and maps[1][0][x - dx, y - dy]
            ]
            if len(pairs) >= 50:
                found.append((np.corrcoef(np.array(pairs).T)[0, 1], len(pairs)))
    assert best_correlation(*maps) == pytest.approx(max(found))


def test_whoever_trains_is_warned_of_both(world, tmp_path, capfd):
    one, two, _ = read_sheet(world / "samples.csv")
    counts, spots = read_counts(one.counts), pd.read_csv(one.spots)
    renamed = counts.copy()
    renamed.obs_names = [f"spot-{name}" for name in counts.obs_names]
    spots["name"] = [f"spot-{name}" for name in spots["name"]]
    spots.to_csv(tmp_path / "renamed.csv", index=False)
    again = replace(one, name="again", spots=tmp_path / "renamed.csv", donor="Q")
    tables = {one.name: counts, two.name: read_counts(two.counts), "again": renamed}
    twins = warn_of_twins([one, two, again], tables)
    assert twins == {one.name: ("again",), two.name: (), "again": (one.name,)}
    assert f"{one.name} and again are one section under two names: " in " ".join(capfd.readouterr().err.split())


def test_a_fold_says_so_where_twins_are_on_both_sides(world):
    one, two, three = read_sheet(world / "samples.csv")
    twins = {one.name: (two.name,), two.name: (one.name,), three.name: ()}
    said = twins_note(Fold("1", (two,), (three,), (one,)), twins)
    assert str(said) == "LEAKING: by its counts P1 is P2 under another name, which was trained on; scores flatter."
    assert twins_note(Fold("3", (one,), (two,), (three,)), twins) is None


def test_the_same_place_of_a_slide_under_two_patients_is_wrong(world, tmp_path):
    one, two, _ = read_sheet(world / "samples.csv")
    copy = tmp_path / "again.tif"
    copy.write_bytes(one.slide.read_bytes())
    again = replace(two, name="again", slide=copy, spots=one.spots)
    assert same_place(one, again)
    assert not same_place(one, two)
    moved = pd.read_csv(one.spots)
    moved[["x", "y"]] += 10_000
    moved.to_csv(tmp_path / "elsewhere.csv", index=False)
    assert not same_place(one, replace(again, spots=tmp_path / "elsewhere.csv"))
    checks = check_samples([one, again])
    assert all(check.problems[-1].startswith("LEAKING: P1 and again are one section under") for check in checks)


@pytest.mark.data
def test_patients_of_her2st_are_told_apart_and_a_renamed_part_of_c2_is_found(her2st_counts, tmp_path):
    sections = {
        name: section_counts(tmp_path, name, *counts_of(table, np.ones(table.n_obs, dtype=bool)))
        for name, table in her2st_counts.items()
    }
    assert len(sections) == 36
    column = np.array([int(spot.split("x")[0]) for spot in her2st_counts["C2"].obs_names])
    part, spots = counts_of(her2st_counts["C2"], column <= np.median(column), 5, "renamed")
    part.X = csr_matrix(np.random.default_rng(0).binomial(part.X.toarray().astype(int), 0.5).astype(np.float32))
    sections["Z9"] = section_counts(tmp_path, "Z9", part, spots)
    assert [pair[:2] for pair in find_twins(sections)] == [("C2", "Z9")]
