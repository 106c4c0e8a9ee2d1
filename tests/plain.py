"""What a file says by a plain reading of it, without this project: to hold our readers against, on changed files.

Only of kinds of file in which a change can go unnoticed because they have no checksum; all others must read as before.
"""

import csv
import io
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from hostile import small_card
from PIL import Image
from scipy.io import mmread

from genedml.config import load_config
from genedml.schema import to_dict
from genedml_cli.cohort.slide import CohortSlide
from genedml_cli.spots.placing import Placing

THUMBNAIL_PX = 64


def _rows(path: Path, separator: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig")), delimiter=separator))


def _spots(path: Path) -> Any:
    rows = _rows(path)
    array = [[int(row["array_col"]), int(row["array_row"])] for row in rows]
    return tuple(next(iter(row.values())) for row in rows), [[float(row["x"]), float(row["y"])] for row in rows], array


def _st_spots(path: Path) -> Any:
    rows = [row for row in _rows(path, "\t") if row["selected"] == "1"]
    names = tuple(f"{row['x']}x{row['y']}" for row in rows)
    pixels = [[float(row["pixel_x"]), float(row["pixel_y"])] for row in rows]
    return names, pixels, [[int(row["x"]), int(row["y"])] for row in rows]


def _visium_spots(path: Path) -> Any:
    rows = [row for row in csv.reader(io.StringIO(path.read_text())) if row and row[1] == "1"]
    pixels = [[float(row[5]), float(row[4])] for row in rows]
    return tuple(row[0] for row in rows), pixels, [[int(row[3]), int(row[2])] for row in rows]


def _parquet_spots(path: Path) -> Any:
    table = pd.read_parquet(path)
    return tuple(table["name"]), table[["x", "y"]].astype(float).to_numpy().tolist(), None


def _h5ad_spots(path: Path) -> Any:
    with h5py.File(path) as file:
        return _names(file["obs"]), file["obsm/spatial"][:].tolist(), None


def _h5ad_counts(path: Path) -> Any:
    with h5py.File(path) as file:
        names, genes = _names(file["obs"]), _names(file["var"])
        table = np.zeros((len(names), len(genes)))
        data, places, ends = (file[f"X/{part}"][:] for part in ("data", "indices", "indptr"))
        for row in range(len(names)):
            table[row, places[ends[row] : ends[row + 1]]] = data[ends[row] : ends[row + 1]]
    return names, genes, table.tolist()


def _names(group: h5py.Group) -> tuple[str, ...]:
    stored = group[group.attrs["_index"]]
    return tuple((stored["values"] if isinstance(stored, h5py.Group) else stored).asstr()[:])


def _tenx_counts(path: Path) -> Any:
    with h5py.File(path) as file:
        group = file["matrix"]
        names, genes = (tuple(group[key].asstr()[:]) for key in ("barcodes", "features/name"))
        table = np.zeros((len(names), len(genes)))
        for row, (begin, end) in enumerate(zip(group["indptr"][:-1], group["indptr"][1:], strict=True)):
            table[row, group["indices"][begin:end]] = group["data"][begin:end]
    return names, genes, table.tolist()


def _mtx_counts(path: Path) -> Any:
    names = tuple(path.with_name("barcodes.tsv").read_text().split())
    genes = tuple(line.split("\t")[0] for line in path.with_name("genes.tsv").read_text().splitlines())
    return names, genes, mmread(path).toarray().T.astype(float).tolist()


def _counts(path: Path) -> Any:
    (_, *genes), *rows = csv.reader(io.StringIO(path.read_text("utf-8-sig")))
    return tuple(row[0] for row in rows), tuple(genes), [[float(cell) for cell in row[1:]] for row in rows]


def _sheet(path: Path) -> Any:
    scales = [float(row["um_per_px"]) if row["um_per_px"] else None for row in _rows(path)]
    rows = zip(_rows(path), scales, strict=True)
    return [(row["sample"], row["patient"], row["fold"], scale) for row, scale in rows]


def _cohort(path: Path) -> Any:
    slides = []
    for row in _rows(path):
        slide, tissue = path.parent / row["slide"], row["tissue"] or None
        scale = float(row["um_per_px"]) if row["um_per_px"] else None
        placing = Placing(scale, tissue=path.parent / tissue if tissue else None)
        slides.append(asdict(CohortSlide(row["name"] or slide.stem, slide, None, placing)))
    return slides


def _config(path: Path) -> Any:
    return _merged(to_dict(load_config()), tomllib.loads(path.read_text()))


def _card(path: Path) -> Any:
    values = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    return {key: value for key, value in values.items() if key in asdict(small_card())}


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``, table by table."""
    both = {key: _merged(under[key], over[key]) for key in under.keys() & over.keys() if isinstance(over[key], dict)}
    return {**under, **over, **both}


def _mask(path: Path) -> Any:
    return (np.asarray(Image.open(path)) > 0).tolist()


def _image(path: Path) -> Any:
    return _thumbnail(Image.open(path))


def _svs(path: Path) -> Any:
    """The size of level 0, and a thumbnail of each level."""
    image = Image.open(path)
    size, finest = _thumbnail(image)
    image.seek(1)
    return size, [finest, _thumbnail(image)[1]]


def _thumbnail(image: Image.Image) -> Any:
    width, height = image.size
    scale = max(width, height) / min(THUMBNAIL_PX, max(width, height))
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return image.size, np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX)).astype(int).tolist()


def _weights(path: Path) -> Any:
    return {name: tensor.tolist() for name, tensor in torch.load(path, weights_only=True).items()}


def _scale_factors(path: Path) -> Any:
    factors = json.loads(path.read_text("utf-8-sig"))
    return {"pitch_um": float(factors.get("bin_size_um") or 100), "full_size_px": None, "sizes_px": {}}


def _bins(path: Path) -> Any:
    """Bin by bin, in spots of 4 um; of four bins two must be under tissue."""
    folder = path.parent / "square_002um"
    places = pd.read_parquet(folder / "spatial" / "tissue_positions.parquet")
    under = {(row.array_row, row.array_col) for row in places.itertuples() if row.in_tissue == 1}
    with h5py.File(folder / "filtered_feature_bc_matrix.h5") as file:
        group = file["matrix"]
        kinds = [kind == b"Gene Expression" for kind in group["features/feature_type"][:]]
        genes = [name.decode() for name in group["features/name"][:]]
        ends, spots = group["indptr"][:], dict[tuple[int, int], np.ndarray]()
        for row, column in under:
            spots[row // 2, column // 2] = np.zeros(len(genes))
        for number, barcode in enumerate(group["barcodes"][:]):
            row, column = (int(part) for part in barcode.decode().split("-")[0].split("_")[2:])
            for at in range(ends[number], ends[number + 1]) if (row, column) in under else ():
                spots[row // 2, column // 2][group["indices"][at]] += group["data"][at]
    whole = sorted(spot for spot in spots if sum((row // 2, column // 2) == spot for row, column in under) >= 2)
    names = [f"s_004um_{row:05}_{column:05}" for row, column in whole]
    return names, list(np.array(genes)[kinds]), [spots[spot][kinds].tolist() for spot in whole]


def _transcripts(path: Path) -> Any:
    panel = json.loads(path.with_name("gene_panel.json").read_text("utf-8-sig"))["payload"]["targets"]
    genes = [one["type"]["data"]["name"] for one in panel if one["type"]["descriptor"] == "gene"]
    genes = list(dict.fromkeys(genes))
    spots: dict[tuple[int, int], np.ndarray] = {}
    for row in pd.read_parquet(path.with_name("transcripts.parquet")).itertuples():
        if row.qv >= 20 and row.feature_name in genes:
            spot = spots.setdefault((int(row.y_location // 4), int(row.x_location // 4)), np.zeros(len(genes)))
            spot[genes.index(row.feature_name)] += 1
    spots = {spot: counts for spot, counts in sorted(spots.items()) if counts.sum() >= 10}
    names = [f"s_004um_{row:05}_{column:05}" for row, column in spots]
    return names, genes, [counts.tolist() for counts in spots.values()]


def _alignment(path: Path) -> Any:
    return [
        [float(cell) for cell in line.split(",")] for line in path.read_text("utf-8-sig").split("\n") if line.strip()
    ]


PLAIN: dict[str, Callable[[Path], Any]] = {
    "spots": _spots,
    "st-spots": _st_spots,
    "visium-spots": _visium_spots,
    "parquet-spots": _parquet_spots,
    "h5ad-spots": _h5ad_spots,
    "h5ad-counts": _h5ad_counts,
    "tenx-counts": _tenx_counts,
    "mtx-counts": _mtx_counts,
    "counts": _counts,
    "gene-map": lambda path: {row["alias"]: row["gene"] for row in _rows(path)},
    "scale-factors": _scale_factors,
    "bin-positions": _bins,
    "bin-counts": _bins,
    "transcripts": _transcripts,
    "xenium-panel": _transcripts,
    "alignment": _alignment,
    "sheet": _sheet,
    "cohort": _cohort,
    "config": _config,
    "card": _card,
    "tiff-mask": _mask,
    "svs": _svs,
    "jpeg": _image,
    "tiff": _image,
    "tiled": _image,
    "weights": _weights,
}
"""By the name of the reader in :data:`hostile.PARSERS`."""


def plain_values(reading: Any) -> Any:
    """A reading with lists for tuples and texts for paths."""
    return json.loads(json.dumps(reading, default=str))


def agree(name: str, reading: Any, plain: Any) -> bool:
    """Whether a reading is the plain one; for JPEG tiles that of a level, but for how programs round (3 of 255)."""
    if name != "svs":
        return bool(plain_values(reading) == plain_values(plain))
    apart = [np.abs(np.subtract(reading[1], level, dtype=float)).mean() for level in plain[1]]
    return reading[0] == plain[0] and min(apart) < 3
