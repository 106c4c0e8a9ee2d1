"""Several slides at a time: a crew of processes, each with the models in its memory.

A process that dies (of a fault in a library, or for want of memory) costs the slide that it was at; another takes its
place.
"""

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.cohort.slide import FAILED, CohortSlide, CohortTask, Outcome, predict_one
from genedml_cli.features.overlap import share_threads
from genedml_cli.machine.devices import all_deterministic
from genedml_cli.machine.stopping import follow
from genedml_cli.prediction.ensemble import say_which

READY = "ready"
PATIENCE_S = 3.0  # for all processes that were told to end


@dataclass
class _Member:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    slide: CohortSlide | None = None


class Crew:
    """``jobs`` processes that predict slides of one task; they end with the ``with`` block."""

    def __init__(self, task: CohortTask, jobs: int) -> None:
        self._task, self._jobs = task, jobs
        self._waiting: list[CohortSlide] = []
        self._context = multiprocessing.get_context("spawn")
        self._members = [self._hire(first=number == 0) for number in range(jobs)]

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._members:
            member.process.terminate()
        until = time.monotonic() + PATIENCE_S
        for member in self._members:
            member.process.join(max(0.0, until - time.monotonic()))
            member.process.kill()
            member.pipe.close()

    def predict(self, slides: Sequence[CohortSlide]) -> Iterator[Outcome]:
        """The outcome of every slide as it comes.

        Raises:
            GeneDMLError: the models cannot be loaded.
        """
        self._waiting = waiting = list(reversed(slides))
        while waiting or any(member.slide for member in self._members):
            for pipe in wait([member.pipe for member in self._members]):
                place = next(place for place, member in enumerate(self._members) if member.pipe is pipe)
                outcome = self._hear(place)
                if outcome is not None:
                    yield outcome
            for member in self._members:
                if member.ready and member.slide is None and waiting:
                    member.slide = waiting.pop()
                    with suppress(OSError):  # it died: its end of the pipe says so next
                        member.pipe.send(member.slide)

    def _hear(self, place: int) -> Outcome | None:
        """One thing that a member says; the outcome of its slide, if it is that."""
        member = self._members[place]
        try:
            said = member.pipe.recv()
        except (EOFError, OSError):
            return self._replace(place)
        if isinstance(said, GeneDMLError):
            raise said
        if said == READY:
            member.ready = True
        elif isinstance(said, Outcome):
            member.slide = None
            return said
        else:
            console.pass_on(said)
        return None

    def _replace(self, place: int) -> Outcome | None:
        dead = self._members[place]
        dead.process.join()
        dead.pipe.close()
        code = dead.process.exitcode or 0
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not dead.ready:
            raise GeneDMLError(f"A process of --jobs died ({why}) as it loaded the models. Give fewer --jobs.")
        self._members[place : place + 1] = [self._hire()] if self._waiting else []
        if dead.slide is None:
            return None
        problem = (
            f"the process that predicted it died ({why}). If it was killed for want of memory, give fewer --jobs; else "
            "a library could not bear the file: export the slide anew."
        )
        return Outcome(dead.slide.name, dead.slide.slide, FAILED, problem=problem)

    def _hire(self, first: bool = False) -> _Member:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._task, torch.get_num_threads(), self._jobs, first),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Member(process, ours)


def _serve(pipe: Connection, task: CohortTask, threads: int, jobs: int, first: bool) -> None:
    """What a member does: load the models, then predict slide after slide until nobody is at the other end."""
    leader = multiprocessing.parent_process()
    if leader is not None:
        follow(leader.sentinel)
    torch.set_num_threads(threads)  # another number could round sums otherwise
    share_threads(jobs)
    console.relay(pipe.send)
    try:
        with all_deterministic(task.compute.deterministic):
            _predict_all(pipe, task, first)
    except (EOFError, BrokenPipeError):
        return
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _predict_all(pipe: Connection, task: CohortTask, first: bool) -> None:
    try:
        with nullcontext() if first else console.quieted():
            models = task.load()
            say_which(models)
    except GeneDMLError as error:
        pipe.send(error)
        return
    pipe.send(READY)
    while True:
        pipe.send(predict_one(task, models, pipe.recv()))
