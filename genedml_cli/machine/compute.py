"""Where and how the arithmetic of a command runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Compute:
    """Results differ by it in no more than rounding.

    Args:
        device: auto, cpu, cuda or mps.
        compiled: let torch compile the encoder.
        batch_tiles: tiles encoded at a time; None as :func:`genedml_cli.features.batch_size.choose_batch_tiles` says.
        deterministic: the same result each time on CUDA too, from slower kernels
            (:func:`genedml_cli.machine.devices.all_deterministic`).
    """

    device: str = "auto"
    compiled: bool = False
    batch_tiles: int | None = None
    deterministic: bool = False


AUTO = Compute()
