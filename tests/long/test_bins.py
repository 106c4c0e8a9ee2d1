"""``data bin`` on as many bins as a slide of Visium HD has: small, and with ``-m long`` 11 million."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bins.py")
MOST_MB, MOST_CPU_S = 4096, 240  # two cores for two minutes


@pytest.mark.parametrize(
    ("size", "spots"),
    [
        (["--rows", "100", "--columns", "150"], 2 * 3),
        pytest.param([], 67 * 66, marks=pytest.mark.long),
    ],
    ids=["small", "slide"],
)
def test_bins_of_a_slide_are_summed_in_bounded_memory_and_time(size, spots, tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, *size], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["spots"], told["counts"]) == (spots, told["made"])
    assert told["peak_mb"] < MOST_MB
    assert told["cpu_s"] < MOST_CPU_S
