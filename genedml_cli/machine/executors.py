"""One call for many values, spread over devices: one process for each device, or for each share of a CPU."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Lock
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar

import torch

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.machine.devices import threads_of_torch
from genedml_cli.machine.stopping import follow

Job = TypeVar("Job")
Result = TypeVar("Result")
Call = Callable[[Job, torch.device], Result]

_own: tuple[Call, torch.device]  # of a worker: what it does, and where


def spread(
    call: Call[Job, Result], jobs: Sequence[Job], devices: Sequence[torch.device], threads: int
) -> Iterator[Result]:
    """What ``call`` returns for each job, in the order in which they are done; in this process on a single device.

    Args:
        call: repeatable, picklable and not of the script that is run; it is sent once to each process.
        jobs: picklable.
        devices: one process for each that there is work for.
        threads: of torch in each, as another number rounds sums in another way.

    Raises:
        GeneDMLError: what a call raises, or a process was killed. Calls under way are finished, no more are begun.
    """
    devices = devices[: len(jobs)]
    if len(devices) == 1:
        for job in jobs:
            with threads_of_torch(threads):
                result = call(job, devices[0])
            yield result
        return
    context = get_context("spawn")  # a process forked from one that uses CUDA cannot use it
    free = context.SimpleQueue()
    for device in devices:
        free.put(str(device))
    ours, theirs = context.Pipe()
    with _listening(context.Pipe(duplex=False)) as tell:
        begin = (free, call, threads, torch.are_deterministic_algorithms_enabled(), theirs, tell, context.Lock())
        with ProcessPoolExecutor(len(devices), context, _begin, begin) as pool:
            try:
                with _without_script():
                    futures = [pool.submit(_work, job) for job in jobs]
                for done in as_completed(futures):
                    yield done.result()
            except BrokenProcessPool as error:
                raise GeneDMLError(
                    "A process ended without a word, as the system ends those for which there is no memory left. What "
                    "was finished stays; run the same command again, on fewer devices (CUDA_VISIBLE_DEVICES, on a CPU "
                    "OMP_NUM_THREADS) if need be."
                ) from error
            except GeneDMLError:
                raise  # calls under way are finished
            except BaseException:
                ours.close()  # and with it end the processes
                raise
            finally:
                pool.shutdown(cancel_futures=True)


@contextmanager
def _listening(pipe: tuple[Connection, Connection]) -> Iterator[Connection]:
    """Show what processes say into the end that is given, until they have ended and the block is left."""
    hear, tell = pipe
    listener = Thread(target=_pass_on_from, args=(hear,), name="messages", daemon=True)
    listener.start()
    try:
        yield tell
    finally:
        tell.close()
        listener.join()


def _pass_on_from(hear: Connection) -> None:
    with suppress(EOFError, OSError):
        while True:
            console.pass_on(hear.recv())


@contextmanager
def _without_script() -> Iterator[None]:
    """Processes that start in the block do not run the user's script again, which may have no ``__main__`` guard."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _begin(
    free: "SimpleQueue[str]",
    call: Call,
    threads: int,
    deterministic: bool,
    leader: Connection,
    tell: Connection,
    turn: Lock,
) -> None:
    global _own
    follow(leader)
    device = torch.device(free.get())
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    if device.type == "cuda":
        torch.cuda.set_device(device)

    def send(message: console.Message) -> None:
        with turn:
            tell.send(message)

    console.relay(send)
    _own = (call, device)


def _work(job: Any) -> Any:
    call, device = _own
    return call(job, device)
