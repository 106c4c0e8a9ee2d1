"""Every gene of every section as the page's own script draws it. Letters: S spots, G genes.

A value is one letter, its place in the colours of its gene: a section of 4,000 spots and 250 genes takes 1 MB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import to_hex

from genedml_cli.figures.maps import (
    COLOURS,
    SectionPicture,
    gene_range,
    length_label,
    range_labels,
    scale_bar_um,
    value_range,
)
from genedml_cli.report.images import tissue_jpeg

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
STEPS = len(LETTERS) - 1  # the last letter is of a spot without a value
MOST_LETTERS = 6_500_000  # of a page, which stays below 10 MB with its pictures


@dataclass(frozen=True)
class Mapped:
    """A section to be looked at.

    Args:
        picture: where its spots and its tissue are.
        genes: columns of the panels.
        panels: values of all genes by what they are: measured, predicted.
        scores: PCC of every gene on this section, by the panel; NaN where there is none; empty where nothing is
            measured.
    """

    picture: SectionPicture
    genes: Sequence[str]
    panels: Mapping[str, Float[np.ndarray, "S G"]]
    scores: Mapping[str, Float[np.ndarray, " G"]] = field(default_factory=dict)

    def score(self, column: int) -> str | None:
        """A gene's PCC on this section as it is written, of each of several panels; None where there is none."""
        known = {what: f"{pcc[column]:.3f}" for what, pcc in self.scores.items() if not np.isnan(pcc[column])}
        if len(self.scores) == 1:
            return next(iter(known.values()), None)
        return ", ".join(f"{what} {pcc}" for what, pcc in known.items()) or None


def atlas_of(sections: Sequence[Mapped], order: Sequence[str], first_gene: str, first_section: str) -> dict[str, Any]:
    """What the script needs, as JSON holds it.

    Args:
        sections: to choose from.
        order: all genes, as the page's table has them; those that do not fit into the page are left out at its end.
        first_gene: shown first.
        first_section: likewise.
    """
    shown = _fitting(sections, order)
    return {
        "colours": [to_hex(colour) for colour in colormaps[COLOURS](np.linspace(0, 1, STEPS))],
        "letters": LETTERS,
        "genes": shown,
        "left_out": len(order) - len(shown),
        "gene": shown.index(first_gene) if first_gene in shown else 0,
        "section": [section.picture.name for section in sections].index(first_section),
        "sections": [_packed(section, shown) for section in sections],
    }


def _fitting(sections: Sequence[Mapped], order: Sequence[str]) -> list[str]:
    """The genes from the top of the table whose maps the page has room for."""
    a_gene = sum(len(section.picture.xy_px) * len(section.panels) for section in sections)
    return list(order[: max(1, MOST_LETTERS // max(1, a_gene))])


def _packed(section: Mapped, genes: Sequence[str]) -> dict[str, Any]:
    """One section; distances are in thousandths of the width of its window."""
    picture = section.picture
    left, right, top, bottom = picture.window_px
    unit = 1000 / (right - left)
    places = np.round((picture.xy_px - (left, top)) * unit, 1)
    bar = None
    if picture.um_per_px is not None:
        bar_um = scale_bar_um((right - left) * picture.um_per_px)
        bar = [round(bar_um / picture.um_per_px * unit, 1), length_label(bar_um)]
    column = {gene: number for number, gene in enumerate(section.genes)}
    return {
        "name": picture.name,
        "height": round((bottom - top) * unit),
        "xy": places.ravel().tolist(),
        "spot": round(picture.spot_px * unit, 1),
        "tissue": tissue_jpeg(picture),
        "bar": bar,
        "panels": list(section.panels),
        "genes": [_packed_gene(section, column[gene]) if gene in column else None for gene in genes],
    }


def _packed_gene(section: Mapped, column: int) -> dict[str, Any]:
    """A gene: a text of letters a panel, the ends of their scale, and each panel's own ends as places in it."""
    panels = [values[:, column] for values in section.panels.values()]
    known = [values for values in panels if not np.isnan(values).all()]
    low, high = gene_range([values[None] for values in known])
    return {
        "ends": range_labels(low, high),
        "own": [range_labels(*value_range(values)) if not np.isnan(values).all() else ("-", "-") for values in panels],
        "pcc": section.score(column),
        "values": [letters(values, low, high) for values in panels],
    }


def letters(values: Float[np.ndarray, " S"], low: float, high: float) -> str:
    """Values as letters: the first of :data:`LETTERS` is ``low`` or below, the last but one ``high`` or above."""
    share = np.clip((values - low) / (high - low), 0, 1) if high > low else np.where(values > high, 1.0, values * 0)
    steps = np.where(np.isnan(values), STEPS, np.round(np.nan_to_num(share) * (STEPS - 1))).astype(int)
    return "".join(np.array(list(LETTERS))[steps])
