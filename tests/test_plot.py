"""Pictures of genes: the right panels, scores and errors."""

import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from conftest import tiny_config
from matplotlib.figure import Figure

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.evaluation.scores import RIDGE
from genedml_cli.figures.genes import genes_figure
from genedml_cli.figures.maps import Look, range_labels, scaled, value_range
from genedml_cli.outputs.prediction_record import record_of, set_record
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.pictures import pictures_of_predictions, pictures_of_runs, plot
from genedml_cli.runs.run import train

GENES = ["TUMOR1", "LYMPH1"]


@pytest.fixture(scope="module")
def two_runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of two folds each, that differ in the seed and are called alike."""
    folder = tmp_path_factory.mktemp("plots")
    samples, found = read_sheet(world / "samples.csv"), []
    for seed in (1, 2):
        config = tiny_config(f"training.seed={seed}")
        found.append(folder / f"seed-{seed}" / "run")
        for fold in ("P1", "P2"):
            train(samples, found[-1], config, fold=fold, features=folder / "features")
    return found


@pytest.fixture(scope="module")
def prediction(world: Path, two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first section, predicted by the fold that tests it."""
    out = tmp_path_factory.mktemp("predicted") / "p1.h5ad"
    predict(world / "slides" / "P1.tif", world / "spots" / "P1.csv", two_runs[0], out, fold="P1")
    return out


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.collections and axis.get_title()]


def test_every_panel_has_the_pcc_that_evaluate_says(two_runs):
    pictures, _ = pictures_of_runs(two_runs, GENES, ["P2", "P1"], ridge=True)
    assert [picture.name for picture in pictures] == ["P2", "P1"]
    assert list(pictures[0].predicted) == ["seed-1 / run", "seed-2 / run", "ridge"]
    figure = genes_figure(pictures, GENES)
    expected = []
    for fold in ("P2", "P1"):
        for gene in GENES:
            for run, method in ((two_runs[0], "Gene-DML"), (two_runs[1], "Gene-DML"), (two_runs[0], RIDGE)):
                own = next(s for s in evaluate(run).scores if s.method == method and s.fold == fold)
                expected.append(f"PCC {own.pcc[own.genes.index(gene)]:.2f}")
    assert titles(figure) == expected
    rows = [axis.get_ylabel() for axis in figure.axes if axis.images and axis.get_ylabel()]
    assert rows == ["P2", "P1"] * 2, "the two genes do not fit beside each other"


@pytest.fixture(scope="module")
def line_run(world: Path, two_runs: list[Path]) -> Path:
    """A run of a line on one fold of the same world."""
    overrides = ["method=linear", "encoder=tiny", "labels.panel_size=20", "views.local_grid=0", "training.epochs=2"]
    out = two_runs[0].parent.parent / "line"
    train(
        read_sheet(world / "samples.csv"),
        out,
        load_config(overrides=overrides),
        fold="P1",
        features=out.parent / "features",
    )
    return out


def test_methods_stand_beside_the_truth_a_row_a_gene(two_runs, line_run, prediction):
    files = [two_runs[0] / "predictions" / "P1.h5ad", line_run / "predictions" / "P1.h5ad"]
    (picture,), footnote = pictures_of_predictions(files, GENES, None)
    assert picture.name == "P1"
    assert list(picture.predicted) == ["Gene-DML", "Linear"]
    figure = genes_figure([picture], GENES, footnote)
    expected = []
    for gene in GENES:
        for run in (two_runs[0], line_run):
            own = next(s for s in evaluate(run).scores if s.fold == "P1")
            expected.append(f"PCC {own.pcc[own.genes.index(gene)]:.2f}")
    assert titles(figure) == expected
    assert [words(figure).count(word) for word in ("tissue", "measured", "Gene-DML", "Linear")] == [1, 1, 1, 1]
    labels = [axis.get_ylabel() for axis in figure.axes if axis.images and axis.get_ylabel()]
    assert labels == [*GENES, "P1"]
    places = [axis.get_position() for axis in panels_of(figure)]
    assert [box.x0 for box in places[:3]] == [box.x0 for box in places[3:]]
    assert {box.y0 for box in places[:3]}.isdisjoint(box.y0 for box in places[3:])
    (of_runs,), _ = pictures_of_runs([two_runs[0], line_run], GENES, ["P1"], ridge=False)
    np.testing.assert_array_equal(of_runs.panels(), picture.panels())
    (mixed,), _ = pictures_of_predictions([files[1], prediction], GENES, None)
    np.testing.assert_allclose(mixed.truth, picture.truth)


def panels_of(figure: Figure) -> list:
    return [axis for axis in figure.axes if axis.collections and axis.images]


def test_panels_are_named_and_true_in_shape(two_runs):
    pictures, footnote = pictures_of_runs(two_runs[:1], GENES, [], ridge=False)
    figure = genes_figure(pictures, GENES, f"{footnote} LEAKING: so it is.")
    said = words(figure)
    assert [said.count(word) for word in (*GENES, "measured", "predicted", "tissue")] == [1, 1, 2, 2, 1]
    assert any(word.endswith("LEAKING: so it is.") for word in said)
    assert sum("\u00b5m" in word or "mm" in word for word in said) == len(pictures) == 2
    panels = panels_of(figure)
    assert len(panels) == 2 * 2 * 2
    width, height = figure.get_size_inches()
    for axis in panels:
        assert axis.collections[0].get_clim() == (0, 1)
        left, right = axis.get_xlim()
        bottom, top = axis.get_ylim()
        assert bottom > top, "y runs down, as on the slide"
        box = axis.get_position()
        assert box.height * height / (box.width * width) == pytest.approx((bottom - top) / (right - left))
    notes = " ".join(said)
    assert notes.count("Colours: one scale a gene, 1st to 99th percentile") == 1
    assert said.count("log10(1 + CP10k)") == len(panels) / 2  # a bar for measured and predicted of a gene


@pytest.mark.parametrize("across", [1, 3])
def test_a_caption_has_two_lines_at_most_and_what_its_marks_say_is_told(two_runs, capfd, across):
    genes = [*GENES, "STROMA1"][:across]
    pictures, footnote = pictures_of_runs(two_runs[:1], genes, ["P1"], ridge=False)
    told = " ".join(capfd.readouterr().err.split())
    assert all(f"{mark}: " in told for mark in marks_in(footnote))
    below = [line for line in words(genes_figure(pictures, genes, footnote)) if len(line) > 20]
    assert 1 <= len(below) <= 2


def marks_in(footnote: str) -> list[str]:
    return footnote.removeprefix("Marks: ").rstrip(".").split(", ")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tissue", [True, False])
def test_no_two_words_of_a_table_of_methods_lie_on_each_other(two_runs, line_run, shared, tissue):
    files = [run / "predictions" / "P1.h5ad" for run in (two_runs[0], line_run)]
    (picture,), footnote = pictures_of_predictions(files, GENES, None)
    picture = picture if tissue else replace(picture, tissue=None)
    check_words_apart(genes_figure([picture], GENES, footnote, Look(shared_scale=shared)))


@pytest.mark.parametrize("shared", [True, False])
def test_a_gene_has_one_scale_and_its_ends_are_written(two_runs, shared):
    pictures, _ = pictures_of_runs(two_runs[:1], GENES, [], ridge=False)
    figure = genes_figure(pictures, GENES, look=Look(shared_scale=shared))
    drawn = [axis.collections[0].get_array() for axis in panels_of(figure)]
    said = words(figure)
    for number, gene in enumerate(GENES):
        values = [picture.panels()[place, :, number] for picture in pictures for place in (0, 1)]
        own = [np.percentile(panel, (1, 99)).tolist() for panel in values]
        together = (min(low for low, _ in own), max(high for _, high in own))
        arrays = [drawn[4 * row + 2 * number + place] for row in (0, 1) for place in (0, 1)]
        for panel, array, ends in zip(values, arrays, own, strict=True):
            low, high = together if shared else ends
            assert np.allclose(array, np.clip((panel - low) / (high - low), 0, 1), atol=1e-5), gene
        for low, high in [together] * 2 if shared else own:
            assert {*range_labels(low, high)} <= set(said), (gene, said)


def test_genes_stand_in_a_grid_in_their_order(two_runs):
    pictures, _ = pictures_of_runs(two_runs[:1], [*GENES, "STROMA1"], ["P1"], ridge=False)
    genes = [*GENES, "STROMA1"]

    def places(ncols: int | None) -> list[tuple[float, float]]:
        figure = genes_figure(pictures, genes, look=Look(ncols=ncols))
        assert len(panels_of(figure)) == 6
        found = {text.get_text(): text.get_position() for text in figure.texts if text.get_text() in genes}
        return [found[gene] for gene in genes]

    (x1, y1), (x2, y2), (x3, y3) = places(2)
    assert (x1, y1) == (x3, y1) != (x3, y3)
    assert x1 < x2
    assert y1 == y2 > y3, "figures count from below"
    assert len({x for x, _ in places(1)}) == 1
    assert len({y for _, y in places(3)}) == 1
    assert len({y for _, y in places(None)}) == 2, "no more genes than panels of a legible width"


def test_colours_and_the_size_of_spots_are_chosen(two_runs, tmp_path, monkeypatch):
    drawn = []

    def spy(*call):
        figure = genes_figure(*call)
        drawn.append(panels_of(figure)[0].collections[0])
        return figure

    monkeypatch.setattr("genedml_cli.figures.genes.genes_figure", spy)
    for size in (1.0, 2.0):
        plot(two_runs[:1], GENES, tmp_path / "x.png", look=Look("magma"), spot_size=size)
    usual, large = drawn
    assert usual.get_cmap().name == "magma"
    assert large.get_widths()[0] == pytest.approx(2 * usual.get_widths()[0])


def test_pale_tissue_leaves_the_spots_their_colours(two_runs):
    (picture,), _ = pictures_of_runs(two_runs[:1], GENES, ["P1"], ridge=False)
    figure = genes_figure([picture], GENES)
    below = np.asarray(panels_of(figure)[0].images[0].get_array())
    assert picture.tissue is not None
    assert below.min() >= 255 - 0.31 * (255 - int(picture.tissue.min()))
    assert (below[..., 0] == below[..., 2]).all(), "grey, so that no colour is read into it"


def test_no_two_words_of_a_picture_lie_on_each_other(two_runs):
    pictures, _ = pictures_of_runs(two_runs, GENES, [], ridge=True)
    check_words_apart(genes_figure(pictures, GENES, "LEAKING: a patient is on both sides of a fold."))


def check_words_apart(figure: Figure) -> None:
    figure.savefig(io.BytesIO())
    texts = [text for text in figure.texts if text.get_text()]
    texts += [axis.title for axis in figure.axes if axis.get_title()]
    texts += [axis.yaxis.label for axis in figure.axes if axis.get_ylabel()]
    boxes = [text.get_window_extent() for text in texts]
    page = figure.bbox
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        overlapping = [texts[k].get_text() for k in range(number) if boxes[k].overlaps(box)]
        assert not overlapping, (texts[number].get_text(), overlapping)


def test_colours_run_between_percentiles_so_that_one_odd_spot_pales_no_other():
    values = np.linspace(0, 1, 200)
    odd = np.append(values, 1000.0)
    places = scaled(odd, *value_range(odd))
    assert np.abs(places[:-1] - values).max() < 0.03
    assert places[-1] == 1
    unknown = np.append(values, np.nan)
    assert np.isnan(scaled(unknown, *value_range(unknown))[-1])
    assert not scaled(np.full(9, 0.3), 0.3, 0.3).any()
    alone = np.append(np.zeros(999), 5.0)
    assert scaled(alone, *value_range(alone)).sum() == 1, "a gene of one spot alone is seen there"


def test_the_ends_of_a_scale_are_told_apart():
    assert range_labels(0.123, 1.456) == ("0.12", "1.46")
    assert range_labels(2.3801, 2.3809) == ("2.38010", "2.38090")
    assert range_labels(0.5, 0.5) == ("0.50", "0.50")


def test_names_are_drawn_as_they_are_and_a_missing_scale_is_said(prediction, tmp_path):
    data = anndata.read_h5ad(prediction)
    data.var_names = ["$\\frac{$", *data.var_names[1:]]
    del data.uns["genedml"]["um_per_px"]
    renamed = tmp_path / "a$b_{.h5ad"
    data.write_h5ad(renamed)
    out, _ = plot([renamed], ["$\\frac{$"])
    assert out == tmp_path / "a$b_{.genes.png"
    assert out.is_file()
    pictures, _ = pictures_of_predictions([renamed], ["$\\frac{$"], None)
    assert [picture.name for picture in pictures] == ["a$b_{"]
    svg, _ = plot([renamed], ["$\\frac{$"], tmp_path / "x.svg")
    said = " ".join(re.findall(r">([^<>]+)</text>", svg.read_text(encoding="utf-8")))
    assert "No scale bar for a$b_{: its um/px is" in said


def test_a_run_whose_slides_are_gone_is_drawn_without_them(two_runs, tmp_path):
    moved = shutil.copytree(two_runs[0], tmp_path / "run")
    record = moved / "run.json"
    record.write_text(record.read_text().replace("/slides/", "/gone/"))
    pictures, _ = pictures_of_runs([moved], GENES, ["P1"], ridge=False)
    assert pictures[0].tissue is None
    figure = genes_figure(pictures, GENES)
    assert "tissue" not in words(figure)
    assert len(titles(figure)) == 2


def test_a_prediction_is_drawn_with_truth_and_without(prediction, world, two_runs, tmp_path):
    with_truth, footnote = pictures_of_predictions([prediction], GENES, world / "counts" / "P1.tsv.gz")
    assert "ONE PATIENT" in footnote  # of the run's two folds the other one calibrates
    assert {section.unit for section in with_truth} == {"log10(1 + CP10k)"}
    own = next(s for s in evaluate(two_runs[0]).scores if s.method == "Gene-DML" and s.fold == "P1")
    scores = [float(title.removeprefix("PCC ")) for title in titles(genes_figure(with_truth, GENES))]
    assert scores == pytest.approx([own.pcc[own.genes.index(gene)] for gene in GENES], abs=0.02)
    without = genes_figure(pictures_of_predictions([prediction], GENES, None)[0], GENES)
    assert titles(without) == []
    assert "measured" not in words(without)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_pictures_arrive_whole(prediction, tmp_path, suffix):
    out = tmp_path / f"p1.{suffix}"
    assert plot([prediction], GENES, out) == (out, 1)
    start = out.read_bytes()[:200]
    assert any(mark in start for mark in (b"PNG", b"%PDF", b"<svg", b"<?xml"))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_cannot_be_drawn_is_one_sentence_and_no_file(two_runs, prediction, world, tmp_path):
    run, out = two_runs[0], tmp_path / "x.png"
    other = tmp_path / "other.h5ad"
    data = anndata.read_h5ad(prediction)
    record = record_of(data)
    set_record(data, replace(record, label_settings=replace(record.label_settings, log_base="e")))
    data.write_h5ad(other)
    counts = world / "counts" / "P1.tsv.gz"
    moved, elsewhere, fewer = anndata.read_h5ad(prediction), tmp_path / "elsewhere.h5ad", tmp_path / "fewer.h5ad"
    moved[1:].write_h5ad(fewer)
    moved.obsm["spatial"] = np.asarray(moved.obsm["spatial"]) + 100
    moved.write_h5ad(elsewhere)
    refused = [
        (([run], ["TUMOUR1"], out), {}, "does not predict TUMOUR1. Near to that: TUMOR1"),
        (([run], [], out), {}, "Name the genes"),
        (([run], GENES, tmp_path / "x.jpg"), {}, "must end with .png, .pdf, .svg"),
        (([run], GENES, out), {"sections": ["P9"]}, "P9. There are: P1, P2"),
        (([run], GENES, out), {"truth": counts}, "holds its own truth"),
        (([run, prediction], GENES, out), {}, "not both"),
        (([prediction], GENES, out), {"ridge": True}, "go with run folders"),
        (([prediction, other], GENES, out), {}, "do not compare"),
        (([run / "predictions" / "P1.h5ad"], GENES, out), {"truth": counts}, "of a run and holds its own truth"),
        (
            ([run / "predictions" / "P1.h5ad", run / "predictions" / "P2.h5ad"], GENES, out),
            {},
            "of several slides: P1, P2",
        ),
        (([run / "predictions" / "P1.h5ad", elsewhere], GENES, out), {}, "has spots at other places than"),
        (([run / "predictions" / "P1.h5ad", fewer], GENES, out), {}, "predicts other spots of this section than"),
        (([run, run], GENES, out), {}, "named twice"),
        (([tmp_path], GENES, out), {}, "no finished fold"),
        (([prediction], ["tumor"], out), {}, "Near to that: TUMOR"),
        (
            ([prediction, Path("LYMPH1")], ["TUMOR1"], out),
            {},
            "If it is a gene, put commas between genes: --genes TUMOR1,LYMPH1",
        ),
        (([tmp_path / "none.h5ad"], GENES, out), {}, "There is no run or prediction"),
        (
            ([prediction], GENES, out),
            {"look": Look("virdis")},
            "There are no colours virdis. Take one of matplotlib's, such as viridis",
        ),
    ]
    for call, options, sentence in refused:
        with pytest.raises(GeneDMLError) as stopped:
            plot(*call, **options)
        assert sentence in str(stopped.value)
    os.link(json.loads((run / "run.json").read_text())["samples"][0]["slide"], out)  # a slide may be a plain image
    with pytest.raises(GeneDMLError):
        plot([run], GENES, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere.h5ad", "fewer.h5ad", "other.h5ad", "x.png"]
