"""Jobs here and in processes: the same results; what goes wrong in a process is said in this one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import tiny_config
from jobs import TWO, die, do, gpu_of, place_of

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml.networks.network import Shape
from genedml_cli import console
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.machine import devices
from genedml_cli.machine.compute import Compute, all_deterministic
from genedml_cli.machine.crew import DIED, READY, RESULT, Crew, Failed, Place, Worker
from genedml_cli.machine.executors import Processes, executor
from genedml_cli.machine.ray_executor import OnRay, _Actors
from genedml_cli.runs.run import train
from genedml_cli.training.loop import threads_for

ENDS = (".safetensors", ".log.csv")
CPU = torch.device("cpu")


def test_folds_in_processes_are_those_trained_here_whatever_paths_are_relative_to(world, tmp_path, monkeypatch):
    samples, config = read_sheet(world / "samples.csv"), tiny_config("training.epochs=2")
    monkeypatch.chdir(tmp_path)
    for on in ("here", "2"):
        train(samples, Path(on), config, features=Path("features"), compute=Compute("cpu"), on=on)
    files = [f"fold-{fold}{end}" for fold in ("P1", "P2", "P3") for end in ENDS]
    for name in (*files, "ridge-P1.safetensors", "novelty-P2.safetensors", "metrics.csv"):
        assert Path("here", name).read_bytes() == Path("2", name).read_bytes(), name
    assert not list(Path("2").glob("*.plan.json"))


def test_jobs_are_spread_computed_by_the_same_rules_and_heard_here(monkeypatch):
    heard: list[console.Message] = []
    monkeypatch.setattr(console, "pass_on", heard.append)
    torch.set_num_threads(3)
    with all_deterministic(True):
        done = list(TWO.run(place_of, do, ["slow", "b", "c", "d"]))
    assert sorted(job for job, _, _ in done) == ["b", "c", "d", "slow"]
    assert len({process for _, process, _ in done} - {os.getpid()}) == 2
    assert {rules for _, _, rules in done} == {(3, True, 2)}
    assert sorted(heard) == [("note", f"{job} is at work") for job in ("b", "c", "d", "slow")]


@pytest.mark.parametrize("engine", [Processes(1, ["cpu"]), TWO], ids=["here", "processes"])
def test_an_error_is_raised_here_with_its_notes_after_what_was_under_way(engine):
    done = []
    with pytest.raises(GeneDMLError, match="fixed by the user on cpu") as raised:
        for result in engine.run(place_of, do, ["slow", "fixed by the user", *["never begun"] * 9]):
            done.append(result)
    assert raised.value.__notes__ == ["This was section one."]
    assert "slow" in {job for job, _, _ in done}
    assert len(done) < 9


def test_a_bug_in_a_process_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*in do.*ZeroDivisionError: a bug"):
        list(TWO.run(place_of, do, ["a bug", "b"]))


def test_a_process_that_dies_costs_one_job_and_another_takes_its_place():
    done = list(TWO.run(place_of, do, ["killed", "b", "slow", "c"]))
    assert [one for one in done if isinstance(one, Failed)] == [
        Failed("killed", "SIGKILL", "If it was killed for want of memory, give fewer processes with --on")
    ]
    assert sorted(one[0] for one in done if not isinstance(one, Failed)) == ["b", "c", "slow"]


def test_a_process_that_dies_before_its_first_job_ends_all():
    with pytest.raises(GeneDMLError, match=r"ended \(exit code 9\) .*--on"):
        list(TWO.run(die, do, ["a", "b"]))


def test_a_single_job_needs_no_process():
    assert [process for _, process, _ in TWO.run(place_of, do, ["a"])] == [os.getpid()]


def test_a_script_without_a_guard_is_not_run_again_by_its_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from jobs import TWO, do, place_of\nprint('begun')\n"
        "print(sorted(job for job, _, _ in TWO.run(place_of, do, ['a', 'b'])))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.returncode) == ("begun\n['a', 'b']\n", 0), done.stderr
    assert "a is at work" in done.stderr


def test_what_on_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cpu, cuda = Compute("cpu"), Compute("cuda")
    assert executor("here", cpu) == Processes(1, ["cpu"])
    assert executor("3", cpu) == Processes(3, ["cpu"])
    assert executor("here", cuda) == Processes(1, ["cuda:0", "cuda:1"])
    assert executor("gpus", cuda) == Processes(2, ["cuda:0", "cuda:1"])
    assert executor("3", cuda) == Processes(3, ["cuda:0", "cuda:1"])
    assert executor("ray", cuda) == OnRay("", "cpu", True)  # for nodes that have no GPU
    assert executor("ray://head:10001", replace(cpu, deterministic=True)) == OnRay(
        "ray://head:10001", "cpu", False, True
    )
    for on, compute in (("gpus", cpu), ("0", cpu), ("-1", cpu), ("there", cuda), ("", cuda)):
        with pytest.raises(GeneDMLError, match="--on"):
            executor(on, compute)


@pytest.mark.parametrize(("visible", "seen"), [("", ["0", "1"]), ("3,GPU-5", ["3", "GPU-5"])])
def test_every_process_sees_one_gpu_its_own(monkeypatch, visible, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    done = list(Processes(2, ["cuda:0", "cuda:1"]).run(place_of, gpu_of, ["slow", "b"]))
    assert sorted(done) == [(each, "cuda:0") for each in seen]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


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
    assert devices.room_for_processes(CPU, threads_each) == folds
    assert devices.room_for_processes(torch.device("cuda"), threads_each) == 1


def test_threads_follow_the_size_of_the_network(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert threads_for(load_config("small"), Shape(250, 64, 9, 5), CPU) == 1
    assert [
        threads_for(load_config(name), Shape(250, 1024, 196, 5), CPU) for name in ("HER2ST", "STNet", "skinST")
    ] == [6] * 3
    assert threads_for(load_config("small"), Shape(250, 64, 9, 5), torch.device("cuda")) == 6


NODES = [
    {"NodeID": "head", "Alive": True, "Resources": {"GPU": 1.0}},
    {"NodeID": "lost", "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    {"NodeID": "a", "Alive": True, "Resources": {"CPU": 9.0, "GPU": 2.0}},
    {"NodeID": "b", "Alive": True, "Resources": {"CPU": 2.0}},
]


def test_places_of_ray_are_one_a_gpu_or_else_one_every_four_cores(monkeypatch):
    ray = ModuleType("ray")
    ray.nodes = lambda: NODES

    def places(gpus: bool) -> list[tuple[str, int, int, int, int]]:
        found = _Actors(ray, place_of, do).places("cpu", gpus, False)
        return [(each.device, each.number, each.of, each.cores, each.threads) for each in found]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert places(gpus=True) == [("cuda:0", 0, 2, 4, 4), ("cuda:0", 1, 2, 4, 4)]
    assert places(gpus=False) == [("cpu", 0, 2, 4, 4), ("cpu", 2, 1, 2, 2), ("cpu", 1, 2, 4, 4)]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert {threads for *_, threads in places(gpus=False)} == {3}


class Mortal:
    """An engine of one place, whose first workers die before they are ready."""

    remedy = "Look for the machine"

    def __init__(self, tries: int, early_deaths: int) -> None:
        self.tries, self.early_deaths, self.heard = tries, early_deaths, []

    def start(self, place: Place) -> Worker:
        worker = Worker(place, None)
        self.early_deaths -= 1
        self.heard.append((worker, READY, None) if self.early_deaths < 0 else (worker, DIED, "lost"))
        return worker

    def give(self, worker: Worker, job: int) -> None:
        self.heard.append((worker, RESULT, 10 * job))

    def hear(self):
        return [self.heard.pop(0)]

    def end(self) -> None:
        pass


def test_a_place_is_given_up_after_as_many_early_deaths_as_a_job_is_given_workers():
    assert list(Crew(Mortal(3, 2), [1, 2]).run([Place("cpu", 1)])) == [10, 20]
    for engine in (Mortal(3, 3), Mortal(1, 1)):
        with pytest.raises(GeneDMLError, match=r"\(lost\) before its first job, .* Look for the machine\.$"):
            list(Crew(engine, [1, 2]).run([Place("cpu", 1)]))
