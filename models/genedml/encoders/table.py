"""The table of encoders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from genedml.encoders.stain_texture import StainTexture
from genedml.errors import GeneDMLError

IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


SWIGLU = "swiglu"


@dataclass(frozen=True)
class EncoderInfo:
    """One row of the table: what the encoder is, where its weights come from, on which terms.

    ``architecture`` and ``options`` are timm's; ``mean`` and ``std`` normalise RGB in [0, 1]; ``tokens`` counts class,
    register and patch tokens of one tile. ``build`` makes an encoder that needs no weights instead: a module that takes
    RGB in [0, 1] and gives the tokens, the first of them the pooled vector. Its class has a ``VERSION``, to be raised
    when its numbers change: all that can tell features made before from those made after.
    """

    name: str
    tokens: int
    width: int
    licence: str
    hub: str | None = None
    gated: bool = False
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    build: Callable[[], nn.Module] | None = None


ENCODERS: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        EncoderInfo(
            "stain-texture",
            tokens=1 + 196,
            width=StainTexture.WIDTH,
            licence="MIT",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            build=StainTexture,
        ),
        EncoderInfo(
            "uni",
            tokens=1 + 196,
            width=1024,
            licence="CC BY-NC-ND 4.0",
            hub="MahmoodLab/UNI",
            gated=True,
            architecture="vit_large_patch16_224",
            options={"init_values": 1e-5, "dynamic_img_size": True},
        ),
        EncoderInfo(
            "uni2-h",
            tokens=1 + 8 + 256,
            width=1536,
            licence="CC BY-NC-ND 4.0",
            hub="MahmoodLab/UNI2-h",
            gated=True,
            architecture="vit_giant_patch14_224",
            options={
                "depth": 24,
                "num_heads": 24,
                "embed_dim": 1536,
                "mlp_ratio": 2.66667 * 2,
                "init_values": 1e-5,
                "reg_tokens": 8,
                "no_embed_class": True,
                "dynamic_img_size": True,
                "mlp_layer": SWIGLU,
            },
        ),
        EncoderInfo(
            "virchow2",
            tokens=1 + 4 + 256,
            width=1280,
            licence="CC BY-NC-ND 4.0",
            hub="paige-ai/Virchow2",
            gated=True,
            architecture="vit_huge_patch14_224",
            options={
                "mlp_ratio": 5.3375,
                "init_values": 1e-5,
                "reg_tokens": 4,
                "dynamic_img_size": True,
                "mlp_layer": SWIGLU,
            },
        ),
        EncoderInfo(
            "h-optimus-0",
            tokens=1 + 4 + 256,
            width=1536,
            licence="Apache-2.0",
            hub="bioptimus/H-optimus-0",
            gated=True,
            architecture="vit_giant_patch14_reg4_dinov2",
            options={"img_size": 224, "init_values": 1e-5},
            mean=(0.707223, 0.578729, 0.703617),
            std=(0.211883, 0.230117, 0.177517),
        ),
        EncoderInfo(
            "gigapath",
            tokens=1 + 196,
            width=1536,
            licence="Apache-2.0",
            hub="prov-gigapath/prov-gigapath",
            gated=True,
            architecture="vit_giant_patch14_dinov2",
            options={"img_size": 224, "patch_size": 16, "init_values": 1e-5},
        ),
    )
}


def encoder_info(name: str) -> EncoderInfo:
    """The row of the table.

    Raises:
        GeneDMLError: no such encoder.
    """
    if name not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise GeneDMLError(f"No encoder is called {name!r}. There are: {known}, and any timm model as timm:NAME.")
    return ENCODERS[name]
