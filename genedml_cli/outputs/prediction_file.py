"""Predictions that genedml wrote, read back: every table, name and number that is used of them is there and sound."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from genedml.errors import GeneDMLError, reading
from genedml_cli.files.hdf5 import layers_of, read_h5ad
from genedml_cli.files.text_files import check_names
from genedml_cli.outputs.predictions import label_settings, method_of, notes_of, spots_of, stored_origin_xy

REFERENCES = ("training_mean", "depth_slope", "depth_intercept")
SCORES = {"cv_pcc", "cv_pcc_sd", "cv_folds", "baseline_pcc", "held_out_pcc", "ridge_held_out_pcc"}
NUMBERS = {*REFERENCES, *SCORES, "novelty", "depth"}
TEXTS = {"method", "label", "encoder", "slide", "slide_sha256", "fold", "sample", "patient", "dataset"}
LISTS = {"notes", "models", "panels", "trained_on"}
NEEDED = ("slide", "slide_sha256", "encoder", "models", "panels")
LARGEST_PX = 1e8
"""Beyond any slide, and of a spot's diameter."""
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
            empty = data.n_obs == 0 and "fold" in data.uns["genedml"]
            if not empty:
                _check(data)
    except GeneDMLError as error:
        raise GeneDMLError(f"{path} is not a prediction of genedml. {error}") from error
    if empty:
        raise NoLabelledSpotError(f"{path}: no spot of {path.stem} has counts in the panel, so it cannot be scored.")
    check_names(data.obs_names, "spot", path)
    check_names(data.var_names, "gene", path)
    return data


def _check(data: anndata.AnnData) -> None:
    made_by = data.uns["genedml"]
    if not isinstance(made_by, Mapping):
        raise ValueError("uns['genedml'] is no table")
    label_settings(data), method_of(data), str(made_by["label"]), notes_of(data)
    if data.obs_names.has_duplicates or data.var_names.has_duplicates or 0 in data.shape:
        raise ValueError("spots or genes are none, or named twice")
    spots = spots_of(data)
    if spots.xy_px.shape != (data.n_obs, 2) or not (np.abs(spots.xy_px) < LARGEST_PX).all():
        raise ValueError("obsm['spatial'] holds no positions")
    columns = [table[name] for table in (data.obs, data.var) for name in table]
    for values in (data.X, *layers_of(data).values(), data.obsm["spatial"], *columns):
        if isinstance(values.dtype, np.dtype) and not values.dtype.isnative:
            raise ValueError("it holds numbers whose bytes stand in reverse, as genedml writes none")
    for name, layer in {"X": data.X, **layers_of(data)}.items():
        if not isinstance(layer, np.ndarray) or layer.dtype.kind != "f":
            raise ValueError(f"{name} holds no numbers")
        if not np.isfinite(layer).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
    _check_record(made_by)
    if not all(abs(pixel) < LARGEST_PX for pixel in stored_origin_xy(data)):
        raise ValueError("the corner of its scanned area is no place")
    for table in (data.obs, data.var):
        for name in NUMBERS & {*table}:
            if table[name].dtype.kind not in "fiu":
                raise ValueError(f"{name} holds no numbers")
    if "panels" in made_by:
        references = data.var[list(REFERENCES)].to_numpy(dtype=float)
        told = [np.size(made_by[key]) and all(np.atleast_1d(made_by[key])) for key in NEEDED]
        if not all(told) or not np.isfinite(references).all():
            raise ValueError(f"one of {', '.join(NEEDED)} is empty, or its references are not sound")
    elif not (str(made_by["fold"]) and np.isfinite(data.obs["depth"].to_numpy(dtype=float)).all()):
        raise ValueError("its fold or the depth of its spots is not sound")
    if "panels" not in made_by:
        data.layers["truth"]
    if "spatial" in data.uns:
        if len(data.uns["spatial"]) != 1:
            raise ValueError("it holds pictures of several slides, or of none")
        _check_picture(next(iter(data.uns["spatial"].values())))


def _check_record(made_by: Mapping[str, Any]) -> None:
    """What is read of the record as a text, texts or a number."""
    if not all(isinstance(made_by[key], str) for key in TEXTS & {*made_by}):
        raise ValueError(f"one of {', '.join(sorted(TEXTS))} is no text")
    if not all(isinstance(text, str) for key in LISTS & {*made_by} for text in np.atleast_1d(made_by[key])):
        raise ValueError(f"one of {', '.join(sorted(LISTS))} holds something else than texts")
    if "um_per_px" in made_by and not 0 < float(made_by["um_per_px"]) < np.inf:
        raise ValueError("its um/px are no number")


def _check_picture(entry: Mapping) -> None:
    image, factors = np.asarray(entry["images"]["hires"]), entry["scalefactors"]
    scale, diameter = (float(factors[key]) for key in ("tissue_hires_scalef", "spot_diameter_fullres"))
    sound = SMALLEST_SCALE < scale <= 1 and 0 < diameter < LARGEST_PX
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape or not sound:
        raise ValueError("its picture of the tissue is none")
