"""Gene-DML: the network, its losses, the frozen encoders and the checkpoint format.

This package knows tensors, not slides: reading sections, training and writing results live in ``genedml_cli``.
"""

from collections.abc import Mapping
from pathlib import Path

DEFAULT_PRETRAINED = "pretrained"
PRETRAINED: Mapping[str, Path] = {
    name: Path(__file__).parent / name for name in (DEFAULT_PRETRAINED, "pretrained-pearson")
}
"""The runs that come with genedml, by the names that ``--model`` takes; the README of each is its card."""
PRETRAINED_ON = "HER2ST"
