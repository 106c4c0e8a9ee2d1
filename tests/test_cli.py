"""The command line: help, documents, the error boundary."""

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from conftest import EXAMPLES
from typer.main import get_command
from typer.testing import CliRunner

from genedml.checkpoint import load_card
from genedml_cli import app
from genedml_cli.commands import options

ROOT = Path(__file__).parents[1]
COMMANDS = [command.callback.__name__ for command in app.app.registered_commands]
GROUPS = {group.name: group.typer_instance for group in app.app.registered_groups}
COMMANDS += [
    f"{name} {command.name or command.callback.__name__}"
    for name, group in GROUPS.items()
    for command in group.registered_commands
]


def genedml(*words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it, with the tests' tiny encoder left out."""
    call = [sys.executable, "-c", "from genedml_cli.app import main; main()", *map(str, words)]
    return subprocess.run(call, capture_output=True, text=True, timeout=900, check=False)


def test_help_loads_neither_torch_nor_anndata():
    code = "import sys, genedml_cli.app; print([m for m in ('torch', 'anndata', 'scanpy', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_readme_line(command):
    shown = CliRunner().invoke(app.app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"| `genedml {command}` |" in (ROOT / "README.md").read_text(encoding="utf-8")


DOCUMENTS = ["README.md", "models/README.md", *(f"examples/{file.name}" for file in sorted(EXAMPLES.glob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_options_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for line in re.findall(r"^    genedml (.+)$", text, flags=re.MULTILINE):
        command = line.split()[: 2 if line.split()[0] in GROUPS else 1]
        options = re.findall(r"--[a-z-]+", line)
        shown = CliRunner().invoke(app.app, [*command, "--help"], env={"COLUMNS": "200"}).output
        assert [option for option in options if option not in shown] == []
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or ((ROOT / document).parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_command_of_a_document_writes_the_file_of_another(document):
    written = re.findall(r"^    genedml .*-o (\S+\.\w+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(written)) == len(written)


@pytest.mark.parametrize("command", ["", "data", *COMMANDS])
def test_every_help_page_ends_with_two_examples_that_are_taken(command):
    shown = CliRunner().invoke(app.app, [*command.split(), "--help"], env={"COLUMNS": "80"}).output
    heading, *examples = [line.strip() for line in shown[shown.index("Examples:") :].splitlines() if line.strip()]
    assert len(examples) == 2, heading
    for example in examples:
        name, *words = example.split()
        assert example.startswith(f"genedml {command}".strip())
        found = get_command(app.app)
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        found.make_context(name, words)  # raises where an option, a choice or an argument is not taken


@dataclass(frozen=True)
class Group:
    """Options as commands share them."""

    wide: Annotated[bool, typer.Option("--wide", help="Wide.")] = False
    size: Annotated[int, typer.Option("--size", help="Size.")] = 3


def test_a_group_of_options_is_shown_and_arrives_as_one_value():
    given = []

    def command(group: Group, name: str = "x") -> None:
        given.append((group, name))

    app_of_one = options.App()
    app_of_one.command()(command)
    shown = CliRunner().invoke(app_of_one, ["--help"], env={"COLUMNS": "200"}).output
    assert all(word in shown for word in ("--wide", "--size", "[default: 3]", "--name", "--quiet"))
    for words in (["--wide", "--size", "5", "--name", "y"], ["-q"]):
        assert CliRunner().invoke(app_of_one, words).exit_code == 0
    assert given == [(Group(True, 5), "y"), (Group(), "x")]


def test_commands_are_grouped_by_what_a_user_is_about():
    shown = CliRunner().invoke(app.app, ["--help"], env={"COLUMNS": "100"}).output
    panels = re.split("\u256d\u2500 ", shown)[1:]
    first = {panel.split(" \u2500")[0]: re.findall(r"^\u2502 (\w+) ", panel, re.MULTILINE) for panel in panels}
    assert list(first) == ["Options", "Predict", "Train and compare", "Data", "This machine"]
    assert first["Predict"][0] == "predict"
    assert {name for names in first.values() for name in names} == {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("", False)])
def test_genedml_debug_shows_the_traceback_of_a_known_error(value, shown, monkeypatch, capsys):
    monkeypatch.setenv("GENEDML_DEBUG", value)
    monkeypatch.setattr(sys, "argv", ["genedml", "data", "info", "nothing"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert ("Traceback (most recent call last):" in lines) is shown
    assert any(line.startswith("Error") for line in lines)


def test_version_and_wrong_usage():
    assert CliRunner().invoke(app.app, ["--version"]).output.startswith("genedml ")
    assert CliRunner().invoke(app.app, ["predict", "--no-such-option"]).exit_code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet(command):
    shown = CliRunner().invoke(app.app, [*command.split(), "--help"], env={"COLUMNS": "200"})
    assert "--quiet" in shown.output


def test_quiet_leaves_results_and_warnings(capsys):
    from genedml_cli import console

    with console.quieted():
        console.note("going on")
        console.warn("mind this")
        console.say("result")
    console.note("loud again")
    shown = capsys.readouterr()
    assert shown.out == "result\n"
    assert shown.err == "Warning: mind this\nloud again\n"


@pytest.mark.parametrize("words", [("--quiet", "genes", "none"), ("genes", "none", "-q"), ("genes", "none")])
def test_quiet_is_taken_before_and_after_the_command(words, monkeypatch):
    from genedml_cli import console
    from genedml_cli.runs import panels

    seen = []
    monkeypatch.setattr(panels, "find_panel", lambda *rest: seen.append(console._quiet) or ("A",))
    assert CliRunner().invoke(app.app, list(words)).exit_code == 0
    assert seen == [len(words) == 3]


@pytest.mark.parametrize(
    "words", ["encoders", "data list", "data info HER2ST", "genes HER2ST"], ids=lambda words: words.replace(" ", "-")
)
def test_json_is_one_document_and_all_of_stdout(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["genedml", *words.split(), "--json"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert not stopped.value.code
    assert json.loads(capsys.readouterr().out)


def test_json_takes_what_json_has_no_word_for(capsys):
    from genedml_cli import console

    console.document({"path": Path("a/b"), "nan": float("nan"), "text": "[bold]:smile:[/]"})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "nan": None, "text": "[bold]:smile:[/]"}


def in_a_terminal(*words: str, **environment: str) -> str:
    """What a terminal gets from the command."""
    import pty

    call = [sys.executable, "-c", "from genedml_cli.app import main; main()", *words]
    ours, theirs = pty.openpty()
    settings = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm-256color"}
    with subprocess.Popen(call, stdin=theirs, stdout=theirs, stderr=theirs, env=settings | environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how the end of a terminal is told on Linux
            while part := os.read(ours, 65536):
                shown += part
        process.wait(timeout=100)
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("words", [("--help",), ("data", "fetch", "nothing", "--root", "x")])
def test_no_color_is_honoured(words):
    coloured = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;)[0-9;]*m")
    assert coloured.search(in_a_terminal(*words))
    assert not coloured.search(in_a_terminal(*words, NO_COLOR="1"))


def test_shells_complete_commands():
    environment = os.environ | {"_GENEDML_COMPLETE": "complete_bash", "COMP_WORDS": "genedml pre", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['genedml']; from genedml_cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["predict"]
    assert "--install-completion" in CliRunner().invoke(app.app, ["--help"]).output


def test_encoders_are_listed():
    shown = genedml("encoders")
    assert shown.returncode == 0
    for word in ("stain-texture", "uni2-h", "265", "1536", "CC BY-NC-ND 4.0", "none needed"):
        assert word in shown.stdout


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    """One fold trained for one epoch on the encoder that needs no weights."""
    out = tmp_path_factory.mktemp("model") / "run"
    settings = ("training.epochs=1", "labels.panel_size=20", "training.augment=false", "training.refit=false")
    words = [word for setting in settings for word in ("--set", setting)]
    done = genedml(
        "train", "--samples", world / "samples.csv", "--encoder", "stain-texture", "--fold", "P1", "--out", out,
        "--features", out.parent / "features", *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "fold-P1.safetensors"


def test_predict_writes_the_file_and_says_so(model, world, tmp_path):
    out = tmp_path / "p1.h5ad"
    done = genedml("predict", world / "slides/P1.tif", "--spots", world / "spots/P1.csv", "--model", model, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "x 20 genes" in done.stdout
    assert out.is_file()


def test_predict_without_spots_shows_and_then_uses_a_grid(model, world, tmp_path):
    picture, out = tmp_path / "look.png", tmp_path / "p1.h5ad"
    words = ("predict", world / "slides/P1.tif", "--model", model, "--grid", "square", "--pitch-um", "150")
    shown = genedml(*words, "--preview", picture)
    assert shown.returncode == 0, shown.stderr
    assert picture.is_file()
    spots = re.search(r"look\.png: (\d+) spots \(square grid of 150 \u00b5m\); tissue .* \(found\)", shown.stdout)
    assert spots is not None
    done = genedml(*words, "-o", out)
    assert done.returncode == 0, done.stderr
    assert f"{spots[1]} spots x 20 genes" in done.stdout
    assert genedml(*words).returncode == 2


def test_export_writes_another_kind_and_says_so(model, world, tmp_path):
    out, slide = tmp_path / "p1.h5ad", world / "slides/P1.tif"
    genedml("predict", slide, "--spots", world / "spots/P1.csv", "--model", model, "-o", out)
    genes = load_card(model).genes[:2]
    done = genedml("export", out, "-o", tmp_path / "p1.geojson", "--genes", ", ".join(genes))
    assert done.returncode == 0, done.stderr
    assert "x 2 genes. Open it with QuPath" in done.stdout
    assert (tmp_path / "p1.geojson").is_file()
    refused = genedml("export", out, "-o", tmp_path / "p1.pdf")
    assert refused.returncode == 1
    assert "must end with one of .h5ad" in " ".join(refused.stderr.split())


def spot_table(folder: Path, **columns: object) -> Path:
    path = folder / "spots.csv"
    pd.DataFrame({"name": ["a", "b", "c"], "x": [900.0, 1100.0, 900.0], "y": [900.0, 900.0, 1100.0]} | columns).to_csv(
        path, index=False
    )
    return path


def refusals(world: Path, folder: Path, model: Path) -> dict[str, tuple[dict[str, object], str]]:
    """What is wrong -> the words of predict that differ from a good call, and what the sentence must hold."""
    (folder / "text.svs").write_text("no slide")
    plain = folder / "plain.png"
    from PIL import Image

    Image.fromarray(np.full((2000, 2000, 3), 200, np.uint8)).save(plain)
    for name in ("outside", "indices", "nan", "twice", "empty", "folder.csv"):
        (folder / name).mkdir()
    return {
        "unreadable slide": ({"slide": folder / "text.svs"}, "no slide that OpenSlide knows"),
        "no such slide": ({"slide": folder / "none.svs"}, "There is no slide"),
        "no such spots": ({"spots": folder / "none.csv"}, "There is no spot table"),
        "missing um/px": ({"slide": plain}, "--um-per-px"),
        "spots outside": ({"spots": spot_table(folder / "outside", x=[9e4, 9e4, 9e4])}, "No spot lies inside"),
        "array indices": ({"spots": spot_table(folder / "indices", x=[1, 2, 1], y=[1, 1, 2])}, "array indices"),
        "NaN position": ({"spots": spot_table(folder / "nan", x=[900, None, 900])}, "have no position"),
        "names twice": ({"spots": spot_table(folder / "twice", name=["a", "a", "b"])}, "1 spot twice"),
        "empty table": ({"spots": spot_table(folder / "empty", name=[], x=[], y=[])}, "no spot"),
        "no model": ({"model": folder / "nothing"}, "There is no model"),
        "AnnData for a model": ({"model": folder / "counts.H5AD"}, "is AnnData, a prediction or counts, and no model"),
        "a folder without a model": ({"model": folder / "folder.csv"}, "holds no trained fold"),
        "no such fold": ({"model": model.parent, "fold": "P9"}, "It has: P1"),
        "a folder for a file": ({"out": folder / "folder.csv"}, "folder.csv is a folder. Give another name"),
        "unknown suffix": ({"out": folder / "out.xlsx"}, "must end with one of .h5ad"),
    }


def test_bad_input_gives_one_sentence_exit_code_1_and_no_file(model, world, tmp_path, capsys):
    good = {"slide": world / "slides/P1.tif", "spots": spot_table(tmp_path), "model": model, "out": tmp_path / "o.h5ad"}
    for what, (change, sentence) in refusals(world, tmp_path, model).items():
        words = good | change
        call = ["predict", str(words["slide"]), "--spots", str(words["spots"]), "--model", str(words["model"])]
        call += ["-o", str(words["out"])] + (["--fold", str(words["fold"])] if "fold" in words else [])
        with pytest.raises(SystemExit) as stopped, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["genedml", *call])
            app.main()
        shown = capsys.readouterr()
        assert stopped.value.code == 1, what
        assert sentence in " ".join(shown.err.split()), what
        if what in ("no such slide", "no such spots"):  # nothing is said or read before
            assert shown.err.startswith("Error: There is no"), what
        assert "Traceback" not in shown.err, what
        assert not list(tmp_path.glob("*.h5ad")) + list(tmp_path.glob(".*")), what


@pytest.mark.parametrize("taken", ["slide", "--spots", "--model", "--tissue", "--preview", "-o", "evaluate", "plot"])
def test_a_path_that_the_system_refuses_is_a_sentence(model, world, tmp_path, monkeypatch, capsys, taken):
    long = str(tmp_path / ("n" * 300 + (".h5ad" if taken in ("-o", "plot") else ".png")))
    words = [
        "predict",
        str(world / "slides/P1.tif"),
        "--model",
        str(model),
        "-o",
        str(tmp_path / "out.h5ad"),
        taken,
        long,
    ]
    if taken == "slide":
        words[1:] = [long, *words[2:6]]
    if taken in ("evaluate", "plot"):
        words = [taken, long, *(["--genes", "TUMOR1"] if taken == "plot" else [])]
    monkeypatch.setattr(sys, "argv", ["genedml", *words])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    assert "File name too long" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_gone_is_a_sentence_and_a_bug_a_traceback(monkeypatch, capsys):
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        monkeypatch.setattr(app, "app", lambda error=error: throw(error))
        with pytest.raises(SystemExit):
            app.main()
        assert "has no memory left. Free it" in " ".join(capsys.readouterr().err.split())
    for bug in (OSError("of no file"), RuntimeError("a bug")):
        monkeypatch.setattr(app, "app", lambda bug=bug: throw(bug))
        with pytest.raises(type(bug)):
            app.main()


def test_a_name_that_is_no_text_and_output_that_goes_nowhere(world):
    call = [sys.executable, "-c", "from genedml_cli.app import main; main()"]
    odd = subprocess.run([*call, "predict", b"few\xff.svs"], capture_output=True, text=True, check=False)
    assert odd.returncode == 1
    assert "is no UTF-8 text. Rename the file" in " ".join(odd.stderr.split())
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run([*call, "data", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert lost.returncode == 1
    assert "cannot be written: No space left on device" in " ".join(lost.stderr.split())
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *call, "data", "list"], capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")
    ascii_ = os.environ | {"PYTHONIOENCODING": "ascii"}
    assert subprocess.run([*call, "encoders"], env=ascii_, capture_output=True, check=False).returncode == 0


def throw(error: Exception) -> None:
    raise error


def test_a_panel_without_common_genes_and_a_missing_choice_are_refused(world, tmp_path):
    panel = tmp_path / "panel.txt"
    panel.write_text("GENE1\nGENE2\n")
    run = ("--samples", world / "samples.csv", "--encoder", "tiny", "--out", tmp_path / "run")
    assert "either --dataset NAME or --samples" in genedml("train", "--out", tmp_path / "run").stderr
    assert "No encoder is called 'tiny'" in genedml("train", *run).stderr
    assert "The counts of P1 lack 2 of the panel's 2 genes" in panel_error(world, tmp_path, panel)


def panel_error(world: Path, folder: Path, panel: Path) -> str:
    from genedml.config import load_config
    from genedml.errors import GeneDMLError
    from genedml_cli.datasets.samples import read_sheet
    from genedml_cli.runs.run import train

    config = load_config(
        "small", overrides=["encoder=tiny", "labels.panel_size=2", "training.augment=false", "views.local_grid=0"]
    )
    with pytest.raises(GeneDMLError) as caught:
        train(read_sheet(world / "samples.csv"), folder / "r", config, panel=str(panel), features=folder / "f")
    assert not list((folder / "r").glob("*.safetensors"))
    return str(caught.value)


def test_the_demo_runs_finds_what_was_planted_and_draws_it(tmp_path):
    done = genedml("demo", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    found = re.search(r"Planted genes: mean PCC (-?\d\.\d+)\. Genes of pure noise: (-?\d\.\d+)\.", done.stdout)
    assert found is not None
    assert float(found[1]) > 0.5
    assert float(found[1]) > abs(float(found[2])) + 0.3
    assert {path.suffix for path in (tmp_path / "demo").iterdir() if path.is_file()} == {".h5ad", ".png"}


def test_the_words_that_troubleshooting_quotes_are_said():
    files = (path for folder in ("genedml_cli", "models/genedml") for path in (EXAMPLES.parent / folder).rglob("*.py"))
    said = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text() for path in files))
    quoted = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", (EXAMPLES / "troubleshooting.md").read_text())
    assert len(quoted) > 10
    parts = [part.strip(" :") for words in quoted for part in words.split("...")]
    assert [part for part in parts if part not in said] == []
