"""Folds beside each other: the same files as one after the other; what goes wrong in a process is said in this one."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_config

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml.networks.network import Shape
from genedml_cli import console
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.machine import devices
from genedml_cli.machine.compute import Compute
from genedml_cli.machine.executors import spread
from genedml_cli.runs import run as runs
from genedml_cli.training.loop import threads_for

ENDS = (".safetensors", ".log.csv")
TWO = [torch.device("cpu"), torch.device("cpu")]


def test_folds_beside_each_other_are_those_of_one_after_the_other(world, tmp_path, monkeypatch):
    samples, config = read_sheet(world / "samples.csv"), tiny_config("training.epochs=2")
    runs.train(samples, tmp_path / "one", config, features=tmp_path / "features", compute=Compute("cpu"))
    monkeypatch.setattr(runs, "all_like", lambda *_: TWO)
    runs.train(samples, tmp_path / "two", config, features=tmp_path / "features", compute=Compute("cpu"))
    for name in (*(f"fold-{fold}{end}" for fold in ("P1", "P2", "P3") for end in ENDS), "metrics.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def refuse(job: str, device: torch.device, word: str) -> str:
    if job == "bad":
        raise GeneDMLError(f"{job} on {device}: {word}")
    if job == "killed":
        os._exit(9)
    return job


@pytest.mark.parametrize(("job", "sentence"), [("bad", "bad on cpu: fix it"), ("killed", "ended without a word")])
def test_what_goes_wrong_in_a_process_is_raised_here(job, sentence):
    with pytest.raises(GeneDMLError, match=sentence):
        list(spread(functools.partial(refuse, word="fix it"), [job, "good"], TWO, threads=1))


def test_one_device_needs_no_process_and_the_callers_threads_stay():
    here, before = os.getpid(), torch.get_num_threads()
    done = list(spread(lambda job, device: (job, os.getpid(), torch.get_num_threads()), ["a", "b"], TWO[:1], threads=3))
    assert done == [("a", here, 3), ("b", here, 3)]
    assert torch.get_num_threads() == before


def say_and_count(job: str, device: torch.device) -> int:
    console.note(f"{job} is at work")
    return torch.get_num_threads()


def test_processes_have_the_threads_that_are_asked_for_and_speak_through_this_one(monkeypatch):
    heard = []
    monkeypatch.setattr(console, "pass_on", heard.append)
    assert list(spread(say_and_count, ["a", "b", "c"], TWO, threads=3)) == [3, 3, 3]
    assert sorted(heard) == [("note", f"{job} is at work") for job in "abc"]


def test_a_script_without_a_guard_is_not_run_again_by_its_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom genedml_cli.machine.executors import spread\n"
        "from test_workers import say_and_count\nprint('begun')\n"
        "print(list(spread(say_and_count, ['a', 'b'], [torch.device('cpu')] * 2, threads=2)))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.returncode) == ("begun\n[2, 2]\n", 0), done.stderr
    assert "a is at work" in done.stderr


@pytest.mark.parametrize(
    ("threads_each", "torch_threads", "free", "folds"),
    [(1, 6, 10**11, 6), (6, 6, 10**11, 1), (1, 6, 3 * 10**9, 3), (1, 6, 0, 1), (1, 1, 10**11, 1)],
    ids=["small", "large", "memory", "no memory", "one thread"],
)
def test_a_cpu_is_shared_by_as_many_folds_as_threads_and_memory_allow(
    monkeypatch, threads_each, torch_threads, free, folds
):
    monkeypatch.setattr(devices, "free_on_host", lambda: free)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_threads)
    assert devices.all_like(torch.device("cpu"), threads_each) == [torch.device("cpu")] * folds
    assert devices.all_like(torch.device("mps"), threads_each) == [torch.device("mps")]


def test_threads_follow_the_size_of_the_network(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    cpu = torch.device("cpu")
    assert threads_for(load_config("small"), Shape(250, 64, 9, 5), cpu) == 1
    assert [
        threads_for(load_config(name), Shape(250, 1024, 196, 5), cpu) for name in ("HER2ST", "STNet", "skinST")
    ] == [6] * 3
    assert threads_for(load_config("small"), Shape(250, 64, 9, 5), torch.device("cuda")) == 6
