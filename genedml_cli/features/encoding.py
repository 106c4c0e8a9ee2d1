"""Tiles -> encoder -> vectors, with the device kept busy.

Letters: S spots, V orientations of the local tile (1, or 8 with flips), T tokens of a tile, L of them after averaging,
D encoder width, U distinct tiles, N tiles of a batch, O spots whose own tile is among them, H and W sides, C colours.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from genedml.encoders.encoder import Encoded, Encoder
from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.features.batch_size import choose_batch_tiles
from genedml_cli.features.overlap import pipelined
from genedml_cli.features.tile_plan import TilePlan
from genedml_cli.machine.devices import is_out_of_memory, leave, send


@dataclass(frozen=True)
class TileVectors:
    """Features of the tiles from ``start`` on, in the kind of number they are kept in, on their way to the host.

    ``tokens`` are of the own tiles of ``spots``, one tensor an orientation; ``finite`` says whether every number is, as
    its device found; ``arrived`` is None off CUDA.
    """

    start: int
    pooled: Float[Tensor, "N D"]
    spots: Int[Tensor, " O"]
    tokens: list[Float[Tensor, "O L D"]]
    finite: Bool[Tensor, ""]
    arrived: torch.cuda.Event | None


class VectorSink(ABC):
    """Room for the vectors of a section: in memory here, in a file in :mod:`genedml_cli.features.feature_file`."""

    orientations: int
    kind: torch.dtype
    """Of the numbers that are kept: half or single precision."""
    done: int
    """Tiles whose vectors are there; they are not encoded again."""

    @abstractmethod
    def put(self, batch: TileVectors) -> None:
        """Take what has arrived of a batch."""


class MemorySink(VectorSink):
    """Two tables."""

    def __init__(self, local: Float[Tensor, "V S L D"], tiles: Float[Tensor, "U D"]) -> None:
        self.orientations, self.kind, self.done = len(local), tiles.dtype, 0
        self._local, self._tiles = local, tiles

    def put(self, batch: TileVectors) -> None:
        end = batch.start + len(batch.pooled)
        self._tiles[batch.start : end] = batch.pooled
        for orientation, tokens in enumerate(batch.tokens):
            self._local[orientation, batch.spots] = tokens
        self.done = end


def encode_plan(
    read: Callable[[slice], UInt8[np.ndarray, "N 224 224 3"]],
    plan: TilePlan,
    encoder: Encoder,
    local_grid: int,
    name: str,
    room: VectorSink,
) -> None:
    """Encode once every tile of a plan that ``room`` has no vectors of yet.

    Args:
        read: gives the pixels of some tiles of the plan; asked in the plan's order.
        plan: the tiles.
        encoder: on the device it is to run on.
        local_grid: see :func:`average_patches`.
        name: of the section, for the progress line.
        room: where the vectors go; its number of orientations of each spot's own tile are encoded.

    Raises:
        GeneDMLError: the device has no memory for a single tile; features that are not finite; what ``read`` raises.
    """
    calls = _Batches(read, plan, BatchRunner(encoder, room.kind), local_grid, room.orientations, room.done)
    with (
        console.progress(f"Tiles of {name}", len(plan.corners_xy)) as advance,
        closing(pipelined(calls, encoder.device)) as batches,
        ThreadPoolExecutor(1, "keeper") as keeper,  # puts batches away while the next are under way
    ):
        advance(room.done)
        before: Future[None] | None = None
        for batch in batches:
            if batch.arrived is not None:
                batch.arrived.synchronize()
            _check_finite(batch, plan, encoder, name)
            if before is not None:
                before.result()
            before = keeper.submit(room.put, batch)
            advance(len(batch.pooled))
        if before is not None:
            before.result()


def _check_finite(batch: TileVectors, plan: TilePlan, encoder: Encoder, name: str) -> None:
    """Refuse a batch whose features are NaN or infinite in the precision that they are kept in; names the first tile.

    Raises:
        GeneDMLError: there is one.
    """
    if batch.finite:
        return
    pooled = batch.start + torch.nonzero(~batch.pooled.isfinite().all(dim=1)).flatten()
    own = [plan.own[batch.spots[~tokens.isfinite().flatten(1).all(dim=1)].numpy()] for tokens in batch.tokens]
    first = int(np.concatenate([pooled, *own]).min())
    if not all(bool(value.isfinite().all()) for value in encoder.state_dict().values()):
        fix = "Its weights hold NaN or infinite numbers: the file is damaged; fetch it again."
    elif batch.pooled.dtype is torch.float16:
        fix = (
            "Its weights are sound, so half precision does not hold them: train with --set views.precision=float32, "
            "which encodes and keeps them in single precision, on twice the disk."
        )
    else:
        fix = "Its weights are sound, and single precision does not hold them: take another encoder."
    x, y = plan.corners_xy[first]
    raise GeneDMLError(
        f"{encoder.info.name} gives features that are not finite, first of tile {first + 1} of "
        f"{len(plan.corners_xy)} of {name}, {plan.tile_px} px wide at ({x}, {y}) of its views. {fix}"
    )


def orient(tiles: UInt8[Tensor, "N H W C"], orientation: int) -> UInt8[Tensor, "N H W C"]:
    """One of the eight flips and quarter-turns of square tiles; 0 leaves them as they are."""
    turned = torch.rot90(tiles, orientation % 4, dims=(1, 2))
    return turned.flip(2) if orientation >= 4 else turned


def average_patches(tokens: Float[Tensor, "N T D"], side: int) -> Float[Tensor, "N L D"]:
    """Average a tile's patch tokens to a grid of ``side`` x ``side``, row by row; 0 leaves the tokens as they are.

    Patches are the last tokens, as many as the largest square that T holds; class and register tokens before them stay.

    Raises:
        GeneDMLError: the encoder has fewer patches than that.
    """
    if side == 0:
        return tokens
    patches = math.isqrt(tokens.shape[1])
    if side > patches:
        raise GeneDMLError(f"views.local_grid = {side}: the encoder has {patches} x {patches} patches. Give less.")
    before, grid = tokens.tensor_split([tokens.shape[1] - patches**2], dim=1)
    averaged = adaptive_avg_pool2d(grid.transpose(1, 2).unflatten(2, (patches, patches)), side)
    return torch.cat([before, averaged.flatten(2).transpose(1, 2)], dim=1)


def tokens_kept(tokens: int, side: int) -> int:
    """How many tokens :func:`average_patches` leaves of a tile."""
    return average_patches(torch.empty(1, tokens, 1), side).shape[1]


class BatchRunner:
    """An encoder with batches of :func:`choose_batch_tiles`, halved each time that its device's memory runs out, for
    features of one kind of number.

    On a CPU the number stays, as bytes depend on it.
    """

    def __init__(self, encoder: Encoder, kind: torch.dtype = torch.float16) -> None:
        self.encoder, self.kind = encoder, kind
        self.batch_tiles = choose_batch_tiles(encoder)

    def send(self, tiles: UInt8[np.ndarray, "N 224 224 3"]) -> UInt8[Tensor, "N 224 224 3"]:
        """Tiles to the device."""
        return send(torch.from_numpy(tiles), self.encoder.device)

    def __call__(self, images: UInt8[Tensor, "N 224 224 3"]) -> Encoded:
        """Tokens and pooled vectors of tiles on the device.

        Raises:
            GeneDMLError: no memory for a single tile; on a CPU, for a batch.
        """
        while True:
            try:
                single = self.kind is torch.float32
                parts = [self.encoder(part, single) for part in images.split(self.batch_tiles)]
                return Encoded(*(torch.cat(vectors) for vectors in zip(*parts, strict=True)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch_tiles == 1 or self.encoder.device.type == "cpu":
                    raise self._no_memory() from error
            self.batch_tiles = self.encoder.batch_tiles = max(1, self.batch_tiles // 2)
            torch.cuda.empty_cache()

    def _no_memory(self) -> GeneDMLError:
        what = f"has no memory for {console.count(self.batch_tiles, 'tile')} of {self.encoder.info.name}"
        if self.encoder.device.type == "cpu":  # where fewer at a time would round otherwise, unasked
            fewer = ", or take fewer with --batch-tiles" if self.batch_tiles > 1 else ""
            return GeneDMLError(f"This machine {what}. Free it from other programs{fewer}.")
        return GeneDMLError(f"{self.encoder.device} {what}. Free it from other programs, or run with --device cpu.")


class _Batches:
    """What makes each batch of a plan, its tiles read; to be called in any thread."""

    def __init__(
        self,
        read: Callable[[slice], UInt8[np.ndarray, "N 224 224 3"]],
        plan: TilePlan,
        runner: BatchRunner,
        local_grid: int,
        orientations: int,
        done: int,
    ) -> None:
        self._orientations, self._done = orientations, done
        self._read = read
        self._tiles = len(plan.corners_xy)
        self._spots = np.argsort(plan.own, kind="stable")
        self._own = plan.own[self._spots]
        self._runner = runner
        self._local_grid = local_grid

    def __iter__(self) -> Iterator[Callable[[], TileVectors]]:
        size = self._runner.batch_tiles
        for start in range(self._done, self._tiles, size):
            yield partial(self._encode, start, self._runner.send(self._read(slice(start, start + size))))

    def _encode(self, start: int, images: UInt8[Tensor, "N 224 224 3"]) -> TileVectors:
        first, last = np.searchsorted(self._own, [start, start + len(images)])
        rows = torch.as_tensor(self._own[first:last] - start, device=images.device)
        encoded = self._runner(images)
        tokens = [self._kept(encoded.tokens[rows])]
        for orientation in range(1, self._orientations if len(rows) else 1):
            tokens.append(self._kept(self._runner(orient(images[rows], orientation)).tokens))
        pooled = encoded.pooled.to(self._runner.kind)
        finite = torch.stack([vectors.isfinite().all() for vectors in (pooled, *tokens)]).all()
        pooled, finite, *tokens = (leave(vectors) for vectors in (pooled, finite, *tokens))
        arrived = None
        if images.device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
        return TileVectors(start, pooled, torch.as_tensor(self._spots[first:last]), tokens, finite, arrived)

    def _kept(self, tokens: Float[Tensor, "O T D"]) -> Float[Tensor, "O L D"]:
        return average_patches(tokens, self._local_grid).to(self._runner.kind)
