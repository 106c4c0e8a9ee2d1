"""A queue of a thousand slides, and with ``-m long`` of a hundred thousand, as ``simulate.py`` hands it out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("simulate.py")


@pytest.mark.parametrize("slides", [1000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_queue_is_handed_out_fast_in_little_memory_and_near_the_bound(slides):
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, SCRIPT, "--slides", str(slides)]
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, env=paths, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["died"] == 3
    assert found["jobs_a_second"] > 200
    assert 1 <= found["makespan_over_bound"] < 1.1
    assert found["queue_mb"] + found["libraries_mb"] < 500
