"""A feature file in the making: written piece by piece beside its name, so that a process that is killed goes on.

When it is complete it is sealed: its last 32 bytes are a hash of all the others.

Letters: S spots, V orientations of the local tile, L tokens kept of it, D encoder width, N tiles, O own tiles of them.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from genedml.tensor_files import layout
from genedml_cli import console
from genedml_cli.features.encoding import TileVectors, VectorSink
from genedml_cli.files.parts import (
    LEFT,
    abandoned_parts,
    clear_folder,
    journal_of,
    made_folder,
    new_part,
    remove_abandoned,
)
from genedml_cli.files.storage import commit, written
from genedml_cli.machine.stopping import Stopped

LOCAL, TILES, SEAL = "local", "tiles", "sha256"
SEAL_BYTES = hashlib.sha256().digest_size
PIECE_BYTES = 2**20
EVERY_S = 5.0
"""How often what is encoded is put on record: this much, and the batch under way, is encoded again after a crash."""


class FileSink(VectorSink):
    """Room for the vectors of a section in a file, whatever the memory.

    Args:
        file: as long as it will be.
        begins: at which byte the tables ``local`` and ``tiles`` begin.
        local: of which only shape and kind matter; it may be on the meta device.
        journal: where it is put on record how many tiles are done.
        key: of what is being encoded.
        done: tiles whose vectors are there.
    """

    def __init__(
        self,
        file: BinaryIO,
        begins: Mapping[str, int],
        local: Float[Tensor, "V S L D"],
        journal: Path,
        key: str,
        done: int,
    ) -> None:
        self.orientations, self._spots, tokens, width = local.shape
        self.kind, self.done = local.dtype, done
        self._file, self._begins, self._journal, self._key = file, begins, journal, key
        self._row_bytes = {TILES: width * local.itemsize, LOCAL: tokens * width * local.itemsize}
        self._recorded = time.monotonic()

    def put(self, batch: TileVectors) -> None:
        self._write(TILES, batch.start, batch.pooled)
        for orientation, tokens in enumerate(batch.tokens):
            for spot, of_spot in zip(batch.spots.tolist(), tokens, strict=True):
                self._write(LOCAL, orientation * self._spots + spot, of_spot)
        self.done = batch.start + len(batch.pooled)
        if time.monotonic() - self._recorded > EVERY_S:
            self.record()

    def record(self) -> None:
        """Let the next process find what was put here: a line of the journal says so."""
        self.flush()
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{self._key} {self.done}\n")
        self._recorded = time.monotonic()

    def put_all(self, local: Float[Tensor, "V S L D"], tiles: Float[Tensor, "_ D"]) -> None:
        """All vectors of a section that are in memory."""
        self._write(TILES, 0, tiles)
        self._write(LOCAL, 0, local)

    def flush(self) -> None:
        """Let what was put here reach the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, name: str, row: int, vectors: Tensor) -> None:
        self._file.seek(self._begins[name] + row * self._row_bytes[name])
        self._file.write(vectors.contiguous().numpy().data)


@contextmanager
def open_for_writing(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[FileSink]:
    """Room for the vectors of a section; when the block is left, ``path`` is whole.

    Where a process was killed, or stopped, in the block, the next call with the same arguments finds its vectors there;
    where the block fails, nothing is left.

    Args:
        path: the feature file.
        tensors: all its tables; ``local`` and ``tiles`` are to be filled and may be on the meta device.
        metadata: of the file.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    tensors = {**tensors, SEAL: torch.zeros(SEAL_BYTES, dtype=torch.uint8)}  # of the narrowest kind, so that it is last
    head, begins = layout(tensors, metadata)
    key = hashlib.sha256(head).hexdigest()
    with written(path), made_folder(path.parent):
        part = new_part(path)
        try:
            done = _taken_over(path, part, key)
            if not done:
                _lay_out(part, head, begins, tensors)
            with part.open("r+b") as file:
                vectors = FileSink(file, begins, tensors[LOCAL], journal_of(part), key, done)
                try:
                    yield vectors
                except Stopped:
                    vectors.record()
                    raise
                vectors.flush()
                file.seek(begins[SEAL])
                file.write(sealed_digest(part))
            commit(part, path)
        except Exception:
            part.unlink(missing_ok=True)
            journal_of(part).unlink(missing_ok=True)
            raise
        except BaseException:
            with suppress(FileNotFoundError):
                _hand_over(part, new_part(path, LEFT))
            raise
        journal_of(part).unlink(missing_ok=True)


def check_seal(path: Path) -> None:
    """Hold a feature file against the hash that it ends with. Reads all of it, and keeps nothing of it in memory.

    Raises:
        ValueError: something of it is not what was written.
    """
    with path.open("rb") as file:
        file.seek(-SEAL_BYTES, os.SEEK_END)
        if file.read() != sealed_digest(path):
            raise ValueError("it has changed since it was written")


@contextmanager
def features_beside(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` for the features it is made of.

    It is gone when the block is left, but for a process that is killed or stopped, where the next goes on from there;
    and but for what another process is writing there. Nothing is written there by those who keep them in memory.
    """
    folder = out.with_name(f".{out.name}.features")
    try:
        yield folder
    except Exception:
        clear_folder(folder)
        raise
    clear_folder(folder)


def started(path: Path) -> bool:
    """Whether a part of a feature file is there, to go on from."""
    return bool(abandoned_parts(path))


def sealed_digest(path: Path) -> bytes:
    """SHA-256 over the SHA-256 of every piece of a file but for its seal; the pieces are hashed in threads."""
    end = path.stat().st_size - SEAL_BYTES

    def of_piece(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(min(PIECE_BYTES, end - start))).digest()

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(of_piece, range(0, end, PIECE_BYTES)))).digest()


def _lay_out(part: Path, head: bytes, begins: Mapping[str, int], tensors: Mapping[str, Tensor]) -> None:
    """A file of its final length with everything in it but the vectors."""
    with part.open("wb") as file:
        file.write(head)
        for name in tensors.keys() - {LOCAL, TILES}:
            file.seek(begins[name])
            file.write(tensors[name].contiguous().numpy().data)
        file.truncate(max(begins[name] + tensor.nbytes for name, tensor in tensors.items()))


def _taken_over(path: Path, part: Path, key: str) -> int:
    """Give ``part`` the furthest that processes that are gone left of the same file; how many tiles it has.

    Other remains go.
    """
    done = 0
    counts = {left: _recorded(journal_of(left), key) for left in abandoned_parts(path)}
    for left in sorted(counts, key=counts.__getitem__, reverse=True):
        if counts[left] and not done:
            with suppress(FileNotFoundError):  # another process was faster
                _hand_over(left, part)
                done = counts[left]
    remove_abandoned(path)
    if done:
        console.note(f"Going on from tile {done + 1}, where an earlier run was interrupted.")
    return done


def _hand_over(part: Path, to: Path) -> None:
    """Rename a part and its journal. Of two processes that do so with the same part, one gets it."""
    part.rename(to)
    if journal_of(part).exists():
        journal_of(part).rename(journal_of(to))


def _recorded(journal: Path, key: str) -> int:
    """How many tiles a journal says are done; the last line may have been cut."""
    try:
        words = [line.split() for line in journal.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return 0
    counts = [int(word[1]) for word in words if len(word) == 2 and word[0] == key and word[1].isdecimal()]
    return max(counts, default=0)
