"""HEST-1k's patch files, ``patches/ID.h5``: one tile around every spot under tissue, where no slide is needed.

A file holds ``img`` (N x 224 x 224 x 3, 8 bit, 0.5 um/px), ``barcode`` (the spots' names) and ``coords`` (left upper
corners in level-0 pixels); ``img`` says by its attribute ``downsample`` how many level-0 pixels one of its pixels is.
Letters: N tiles, S spots.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int, UInt8

from genedml.config import ViewsConfig
from genedml.errors import GeneDMLError, reading
from genedml_cli.files.hdf5 import opened_h5
from genedml_cli.slides.slide_files import Watched

PATCHES_SUFFIX = ".h5"
PATCHES_UM_PER_PX = 0.5


class PatchFile:
    """An open patch file.

    Args:
        path: the file.
        file: the same, open.
        watched: the same, since before it was opened.

    Raises:
        KeyError, ValueError: it is no patch file.
    """

    def __init__(self, path: Path, file: h5py.File, watched: Watched) -> None:
        self.path = path
        self._watched = watched
        self._file = file
        self._images = file["img"]
        names = np.asarray(file["barcode"]).reshape(-1)
        self.names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
        self.corners_xy: Int[np.ndarray, "N 2"] = np.asarray(file["coords"]).astype(np.int64)
        self.um_per_px = PATCHES_UM_PER_PX / float(self._images.attrs["downsample"])
        self.tile_px = self._images.shape[1]
        if self._images.shape != (len(self.names), self.tile_px, self.tile_px, 3) or self._images.dtype != np.uint8:
            raise ValueError(f"img is {self._images.dtype} of shape {self._images.shape} for {len(self.names)} spots")
        if self.corners_xy.shape != (len(self.names), 2):
            raise ValueError(f"coords have the shape {self.corners_xy.shape} for {len(self.names)} spots")
        if len(set(self.names)) < len(self.names) or not 0 < self.um_per_px < float("inf"):
            raise ValueError("it names spots twice, or has no downsample")

    def places(self, names: Sequence[str]) -> Int[np.ndarray, " S"]:
        """Row of each spot's tile, -1 for those without one."""
        return pd.Index(self.names).get_indexer(pd.Index(names)).astype(np.int64)

    def read(self, rows: Int[np.ndarray, " N"]) -> UInt8[np.ndarray, "N 224 224 3"]:
        """Some tiles, in the order asked for.

        Raises:
            GeneDMLError: damaged, or another by now than was opened.
        """
        distinct, back = np.unique(rows, return_inverse=True)  # HDF5 reads rows in rising order only
        try:
            with reading(f"A tile of {self.path}", "Fetch it again."):
                return np.asarray(self._images[distinct])[back]
        finally:
            self._watched.check()

    def __enter__(self) -> "PatchFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def open_patches(path: Path, views: ViewsConfig | None = None) -> PatchFile:
    """Open a patch file, for a model with these views if given.

    Raises:
        GeneDMLError: unreadable or no patch file; views that need more of the slide than the tiles of the spots.
    """
    if views is not None and views.neighbor_grid > 1:
        raise GeneDMLError(
            f"{path} holds the spots' own tiles, but a neighbor grid of {views.neighbor_grid} x {views.neighbor_grid} "
            f"needs the slide wsis/{path.stem}.tif, which is missing. Fetch it (genedml data fetch without --patches), "
            "or train without neighbors: --set views.neighbor_grid=1"
        )
    with reading(f"{path} is no patch file of HEST-1k: it", "Fetch it again."):
        watched = Watched(path)
        with opened_h5(path, read=("barcode", "coords")):
            pass
        file = h5py.File(path, "r")
        try:
            patches = PatchFile(path, file, watched)
        except Exception:
            file.close()
            raise
    if views is not None and (patches.tile_px, PATCHES_UM_PER_PX) != (views.tile_px, views.um_per_px):
        wanted = "level 0" if views.um_per_px == "native" else f"{views.um_per_px:g} um/px"
        raise GeneDMLError(
            f"{path} holds tiles of {patches.tile_px} px at {PATCHES_UM_PER_PX} um/px; the model takes {views.tile_px} "
            f"px at {wanted}. Fetch the slide wsis/{path.stem}.tif, from which any tile can be cut."
        )
    return patches
