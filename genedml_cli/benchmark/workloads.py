"""How much work the published data sets and a Visium slide are: spots, and encoder passes a spot."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from jaxtyping import Float

from genedml.config import Neighbors, ViewsConfig
from genedml_cli.datasets.datasets import find_dataset
from genedml_cli.features.tile_plan import plan_tiles

MODES: tuple[Neighbors, ...] = ("exact", "lattice")
NAMES = ("HER2ST", "STNet", "skinST")
VISIUM_SPOTS, VISIUM_PITCH_UM, VISIUM_ROW = 5000, 100.0, 3**0.5 / 2
ASSUMED_UM_PER_PX = 0.5
"""Where views are native: a slide at 20x."""


@dataclass(frozen=True)
class Workload:
    """Sections of one kind; ``passes`` of the encoder a spot by mode, without flips."""

    name: str
    spots: int
    passes: Mapping[str, float]


def workloads(views: ViewsConfig) -> list[Workload]:
    """The three data sets of the paper, and a slide of 5,000 spots."""
    found = []
    for name in NAMES:
        known = find_dataset(name)
        spots = sum(section.spots for section in known.sections)
        found.append(Workload(name, spots, _passes(round(spots / len(known.sections)), known.pitch_um, 1.0, views)))
    passes = _passes(VISIUM_SPOTS, VISIUM_PITCH_UM, VISIUM_ROW, views)
    return [*found, Workload("Visium slide", VISIUM_SPOTS, passes)]


def _passes(spots: int, pitch_um: float, row_step: float, views: ViewsConfig) -> dict[str, float]:
    xy_px = _array(spots, row_step) * pitch_um / (ASSUMED_UM_PER_PX if views.um_per_px == "native" else views.um_per_px)
    size = tuple((xy_px.max(axis=0) + xy_px.min(axis=0)).astype(int).tolist())
    plans = {mode: plan_tiles(xy_px, 1.0, (size[0], size[1]), replace(views, neighbors=mode)) for mode in MODES}
    return {mode: len(plan.corners_xy) / spots for mode, plan in plans.items()}


def _array(spots: int, row_step: float) -> Float[np.ndarray, "S 2"]:
    """About as many columns as rows; every second row is half a step off where rows are nearer than columns."""
    row, column = np.divmod(np.arange(spots), isqrt(spots))
    return np.stack([column + row % 2 / 2 * (row_step < 1), row * row_step], axis=1) + 10
