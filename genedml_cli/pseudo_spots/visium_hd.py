"""Visium HD: bins of 2, 8 or 16 um -> pseudo-spots. Letters: N bins, B barcodes, S spots, G features.

The positions are read whole (five numbers a bin), the matrix in parts of :data:`PART` values.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.files.hdf5 import opened_h5
from genedml_cli.files.space_ranger import BINS_FOLDER, pictures_beside, positions_in
from genedml_cli.files.tenx import feature_table, features_of
from genedml_cli.machine.memory import check_memory
from genedml_cli.pseudo_spots.packing import Packing, numbered
from genedml_cli.pseudo_spots.section_file import PseudoSpots
from genedml_cli.spots.lattice import slopes

BINS = re.compile(r"square_(\d{3})um")
MATRICES = ("filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5")
COLUMNS = ("in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
MOST_BINS = 2**26
"""Of a table of positions; a slide of 11 x 11 mm has 30 million bins of 2 um."""
BYTES_A_BIN = 160
PART = 2**23
BARCODE = re.compile(rb"s_\d{3}um_(\d{5})_(\d{5})(-\d+)?")
FITTED = 2**17
"""Bins that the steps of the array are told by: they lie on it to the last digit."""
LEAST_UNDER_TISSUE = 0.5
"""Of a spot's area, for it to be a spot: at the edge of the tissue counts of less would be those of glass."""
FIX = "Give the folder outs that Space Ranger wrote for Visium HD, whole."


@dataclass(frozen=True)
class Bins:
    """The bins of a capture area, under tissue or not.

    Args:
        array_xy: column and row.
        under: whether it is under tissue.
        xy_px: centre in level-0 pixels.
        um: side.
    """

    array_xy: Int[np.ndarray, "N 2"]
    under: Bool[np.ndarray, " N"]
    xy_px: Float[np.ndarray, "N 2"]
    um: int


def finest_bins(outs: Path) -> Path | None:
    """The folder of the smallest bins of ``outs``, or ``outs`` itself if it is one; None where there are none."""
    if BINS.fullmatch(outs.name):
        return outs
    places = [place / BINS_FOLDER for place in (outs, outs / "outs")] + [outs]
    sizes = [folder for place in places if place.is_dir() for folder in place.iterdir() if BINS.fullmatch(folder.name)]
    return min(sizes, key=lambda folder: folder.name, default=None)


def sum_bins(folder: Path, packing: Packing) -> PseudoSpots:
    """The pseudo-spots of the bins of one size.

    A spot is centred where its array has it, by the pixels of the bins around; one of which less than half is under
    tissue is left out.

    Raises:
        GeneDMLError: files that are damaged, lacking or contradict each other; spots smaller than bins.
    """
    bins = _read_bins(folder)
    if packing.um < bins.um:
        raise GeneDMLError(f"--um {packing.um:g} is less than the {bins.um} um of the bins in {folder}. Give more.")
    array_xy, spot_of_bin = numbered(packing.spots_at((bins.array_xy + 0.5) * bins.um))
    xy_px, um_per_px = _centres(bins, spot_of_bin, array_xy, packing, folder)
    under = np.bincount(spot_of_bin[bins.under], minlength=len(array_xy)) * bins.um**2
    counts = _sum_matrix(_matrix_of(folder), bins, spot_of_bin, len(array_xy))
    whole = under >= LEAST_UNDER_TISSUE * packing.area_um2
    partly = int(((under > 0) & ~whole).sum())
    left_out = f"{console.count(partly, 'spot')} of which less than half is under tissue left out" if partly else ""
    source = f"{bins.um} um bins of Visium HD"
    pictures = pictures_beside(positions_in(folder))
    return PseudoSpots(array_xy, xy_px, counts, packing, um_per_px, source, left_out, pictures).some(whole)


def _read_bins(folder: Path) -> Bins:
    from pyarrow.parquet import ParquetFile

    file = positions_in(folder)
    size = BINS.fullmatch(folder.name)
    with reading(f"The positions {file}", FIX):
        table = ParquetFile(file)
        rows = table.metadata.num_rows
        if not 0 < rows <= MOST_BINS:
            raise ValueError(f"it has {rows} rows")
        check_memory(BYTES_A_BIN * rows)
        columns = table.read(columns=list(COLUMNS))
        under, row, column, y, x = (columns[name].to_numpy() for name in COLUMNS)
        array_xy, xy_px = np.column_stack([column, row]).astype(np.int32), np.column_stack([x, y]).astype(np.float64)
        if not np.isfinite(xy_px).all() or array_xy.min() < 0 or array_xy.max() >= MOST_BINS**0.5:
            raise ValueError("bins have no position, or one outside the array")
        if size is None or not int(size[1]):
            raise ValueError("its folder is not called square_002um or the like")
        return Bins(array_xy, np.asarray(under, dtype=np.int64) == 1, xy_px, int(size[1]))


def _centres(
    bins: Bins, spot_of_bin: Int[np.ndarray, " N"], array_xy: Int[np.ndarray, "S 2"], packing: Packing, folder: Path
) -> tuple[Float[np.ndarray, "S 2"], float]:
    """Centres of the spots in pixels, and um/px: from the mean of a spot's bins on by the steps of the array."""
    number = np.bincount(spot_of_bin)
    means = [np.bincount(spot_of_bin, values) / number for values in (*bins.array_xy.T, *bins.xy_px.T)]
    mean_array, mean_px = np.column_stack(means[:2]), np.column_stack(means[2:])
    some = np.random.default_rng(0).permutation(len(bins.xy_px))[:FITTED]
    step_px = slopes(bins.array_xy[some], bins.xy_px[some])
    if step_px is None or not np.linalg.norm(step_px, axis=1).min() > 0:
        raise GeneDMLError(f"The bins in {folder} lie on a line, so they tell no um/px. {FIX}")
    centres = packing.centres_um(array_xy) / bins.um - 0.5
    return mean_px + (centres - mean_array) @ step_px, bins.um / float(np.linalg.norm(step_px, axis=1).mean())


def _matrix_of(folder: Path) -> Path:
    there = next((folder / name for name in MATRICES if (folder / name).is_file()), None)
    if there is None:
        raise GeneDMLError(f"{folder} holds no {MATRICES[0]}, so there is nothing to sum. {FIX}")
    return there


def _sum_matrix(matrix: Path, bins: Bins, spot_of_bin: Int[np.ndarray, " N"], spots: int) -> anndata.AnnData:
    """Counts of every spot: those of its bins under tissue."""
    spot_at = np.full(bins.array_xy.max(axis=0)[::-1] + 1, -1, dtype=np.int32)
    columns, rows = bins.array_xy[bins.under].T
    spot_at[rows, columns] = spot_of_bin[bins.under]
    with reading(f"The counts {matrix}", FIX), opened_h5(matrix, streamed=True) as file:
        group = file["matrix"]
        features = features_of(group)
        total = csr_matrix((spots, len(features.ids)), dtype=np.int64)
        with console.progress("Parts", -(-group["data"].size // PART)) as advance:
            for barcodes, part in _parts(group, len(features.ids)):
                spot = _spots_of(barcodes, spot_at, bins.um)
                known = np.flatnonzero(spot >= 0)
                ones = np.ones(len(known), np.int64)
                total = total + csr_matrix((ones, (spot[known], known)), (spots, len(spot))) @ part
                advance()
        return feature_table(total, [str(row) for row in range(spots)], features, matrix)


def _parts(group: h5py.Group, features: int) -> Iterator[tuple[np.ndarray, csr_matrix]]:
    """Barcodes and their counts [B G], some millions of values at a time."""
    ends = group["indptr"][:].astype(np.int64)
    if list(group["shape"][:]) != [features, len(ends) - 1] or len(group["barcodes"]) != len(ends) - 1:
        raise ValueError("its shape is not that of its barcodes and features")
    first = 0
    while first < len(ends) - 1:
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + PART, side="right")) - 1)
        values, genes = (group[name][ends[first] : ends[last]] for name in ("data", "indices"))
        if len(genes) and (genes.min() < 0 or genes.max() >= features or values.min() < 0):
            raise ValueError("it has counts outside its table, or below 0")
        part = values.astype(np.int64), genes.astype(np.int32), ends[first : last + 1] - ends[first]
        yield np.asarray(group["barcodes"][first:last]), csr_matrix(part, (last - first, features))
        first = last


def _spots_of(barcodes: np.ndarray, spot_at: Int[np.ndarray, "Y X"], um: int) -> Int[np.ndarray, " B"]:
    """The spot of every barcode such as ``s_002um_01234_00567-1``: row, then column; -1 where none is.

    Raises:
        ValueError: barcodes of another kind.
    """
    texts = barcodes.astype("S")
    pattern = BARCODE.fullmatch(texts[0])
    if pattern is None or not texts[0].startswith(b"s_%03dum_" % um):
        raise ValueError(f"its barcodes, such as {texts[0][:40]!r}, are not those of bins of {um} um")
    letters = np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), -1)
    digits = np.concatenate([letters[:, slice(*pattern.span(part))] for part in (1, 2)], axis=1).astype(np.int64) - 48
    same = np.ones(letters.shape[1], dtype=bool)
    for part in (1, 2):
        same[slice(*pattern.span(part))] = False
    if (digits < 0).any() or (digits > 9).any() or (letters[:, same] != letters[0, same]).any():
        raise ValueError("its barcodes are not all named in one way")
    row, column = (digits[:, part : part + 5] @ 10 ** np.arange(4, -1, -1) for part in (0, 5))
    inside = (row < spot_at.shape[0]) & (column < spot_at.shape[1])
    spots = np.full(len(texts), -1, dtype=np.int32)
    spots[inside] = spot_at[row[inside], column[inside]]
    return spots
