"""Two processes at one output: the second waits or refuses, and what a dead one left is cleared."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
from conftest import TINY, tiny_config
from filelock import FileLock

from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.features.extraction import extract
from genedml_cli.files.locks import claimed, exclusive
from genedml_cli.files.parts import new_part
from genedml_cli.files.storage import write_text
from genedml_cli.runs import run as runs

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}


HOLD = """
import json
import sys
from pathlib import Path
from genedml_cli.features.extraction import extract
from genedml_cli.files import locks

with getattr(locks, sys.argv[2])(Path(sys.argv[1]), **json.loads(sys.argv[3])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path, by: str = "claimed", **settings: bool) -> Iterator[subprocess.Popen[str]]:
    """Another process that is at a file until its input is closed."""
    words, pipe = [sys.executable, "-c", HOLD, str(path), by, json.dumps(settings)], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def test_the_second_refuses_and_a_dead_one_is_forgotten(tmp_path):
    path = tmp_path / "out"
    with held(path) as process:
        sentence = rf"The run is being made by process {process.pid} on .*Wait"
        with pytest.raises(GeneDMLError, match=sentence), claimed(path, "The run"):
            pass
        process.kill()
    new_part(path, process.pid).write_text("half")
    with claimed(path):
        write_text(path, "whole")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_the_second_of_a_machine_waits_for_what_the_first_makes(tmp_path, capsys):
    path = tmp_path / "out"
    with held(path, "exclusive") as process:
        assert process.stdin is not None
        Timer(1.5, process.stdin.close).start()
        started = time.monotonic()
        with exclusive(path):
            assert time.monotonic() - started > 1
    assert f"process {process.pid}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_jobs_with_temporary_folders_of_their_own_wait_where_the_lock_is_beside(tmp_path, monkeypatch):
    path = tmp_path / "run" / "scores"
    path.parent.mkdir()
    with held(path, "exclusive", beside=True) as process:
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        with exclusive(path):  # the other is not seen
            pass
        assert process.stdin is not None
        Timer(1, process.stdin.close).start()
        started = time.monotonic()
        with exclusive(path, beside=True):
            assert time.monotonic() - started > 0.9
    assert not list(path.parent.iterdir())


def test_a_folder_for_locks_that_is_a_link_is_not_used(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        with exclusive(tmp_path / "out"):
            (folder,) = tmp_path.iterdir()
            (lock,) = folder.iterdir()
        folder.rename(tmp_path / "other")
        folder.symlink_to(tmp_path / "other")
        with exclusive(tmp_path / "out"):
            assert not list((tmp_path / "other").iterdir())

    def refuse() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    with exclusive(tmp_path / "out"):
        assert not lock.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch, number):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with exclusive(path, beside=True), claimed(path), claimed(path):
            path.touch()
    assert path.exists()
    number = errno.EACCES
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(GeneDMLError, match="run cannot be written: Permission denied"), claimed(tmp_path / "run"):
        pass


def test_a_fold_that_another_process_trains_is_refused_and_nothing_is_touched(world, tmp_path):
    out = tmp_path / "run"
    with held(out / "fold-P1"):
        with pytest.raises(GeneDMLError, match=r"Fold P1 of .* is being made by process"):
            runs.train(read_sheet(world / "samples.csv"), out, tiny_config(), fold="P1", features=tmp_path / "features")
        assert [path.name for path in out.iterdir()] == [".fold-P1.lock"]


SLOW = """
import time
import conftest
from genedml_cli import app
from genedml_cli.features import encoding

encode = encoding.BatchRunner.__call__

def slowly(self, images):
    time.sleep(0.2)
    return encode(self, images)

encoding.BatchRunner.__call__ = slowly
app.main()
"""


def test_two_commands_that_need_the_same_features_encode_them_once(world, tmp_path):
    settings = [word for setting in TINY for word in ("--set", setting)]
    words = ["extract", "--samples", str(world / "samples.csv"), "--preset", "small", *settings, "--device", "cpu"]

    words += ["--features", str(tmp_path / "shared")]
    both = [
        subprocess.Popen([sys.executable, "-c", SLOW, *words], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert "Waiting for" in told[0] + told[1]
    assert (told[0] + told[1]).count("to read and encode") == 3
    views = tiny_config().views
    extract(read_sheet(world / "samples.csv"), load_encoder("tiny"), views, tmp_path / "alone")
    shared, alone = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("shared", "alone")
    )
    assert shared == alone
