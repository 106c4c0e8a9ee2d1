"""The table of encoders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from genedml.encoders.key_styles import KeyStyle
from genedml.encoders.stain_texture import StainTexture
from genedml.errors import GeneDMLError, did_you_mean

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
BIOPTIMUS_MEAN, BIOPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
HIBOU_MEAN, HIBOU_STD = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)
LUNIT_MEAN, LUNIT_STD = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
SWIGLU = "swiglu"


@dataclass(frozen=True)
class EncoderInfo:
    """One row of the table: what the encoder is, where its weights come from, on which terms.

    ``architecture`` and ``options`` are timm's; ``mean`` and ``std`` normalise RGB in [0, 1]; ``tokens`` counts class,
    register and patch tokens of one tile of 224 px. ``hub``, ``revision`` and ``file`` are where the weights lie (the
    newest revision, a file of the usual name, if nothing is said), and ``keys`` is how the file names its tensors.
    ``build`` makes an encoder that needs no weights instead: a module that takes RGB in [0, 1] and gives the tokens,
    the first of them the pooled vector. Its class has a ``VERSION``, to be raised when its numbers change: all that
    can tell features made before from those made after.
    """

    name: str
    tokens: int
    width: int
    licence: str
    hub: str | None = None
    revision: str | None = None
    file: str | None = None
    keys: KeyStyle = "timm"
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
            architecture="vit_large_patch16_224",
            options={"init_values": 1e-5, "dynamic_img_size": True},
        ),
        EncoderInfo(
            "uni2-h",
            tokens=1 + 8 + 256,
            width=1536,
            licence="CC BY-NC-ND 4.0",
            hub="MahmoodLab/UNI2-h",
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
            revision="b145cc1e6c6b30d3251aa8b1f844e6974188a743",
            architecture="vit_giant_patch14_reg4_dinov2",
            options={"img_size": 224, "init_values": 1e-5},
            mean=BIOPTIMUS_MEAN,
            std=BIOPTIMUS_STD,
        ),
        EncoderInfo(
            "h-optimus-1",
            tokens=1 + 4 + 256,
            width=1536,
            licence="CC BY-NC-ND 4.0",
            hub="bioptimus/H-optimus-1",
            architecture="vit_giant_patch14_reg4_dinov2",
            options={"img_size": 224, "init_values": 1e-5},
            mean=BIOPTIMUS_MEAN,
            std=BIOPTIMUS_STD,
        ),
        EncoderInfo(
            "h0-mini",
            tokens=1 + 4 + 256,
            width=768,
            licence="CC BY-NC-ND 4.0",
            hub="bioptimus/H0-mini",
            architecture="vit_base_patch14_reg4_dinov2",
            options={"img_size": 224, "mlp_ratio": 5.33334, "mlp_layer": SWIGLU},
            mean=BIOPTIMUS_MEAN,
            std=BIOPTIMUS_STD,
        ),
        EncoderInfo(
            "gigapath",
            tokens=1 + 196,
            width=1536,
            licence="Apache-2.0",
            hub="prov-gigapath/prov-gigapath",
            architecture="vit_giant_patch14_dinov2",
            options={"img_size": 224, "patch_size": 16, "init_values": 1e-5},
        ),
        EncoderInfo(
            "openmidnight",
            tokens=1 + 4 + 256,
            width=1536,
            licence="Apache-2.0",
            hub="SophontAI/OpenMidnight",
            file="teacher_checkpoint_load.pt",
            keys="dinov2",
            architecture="vit_giant_patch14_reg4_dinov2",
            options={"img_size": 224},
        ),
        EncoderInfo(
            "midnight",
            tokens=1 + 256,
            width=1536,
            licence="MIT",
            hub="kaiko-ai/midnight",
            revision="adc6b15679c981cce6f9b018bbad09d16eeeda9f",
            keys="transformers",
            architecture="vit_giant_patch14_dinov2",
            options={"img_size": 224},
            mean=HALF,
            std=HALF,
        ),
        EncoderInfo(
            "hibou-b",
            tokens=1 + 4 + 256,
            width=768,
            licence="Apache-2.0",
            hub="histai/hibou-b",
            revision="7fdc8cce365ebfd9e7e60ee6ee9a8d4d59388f3c",
            keys="transformers",
            architecture="vit_base_patch14_reg4_dinov2",
            options={"img_size": 224, "mlp_ratio": 5.33334, "mlp_layer": SWIGLU},
            mean=HIBOU_MEAN,
            std=HIBOU_STD,
        ),
        EncoderInfo(
            "hibou-l",
            tokens=1 + 4 + 256,
            width=1024,
            licence="Apache-2.0",
            hub="histai/hibou-L",
            keys="transformers",
            architecture="vit_large_patch14_reg4_dinov2",
            options={"img_size": 224, "mlp_ratio": 5.34375, "mlp_layer": SWIGLU},
            mean=HIBOU_MEAN,
            std=HIBOU_STD,
        ),
        EncoderInfo(
            "phikon",
            tokens=1 + 196,
            width=768,
            licence="Owkin, non-commercial",
            hub="owkin/phikon",
            keys="transformers",
            architecture="vit_base_patch16_224",
        ),
        EncoderInfo(
            "phikon-v2",
            tokens=1 + 196,
            width=1024,
            licence="Owkin, non-commercial",
            hub="owkin/phikon-v2",
            revision="419e8285b80eac3b60beca0d9b91942d48ad7b8e",
            keys="transformers",
            architecture="vit_large_patch16_224",
            options={"init_values": 1e-5},
        ),
        EncoderInfo(
            "distillpath-s",
            tokens=1 + 196,
            width=384,
            licence="see its page",
            hub="RamonK/DistillPath-IS16-HOpt0",
            architecture="vit_small_patch16_224",
        ),
        EncoderInfo(
            "lunit-dino-s16",
            tokens=1 + 196,
            width=384,
            licence="Lunit, non-commercial",
            hub="1aurent/vit_small_patch16_224.lunit_dino",
            architecture="vit_small_patch16_224",
            mean=LUNIT_MEAN,
            std=LUNIT_STD,
        ),
        EncoderInfo(
            "kaiko-s16",
            tokens=1 + 196,
            width=384,
            licence="kaiko, non-commercial",
            hub="1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms",
            architecture="vit_small_patch16_224",
            mean=HALF,
            std=HALF,
        ),
        EncoderInfo(
            "kaiko-b16",
            tokens=1 + 196,
            width=768,
            licence="kaiko, non-commercial",
            hub="1aurent/vit_base_patch16_224.kaiko_ai_towards_large_pathology_fms",
            revision="797c524a94c7fdae8ea33064d0ac6966ed8956bb",
            architecture="vit_base_patch16_224",
            mean=HALF,
            std=HALF,
        ),
    )
}


def licence_of(name: str) -> str:
    """On which terms the weights of an encoder are, or of those that a ``+`` joins."""
    return " and ".join(
        dict.fromkeys(ENCODERS[part].licence if part in ENCODERS else "see timm" for part in name.split("+"))
    )


def encoder_info(name: str) -> EncoderInfo:
    """The row of the table.

    Raises:
        GeneDMLError: no such encoder.
    """
    if name not in ENCODERS:
        known = f"{did_you_mean(name, ENCODERS)} There are: {', '.join(ENCODERS)}"
        raise GeneDMLError(f"No encoder is called {name!r}.{known}, and any timm model as timm:NAME.")
    return ENCODERS[name]
