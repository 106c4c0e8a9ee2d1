"""Weights of encoders and backbones, from files or the hub."""

from dataclasses import dataclass
from pathlib import Path

from genedml.encoders.table import ENCODERS, EncoderInfo
from genedml.errors import GeneDMLError
from genedml.hub import asks_for_leave, hub_error, hub_reason


@dataclass(frozen=True)
class StartingWeights:
    """What a backbone starts its training from.

    Args:
        file: of the weights.
        sha256: of the backbone with them, whatever file they came from.
        licence: of the weights on the hub.
    """

    file: Path
    sha256: str
    licence: str


def find_weights(info: EncoderInfo) -> Path | None:
    """Where the hub's cache on this disk has the weights, if it has; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    if info.hub is None:
        return None
    hits = (try_to_load_from_cache(info.hub, file, revision=info.revision) for file in _weight_files(info))
    return next((Path(hit) for hit in hits if isinstance(hit, str)), None)


def _weight_files(info: EncoderInfo) -> tuple[str, ...]:
    return ("model.safetensors", "pytorch_model.bin") if info.file is None else (info.file,)


def download(info: EncoderInfo, option: str = "--weights") -> Path:
    """The weights file of an encoder or backbone, from the hub's cache on this disk or the hub.

    Args:
        info: which.
        option: of the command line, that takes a file instead.

    Raises:
        GeneDMLError: neither gives it, with the steps to get it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    cached = find_weights(info)
    if cached is not None:
        return cached
    if info.hub is None:
        raise GeneDMLError(f"The hub has no weights of {info.name}: give a file with {option} FILE.")
    missing: Exception | None = None
    for file in _weight_files(info):
        try:
            return Path(hf_hub_download(info.hub, file, revision=info.revision))
        except (HfHubHTTPError, HTTPError, OSError) as error:
            missing = error
            if not isinstance(error, EntryNotFoundError) or isinstance(error, LocalEntryNotFoundError):
                break
    assert missing is not None
    page = f"https://huggingface.co/{info.hub}"
    if asks_for_leave(missing):
        last_step = (
            f"run the same command again; on a machine without network, copy the file there and add {option} FILE"
        )
        what = f"The weights of {info.name} are"
        raise hub_error(missing, what, f"{page} ({info.licence})", last_step + _without(info)) from missing
    raise GeneDMLError(
        f"The weights of {info.name} are not here: {hub_reason(missing)}. Run the same command again with the "
        f"hub in reach, or fetch the file from {page} elsewhere and add {option} FILE.{_without(info)}"
    ) from missing


def _without(info: EncoderInfo) -> str:
    """For an encoder that is frozen, the one that needs no weights."""
    needless = "\nThe encoder stain-texture needs no weights: --encoder stain-texture."
    return needless if info.name in ENCODERS else ""
