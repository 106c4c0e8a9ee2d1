"""The networks, as a table on the terminal and as plain values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from genedml.config import DEFAULT_METHOD, load_config, preset_names
from genedml.encoders.joined import PLUS, joined_info
from genedml.encoders.table import encoder_info
from genedml.networks.network import Shape
from genedml.networks.registry import build, network_class, network_info, network_names, title_of, variant_of
from genedml_cli import console
from genedml_cli.commands.choices import DEFAULT_PRESET, FEATURES, WEIGHTLESS
from genedml_cli.features.encoding import tokens_kept

GENES = 250


@dataclass(frozen=True)
class MethodRow:
    """One preset of a network.

    Args:
        method, preset: as ``train`` takes them.
        title: as tables print it.
        paper, year, input, licence: see :class:`genedml.networks.registry.NetworkInfo`.
        parameters: trainable ones, for 250 genes.
        raw_pixels: whether it looks at pixels beside the encoder's vectors.
    """

    method: str
    preset: str
    title: str
    year: int
    input: str
    parameters: int
    raw_pixels: bool
    licence: str
    paper: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON prints it."""
        return asdict(self)


def method_rows(encoder: str) -> list[MethodRow]:
    """The presets of every network.

    Raises:
        GeneDMLError: there is no such encoder.
    """
    rows = []
    for method in network_names():
        names: list[str | None] = [*preset_names(method)]
        rows += [_row(method, preset, encoder) for preset in names or [None]]
    return rows


def _row(method: str, preset: str | None, encoder: str) -> MethodRow:
    info, known = joined_info([encoder_info(part) for part in encoder.split(PLUS)]), network_info(method)
    config = load_config(preset, overrides=[f"method={method}", f"encoder={encoder}"])
    tokens = tokens_kept(info.tokens, config.views.local_grid)
    with torch.device("meta"):
        network = build(method, config.network, Shape(GENES, info.width, tokens, config.views.neighbor_grid))
    parameters = sum(value.numel() for value in network.parameters() if value.requires_grad)
    pixels = bool(network_class(method).needs(config.network).tiles)
    return MethodRow(
        method,
        preset or "-",
        title_of(method, variant_of(method, config.network)),
        known.year,
        known.input,
        parameters,
        pixels,
        known.licence,
        known.paper,
    )


def show_methods(rows: Sequence[MethodRow], encoder: str) -> None:
    """One row a network and preset, then what the columns mean."""
    cells = [
        [
            row.method,
            row.preset,
            f"{row.paper.partition(':')[0]} {row.year or ''}".strip() or "-",
            row.input or "-",
            f"{row.parameters / 1e6:.2f} M",
            "yes" if row.raw_pixels else "no",
            row.licence or "-",
        ]
        for row in rows
    ]
    title = f"Networks, with {encoder} for {GENES} genes"
    columns = ["method", "preset", "paper", "sees", "parameters", "pixels", "licence of authors' code"]
    console.table(title, columns, cells)
    console.say("genedml train --method NAME --preset PRESET. All code here is our own, under MIT.")
    console.say(
        f"Without --preset: {FEATURES}; of {DEFAULT_METHOD} small with --encoder {WEIGHTLESS}, else the data set's, "
        f"else {DEFAULT_PRESET}."
    )
