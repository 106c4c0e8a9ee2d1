"""Bins of Visium HD summed into spots: every count where a plain loop puts it, centres and um/px by the bins' pitch."""

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from genedml.errors import GeneDMLError
from genedml_cli.app import app
from genedml_cli.expression.counts import read_counts
from genedml_cli.prediction.prediction import predict
from genedml_cli.pseudo_spots import visium_hd
from genedml_cli.pseudo_spots.binning import bin_section
from genedml_cli.pseudo_spots.packing import Packing
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots

ROWS, COLUMNS, BIN_UM = 60, 75, 2
GENES = ("GNAS", "FASN", "ERBB2")
IDS = tuple(f"ENSG{number:011}" for number in range(1, 4))
STEP_PX = np.array([[4.0, 0.2], [-0.2, 4.0]])  # of a column, of a row: half a micrometre a pixel, a little turned
UM_PER_PX = BIN_UM / np.linalg.norm(STEP_PX[0])


def places() -> np.ndarray:
    """Column and row of every bin."""
    return np.array([(column, row) for row in range(ROWS) for column in range(COLUMNS)])


def pixels(array_xy: np.ndarray) -> np.ndarray:
    return np.array([40.0, 30.0]) + array_xy @ STEP_PX


def bin_counts() -> np.ndarray:
    return np.random.default_rng(3).poisson(0.3, (ROWS * COLUMNS, 3))


def under_tissue() -> np.ndarray:
    """All but the columns at the right."""
    return places()[:, 0] < 60


def barcodes(array_xy: np.ndarray, um: int = BIN_UM) -> list[str]:
    return [f"s_{um:03}um_{row:05}_{column:05}-1" for column, row in array_xy]


def write_bins(outs: Path) -> Path:
    """As Space Ranger 3 and 4 write bins of 2 um; positions and barcodes are in orders of their own."""
    folder = outs / "binned_outputs" / "square_002um"
    (folder / "spatial").mkdir(parents=True)
    array_xy, under = places(), under_tissue()
    x, y = pixels(array_xy).T
    positions = {"barcode": barcodes(array_xy), "in_tissue": under.astype(np.int64)}
    positions |= {"array_row": array_xy[:, 1], "array_col": array_xy[:, 0]}
    positions |= {"pxl_row_in_fullres": y, "pxl_col_in_fullres": x}
    table = pd.DataFrame(positions).sample(frac=1, random_state=1)
    table.to_parquet(folder / "spatial" / "tissue_positions.parquet", row_group_size=1000)
    factors = {"bin_size_um": 2.0, "microns_per_pixel": 4.3, "tissue_hires_scalef": 0.5}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    order = np.random.default_rng(0).permutation(np.flatnonzero(under))
    write_matrix(folder / "filtered_feature_bc_matrix.h5", bin_counts()[order], barcodes(array_xy[order]))
    return outs


def write_matrix(path: Path, counts: np.ndarray, names: list[str]) -> None:
    table = csr_matrix(counts.astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S")
        for name, values in (("data", table.data), ("indices", table.indices.astype(np.int64))):
            group.create_dataset(name, data=values, chunks=(500,), compression="gzip")
        group["indptr"], group["shape"] = table.indptr.astype(np.int64), np.array(counts.shape[::-1], dtype=np.int32)
        kinds = ("Gene Expression",) * 3
        for name, values in (("id", IDS), ("name", GENES), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array(values, dtype="S")


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    return write_bins(tmp_path / "outs")


def plain_sums(um: float, grid: str) -> dict[tuple[int, int], np.ndarray]:
    """Counts of every spot that is at least half under tissue, bin by bin and spot by spot."""
    step = np.array([um, um]) if grid == "square" else np.array([um / 2, um * 3**0.5 / 2])
    candidates = [(x, y) for y in range(40) for x in range(80) if grid == "square" or (x + y) % 2 == 0]
    centres = (np.array(candidates) + (0.5 if grid == "square" else 0)) * step
    area = um**2 * (1 if grid == "square" else 3**0.5 / 2)
    sums: dict[tuple[int, int], np.ndarray] = {}
    bins: dict[tuple[int, int], int] = {}
    for place, counts, under in zip(places(), bin_counts(), under_tissue(), strict=True):
        apart = np.abs(centres - (place + 0.5) * BIN_UM)
        nearest = candidates[(apart.max(axis=1) if grid == "square" else np.hypot(*apart.T)).argmin()]
        if under:
            sums[nearest] = sums.get(nearest, np.zeros(3, int)) + counts
            bins[nearest] = bins.get(nearest, 0) + 1
    return {spot: counts for spot, counts in sums.items() if bins[spot] * BIN_UM**2 >= area / 2}


@pytest.mark.parametrize(("grid", "um"), [("square", 10), ("square", 14), ("hex", 21)])
def test_every_count_lies_in_the_spot_that_a_plain_loop_puts_it_into(grid, um, outs, tmp_path, monkeypatch):
    monkeypatch.setattr(visium_hd, "PART", 400)  # so that the matrix comes in many parts
    bin_section(outs, tmp_path / "s.h5ad", um, grid)
    data, wanted = anndata.read_h5ad(tmp_path / "s.h5ad"), plain_sums(um, grid)
    found = dict(zip(zip(data.obs["array_col"], data.obs["array_row"], strict=True), data.X.toarray(), strict=True))
    assert found.keys() == wanted.keys()
    assert all((found[spot] == counts).all() for spot, counts in wanted.items())


@pytest.mark.parametrize("grid", ["square", "hex"])
def test_a_written_section_is_read_as_spots_and_counts_with_pixels_ids_and_um_per_px(grid, outs, tmp_path):
    file = tmp_path / "s.h5ad"
    section = bin_section(outs, file, 20, grid)
    spots, counts = read_spots(file), read_counts(file)
    step = np.array([20, 20]) if grid == "square" else np.array([10, 10 * 3**0.5])
    centres = (spots.array_xy + (0.5 if grid == "square" else 0)) * step / BIN_UM - 0.5
    assert np.allclose(spots.xy_px, pixels(centres), atol=1e-6)  # also at the edges, where bins are on one side alone
    assert section.um_per_px == pytest.approx(UM_PER_PX, rel=1e-9)
    assert (spots.lattice, spots.pitch_um, spots.summed_um) == (grid, 20, 20)
    assert spots.pitch_px == pytest.approx(20 / UM_PER_PX)
    assert spots.names == tuple(counts.obs_names)
    assert counts.var["gene_ids"].to_list() == list(IDS)
    assert counts.uns["raw"]
    assert spots.names[0].startswith("s_020um_0000")


def test_the_slide_takes_its_um_per_px_from_the_spots_and_a_wrong_one_is_refused(outs, tmp_path):
    Image.new("RGB", (400, 300)).save(tmp_path / "he.png")
    bin_section(outs, tmp_path / "s.h5ad", 20, "hex")
    spots = read_spots(tmp_path / "s.h5ad")
    with open_section(tmp_path / "he.png", spots) as slide:
        assert slide.um_per_px == pytest.approx(UM_PER_PX)
    with pytest.raises(GeneDMLError, match=r"um/px would be 0\.4994"):
        open_section(tmp_path / "he.png", spots, um_per_px=4.3)  # microns_per_pixel of the CytAssist image


def test_predict_takes_a_written_section_with_its_pixels_and_um_per_px(outs, run, tmp_path):
    noise = np.random.default_rng(0).integers(90, 220, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "he.png")
    section = bin_section(outs, tmp_path / "s.h5ad", 20, "square")
    predicted = predict(tmp_path / "he.png", tmp_path / "s.h5ad", run, allow_off_tissue=True)
    assert tuple(predicted.obs_names) == tuple(section.names)
    assert np.allclose(predicted.obsm["spatial"], section.xy_px)
    assert predicted.uns["genedml"]["um_per_px"] == pytest.approx(UM_PER_PX)


def test_spots_off_the_slide_are_counted_named_and_left_out(outs, tmp_path, capfd):
    Image.new("RGB", (150, 300)).save(tmp_path / "he.png")
    section = bin_section(outs, tmp_path / "s.h5ad", 20, "square", slide=tmp_path / "he.png")
    assert (section.xy_px[:, 0] < 150).all()
    whole = bin_section(outs, tmp_path / "all.h5ad", 20, "square")
    off = len(whole.names) - len(section.names)
    assert (
        f"{off} of {len(whole.names)} spots lie off he.png and are left out (first: s_020um_" in capfd.readouterr().err
    )
    assert off > 0


def test_the_command_says_what_it_made_and_what_comes_next(outs, tmp_path):
    out = tmp_path / "s.h5ad"
    done = CliRunner().invoke(app, ["data", "bin", str(outs), "--um", "20", "--grid", "square", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert f"{out}: 36 spots of 20 um x 3 genes." in done.output
    with pytest.raises(GeneDMLError, match="is there already"):
        bin_section(outs, out)


def test_the_finest_bins_are_taken_and_a_folder_of_bins_may_be_given(outs):
    for name in ("square_008um", "square_016um"):
        (outs / "binned_outputs" / name).mkdir()
    finest = outs / "binned_outputs" / "square_002um"
    assert visium_hd.finest_bins(outs) == visium_hd.finest_bins(outs / "binned_outputs") == finest
    assert visium_hd.finest_bins(outs / "binned_outputs" / "square_008um").name == "square_008um"
    assert visium_hd.finest_bins(outs.parent) == finest


def without_matrix(folder: Path) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()


def without_positions(folder: Path) -> None:
    (folder / "spatial" / "tissue_positions.parquet").unlink()


def cut_positions(folder: Path) -> None:
    file = folder / "spatial" / "tissue_positions.parquet"
    file.write_bytes(file.read_bytes()[:-100])


def of_other_bins(folder: Path) -> None:
    array_xy = places()
    write_matrix(folder / "filtered_feature_bc_matrix.h5", bin_counts(), barcodes(array_xy, 8))


def of_cells(folder: Path) -> None:
    names = [f"cellid_{number:09}-1" for number in range(len(places()))]
    write_matrix(folder / "filtered_feature_bc_matrix.h5", bin_counts(), names)


def with_a_gene_outside(folder: Path) -> None:
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/indices"][5] = 9


def with_negative_counts(folder: Path) -> None:
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/data"][5] = -1


def off_tissue(folder: Path) -> None:
    file = folder / "spatial" / "tissue_positions.parquet"
    pd.read_parquet(file).assign(in_tissue=0).to_parquet(file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_matrix, r"square_002um holds no filtered_feature_bc_matrix\.h5, so there is nothing to sum"),
        (without_positions, "is a folder without spatial"),
        (cut_positions, r"The positions .*tissue_positions\.parquet cannot be read"),
        (of_other_bins, r"its barcodes, such as b's_008um_00000_00000-1', are not those of bins of 2 um"),
        (of_cells, "its barcodes, such as b'cellid_000000000-1', are not those of bins"),
        (with_a_gene_outside, "it has counts outside its table, or below 0"),
        (with_negative_counts, "it has counts outside its table, or below 0"),
        (off_tissue, "No spot is left of 2 um bins of Visium HD"),
    ],
)
def test_folders_that_are_damaged_say_so_and_leave_nothing(change, sentence, outs, tmp_path):
    change(outs / "binned_outputs" / "square_002um")
    with pytest.raises(GeneDMLError, match=sentence):
        bin_section(outs, tmp_path / "s.h5ad", 20)
    assert [file.name for file in tmp_path.iterdir()] == ["outs"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"outs": "gone"}, "There is no folder .*gone"),
        ({"outs": "empty"}, r"empty holds neither bins of Visium HD .* nor transcripts of Xenium"),
        ({"um": 1.0}, r"--um 1 is less than the 2 um of the bins"),
        ({"out": "s.csv"}, r"s\.csv is to hold spots and counts: call it \.h5ad"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(words, sentence, outs, tmp_path):
    (tmp_path / "empty").mkdir()
    given = {name: tmp_path / value if isinstance(value, str) else value for name, value in words.items()}
    with pytest.raises(GeneDMLError, match=sentence):
        bin_section(**{"outs": outs, "out": tmp_path / "s.h5ad", **given})


def test_hexagons_are_counted_as_visium_counts_them_and_leave_no_gap():
    packing = Packing("hex", 100.0)
    xy_um = np.random.default_rng(0).uniform(0, 3000, (5000, 2))
    array_xy = packing.spots_at(xy_um)
    apart = np.linalg.norm(xy_um - packing.centres_um(array_xy), axis=1)
    assert ((array_xy.sum(axis=1) % 2 == 0) & (array_xy.min(axis=1) >= 0)).all()
    assert apart.max() <= 100 / 3**0.5
