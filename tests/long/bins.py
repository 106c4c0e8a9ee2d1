"""Seconds and memory of summing a Visium HD table of 2 um bins as large as a slide's.

    python tests/long/bins.py FOLDER                 # 11 million bins of 8 values each, made in FOLDER first
    python tests/long/bins.py FOLDER --rows 300      # a smaller capture area

Prints JSON: bins, values, spots, processor seconds and the process' most memory, of ``data bin`` alone.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from pyarrow.parquet import ParquetWriter

BIN_UM, GENES = 2, 18_000
BARCODE = np.frombuffer(b"s_002um_00000_00000-1", np.uint8)
SUM = """
import json, resource, sys
from pathlib import Path
from genedml_cli.machine.memory import peak_on_host
from genedml_cli.pseudo_spots.binning import bin_section
folder = Path(sys.argv[1])
section = bin_section(folder / "outs", folder / "s.h5ad", 100, "square", force=True)
used = resource.getrusage(resource.RUSAGE_SELF)
figures = {"spots": len(section.names), "counts": int(section.counts.X.sum(dtype=float))}
print(json.dumps(figures | {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak_on_host() / 1e6}))
"""


def barcodes(row: int, columns: int) -> np.ndarray:
    """``s_002um_ROW_COLUMN-1`` of every bin of a row."""
    letters = np.tile(BARCODE, (columns, 1))
    for first, numbers in ((8, np.full(columns, row)), (14, np.arange(columns))):
        letters[:, first : first + 5] = 48 + numbers[:, None] // 10 ** np.arange(4, -1, -1) % 10
    return letters.view(f"S{len(BARCODE)}").ravel()


def make(outs: Path, rows: int, columns: int, each: int) -> int:
    """Write bins, row by row, with ``each`` values of 1 to 3 in every one; their total."""
    folder = outs / "binned_outputs" / "square_002um"
    (folder / "spatial").mkdir(parents=True, exist_ok=True)
    random, values = np.random.default_rng(0), rows * columns * each
    kinds = [("barcode", pa.string()), *((name, pa.int64()) for name in ("in_tissue", "array_row", "array_col"))]
    schema = pa.schema([*kinds, ("pxl_row_in_fullres", pa.float64()), ("pxl_col_in_fullres", pa.float64())])
    total = 0
    with (
        h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file,
        ParquetWriter(folder / "spatial" / "tissue_positions.parquet", schema) as positions,
    ):
        group = file.create_group("matrix")
        stored = {"chunks": (min(80_000, rows * columns),), "compression": "gzip", "compression_opts": 1}
        data, genes = (
            group.create_dataset(name, values, kind, **stored) for name, kind in (("data", "i4"), ("indices", "i8"))
        )
        names = group.create_dataset("barcodes", rows * columns, f"S{len(BARCODE)}", **stored)
        group["indptr"] = np.arange(rows * columns + 1, dtype=np.int64) * each
        group["shape"] = np.array([GENES, rows * columns], dtype=np.int32)
        for name, texts in (("id", "ENSG{:011}"), ("name", "G{}"), ("feature_type", "Gene Expression")):
            group[f"features/{name}"] = np.array([texts.format(gene) for gene in range(GENES)], dtype="S")
        batch = 100
        for first in range(0, rows, batch):
            some = range(first, min(first + batch, rows))
            bins = np.concatenate([barcodes(row, columns) for row in some])
            row, column = np.repeat(some, columns), np.tile(np.arange(columns), len(some))
            table = [bins.astype(str), np.ones(len(bins), np.int64), row, column, 5.0 + 4 * row, 7.0 + 4 * column]
            positions.write_table(pa.table(dict(zip(schema.names, table, strict=True)), schema))
            counts = random.integers(1, 4, len(bins) * each, dtype=np.int32)
            steps = random.integers(1, GENES // each, (len(bins), each)).cumsum(axis=1) - 1
            place = slice(first * columns * each, first * columns * each + len(counts))
            data[place], genes[place] = counts, steps.ravel()
            names[first * columns : first * columns + len(bins)] = bins
            total += int(counts.sum())
    return total


def measure(folder: Path, rows: int, columns: int, each: int) -> dict[str, float]:
    """Figures of ``data bin`` in a process of its own, and whether every count arrived."""
    total = make(folder / "outs", rows, columns, each)
    done = subprocess.run([sys.executable, "-c", SUM, folder], capture_output=True, text=True, check=True)
    return {"bins": rows * columns, "values": rows * columns * each, "made": total, **json.loads(done.stdout)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("rows", 3_350), ("columns", 3_300), ("each", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sys.stdout.write(json.dumps(measure(**vars(parser.parse_args()))) + "\n")
