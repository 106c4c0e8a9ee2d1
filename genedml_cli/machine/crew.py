"""Work that is spread: what a job, a place and a worker are, and how jobs are handed out, whoever does them.

A job is a small picklable value that names what is to be done. Whoever does it reads its inputs and writes its result
itself, whole or not at all, and returns little. So another engine, as that of a cluster is, is a class with the
methods of :class:`Engine` in a file of its own, and one more case in :func:`genedml_cli.machine.executors.executor`.
"""

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

from genedml.errors import GeneDMLError, lines_of
from genedml_cli import console
from genedml_cli.machine.compute import make_deterministic

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")
READY, RESULT, ERROR, DIED = "ready", "result", "error", "died"  # what is heard of a worker, besides its notes


@dataclass(frozen=True)
class Place:
    """Where jobs are done: in one process, of one or several.

    Args:
        device: of torch; ``auto``, which is what :func:`genedml_cli.machine.devices.pick_device` finds there.
        threads: of torch. Another number rounds in another way, so those of one machine have as many as the process
            that hands out the jobs, and those of a cluster too if that has OMP_NUM_THREADS.
        number: of this place, from 0.
        of: how many places there are.
        deterministic: whether torch is held to operations that give the same each time.
        cores: for batches of its encoder, each of which takes one.
    """

    device: str
    threads: int
    number: int = 0
    of: int = 1
    deterministic: bool = False
    cores: int = 1

    def settle(self) -> "Place":
        """Let this process compute as its place says, before it computes anything; the place as it is seen from here.

        Of several GPUs the process sees its own alone, which is its ``cuda:0``.
        """
        kind, _, number = self.device.partition(":")
        if kind == "cuda":
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[int(number)] if seen else number
            kind = "cuda:0"
        import torch

        from genedml_cli.machine.devices import pick_device

        torch.set_num_threads(self.threads)
        if self.deterministic:
            make_deterministic()
        return replace(self, device=str(pick_device()) if kind == "auto" else kind)


@dataclass(frozen=True)
class Failed(Generic[Job]):
    """A job whose process died, and of what: a signal or an exit code; with the engine's remedy."""

    job: Job
    reason: str
    remedy: str


@runtime_checkable
class Executor(Protocol):
    """Does jobs."""

    def run(
        self, setup: Callable[[Place], State], call: Callable[[State, Job], Result], jobs: Sequence[Job]
    ) -> Iterator[Result | Failed[Job]]:
        """What ``call`` returns for each job, in the order in which they are done.

        Args:
            setup: makes, once at each place, what all its jobs share.
            call: does one job with that.
            jobs: longest first, where that is known.

        Raises:
            Exception: what ``setup`` or ``call`` raises. Jobs under way are finished, no more are begun.
        """
        ...


@dataclass(eq=False)
class Worker:
    """A process of an engine, at a place; ``handle`` is the engine's own."""

    place: Place
    handle: Any
    ready: bool = False
    attempt: "Attempt | None" = None


@dataclass
class Attempt:
    """A job, and how many workers died over it."""

    job: Any
    deaths: int = 0


@runtime_checkable
class Engine(Protocol):
    """Starts workers and talks with them; :class:`Crew` tells it what to do."""

    tries: int
    """How many workers a job is given to, where they die over it, before it has failed."""
    remedy: str
    """What the user can do where workers die: a sentence without its full stop."""

    def start(self, place: Place) -> Worker:
        """Start a worker. It says READY when it can be given a job."""
        ...

    def give(self, worker: Worker, job: Any) -> None:
        """Let a worker do a job."""
        ...

    def hear(self) -> Iterable[tuple[Worker, str, Any]]:
        """Wait until workers say something: what, and the value that goes with it.

        READY; RESULT and the result; ERROR and an exception, after which the worker does nothing more; DIED and the
        reason; note or warn and a text.
        """
        ...

    def end(self) -> None:
        """End the workers, within seconds."""
        ...


class Crew:
    """Hands out jobs to the workers of an engine, and out again those of workers that die."""

    def __init__(self, engine: Engine, jobs: Sequence[Any]) -> None:
        self._engine, self._waiting = engine, [Attempt(job) for job in reversed(jobs)]
        self._workers: list[Worker] = []
        self._early: Counter[int] = Counter()
        self._error: Exception | None = None

    def run(self, places: Sequence[Place]) -> Iterator[Any]:
        """As :meth:`Executor.run`, at these places.

        A place is given up where as many workers in a row die before their first job as a job is given to.

        Raises:
            GeneDMLError: no place is left.
        """
        try:
            self._workers += [self._engine.start(place) for place in places]
            while self._waiting or any(worker.attempt for worker in self._workers):
                for worker, kind, value in self._engine.hear():
                    yield from self._take(worker, kind, value)
                for worker in self._workers:
                    if worker.ready and worker.attempt is None and self._waiting:
                        worker.attempt = self._waiting.pop()
                        self._engine.give(worker, worker.attempt.job)
        finally:
            self._engine.end()
        if self._error is not None:
            raise self._error

    def _take(self, worker: Worker, kind: str, value: Any) -> Iterator[Any]:
        """Take what a worker says; yields the result of its job, if it is that."""
        if kind == READY:
            worker.ready = True
        elif kind == RESULT:
            worker.attempt = None
            yield value
        elif kind == ERROR:
            self._error, self._waiting = self._error or value, []
            worker.attempt, worker.ready = None, False
        elif kind == DIED:
            yield from self._replace(worker, value)
        else:
            console.pass_on(cast(console.Message, (kind, value)))

    def _replace(self, dead: Worker, reason: str) -> Iterator[Failed[Any]]:
        self._workers.remove(dead)
        attempt = dead.attempt
        if attempt is not None:
            attempt.deaths += 1
            if attempt.deaths < self._engine.tries and self._error is None:
                console.note(f"A worker ended ({reason}); its job is given to another.")
                self._waiting.append(attempt)
            else:
                times = f", the last of {attempt.deaths} workers" if attempt.deaths > 1 else ""
                yield Failed(attempt.job, f"{reason}{times}", self._engine.remedy)
        place = dead.place.number
        self._early[place] = 0 if dead.ready else self._early[place] + 1
        if self._waiting and self._early[place] < self._engine.tries:
            self._workers.append(self._engine.start(dead.place))
        if not self._workers and self._waiting:
            raise GeneDMLError(
                f"A process ended ({reason}) before its first job, and no other is left. {self._engine.remedy}."
            )


def portable(error: Exception) -> Exception:
    """An error as another process can raise it: one that a user can fix, else with the traceback for its text."""
    if isinstance(error, GeneDMLError):
        return error
    lines = lines_of(error)
    return GeneDMLError("\n".join(lines)) if lines else RuntimeError(traceback.format_exc())
