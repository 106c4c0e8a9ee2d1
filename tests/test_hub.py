"""A data set from the hub to its scores: fetch, check, train, evaluate, against a hub on the loopback address."""

import json
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, tiny_config
from hest_layout import write_hest
from loopback_hub import ACCEPTED, COMMIT, NOT_ACCEPTED, LoopbackHub

from genedml.checkpoint import checkpoint_bytes, load_card, load_checkpoint
from genedml.config import ViewsConfig
from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml_cli import app
from genedml_cli.commands.choices import choose_samples
from genedml_cli.datasets.checking import check_dataset
from genedml_cli.datasets.datasets import DATASETS, Dataset, dataset
from genedml_cli.datasets.hub import fetch
from genedml_cli.features.extraction import encode_section, extract
from genedml_cli.notes import texts_of
from genedml_cli.runs.panels import find_panel
from genedml_cli.runs.run import train
from genedml_cli.slides.patches import open_patches
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spot_files import read_spots

NAME = "tiny-hest"


def genedml(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command as its users run it, in this process, which has the extra data set; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["genedml", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        app.main()
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """The whole data set as the hub has it, and its row."""
    folder = tmp_path_factory.mktemp("hest")
    return folder, write_hest(folder)


@pytest.fixture(autouse=True)
def row(served: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of data sets has one more."""
    monkeypatch.setitem(DATASETS, NAME, served[1])


@pytest.fixture
def hub(served: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """The hub, with an accepted token set and no other one in reach."""
    server = LoopbackHub(served[0])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # HF_ENDPOINT is read when the library is imported, long before this test.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's own attempts
    monkeypatch.setenv("HF_TOKEN", ACCEPTED)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(served: tuple[Path, Dataset], tmp_path: Path) -> Path:
    """A copy of the data set that a test may spoil; slides alone, no tiles."""
    for part in ("wsis", "st"):
        shutil.copytree(served[0] / part, tmp_path / "root" / part)
    return tmp_path / "root"


def test_fetch_brings_this_data_sets_files_and_keeps_what_is_there(hub, served, tmp_path, monkeypatch, capfd):
    root = tmp_path / "fetched"
    assert genedml(monkeypatch, "data", "fetch", NAME, "--root", root) == 0
    assert "8 files came, 0 were there" in capfd.readouterr().out
    files = sorted(path.relative_to(root) for part in ("wsis", "st", "patches") for path in root.glob(f"{part}/*"))
    expected = [*(f"st/SYN{n}.h5ad" for n in range(1, 5)), *(f"wsis/SYN{n}.tif" for n in range(1, 5))]
    assert [str(file) for file in files] == expected
    assert all((root / file).read_bytes() == (served[0] / file).read_bytes() for file in files)
    (root / "st" / "SYN2.h5ad").unlink()
    hub.gets.clear()
    done = fetch(NAME, root)
    assert (done.kept, done.fetched, done.commit) == (7, 1, COMMIT)
    assert hub.gets == [("st/SYN2.h5ad", None)]


def test_a_fetch_that_was_refused_half_way_goes_on_with_the_next_file(hub, tmp_path):
    hub.refuse_after = 3
    with pytest.raises(GeneDMLError, match=r"(?s)refused .* kept: genedml data fetch tiny-hest --root"):
        fetch(NAME, tmp_path)
    hub.refuse_after = None
    done = fetch(NAME, tmp_path)
    assert (done.kept, done.fetched) == (3, 5)
    assert len(hub.gets) == 8


def test_a_connection_that_breaks_is_taken_up_again_within_the_file(hub, served, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.cut_after = 100_000
    fetch(NAME, tmp_path)
    assert hub.gets[:2] == [("wsis/SYN1.tif", None), ("wsis/SYN1.tif", "bytes=100000-")]
    assert (tmp_path / "wsis/SYN1.tif").read_bytes() == (served[0] / "wsis/SYN1.tif").read_bytes()


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, r"(?s)no token here\. .* conditions at https://huggingface\.co/datasets/MahmoodLab/hest\n.*log in"),
        (NOT_ACCEPTED, r"(?s)has not accepted that\. .*the conditions at https://huggingface\.co/datasets/"),
        ("hf_mistyped", r"(?s)does not know the token .* hf auth login"),
    ],
)
def test_who_may_not_fetch_is_told_the_next_step(hub, tmp_path, monkeypatch, token, message):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(GeneDMLError, match=message):
        fetch(NAME, tmp_path)
    assert not list(tmp_path.glob("wsis/*"))


def test_no_network_and_files_that_the_hub_lacks_are_named(hub, served, tmp_path, monkeypatch):
    gone = replace(served[1], sections=(replace(served[1].sections[0], hest_id="SYN9"),))
    monkeypatch.setitem(DATASETS, "gone", gone)
    with pytest.raises(GeneDMLError, match=r"All files of gone are not here: the hub lacks a file .*SYN9"):
        fetch("gone", tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and not listening
        template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            template.replace(hub.url.removeprefix("http://"), nowhere),
        )
        with pytest.raises(GeneDMLError, match=r"(?s)the hub cannot be reached .*run the same"):
            fetch(NAME, tmp_path)


def test_a_disk_too_small_is_told_before_anything_comes(hub, tmp_path, monkeypatch, capfd):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    assert genedml(monkeypatch, "data", "fetch", NAME, "--root", tmp_path) == 1
    shown = capfd.readouterr().err
    assert "has 1.00 MB free" in shown
    assert "--patches" in shown
    assert hub.gets == []


def test_a_whole_root_is_right_and_read_as_hest_means_it(root, monkeypatch, capfd):
    assert genedml(monkeypatch, "data", "check", NAME, "--root", root) == 0
    assert "All 4 sections are as the table says" in capfd.readouterr().out
    spots = read_spots(root / "st" / "SYN1.h5ad")
    # The name's first number counts along x, whatever HEST-1k calls it.
    assert spots.array_xy.tolist() == [[int(number) for number in name.split("x")] for name in spots.names]
    assert np.corrcoef(spots.array_xy[:, 0], spots.xy_px[:, 0])[0, 1] == pytest.approx(1)


def spoil_slide(root: Path) -> None:
    slide = root / "wsis" / "SYN2.tif"
    slide.write_bytes(slide.read_bytes()[:5000])


def spoil(root: Path, change: str) -> None:
    path = root / "st" / "SYN2.h5ad"
    data = anndata.read_h5ad(path)
    if change == "position":
        data.obsm["spatial"][3] = (90_000.0, 10.0)
    elif change == "scale":
        data.obsm["spatial"] *= 0.8
        data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]] *= 0.8
    elif change == "counts":
        data.X[:] = -1
    data.write_h5ad(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (spoil_slide, r"SYN2\.tif"),
        (lambda root: spoil(root, "position"), r"1 of \d+ spots do not lie inside SYN2\.tif"),
        (lambda root: spoil(root, "scale"), r"the spots' pitch gives 0\.62\d\d um/px, the table 0\.5000"),
        (lambda root: spoil(root, "counts"), "no table of raw counts"),
    ],
)
def test_what_is_wrong_with_a_section_is_said_and_ends_with_1(root, change, problem, monkeypatch, capfd):
    change(root)
    wrong = [check for check in check_dataset(NAME, root) if check.problems]
    assert [check.section.name for check in wrong] == ["S2"]
    assert re.search(problem, " ".join(wrong[0].problems))
    assert genedml(monkeypatch, "data", "check", NAME, "--root", root) == 1
    assert "Wrong in tiny-hest: 1 of 4 sections, S2." in capfd.readouterr().err


def test_a_section_that_is_not_here_is_no_wrong_one_and_may_be_let_pass(root, monkeypatch, capfd):
    (root / "wsis" / "SYN2.tif").unlink()
    assert [check.state for check in check_dataset(NAME, root)] == ["ok", "not here", "ok", "ok"]
    assert genedml(monkeypatch, "data", "check", NAME, "--root", root) == 1
    shown = capfd.readouterr()
    assert "Not here: 1 of 4 sections of tiny-hest, S2." in shown.err
    assert "wrong" not in shown.err
    assert "3 of 4 sections are as the table says" in shown.out
    assert genedml(monkeypatch, "data", "check", NAME, "--root", root, "--allow-partial", "--json") == 0
    states = {check["section"]["name"]: check["state"] for check in json.loads(capfd.readouterr().out)}
    assert states == {"S1": "ok", "S2": "not here", "S3": "ok", "S4": "ok"}


def test_a_panel_gene_that_the_counts_lack_is_a_problem(root, monkeypatch):
    monkeypatch.setitem(DATASETS, NAME, replace(DATASETS[NAME], panel="genes250_HER2ST.txt"))
    checks = check_dataset(NAME, root)
    assert [check.panel_genes for check in checks] == [0] * 4
    assert all("lacks 250 of the panel's 250 genes" in check.problems[0] for check in checks)


def test_a_partial_root_stops_and_is_named_in_every_result(root, tmp_path):
    (root / "st" / "SYN3.h5ad").unlink()
    with pytest.raises(GeneDMLError, match=r"holds 3 of the 4 sections of tiny-hest; missing: S3\..*--allow-partial"):
        choose_samples([NAME], None, root, False)
    samples, partial = choose_samples([NAME], None, root, True)
    run = tmp_path / "run"
    result = train(samples, run, tiny_config(), fold="0", features=tmp_path / "features", partial=partial)
    note = "PARTIAL: 3 of the 4 sections of tiny-hest."
    assert note in texts_of(result.notes)
    assert note in json.loads((run / "metrics.json").read_text())["notes"]
    for table in ("metrics.csv", "genes.csv"):
        assert pd.read_csv(run / table)["marks"].str.startswith(note).all()
    assert note in anndata.read_h5ad(run / "predictions" / "S1.h5ad").uns["genedml"]["notes"]
    assert note in load_card(run / "fold-0.safetensors").notes


def test_one_donor_under_two_names_is_left_out_of_the_other_names_fold(root, tmp_path):
    samples = dataset(NAME, root)
    samples[3] = replace(samples[3], donor="P1")
    run = tmp_path / "run"
    result = train(samples, run, tiny_config(), fold="0", features=tmp_path / "features")
    note = "SAME DONOR: fold 0, which tests S1, is trained without S4: the same tissue."
    assert note in texts_of(result.notes)
    assert note in result.marks
    assert pd.read_csv(run / "metrics.csv")["marks"].str.startswith(note).all()
    card = load_card(run / "fold-0.safetensors")
    assert (card.training_donors, card.training_patients) == (("P3",), ("P3",))
    assert not any(one.startswith("LEAKING") for one in card.notes)


@pytest.fixture
def tiles_root(served: tuple[Path, Dataset], tmp_path: Path) -> Path:
    """Tiles without slides."""
    for part in ("patches", "st"):
        shutil.copytree(served[0] / part, tmp_path / "tiles" / part)
    return tmp_path / "tiles"


def test_tiles_of_a_patch_file_are_those_of_the_slide(served, tiles_root, tmp_path):
    alone, encoder, sample = ViewsConfig(neighbor_grid=1), load_encoder("tiny"), dataset(NAME, tiles_root)[0]
    assert sample.slide == tiles_root / "patches" / "SYN1.h5"
    found = extract([sample], encoder, alone, tmp_path / "features", flips=True)[sample.name]
    assert found.spots.names == read_spots(sample.spots).names[1:]
    with open_slide(served[0] / "wsis" / "SYN1.tif") as slide:
        expected = encode_section(slide, found.spots, encoder, alone, flips=True)
    assert torch.equal(found.local, expected.local)
    assert torch.equal(found.pooled, expected.pooled)
    assert found.um_per_px == expected.um_per_px == 0.5


def test_tiles_alone_train_a_model_of_local_tiles_and_no_other(tiles_root, tmp_path, capfd):
    samples = dataset(NAME, tiles_root)
    settings = {"fold": "0", "features": tmp_path / "features"}
    with pytest.raises(GeneDMLError, match=r"grid of 5 x 5 needs the slide wsis/SYN\d\.tif.*views\.neighbor_grid=1"):
        train(samples, tmp_path / "run", tiny_config(), **settings)
    train(samples, tmp_path / "run", tiny_config("views.neighbor_grid=1"), **settings)
    tested = anndata.read_h5ad(tmp_path / "run" / "predictions" / "S1.h5ad")
    assert "1 of" in capfd.readouterr().err
    assert read_spots(samples[0].spots).names[0] not in tested.obs_names
    with pytest.raises(GeneDMLError, match=r"tiles of 224 px at 0\.5 um/px; the model takes 224 px at 1"):
        train(samples, tmp_path / "other", tiny_config("views.neighbor_grid=1", "views.um_per_px=1.0"), **settings)


def test_a_file_that_is_no_patch_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["coords"] = np.zeros((3, 2))
    with pytest.raises(GeneDMLError, match=r"other\.h5 is no patch file of HEST-1k"):
        open_patches(tmp_path / "other.h5")


def other_donors(world: Path, folder: Path) -> Path:
    """A sheet of one section of the tiny world whose donor is in no other data set."""
    sheet = pd.read_csv(world / "samples.csv")[:1].assign(sample="X1", patient="X1")
    sheet[["slide", "spots", "counts"]] = sheet[["slide", "spots", "counts"]].map(lambda path: world / path)
    sheet.to_csv(folder / "others.csv", index=False)
    return folder / "others.csv"


def test_the_whole_path_from_the_hub_to_scores_ablation_and_picture(hub, world, tmp_path, monkeypatch, capfd):
    root, run = tmp_path / "root", tmp_path / "run"
    assert genedml(monkeypatch, "data", "fetch", NAME, "--root", root) == 0
    assert genedml(monkeypatch, "data", "check", NAME, "--root", root) == 0
    words = [word for setting in TINY for word in ("--set", setting)]
    what = ("--dataset", NAME, "--root", root, "--preset", "small", *words, "--features", tmp_path / "features")
    assert genedml(monkeypatch, "train", *what, "--out", run) == 0
    assert genedml(monkeypatch, "evaluate", run) == 0
    shown = capfd.readouterr().out
    assert "run: 4 sections, 2 folds" in shown
    assert not any(mark in shown for mark in ("PARTIAL", "LEAKING", "SAME DONOR"))

    others = other_donors(world, tmp_path)
    assert genedml(monkeypatch, "evaluate", run, "--external", others, "--features", tmp_path / "features") == 0
    assert "X1, 20/20 genes" in capfd.readouterr().out
    external = pd.read_csv(run / "external-others" / "metrics.csv")
    assert set(external.query("method == 'Gene-DML'")["fold"].astype(str)) == {"0", "1"}

    grid = tmp_path / "grid"
    settings = ("--table", "k", "--values", "3,4", "--seeds", 1, "--fold", 0, "--out", grid)
    assert genedml(monkeypatch, "ablate", *what, *settings) == 0
    assert "over 1 fold x 1 seed" in " ".join(capfd.readouterr().out.split())
    table = pd.read_csv(grid / "k.csv").set_index("row")
    # TINY has k = 4, so that setting is fold 0 of the run from above, trained again.
    same = anndata.read_h5ad(grid / "as-configured" / "seed-2021" / "predictions" / "S1.h5ad")
    assert np.array_equal(same.X, anndata.read_h5ad(run / "predictions" / "S1.h5ad").X)
    assert table.loc["k=3", "pcc_a_mean"] != table.loc["k=4", "pcc_a_mean"]

    picture, gene = tmp_path / "genes.png", same.var_names[0]
    runs = (run, grid / "k=3" / "seed-2021")
    assert genedml(monkeypatch, "plot", *runs, "--genes", gene, "--sections", "S1,S2", "-o", picture) == 0
    assert f"2 sections, {gene}" in capfd.readouterr().out
    assert picture.stat().st_size > 10_000


def test_panels_of_models_are_given_and_those_of_several_folds_not_mixed(root, tmp_path):
    run, settings = tmp_path / "run", tiny_config("labels.panel_size=5")
    train(dataset(NAME, root), run, settings, fold="0", panel="all", features=tmp_path / "features")
    expected = find_panel(NAME, derive=True, root=root, size=5)
    assert find_panel(str(run)) == find_panel(str(run / "fold-0.safetensors")) == expected
    card, network = load_checkpoint(run / "fold-0.safetensors")
    other = checkpoint_bytes(replace(card, genes=card.genes[::-1]), network.state_dict())
    (run / "fold-1.safetensors").write_bytes(other)
    with pytest.raises(GeneDMLError, match=r"panels of their own.*Name the file of one: .*fold-0\.safetensors, "):
        find_panel(str(run))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"nothing is no data set \(HER2ST, .*no run folder or model file"),
        ("visium-breast", "Derive one: genedml genes visium-breast --derive"),
        (None, "Give either a NAME"),
    ],
)
def test_panels_that_there_are_not(name, message):
    with pytest.raises(GeneDMLError, match=message):
        find_panel(name)


def test_a_panel_needs_counts_alone(root, monkeypatch, capfd):
    shutil.rmtree(root / "wsis")
    derived = find_panel(NAME, derive=True, root=root, size=5)
    totals = sum(anndata.read_h5ad(file).to_df().sum() for file in (root / "st").glob("*.h5ad"))
    assert list(derived) == list(totals.sort_values(ascending=False).index[:5])
    assert genedml(monkeypatch, "genes", NAME, "--derive", "--root", root, "--size", 5) == 0
    assert capfd.readouterr().out.split() == list(derived)
    (root / "st" / "SYN3.h5ad").unlink()
    with pytest.raises(GeneDMLError, match=r"holds the counts of 3 of the 4 sections of tiny-hest; missing: S3"):
        find_panel(NAME, derive=True, root=root)
    assert len(find_panel(NAME, derive=True, root=root, allow_partial=True, size=5)) == 5
