"""What a cohort gives together: its table, means of slides, the page, one merged file, other kinds of file."""

import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from test_cohort import WITH_RESULTS, write_good, write_sheet

from genedml.errors import GeneDMLError
from genedml_cli.cohort import cohort
from genedml_cli.cohort import slide as cohort_slide
from genedml_cli.cohort.cohort import predict_cohort
from genedml_cli.cohort.slide import FAILED, KEPT, PREDICTED
from genedml_cli.commands.predict import Kind
from genedml_cli.commands.tables.cohort import show_cohort
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.formats import FORMATS


@pytest.fixture
def run(quick_run):
    return quick_run


def predicted_pair(run, tmp_path, **more):
    """Two good slides and one that is not there."""
    rows = {name: write_good(tmp_path, number) for number, name in enumerate(("a", "b"))}
    sheet = write_sheet(tmp_path, rows | {"bad": rows["a"] | {"slide": "none.png"}})
    out = tmp_path / "out"
    return predict_cohort(sheet, run, out, fold="P1", **more), out


def test_the_merged_file_holds_every_slide_by_its_name(run, tmp_path):
    done, out = predicted_pair(run, tmp_path, merge=True)
    assert [one.state for one in done.outcomes] == [PREDICTED, PREDICTED, FAILED]
    merged = anndata.read_h5ad(out / "merged.h5ad")
    assert merged.obs_names.is_unique and merged.n_obs == 18
    assert merged.obs["slide"].value_counts(sort=False).to_dict() == {"a": 9, "b": 9}
    assert {*merged.uns["spatial"]} == {"a", "b"}
    for name in "ab":
        alone, part = anndata.read_h5ad(out / f"{name}.h5ad"), merged[merged.obs["slide"] == name]
        assert part.obs_names.tolist() == [f"{name}_{spot}" for spot in alone.obs_names]
        assert np.array_equal(part[:, alone.var_names].X, alone.X)
        assert np.array_equal(part.layers["ridge"], alone.layers["ridge"])
        assert np.array_equal(part.obsm["spatial"], alone.obsm["spatial"])
        assert np.array_equal(part.obs["novelty"], alone.obs["novelty"])
        assert np.array_equal(part.var["cv_pcc"], alone.var["cv_pcc"])
        (picture,) = alone.uns["spatial"].values()
        assert np.array_equal(merged.uns["spatial"][name]["images"]["hires"], picture["images"]["hires"])
        made = merged.uns["genedml"]["slides"][name]
        assert made["slide_sha256"] == alone.uns["genedml"]["slide_sha256"]
    assert list(merged.uns["genedml"]["failed"]) == ["bad"]
    assert merged.uns["genedml"]["label"] == alone.uns["genedml"]["label"]


def test_means_of_slides_and_the_page(run, tmp_path):
    _, out = predicted_pair(run, tmp_path)
    assert not (out / "merged.h5ad").exists()
    table = pd.read_csv(out / "pseudobulk.csv", index_col="slide")
    assert table.index.tolist() == ["a", "b"]
    for name in "ab":
        alone = anndata.read_h5ad(out / f"{name}.h5ad")
        assert table.columns.tolist() == [*alone.var_names, "marks"]
        assert np.allclose(table.loc[name, alone.var_names].astype(float), alone.X.mean(axis=0), atol=1e-5)
    page = (out / "cohort.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert 'href="a.h5ad"' in page and "There is no slide" in page
    assert "http:" not in page and "https:" not in page


def test_other_kinds_of_file_stand_beside_and_are_written_of_kept_results_too(run, tmp_path):
    _, out = predicted_pair(run, tmp_path)
    done, out = predicted_pair(run, tmp_path, formats=(".csv", ".geojson"))
    assert [one.state for one in done.outcomes] == [KEPT, KEPT, FAILED]
    for name in "ab":
        alone, table = anndata.read_h5ad(out / f"{name}.h5ad"), pd.read_csv(out / f"{name}.csv")
        assert np.allclose(table[alone.var_names], alone.X)
        assert len(json.loads((out / f"{name}.geojson").read_text())["features"]) == 9
    assert not list(out.glob("bad*"))


def test_the_kinds_of_the_option_are_those_that_can_be_written():
    assert [f".{kind}" for kind in Kind] == list(FORMATS)


def test_merging_more_than_memory_holds_is_a_sentence_and_costs_no_result(run, tmp_path, monkeypatch):
    monkeypatch.setattr("genedml_cli.cohort.results.free_on_host", lambda: 10)
    with pytest.raises(GeneDMLError, match=r"of memory; .* leave out --merge"):
        predicted_pair(run, tmp_path, merge=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.h5ad", "b.h5ad", *WITH_RESULTS}


def test_the_table_shows_the_marks_that_the_summary_has_in_full(tmp_path, capsys):
    marks = (Note(Mark.NOVEL, "31% of the spots are far."), Note(Mark.SEEN, "1 of 2 models."))
    one, other = (cohort_slide.Outcome(name, Path(f"{name}.svs"), PREDICTED, 9, 20) for name in ("a", "b"))
    done = cohort.Cohort(tmp_path, (replace(one, marks=marks), other))
    done.write()
    show_cohort(done)
    rows = {words[0]: words[-2:] for words in map(str.split, capsys.readouterr().out.splitlines()) if len(words) > 2}
    assert rows["a"] == ["NOVEL,", "SEEN"]
    assert rows["b"] == ["0.0", "-"]
    table = pd.read_csv(tmp_path / "summary.csv").set_index("name")
    assert table.loc["a", "marks"] == "NOVEL: 31% of the spots are far. SEEN: 1 of 2 models."
    assert pd.isna(table.loc["b", "marks"])
