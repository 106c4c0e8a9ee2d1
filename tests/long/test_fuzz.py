"""What ``fuzz.py`` counts, and, with ``-m long``, some hundred broken files for every parser."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fuzz import Judge
from hostile import PARSERS


def test_the_fuzzer_counts_what_is_read_refused_and_failed(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    judge = Judge("config", tmp_path / "run")
    judge.try_one(judge.sound)
    judge.try_one(b"[training\n")
    judge.try_one(b"encoder = 'uni'\n")
    monkeypatch.setitem(vars(judge), "parser", replace(judge.parser, read=lambda path: 1 / 0))
    judge.try_one(judge.sound)
    assert judge.counts == {"as before": 1, "refused": 1, "another content": 1, "FAILED": 1}
    assert "ZeroDivisionError" in next(iter(judge.kinds))


@pytest.mark.long
@pytest.mark.parametrize("name", PARSERS)
def test_300_broken_files_end_in_success_or_one_sentence(name):
    call = [sys.executable, str(Path(__file__).with_name("fuzz.py")), name, "--runs", "300"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
