"""From a prediction to spatially structured genes, with squidpy.

python examples/squidpy_neighbors.py out.h5ad figures/

Needs `pip install squidpy`. Predicted labels are logarithms already, and smoothed over neighbouring spots: Moran's I of
every gene is higher than it would be of measured counts. So nothing is normalised here, no p-value is printed, and the
values are only a ranking of the genes of one prediction: they do not compare with those of measured data.
"""

from pathlib import Path

import matplotlib
import numpy as np
import typer
from anndata import read_h5ad
from matplotlib import pyplot
from scipy.spatial import cKDTree

try:
    import squidpy
except ModuleNotFoundError:
    raise SystemExit("This script needs squidpy: pip install squidpy") from None

matplotlib.use("Agg")

TO_NEXT_RING = 1.55
"""Pitches: the diagonal of a square grid (1.41) is a neighbour, the second ring of a hexagonal one (1.73) is not."""


def main(prediction: Path, figures: Path, shown: int = 3) -> None:
    """Rank the genes of PREDICTION (an .h5ad of genedml predict) by Moran's I and draw the first into FIGURES."""
    figures.mkdir(parents=True, exist_ok=True)
    data = read_h5ad(prediction)
    print(f"{prediction}: {data.n_obs} spots x {data.n_vars} genes, in {data.uns['genedml']['label']}")

    # squidpy takes every array for a hexagonal one; a radius is right for square ones too.
    places = data.obsm["spatial"]
    pitch_px = np.median(cKDTree(places).query(places, k=2)[0][:, 1])
    squidpy.gr.spatial_neighbors_radius(data, radius=TO_NEXT_RING * pitch_px)
    neighbors = data.obsp["spatial_connectivities"].sum(axis=1).mean()
    print(f"{neighbors:.1f} neighbours a spot within {TO_NEXT_RING * pitch_px:.0f} px")

    squidpy.gr.spatial_autocorr(data, mode="moran", show_progress_bar=False)
    ranked = data.uns["moranI"]["I"].dropna().sort_values(ascending=False)
    print("most structured:  " + ", ".join(f"{gene} {value:.2f}" for gene, value in ranked.head(shown).items()))
    print("least structured: " + ", ".join(f"{gene} {value:.2f}" for gene, value in ranked.tail(shown).items()))

    genes = list(ranked.head(shown).index)
    panels = squidpy.pl.spatial_scatter(data, color=genes, ncols=shown, frameon=False, return_ax=True)
    # The panels are in pixels of the smaller image; show the spots and two pitches around them.
    to_hires = next(iter(data.uns["spatial"].values()))["scalefactors"]["tissue_hires_scalef"]
    left, top = (places.min(axis=0) - 2 * pitch_px) * to_hires
    right, bottom = (places.max(axis=0) + 2 * pitch_px) * to_hires
    for panel in panels if isinstance(panels, list) else [panels]:
        panel.set(xlim=(left, right), ylim=(bottom, top))
    pyplot.savefig(figures / "structured.png", dpi=150, bbox_inches="tight")
    print(f"Picture: {figures / 'structured.png'}")


if __name__ == "__main__":
    typer.run(main)
