"""What folds cannot be trained with, said before anything is extracted or trained."""

from collections.abc import Mapping, Sequence

import anndata
import numpy as np
import torch

from genedml.config import Config
from genedml.encoders.table import EncoderInfo
from genedml.errors import GeneDMLError
from genedml.metrics import pcc
from genedml.networks.inputs import Places
from genedml.networks.network import Shape
from genedml.networks.registry import build, network_class
from genedml_cli.datasets.folds import Fold
from genedml_cli.expression.labels import check_labelled, make_labels
from genedml_cli.features.encoding import tokens_kept
from genedml_cli.slides.patches import PATCHES_SUFFIX
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.training.loop import learnt_from

PlannedFold = tuple[Fold, Config, tuple[str, ...]]
"""A fold, the settings of its run, and its panel."""


def check_network(config: Config, encoder: EncoderInfo) -> None:
    """Refuse settings of which no network can be made.

    Raises:
        GeneDMLError: as the network's class.
    """
    tokens = tokens_kept(encoder.tokens, config.views.local_grid)
    shape = Shape(config.labels.panel_size, encoder.width, tokens, config.views.neighbor_grid)
    with torch.device("meta"):
        build(config.method, config.network, shape)


def check_folds(
    folds: Sequence[PlannedFold], tables: Mapping[str, anndata.AnnData], skip_off_image: bool = False
) -> None:
    """Refuse sections that a fold cannot learn from, choose its epoch on or predict.

    Args:
        folds: of all runs.
        tables: counts of every section.
        skip_off_image: spots off the image are going to be left out, so that places are not known yet.

    Raises:
        GeneDMLError: no spot of a section has counts in the panel; no gene's label varies over those that are to choose
            the epoch; what :meth:`genedml.networks.network.Network.check` raises.
    """
    triples = {(sample, genes, config.labels) for fold, config, genes in folds for sample in fold.sections}
    vary, places = {}, {}
    for triple in sorted(triples, key=lambda triple: triple[0].name):
        sample, genes, settings = triple
        spots = read_spots(sample.spots)
        labels = make_labels(tables[sample.name], spots, genes, settings)
        check_labelled(labels, sample.name, sample.counts)
        y, moved = labels.y[labels.valid], skip_off_image or sample.slide.suffix == PATCHES_SUFFIX
        vary[triple] = not np.isnan(pcc(y, y)).all()
        grid_xy = None if moved else torch.as_tensor(spots.grid_xy)
        places[triple] = Places(sample.name, torch.as_tensor(np.flatnonzero(labels.valid)), grid_xy)
    for fold, config, genes in folds:
        train, validation, learnt, test = (
            [(sample, genes, config.labels) for sample in side]
            for side in (
                fold.train,
                fold.validation,
                learnt_from(fold.train, fold.validation, config.training),
                fold.test,
            )
        )
        on_test = config.training.select_on == "test"
        choosing = test if on_test else validation
        if choosing and not any(vary[triple] for triple in choosing):
            raise _no_choice([sample.name for sample, _, _ in choosing])
        for trained, predicted in [(learnt, test)] if on_test else [(train, validation), (learnt, test)]:
            network_class(config.method).check(
                config.network, [places[triple] for triple in trained], [places[triple] for triple in predicted]
            )


def _no_choice(names: Sequence[str]) -> GeneDMLError:
    return GeneDMLError(
        f"No PCC is defined on {', '.join(names)}, held out to choose the epoch: no gene's label varies over its "
        "labelled spots. There are too few of them, or the panel is of one gene, which is always all of it: give more "
        "genes, or --set labels.library=all."
    )
