"""Where the arithmetic runs, what memory it has there, and the encoder put there."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from genedml.encoders.encoder import Encoder
from genedml.encoders.joined import load_encoders
from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.memory import free_on_host

PROCESS_BYTES = 10**9
"""What a process that trains takes besides features."""


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
        raise GeneDMLError(f"torch finds no device {str(name)!r} on this machine. Here: {here}; or --device auto.")
    return torch.device(name)


def room_for_processes(device: torch.device, threads: int) -> int:
    """How many processes of so many threads train beside each other where nobody says it: on a CPU as many as torch's
    threads (the cores, or OMP_NUM_THREADS) and free memory allow, else one.
    """
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads() // threads, free_on_host() // PROCESS_BYTES))


def free_on_device(device: torch.device) -> int:
    """Bytes that a device has free for this process; of the host's memory, where that is the device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused  # torch holds on to what it no longer uses
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_on_host()


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Torch computes in so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_encoder(name: str, weights: Path | None = None, compute: Compute = AUTO) -> Encoder:
    """The encoder on the device asked for; says in one line which it is and under which licence.

    Raises:
        GeneDMLError: as :func:`genedml.encoders.joined.load_encoders` and :func:`pick_device`.
    """
    where = pick_device(compute.device)
    encoder = load_encoders(name, weights, where)
    encoder.batch_tiles = compute.batch_tiles
    if compute.compiled:
        console.note(f"Compiling {encoder.info.name} ...")
        encoder.compile()
    console.note(f"Encoder {encoder.info.name} on {where.type}; licence: {encoder.info.licence}.")
    return encoder


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to CUDA through pinned memory, so that nobody waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def leave(tensor: Tensor) -> Tensor:
    """A tensor to the host; from CUDA nobody waits for it, so that it is there when an event recorded after it is."""
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Where torch's random numbers on the host stand, and those on another device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Let random numbers go on from where :func:`random_states` found them."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["device"])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers in the block are those of a seed; the caller's go on afterwards as if the block had drawn none."""
    before = random_states(device)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    try:
        yield
    finally:
        set_random_states(before, device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the host, had no memory; only CUDA has an error of its own for it."""
    told = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


@contextmanager
def fitting(what: str, fix: str) -> Iterator[None]:
    """A device that has no memory left for the block, as a sentence.

    Raises:
        GeneDMLError: naming ``what`` it had no memory for, and how to ``fix`` it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise GeneDMLError(f"The device has no memory for {what}. {fix}") from error


def mixed_precision(device: torch.device | str) -> AbstractContextManager[None]:
    """bfloat16 where it is fast and safe (CUDA), single precision elsewhere."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")
