"""A synthetic data set of four patients in HEST-1k's layout, and its row for the table of data sets."""

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from genedml_cli.datasets.datasets import Dataset, Section
from genedml_cli.datasets.synthetic import SyntheticConfig, gene_names, make_section, paint, write_slide

WORLD = SyntheticConfig(patients=4, spots_x=6, spots_y=5, genes=20)
TILE_PX = 224


def write_hest(folder: Path) -> Dataset:
    """Write ``wsis``, ``st`` and ``patches`` of four patients in two folds.

    The first spot of each section has no tile, as where tissue is thin.
    """
    for part in ("wsis", "st", "patches"):
        (folder / part).mkdir(parents=True)
    sections = []
    for patient in range(1, WORLD.patients + 1):
        section, hest_id = make_section(WORLD, patient, 1), f"SYN{patient}"
        image = paint(section)
        write_slide(folder / "wsis" / f"{hest_id}.tif", image, WORLD.um_per_px)
        write_spots(folder / "st" / f"{hest_id}.h5ad", section.names, section.xy_px, section.counts)
        write_patches(folder / "patches" / f"{hest_id}.h5", image, section.names[1:], section.xy_px[1:])
        fold = str((patient - 1) // 2)
        sections.append(Section(f"S{patient}", hest_id, f"P{patient}", f"P{patient}", fold, 0.5, len(section.names)))
    return Dataset("tiny-hest", "Spatial Transcriptomics", WORLD.pitch_um, "MIT", "synthetic", tuple(sections))


def write_spots(path: Path, names: tuple[str, ...], xy_px: np.ndarray, counts: np.ndarray) -> None:
    """As HEST-1k writes ST: the first number of a name is array_row, positions are (x, y) in level-0 pixels."""
    first, second = np.array([[int(number) for number in name.split("x")] for name in names]).T
    obs = pd.DataFrame({"in_tissue": True, "array_row": first, "array_col": second}, index=list(names))
    obs["pxl_col_in_fullres"], obs["pxl_row_in_fullres"] = xy_px.T
    var = pd.DataFrame(index=list(gene_names(WORLD)))
    data = anndata.AnnData(csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
    data.obsm["spatial"] = xy_px
    data.uns["spatial"] = {"ST": {"images": {}, "scalefactors": {"spot_diameter_fullres": 200.0}}}
    data.write_h5ad(path)


def write_patches(path: Path, image: np.ndarray, names: tuple[str, ...], xy_px: np.ndarray) -> None:
    """Tiles around spots with their left upper corners."""
    corners = xy_px.astype(int) - TILE_PX // 2
    with h5py.File(path, "w") as file:
        file["img"] = np.stack([image[y : y + TILE_PX, x : x + TILE_PX] for x, y in corners])
        file["img"].attrs.update(downsample=1.0, patch_size_src=TILE_PX, patch_size_target=TILE_PX, pixel_size=0.5)
        file["coords"] = corners
        file["barcode"] = np.array(names, dtype="S")[:, None]
