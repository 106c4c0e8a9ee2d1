"""Predictions as SpatialData: tissue image, spots as circles and their table, in one zarr folder."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import anndata
import numpy as np

from genedml.errors import GeneDMLError
from genedml_cli.files.storage import atomic_folder
from genedml_cli.outputs.predictions import stored_spot_diameter_px

IMAGE, SPOTS, TABLE = "image", "spots", "table"
"""The elements' names, the same for every slide."""

PYRAMID = (2, 2)
"""Every level of the image over the next smaller one."""

ZARR_FILES = ("zarr.json", ".zgroup")


def check_zarr_path(path: Path) -> None:
    """Refuse a store that could not be written in the end.

    Raises:
        GeneDMLError: spatialdata is not installed, or something else has this name.
    """
    if find_spec("spatialdata") is None:
        raise GeneDMLError(f"{path} needs the package spatialdata. Install it with: pip install 'genedml[spatialdata]'")
    if path.exists() and not any((path / name).is_file() for name in ZARR_FILES):
        raise GeneDMLError(f"{path} is there and is no zarr store; it is not replaced. Give another name.")


def write_zarr(data: anndata.AnnData, path: Path) -> None:
    """Write a SpatialData store whose coordinate system ``global`` is level-0 pixels.

    Elements: the image ``image`` in a pyramid (not of sections of a run, whose predictions hold none), the shapes
    ``spots`` with their true radius, and ``table``, the prediction without its image.

    Raises:
        GeneDMLError: as :func:`check_zarr_path`, or it cannot be written.
    """
    check_zarr_path(path)
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    images = {}
    if "spatial" in data.uns:
        slide = next(iter(data.uns["spatial"].values()))
        level_0_px = 1 / float(slide["scalefactors"]["tissue_hires_scalef"])
        images[IMAGE] = Image2DModel.parse(
            np.moveaxis(np.asarray(slide["images"]["hires"]), -1, 0),
            dims=("c", "y", "x"),
            c_coords=["r", "g", "b"],
            scale_factors=list(PYRAMID),
            transformations={"global": Scale([level_0_px, level_0_px], axes=("x", "y"))},
        )
    circles = ShapesModel.parse(
        np.asarray(data.obsm["spatial"], dtype=np.float64),
        geometry=0,
        radius=stored_spot_diameter_px(data) / 2,
        index=data.obs_names,
        transformations={"global": Identity()},
    )
    table = data.copy()
    table.uns.pop("spatial", None)
    table.obs["region"], table.obs["spot"] = SPOTS, table.obs_names.to_numpy()
    table.obs["region"] = table.obs["region"].astype("category")
    table = TableModel.parse(table, region=SPOTS, region_key="region", instance_key="spot")
    with atomic_folder(path) as temporary, warnings.catch_warnings():
        # A notice to those who write zarr themselves, once for each array.
        warnings.filterwarnings("ignore", ".*autosharding", UserWarning)
        SpatialData(images=images, shapes={SPOTS: circles}, tables={TABLE: table}).write(temporary)
