"""Ctrl-C and SIGTERM: every process ends within seconds, in order, and says what is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genedml_cli.machine import stopping

HERE = Path(__file__).parent


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
LONG_CALL = """
import sys, time
from pathlib import Path
from genedml_cli import app
from genedml_cli.machine import stopping
from genedml_cli.files.storage import atomic_write

def command():
    with stopping.on_stop("All is kept."), atomic_write(Path(sys.argv[1])) as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

app.app = command
app.main()
"""


def told_to_end(code: str, number: int, out: Path, signals: int = 1) -> tuple[int, str, float]:
    """Exit code and last words of a command that gets signals as it is at work, and after how many seconds."""
    words, pipe = [sys.executable, "-c", code, str(out)], subprocess.PIPE
    with subprocess.Popen(words, stderr=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for _ in range(signals):
            process.send_signal(number)
            time.sleep(0.5)
        _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - began


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_told_to_end_says_what_is_kept(number, code, tmp_path):
    ended, said, took_s = told_to_end(LONG_CALL, number, tmp_path / "out")
    assert (ended, said) == (code, "Stopped. All is kept.\n")
    assert took_s < 9
    assert not (tmp_path / "out").exists()


def test_a_long_call_of_a_library_does_not_hold_up_the_end(tmp_path):
    # A wait that no Python handler can break into, as inside a kernel that runs for minutes.
    stuck = LONG_CALL.replace("time.sleep(60)", "import ctypes; [ctypes.CDLL(None).sleep(60) for _ in range(9)]")
    code = stuck.replace("ctypes; [", "ctypes; ctypes.CDLL(None).siginterrupt(15, 0); [")
    ended, said, took_s = told_to_end(code, signal.SIGTERM, tmp_path / "out")
    assert (ended, said) == (143, "Stopped. All is kept.\n")
    assert took_s < 12


def test_the_end_does_not_wait_for_threads_that_are_at_work(tmp_path):
    threads = "import threading; threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)"
    ended, said, took_s = told_to_end(LONG_CALL.replace("time.sleep(60)", threads), signal.SIGTERM, tmp_path / "out")
    assert (ended, said) == (143, "Stopped. All is kept.\n")
    assert took_s < stopping.GRACE_S - 1


def test_a_second_signal_ends_a_long_call_at_once(tmp_path):
    stuck = LONG_CALL.replace("time.sleep(60)", "import ctypes; [ctypes.CDLL(None).sleep(60) for _ in range(9)]")
    stuck = stuck.replace("ctypes; [", "ctypes; ctypes.CDLL(None).siginterrupt(2, 0); [")
    ended, said, took_s = told_to_end(stuck, signal.SIGINT, tmp_path / "out", signals=2)
    assert (ended, said) == (130, "Stopped. All is kept.\n")
    assert took_s < stopping.GRACE_S - 1


def test_processes_end_with_the_one_that_began_them(tmp_path):
    files = [tmp_path / "a.pid", tmp_path / "b.pid"]
    with subprocess.Popen([sys.executable, str(HERE / "lingering.py"), str(tmp_path), "2"], env=ENVIRONMENT) as leader:
        until = time.monotonic() + 100
        while not all(file.exists() and file.read_text() for file in files):
            assert time.monotonic() < until
            time.sleep(0.1)
        leader.kill()
    until = time.monotonic() + 15
    while any(is_alive(int(file.read_text())) for file in files):
        assert time.monotonic() < until
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
