"""Jobs done in this process, in several of this machine, or on a cluster; see :mod:`genedml_cli.machine.crew`."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, cast

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.machine import crew
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.crew import Executor, Job, Place, Result, State, Worker
from genedml_cli.machine.stopping import end_with_parent

HERE, GPUS, RAY = "here", "gpus", "ray"
PATIENCE_S = 3.0  # for all processes that were told to end


@dataclass(frozen=True)
class Processes:
    """At most ``count`` processes, which take the devices in turn; one is this process itself.

    Of several, one that dies costs its job, and another takes its place.
    """

    count: int
    devices: Sequence[str]

    def run(
        self, setup: Callable[[Place], State], call: Callable[[State, Job], Result], jobs: Sequence[Job]
    ) -> Iterator[Result | crew.Failed[Job]]:
        """As :meth:`Executor.run`; to processes ``setup``, ``call``, jobs and results are pickled."""
        import torch

        count = max(1, min(self.count, len(jobs)))
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        devices = [self.devices[number % len(self.devices)] for number in range(count)]
        cores = max(1, threads // count)
        places = [Place(device, threads, number, count, deterministic, cores) for number, device in enumerate(devices)]
        if count > 1:
            yield from crew.Crew(_Spawning(setup, call), jobs).run(places)
            return
        state = setup(places[0])
        for job in jobs:
            yield call(state, job)


class _Spawning:
    """An engine of processes of this machine; the handle of a worker is its process and the pipe to it."""

    tries = 1
    remedy = "If it was killed for want of memory, give fewer processes with --on"

    def __init__(self, setup: Callable[[Place], Any], call: Callable[[Any, Any], Any]) -> None:
        self._calls = setup, call
        self._context = multiprocessing.get_context("spawn")  # a process forked from one that uses CUDA cannot use it
        self._workers: dict[Connection, Worker] = {}

    def start(self, place: Place) -> Worker:
        """See :class:`Engine`."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, place, *self._calls), daemon=True)
        with _without_script():
            process.start()
        theirs.close()
        self._workers[ours] = Worker(place, (process, ours))
        return self._workers[ours]

    def give(self, worker: Worker, job: Any) -> None:
        """See :class:`Engine`."""
        with suppress(OSError):  # it died: its end of the pipe says so next
            worker.handle[1].send(job)

    def hear(self) -> Iterator[tuple[Worker, str, Any]]:
        """See :class:`Engine`."""
        for pipe in wait(list(self._workers)):
            worker = self._workers[cast(Connection, pipe)]
            try:
                kind, value = worker.handle[1].recv()
            except (EOFError, OSError):
                kind, value = crew.DIED, self._bury(worker)
            yield worker, kind, value

    def end(self) -> None:
        """See :class:`Engine`."""
        handles = [worker.handle for worker in self._workers.values()]
        for process, _ in handles:
            process.terminate()
        until = time.monotonic() + PATIENCE_S
        for process, pipe in handles:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            pipe.close()

    def _bury(self, dead: Worker) -> str:
        """Of what a process died."""
        process, pipe = dead.handle
        process.join()
        pipe.close()
        del self._workers[pipe]
        code = process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


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
        state = setup(place.settle())
        pipe.send((crew.READY, None))
        while True:
            job = pipe.recv()
            pipe.send((crew.RESULT, call(state, job)))
    except Exception as error:
        with suppress(OSError):  # nobody is at the other end any more
            pipe.send((crew.ERROR, crew.portable(error)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def executor(on: str, compute: Compute = AUTO) -> Executor:
    """What ``--on`` names.

    Args:
        on: ``here``, this process; a number of processes; ``gpus``, a process for each CUDA device; ``ray``, the
            cluster that ``RAY_ADDRESS`` names or one on this machine alone; or ``ray://host:port``.
        compute: where and how the arithmetic runs. Processes on CUDA take the CUDA devices that torch sees in turn; a
            cluster's GPUs are taken whatever this machine has, unless it is to run on a CPU.

    Raises:
        GeneDMLError: it names something else, or there are no CUDA devices to be had.
    """
    if on == RAY or on.startswith(f"{RAY}://"):
        from genedml_cli.machine.ray_executor import OnRay

        elsewhere = "cpu" if compute.device == "cuda" else compute.device
        return OnRay("" if on == RAY else on, elsewhere, compute.device != "cpu", compute.deterministic)
    import torch

    from genedml_cli.machine.devices import pick_device

    device = pick_device(compute.device)
    cuda = device.type == "cuda"
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if cuda else [str(device)]
    if on == HERE:
        return Processes(1, devices)
    if on == GPUS and cuda:
        return Processes(len(devices), devices)
    if on == GPUS:
        raise GeneDMLError(f"--on gpus takes GPUs of NVIDIA, and this is to run on {device}. Give a number, or here.")
    if not on.isdecimal() or int(on) < 1:
        raise GeneDMLError(f"--on takes here, gpus, ray or a number of processes; it was given {on!r}.")
    return Processes(int(on), devices)
