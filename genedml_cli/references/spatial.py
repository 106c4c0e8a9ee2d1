"""How spatially variable each gene is on the sections that a fold is fitted on. Letters: M genes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from genedml.metrics import column_nanmean, morans_i
from genedml_cli.features.section_data import SectionData


def spatial_variability(sections: Sequence[SectionData]) -> Float[np.ndarray, " M"]:
    """Moran's I of every gene's label before the mean over neighbours, mean over the sections in which it varies."""
    each = []
    for data in sections:
        valid = data.labels.valid
        each.append(morans_i(data.labels.unsmoothed[valid], data.features.spots.neighbors()[valid][:, valid]))
    return column_nanmean(np.stack(each))
