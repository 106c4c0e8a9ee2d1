"""From a prediction to clusters of spots and their marker genes, with scanpy.

python examples/scanpy_clusters.py out.h5ad figures/

Predicted labels are logarithms or residuals already, and smoothed over neighbouring spots: nothing is normalised here.
Neighbouring spots are no independent observations, and the clusters were made from the genes that are then tested:
p-values of the markers are only a ranking, so none is printed.
"""

import warnings
from pathlib import Path

import matplotlib
import pandas as pd
import scanpy
import typer

matplotlib.use("Agg")

# scanpy points to squidpy for pictures over tissue; examples/squidpy_neighbors.py draws them so.
warnings.filterwarnings("ignore", "(?s).*spatial_scatter", FutureWarning)


def main(prediction: Path, figures: Path, resolution: float = 0.6, markers: int = 5) -> None:
    """Cluster the spots of PREDICTION (an .h5ad of genedml predict), find marker genes, draw both into FIGURES."""
    figures.mkdir(parents=True, exist_ok=True)
    data = scanpy.read_h5ad(prediction)
    print(f"{prediction}: {data.n_obs} spots x {data.n_vars} genes, in {data.uns['genedml']['label']}")

    scanpy.pp.pca(data, n_comps=min(20, data.n_obs - 1, data.n_vars - 1))
    scanpy.pp.neighbors(data, n_neighbors=min(15, data.n_obs - 1))
    scanpy.tl.leiden(data, resolution=resolution, flavor="igraph", n_iterations=2)
    sizes = data.obs["leiden"].value_counts()
    # A cluster of one spot has no spread to compare by.
    several = [cluster for cluster in data.obs["leiden"].cat.categories if sizes[cluster] > 1]
    if len(several) < 2:
        raise SystemExit(f"{len(several)} cluster of several spots: nothing to compare; try a larger --resolution.")
    scanpy.tl.rank_genes_groups(data, "leiden", groups=several, method="t-test")

    found = {}
    for cluster in several:
        genes = scanpy.get.rank_genes_groups_df(data, cluster)["names"].head(markers)
        inside = data.obs["leiden"] == cluster
        above = data[inside, genes].to_df().mean() - data[~inside, genes].to_df().mean()
        found[cluster] = list(genes)
        print(f"cluster {cluster}, {sizes[cluster]} spots: {', '.join(f'{gene} {above[gene]:+.2f}' for gene in genes)}")

    left, top = data.obsm["spatial"].min(axis=0)
    right, bottom = data.obsm["spatial"].max(axis=0)
    margin = 0.05 * max(right - left, bottom - top)
    window = (left - margin, right + margin, top - margin, bottom + margin)
    shown = ["leiden", *pd.unique(pd.Series([genes[0] for genes in found.values()]))]
    panels = scanpy.pl.spatial(data, color=shown, crop_coord=window, ncols=3, frameon=False, show=False)
    panels[0].figure.savefig(figures / "clusters.png", dpi=150, bbox_inches="tight")
    grid = scanpy.pl.rank_genes_groups_matrixplot(
        data, n_genes=markers, standard_scale="var", dendrogram=False, return_fig=True
    )
    grid.savefig(figures / "markers.png", dpi=150, bbox_inches="tight")
    print(f"Pictures: {figures / 'clusters.png'}, {figures / 'markers.png'}")


if __name__ == "__main__":
    typer.run(main)
