"""What a command imports before it works: nothing heavy that it does not need."""

import json
import subprocess
import sys

import pytest
from conftest import tiny_config

from genedml_cli.datasets.samples import read_sheet
from genedml_cli.runs.run import train

HEAVY = ("torch", "scanpy", "timm", "sklearn", "matplotlib", "squidpy")
TABLES = ("anndata", "pandas", "scipy", "h5py")


def imported(*words: object) -> set[str]:
    """The modules that are imported when a command ends."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps([*sys.modules]), file=sys.stderr))\n"
        "from genedml_cli.app import main; main()"
    )
    call = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "words",
    [
        ("data", "list"),
        ("data", "list", "--json"),
        ("data", "info", "HER2ST"),
        ("genes", "HER2ST"),
    ],
    ids=" ".join,
)
def test_what_is_only_looked_up_starts_at_once(words):
    assert not imported(*words) & {*HEAVY, *TABLES}


def test_whoever_hands_out_slides_does_without_torch():
    code = "import sys, genedml_cli.cohort.cohort, genedml_cli.machine.ray_executor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_scoring_a_run_and_exporting_its_predictions_start_without_torch(world, tmp_path):
    run = tmp_path / "run"
    train(read_sheet(world / "samples.csv"), run, tiny_config(), fold="P1", features=tmp_path / "features")
    assert not imported("evaluate", run) & {*HEAVY}
    prediction = next((run / "predictions").glob("*.h5ad"))
    assert not imported("export", prediction, "-o", tmp_path / "out.csv") & {*HEAVY}
    assert not imported("export", prediction, "-o", tmp_path / "out.geojson") & {*HEAVY}
    assert (tmp_path / "out.csv").stat().st_size > 1000
