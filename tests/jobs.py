"""Jobs for processes, which import this module: they say where they are done, or fail in one of the ways there are."""

import os
import signal
import time
from pathlib import Path

import torch

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.paths import check_seen
from genedml_cli.machine.crew import Place
from genedml_cli.machine.executors import Processes

TWO = Processes(2, ["cpu"])


def place_of(place: Place) -> Place:
    return place


def gpu_of(place: Place, job: str) -> tuple[str, str]:
    """Which GPU the process sees, and what torch is to call it."""
    if job == "slow":
        time.sleep(2)
    return os.environ["CUDA_VISIBLE_DEVICES"], place.device


def seen_from(place: Place, file: Path) -> tuple[Path, str]:
    """Where a file is for a worker, and what it holds there."""
    check_seen(file)
    return file, file.read_text()


def die(place: Place) -> Place:
    os._exit(9)


def do(place: Place, job: str) -> tuple[str, int, tuple[object, ...]]:
    """The job, the process, and by what rules it computes; or whatever the job is called after."""
    console.note(f"{job} is at work")
    if job == "fixed by the user":
        error = GeneDMLError(f"{job} on {place.device}")
        error.add_note("This was section one.")
        raise error
    if job == "a bug":
        raise ZeroDivisionError(job)
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "slow":
        time.sleep(4)
    rules = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), place.of
    return job, os.getpid(), rules
