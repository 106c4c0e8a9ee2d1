"""Weights named as DINOv2 or transformers name them, fetched from a hub: the features are those of the files' own keys.

The expected features are plain arithmetic on the tensors of a file, by its own names, with no timm in it.
"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loopback_hub import COMMIT, LoopbackHub, serving
from safetensors.torch import save_file
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, linear, silu, softmax

from genedml.encoders.encoder import load_encoder
from genedml.encoders.table import ENCODERS, SWIGLU
from genedml.errors import GeneDMLError

WIDTH, HEADS, DEPTH, PATCH = 48, 3, 2, 14
SMALL = {"img_size": 224, "embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH}
DINOV2, TRANSFORMERS, VIT = "small-dinov2", "small-transformers", "small-vit"
WITH_REGISTERS = "small-registers"


def random_file(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def dinov2_file() -> dict[str, torch.Tensor]:
    """Four registers, SwiGLU of 64, one position a token but the registers."""
    shapes = {"cls_token": (1, 1, WIDTH), "register_tokens": (1, 4, WIDTH), "mask_token": (1, WIDTH)}
    shapes |= {"pos_embed": (1, 257, WIDTH), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    for number in range(DEPTH):
        of_block = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        of_block |= {"mlp.w12": (128, WIDTH), "mlp.w3": (WIDTH, 64), "norm1": (WIDTH,), "norm2": (WIDTH,)}
        for name, shape in of_block.items():
            shapes |= {f"blocks.{number}.{name}.weight": shape, f"blocks.{number}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{number}.{name}.gamma": (WIDTH,) for name in ("ls1", "ls2")}
    return random_file(shapes)


def transformers_file(side: int, layer_scale: bool, registers: int = 0) -> dict[str, torch.Tensor]:
    """Of Dinov2Model (with layer scale; SwiGLU if registers) or ViTModel; positions of side x side patches."""
    shapes = {"cls_token": (1, 1, WIDTH), "position_embeddings": (1, 1 + side**2, WIDTH)}
    shapes |= {"mask_token": (1, WIDTH)} if layer_scale else {}
    shapes |= {"register_tokens": (1, registers, WIDTH)} if registers else {}
    shapes |= {"patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH)}
    shapes |= {"patch_embeddings.projection.bias": (WIDTH,)}
    shapes = {f"embeddings.{key}": shape for key, shape in shapes.items()}
    norms = ("norm1", "norm2") if layer_scale else ("layernorm_before", "layernorm_after")
    mlp = ("mlp.fc1", "mlp.fc2") if layer_scale else ("intermediate.dense", "output.dense")
    for number in range(DEPTH):
        of_block = {f"attention.attention.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        of_block |= {"attention.output.dense": (WIDTH, WIDTH), norms[0]: (WIDTH,), norms[1]: (WIDTH,)}
        if registers:
            of_block |= {"mlp.weights_in": (128, WIDTH), "mlp.weights_out": (WIDTH, 64)}
        else:
            of_block |= {mlp[0]: (4 * WIDTH, WIDTH), mlp[1]: (WIDTH, 4 * WIDTH)}
        for name, shape in of_block.items():
            key = f"encoder.layer.{number}.{name}"
            shapes |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
        if layer_scale:
            shapes |= {f"encoder.layer.{number}.layer_scale{part}.lambda1": (WIDTH,) for part in (1, 2)}
    return random_file(shapes | {"layernorm.weight": (WIDTH,), "layernorm.bias": (WIDTH,)})


def attended(query, key, value):
    query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in (query, key, value))
    shares = softmax(query @ key.transpose(1, 2) / math.sqrt(WIDTH / HEADS), dim=-1)
    return (shares @ value).transpose(0, 1).flatten(1)


def patches_of(image, weight, bias):
    return conv2d(image, weight, bias, stride=PATCH)[0].flatten(1).T


def as_dinov2_computes(file, image):
    def at(key, x, of=linear):
        return of(x, file[f"{key}.weight"], file[f"{key}.bias"])

    def normal(key, x):
        return layer_norm(x, (WIDTH,), file[f"{key}.weight"], file[f"{key}.bias"], 1e-6)

    patches = patches_of(image, file["patch_embed.proj.weight"], file["patch_embed.proj.bias"])
    x = torch.cat([file["cls_token"][0], patches]) + file["pos_embed"][0]
    x = torch.cat([x[:1], file["register_tokens"][0], x[1:]])
    for number in range(DEPTH):
        block = f"blocks.{number}"
        mixed = at(f"{block}.attn.proj", attended(*at(f"{block}.attn.qkv", normal(f"{block}.norm1", x)).chunk(3, -1)))
        x = x + file[f"{block}.ls1.gamma"] * mixed
        gate, values = at(f"{block}.mlp.w12", normal(f"{block}.norm2", x)).chunk(2, -1)
        x = x + file[f"{block}.ls2.gamma"] * at(f"{block}.mlp.w3", silu(gate) * values)
    return normal("norm", x)


def as_transformers_computes(file, image):
    def at(key, x):
        return linear(x, file[f"{key}.weight"], file[f"{key}.bias"])

    def normal(key, x):
        return layer_norm(x, (WIDTH,), file[f"{key}.weight"], file[f"{key}.bias"], 1e-6)

    projection = "embeddings.patch_embeddings.projection"
    patches = patches_of(image, file[f"{projection}.weight"], file[f"{projection}.bias"])
    positions = file["embeddings.position_embeddings"][0]
    side = math.isqrt(len(positions) - 1)
    grid = positions[1:].T.unflatten(1, (side, side))[None]
    grid = interpolate(grid, size=(16, 16), mode="bicubic", align_corners=False)[0].flatten(1).T
    x = torch.cat([file["embeddings.cls_token"][0] + positions[:1], patches + grid])
    registers = file.get("embeddings.register_tokens", torch.zeros(1, 0, WIDTH))
    x = torch.cat([x[:1], registers[0], x[1:]])
    dinov2 = "encoder.layer.0.layer_scale1.lambda1" in file
    norms = ("norm1", "norm2") if dinov2 else ("layernorm_before", "layernorm_after")
    mlp = ("mlp.fc1", "mlp.fc2") if dinov2 else ("intermediate.dense", "output.dense")
    for number in range(DEPTH):
        block = f"encoder.layer.{number}"
        seen = normal(f"{block}.{norms[0]}", x)
        parts = (at(f"{block}.attention.attention.{part}", seen) for part in ("query", "key", "value"))
        mixed = at(f"{block}.attention.output.dense", attended(*parts))
        x = x + file.get(f"{block}.layer_scale1.lambda1", 1) * mixed
        seen = normal(f"{block}.{norms[1]}", x)
        if len(registers[0]):
            gate, values = at(f"{block}.mlp.weights_in", seen).chunk(2, -1)
            mixed = at(f"{block}.mlp.weights_out", silu(gate) * values)
        else:
            mixed = at(f"{block}.{mlp[1]}", gelu(at(f"{block}.{mlp[0]}", seen)))
        x = x + file.get(f"{block}.layer_scale2.lambda1", 1) * mixed
    return normal("layernorm", x)


REGISTERS = SMALL | {"mlp_ratio": 128 / WIDTH, "mlp_layer": SWIGLU}
ROWS = {
    DINOV2: replace(
        ENCODERS["openmidnight"], name=DINOV2, hub="lab/small", architecture=None, file="teacher.pt", revision=COMMIT
    ),
    TRANSFORMERS: replace(ENCODERS["phikon-v2"], name=TRANSFORMERS, hub="lab/small", revision=None),
    VIT: replace(ENCODERS["phikon"], name=VIT, hub="lab/small"),
}
ROWS[DINOV2] = replace(ROWS[DINOV2], architecture="vit_base_patch14_reg4_dinov2", options=REGISTERS, width=WIDTH)
ROWS[WITH_REGISTERS] = replace(
    ROWS[DINOV2], name=WITH_REGISTERS, keys=ENCODERS["hibou-b"].keys, file=None, revision=None
)
PLAIN = {"options": SMALL | {"patch_size": PATCH}, "width": WIDTH}
ROWS[TRANSFORMERS] = replace(ROWS[TRANSFORMERS], architecture="vit_base_patch14_dinov2", **PLAIN)
ROWS[VIT] = replace(ROWS[VIT], **PLAIN)
FILES = {
    DINOV2: (dinov2_file, as_dinov2_computes),
    TRANSFORMERS: (lambda: transformers_file(20, True), as_transformers_computes),
    VIT: (lambda: transformers_file(16, False), as_transformers_computes),
    WITH_REGISTERS: (lambda: transformers_file(16, True, 4), as_transformers_computes),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one small model of which nothing is in the cache; the table has a row for each style of keys."""
    for name, row in ROWS.items():
        monkeypatch.setitem(ENCODERS, name, row)
    (tmp_path / "hub").mkdir()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(LoopbackHub(tmp_path / "hub", "lab/small", gated=False), tmp_path / "cache", monkeypatch) as server:
        yield server


def put(folder: Path, name: str, file: dict[str, torch.Tensor]) -> None:
    if name == DINOV2:
        torch.save(file, folder / "teacher.pt")
    else:
        save_file(file, folder / "model.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_features_are_those_of_the_files_own_keys_and_the_pinned_file_is_fetched_once(hub, name):
    make, computes = FILES[name]
    put(hub.folder, name, make())
    tiles = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    encoder = load_encoder(name)
    image = (tiles.permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
    assert torch.allclose(encoder(tiles).tokens[0], computes(make(), image), atol=1e-4)
    assert load_encoder(name).weights_sha256 == encoder.weights_sha256
    assert set(hub.revisions) == {ROWS[name].revision or "main"}
    assert [file for file, _ in hub.gets] == ["teacher.pt" if name == DINOV2 else "model.safetensors"]


@pytest.mark.parametrize(
    ("name", "lost", "told"),
    [
        (DINOV2, "register_tokens", r"1 of \d+ keys are missing \(first: reg_token\)"),
        (
            TRANSFORMERS,
            "encoder.layer.1.attention.attention.key.bias",
            r"first: blocks\.1\.attn\.qkv\.bias\), 2 are unk",
        ),
        (VIT, "layernorm.bias", r"1 of \d+ keys are missing \(first: norm\.bias\)"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused_whole(hub, name, lost, told):
    file = FILES[name][0]()
    del file[lost]
    put(hub.folder, name, file)
    with pytest.raises(GeneDMLError, match=told):
        load_encoder(name)


@pytest.mark.parametrize("positions", [(1, 257, 7), (1, 250, WIDTH), (257, WIDTH), (1, 1 + 9, WIDTH)])
def test_positions_that_cannot_be_fitted_are_refused_by_name(hub, positions):
    put(hub.folder, TRANSFORMERS, FILES[TRANSFORMERS][0]() | {"embeddings.position_embeddings": torch.ones(positions)})
    with pytest.raises(GeneDMLError, match=r"another shape \(first: pos_embed\)"):
        load_encoder(TRANSFORMERS)


def test_whether_there_is_a_gate_is_found_at_the_download(hub):
    put(hub.folder, VIT, FILES[VIT][0]())
    hub.gated = True
    with pytest.raises(
        GeneDMLError, match=r"(?s)weights of small-vit are not here: it is gated.*accept the conditions"
    ):
        load_encoder(VIT)
    hub.gated = False
    assert load_encoder(VIT).info.licence == "Owkin, non-commercial"
