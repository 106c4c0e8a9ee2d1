"""genedml compare: several methods, seeds and folds as one grid and one table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from hostile import small_card

from genedml.config import load_config, preset_of
from genedml.errors import GeneDMLError
from genedml_cli.commands.choices import choose_backbone_weights, choose_methods
from genedml_cli.commands.tables.comparison import comparison_rows, show_comparison
from genedml_cli.commands.tables.external import show_external_comparison
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.evaluation.checklist import POINTS
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.evaluation.external import evaluate_external
from genedml_cli.evaluation.external_comparison import ExternalComparison
from genedml_cli.evaluation.external_sections import find_sections
from genedml_cli.evaluation.points import State
from genedml_cli.evaluation.published import means_of, published_rows
from genedml_cli.features import encoding, extraction
from genedml_cli.runs.comparison import base_of, compare, compare_externally, paper_beside, tile_um
from genedml_cli.runs.planning import RunSettings

TINY = ("encoder=tiny", "labels.panel_size=20", "views.local_grid=0", "training.epochs=2")


CONFIGS = {
    ("gene-dml", ""): tiny_config(),
    ("linear", ""): load_config(overrides=["method=linear", *TINY]),
    ("linear", "refit"): load_config(overrides=["method=linear", *TINY, "training.seed=7", "training.refit=true"]),
}


@pytest.fixture(scope="module")
def compared(world, run, tmp_path_factory):
    """Gene-DML and a line in two presets with two seeds on one fold, and the folder."""
    out = tmp_path_factory.mktemp("compare")
    samples = read_sheet(world / "samples.csv")
    return compare(samples, out, CONFIGS, 2, RunSettings(fold="P1", features=run.parent / "features")), out


def test_every_cell_is_a_run_and_the_table_their_means(compared):
    table, out = compared
    for name, title in (("gene-dml", "Gene-DML"), ("linear", "Linear")):
        each = [evaluate(out / name / f"seed-{seed}").summary().loc[title, ("pcc_a", "mean")] for seed in (2021, 2022)]
        assert table.summary().loc[title, ("pcc_a", "mean")] == pytest.approx(sum(each) / 2)
    assert set(table.references["method"]) == {"ridge", "ridge own tile", "place alone", "depth alone", "constant"}


def test_differences_costs_and_files_are_there(compared):
    table, out = compared
    means = table.summary().xs("mean", axis=1, level=1)["pcc_a"]
    assert table.differences().loc["Linear", ("pcc_a", "mean")] == pytest.approx(means["Linear"] - means["Gene-DML"])
    assert table.particulars.loc["Linear", "parameters"] == 8 * 20 + 20
    assert (table.particulars["seconds_a_fold"] > 0).all()
    lines = pd.read_csv(out / "compare.csv").set_index("row")
    assert lines.loc[["Gene-DML", "Linear"], ["encoder", "tile_um"]].to_numpy().tolist() == [["tiny", 112]] * 2
    assert lines.loc["Linear", "preset"] == "features"
    assert np.isnan(lines.loc["Gene-DML", "preset"])  # its widths are of no preset
    assert len(pd.read_csv(out / "seconds.csv")) == 6
    written = json.loads((out / "compare.json").read_text())
    assert written["differences_from"] == "Gene-DML"
    assert {row.get("method") for row in written["rows"]} >= {"Gene-DML", "Linear"}
    assert (out / "compare.png").stat().st_size > 10_000


def test_the_table_shows_encoder_preset_and_tile_where_rows_differ(compared, capsys):
    table, _ = compared
    show_comparison(table)
    shown = capsys.readouterr().out
    assert "preset" in shown and "tile um" not in shown and "encoder" not in shown.split("Difference from")[0]
    particulars = table.particulars.assign(tile_um=["112", "112", "77, 154"])
    show_comparison(replace(table, particulars=particulars))
    assert "tile um" in capsys.readouterr().out
    assert (comparison_rows(replace(table, particulars=particulars))[2][-3:-1]) == ["77, 154", "180"]


def test_tiles_are_told_in_um_of_every_field_that_a_network_looks_at():
    config, card = load_config("published", overrides=["method=m2ost"]), small_card()
    for um_per_px, told in ((0.5, "112, 224, 448"), ("native", "154-157, 308-314, 616-627")):
        views = replace(config.views, um_per_px=um_per_px)
        native = replace(card, config=replace(config, views=views), um_per_px=(0.6875, 0.7))
        assert tile_um(native) == told
    assert preset_of(config) == "published"


def test_a_method_in_two_presets_is_two_rows_with_the_same_seeds_and_what_differs_is_said(compared):
    table, _ = compared
    assert set(table.scores["seed"]) == {2021, 2022}
    assert table.differences()[("pcc_a", "mean")].notna().all()
    unlike = [note.text for note in table.notes if "are not the method's alone" in note.text]
    assert unlike == ["Linear, refit: other training.refit than Gene-DML, so differences are not the method's alone."]


def test_the_papers_means_stand_by_rows_without_a_preset_and_with_a_published_one():
    published = published_rows((1,), "HER2ST")
    rows = [("triplex", ""), ("triplex", "published"), ("triplex", "features"), ("gene-dml", "HER2ST"), ("linear", "")]
    configs = {row: load_config(overrides=[f"method={row[0]}"]) for row in (*rows, ("m2ost", ""))}
    beside = paper_beside(published, configs, "HER2ST")
    assert beside["pcc_a"].to_dict() == {
        "TRIPLEX": 0.314,
        "TRIPLEX, published": 0.314,
        "Gene-DML, HER2ST": 0.331,
        "M2OST (features)": 0.231,
    }
    assert paper_beside((), configs, "").empty


def test_rows_are_held_against_the_first_of_gene_dml_whatever_its_preset():
    triplex, small = load_config(overrides=["method=triplex"]), load_config("small")
    configs = {("triplex", ""): triplex, ("gene-dml", "small"): small, ("gene-dml", ""): small}
    assert base_of(configs) == "Gene-DML, small"
    assert base_of({("triplex", "published"): triplex}) == "TRIPLEX, published"


def test_what_scores_lower_than_ridge_is_said_once_with_its_name(compared):
    table, _ = compared
    means, ridge = table.summary()[("pcc_a", "mean")], table.reference_summary().loc["ridge", ("pcc_a", "mean")]
    behind = [name for name, score in means.items() if round(score, 3) < round(ridge, 3)]
    told = [note.text for note in table.notes if note.text.startswith("ridge (")]
    assert told == [f"ridge ({ridge:.3f}) scores higher in PCC(A) than {', '.join(behind)}."] * bool(behind)
    assert not any("scores higher here" in note.text for note in table.notes)


def test_the_same_command_again_trains_nothing_and_names_every_cell(compared, world, run, monkeypatch, capfd):
    table, out = compared
    monkeypatch.setattr("genedml_cli.runs.fold.train_fold", lambda *_: pytest.fail("trained again"))
    samples = read_sheet(world / "samples.csv")
    again = compare(samples, out, CONFIGS, 2, RunSettings(fold="P1", features=run.parent / "features"))
    pd.testing.assert_frame_equal(again.scores, table.scores)
    told = capfd.readouterr().err
    for cell in ("gene-dml/seed-2021", "gene-dml/seed-2022", "linear/seed-2021", "linear/seed-2022"):
        assert f"Fold P1 in {out / cell} is there already; keeping it." in told


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The sheet of two sections of donors that no run has seen; the second has a spot off its image."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_dataset(folder, SyntheticConfig(patients=2, spots_x=6, spots_y=5, genes=20, seed=9))
    sheet = pd.read_csv(folder / "samples.csv").assign(sample=["X1", "X2"], patient=["Q1", "Q2"])
    sheet.drop(columns="fold", errors="ignore").to_csv(folder / "others.csv", index=False)
    spots = pd.read_csv(folder / "spots/P2.csv", dtype=str)
    spots.loc[0, "x"] = "1000000"
    spots.to_csv(folder / "spots/P2.csv", index=False)
    return folder / "others.csv"


def test_methods_are_scored_on_the_same_external_sections_each_encoded_once(
    compared, elsewhere, run, monkeypatch, capsys
):
    _, out = compared
    encoded = []
    monkeypatch.setattr(extraction, "encode_plan", lambda *call: encoded.append(call[4]) or encoding.encode_plan(*call))
    settings = RunSettings(fold="P1", features=out / "features")
    configs = {row: CONFIGS[row] for row in (("gene-dml", ""), ("linear", ""))}
    with pytest.raises(GeneDMLError, match="--skip-off-image leaves them out"):
        compare_externally(out, configs, 2, find_sections(str(elsewhere)), settings)
    assert not (out / "external-others.csv").exists()
    sections = find_sections(str(elsewhere), skip_off_image=True)
    table = compare_externally(out, configs, 2, sections, settings)
    assert sorted(encoded) == ["P1.tif", "P2.tif"]
    for cell, title, seed in (("gene-dml/seed-2022", "Gene-DML", 2022), ("linear/seed-2021", "Linear", 2021)):
        alone = evaluate_external(out / cell, str(elsewhere), features=out / "features", skip_off_image=True)
        for section in alone.sections:
            expected = section.values().set_index("method").loc[title, "pcc_a"]
            scores = table.sections[section.title].scores.set_index(["method", "seed"])["pcc_a"]
            assert scores[(title, seed)] == pytest.approx(expected)
    each = [table.sections[name].summary()[("mse", "mean")] for name in ("X1", "X2")]
    assert table.parts["all sections"].summary()[("mse", "mean")].to_numpy() == pytest.approx(sum(each).to_numpy() / 2)
    assert table.sizes == {"X1": (26, 20), "X2": (25, 20)}
    assert "OFF IMAGE" in table.sections["X2"].marks
    marks = table.parts["all sections"].marks
    assert [marks.count(mark) for mark in ("UNFINISHED", "OFF IMAGE")] == [1, 1]
    assert "OFF IMAGE" not in table.sections["X1"].marks
    points = {point.name: point for point in table.checklist}
    assert list(points) == list(POINTS)
    assert points["unsmoothed truth"].state is State.DONE
    assert points["null of moved maps"].state is State.NOT_DONE
    assert "evaluate RUN --external" in points["null of moved maps"].why
    show_external_comparison(table)
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"Checklist, {name}: " in shown for name in POINTS)


def test_external_scores_are_files_beside_those_of_the_comparison(compared, capsys):
    _, out = compared
    lines = pd.read_csv(out / "external-others.csv").set_index(["section", "row"])
    assert [*lines.index.unique("section")] == ["all sections", "X1", "X2"]
    assert {"Gene-DML", "Linear", "ridge", "ridge own tile", "place alone", "depth alone", "constant"} == set(
        lines.loc["X1"].index
    )
    folds = pd.read_csv(out / "external-others.folds.csv")
    means = folds.groupby(["section", "method"])["pcc_a"].mean()
    assert lines.loc[("X2", "Linear"), "pcc_a_mean"] == pytest.approx(means[("X2", "Linear")])
    written = json.loads((out / "external-others.json").read_text())
    rows = {row.get("method"): row for row in written["sections"]["X1"]["rows"]}
    assert rows["Linear"]["difference"]["pcc_a"]["mean"] == pytest.approx(
        means[("X1", "Linear")] - means[("X1", "Gene-DML")]
    )
    assert (out / "external-others.png").stat().st_size > 10_000


def test_table_2_stands_over_the_methods_where_it_is_of_the_same_data(compared, tmp_path, capsys):
    table, _ = compared
    rows = tuple(published_rows((2,)))
    sections = {name: replace(table, title=name, published=means_of({})) for name in ("X1", "X2")}
    external = ExternalComparison("Methods", "external", sections, {"X1": (9, 20)}, 20, rows, tmp_path)
    show_external_comparison(external)
    shown = capsys.readouterr().out
    assert shown.index("10x Visium-3 (paper)") < shown.index("mean of 2 sections") < shown.index("X1, 20/20 genes")
    external.write()
    lines = pd.read_csv(tmp_path / "external.csv").set_index(["kind", "section", "row"])
    assert lines.loc[("paper", "10x Visium-1", "TRIPLEX"), "pcc_a_mean"] == 0.136
    assert len(lines.loc["paper"]) == len(rows) == 15


def test_methods_whose_scores_do_not_compare_are_refused_before_anything_is_trained(world, tmp_path):
    configs = {
        ("gene-dml", ""): tiny_config(),
        ("linear", ""): load_config(overrides=["method=linear", *TINY, "labels.smooth=false"]),
    }
    with pytest.raises(GeneDMLError, match="linear and gene-dml have other settings of labels"):
        compare(read_sheet(world / "samples.csv"), tmp_path / "out", configs)
    assert not (tmp_path / "out").exists()


def test_methods_are_chosen_by_name():
    assert choose_methods("triplex, linear,triplex") == ["triplex", "linear"]
    assert {"gene-dml", "st-net", "histogene", "hist2st", "egn", "bleep", "triplex", "m2ost"} <= set(
        choose_methods("all")
    )
    with pytest.raises(GeneDMLError, match=r"No method is called 'tripleks'. Did you mean triplex\?"):
        choose_methods("linear,tripleks")


def test_every_method_gets_its_own_backbone_file_and_one_without_a_name_is_of_the_only_backbone():
    published = {name: load_config("published", overrides=[f"method={name}"]) for name in ("st-net", "bleep")}
    linear = load_config(overrides=["method=linear"])
    files = choose_backbone_weights(["st-net=a.pth", "bleep=b=c.pth"], published.values())
    assert files == {"st-net": Path("a.pth"), "bleep": Path("b=c.pth")}
    assert choose_backbone_weights(["a.pth"], [linear, published["bleep"]]) == {"bleep": Path("a.pth")}
    for given, configs, told in (
        (["a.pth"], [linear], "here no method starts from weights"),
        (["a.pth"], published.values(), "here st-net, bleep start from weights. Say whose it is"),
        (["st-nett=a.pth"], published.values(), r"No method is called 'st-nett'. Did you mean st-net\?"),
        (["bleep=a.pth", "bleep=b.pth"], published.values(), "two files for bleep"),
    ):
        with pytest.raises(GeneDMLError, match=told):
            choose_backbone_weights(given, configs)
