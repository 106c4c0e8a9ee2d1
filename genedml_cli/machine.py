"""The machine that something runs on: its name, its arithmetic, its memory, and a watch."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

MATRIX_SIDE = {"cpu": 2048, "mps": 4096, "cuda": 8192}
PRODUCTS = 5


@dataclass
class Timing:
    """What a part took: by the clock, and of processors, which other programs change less."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: "Timing") -> "Timing":
        return Timing(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def times(self, factor: float) -> "Timing":
        """The same part so many times."""
        return Timing(self.wall_s * factor, self.cpu_s * factor)


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


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, cores, device and versions; the load says whether others were at work."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "load_before": round(psutil.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def matrix_flops(device: torch.device) -> float:
    """Floating point operations a second of a large matrix product: half precision on CUDA, else single."""
    side, kind = MATRIX_SIDE[device.type], torch.float16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=kind)
    matrix @ matrix
    with stopwatch(device) as timing:
        for _ in range(PRODUCTS):
            matrix @ matrix
    return PRODUCTS * 2 * side**3 / timing.wall_s


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Most bytes this process has held so far, on the host and on the device; None where there is no other device."""
    return {
        "host": _peak_on_host(),
        "device": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _peak_on_host() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
