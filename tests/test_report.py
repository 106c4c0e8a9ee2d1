"""The report: what it says, that it lets nothing in, and how it works in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from playwright.sync_api import Browser, Page, expect, sync_playwright

from genedml.checkpoint import load_card
from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml.metrics import pcc
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.evaluation import finished_sections, score_prediction
from genedml_cli.evaluation.run_comparison import compare_runs
from genedml_cli.figures.maps import SectionPicture
from genedml_cli.notes import SHARED_PATIENTS
from genedml_cli.outputs.run_folder import read_record
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.atlas import LETTERS, Mapped, atlas_of, letters
from genedml_cli.report.contents import GENES_LISTED, Cell, gene_table, number_cell
from genedml_cli.report.curves import charts_of
from genedml_cli.report.page import report
from genedml_cli.report.prediction_page import WITHOUT_SCORES
from genedml_cli.report.run_page import _same_patients, contents_of_run, signed_cell
from genedml_cli.runs.run import train

HOSTILE = '<script>document.title="owned"</script>'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Without these a browser looks for its makers' hosts.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Elements(HTMLParser):
    """Elements with their attributes, and the texts of first cells and of list entries."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_data(self, text: str) -> None:
        if self._open and text.strip():
            self.texts.setdefault(self._open[-1], []).append(text)


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three folds, trained again with the held-out section."""
    folder = tmp_path_factory.mktemp("reports")
    config = tiny_config("training.epochs=2", "training.refit=true")
    for fold in ("P1", "P2"):
        train(read_sheet(world / "samples.csv"), folder / "run", config, fold=fold, features=folder / "features")
    return folder / "run"


@pytest.fixture(scope="module")
def prediction(world: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The third section by both models, as a model without cross-validated scores predicts it."""
    out = tmp_path_factory.mktemp("predicted") / "p3.h5ad"
    data = predict(world / "slides" / "P3.tif", world / "spots" / "P3.csv", run, out)
    data.var = data.var.drop(columns=[name for name in data.var if name in ("cv_pcc", "cv_pcc_sd", "baseline_pcc")])
    data.obs = data.obs.drop(columns=[name for name in data.obs if name == "novelty"])
    data.write_h5ad(out)
    return out


@pytest.fixture(scope="module")
def scored(prediction: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with cross-validated scores, the later a gene the better, and novelty; and with hostile names."""
    data = anndata.read_h5ad(prediction)
    data.var_names = [HOSTILE, *data.var_names[1:]]
    data.var["cv_pcc"] = np.linspace(-0.1, 0.85, data.n_vars)
    data.var.iloc[1, data.var.columns.get_loc("cv_pcc")] = np.nan
    data.var["cv_pcc_sd"], data.var["baseline_pcc"] = 0.05, 0.123
    data.obs["novelty"] = np.where(np.arange(data.n_obs) < data.n_obs // 4, 0.99, 0.5)
    data.uns["genedml"]["notes"] = [f"SEEN: {HOSTILE}", '"><img src=x onerror="document.title=1">']
    data.uns["genedml"]["slide"] = data.uns["genedml"]["command"] = f"{HOSTILE}.svs"
    data.obs_names = [HOSTILE, *data.obs_names[1:]]
    out = tmp_path_factory.mktemp("scored") / "<img src=x onerror=alert(1)>.h5ad"
    data.write_h5ad(out)
    return out


@pytest.fixture(scope="module")
def run_page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's page, written where the run is not."""
    return report(run, tmp_path_factory.mktemp("pages") / "run.html")


@pytest.fixture(scope="module")
def scored_page(scored: Path) -> Path:
    """The page of the prediction with scores and hostile names, where it goes by default."""
    return report(scored)


@pytest.fixture(scope="module")
def line_run(world: Path, run: Path) -> Path:
    """A line on the same folds."""
    overrides = ["method=linear", "encoder=tiny", "labels.panel_size=20", "views.local_grid=0", "training.epochs=2"]
    out, samples = run.parent / "line", read_sheet(world / "samples.csv")
    for fold in ("P1", "P2"):
        train(samples, out, load_config(overrides=overrides), fold=fold, features=run.parent / "features")
    return out


@pytest.fixture(scope="module")
def comparison_page(run: Path, line_run: Path) -> Path:
    """The page of both runs, where it goes by default."""
    page = report([run, line_run], genes=["TUMOR1"])
    assert page == run / "comparison.html"
    return page


def read(page: Path) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


def genes_listed(page: Path) -> list[str]:
    table = page.read_text(encoding="utf-8").split('id="table-genes"')[1].split("</table>")[0]
    return Elements(table.split("</thead>")[1]).texts["th"]


def test_a_run_has_the_checklist_that_evaluate_writes(run, run_page):
    table = run_page.read_text(encoding="utf-8").split('id="table-checklist"')[1].split("</table>")[0]
    written = json.loads((run / "metrics.json").read_text())["checklist"]
    cells = Elements(table.split("</thead>")[1]).texts
    assert cells["th"] == [point["point"] for point in written]
    assert cells["td"] == [text for point in written for text in (point["state"], point["why"])]


def test_a_run_says_what_evaluate_says(run, run_page):
    html, own = read(run_page), json.loads((run / "metrics.json").read_text())["methods"]["Gene-DML"]
    for metric in ("pcc_a", "pcc_h", "mse"):
        assert number_cell(own[metric]["mean"], own[metric]["sd"]).text in html.texts["td"]
    assert genes_listed(run_page) == pd.read_csv(run / "genes.csv")["gene"].tolist()
    assert any(text.startswith("UNFINISHED: 2 of 3 folds") for text in html.texts["li"])
    assert html.texts["h1"] == ["run"]
    assert {"measured", "predicted"} == {text.split(",")[0] for text in html.texts["figcaption"] if " to " in text}


def test_runs_stand_beside_each_other_as_evaluate_scores_them(run, line_run, comparison_page):
    html, comparison = read(comparison_page), compare_runs([run, line_run])
    for name in ("Gene-DML", "Linear"):
        mean, sd = comparison.summary().loc[name, "pcc_a"]
        assert number_cell(mean, sd).text in html.texts["td"]
    mean, sd = comparison.differences().loc["Linear", "pcc_a"]
    assert signed_cell(mean, sd).text in html.texts["td"]
    shown = next(text for text in html.texts["p"] if text.startswith("Section ")).split()[1].rstrip(",")
    section = next(one for one in atlas_in(comparison_page)["sections"] if one["name"] == shown)
    assert section["panels"] == ["measured", "Gene-DML", "Linear"]
    data = [anndata.read_h5ad(one / "predictions" / f"{section['name']}.h5ad") for one in (run, line_run)]
    column = data[0].var_names.get_loc("TUMOR1")
    scores = [pcc(one.layers["truth"], one.X)[column] for one in data]
    assert atlas_in(comparison_page)["genes"][0] == "TUMOR1"
    assert section["genes"][0]["pcc"] == f"Gene-DML {scores[0]:.3f}, Linear {scores[1]:.3f}"
    captions = " ".join(html.texts["figcaption"])
    for name, score in zip(("Gene-DML", "Linear"), scores, strict=True):
        assert f"{name}, PCC {score:.2f}" in captions


def test_worst_and_best_genes_are_those_of_the_scores(run, run_page):
    page = run_page.read_text(encoding="utf-8")
    scores = pd.read_csv(run / "genes.csv").set_index("gene")["pcc"]
    best, worst = (Elements(part).texts["i"] for part in re.split("<h3>", page.split('id="maps"')[1])[2:])
    worst = [gene for gene in worst if gene in scores.index]
    assert best == scores.index[: len(best)].tolist()
    assert scores[best].min() >= scores[worst].max()
    assert len(best) == 6


def test_the_file_loads_nothing_and_is_small(run_page, scored_page):
    for page in (run_page, scored_page):
        loads = [
            value
            for tag, attributes in read(page).found
            for name, value in attributes.items()
            if name in ("src", "href", "srcset", "action", "data") and tag != "a"
        ]
        assert loads
        assert all(value.startswith("data:") for value in loads)
        assert "@import" not in page.read_text(encoding="utf-8")
        assert page.stat().st_size < 5e6


def test_a_model_without_scores_says_so_and_one_with_them_ranks_by_them(prediction, scored, scored_page):
    plain = report(prediction)
    assert plain == prediction.with_name("p3.report.html")
    assert WITHOUT_SCORES in plain.read_text(encoding="utf-8")
    assert "Cross-validated PCC" not in " ".join(read(plain).texts["th"])
    page = scored_page
    html, names = read(page), anndata.read_h5ad(scored).var_names
    assert WITHOUT_SCORES not in page.read_text(encoding="utf-8")
    assert genes_listed(page)[:2] == [names[-1], names[-2]]
    assert genes_listed(page)[-2:] == [names[0], names[1]], "a gene without a score is last"
    assert html.texts["i"][0] == names[-1]
    assert "0.850 ±.050" in html.texts["td"]
    assert "0.123" in html.texts["td"]
    said = next(text for text in html.texts["p"] if text.startswith("Novelty compares"))
    data = anndata.read_h5ad(scored)
    assert f"{np.mean(data.obs['novelty'] > 0.95):.0%} of the spots are above 0.95" in said


def test_models_that_differ_more_than_spots_are_counted(prediction, tmp_path):
    data = anndata.read_h5ad(prediction)
    data.layers["std"] = np.where(np.arange(data.n_vars) < 3, 100, 0) + np.zeros(data.shape, np.float32)
    data.write_h5ad(tmp_path / "p3.h5ad")
    (said,) = (text for text in read(report(tmp_path / "p3.h5ad")).texts["li"] if "differ among themselves" in text)
    assert said.startswith(f"For 3 of {data.n_vars} genes the models")
    data.layers["std"] = np.zeros(data.shape, np.float32)
    data.write_h5ad(tmp_path / "p3.h5ad")
    assert "differ among themselves" not in report(tmp_path / "p3.h5ad").read_text(encoding="utf-8")


def test_names_from_files_stay_text(scored, scored_page):
    html = read(scored_page)
    scripts = [attributes.get("type") for tag, attributes in html.found if tag == "script"]
    assert scripts == ["application/json", None], "data, and the page's own script"
    assert all(str(attributes["src"]).startswith("data:") for tag, attributes in html.found if tag == "img")
    assert not any(name.startswith("on") for _, attributes in html.found for name in attributes)
    assert HOSTILE in html.texts["th"]
    assert f"SEEN: {HOSTILE}" in html.texts["li"]
    assert html.texts["h1"] == [scored.stem]
    policy = next(a["content"] for tag, a in html.found if tag == "meta" and "http-equiv" in a)
    assert "script-src 'sha256-" in policy
    assert "default-src 'none'" in policy


def test_curves_go_where_the_log_says():
    log = pd.DataFrame({"pass": [1, 1, 1, 2], "epoch": [1, 2, 3, 1], "held_out_pcc": [0.1, 0.5, 0.3, np.nan]})
    chart = charts_of({"A": log, "B": log.assign(held_out_pcc=[0.0, 0.1, 0.2, np.nan])})[0]
    points = {line.name: [tuple(map(float, p.split(","))) for p in line.points.split()] for line in chart.lines}
    first = points["fold A"]
    assert len(first) == 3, "the second pass is not drawn"
    assert first[0][0] < first[1][0] < first[2][0]
    assert first[1][1] < first[2][1] < first[0][1], "up is better"
    assert chart.lines[0].dot == first[1]
    assert chart.lines[1].dot == points["fold B"][2]


def test_a_run_whose_folds_are_trained_once_has_its_curves(world, tmp_path):
    config = tiny_config("training.epochs=2", "training.refit=false")
    train(read_sheet(world / "samples.csv"), tmp_path / "run", config, fold="P1", features=tmp_path / "features")
    contents = contents_of_run(tmp_path / "run")
    assert [len(chart.lines) for chart in contents.charts] == [1] * len(contents.charts) != []
    assert "again" not in contents.charts_note


def test_a_slide_that_was_exchanged_is_not_drawn_under_a_runs_spots(world, tmp_path, capsys):
    own = shutil.copytree(world, tmp_path / "world")
    samples = read_sheet(own / "samples.csv")
    train(samples, tmp_path / "run", tiny_config("training.epochs=1"), fold="P1", features=tmp_path / "features")
    assert contents_of_run(tmp_path / "run").tissue is not None
    shutil.copy(own / "slides/P2.tif", own / "slides/P1.tif")
    contents = contents_of_run(tmp_path / "run")
    assert contents.tissue is None
    assert "Its slide is not there as it was trained from" in contents.tissue_note
    assert "P1.tif is another by now than P1 was trained on" in " ".join(capsys.readouterr().err.split())


def atlas_in(page: Path) -> dict:
    """What the page's script is given."""
    text = page.read_text(encoding="utf-8").split('id="atlas-data">')[1].split("</script>")[0]
    return json.loads(text)


def section_of(spots: int, genes: int, name: str = "A") -> Mapped:
    """A section of random values on a square grid, both panels."""
    random = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(spots)))
    xy = np.stack(np.divmod(np.arange(spots), side), axis=1) * 100.0
    panels = {what: random.normal(size=(spots, genes)) for what in ("measured", "predicted")}
    names = [f"GENE{number}" for number in range(genes)]
    picture = SectionPicture(name, xy, 55.0, 0.5, None, 1.0, None, {})
    return Mapped(picture, names, panels, {"predicted": pcc(panels["measured"], panels["predicted"])})


def test_every_gene_of_every_section_of_a_run_is_in_its_page(run, run_page):
    atlas = atlas_in(run_page)
    assert [section["name"] for section in atlas["sections"]] == ["P1", "P2"]
    assert sorted(atlas["genes"]) == sorted(genes_listed(run_page))
    assert atlas["left_out"] == 0
    for section in atlas["sections"]:
        data = anndata.read_h5ad(run / "predictions" / f"{section['name']}.h5ad")
        assert len(section["xy"]) == 2 * data.n_obs
        assert str(section["tissue"]).startswith("data:image/jpeg")
        for gene, packed in zip(atlas["genes"], section["genes"], strict=True):
            values = [np.asarray(data[:, gene].layers["truth"])[:, 0], np.asarray(data[:, gene].X)[:, 0]]
            each = np.array([np.percentile(panel, (1, 99)) for panel in values])
            low, high = each[:, 0].min(), each[:, 1].max()
            assert packed["ends"] == [f"{low:.2f}", f"{high:.2f}"]
            for panel, text in zip(values, packed["values"], strict=True):
                steps = np.array([atlas["letters"].index(letter) for letter in text])
                assert steps / 62 == pytest.approx(np.clip((panel - low) / (high - low), 0, 1), abs=0.51 / 62)
            assert packed["pcc"] == number_cell(float(pcc(values[0][:, None], values[1][:, None])[0])).text


def test_a_spot_without_a_value_and_a_gene_without_a_spread_have_letters_of_their_own():
    values = np.array([0.0, 1.0, np.nan, 0.5, 9.0, -9.0])
    assert letters(values, 0.0, 1.0) == LETTERS[0] + LETTERS[62] + LETTERS[63] + LETTERS[31] + LETTERS[62] + LETTERS[0]
    assert letters(np.array([0.3, 0.3, np.nan]), 0.3, 0.3) == LETTERS[0] * 2 + LETTERS[63]


def test_a_visium_section_fits_and_what_does_not_fit_is_counted():
    section = section_of(4000, 250)
    atlas = atlas_of([section], section.genes, "GENE7", "A")
    assert (len(atlas["genes"]), atlas["left_out"], atlas["gene"]) == (250, 0, 7)
    assert len(json.dumps(atlas)) < 2.3e6
    many = atlas_of([section] * 8, section.genes, "GENE7", "A")
    assert len(many["genes"]) + many["left_out"] == 250
    assert 80 < len(many["genes"]) < 250
    assert many["genes"][0] == "GENE0"
    assert len(json.dumps(many)) < 8e6


def test_genes_asked_for_are_shown_first_and_unknown_ones_refused(run, prediction, tmp_path):
    genes = ["LYMPH1", "TUMOR1"]
    for target in (run, prediction):
        page = report(target, tmp_path / "x.html", genes=genes)
        first = page.read_text(encoding="utf-8").split('id="maps"')[1].split('id="genes"')[0]
        assert Elements(first).texts["i"] == genes
        atlas = atlas_in(page)
        assert atlas["genes"][atlas["gene"]] == "LYMPH1"
        with pytest.raises(GeneDMLError, match=r"does not predict TUMOUR1\. Near to that: TUMOR1"):
            report(target, tmp_path / "y.html", genes=["TUMOUR1"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


def test_what_was_measured_stands_beside_a_prediction(prediction, world, run, tmp_path):
    counts = world / "counts" / "P3.tsv.gz"
    page = report(prediction, tmp_path / "x.html", truth=counts)
    evaluation, data = score_prediction(prediction, counts)
    own = next(score for score in evaluation.scores if score.method == "Gene-DML")
    html = read(page)
    assert any(f"Against P3.tsv.gz the mean PCC over genes is {own.pcc_a:.3f}" in text for text in html.texts["p"])
    assert html.texts["th"].count("PCC here") == 1
    (section,) = atlas_in(page)["sections"]
    assert section["panels"] == ["measured", "predicted"]
    score = dict(zip(atlas_in(page)["genes"], section["genes"], strict=True))["TUMOR1"]["pcc"]
    assert score == f"{own.pcc[own.genes.index('TUMOR1')]:.3f}"
    assert np.asarray(data.layers["truth"]).shape == data.shape
    assert not prediction.with_suffix(".evaluation").exists(), "a report scores, and writes no scores"
    with pytest.raises(GeneDMLError):
        report(run, tmp_path / "y.html", truth=counts)


def test_the_headline_says_of_whose_patients_a_score_is(run):
    alone = contents_of_run(run).lead
    assert alone.startswith("On sections it had not seen, Gene-DML has")
    record = read_record(run)
    data = {section.uns["genedml"]["sample"]: section for section in finished_sections(run).values()}
    cards = {fold: load_card(run / f"fold-{fold}.safetensors") for fold in ("P1", "P2")}
    assert _same_patients(data, cards, record) == ""
    donor = cards["P1"].training_donors[0]
    samples = [sample | ({"donor": donor} if sample["name"] == "P1" else {}) for sample in record["samples"]]
    assert _same_patients(data, cards, {"samples": samples}) == ", 1 of 2 of them of a patient it was trained on,"
    only = {"P1": data["P1"]}
    assert _same_patients(only, cards, {"samples": samples}) == ", of the same patient as those it was trained on,"


def test_a_predictions_headline_says_that_its_scores_are_of_the_same_patients(prediction, tmp_path):
    data = anndata.read_h5ad(prediction)
    data.var["cv_pcc"], data.var["baseline_pcc"] = 0.4, 0.5
    data.uns["genedml"]["notes"] = [str(SHARED_PATIENTS)]
    data.write_h5ad(tmp_path / "x.h5ad")
    (lead,) = (text for text in read(report(tmp_path / "x.h5ad")).texts["p"] if "predicted for" in text)
    assert "On slides the models had not seen but of the same patients, the median gene" in lead
    assert "Ridge regression on the same features scored higher: mean PCC 0.500 against 0.400." in lead


def test_a_large_panel_is_cut_and_said():
    rows = [[Cell(f"G{number}")] for number in range(GENES_LISTED + 5)]
    table = gene_table(["Gene"], rows, "", "genes.csv")
    assert len(table.rows) == GENES_LISTED
    assert "3,000 of 3,005 genes; all are in genes.csv" in table.caption
    assert [number_cell(np.nan).text, number_cell(-0.0514, 0.02).text] == ["-", "-0.051 ±.020"]


def test_what_is_no_run_or_prediction_is_one_sentence_and_no_file(run, prediction, tmp_path):
    refused = [
        ((tmp_path, tmp_path / "x.html"), "no finished fold"),
        ((run, tmp_path / "x.pdf"), "must end with .html"),
        ((run / "predictions" / "P1.h5ad", tmp_path / "x.html"), "report the run's folder"),
        ((tmp_path / "none.h5ad", tmp_path / "x.html"), "There is no prediction"),
        (([run, tmp_path / "none"], tmp_path / "x.html"), "There is no run folder"),
        (([run, run], tmp_path / "x.html"), "named twice"),
    ]
    for call, sentence in refused:
        with pytest.raises(GeneDMLError, match=re.escape(sentence)):
            report(*call)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


def open_page(browser: Browser, page: Path, width: int, scheme: str) -> tuple[Page, list[str]]:
    """The page, and what went wrong in it: messages, errors, dialogs, requests."""
    opened, wrong = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: request.url.startswith(("data:", "file:")) or wrong.append(request.url))
    opened.goto(page.as_uri())
    return opened, wrong


def column(page: Page, number: int) -> list[str]:
    cells = page.locator(f"#table-genes tbody tr:visible > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_it_fits_wide_and_narrow_light_and_dark_without_a_word_on_the_console(
    run_page, scored_page, comparison_page, browser
):
    for page in (run_page, scored_page, comparison_page):
        grounds = set()
        for width in (1280, 400):
            for scheme in ("light", "dark"):
                opened, wrong = open_page(browser, page, width, scheme)
                assert opened.evaluate("document.documentElement.scrollWidth") <= width
                assert opened.evaluate("Array.from(document.images, (i) => { i.loading = 'eager'; return i.decode() })")
                grounds.add(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
                assert wrong == []
                opened.close()
        assert len(grounds) == 2, "light and dark differ"


def test_search_and_sort_work(run_page, browser):
    opened, wrong = open_page(browser, run_page, 1280, "light")
    every = column(opened, 1)
    assert len(every) == 20
    assert opened.locator("output[data-counts=genes]").inner_text() == "20 of 20 genes"
    opened.fill("input[data-searches=genes]", "tumor1")
    wanted = [gene for gene in every if "TUMOR1" in gene]
    assert column(opened, 1) == wanted != every
    assert opened.locator("output[data-counts=genes]").inner_text() == f"{len(wanted)} of 20 genes"
    opened.fill("input[data-searches=genes]", "")
    heading = opened.locator("#table-genes thead th").first
    heading.locator("button").click()
    natural = [re.split(r"(\d+)", gene) for gene in every]
    ordered = sorted(natural, key=lambda parts: [int(part) if part.isdigit() else part for part in parts])
    assert column(opened, 1) == ["".join(parts) for parts in ordered]
    assert heading.get_attribute("aria-sort") == "ascending"
    ridge = opened.locator("#table-genes thead th").nth(2)
    for order, sign in (("descending", -1), ("ascending", 1)):
        ridge.locator("button").click()
        assert ridge.get_attribute("aria-sort") == order
        values = [float(text.split()[0]) for text in column(opened, 3)]
        assert values == sorted(values, key=lambda value: sign * value)
    assert wrong == []


def colour_at(page: Page, panel: int, section: dict, spot: int) -> str:
    """Of a panel's canvas at a spot, as #rrggbb."""
    x, y = (round(place) for place in section["xy"][2 * spot : 2 * spot + 2])
    canvas = page.locator("#atlas canvas").nth(panel)
    pixel = canvas.evaluate(f"(c) => Array.from(c.getContext('2d').getImageData({x}, {y}, 1, 1).data)")
    return "#" + "".join(f"{value:02x}" for value in pixel[:3])


def test_any_gene_of_any_section_is_drawn_when_it_is_chosen(run_page, browser):
    atlas = atlas_in(run_page)
    opened, wrong = open_page(browser, run_page, 1280, "light")
    opened.get_by_label("Section", exact=True).select_option("P2")
    opened.get_by_label("Gene", exact=True).select_option("LYMPH1")
    section = next(section for section in atlas["sections"] if section["name"] == "P2")
    gene = section["genes"][atlas["genes"].index("LYMPH1")]
    said = opened.locator("#atlas output")
    expect(said).to_have_text(f"LYMPH1 over P2, PCC {gene['pcc']} on this section")
    assert opened.locator("#atlas canvas").count() == 3, "tissue, measured, predicted"
    for panel, text in enumerate(gene["values"], start=1):
        for spot in (0, len(text) // 2, len(text) - 1):
            step = atlas["letters"].index(text[spot])
            assert colour_at(opened, panel, section, spot) == atlas["colours"][step]
    labels = [canvas.get_attribute("aria-label") for canvas in opened.locator("#atlas canvas").all()]
    ends = " to ".join(gene["ends"])
    assert labels == ["tissue of P2", f"LYMPH1 measured, {ends}, over P2", f"LYMPH1 predicted, {ends}, over P2"]
    opened.get_by_label("Each panel its own scale").check()
    expect(opened.locator("#atlas figcaption").nth(2)).to_have_text(f"predicted, {' to '.join(gene['own'][1])}")
    opened.locator("#table-genes").get_by_role("button", name="TUMOR1", exact=True).click()
    expect(said).to_contain_text("TUMOR1 over P2")
    opened.keyboard.press("ArrowDown")
    following = atlas["genes"][atlas["genes"].index("TUMOR1") + 1]
    expect(said).to_contain_text(f"{following} over P2")
    hint = "willReadFrequently"  # of Chromium, to this test, which reads pixels
    assert [message for message in wrong if hint not in message] == []


def test_hostile_names_do_nothing_and_missing_scores_sort_last(scored, scored_page, browser):
    opened, wrong = open_page(browser, scored_page, 1280, "light")
    assert opened.title() == f"{scored.stem} - genedml report"
    assert HOSTILE in column(opened, 1)
    opened.get_by_label("Gene", exact=True).select_option(HOSTILE)
    expect(opened.locator("#atlas output")).to_contain_text(HOSTILE)
    score = opened.locator("#table-genes thead th").nth(1).locator("button")
    for _ in range(2):
        score.click()
        assert column(opened, 2)[-1] == "-"
    assert wrong == []


def test_without_scripts_everything_is_there(run_page, browser):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(run_page.as_uri())
    assert opened.locator("#table-genes tbody tr").count() == 20
    assert not opened.locator(".search").first.is_visible(), "a search that cannot work is not shown"
    assert not opened.locator("#atlas").is_visible(), "nor a choice"
    assert opened.locator("#maps img").count() > 2
    context.close()
