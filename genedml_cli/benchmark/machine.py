"""What this machine is."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from genedml_cli.machine.memory import peak_on_host
from genedml_cli.machine.stopwatch import stopwatch

MATRIX_SIDE = {"cpu": 2048, "mps": 4096, "cuda": 8192}


PRODUCTS = 5


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
    """Floating point operations a second of a large matrix product: bfloat16 on CUDA, else single precision."""
    side, kind = MATRIX_SIDE[device.type], torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=kind)
    matrix @ matrix
    with stopwatch(device) as timing:
        for _ in range(PRODUCTS):
            matrix @ matrix
    return PRODUCTS * 2 * side**3 / timing.wall_s


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Most bytes this process has held so far, on the host and on the device; None where there is no other device."""
    return {
        "host": peak_on_host(),
        "device": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
