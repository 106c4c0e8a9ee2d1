"""Strict TOML and typed settings, without any network in them."""

import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from genedml.errors import GeneDMLError, did_you_mean, reading

T = TypeVar("T")


STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


TOML_LIMIT_BYTES = 2**20


MOST_NAMED = 5  # of the problems of one configuration


Count = Annotated[int, Field(ge=1, le=2**20)]


Depth = Annotated[int, Field(ge=1, le=100)]


Fraction = Annotated[float, Field(ge=0, lt=1)]


Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class TransformerConfig:
    """A stack of pre-norm self-attention blocks."""

    depth: Depth
    heads: Count
    mlp_width: Count
    dropout: Fraction


_adapter = cache(TypeAdapter)
"""What decodes a dataclass: to make it takes longer than to use it."""


def from_dict(kind: type[T], values: Any, above: str = "") -> T:
    """Build a configuration dataclass from plain values, refusing unknown keys and bad values.

    Args:
        kind: the dataclass.
        values: by key; anything else is refused.
        above: what stands before a key in messages, such as ``network.``.

    Raises:
        GeneDMLError: naming each key that is wrong and, for unknown ones, those that exist.
    """
    try:
        plain = dict(values) if isinstance(values, Mapping) else values
        return cast("T", _adapter(kind).validate_python(plain))  # type: ignore[arg-type]
    except ValidationError as error:
        problems = error.errors()
        more = [f"There are {len(problems) - MOST_NAMED} more."] if len(problems) > MOST_NAMED else []
        named = [_sentence(kind, problem, above) for problem in problems[:MOST_NAMED]]
        raise GeneDMLError("\n".join(named + more)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a configuration dataclass, fit for TOML and JSON."""
    return asdict(config)


def read_toml(file: Path) -> dict[str, Any]:
    with reading(f"The configuration {file}", "Fix that place; config.toml of a run is an example.", "TOML"):
        if not file.is_file():
            raise ValueError("there is no such file")
        with file.open("rb") as stream:
            content = stream.read(TOML_LIMIT_BYTES + 1)
        if len(content) > TOML_LIMIT_BYTES:
            raise ValueError(f"it is larger than {TOML_LIMIT_BYTES} bytes")
        return tomllib.loads(content.decode("utf-8-sig"))


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlaid(merged[key], value) if both else value
    return merged


def _sentence(kind: type, problem: Any, above: str) -> str:
    place = (above + ".".join(str(part) for part in problem["loc"])).rstrip(".") or "the configuration"
    if problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{place} is missing."
    if problem["type"] != "unexpected_keyword_argument":
        return f"{place} = {reprlib.repr(problem['input'])}: {problem['msg'].removeprefix('Value error, ')}."
    owner = kind
    for part in problem["loc"][:-1]:
        owner = _type_of(owner, part)
    known = [field.name for field in fields(owner)] if is_dataclass(owner) else []
    return f"Unknown key {place}.{_meant(place, kind, above)} Known here: {', '.join(known)}."


def _meant(place: str, kind: type, above: str) -> str:
    """The key of that name in another section, else the one spelt most alike."""
    every = _keys(kind, above)
    namesakes = [key for key in every if key.endswith(f".{place}")]
    return f" Did you mean {' or '.join(namesakes)}?" if namesakes else did_you_mean(place, every)


def _keys(kind: type, above: str = "") -> list[str]:
    """Every key of a configuration dataclass, those of its sections too: ``training``, ``training.epochs`` ..."""
    kinds = {field.name: _type_of(kind, field.name) for field in fields(kind)}
    nested = [
        _keys(value, f"{above}{name}.") for name, value in kinds.items() if hasattr(value, "__dataclass_fields__")
    ]
    return [f"{above}{name}" for name in kinds] + [key for keys in nested for key in keys]


def _type_of(kind: type, name: str) -> Any:
    """The type of a field; of one that may hold any, that of its default in an instance of defaults."""
    hint = get_type_hints(kind)[name]
    return type(getattr(kind(), name)) if hint is Any else hint
