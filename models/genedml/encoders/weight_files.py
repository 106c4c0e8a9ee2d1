"""Weights files of encoders: read without running code, and loaded only where every key fits."""

import os
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor, nn

from genedml.encoders.key_styles import KeyStyle, fitted, renamed
from genedml.errors import GeneDMLError, reading
from genedml.tensor_files import assign

ZIP_END_BYTES = 22
NO_TENSORS = "it is cut, or holds something else than tensors, which may be code"
DOT = re.compile(r"\.")
UNUSED = ("mask_token", "pooler.")
"""What weights files hold and no feature uses: for DINOv2's training, and behind the class token of transformers."""
STEPS_COUNTED = "num_batches_tracked"
"""How the keys end that count the steps of a batch norm: nothing depends on them, and torchvision's files lack them."""

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def load_weights(
    backbone: nn.Module, file: Path, name: str, left_out: Iterable[str] = (), keys: KeyStyle = "timm"
) -> None:
    """Load a weights file whose keys and shapes are exactly the backbone's; nothing is loaded otherwise.

    A backbone on the meta device maps the file; into another the numbers are copied.

    They may stand under a name (``state_dict``, ``teacher``) and behind a prefix (``module.``, ``backbone.``). Of
    several that fit the teacher's are taken, as those who trained it do.

    Args:
        left_out: modules, such as a classifier, that the file may hold and the backbone was made without.
        keys: how the file names its tensors, if not as the backbone does.

    Raises:
        GeneDMLError: unreadable file, keys or shapes that differ, with the first of them named, or several that fit.
    """
    wanted = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    counters = {key: torch.tensor(0) for key in wanted if key.endswith(STEPS_COUNTED)}
    passed_over = (*UNUSED, *(f"{module}." for module in left_out))
    states = {
        place: {key: value for key, value in state.items() if key in wanted or not key.startswith(passed_over)}
        for place, state in _states(renamed(_read_state(file), keys), wanted)
    }
    states = {place: counters | (state if keys == "timm" else fitted(state, wanted)) for place, state in states.items()}
    fitting = [place for place, state in states.items() if _shapes(state) == wanted]
    if not fitting:
        raise _misfit(
            file, name, wanted, max(map(_shapes, states.values()), key=lambda found: len(found.keys() & wanted.keys()))
        )
    place = next((place for place in fitting if "teacher" in place.split(".")), fitting[0])
    if len(fitting) > 1 and "teacher" not in place.split("."):
        raise GeneDMLError(
            f"{file} holds weights of {name} more than once, under {' and '.join(fitting)}. Save those that are meant "
            "as a file of their own."
        )
    if any(value.is_meta for value in backbone.state_dict().values()):
        assign(backbone, states[place])
    else:
        backbone.load_state_dict(states[place])


def _read_state(file: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    with reading(f"The weights file {file}", "Give a .safetensors file, or a state_dict of torch, which runs no code."):
        if not file.is_file():
            raise ValueError("there is no such file")
        if file.suffix == ".safetensors":
            return load_file(file)
        with file.open("rb") as content:
            zipped = content.read(4) == b"PK\3\4"  # by which torch tells too
        if zipped:
            _check_stored(file)
        try:
            with warnings.catch_warnings(action="ignore"):  # torch's, of pickles that are not its own
                state = torch.load(str(file), map_location="cpu", weights_only=True, mmap=zipped)
        except UnpicklingError as error:  # whose text proposes to load it all the same
            raise ValueError(NO_TENSORS) from error
        if not isinstance(state, dict) or not any(isinstance(value, Tensor | dict) for value in state.values()):
            raise ValueError("it holds something else than named tensors")
        return state


def _check_stored(file: Path) -> None:
    """Refuse a file of torch that unpacks to more than it is, or whose directory is not its very end, as torch's is."""
    with file.open("rb") as content, ZipFile(content) as parts:
        content.seek(-ZIP_END_BYTES, os.SEEK_END)
        if content.read(4) != b"PK\5\6" or any(part.compress_type != ZIP_STORED for part in parts.infolist()):
            raise ValueError("it is not as torch.save writes weights: packed, cut, or a TorchScript program")


def _states(stored: Mapping[Any, Any], wanted: Container[str], place: str = "") -> Iterator[tuple[str, State]]:
    """All that may be the weights in a file: tensors of one mapping behind one prefix, by where they stand."""
    tensors = {key: value for key, value in stored.items() if isinstance(key, str) and isinstance(value, Tensor)}
    starts = [(key, [0, *(dot.end() for dot in DOT.finditer(key))]) for key in tensors]
    prefixes = {key[:start] for key, places in starts for start in places if key[start:] in wanted}
    for prefix in sorted(prefixes or {""}):
        behind = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        yield place + prefix, behind
    for key, value in stored.items():
        if isinstance(value, Mapping):
            yield from _states(value, wanted, f"{place}{key}.")


def _shapes(state: State) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


def _misfit(file: Path, name: str, wanted: Shapes, found: Shapes) -> GeneDMLError:
    """In what keys and shapes the weights of a file differ from those of an encoder."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    shapes = [key for key in wanted if key in found and wanted[key] != found[key]]
    return GeneDMLError(
        f"{file} does not hold the weights of {name}: {len(missing)} of {len(wanted)} keys are missing"
        f"{_first(missing)}, {len(extra)} are unknown{_first(extra)}, {len(shapes)} have another shape"
        f"{_first(sorted(shapes))}. Give its own weights file, not a head or a checkpoint of a study."
    )


def _first(keys: list[str]) -> str:
    return f" (first: {keys[0]})" if keys else ""
