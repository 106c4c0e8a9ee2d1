"""The files a prediction is written to, chosen by their suffix."""

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anndata
import h5py
import numpy as np
from anndata.io import write_elem

from genedml.errors import GeneDMLError
from genedml_cli.files.hdf5 import plain_strings
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import atomic_write, refuse_overwriting_inputs
from genedml_cli.machine.memory import free_on_host
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of, set_record
from genedml_cli.outputs.predictions import LABEL_SCALE, Z_SCALE, as_z, check_genes
from genedml_cli.outputs.qupath import write_geojson
from genedml_cli.outputs.selection import keep_worthy
from genedml_cli.outputs.spatialdata_store import check_zarr_path, write_zarr
from genedml_cli.outputs.tables import write_csv, write_parquet
from genedml_cli.text import gigabytes

MEMORY_BYTES = 2**26
"""More than the picture of a slide and the structure of a file take."""

Write = Callable[[anndata.AnnData, Path], None]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Args:
        write: a whole prediction; the file is whole or not there.
        opened_with: what a user opens it with; ``{}`` is its path.
        write_long: one row a spot and gene, if the kind can.
    """

    write: Write
    opened_with: str
    write_long: Write | None = None


def write_h5ad(data: anndata.AnnData, path: Path) -> None:
    """Write AnnData, compressed.

    Raises:
        GeneDMLError: the folder cannot be written, the disk is full, or memory is.
    """
    # Not into the file itself: libhdf5 crashes on a disk or a quota that takes no more, and where memory is lacking.
    needed, free = MEMORY_BYTES + 2 * sys.getsizeof(data), free_on_host()
    if needed > free:
        raise GeneDMLError(
            f"To write {path} takes {gigabytes(needed)} of memory; {gigabytes(free)} are free. Free it from other "
            "programs."
        )
    whole = io.BytesIO()
    with h5py.File(whole, "w") as file, plain_strings():
        write_elem(file, "/", data, dataset_kwargs={"compression": "gzip"})
    with atomic_write(path) as temporary:
        temporary.write_bytes(whole.getbuffer())


FORMATS = {
    ".h5ad": Format(write_h5ad, "scanpy.read_h5ad({!r})"),
    ".zarr": Format(write_zarr, "spatialdata.read_zarr({!r})"),
    ".csv": Format(write_csv, "pandas.read_csv({!r})", partial(write_csv, long=True)),
    ".csv.gz": Format(write_csv, "pandas.read_csv({!r})", partial(write_csv, long=True)),
    ".parquet": Format(write_parquet, "pandas.read_parquet({!r})", partial(write_parquet, long=True)),
    ".geojson": Format(write_geojson, "QuPath: drag it onto the open slide"),
}
"""Suffix -> kind of file."""
WHOLE = (".h5ad", ".zarr")
"""Kinds that hold every layer."""


def check_output_path(path: Path, long: bool = False) -> Format:
    """The kind of file that ``path`` names; called before the work, so that it is not done in vain.

    Raises:
        GeneDMLError: an unknown suffix, ``long`` for a kind without it, or a store that could not be written.
    """
    found = next((kind for suffix, kind in FORMATS.items() if path.name.endswith(suffix)), None)
    if found is None:
        raise GeneDMLError(f"{path} must end with one of {', '.join(FORMATS)}.")
    if long and found.write_long is None:
        tables = [suffix for suffix, kind in FORMATS.items() if kind.write_long is not None]
        raise GeneDMLError(f"{path} cannot be long; only tables can: {', '.join(tables)}.")
    if found.write is write_zarr:
        check_zarr_path(path)
    elif path.is_dir():
        raise GeneDMLError(f"{path} is a folder. Give another name.")
    return found


def check_free(path: Path, force: bool) -> None:
    """Refuse to write over a result that is there, be it of an hour's work, unless told to.

    Raises:
        GeneDMLError: it is there, without ``force``.
    """
    if path.exists() and not force:
        raise GeneDMLError(f"{path} is there already. Give another --out, or write over it with --force.")


@takes_paths
def write(data: anndata.AnnData, path: Path, long: bool = False) -> None:
    """Write a prediction as its suffix says; the file is whole or not there.

    Args:
        data: as :func:`genedml_cli.outputs.predictions.to_anndata` makes it.
        path: ends with one of :data:`FORMATS`.
        long: of a table: one row a spot and gene, with the layers as columns.

    Raises:
        GeneDMLError: an unknown suffix, or it cannot be written.
    """
    kind = check_output_path(path, long)
    to_file = kind.write_long if long and kind.write_long is not None else kind.write
    to_file(data, path)


@takes_paths
def export(
    prediction: Path,
    out: Path,
    genes: Sequence[str] = (),
    long: bool = False,
    min_cv_pcc: float | None = None,
    force: bool = False,
    scale: str = LABEL_SCALE,
) -> anndata.AnnData:
    """Write a predicted ``.h5ad`` as another kind of file.

    Args:
        prediction: an ``.h5ad`` of predict, or of a run's folder ``predictions``.
        out: ends with one of :data:`FORMATS`.
        genes: only these, in this order; all if empty.
        long: of a table: one row a spot and gene, with the layers as columns.
        min_cv_pcc: of these, only the genes whose cross-validated PCC is at least this.
        force: write over a file that is there.
        scale: ``label``; or ``z``, by which genes compare with each other, of a table with a column a gene or GeoJSON.

    Returns:
        What was written.

    Raises:
        GeneDMLError: no prediction, unknown genes, none that good, a file that is there, or as for :func:`write`.
    """
    check_output_path(out, long)
    if scale == Z_SCALE and (long or out.name.endswith(WHOLE)):
        raise GeneDMLError(f"{out} holds z beside the labels already; leave out --scale z.")
    refuse_overwriting_inputs([out], [prediction])
    check_free(out, force)
    data = read_prediction(prediction)
    if genes:
        check_genes(genes, data, f"{prediction}", f"scanpy.read_h5ad({str(prediction)!r}).var_names")
        data = data[:, list(dict.fromkeys(genes))].copy()
    if min_cv_pcc is not None:
        data = keep_worthy(data, min_cv_pcc)
    if scale == Z_SCALE:
        data.X = as_z(data, np.asarray(data.X)).astype(np.float32)
        set_record(data, replace(record_of(data), scale=Z_SCALE))
    write(data, out, long)
    return data


def how_to_open(path: Path) -> str:
    """A line of Python, or a hint, that opens a written file."""
    return check_output_path(path).opened_with.format(str(path))
