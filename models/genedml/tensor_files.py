"""Safetensors files whose bytes depend on nothing but their content.

The library writes the metadata of a file in an order that it draws anew at every call.
"""

import json
import math
import struct
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor, nn

KINDS = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}
LENGTH = struct.Struct("<Q")
ALIGNMENT = 8


def assign(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make tensors a module's own without a copy, in its kinds of number: they stay maps of the file they are from.

    The module may be on the meta device, if all its tensors are in its state.
    """
    own = module.state_dict()
    module.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, assign=True)


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors and metadata as the content of one safetensors file; equal input gives equal bytes."""
    content = save(dict(tensors), dict(metadata))
    (length,) = LENGTH.unpack_from(content)
    end = LENGTH.size + length
    header = json.loads(content[LENGTH.size : end])
    return _framed(header | {"__metadata__": dict(sorted(metadata.items()))}) + content[end:]


def layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """What a file of these tensors begins with, and at which byte of it each begins: to write it piece by piece.

    Args:
        tensors: of which only kind and shape matter; they may be on the meta device.
    """
    # Wider numbers first, so that each stands at a multiple of its own width.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    begins, offset = {}, 0
    for name in order:
        tensor = tensors[name]
        begins[name], end = offset, offset + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    head = _framed(header)
    return head, {name: len(head) + begin for name, begin in begins.items()}


def _framed(header: Mapping[str, object]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return LENGTH.pack(len(text)) + text
