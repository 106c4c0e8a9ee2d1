"""Work that is spread: jobs done in this process, or in several processes of this machine.

A job is a small picklable value that names what is to be done. Whoever does it reads its inputs and writes its result
itself, whole or not at all, and returns little. So another engine, of a cluster say, is a class with
:meth:`Executor.run` in a file of its own, and one more case in :func:`executor`.
"""

import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

from genedml.errors import GeneDMLError, lines_of
from genedml_cli import console
from genedml_cli.machine.stopping import end_with_parent

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")
HERE, GPUS = "here", "gpus"
READY, RESULT, ERROR = "ready", "result", "error"  # what a process sends, besides notes and warnings
PATIENCE_S = 3.0  # for all processes that were told to end


@dataclass(frozen=True)
class Place:
    """Where jobs are done: in one process, of one or several.

    Args:
        device: of torch.
        threads: of torch, as many as in the process that hands out the jobs: another number rounds in another way.
        number: of this place, from 0.
        of: how many places there are.
        deterministic: whether torch is held to operations that give the same each time.
    """

    device: str
    threads: int
    number: int = 0
    of: int = 1
    deterministic: bool = False

    def settle(self) -> None:
        """Let this process compute as the one that hands out the jobs does."""
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)
        if self.device.startswith("cuda"):
            torch.cuda.set_device(self.device)


@dataclass(frozen=True)
class Failed(Generic[Job]):
    """A job whose process died, and of what: a signal or an exit code."""

    job: Job
    reason: str


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


@dataclass(frozen=True)
class Processes:
    """At most ``count`` processes, which take the devices in turn; one is this process itself.

    Of several, one that dies costs its job, and another takes its place.
    """

    count: int
    devices: Sequence[str]

    def run(
        self, setup: Callable[[Place], State], call: Callable[[State, Job], Result], jobs: Sequence[Job]
    ) -> Iterator[Result | Failed[Job]]:
        """As :meth:`Executor.run`; to processes ``setup``, ``call``, jobs and results are pickled."""
        count = max(1, min(self.count, len(jobs)))
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        devices = [self.devices[number % len(self.devices)] for number in range(count)]
        places = [Place(device, threads, number, count, deterministic) for number, device in enumerate(devices)]
        if count == 1:
            state = setup(places[0])
            for job in jobs:
                yield call(state, job)
            return
        crew = _Crew(setup, call, jobs)
        try:
            yield from crew.run(places)
        finally:
            crew.end()


@dataclass
class _Member:
    place: Place
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    job: Any = None


class _Crew:
    """The processes of one call."""

    def __init__(self, setup: Callable[[Place], Any], call: Callable[[Any, Any], Any], jobs: Sequence[Any]) -> None:
        self._calls, self._waiting = (setup, call), list(reversed(jobs))
        self._context = multiprocessing.get_context("spawn")  # a process forked from one that uses CUDA cannot use it
        self._members: list[_Member] = []
        self._error: Exception | None = None

    def run(self, places: Sequence[Place]) -> Iterator[Any]:
        for place in places:
            self._start(place)
        while self._waiting or any(member.job is not None for member in self._members):
            for pipe in wait([member.pipe for member in self._members]):
                yield from self._hear(next(member for member in self._members if member.pipe is pipe))
            for member in self._members:
                if member.ready and member.job is None and self._waiting:
                    member.job = self._waiting.pop()
                    with suppress(OSError):  # it died: its end of the pipe says so next
                        member.pipe.send(member.job)
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """End the processes, within seconds."""
        for member in self._members:
            member.process.terminate()
        until = time.monotonic() + PATIENCE_S
        for member in self._members:
            member.process.join(max(0.0, until - time.monotonic()))
            member.process.kill()
            member.pipe.close()

    def _start(self, place: Place) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, place, *self._calls), daemon=True)
        with _without_script():
            process.start()
        theirs.close()
        self._members.append(_Member(place, process, ours))

    def _hear(self, member: _Member) -> Iterator[Any]:
        """Take what a process sends; yields the result of its job, if it is that."""
        try:
            kind, value = member.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(member)
            return
        if kind == READY:
            member.ready = True
        elif kind == RESULT:
            member.job = None
            yield value
        elif kind == ERROR:
            self._error, self._waiting = self._error or value, []
            member.job, member.ready = None, False
        else:
            console.pass_on((kind, value))

    def _replace(self, dead: _Member) -> Iterator[Failed[Any]]:
        dead.process.join()
        dead.pipe.close()
        self._members.remove(dead)
        if self._error is not None and dead.job is None:
            return
        code = dead.process.exitcode or 0
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not dead.ready:
            raise GeneDMLError(
                f"A process ended ({reason}) before its first job, as the system ends those for which there is no "
                "memory left. Give fewer with --on."
            )
        if self._waiting:
            self._start(dead.place)
        if dead.job is not None:
            yield Failed(dead.job, reason)


@contextmanager
def _without_script() -> Iterator[None]:
    """Processes that start in the block do not run the user's script again, which may have no ``__main__`` guard."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve(pipe: Connection, place: Place, setup: Callable[[Place], Any], call: Callable[[Any, Any], Any]) -> None:
    """What a process does: job after job, until it is ended or one raises."""
    leader = multiprocessing.parent_process()
    if leader is not None:
        end_with_parent(leader.sentinel)
    console.relay(pipe.send)
    try:
        place.settle()
        state = setup(place)
        pipe.send((READY, None))
        while True:
            job = pipe.recv()
            pipe.send((RESULT, call(state, job)))
    except Exception as error:
        with suppress(OSError):  # nobody is at the other end any more
            pipe.send((ERROR, _portable(error)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _portable(error: Exception) -> Exception:
    """An error as another process can raise it: one that a user can fix, else with the traceback for its text."""
    if isinstance(error, GeneDMLError):
        return error
    lines = lines_of(error)
    return GeneDMLError("\n".join(lines)) if lines else RuntimeError(traceback.format_exc())


def executor(on: str, device: torch.device) -> Executor:
    """What ``--on`` names.

    Args:
        on: ``here``, this process; a number of processes; or ``gpus``, a process for each CUDA device.
        device: where the arithmetic runs. Processes on CUDA take the CUDA devices that torch sees in turn.

    Raises:
        GeneDMLError: it names something else, or there are no CUDA devices to be had.
    """
    cuda = device.type == "cuda"
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if cuda else [str(device)]
    if on == HERE:
        return Processes(1, devices)
    if on == GPUS and cuda:
        return Processes(len(devices), devices)
    if on == GPUS:
        raise GeneDMLError(f"--on gpus takes GPUs of NVIDIA, and this is to run on {device}. Give a number, or here.")
    if not on.isdecimal() or int(on) < 1:
        raise GeneDMLError(f"--on takes here, gpus or a number of processes; it was given {on!r}.")
    return Processes(int(on), devices)
