"""Where the arithmetic runs."""

from contextlib import AbstractContextManager

import torch

from genedml.errors import GeneDMLError


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        GeneDMLError: the device asked for is not here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, here in available.items() if here))
    if not available.get(name, False):
        here = ", ".join(kind for kind, here in available.items() if here)
        raise GeneDMLError(f"torch finds no device {name!r} on this machine. Here: {here}; or --device auto.")
    return torch.device(name)


def mixed_precision(device: torch.device | str) -> AbstractContextManager[None]:
    """bfloat16 where it is fast and safe (CUDA), single precision elsewhere."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")
