"""Pictures of predictions over the tissue. Letters: S spots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from jaxtyping import Float
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from genedml_cli.metrics import pcc
from genedml_cli.storage import arriving

COLOURS = "viridis"  # even in lightness, so it reads without colour vision
PANEL_INCHES = 3.4


def draw_genes(data: anndata.AnnData, truth: Float[np.ndarray, "S M"], genes: Sequence[str], path: Path) -> None:
    """Tissue, truth and prediction of each gene side by side, a row a gene, with a scale bar.

    Truth and prediction of a gene share one colour scale, from the 2nd to the 98th percentile of both.

    Args:
        data: a prediction with ``uns["spatial"]``.
        truth: labels of the same spots and genes; NaN where a spot has none.
        genes: which.
        path: ``.png``, ``.pdf`` or ``.svg``.
    """
    figure = Figure(figsize=(3 * PANEL_INCHES + 0.9, len(genes) * PANEL_INCHES + 0.3), layout="constrained")
    axes = figure.subplots(len(genes), 3, squeeze=False)
    for row, gene in zip(axes, genes, strict=True):
        column = data.var_names.get_loc(gene)
        pair = {"measured": truth[:, column], "predicted": np.asarray(data.X)[:, column]}
        limits = np.nanpercentile(np.concatenate(list(pair.values())), (2, 98))
        known = ~np.isnan(pair["measured"])
        score = pcc(pair["measured"][known, None], pair["predicted"][known, None])[0]
        _draw_tissue(row[0], data)
        row[0].set_title("tissue", fontsize=10)
        for axis, (name, values) in zip(row[1:], pair.items(), strict=True):
            _draw_tissue(axis, data, faded=True)
            dots = _draw_spots(axis, data, values, limits)
            axis.set_title(f"{gene} {name}" + (f", PCC {score:.2f}" if name == "predicted" else ""), fontsize=10)
        figure.colorbar(dots, ax=row[2], fraction=0.046, label=_unit(data))
    with arriving(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_tissue(axis: Any, data: anndata.AnnData, faded: bool = False) -> None:
    entry = next(iter(data.uns["spatial"].values()))
    image, factors = entry["images"]["hires"], entry["scalefactors"]
    height, width = (side / factors["tissue_hires_scalef"] for side in image.shape[:2])
    axis.imshow(image, extent=(0, width, height, 0), alpha=0.35 if faded else 1.0, interpolation="antialiased")
    xy, margin = data.obsm["spatial"], 2 * factors["spot_diameter_fullres"]
    axis.set_xlim(max(0, xy[:, 0].min() - margin), min(width, xy[:, 0].max() + margin))
    axis.set_ylim(min(height, xy[:, 1].max() + margin), max(0, xy[:, 1].min() - margin))
    axis.set_xticks([])
    axis.set_yticks([])
    if "um_per_px" in entry["metadata"]:
        _draw_scale_bar(axis, entry["metadata"]["um_per_px"])


def _draw_spots(axis: Any, data: anndata.AnnData, values: Float[np.ndarray, " S"], limits: Sequence[float]) -> Any:
    entry = next(iter(data.uns["spatial"].values()))
    size = np.full(data.n_obs, entry["scalefactors"]["spot_diameter_fullres"])
    dots = EllipseCollection(
        size, size, np.zeros(data.n_obs), units="xy", offsets=data.obsm["spatial"], transOffset=axis.transData
    )
    dots.set(array=np.ma.masked_invalid(values), cmap=COLOURS, clim=tuple(limits), linewidth=0)
    axis.add_collection(dots)
    return dots


def _draw_scale_bar(axis: Any, um_per_px: float) -> None:
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    wanted_um = (right - left) * um_per_px / 5
    length_um = max(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if step <= max(wanted_um, 10))
    x, y = left + 0.04 * (right - left), bottom + 0.04 * (top - bottom)
    axis.plot([x, x + length_um / um_per_px], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    label = f"{length_um} um" if length_um < 1000 else f"{length_um / 1000:g} mm"
    axis.text(x, y + 0.02 * (top - bottom), label, fontsize=8, va="bottom")


def _unit(data: anndata.AnnData) -> str:
    return "log10(1 + counts per 10,000)" if data.uns["log1p"].get("base") == 10 else "ln(1 + counts per 10,000)"
