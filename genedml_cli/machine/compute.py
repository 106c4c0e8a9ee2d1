"""Where and how the arithmetic of a command runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BATCH_SPOTS = 256
"""Spots that a network is shown at a time, where it predicts."""


@dataclass(frozen=True)
class Compute:
    """Results differ by it in no more than rounding.

    Args:
        device: auto, cpu, cuda or mps.
        compiled: let torch compile the encoder.
        batch_tiles: tiles encoded at a time; None as :func:`genedml_cli.features.batch_size.choose_batch_tiles` says.
        deterministic: the same result each time on CUDA too, from slower kernels (:func:`all_deterministic`).
    """

    device: str = "auto"
    compiled: bool = False
    batch_tiles: int | None = None
    deterministic: bool = False


AUTO = Compute()


@contextmanager
def all_deterministic(wanted: bool) -> Iterator[None]:
    """With ``wanted``, kernels of CUDA that give the same each time; torch refuses an operation that has none.

    To be entered before anything is computed on CUDA.
    """
    if not wanted:
        yield
        return
    import torch  # which a command that hands out jobs does without

    before = torch.are_deterministic_algorithms_enabled()
    make_deterministic()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def make_deterministic() -> None:
    """Kernels that give the same each time, from now on; before anything is computed on CUDA."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the device is first used
    torch.use_deterministic_algorithms(True)
