"""One gene over one section: the tissue below, its spots at their true size.

Letters: S spots, G genes, P panels of a gene.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection

from genedml.errors import GeneDMLError

COLOURS = "viridis"  # even in lightness, so it reads without colour vision
PERCENTILES = (1, 99)  # one odd spot then does not pale all others
OWN_RULE = "each panel, 1st to 99th percentile"
SHARED_RULE = "one scale a gene, 1st to 99th percentile"
PALE = 0.3  # of the tissue's darkness below spots


@dataclass(frozen=True)
class Look:
    """How a picture of genes looks.

    Args:
        colours: a colour map of matplotlib.
        shared_scale: the same colour is the same value in all panels of a gene; else each panel has its own scale.
        ncols: genes beside each other; None for as many as fit.
    """

    colours: str = COLOURS
    shared_scale: bool = True
    ncols: int | None = None


USUAL_LOOK = Look()


def check_colours(name: str) -> None:
    """Refuse colours that matplotlib does not have.

    Raises:
        GeneDMLError: naming those that are spelt nearly so.
    """
    if name not in colormaps:
        near = difflib.get_close_matches(name, colormaps) or [COLOURS, "magma", "cividis", "Reds"]
        raise GeneDMLError(f"There are no colours {name}. Take one of matplotlib's, such as {', '.join(near)}.")


@dataclass(frozen=True)
class SectionPicture:
    """One section as a row of the picture.

    Args:
        name: of the section.
        xy_px: spots in level-0 pixels.
        spot_px: their diameter in level-0 pixels.
        um_per_px: of level 0; None where it is not known, and then there is no scale bar.
        tissue: the slide, smaller; None where it is not at hand.
        tissue_scale: pixels of ``tissue`` for one of level 0.
        truth: labels of the genes shown, NaN where a spot has none; None without counts.
        predicted: labels predicted by each model, by its name.
        unit: of these values, for the colour bars; none if empty.
    """

    name: str
    xy_px: Float[np.ndarray, "S 2"]
    spot_px: float
    um_per_px: float | None
    tissue: UInt8[np.ndarray, "H W 3"] | None
    tissue_scale: float
    truth: Float[np.ndarray, "S G"] | None
    predicted: Mapping[str, Float[np.ndarray, "S G"]]
    unit: str = ""

    @property
    def window_px(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of what is shown: the spots and a spot's width around them."""
        left, top = self.xy_px.min(axis=0) - 1.5 * self.spot_px
        right, bottom = self.xy_px.max(axis=0) + 1.5 * self.spot_px
        return float(left), float(right), float(top), float(bottom)

    @property
    def height_to_width(self) -> float:
        """Of the window."""
        left, right, top, bottom = self.window_px
        return (bottom - top) / (right - left)

    def panels(self) -> Float[np.ndarray, "P S G"]:
        """What is drawn side by side: the truth, if it is known, then every prediction."""
        truth = [] if self.truth is None else [self.truth]
        return np.stack([*truth, *self.predicted.values()])


def show_tissue(axis: Axes, section: SectionPicture, pale: bool = False) -> None:
    """Draw the tissue of the section's window; ``pale`` greys it, so that the colours of spots upon it are theirs."""
    if section.tissue is None:
        return
    left, right, top, bottom = section.window_px
    scale, (rows, columns) = section.tissue_scale, section.tissue.shape[:2]
    y = slice(max(0, int(top * scale)), min(rows, int(np.ceil(bottom * scale))))
    x = slice(max(0, int(left * scale)), min(columns, int(np.ceil(right * scale))))
    extent = (x.start / scale, x.stop / scale, y.stop / scale, y.start / scale)
    limits = {"xlim": axis.get_xlim(), "ylim": axis.get_ylim()}
    shown = section.tissue[y, x]
    axis.imshow(_paled(shown) if pale else shown, extent=extent, aspect="auto")
    axis.set(**limits)


def show_spots(
    axis: Axes,
    section: SectionPicture,
    values: Float[np.ndarray, " S"],
    ends: tuple[float, float],
    colours: str = COLOURS,
) -> None:
    """Draw every spot, coloured by its place between two ends, as :func:`scaled` says."""
    dots = spot_shapes(axis, section)
    dots.set(array=np.ma.masked_invalid(scaled(values, *ends)), cmap=colours, clim=(0, 1), linewidth=0)
    axis.add_collection(dots)


def spot_shapes(axis: Axes, section: SectionPicture) -> EllipseCollection:
    """The spots of a section in its pixels, to be coloured and added to ``axis``."""
    size = np.full(len(section.xy_px), section.spot_px)
    flat = np.zeros(len(section.xy_px))
    return EllipseCollection(size, size, flat, units="xy", offsets=section.xy_px, transOffset=axis.transData)


def value_range(values: Float[np.ndarray, " S"]) -> tuple[float, float]:
    """The values at the two ends of a panel's own colours: its 1st and 99th percentile."""
    low, high = np.nanpercentile(values, PERCENTILES)
    return float(low), float(high)


def gene_range(sections: Iterable[Float[np.ndarray, "P _"]]) -> tuple[float, float]:
    """The ends of one scale for all panels of a gene: the lowest and the highest of :func:`value_range`."""
    ranges = np.array([value_range(values) for panels in sections for values in panels if not np.isnan(values).all()])
    return float(ranges[:, 0].min()), float(ranges[:, 1].max())


def range_labels(low: float, high: float) -> tuple[str, str]:
    """Both ends of a scale as they are written, with as many decimals as tell them apart."""
    span = high - low
    decimals = 2 if span <= 0 else int(np.clip(np.ceil(1 - np.log10(span)), 2, 9))
    return f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def scaled(values: Float[np.ndarray, " S"], low: float, high: float) -> Float[np.ndarray, " S"]:
    """Values as places in the colours, 0 to 1; what lies beyond the ends has their colour."""
    if high == low:
        return np.where(np.isnan(values), np.nan, (values > high).astype(float))
    return np.clip((values - low) / (high - low), 0, 1)


def scale_bar_um(width_um: float) -> int:
    """A round length for a scale bar: up to a third of what is shown."""
    steps = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
    return max(step for step in steps if step <= max(width_um / 3, steps[0]))


def length_label(length_um: int) -> str:
    """A scale bar's length as it is written beside it."""
    return f"{length_um} \u00b5m" if length_um < 1000 else f"{length_um / 1000:g} mm"


def _paled(tissue: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    grey = tissue @ np.array([0.299, 0.587, 0.114])
    return np.repeat((255 - PALE * (255 - grey))[..., None], 3, axis=2).astype(np.uint8)
