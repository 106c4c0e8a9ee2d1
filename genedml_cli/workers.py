"""One call for many values, spread over devices: one process a device."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.stopping import follow

Job = TypeVar("Job")
Result = TypeVar("Result")
Call = Callable[[Job, torch.device], Result]

_own: tuple[Call, torch.device]  # of a worker: what it does, and where


def spread(call: Call[Job, Result], jobs: Sequence[Job], devices: Sequence[torch.device]) -> Iterator[Result]:
    """What ``call`` returns for each job, in the order in which they are done; in this process on a single device.

    Args:
        call: repeatable and picklable; it is sent once to each process.
        jobs: picklable.
        devices: one process for each that there is work for.

    Raises:
        GeneDMLError: what a call raises, or a process was killed. Calls under way are finished, no more are begun.
    """
    devices = devices[: len(jobs)]
    if len(devices) == 1:
        yield from (call(job, devices[0]) for job in jobs)
        return
    context = get_context("spawn")  # a process forked from one that uses CUDA cannot use it
    free = context.SimpleQueue()
    for device in devices:
        free.put(str(device))
    ours, theirs = context.Pipe()
    begin = (
        free,
        call,
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        console.is_quiet(),
        theirs,
    )
    with ProcessPoolExecutor(len(devices), context, _begin, begin) as pool:
        try:
            for done in as_completed([pool.submit(_work, job) for job in jobs]):
                yield done.result()
        except BrokenProcessPool as error:
            raise GeneDMLError(
                "A process ended without a word, as the system ends those for which there is no memory left. What was "
                "finished stays; run the same command again, on fewer devices (CUDA_VISIBLE_DEVICES) if need be."
            ) from error
        except GeneDMLError:
            raise  # calls under way are finished
        except BaseException:
            ours.close()  # and with it end the processes
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(
    free: "SimpleQueue[str]", call: Call, threads: int, deterministic: bool, quiet: bool, leader: Connection
) -> None:
    global _own
    follow(leader)
    device = torch.device(free.get())
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    console.hide_progress(quiet)
    _own = (call, device)


def _work(job: Any) -> Any:
    call, device = _own
    return call(job, device)
