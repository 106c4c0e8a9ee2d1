"""Batches under way while earlier ones are waited for: neither the device nor a processor stands still."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")
MOST_THREADS = 16
"""Each has a batch in memory."""

_cores: int | None = None


def pipelined(calls: Iterable[Callable[[], Result]], device: torch.device) -> Generator[Result, None, None]:
    """What the calls give, in their order.

    On a CPU each call runs in one of several threads, and its arithmetic in that thread alone: threads that share one
    product wait for each other, for long where the processor is busy, and how they share it may change the rounding.
    On another device, which works on while its host goes on, the next call is made before a result is given out.
    """
    return _in_threads(calls) if device.type == "cpu" else _one_ahead(call() for call in calls)


def encode_on(cores: int) -> None:
    """Say on how many of its machine's cores this process encodes; all of torch's threads, where nobody says it.

    As many as torch has now are those of torch: then their number may be changed later.
    """
    global _cores
    _cores = None if cores == torch.get_num_threads() else cores


def _one_ahead(results: Iterator[Result]) -> Generator[Result, None, None]:
    before: list[Result] = []
    for result in results:
        yield from before
        before = [result]
    yield from before


def _in_threads(calls: Iterable[Callable[[], Result]]) -> Generator[Result, None, None]:
    with _restored_threads() as count:
        threads = min(_cores or count, MOST_THREADS)
        pool = ThreadPoolExecutor(threads, "encoder", initializer=torch.set_num_threads, initargs=(1,))
        coming: deque[Future[Result]] = deque()
        try:
            for call in calls:
                coming.append(pool.submit(call))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _restored_threads() -> Iterator[int]:
    """How many threads arithmetic takes, and that many afterwards: some libraries have one number for all threads."""
    count = torch.get_num_threads()
    try:
        yield count
    finally:
        torch.set_num_threads(count)
