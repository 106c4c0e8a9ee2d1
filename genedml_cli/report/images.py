"""Sections as images inside a page. Letters: S spots."""

import base64
import io
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from PIL import Image

from genedml_cli.figures.maps import (
    COLOURS,
    SectionPicture,
    gene_range,
    length_label,
    range_labels,
    scale_bar_um,
    show_spots,
    show_tissue,
    spot_shapes,
)
from genedml_cli.report.contents import Picture
from genedml_cli.report.preview import ON_TISSUE

MAP_PX, TISSUE_PX = (440, 560), (1040, 900)  # the box an image fits into
NOVELTY_COLOURS = "plasma"  # as even as that of genes, and not to be taken for it
QUALITY = 82
STOPS = 11


def small(section: SectionPicture) -> SectionPicture:
    """The section with no more pixels of tissue than its maps show."""
    if section.tissue is None:
        return section
    left, right, top, bottom = section.window_px
    scale = min(MAP_PX[0] / (right - left), MAP_PX[1] / (bottom - top))
    if scale >= section.tissue_scale:
        return section
    rows, columns = section.tissue.shape[:2]
    width, height = (max(1, round(side * scale / section.tissue_scale)) for side in (columns, rows))
    tissue = np.asarray(Image.fromarray(section.tissue).resize((width, height), Image.Resampling.BOX))
    return replace(section, tissue=tissue, tissue_scale=scale)


def tissue_picture(section: SectionPicture) -> Picture:
    """The tissue with the outlines of its spots, and a scale bar where um/px is known."""
    figure, axis = _window(section, TISSUE_PX)
    show_tissue(axis, section)
    for colour, width in (("black", 2.4), (ON_TISSUE, 1.2)):  # seen on dark and on light tissue
        dots = spot_shapes(axis, section)
        dots.set(facecolor="none", edgecolor=colour, linewidth=width)
        axis.add_collection(dots)
    caption = f"{len(section.xy_px):,} spots at their true size; "
    caption += "no scale bar, since \u00b5m/px is not known" if section.um_per_px is None else "the bar is "
    if section.um_per_px is not None:
        caption += _add_scale_bar(axis, section, section.um_per_px)
    return _picture(figure, f"The tissue of {section.name} with its spots", caption)


def tissue_jpeg(section: SectionPicture) -> str | None:
    """The tissue of a section's window as the data of an image, for the page's script to draw spots upon."""
    if section.tissue is None:
        return None
    figure, axis = _window(section, MAP_PX)
    show_tissue(axis, section)
    return _picture(figure, "", "").uri


def gene_pictures(section: SectionPicture, panels: Mapping[str, Float[np.ndarray, " S"]], gene: str) -> list[Picture]:
    """A gene over the section as each panel has it, by what the panel shows; all on one scale."""
    ends = gene_range([np.stack(list(panels.values()))])
    pictures = []
    for what, values in panels.items():
        figure, axis = _window(section, MAP_PX)
        show_tissue(axis, section, pale=True)
        show_spots(axis, section, values, ends)
        pictures.append(
            _picture(figure, f"{gene} {what} over the section", f"{what}, {' to '.join(range_labels(*ends))}")
        )
    return pictures


def novelty_picture(section: SectionPicture, novelty: Float[np.ndarray, " S"]) -> Picture:
    """Novelty of every spot, its colours from 0 to 1."""
    figure, axis = _window(section, MAP_PX)
    show_tissue(axis, section, pale=True)
    dots = spot_shapes(axis, section)
    dots.set(array=np.ma.masked_invalid(novelty), cmap=NOVELTY_COLOURS, clim=(0, 1), linewidth=0)
    axis.add_collection(dots)
    return _picture(figure, f"Novelty of the spots of {section.name}", "0 like the training slides, 1 unlike them")


def gradient(colours: str) -> str:
    """A colour map as stops of a CSS gradient."""
    return ", ".join(to_hex(colour) for colour in colormaps[colours](np.linspace(0, 1, STOPS)))


def gradients() -> dict[str, str]:
    """The gradients of both kinds of map."""
    return {"genes": gradient(COLOURS), "novelty": gradient(NOVELTY_COLOURS)}


def _window(section: SectionPicture, box_px: tuple[int, int]) -> tuple[Figure, Axes]:
    """A figure of pixels that holds the section's window and nothing else."""
    left, right, top, bottom = section.window_px
    scale = min(box_px[0] / (right - left), box_px[1] / (bottom - top))
    size = [max(1, round(scale * length)) / 100 for length in (right - left, bottom - top)]
    figure = Figure(figsize=(size[0], size[1]), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.set_axis_off()
    return figure, axis


def _add_scale_bar(axis: Axes, section: SectionPicture, um_per_px: float) -> str:
    """Draw it; returns its length in words."""
    left, right, _, _ = section.window_px
    length_um = scale_bar_um((right - left) * um_per_px)
    bar = AnchoredSizeBar(
        axis.transData,
        length_um / um_per_px,
        length_label(length_um),
        "lower left",
        size_vertical=(right - left) / 150,
        pad=0.5,
        sep=4,
        color="black",
        fill_bar=True,
        fontproperties=FontProperties(size=13),
    )
    bar.patch.set(alpha=0.85, linewidth=0)
    axis.add_artist(bar)
    return length_label(length_um)


def _picture(figure: Figure, alt: str, caption: str) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(uri, alt, caption, *image.size)
