"""Paths as text, which public calls take too; and paths that a worker on another machine must see."""

import functools
import inspect
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

from genedml.errors import GeneDMLError

P = ParamSpec("P")
T = TypeVar("T")


def takes_paths(function: Callable[P, T]) -> Callable[P, T]:
    """Let a call be given strings where its annotations say ``Path``, alone, optional or in a sequence."""
    signature = inspect.signature(function)
    names = {name for name, parameter in signature.parameters.items() if _is_path(parameter.annotation)}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        for name in given.arguments.keys() & names:
            given.arguments[name] = _as_path(given.arguments[name])
        return function(*given.args, **given.kwargs)

    return call


def check_seen(file: Path) -> None:
    """Refuse to work where a file cannot be seen that the command has just written into the folder of its results.

    Raises:
        GeneDMLError: naming the machine and the folder.
    """
    if not file.exists():
        raise GeneDMLError(
            f"{socket.gethostname()} does not see in {file.parent} what the command wrote there. All machines of a "
            "cluster must see the same files under the same paths: give an -o that they share."
        )


def _is_path(kind: Any) -> bool:
    return kind is Path or Path in get_args(kind) or (isinstance(kind, str) and "Path" in kind)


def _as_path(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_path(entry) for entry in value]
    return Path(value) if isinstance(value, str) else value
