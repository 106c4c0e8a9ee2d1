"""The file from which the training of an interrupted fold goes on, and the table of its epochs."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from genedml.checkpoint import sealed, unsealed, weights_sha256
from genedml.errors import reading
from genedml_cli import console
from genedml_cli.files.storage import atomic_write, write_text

AT_MOST_S = 60.0
SHARE = 0.05
"""Of the time that writing may take: every epoch is kept, but where that takes more, some, at least one each minute."""
LOG_EVERY_S = 2.0
METADATA_KEY = "genedml"


@dataclass
class Moment:
    """Where training is after an epoch: numbers and texts by name, and tensors by name."""

    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class TrainingState:
    """A file that holds the last moment of a fold's training.

    Args:
        path: the file; None where nothing is to be kept.
        of: all that the training depends on, by the name under which a difference is told. A moment of a training that
            differs is not gone on from.
    """

    def __init__(self, path: Path | None, of: Mapping[str, str]) -> None:
        self._path, self._of = path, dict(of)
        self._next = time.monotonic()

    def read(self) -> Moment | None:
        """The moment to go on from, if there is one; says so.

        Raises:
            GeneDMLError: the file is damaged.
        """
        if self._path is None or not self._path.exists():
            return None
        with reading(f"The training state {self._path}", "Remove it to train the fold anew."):
            with safe_open(self._path, "pt") as stored:
                saved = json.loads(unsealed(METADATA_KEY, stored.metadata()))
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no mapping
            if saved["tensors_sha256"] != weights_sha256(tensors):
                raise ValueError("it has changed since it was written")
            differ = [name for name, value in self._of.items() if saved["of"].get(name) != value]
        if differ:
            console.note(f"{self._path} is of other {', '.join(differ)}; training the fold anew.")
            return None
        return Moment(saved["values"], tensors)

    def due(self) -> bool:
        """Whether enough time has gone by since it was last written."""
        return self._path is not None and time.monotonic() >= self._next

    def write(self, moment: Moment) -> None:
        """Put a moment in the place of the one before, whole."""
        if self._path is None:
            return
        began = time.monotonic()
        tensors = {name: value.detach().cpu().contiguous() for name, value in moment.tensors.items()}
        known = {"of": self._of, "values": moment.values, "tensors_sha256": weights_sha256(tensors)}
        with atomic_write(self._path) as temporary:
            save_file(tensors, temporary, sealed(METADATA_KEY, json.dumps(known)))
        ended = time.monotonic()
        self._next = ended + min((ended - began) / SHARE, AT_MOST_S)


class EpochLog:
    """The table of a fold's epochs, which is written anew as it grows: at most every other second.

    Args:
        path: of the ``.csv``; None where none is wanted.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._next = path, time.monotonic()

    def write(self, entries: Sequence[Mapping[str, float]], last: bool = False) -> None:
        """Put the epochs so far in the place of those before, whole, if it is time to or these are the last."""
        if self._path is None or not (last or time.monotonic() >= self._next):
            return
        write_text(self._path, pd.DataFrame(entries).to_csv(index=False))
        self._next = time.monotonic() + LOG_EVERY_S
