"""Where a spot stands in its section, as waves over it: all that a reference knows which sees no image.

Sections of one patient that were cut one after the other lie alike on their arrays, so the same place has the same
tissue. Whoever is told places can then look labels up, and is good at nothing else. Letters: S spots, W waves.
"""

import numpy as np
from jaxtyping import Float

from genedml_cli.features.section_features import SectionFeatures

PERIOD = 64
"""Of the longest wave, in pitches: the width of a Visium capture area, 6.5 mm at 100 um."""
SHORTEST = 6
"""How many of the shortest wave make a period. Of 2 to 6, with periods of 40 to 64, ridge regression on HER2ST C2-C6
had its best PCC(A) here or within .005 of it."""


def place_waves(features: SectionFeatures) -> Float[np.ndarray, "S W"]:
    """Sines and cosines of each spot's place, counted from the middle of its section in pitches of the array."""
    spots = features.spots
    from_middle = (spots.xy_px - spots.xy_px.mean(axis=0)) / (spots.spacing_px or 1.0)
    number = np.arange(-SHORTEST, SHORTEST + 1)
    across, down = (axis.ravel() for axis in np.meshgrid(number, number, indexing="ij"))
    half = ((across > 0) | ((across == 0) & (down > 0))) & (across**2 + down**2 <= SHORTEST**2)
    angle = 2 * np.pi / PERIOD * from_middle @ np.stack([across[half], down[half]])
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
