"""``from genedml_cli import evaluate, predict, report, train``: light to import, the same before and after use."""

import subprocess
import sys
from pathlib import Path

import pytest
from hostile import small_prediction

import genedml_cli
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.outputs.formats import write
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train

FUNCTIONS = {"evaluate": evaluate, "predict": predict, "train": train}


def fresh(code: str, folder: Path | None = None) -> str:
    """What Python prints that has imported nothing of ours before."""
    call = [sys.executable, "-c", code]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_face_gives_the_functions_of_the_packages(name):
    assert getattr(genedml_cli, name) is FUNCTIONS[name]


def test_the_face_names_itself_and_nothing_else():
    assert set(genedml_cli.__all__) == {*FUNCTIONS, "report"}
    assert set(genedml_cli.__all__) <= set(dir(genedml_cli))
    with pytest.raises(AttributeError, match="no attribute 'reports'"):
        genedml_cli.reports  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    assert fresh("import sys, genedml_cli; print({'torch', 'numpy', 'typer'} & {*sys.modules})") == "set()"


@pytest.mark.parametrize("first", ["", "import genedml_cli.report.page"])
def test_report_can_be_called_whatever_was_imported_before(tmp_path, first):
    """Its package has its name, to which Python binds it as soon as a module of the package is imported."""
    write(small_prediction(), tmp_path / "out.h5ad")
    code = (
        f"{first}\nfrom genedml_cli import report\nprint(report('out.h5ad', 'one.html'))\n"
        "import genedml_cli\nprint(genedml_cli.report('out.h5ad', 'two.html'))\n"
        "from genedml_cli import report as later\nassert later is genedml_cli.report"
    )
    assert fresh(code, tmp_path).splitlines() == ["one.html", "two.html"]
    assert (tmp_path / "one.html").stat().st_size > 10_000
