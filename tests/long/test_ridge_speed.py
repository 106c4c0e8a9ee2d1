"""Ridge regression against refits, as ``ridge_speed.py`` times them: small, and with ``-m long`` at UNI's width."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genedml.ridge import ALPHAS

SCRIPT = Path(__file__).with_name("ridge_speed.py")


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (["--spots", "700", "--width", "64", "--genes", "20"], 1),
        pytest.param([], 5, marks=pytest.mark.long),
    ],
    ids=["small", "uni"],
)
def test_ridge_is_faster_than_a_refit_for_every_penalty_and_donor(size, least):
    done = subprocess.run([sys.executable, SCRIPT, *size], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["refits"] == 7 * len(ALPHAS) + 1
    assert found["times_as_fast"] > least
