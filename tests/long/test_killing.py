"""Commands killed and begun again, as ``killing.py`` does it: a few times always, 200 times with ``-m long``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killing.py")


@pytest.mark.parametrize(("kills", "stops", "seed"), [(5, 0.2, 3), pytest.param(200, 0.25, 7, marks=pytest.mark.long)])
def test_killed_commands_begun_again_give_the_same_bytes(tmp_path, kills, stops, seed):
    call = [sys.executable, SCRIPT, tmp_path, "--kills", kills, "--stops", stops, "--seed", seed]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, env=paths, check=False)
    assert done.returncode == 0, done.stderr
    sweep = json.loads(done.stdout.splitlines()[-1])
    assert sweep["differ"] == []
    assert sweep["slowest_stop_s"] < 10
