"""How many tiles an encoder is given at a time."""

import torch

from genedml.encoders.encoder import Encoder
from genedml_cli import console
from genedml_cli.machine.stopwatch import stopwatch

BATCH_TILES = {"cpu": 16, "mps": 64, "cuda": 256}
"""Where nothing is tried: off CUDA, and where the same bytes are wanted each time."""

LEARNED_ON_CPU = 1
"""What is under way is lost by a kill: of UNI's size a tile takes 2 s of a core, of H-optimus-0's 8, times eight with
its flips. Two at a time are no faster."""

SMALLEST, LARGEST = 32, 1024
GAIN = 1.05
"""Twice the tiles must be faster by this, for they take twice the memory."""

ROUNDS = 3


def choose_batch_tiles(encoder: Encoder) -> int:
    """What ``encoder.batch_tiles`` says; else, on CUDA, what a trial finds, which is then kept there.

    On a CPU the number is fixed: rounding depends on it, and features are to be equal by bytes however busy the machine
    was. So it is with ``--deterministic``.
    """
    if encoder.batch_tiles is not None:
        return encoder.batch_tiles
    if encoder.device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        heavy = encoder.device.type == "cpu" and encoder.info.build is None
        return LEARNED_ON_CPU if heavy else BATCH_TILES[encoder.device.type]
    encoder.batch_tiles = find_batch_tiles(encoder)
    console.note(f"Batches of {encoder.batch_tiles} tiles, by trial.")
    return encoder.batch_tiles


def find_batch_tiles(encoder: Encoder) -> int:
    """Doubled from :data:`SMALLEST` on, as long as that is faster and the device has the memory."""
    best, best_rate, size = SMALLEST, 0.0, SMALLEST
    while size <= LARGEST:
        try:
            rate = _tiles_per_s(encoder, size)
        except torch.cuda.OutOfMemoryError:
            break
        if rate < GAIN * best_rate:
            break
        best, best_rate, size = size, rate, 2 * size
    torch.cuda.empty_cache()
    return best


def _tiles_per_s(encoder: Encoder, size: int) -> float:
    images = torch.zeros(size, 224, 224, 3, dtype=torch.uint8, device=encoder.device)
    encoder(images)  # kernels are chosen at the first call
    with stopwatch(encoder.device) as took:
        for _ in range(ROUNDS):
            encoder(images)
    return ROUNDS * size / took.wall_s
