"""Cohorts: many slides from a sheet, some of them broken."""

import gc
import itertools
import json
import os
import pickle
import re
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from socket import gethostname
from threading import Event, Thread

import anndata
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import tiny_config, write_aperio
from deadly import DeadlyTask
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli import app, console
from genedml_cli.cohort import cohort
from genedml_cli.cohort import slide as cohort_slide
from genedml_cli.cohort.cohort import predict_cohort, predict_slides, read_cohort
from genedml_cli.cohort.slide import FAILED, KEPT, PREDICTED, CohortTask
from genedml_cli.files.hdf5 import layers_of
from genedml_cli.files.locks import exclusive
from genedml_cli.files.storage import sha256_of
from genedml_cli.machine.crew import Place
from genedml_cli.machine.executors import Processes
from genedml_cli.machine.packing import pack
from genedml_cli.outputs.run_folder import model_files
from genedml_cli.prediction import prediction
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.preview import preview
from genedml_cli.runs.record import RunRecord
from genedml_cli.slides import slide_files
from genedml_cli.spots.placing import Placing

SIDE_PX = 700
TOGETHER = {cohort.SUMMARY, cohort.PSEUDOBULK, cohort.PAGE}
WITH_RESULTS = TOGETHER | {cohort_slide.FINGERPRINTS}
TWO = Processes(2, ["cpu"])
MEMORY_TOLERANCE = 60e6  # of a process of about a gigabyte; a network or a slide kept a time would be more


@pytest.fixture
def run(quick_run):
    return quick_run


def write_good(folder: Path, number: int) -> dict[str, object]:
    """A small pink image with nine spots, and its row."""
    squares = np.random.default_rng(number).integers(120, 220, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(squares.repeat(SIDE_PX // 7, 0).repeat(SIDE_PX // 7, 1)).save(folder / f"s{number}.png")
    return {"slide": f"s{number}.png", "spots": write_spots(folder / f"s{number}.csv"), "um_per_px": 0.5}


def write_spots(path: Path, **columns: object) -> str:
    x, y = zip(*itertools.product((150, 350, 550), repeat=2), strict=True)
    pd.DataFrame({"name": [f"s{n}" for n in range(9)], "x": x, "y": y} | columns).to_csv(path, index=False)
    return path.name


def write_broken(folder: Path) -> dict[str, tuple[dict[str, object], str]]:
    """Name of a row -> its cells, and what its failure says."""
    good = write_good(folder, 0)
    pixels = np.random.default_rng(1).integers(0, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    write_aperio(folder / "whole.svs", pixels, 0.5)
    whole = (folder / "whole.svs").read_bytes()
    (folder / "cut.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "text.svs").write_text("no slide")
    (folder / "empty.tif").touch()
    (folder / "folder.png").mkdir()
    Image.fromarray(np.full((SIDE_PX, SIDE_PX), 40000, np.uint16)).save(folder / "deep.png")
    bare = folder / "bare.csv"
    pd.read_csv(folder / "s0.csv").to_csv(bare, index=False, header=False)
    return {
        "cut": (good | {"slide": "cut.svs"}, "cut.svs"),
        "text": (good | {"slide": "text.svs"}, "no slide that OpenSlide knows"),
        "empty": (good | {"slide": "empty.tif"}, "no slide that OpenSlide knows"),
        "missing": (good | {"slide": "none.svs"}, "There is no slide"),
        "folder": (good | {"slide": "folder.png"}, "is a folder, no slide"),
        "deep": (good | {"slide": "deep.png"}, "has more than 8 bits a channel"),
        "no scale": (good | {"um_per_px": None}, "does not say its um/px"),
        "outside": (good | {"spots": write_spots(folder / "out.csv", x=9e4)}, "No spot lies inside"),
        "no header": (good | {"spots": "bare.csv"}, "where names of columns belong"),
        "twice": (good | {"spots": write_spots(folder / "twice.csv", name="a")}, "spots twice"),
        "picture": (good | {"spots": "s0.png"}, "cannot be read"),
        "thumbnail": (good | {"um_per_px": 5}, "thumbnail"),
    }


def write_sheet(folder: Path, rows: dict[str, dict[str, object]]) -> Path:
    path = folder / "cohort.csv"
    pd.DataFrame([{"name": name, **row} for name, row in rows.items()]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("good", [6, pytest.param(40, marks=pytest.mark.long)])
def test_ten_broken_slides_cost_the_others_nothing_and_neither_memory_nor_open_files_grow(
    good, run, tmp_path, monkeypatch
):
    broken = dict(list(write_broken(tmp_path).items())[:10])
    rows = {f"good{number}": write_good(tmp_path, number % 3) for number in range(good)}
    names = list(rows)
    for place, name in enumerate(broken):
        names.insert((good + 10) // 10 * place + 2, name)
    sheet = write_sheet(tmp_path, {name: broken[name][0] if name in broken else rows[name] for name in names})
    memory, files, process = [], [], psutil.Process()

    def look(_: str) -> None:
        gc.collect()
        memory.append(process.memory_info().rss)
        files.append(process.num_fds())

    monkeypatch.setattr(console, "note", look)
    done = predict_cohort(sheet, run, tmp_path / "out")
    assert [one.name for one in done.outcomes] == names
    assert {one.name for one in done.failed} == set(broken)
    assert len(list((tmp_path / "out").glob("*.h5ad"))) == good
    fifth = 4 - len(names)  # from the end: notes of loading come before those of slides
    assert memory[-1] - memory[fifth] < MEMORY_TOLERANCE
    assert files[-1] <= files[fifth] + 1
    assert max(files[fifth:]) <= files[fifth] + 4  # a note may come while a slide and its lock are open
    console.say(f"{memory[fifth] / 1e6:.0f} MB after slide 5, {memory[-1] / 1e6:.0f} MB after {len(names)}")


def test_every_broken_slide_says_what_is_wrong_and_leaves_nothing(run, tmp_path):
    broken = write_broken(tmp_path)
    sheet = write_sheet(tmp_path, {name: row for name, (row, _) in broken.items()} | {"good": write_good(tmp_path, 1)})
    done = predict_cohort(sheet, run, tmp_path / "out", fold="P1")
    problems = {one.name: one.problem for one in done.failed}
    assert set(problems) == set(broken)
    for name, (_, sentence) in broken.items():
        assert sentence in problems[name]
        assert "unforeseen" not in problems[name], name
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.h5ad", *WITH_RESULTS}
    table = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("name")
    assert table.loc["good", ["state", "spots", "genes"]].tolist() == [PREDICTED, 9, 20]
    assert (table.drop("good")["state"] == FAILED).all()


def test_a_result_is_that_of_predicting_the_slide_alone(run, tmp_path):
    sheet = write_sheet(tmp_path, {"one": write_good(tmp_path, 1)})
    predict_cohort(sheet, run, tmp_path / "out")
    alone = predict(tmp_path / "s1.png", tmp_path / "s1.csv", run, um_per_px=0.5)
    made = anndata.read_h5ad(tmp_path / "out" / "one.h5ad")
    assert np.array_equal(made.X, alone.X)
    assert (
        set(layers_of(made))
        == set(layers_of(alone))
        == {"std", "ridge", "ridge_own_tile", "place_alone", "lower", "upper", "z"}
    )
    assert made.uns["genedml"]["models"].tolist() == alone.uns["genedml"]["models"]


def test_resuming_keeps_what_was_made_from_the_same_and_refuses_the_rest(run, tmp_path):
    rows = {name: write_good(tmp_path, number) for number, name in enumerate(("same", "spots", "slide", "scale"))}
    sheet, out = write_sheet(tmp_path, rows), tmp_path / "out"
    predict_cohort(sheet, run, out, fold="P1")
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5ad")}
    write_spots(tmp_path / "s1.csv", name=list("abcdefghi"))
    write_good(tmp_path, 7)
    (tmp_path / "s7.png").replace(tmp_path / "s2.png")
    write_sheet(tmp_path, rows | {"scale": rows["scale"] | {"um_per_px": 0.51}})
    again = predict_cohort(sheet, run, out, fold="P1")
    assert [one.state for one in again.outcomes] == [KEPT, FAILED, FAILED, FAILED]
    for outcome, differs in zip(again.failed, ("spots", "slide", "um per px"), strict=True):
        assert f"made from other {differs}." in outcome.problem
    other_model = predict_cohort(sheet, run, out, fold="P2").outcomes[0]
    assert "made from other models, references." in other_model.problem
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5ad")} == times
    placing = Placing(allow_off_tissue=True)
    assert "other allow off tissue." in predict_cohort(sheet, run, out, fold="P1", placing=placing).outcomes[0].problem
    without = Path(shutil.copytree(run, tmp_path / "without"))
    (without / "ridge-P1.safetensors").unlink()
    assert "made from other references." in predict_cohort(sheet, without, out, fold="P1").outcomes[0].problem
    anew = predict_cohort(sheet, run, out, fold="P1", resume=False)
    assert [one.state for one in anew.outcomes] == [PREDICTED] * 4


def test_a_slide_is_read_again_only_where_size_or_time_differ_or_to_verify(run, tmp_path, monkeypatch):
    sheet, out, slide = write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), tmp_path / "out", tmp_path / "s1.png"
    predict_cohort(sheet, run, out, fold="P1")
    read = []
    monkeypatch.setattr(slide_files, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))

    def state(**how: bool) -> tuple[str, list[str]]:
        slide_files._content_sha256.cache_clear()  # as in a new process
        read.clear()
        return predict_cohort(sheet, run, out, fold="P1", **how).outcomes[0].state, list(read)

    assert state() == (KEPT, [])
    assert state(verify=True) == (KEPT, ["s1.png", "s1.csv"])
    times = slide.stat()
    os.utime(slide, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert state() == (KEPT, ["s1.png"])
    assert state() == (KEPT, [])
    content = bytearray(slide.read_bytes())
    content[len(content) // 2] ^= 1
    slide.write_bytes(content)
    os.utime(slide, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert state() == (KEPT, [])  # which is why there is --verify
    assert state(verify=True) == (FAILED, ["s1.png", "s1.csv"])


def test_a_store_of_spots_is_read_again_only_where_a_file_in_it_differs(tmp_path, monkeypatch):
    store = tmp_path / "spots.zarr"
    (store / "images").mkdir(parents=True)
    (store / "images" / "0").write_bytes(b"pixels")
    before, content = slide_files.fingerprint(store), sha256_of(store)
    with monkeypatch.context() as patch:
        patch.setattr(slide_files, "sha256_of", None)
        assert slide_files.fingerprint(store, before).sha256 == content
    (store / "images" / "0").write_bytes(b"other pixels")
    assert slide_files.fingerprint(store, before).sha256 == sha256_of(store) != content


def test_of_two_runs_of_the_same_shard_on_a_machine_one_waits_and_keeps_what_the_other_made(run, tmp_path, monkeypatch):
    slides = read_cohort(write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), Placing())
    files, waits, outcomes = tuple(model_files(run, "P1")), Event(), []

    def predict_into(folder: str) -> None:
        outcomes.extend(predict_slides(CohortTask(files, tmp_path / folder), slides, Processes(1, ["cpu"])))

    predict_into("first")
    monkeypatch.setattr(console, "note", lambda text: waits.set() if text.startswith("Waiting for") else None)
    second = Thread(target=predict_into, args=("shared",))
    with exclusive(tmp_path / "shared" / "one"):
        second.start()
        assert waits.wait(60)
        (tmp_path / "shared").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "first" / "one.h5ad", tmp_path / "shared")
    second.join()
    assert [outcome.state for outcome in outcomes] == [PREDICTED, KEPT]


def test_the_largest_slide_is_begun_first_and_a_failure_elsewhere_names_the_machine(run, tmp_path, monkeypatch, capsys):
    rows = {name: write_good(tmp_path, number) for number, name in enumerate(("small", "large"))}
    with (tmp_path / "s1.png").open("ab") as slide:
        slide.write(bytes(10**5))
    sheet = write_sheet(tmp_path, {"none": {"slide": "none.png"}, **rows})
    monkeypatch.setattr(cohort, "CohortTask", partial(CohortTask, host="another"))
    done = predict_cohort(sheet, run, tmp_path / "out", fold="P1")
    told = [line.split()[1] for line in capsys.readouterr().err.splitlines() if re.match(r"\d/3 ", line)]
    assert told == ["large:", "small:", "none:"]
    (failed,) = done.failed
    assert str(tmp_path / "none.png") in failed.problem and failed.problem.endswith(f"This was on {gethostname()}.")


def test_a_worker_that_does_not_see_the_folder_of_results_says_so_and_which_machine_it_is(run, tmp_path):
    (tmp_path / "seen").touch()
    for folder, sentence in ((tmp_path, None), (Path("/only/there"), f"{gethostname()} does not see in /only/there")):
        task = CohortTask(tuple(model_files(run, "P1")), folder, seen=folder / "seen")
        with nullcontext() if sentence is None else pytest.raises(GeneDMLError, match=sentence):
            assert task.load_at(Place("cpu", 1)).fingerprints


def test_a_result_of_unknown_origin_is_refused(run, tmp_path):
    sheet, out = write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), tmp_path / "out"
    out.mkdir()
    (out / "one.h5ad").write_text("half a file")
    (failed,) = predict_cohort(sheet, run, out).failed
    assert "is not a prediction of genedml" in failed.problem
    predict(tmp_path / "s1.png", tmp_path / "s1.csv", run, out / "one.h5ad", um_per_px=0.5, force=True)
    (failed,) = predict_cohort(sheet, run, out).failed
    assert "was not made by predicting a cohort" in failed.problem


def test_nothing_that_is_read_is_written_over(run, tmp_path):
    good, refused = write_good(tmp_path, 1), "is what is read, and would be written over"
    slide, spots, out = tmp_path / "s1.png", tmp_path / "s1.csv", tmp_path / "out"
    out.mkdir()
    os.link(spots, out / "one.h5ad")
    before = {file: file.read_bytes() for file in (slide, spots)}
    sheet = write_sheet(tmp_path, {"one": good | {"spots": "out/one.h5ad"}})
    for resume in (True, False):
        with pytest.raises(GeneDMLError, match=refused):
            predict_cohort(sheet, run, out, resume=resume)
    others = {"one": good, "two": good | {"spots": "out/one.h5ad"}}  # the result of one row is what another reads
    with pytest.raises(GeneDMLError, match=refused):
        predict_cohort(write_sheet(tmp_path, others), run, out)
    sheet = write_sheet(tmp_path, {"one": good})
    with pytest.raises(GeneDMLError, match=refused):
        predict(slide, spots, run, spots, um_per_px=0.5)
    with pytest.raises(GeneDMLError, match=refused):
        preview(slide, spots, slide, Placing(0.5))
    os.link(sheet, tmp_path / cohort.SUMMARY)
    with pytest.raises(GeneDMLError, match=refused):
        predict_cohort(sheet, run, tmp_path)
    (out / "config.toml").write_text("# mine")
    with pytest.raises(GeneDMLError, match=r"config\.toml is there, of no run, and would be written over"):
        RunRecord.of(out, tiny_config(), [], {}).check()
    assert before == {file: file.read_bytes() for file in before}
    assert (out / "config.toml").read_text() == "# mine"


def test_spots_exchanged_while_a_slide_is_predicted_are_noticed(run, tmp_path, monkeypatch):
    sheet, predicted = write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), prediction.predict_slide

    def exchange(*words, **settings):
        data = predicted(*words, **settings)
        write_spots(tmp_path / "s1.csv", x=600)
        return data

    monkeypatch.setattr(prediction, "predict_slide", exchange)
    (failed,) = predict_cohort(sheet, run, tmp_path / "out").failed
    assert "were exchanged while it was predicted" in failed.problem
    assert {file.name for file in (tmp_path / "out").iterdir()} == WITH_RESULTS


@pytest.mark.parametrize("inputs", [1.0, {"slide": np.array([1.0, 2.0])}, {"slide": "0"}])
def test_a_result_whose_inputs_are_forged_is_not_kept(run, tmp_path, inputs):
    sheet, file = write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), tmp_path / "out" / "one.h5ad"
    predict_cohort(sheet, run, file.parent)
    data = anndata.read_h5ad(file)
    data.uns["genedml"]["inputs"] = inputs
    data.write_h5ad(file)
    (failed,) = predict_cohort(sheet, run, file.parent).failed
    assert ("inputs" in failed.problem) or ("was made from other slide, spots" in failed.problem)
    assert "--no-resume" in failed.problem
    assert "unforeseen" not in failed.problem


def test_a_damaged_result_is_not_kept(run, tmp_path):
    sheet, out = write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), tmp_path / "out"
    predict_cohort(sheet, run, out)
    content = bytearray((out / "one.h5ad").read_bytes())
    with h5py.File(out / "one.h5ad") as file:
        content[file["X"].id.get_chunk_info(0).byte_offset + 20] ^= 0xFF
    (out / "one.h5ad").write_bytes(content)
    (failed,) = predict_cohort(sheet, run, out).failed
    assert "it is damaged" in failed.problem
    assert "--no-resume" in failed.problem


def test_an_error_that_nobody_foresaw_costs_one_slide_and_is_logged(run, tmp_path, monkeypatch):
    sheet = write_sheet(tmp_path, {name: write_good(tmp_path, n) for n, name in enumerate(("first", "second"))})
    predicted = prediction.predict_slide

    def stumble(models, slide, *words, **settings):
        if slide.name == "s0.png":
            raise ZeroDivisionError("a bug with hf_abcdefghij")
        return predicted(models, slide, *words, **settings)

    monkeypatch.setattr(prediction, "predict_slide", stumble)
    done = predict_cohort(sheet, run, tmp_path / "out")
    assert [one.state for one in done.outcomes] == [FAILED, PREDICTED]
    assert "ZeroDivisionError: a bug" in done.failed[0].problem
    log = (tmp_path / "out" / "errors.log").read_text()
    assert "Traceback" in log and "in stumble" in log
    assert "abcdefghij" not in log + (tmp_path / "out" / "summary.csv").read_text()
    with pytest.raises(GeneDMLError, match=r"1 of 2 slides failed: first; summary\.csv says why"):
        done.refuse_failures()
    (tmp_path / "again" / "errors.log").mkdir(parents=True)  # a log that cannot be written costs the others nothing
    again = predict_cohort(sheet, run, tmp_path / "again")
    assert [one.state for one in again.outcomes] == [FAILED, PREDICTED]


def test_several_processes_give_the_same_and_a_death_costs_one_slide(run, tmp_path):
    names = ("first", "deadly", "third", "fourth")
    slides = read_cohort(
        write_sheet(tmp_path, {name: write_good(tmp_path, n) for n, name in enumerate(names)}), Placing()
    )
    files = tuple(model_files(run, "P1"))
    outcomes = {one.name: one for one in predict_slides(DeadlyTask(files, tmp_path / "spread"), slides, TWO)}
    assert {name: one.state for name, one in outcomes.items()} == dict.fromkeys(names, PREDICTED) | {"deadly": FAILED}
    assert "died (SIGKILL)" in outcomes["deadly"].problem
    list(predict_slides(CohortTask(files, tmp_path / "alone"), slides, Processes(1, ["cpu"])))
    for name in ("first", "third", "fourth"):
        spread, alone = ((tmp_path / folder / f"{name}.h5ad").read_bytes() for folder in ("spread", "alone"))
        assert spread == alone, name


def test_what_goes_to_a_worker_and_back_is_small_and_holds_no_token(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    slides = read_cohort(write_sheet(tmp_path, {"one": write_good(tmp_path, 1)}), Placing())
    task = CohortTask(tuple(model_files(run, "P1")), tmp_path / "out")
    assert b"hf_abcdefghij" not in pack((task.load_at, task.predict)) + pack(slides[0])
    (outcome,) = predict_slides(task, slides, Processes(1, ["cpu"]))
    assert outcome.state == PREDICTED and len(pickle.dumps(outcome)) < 1000


@pytest.mark.long
def test_models_that_no_process_can_load_stop_the_cohort(tmp_path):
    slides = read_cohort(write_sheet(tmp_path, {name: write_good(tmp_path, 1) for name in "ab"}), Placing())
    with pytest.raises(GeneDMLError, match="none"):
        list(predict_slides(CohortTask((tmp_path / "none.safetensors",), tmp_path / "out"), slides, TWO))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slide\n", "has no rows"),
        ("slides\na.svs\n", "lacks slide and has slides"),
        ("slide,name\na.svs,../a\n", r"line 2: '\.\./a' cannot be the name of a file"),
        ("slide,name\na.svs,ok\nb.svs,a/b\n", "line 3: 'a/b' cannot be"),
        ("slide,name\na.svs,\x07\n", "cannot be the name"),
        ("slide,name\na.svs,.hidden\n", "cannot be the name"),
        (f"slide,name\na.svs,{'a' * 300}\n", "cannot be the name"),
        ("slide\nx/a.svs\ny/A.tif\n", "lines 2 and 3: both results would be called A"),
        ("slide,um_per_px\na.svs,half\n", "um_per_px of a is 'half', not a number"),
        ("slide,name\n,a\n", "line 2: the column slide is empty"),
    ],
)
def test_a_wrong_sheet_is_refused_before_anything_is_read(tmp_path, text, sentence):
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(GeneDMLError, match=sentence):
        read_cohort(tmp_path / "sheet.csv", Placing())


def test_names_and_scales_of_a_sheet(tmp_path):
    (tmp_path / "sheet.csv").write_text("slide,name,pitch_um\nx/NA.svs,,\ny/b.svs,None,100\n")
    first, second = read_cohort(tmp_path / "sheet.csv", Placing(um_per_px=0.25, pitch_um=200))
    assert (first.name, first.slide, first.spots) == ("NA", tmp_path / "x/NA.svs", None)
    assert first.placing == Placing(um_per_px=0.25, pitch_um=200)
    assert (second.name, second.placing.pitch_um) == ("None", 100)


def test_the_command_prints_a_table_or_json_and_ends_with_1_where_a_slide_failed(run, tmp_path, monkeypatch, capsys):
    rows = {"good": write_good(tmp_path, 1), "bad": write_good(tmp_path, 2) | {"slide": "none.png"}}
    sheet = write_sheet(tmp_path, rows)

    def call(*more: str) -> tuple[int, str, str]:
        words = ["predict", "--slides", sheet, "--model", run, "-o", tmp_path / "out", *more]
        monkeypatch.setattr("sys.argv", ["genedml", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        return stopped.value.code, *capsys.readouterr()

    code, out, err = call()
    assert code == 1
    assert "2 slides: 1 predicted, 1 FAILED" in out
    assert "bad: There is no slide" in out
    assert "1 of 2 slides failed: bad" in err
    code, out, err = call("--json", "--quiet")
    assert code == 1
    assert [slide["state"] for slide in json.loads(out)["slides"]] == [KEPT, FAILED]
    assert err.strip().splitlines() == [line for line in err.strip().splitlines() if line.startswith("Error: ")]
    assert call("--spots", "x.csv")[0] == 2


def test_a_slide_cannot_be_called_as_a_file_of_the_whole_cohort(tmp_path):
    (tmp_path / "sheet.csv").write_text("slide\nmerged.svs\n")
    with pytest.raises(GeneDMLError, match="merged is the name of a file of the whole cohort"):
        read_cohort(tmp_path / "sheet.csv", Placing())
