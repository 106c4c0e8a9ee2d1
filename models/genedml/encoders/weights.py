"""Weights of encoders, from files or the hub."""

from pathlib import Path

from genedml.encoders.table import EncoderInfo
from genedml.errors import GeneDMLError, reason_of


def find_weights(info: EncoderInfo) -> Path | None:
    """Where the hub's cache on this disk has the weights, if it has; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    if info.hub is None:
        return None
    hits = (try_to_load_from_cache(info.hub, file) for file in _WEIGHT_FILES)
    return next((Path(hit) for hit in hits if isinstance(hit, str)), None)


_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def download(info: EncoderInfo) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    cached = find_weights(info)
    if cached is not None:
        return cached
    assert info.hub is not None
    for file in _WEIGHT_FILES:
        try:
            return Path(hf_hub_download(info.hub, file))
        except LocalEntryNotFoundError as error:
            raise GeneDMLError(_how_to_get(info, "the hub cannot be reached and this disk has no copy")) from error
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise GeneDMLError(_how_to_get(info, f"the hub refused ({error.__class__.__name__})")) from error
        except (HTTPError, OSError) as error:
            why = f"the connection broke off, or the hub's cache cannot be written ({reason_of(error)})"
            raise GeneDMLError(_how_to_get(info, why)) from error
    raise GeneDMLError(_how_to_get(info, f"the hub has none of {', '.join(_WEIGHT_FILES)}"))


def _how_to_get(info: EncoderInfo, reason: str) -> str:
    return (
        f"The weights of {info.name} are not here: {reason}. Three steps fix it:\n"
        f"  1. accept the licence ({info.licence}) at https://huggingface.co/{info.hub}\n"
        "  2. log in with: hf auth login (or set HF_TOKEN)\n"
        "  3. run the same command again; on a machine without network, copy the file there and add --weights FILE\n"
        "The encoder stain-texture needs no weights: --encoder stain-texture."
    )
