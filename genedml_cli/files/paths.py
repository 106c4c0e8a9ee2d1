"""Paths as text: what a public call takes as a path, it takes as a string, too."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

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


def _is_path(kind: Any) -> bool:
    return kind is Path or Path in get_args(kind) or (isinstance(kind, str) and "Path" in kind)


def _as_path(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_path(entry) for entry in value]
    return Path(value) if isinstance(value, str) else value
