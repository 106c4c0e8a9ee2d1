"""Frozen image encoders, and backbones that networks train: one way to load them. The only module that touches timm.

Letters: N tiles, T tokens of a tile, D width. Tiles are 224 x 224 px, RGB, 8 bit.
To add an encoder, add a row to :data:`ENCODERS`.
"""

import copy
import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genedml.encoders.table import SWIGLU, EncoderInfo, encoder_info
from genedml.encoders.weight_files import NO_TENSORS, load_weights
from genedml.encoders.weights import StartingWeights, download
from genedml.errors import GeneDMLError, reason_of

TIMM_PREFIX = "timm:"


PLAIN_NAME = re.compile(r"[\w.-]+")


class Encoded(NamedTuple):
    """What one tile becomes: its tokens and one pooled vector of the same width."""

    tokens: Float[Tensor, "N T D"]
    pooled: Float[Tensor, "N D"]


class Encoder(nn.Module):
    """A frozen backbone with its own normalisation: 8-bit tiles in, :class:`Encoded` out, never a gradient.

    The pooled vector is the class token where the backbone has one (``stain-texture`` puts its pooled vector there),
    else the mean of the tokens. ``weights_sha256`` fingerprints the loaded weights, whatever file they came from,
    with the normalisation and the kind of pooled vector.
    ``batch_tiles`` is how many tiles its device is best given at a time, None while nobody has said or tried.

    Raises:
        GeneDMLError: a backbone that needs no weights has no ``VERSION``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: EncoderInfo, backbone: nn.Module, has_class_token: bool) -> None:
        super().__init__()
        if info.build is not None and not hasattr(backbone, "VERSION"):
            raise GeneDMLError(
                f"The encoder {info.name} has no weights to know it by, and {type(backbone).__name__} no VERSION. "
                "Write VERSION = 1 in that class, and raise it whenever its numbers change."
            )
        self.info = info
        # as their images are, so that convolutions need not turn them round for each batch: on a CPU twice as fast
        self.backbone = backbone.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.has_class_token = has_class_token
        self.batch_tiles: int | None = None
        # one without weights has these numbers in its VERSION
        how = "" if info.build is not None else f"{info.mean} {info.std} {has_class_token}"
        self.weights_sha256 = fingerprint(backbone, how)
        self._halves: dict[torch.device, nn.Module] = {}
        self._run: Callable[[nn.Module, Tensor], Tensor] = tokens_of if info.build is None else _call
        self.register_buffer("mean", torch.tensor(info.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(info.std)[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.mean.device

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in evaluation mode: a frozen encoder has no training mode."""
        return super().train(False)

    def compile(self) -> None:
        """Let torch compile the backbone for its device; the same numbers but for rounding, and the same fingerprint.

        Raises:
            GeneDMLError: torch cannot: most often, this machine has no C++ compiler.
        """
        plain, self._run = self._run, torch.compile(self._run, dynamic=True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # on a CPU batches are encoded beside each other, a thread each
        try:
            self(torch.zeros(2, 224, 224, 3, dtype=torch.uint8, device=self.device))
        except Exception as error:  # torch's compilers raise many kinds, all of them private
            self._run = plain
            raise GeneDMLError(
                f"torch.compile cannot compile {self.info.name} on this machine: {str(error).strip().splitlines()[0]} "
                "It needs a C++ compiler such as g++ (on CUDA also the package triton). "
                "Install it, or leave out --compile: the features are the same."
            ) from error
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def forward(self, tiles: UInt8[Tensor, "N 224 224 3"], single: bool = False) -> Encoded:
        """Encode; on CUDA a learned encoder computes in half precision, unless ``single`` asks for all digits."""
        # colours stay last in memory, and so convolutions run
        images = tiles.permute(0, 3, 1, 2).float().div(255).sub(self.mean).div(self.std)
        backbone = self.backbone
        # the filters of one without weights need all their digits
        if self.info.build is None and not single and images.device.type == "cuda":
            backbone, images = self._half(images.device), images.half()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if single else nullcontext():
            tokens = self._run(backbone, images).float()
        return Encoded(tokens, tokens[:, 0] if self.has_class_token else tokens.mean(dim=1))

    def _half(self, device: torch.device) -> nn.Module:
        """The backbone with its weights in half precision, made once a device.

        Autocast is slower, as it leaves sums and norms in single precision: 2,825 tiles a second of UNI's size on an
        H200 where this gives 3,260. Of random weights numbers are off by .0016 of their length instead of .0006; in
        bfloat16 by .013.
        """
        if device not in self._halves:
            self._halves[device] = halved(self.backbone)
        return self._halves[device]


def load_encoder(name: str, weights: Path | None = None, device: torch.device | str = "cpu") -> Encoder:
    """The encoder ``name`` with its weights, ready on ``device``.

    Args:
        name: a key of :data:`ENCODERS`, or ``timm:NAME`` for any model of timm.
        weights: a local ``.safetensors``, ``.bin`` or ``.pth`` file, instead of the hub.

    Raises:
        GeneDMLError: unknown name; weights that are gated, unreachable, unreadable or of another architecture.
    """
    if name.startswith(TIMM_PREFIX):
        return _timm_encoder(name, weights).to(device)
    info = encoder_info(name)
    if info.build is not None:
        if weights is not None:
            raise GeneDMLError(f"The encoder {name} has no weights; leave out --weights.")
        return Encoder(info, info.build(), has_class_token=True).to(device)
    with torch.device("meta"):  # seconds of random numbers, which the weights would replace
        backbone = build_backbone(info)
    load_weights(backbone, weights or download(info), name, keys=info.keys)
    return Encoder(info, backbone, has_class_token=True).to(device)


def build_backbone(info: EncoderInfo) -> nn.Module:
    """The architecture of a table row, or of :func:`backbone_info`, with random weights and without classifier."""
    import timm
    from timm.layers import SwiGLUPacked

    options = dict(info.options)
    if options.get("mlp_layer") == SWIGLU:
        options |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    return timm.create_model(info.architecture, pretrained=False, num_classes=0, **options)


def backbone_info(name: str) -> EncoderInfo:
    """A model of timm that a network trains as a backbone of its own, as a row of the table would describe it.

    Args:
        name: of the model, as ``resnet18``, or with the tag of its weights on the hub, as ``resnet18.tv_in1k``.

    Raises:
        GeneDMLError: timm has no model or no weights of this name, or it takes tiles of one other size alone.
    """
    import timm

    _check_in_timm(name)
    try:
        settings = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise GeneDMLError(
            f"timm has no weights {name!r}: {reason_of(error)}. Look at timm.list_pretrained() for the name."
        ) from error
    if settings is None:
        return EncoderInfo(name, 0, 0, "see timm", architecture=name)
    if settings.fixed_input_size:
        _check_tile_size(name, settings.input_size)
    return EncoderInfo(
        name,
        0,
        0,
        settings.license or "see timm",
        hub=settings.hf_hub_id,
        architecture=name,
        mean=tuple(settings.mean),
        std=tuple(settings.std),
    )


def starting_weights(name: str, file: Path | None = None) -> StartingWeights:
    """Weights that the backbone ``name`` can start its training from.

    Args:
        name: as :func:`backbone_info` takes it.
        file: a local weights file, instead of the hub's cache on this disk and the hub.

    Raises:
        GeneDMLError: unknown name; weights that are unreachable, unreadable or of another architecture.
    """
    info = backbone_info(name)
    backbone = build_backbone(info)
    file = file or download(info, "--backbone-weights")
    load_backbone(backbone, file, name)
    return StartingWeights(file, fingerprint(backbone), info.licence)


def load_backbone(backbone: nn.Module, file: Path, name: str) -> None:
    """Load a weights file of a timm model, with or without its classifier, into the model without.

    Raises:
        GeneDMLError: as :func:`genedml.encoders.weight_files.load_weights`.
    """
    load_weights(backbone, file, name, _classifiers(backbone))


def tokens_of(backbone: nn.Module, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T D"]:
    """What a timm model makes of images before it pools: its tokens, or the cells of its last map, row by row."""
    features: Tensor = backbone.forward_features(images)  # type: ignore[operator]
    if features.ndim == 4:
        channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        features = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
    return features


def halved(backbone: nn.Module) -> nn.Module:
    """A copy with weights in half precision; statistics of batches, which may be beyond its range, stay as they are."""
    halves: dict[int, Tensor] = {}  # what a copy takes for each tensor, so that it holds none in single precision
    for module in backbone.modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for weight in module.parameters(recurse=False):
                halves[id(weight)] = nn.Parameter(weight.half(), requires_grad=False)
            for buffer in module.buffers(recurse=False):
                halves[id(buffer)] = buffer.half() if buffer.is_floating_point() else buffer
    return copy.deepcopy(backbone, halves)


def fingerprint(module: nn.Module, how: str = "") -> str:
    """SHA-256 over the class, its ``VERSION`` if any, ``how`` it is used, and names, shapes and values of its state."""
    digest = hashlib.sha256(f"{type(module).__name__} {getattr(module, 'VERSION', '')}{how}".encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _call(backbone: nn.Module, images: Float[Tensor, "N 3 224 224"]) -> Float[Tensor, "N T D"]:
    tokens: Tensor = backbone(images)
    return tokens


def _timm_encoder(name: str, weights: Path | None) -> Encoder:
    import timm
    from timm.data import resolve_model_data_config

    model_name = name.removeprefix(TIMM_PREFIX)
    _check_in_timm(model_name)
    try:
        backbone = timm.create_model(model_name, pretrained=weights is None, num_classes=0)
    except Exception as error:  # timm and the hub below it raise many kinds here, none of them ours
        cut = isinstance(error.__cause__ or error, UnpicklingError)  # of which it proposes to load it all the same
        raise GeneDMLError(
            f"timm cannot make {model_name!r}: {NO_TENSORS if cut else reason_of(error)}. Without network, give its "
            "weights with --weights FILE."
        ) from error
    if weights is not None:
        load_backbone(backbone, weights, name)
    settings = resolve_model_data_config(backbone)
    _check_tile_size(model_name, settings["input_size"])
    has_class_token = getattr(backbone, "num_prefix_tokens", 0) > 0 and getattr(backbone, "cls_token", None) is not None
    probe = Encoder(
        EncoderInfo(name, 0, 0, "see timm", architecture=model_name, mean=settings["mean"], std=settings["std"]),
        backbone,
        has_class_token,
    )
    _, tokens, width = probe(torch.zeros(1, 224, 224, 3, dtype=torch.uint8)).tokens.shape
    info = EncoderInfo(
        name, tokens, width, "see timm", architecture=model_name, mean=settings["mean"], std=settings["std"]
    )
    return Encoder(info, backbone, has_class_token)


def _check_in_timm(name: str) -> None:
    import timm

    # Not local-dir: and hf-hub: of timm, by which a model's card would choose files; the name becomes part of others.
    if not PLAIN_NAME.fullmatch(name) or not timm.is_model(name):
        raise GeneDMLError(f"timm has no model {name!r}. Look at timm.list_models(pretrained=True) for the name.")


def _check_tile_size(name: str, size: Sequence[int]) -> None:
    if tuple(size) != (3, 224, 224):
        raise GeneDMLError(f"{name} takes {tuple(size)} tiles; genedml gives 3 x 224 x 224.")


def _classifiers(backbone: nn.Module) -> tuple[str, ...]:
    """Modules of a timm model that classify: timm's own weights files hold them, an encoder does not."""
    names = backbone.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    return (names,) if isinstance(names, str) else tuple(names)
