"""What a network is held against: the layers of a prediction that hold references, in the order of tables."""

from collections.abc import Mapping
from dataclasses import dataclass

RIDGE, OWN_TILE, NUCLEI, PLACE = "ridge", "ridge_own_tile", "nuclei_alone", "place_alone"
DEPTH, CONSTANT = "depth_alone", "constant"


@dataclass(frozen=True)
class ReferenceLayer:
    """One reference.

    Args:
        title: its row in tables.
        meaning: what its layer holds.
        encoder: the only encoder with which it is there; empty if it is with all.
    """

    title: str
    meaning: str
    encoder: str = ""


REFERENCES: Mapping[str, ReferenceLayer] = {
    RIDGE: ReferenceLayer("ridge", "label predicted by ridge regression on the same features"),
    OWN_TILE: ReferenceLayer(
        "ridge own tile", "label predicted by ridge regression on the features of the spot's own tile alone"
    ),
    NUCLEI: ReferenceLayer(
        "nuclei alone", "label predicted from the share of the spot's tile that is nuclei", "stain-texture"
    ),
    PLACE: ReferenceLayer("place alone", "label predicted from where the spot stands in its section, without an image"),
    DEPTH: ReferenceLayer("depth alone", "label predicted from the sequencing depth alone"),
    CONSTANT: ReferenceLayer("constant", "mean label in training"),
}
"""By the name of their layer. :mod:`genedml_cli.references.linear` fits the first four."""


def held_out_column(layer: str) -> str:
    """The column of ``var`` that holds each gene's PCC of a reference inside the training side."""
    return f"{layer}_held_out_pcc"
