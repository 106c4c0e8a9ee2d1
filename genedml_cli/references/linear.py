"""The linear references of a fold: ridge regression on all that the features say, on parts of it, on where spots stand.

Each is a row of :data:`VECTORS`. They are fitted on the sections that the network's weights were fitted on, with labels
centred within sections; where a label is a mean over array neighbours, so are the vectors of tiles, but for the spot's
own tile alone (METHOD section 9). Letters: S spots, W width of the vectors, D encoder width, M genes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from genedml.encoders.stain_texture import STANDARD
from genedml.errors import reading
from genedml.ridge import RidgeModel, fit_ridge
from genedml_cli.features.section_data import SectionData, left_out_together
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.outputs.reference_layers import NUCLEI, OWN_TILE, PLACE, REFERENCES, RIDGE
from genedml_cli.outputs.run_folder import reference_file
from genedml_cli.references.place import place_waves
from genedml_cli.references.reference_file import load_reference, save_reference


def at_three_scales(features: SectionFeatures) -> Float[np.ndarray, "S W"]:
    """The vector of each spot's own tile, and means over the tiles around it."""
    return features.at_three_scales


def own_tile(features: SectionFeatures) -> Float[np.ndarray, "S D"]:
    """The vector of each spot's own tile."""
    return features.pooled.float().numpy()


def nuclei(features: SectionFeatures) -> Float[np.ndarray, "S 1"]:
    """How much of each spot's own tile is nuclei: a column of :class:`genedml.encoders.stain_texture.StainTexture`."""
    return own_tile(features)[:, [[*STANDARD].index("nucleus")]]


@dataclass(frozen=True)
class Vectors:
    """What a linear reference sees of a section, and whether it is averaged where the label is."""

    of: Callable[[SectionFeatures], Float[np.ndarray, "S W"]]
    averaged: bool


VECTORS: Mapping[str, Vectors] = {
    RIDGE: Vectors(at_three_scales, averaged=True),
    OWN_TILE: Vectors(own_tile, averaged=False),
    NUCLEI: Vectors(nuclei, averaged=True),
    PLACE: Vectors(place_waves, averaged=False),
}
"""By the layers of :data:`genedml_cli.outputs.reference_layers.REFERENCES`."""

LinearReferences = Mapping[str, RidgeModel]


def fit_linear(train: Sequence[SectionData], smooth: bool) -> LinearReferences:
    """Fit every reference that the features allow; penalties are chosen by leaving out one donor at a time.

    Of a single donor one section is left out at a time.

    Args:
        train: the sections that the network's weights were fitted on.
        smooth: whether labels are means over array neighbours.
    """
    groups, encoder = left_out_together(train), train[0].features.encoder.name
    models = {}
    for name, vectors in VECTORS.items():
        if REFERENCES[name].encoder in ("", encoder):
            averaged = smooth and vectors.averaged
            labelled = [
                (_vectors(name, data.features, averaged)[data.labels.valid], data.labels.y[data.labels.valid])
                for data in train
            ]
            models[name] = fit_ridge(labelled, groups, averaged)
    return models


def predict_linear(models: LinearReferences, features: SectionFeatures) -> dict[str, Float[np.ndarray, "S M"]]:
    """Labels of every spot of a section by every reference, by the names of their layers."""
    return {name: model.predict(_vectors(name, features, model.averaged)) for name, model in models.items()}


def save_linear(models: LinearReferences, genes: Sequence[str], network: str, checkpoint: Path) -> None:
    """Write the references whole, so that sections seen later have them too.

    Args:
        models: the references.
        genes: their genes, in order.
        network: SHA-256 of the network that they stand beside (:func:`genedml.checkpoint.network_sha256`).
        checkpoint: its file.
    """
    tables = {
        f"{name}.{kind}": table
        for name, model in models.items()
        for kind, table in {
            "weight": model.weight,
            "intercept": model.intercept,
            "inner_pcc": model.inner_pcc,
            "averaged": np.array([model.averaged]),
        }.items()
    }
    save_reference(tables, network, reference_file(checkpoint, RIDGE), genes)


def load_linear(checkpoint: Path, genes: Sequence[str], network: str) -> LinearReferences:
    """The references beside a network; none where their file is not there.

    Earlier versions kept ridge alone, under names without it, of vectors that are not averaged.

    Raises:
        GeneDMLError: unreadable, fitted for other genes or beside another network, or changed since it was written.
    """
    path = reference_file(checkpoint, RIDGE)
    if not path.is_file():
        return {}
    with reading(f"The ridge reference {path}", "Remove it to go without."):
        tables = {
            name if "." in name else f"{RIDGE}.{name}": table
            for name, table in load_reference(path, network, genes).items()
        }
        names = [name for name in VECTORS if f"{name}.weight" in tables]
        if not names:
            raise ValueError("it holds none")
        return {name: _model({kind: tables.get(f"{name}.{kind}") for kind in _KINDS}, len(genes)) for name in names}


_KINDS = ("weight", "intercept", "inner_pcc", "averaged")


def _model(tables: Mapping[str, np.ndarray | None], genes: int) -> RidgeModel:
    weight, intercept, inner_pcc, averaged = (tables[kind] for kind in _KINDS)
    if weight is None or intercept is None or inner_pcc is None:
        raise ValueError("a table is missing")
    if weight.shape[1:] != (genes,) or {intercept.shape, inner_pcc.shape} != {(genes,)}:
        raise ValueError("its weights are of another number of genes")
    return RidgeModel(weight, intercept, inner_pcc, averaged is not None and bool(averaged[0]))


def _vectors(name: str, features: SectionFeatures, averaged: bool) -> Float[np.ndarray, "S W"]:
    vectors = VECTORS[name].of(features)
    return features.spots.array_mean(vectors).astype(np.float32) if averaged else vectors
