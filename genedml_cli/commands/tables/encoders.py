"""The image encoders, as a table on the terminal and as plain values."""

from collections.abc import Iterable
from typing import Any

from genedml.encoders.table import EncoderInfo
from genedml.encoders.weights import find_weights
from genedml_cli import console


def show_encoders(encoders: Iterable[EncoderInfo]) -> None:
    """One row an encoder."""
    rows = [[info.name, str(info.width), str(info.tokens), info.licence, _weights(info)] for info in encoders]
    console.table("Image encoders", ["name", "width", "tokens", "licence", "weights"], rows)
    console.say("Any timm model that takes 224 px tiles: timm:NAME, under its own licence.")
    console.say("Weights that are not here are fetched when first used, or given with --weights FILE.")
    console.say(
        "Where the hub wants conditions accepted first, that download says so. --json: page and revision of each."
    )


def encoders_document(encoders: Iterable[EncoderInfo]) -> list[dict[str, Any]]:
    """What :func:`show_encoders` shows, for programs; ``file`` is where the weights are on this disk."""
    return [
        {
            "name": info.name,
            "width": info.width,
            "tokens": info.tokens,
            "licence": info.licence,
            "hub": info.hub,
            "revision": info.revision,
            "file": find_weights(info),
        }
        for info in encoders
    ]


def _weights(info: EncoderInfo) -> str:
    if info.hub is None:
        return "none needed"
    return "not here" if find_weights(info) is None else "found"
