"""Values on their way to another machine: their relative paths become absolute, for it knows no folder of ours."""

import io
import pickle
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


def pack(value: Any) -> bytes:
    """A value pickled, with every path in it made absolute."""
    stream = io.BytesIO()
    _Packer(stream).dump(value)
    return stream.getvalue()


def unpack(packed: bytes) -> Any:
    """What was packed."""
    return pickle.loads(packed)


def with_absolute_paths(value: Value) -> Value:
    """A copy of a value, with every path in it made absolute."""
    return unpack(pack(value))


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return (type(value), (str(value.absolute()),)) if isinstance(value, Path) else NotImplemented
