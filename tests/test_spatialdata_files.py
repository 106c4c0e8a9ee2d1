"""SpatialData stores read as spots and counts: places in pixels of the image, and what export wrote reads back."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hostile import small_prediction
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.expression.counts import read_counts
from genedml_cli.files import spatialdata_files
from genedml_cli.outputs.formats import write
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots

pytest.importorskip("spatialdata")
XY_UM = np.array([[10.0, 20], [30, 20], [10, 40], [30, 45]])
COUNTS = np.array([[3, 0, 1], [0, 9, 2], [4, 4, 4], [1, 0, 7]], dtype=np.float32)
NAMES = ("a", "b", "c", "d")


def write_store(path: Path, tables: int = 1) -> Path:
    """Shapes in um, an H&E image of .5 um/px that begins at (2, 4) um and a smaller one; rows in another order."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale, Sequence, Translation

    shapes = ShapesModel.parse(
        XY_UM, geometry=0, radius=5.0, index=pd.Index(NAMES), transformations={"global": Identity()}
    )
    images = {}
    for name, side, um_per_px in (("he", 120, 0.5), ("thumbnail", 12, 5.0)):
        to_um = Sequence([Scale([um_per_px] * 2, axes=("x", "y")), Translation([2, 4], axes=("x", "y"))])
        pixels = np.zeros((3, side, side), np.uint8)
        images[name] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"global": to_um})
    order = [2, 0, 3, 1]
    obs = pd.DataFrame({"region": pd.Categorical(["shapes"] * 4), "spot": np.array(NAMES)[order]})
    obs.index = [NAMES[row] for row in order]
    table = anndata.AnnData(COUNTS[order], obs, pd.DataFrame(index=["GNAS", "FASN", "ERBB2"]))
    table = TableModel.parse(table, region="shapes", region_key="region", instance_key="spot")
    named = {f"table{number}": table.copy() for number in range(tables)}
    SpatialData(images=images, shapes={"shapes": shapes}, tables=named).write(path)
    return path


def test_spots_are_pixels_of_the_largest_image_and_counts_are_those_of_the_table(tmp_path):
    path = write_store(tmp_path / "s.zarr")
    spots, counts = read_spots(path), read_counts(path)
    assert spots.names == ("c", "a", "d", "b")  # as the table has them
    assert np.allclose(spots.xy_px, ((XY_UM - (2, 4)) / 0.5)[[2, 0, 3, 1]])
    assert (counts.to_df().loc[list(NAMES)].to_numpy() == COUNTS).all()


@pytest.mark.parametrize("side", [120, 121])
def test_a_slide_as_large_as_the_largest_image_is_taken(side, tmp_path):
    Image.new("RGB", (side, side)).save(tmp_path / "he.png")
    with open_section(tmp_path / "he.png", read_spots(write_store(tmp_path / "s.zarr")), 0.5) as slide:
        assert slide.size_px == (side, side)


def test_a_slide_that_is_larger_than_the_largest_image_is_refused_with_what_to_give(tmp_path):
    Image.new("RGB", (240, 240)).save(tmp_path / "full.png")
    spots = read_spots(write_store(tmp_path / "s.zarr"))
    refused = (
        r"full\.png \(240 x 240 px\) is not as large as he \(120 x 120 px\).*Give that image as the slide, a store"
    )
    with pytest.raises(GeneDMLError, match=refused):
        open_section(tmp_path / "full.png", spots, 0.25)


def test_what_export_wrote_reads_back(tmp_path):
    data = small_prediction()
    write(data, tmp_path / "out.h5ad")
    write(data, tmp_path / "out.zarr")
    store, file = read_spots(tmp_path / "out.zarr"), read_spots(tmp_path / "out.h5ad")
    assert store.names == file.names
    assert np.array_equal(store.xy_px, file.xy_px)
    assert np.array_equal(store.array_xy, file.array_xy)
    assert store.image is None  # its image is small, its places are level-0 pixels


def test_stores_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    with pytest.raises(GeneDMLError, match=r"two\.zarr cannot be read: it holds 2 tables \(table0, table1\)"):
        read_spots(write_store(tmp_path / "two.zarr", tables=2))
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(GeneDMLError, match=r"The store .*empty\.zarr cannot be read"):
        read_counts(tmp_path / "empty.zarr")
    monkeypatch.setattr(spatialdata_files, "find_spec", lambda name: None)
    with pytest.raises(GeneDMLError, match=r"needs the package spatialdata\. Install it with: pip install"):
        read_spots(tmp_path / "two.zarr")
