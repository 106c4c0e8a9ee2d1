"""Encoders side by side, as one: ``uni+phikon``.

Letters: N tiles, P patches of a tile, W width of one encoder. Patch tokens lie on a square grid that covers the tile.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from genedml.encoders.encoder import Encoded, Encoder, load_encoder
from genedml.encoders.table import EncoderInfo, licence_of
from genedml.errors import GeneDMLError

PLUS = "+"


class JoinedEncoder(Encoder):
    """Frozen encoders that see the same tile; their vectors stand behind each other in the order of their names.

    A tile's first token is their pooled vectors. Its patch tokens are theirs, averaged to the grid of the encoder that
    has the fewest; register tokens are of one encoder alone and left out.

    Args:
        parts: the encoders, on one device.
    """

    parts: Sequence[Encoder]

    VERSION = 1
    """Raise it whenever the vectors of the same encoders change."""

    def __init__(self, parts: Sequence[Encoder]) -> None:
        nn.Module.__init__(self)
        self.parts = nn.ModuleList(parts)  # type: ignore[assignment]
        self.info = joined_info([part.info for part in parts])
        self.side = math.isqrt(self.info.tokens)
        self.has_class_token = True
        self.batch_tiles = None
        known = f"{self.VERSION} {PLUS.join(part.weights_sha256 for part in parts)}"
        self.weights_sha256 = hashlib.sha256(known.encode()).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where they run."""
        return self.parts[0].device

    def compile(self) -> None:
        """As :meth:`Encoder.compile`, one after the other."""
        for part in self.parts:
            part.compile()

    @torch.inference_mode()
    def forward(self, tiles: UInt8[Tensor, "N 224 224 3"], single: bool = False) -> Encoded:
        """Encode with each, and put the vectors side by side."""
        encoded = [part(tiles, single) for part in self.parts]
        pooled = torch.cat([part.pooled for part in encoded], dim=1)
        patches = torch.cat([self._patches(part.tokens) for part in encoded], dim=2)
        return Encoded(torch.cat([pooled[:, None], patches], dim=1), pooled)

    def _patches(self, tokens: Float[Tensor, "N _ W"]) -> Float[Tensor, "N P W"]:
        side = math.isqrt(tokens.shape[1])
        grid = tokens[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
        return adaptive_avg_pool2d(grid, self.side).flatten(2).transpose(1, 2)


def joined_info(parts: Sequence[EncoderInfo]) -> EncoderInfo:
    """The row of the table that several encoders side by side would have; of one its own."""
    if len(parts) == 1:
        return parts[0]
    name, side = PLUS.join(part.name for part in parts), min(math.isqrt(part.tokens) for part in parts)
    return EncoderInfo(name, tokens=1 + side**2, width=sum(part.width for part in parts), licence=licence_of(name))


def load_encoders(name: str, weights: Path | None = None, device: torch.device | str = "cpu") -> Encoder:
    """The encoder ``name``, or those that ``+`` joins, as :func:`genedml.encoders.encoder.load_encoder` gives it.

    Raises:
        GeneDMLError: as there; a weights file for several, or one encoder twice.
    """
    names = name.split(PLUS)
    if len(names) == 1:
        return load_encoder(name, weights, device)
    if weights is not None:
        raise GeneDMLError(f"--weights is a file of one encoder, and {name} are {len(names)}. Leave it out.")
    if len(set(names)) < len(names):
        raise GeneDMLError(f"{name} names an encoder twice. Name each once.")
    return JoinedEncoder([load_encoder(part, device=device) for part in names])
