"""Weights of encoders, from files or the hub."""

from pathlib import Path

from genedml.encoders.table import EncoderInfo
from genedml.hub import hub_error


def find_weights(info: EncoderInfo) -> Path | None:
    """Where the hub's cache on this disk has the weights, if it has; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    if info.hub is None:
        return None
    hits = (try_to_load_from_cache(info.hub, file) for file in _WEIGHT_FILES)
    return next((Path(hit) for hit in hits if isinstance(hit, str)), None)


_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def download(info: EncoderInfo) -> Path:
    """The weights file of an encoder, from the hub's cache on this disk or the hub.

    Raises:
        GeneDMLError: neither gives it, with the steps to get it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    cached = find_weights(info)
    if cached is not None:
        return cached
    assert info.hub is not None
    missing: Exception | None = None
    for file in _WEIGHT_FILES:
        try:
            return Path(hf_hub_download(info.hub, file))
        except (HfHubHTTPError, HTTPError, OSError) as error:
            missing = error
            if not isinstance(error, EntryNotFoundError) or isinstance(error, LocalEntryNotFoundError):
                break
    assert missing is not None
    page = f"https://huggingface.co/{info.hub} ({info.licence})"
    last_step = (
        "run the same command again; on a machine without network, copy the file there and add --weights FILE\n"
        "The encoder stain-texture needs no weights: --encoder stain-texture."
    )
    raise hub_error(missing, f"The weights of {info.name} are", page, last_step) from missing
