"""Predictions as GeoJSON that QuPath (0.4 or newer) imports: a spot is a detection, its genes are measurements.

QuPath counts x and y from the corner of the scanned area of a slide, so that spots are moved there from the canvas.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from genedml_cli.files.storage import atomic_write
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import about, stored_spot_diameter_px

CORNERS = 16
"""Of the polygon that stands for a spot; QuPath makes a true circle of it (``isEllipse``)."""

NOT_MEASURED = ("in_tissue", "array_row", "array_col")


def write_geojson(data: anndata.AnnData, path: Path) -> None:
    """Write a feature a spot, in level-0 pixels of the scanned area.

    Label and provenance stand in the collection's member ``genedml``.

    Raises:
        GeneDMLError: it cannot be written.
    """
    head = json.dumps({"type": "FeatureCollection", "genedml": about(data)})
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{head[:-1]}, "features": [')
        for number, feature in enumerate(_features(data)):
            file.write((",\n" if number else "\n") + json.dumps(feature, separators=(",", ":")))
        file.write("\n]}\n")


def _features(data: anndata.AnnData) -> Iterator[dict[str, Any]]:
    angles = np.append(np.arange(CORNERS), 0) * (2 * np.pi / CORNERS)
    circle = stored_spot_diameter_px(data) / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    numbers = data.obs.drop(columns=[*NOT_MEASURED], errors="ignore").select_dtypes("number")
    measured = pd.concat([data.to_df(), numbers], axis=1)
    names = list(measured.columns)
    centres = data.obsm["spatial"] - np.array(record_of(data).qupath_origin_xy_px)
    for spot, centre, values in zip(data.obs_names, centres, measured.to_numpy(np.float64), strict=True):
        measurements = {name: round(value, 5) for name, value in zip(names, values.tolist(), strict=True)}
        yield {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [(centre + circle).round(2).tolist()],
                "isEllipse": True,
            },
            "properties": {
                "objectType": "detection",
                "name": str(spot),
                "measurements": {name: value for name, value in measurements.items() if np.isfinite(value)},
            },
        }
