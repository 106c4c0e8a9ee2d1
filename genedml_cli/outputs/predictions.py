"""Predictions -> AnnData that scanpy and squidpy open as they are. Letters: S spots, M genes."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.files.tenx import GENE_IDS
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of, set_record
from genedml_cli.slides.slide import Slide
from genedml_cli.spots.spots import Spots, nearest_distances

HIRES_PX = 2000
LOWRES_PX = 600
NEAR = 0.75  # of two names' letters that agree: one of four may differ
RANKING = (
    "Do not rank genes by their predicted labels: that mostly gives back which genes are high in the training. "
    "Compare genes by z, the prediction less the gene's mean in training over its standard deviation there."
)
"""What must be known before predictions of two genes are compared."""
LABEL_SCALE: Final = "label"
Z_SCALE: Final = "z"
"""Scales of the values of an export or a picture."""
UNSMOOTHED = "truth_unsmoothed"
"""Layer of a run's test sections: labels of each spot alone, whether or not those of ``truth`` are means."""
SPOT_TO_PITCH = 0.5  # ST: 100 um spots at 200 um; Visium: 55 at 100


def to_anndata(
    predicted: Float[np.ndarray, "S M"],
    genes: Sequence[str],
    spots: Spots,
    record: PredictionRecord,
    layers: Mapping[str, Float[np.ndarray, "S M"]] | None = None,
    gene_ids: Sequence[str] = (),
) -> anndata.AnnData:
    """One section's predictions with names, coordinates, units and provenance.

    ``X`` is in the units of the labels; where they are logarithms, ``uns["log1p"]["base"]`` says which.
    ``obsm["spatial"]`` is (x, y) in level-0 pixels, array indices are in ``obs``, ``uns["genedml"]`` is ``record`` with
    what is derived of the array (:attr:`genedml_cli.spots.spots.Spots.geometry`). ``var`` has the genes' Ensembl ids,
    where there are ``gene_ids``.
    """
    obs = pd.DataFrame(index=pd.Index(spots.names, dtype=str))
    obs["in_tissue"] = 1
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    if gene_ids:
        var[GENE_IDS] = list(gene_ids)
    single = {name: layer.astype(np.float32) for name, layer in (layers or {}).items()}
    data = anndata.AnnData(predicted.astype(np.float32), obs=obs, var=var, layers=single)
    add_places(data, spots)
    if record.label_settings.transform == "log":
        data.uns["log1p"] = {"base": 10.0} if record.label_settings.log_base == "10" else {}
    geometry = spots.geometry
    derived = replace(
        record,
        array=geometry.array,
        array_told_by=geometry.told_by,
        pitch_px=geometry.pitch_px,
        neighbors_per_spot=geometry.neighbors_per_spot,
    )
    set_record(data, derived)
    return data


def add_z(data: anndata.AnnData, mean: Float[np.ndarray, " M"], sd: Float[np.ndarray, " M"]) -> None:
    """``layers["z"]``, by :func:`as_z`, and ``training_mean`` and ``training_sd`` in ``var``: of every gene's label."""
    data.var["training_mean"], data.var["training_sd"] = mean, sd
    data.layers["z"] = as_z(data, np.asarray(data.X)).astype(np.float32)


def as_z(data: anndata.AnnData, labels: Float[np.ndarray, "S M"]) -> Float[np.ndarray, "S M"]:
    """Labels of a prediction's genes, less the gene's mean in training, over its standard deviation there.

    0 for a gene whose label was constant in training.

    Raises:
        GeneDMLError: the prediction does not know these.
    """
    if "training_sd" not in data.var:
        raise GeneDMLError(
            "This prediction has no z: its model, of an earlier version, does not know the standard deviations of its "
            "training labels. Leave out --scale z, or train again."
        )
    mean, sd = data.var[["training_mean", "training_sd"]].to_numpy(np.float64).T
    above = labels.astype(np.float64) - mean
    return np.divide(above, sd, out=np.zeros_like(above), where=sd > 0)


def about(data: anndata.AnnData) -> dict[str, Any]:
    """Units and provenance as plain values, for files that are no AnnData; without the panels of the folds."""
    return {key: value for key, value in record_of(data).stored().items() if key != "panels"}


def check_genes(genes: Sequence[str], data: anndata.AnnData, where: str, how_to_list: str) -> None:
    """Refuse genes that a prediction does not have; names those that are spelt nearly so.

    Raises:
        GeneDMLError: there are such genes.
    """
    unknown = [gene for gene in genes if gene not in data.var_names]
    if unknown:
        known = {name.upper(): name for name in data.var_names}
        near = [known[name] for gene in unknown for name in difflib.get_close_matches(gene.upper(), known, 2, NEAR)]
        raise GeneDMLError(
            f"{where} does not predict {', '.join(unknown)}."
            + (f" Near to that: {', '.join(dict.fromkeys(near))}." if near else "")
            + f" All {data.n_vars} genes: {how_to_list}"
        )


def add_places(data: anndata.AnnData, spots: Spots) -> None:
    """``obsm["spatial"]``, and the array indices in ``obs`` where they are known: what :func:`spots_of` reads."""
    data.obsm["spatial"] = spots.xy_px.astype(np.float64)
    if spots.array_xy is not None:
        data.obs["array_row"], data.obs["array_col"] = spots.array_xy[:, 1], spots.array_xy[:, 0]


def spots_of(data: anndata.AnnData) -> Spots:
    """The spots that a prediction was made for."""
    array_xy = data.obs[["array_col", "array_row"]].to_numpy(np.int64) if "array_col" in data.obs else None
    return Spots(tuple(data.obs_names), np.asarray(data.obsm["spatial"], dtype=np.float64), array_xy)


def add_tissue_image(data: anndata.AnnData, slide: Slide, spots: Spots) -> None:
    """Fill ``uns["spatial"][slide]`` with downscaled images and scale factors, as Space Ranger's readers do."""
    hires = slide.thumbnail(HIRES_PX)
    lowres = Image.fromarray(hires)
    lowres.thumbnail((LOWRES_PX, LOWRES_PX), Image.Resampling.BOX)
    scale = {"um_per_px": slide.um_per_px} if slide.knows_scale else {}
    width = slide.size_px[0]
    data.uns["spatial"] = {
        slide.path.stem: {
            "images": {"hires": hires, "lowres": np.asarray(lowres)},
            "scalefactors": {
                "tissue_hires_scalef": hires.shape[1] / width,
                "tissue_lowres_scalef": lowres.width / width,
                "spot_diameter_fullres": spot_diameter_px(spots, slide),
            },
            "metadata": {"source_image_path": slide.path.name, **scale},
        }
    }


def stored_spot_diameter_px(data: anndata.AnnData) -> float:
    """The diameter that a prediction's spots were written with; of a run's sections, which lack it, half the pitch."""
    if "spatial" in data.uns:
        return float(next(iter(data.uns["spatial"].values()))["scalefactors"]["spot_diameter_fullres"])
    return SPOT_TO_PITCH * spots_of(data).spacing_px


def spot_diameter_px(spots: Spots, slide: Slide) -> float:
    """Half the pitch, as ST (100 of 200 um) and Visium (55 of 100 um) about have; of a single spot 55 um or 112 px."""
    if not len(nearest_distances(spots.xy_px)):
        return 55 / slide.um_per_px if slide.knows_scale else 112.0
    return SPOT_TO_PITCH * spots.spacing_px
