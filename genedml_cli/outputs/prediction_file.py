"""Predictions that genedml wrote, read back: every table, name and number that is used of them is there and sound."""

from collections.abc import Mapping
from pathlib import Path

import anndata
import numpy as np

from genedml.errors import GeneDMLError, reading
from genedml_cli.files.hdf5 import layers_of, read_h5ad
from genedml_cli.files.text_files import check_names
from genedml_cli.outputs.prediction_record import LARGEST_PX, PredictionRecord, record_of
from genedml_cli.outputs.predictions import spots_of
from genedml_cli.outputs.reference_layers import REFERENCES as LAYERS
from genedml_cli.outputs.reference_layers import held_out_column

REFERENCES = ("training_mean", "depth_slope", "depth_intercept")
SCORES = {"cv_pcc", "cv_pcc_sd", "cv_folds", "baseline_pcc", "held_out_pcc", *map(held_out_column, LAYERS)}
NUMBERS = {*REFERENCES, *SCORES, "training_sd", "novelty", "depth", "morans_i"}
UNKNOWN = ("lower", "upper")
"""Layers that are NaN for a gene of which they are not known."""
SMALLEST_SCALE = 1e-5
"""Of a picture of the tissue: its pixels over those of the slide."""


class NoLabelledSpotError(GeneDMLError):
    """A section of a run of which no spot had counts in the panel; runs of earlier versions may hold such."""


def read_prediction(path: Path) -> anndata.AnnData:
    """A prediction: of a run, beside its truth, or of ``genedml predict``.

    Raises:
        GeneDMLError: something else, damaged, or of an earlier version; :class:`NoLabelledSpotError` where a run wrote
            it without a spot.
    """
    if not path.exists():
        raise GeneDMLError(f"There is no prediction {path}. Check the path: it starts at the current folder.")
    try:
        with reading("What genedml writes into it", "If it is one, it is damaged: make it again."):
            data = read_h5ad(path)
            record = record_of(data)
            empty = data.n_obs == 0 and record.of_run
            if not empty:
                _check(data, record)
    except GeneDMLError as error:
        raise GeneDMLError(f"{path} is not a prediction of genedml. {error}") from error
    if empty:
        raise NoLabelledSpotError(f"{path}: no spot of {path.stem} has counts in the panel, so it cannot be scored.")
    check_names(data.obs_names, "spot", path)
    check_names(data.var_names, "gene", path)
    return data


def _check(data: anndata.AnnData, record: PredictionRecord) -> None:
    if data.obs_names.has_duplicates or data.var_names.has_duplicates or 0 in data.shape:
        raise ValueError("spots or genes are none, or named twice")
    spots = spots_of(data)
    if spots.xy_px.shape != (data.n_obs, 2) or not (np.abs(spots.xy_px) < LARGEST_PX).all():
        raise ValueError("obsm['spatial'] holds no positions")
    tables = [table[name] for table in (data.obs, data.var) for name in table]
    for values in (data.X, *layers_of(data).values(), data.obsm["spatial"], *tables):
        if isinstance(values.dtype, np.dtype) and not values.dtype.isnative:
            raise ValueError("it holds numbers whose bytes stand in reverse, as genedml writes none")
    for name, layer in {"X": data.X, **layers_of(data)}.items():
        if not isinstance(layer, np.ndarray) or layer.dtype.kind != "f":
            raise ValueError(f"{name} holds no numbers")
        if np.isinf(layer).any() if name in UNKNOWN else not np.isfinite(layer).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
    for table in (data.obs, data.var):
        for name in NUMBERS & {*table}:
            if table[name].dtype.kind not in "fiu":
                raise ValueError(f"{name} holds no numbers")
    if record.of_run:
        data.layers["truth"]
    columns = data.obs[["depth"]] if record.of_run else data.var[list(REFERENCES)]
    if not np.isfinite(columns.to_numpy(dtype=float)).all():
        raise ValueError(f"one of {', '.join(columns)} is not finite")
    if "spatial" in data.uns:
        if len(data.uns["spatial"]) != 1:
            raise ValueError("it holds pictures of several slides, or of none")
        _check_picture(next(iter(data.uns["spatial"].values())))


def _check_picture(entry: Mapping) -> None:
    image, factors = np.asarray(entry["images"]["hires"]), entry["scalefactors"]
    scale, diameter = (float(factors[key]) for key in ("tissue_hires_scalef", "spot_diameter_fullres"))
    sound = SMALLEST_SCALE < scale <= 1 and 0 < diameter < LARGEST_PX
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape or not sound:
        raise ValueError("its picture of the tissue is none")
