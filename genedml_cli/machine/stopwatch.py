"""What a block of work takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Timing:
    """What a block took: by the clock, and of processors, which other programs change less."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def stopwatch(device: torch.device) -> Iterator[Timing]:
    """Time a block, the work it left on the device included."""
    timing = Timing()
    wait_for(device)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        yield timing
    finally:
        wait_for(device)
        timing.wall_s, timing.cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s


def wait_for(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
