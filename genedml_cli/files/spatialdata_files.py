"""SpatialData stores (``.zarr``) of any origin: their table of spots, with places in level-0 pixels."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from genedml.errors import GeneDMLError, reading

STORE = ".zarr"
OWN = "genedml"
"""In ``uns`` of a table that this program wrote: its coordinate system ``global`` is level-0 pixels."""
GLOBAL = "global"


@dataclass(frozen=True)
class StoreImage:
    """The image of a store whose pixels the places are.

    Args:
        name: in the store.
        size_px: width and height.
    """

    name: str
    size_px: tuple[int, int]


def read_store(path: Path) -> tuple[anndata.AnnData, StoreImage | None]:
    """The table of a store, with ``obsm["spatial"]``: centres of its shapes as pixels of its largest image.

    In a store that genedml wrote, and in one without images, they are those of the coordinate system ``global``, and
    the image is None.

    Raises:
        GeneDMLError: spatialdata is not installed, no store, several tables or sections, or spots that are no shapes.
    """
    if find_spec("spatialdata") is None:
        raise GeneDMLError(f"{path} needs the package spatialdata. Install it with: pip install 'genedml[spatialdata]'")
    from spatialdata import read_zarr

    with reading(f"The store {path}", "Give a SpatialData store, whole, or .h5ad."), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats and of libraries; what is wrong with a store is an error
        store = read_zarr(path)
        if len(store.tables) != 1:
            named = ", ".join(store.tables)
            raise ValueError(f"it holds {len(store.tables)} tables ({named}), where one is due")
        table = next(iter(store.tables.values()))
        shapes = _shapes_of(store, table)
        rows = table.obs[table.uns["spatialdata_attrs"]["instance_key"]]
        centres = shapes.loc[rows.to_numpy()].geometry.centroid
        xy = np.column_stack([centres.x, centres.y])
        name = None if OWN in table.uns else _largest(store.images)
        affine = _to_pixels(store, shapes, name)
        data = table.copy()
        data.obsm["spatial"] = xy @ affine[:2, :2].T + affine[:2, 2]
        return data, None if name is None else StoreImage(name, _size_of(store.images[name]))


def _shapes_of(store: Any, table: anndata.AnnData) -> Any:
    """The shapes that a table is of."""
    said = table.uns["spatialdata_attrs"]
    regions = [said["region"]] if isinstance(said["region"], str) else list(said["region"])
    if len(regions) != 1:
        raise ValueError(f"its table is of {len(regions)} regions ({', '.join(map(str, regions))}), where one is due")
    if regions[0] not in store.shapes:
        raise ValueError(f"its table is of {regions[0]}, which are no shapes")
    return store.shapes[regions[0]]


def _largest(images: Mapping[str, Any]) -> str | None:
    """The image of the most pixels; None of none."""
    return max(images, key=lambda name: math.prod(_size_of(images[name])), default=None)


def _to_pixels(store: Any, shapes: Any, image: str | None) -> np.ndarray:
    """[3 3] from the shapes to pixels of an image of the store, or to the coordinate system ``global``."""
    from spatialdata.transformations import get_transformation, get_transformation_between_coordinate_systems

    if image is None:
        transformation = get_transformation(shapes, GLOBAL)
    else:
        transformation = get_transformation_between_coordinate_systems(store, shapes, store.images[image])
    return np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)


def _size_of(image: Any) -> tuple[int, int]:
    """Width and height of its finest level."""
    from spatialdata import get_pyramid_levels
    from xarray import DataTree

    finest = next(iter(get_pyramid_levels(image))) if isinstance(image, DataTree) else image
    return int(finest.sizes["x"]), int(finest.sizes["y"])
