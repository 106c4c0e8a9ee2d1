"""Weights files whose keys are those of DINOv2's own code or of transformers, told as timm names the same tensors.

All three write one architecture. Letters: T tokens that have a position, D width.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

KeyStyle = Literal["timm", "dinov2", "transformers"]

RENAMED: dict[KeyStyle, dict[str, str]] = {
    "timm": {},
    "dinov2": {"register_tokens": "reg_token", ".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."},
    "transformers": {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.register_tokens": "reg_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
        "encoder.layer.": "blocks.",
        ".attention.attention.": ".attn.",
        ".attention.output.dense.": ".attn.proj.",
        ".layernorm_before.": ".norm1.",
        ".layernorm_after.": ".norm2.",
        ".layer_scale1.lambda1": ".ls1.gamma",
        ".layer_scale2.lambda1": ".ls2.gamma",
        ".mlp.weights_in.": ".mlp.fc1.",
        ".mlp.weights_out.": ".mlp.fc2.",
        ".intermediate.dense.": ".mlp.fc1.",
        ".output.dense.": ".mlp.fc2.",
        "layernorm.": "norm.",
    },
}
"""In each style, parts of keys and timm's word for them, to be replaced in this order."""


def renamed(stored: Mapping[Any, Any], style: KeyStyle) -> dict[Any, Any]:
    """The content of a weights file with timm's keys, where tensors stand under a name, too."""
    return {
        _renamed(key, style) if isinstance(key, str) else key: renamed(value, style)
        if isinstance(value, Mapping)
        else value
        for key, value in stored.items()
    }


def _renamed(key: str, style: KeyStyle) -> str:
    for theirs, ours in RENAMED[style].items():
        key = key.replace(theirs, ours)
    return key


def fitted(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors that timm holds in another form, in that form; what does not fit stays as it is, to be refused.

    Query, key and value of transformers become one tensor. The class token's position, of which timm with registers
    knows none, is added to the class token, as the network would. Positions of a larger grid of patches are
    interpolated (bicubic, no antialiasing), as Dinov2Model of transformers does each time.
    """
    state = dict(state)
    for key in [key for key in state if ".attn.query." in key]:
        parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            state[key.replace(".query.", ".qkv.")] = torch.cat([state.pop(part) for part in parts])
    positions, class_token = state.get("pos_embed"), state.get("cls_token")
    shape = wanted.get("pos_embed", ())
    if positions is None or class_token is None or positions.shape == shape or len(shape) != positions.ndim:
        return state
    of_class, of_patches = positions[:, :1], positions[:, 1:]
    side, own = math.isqrt(shape[1]), math.isqrt(of_patches.shape[1])
    if own**2 != of_patches.shape[1] or own < side or class_token.shape != of_class.shape:
        return state
    if own > side:
        grid = of_patches.float().unflatten(1, (own, own)).permute(0, 3, 1, 2)
        grid = interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        of_patches = grid.permute(0, 2, 3, 1).flatten(1, 2)
    if shape[1] == side**2:
        return state | {"cls_token": class_token + of_class, "pos_embed": of_patches}
    return state | {"pos_embed": torch.cat([of_class, of_patches], dim=1)}
