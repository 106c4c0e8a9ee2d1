"""Gene-DML: the network, its losses, the frozen encoders and the checkpoint format.

This package knows tensors, not slides: reading sections, training and writing results live in ``genedml_cli``.
"""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"
"""The run that comes with genedml; its README is the card."""
PRETRAINED_ON = "HER2ST"
