"""Predictions as plain tables of spots, wide or long, with their units beside the numbers."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli.files.hdf5 import layers_of
from genedml_cli.files.storage import atomic_write, write_json
from genedml_cli.files.tenx import GENE_IDS
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import about
from genedml_cli.outputs.reference_layers import REFERENCES

DESCRIPTIONS = {
    "spot": "name of the spot",
    "x_px": "x of the spot's centre in level-0 pixels of the slide, from the left",
    "y_px": "y of the spot's centre in level-0 pixels of the slide, from the top",
    "array_row": "row of the spot in its array",
    "array_col": "column of the spot in its array",
    "depth": "log10(1 + total counts), averaged like the labels",
    "novelty": "share of held-out training spots that were nearer to the training features",
    "gene": "name of the gene",
    "gene_id": "Ensembl id of the gene",
    "std": "standard deviation of the label between folds",
    "lower": "lower end of the interval of the label",
    "upper": "upper end of the interval of the label",
    "z": "predicted label less the gene's mean in training, over its standard deviation there",
    "truth": "measured label",
    **{layer: reference.meaning for layer, reference in REFERENCES.items()},
}


def spot_table(data: anndata.AnnData, long: bool = False) -> pd.DataFrame:
    """A row a spot and a column a gene; if ``long``, a row a spot and gene, with the layers as further columns.

    Names, level-0 pixels and what else is known of a spot stand first.

    Raises:
        GeneDMLError: a gene has the name of one of these columns.
    """
    places = pd.DataFrame({"spot": data.obs_names})
    places[["x_px", "y_px"]] = np.asarray(data.obsm["spatial"], dtype=np.float64)
    known = data.obs.drop(columns="in_tissue", errors="ignore").reset_index(drop=True)
    places = pd.concat([places, known], axis=1)
    values = _values_by_gene(data) if long else pd.DataFrame(np.asarray(data.X), columns=data.var_names)
    if long:
        places = places.loc[np.repeat(places.index, data.n_vars)].reset_index(drop=True)
        places["spot"] = places["spot"].astype("category")
    table = pd.concat([places, values], axis=1)
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise GeneDMLError(f"The gene {twice[0]} has the name of another column; write a .h5ad, or leave it out.")
    return table


def write_csv(data: anndata.AnnData, path: Path, long: bool = False) -> None:
    """Write the table as CSV, and what its columns mean beside it as ``NAME-metadata.json`` (W3C CSV on the Web).

    The text is compressed if ``path`` ends with .gz.

    Raises:
        GeneDMLError: it cannot be written, or a gene has the name of another column.
    """
    table = spot_table(data, long)
    # The time is left out, so that equal tables are equal files.
    gzipped: Any = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, compression=gzipped)
        # Before the table takes its name, so that a table that exists has it.
        write_json(path.with_name(f"{path.name}-metadata.json"), _csv_metadata(data, table, path.name))


def write_parquet(data: anndata.AnnData, path: Path, long: bool = False) -> None:
    """Write the table as Parquet; what its columns mean is in its metadata, in pandas ``table.attrs["genedml"]``.

    Raises:
        GeneDMLError: it cannot be written, or a gene has the name of another column.
    """
    table = spot_table(data, long)
    table.attrs["genedml"] = {**about(data), "columns": _descriptions(data, table)}
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False)


def _values_by_gene(data: anndata.AnnData) -> pd.DataFrame:
    """Every gene of the first spot, every gene of the second, and so on."""
    place = np.tile(np.arange(data.n_vars), data.n_obs)
    table = pd.DataFrame({"gene": pd.Categorical.from_codes(place, data.var_names)})
    if GENE_IDS in data.var:
        table["gene_id"] = data.var[GENE_IDS].astype(str).to_numpy()[place]
    table["predicted"] = np.asarray(data.X).ravel()
    for name, layer in layers_of(data).items():
        table[name] = np.asarray(layer).ravel()
    return table


def _descriptions(data: anndata.AnnData, table: pd.DataFrame) -> dict[str, str]:
    record = record_of(data)
    label, what = record.unit, record.scale or "label"
    ids = data.var.get(GENE_IDS, {})
    described = dict(DESCRIPTIONS, predicted=f"predicted {what} of the gene: {label}")
    for gene in data.var_names:
        described[gene] = f"predicted {what} of {gene}{f' ({ids[gene]})' if ids.get(gene) else ''}: {label}"
    return {column: described.get(column, column) for column in table.columns}


def _csv_metadata(data: anndata.AnnData, table: pd.DataFrame, name: str) -> dict[str, Any]:
    kinds = {"i": "integer", "u": "integer", "f": "number", "b": "boolean"}
    columns = [
        {"titles": column, "datatype": kinds.get(table[column].dtype.kind, "string"), "dc:description": description}
        for column, description in _descriptions(data, table).items()
    ]
    about_it = about(data)
    return {
        "@context": "http://www.w3.org/ns/csvw",
        "url": name,
        "dc:title": f"Gene expression predicted by genedml: {record_of(data).unit}",
        "tableSchema": {"columns": columns},
        "notes": [about_it],
    }
