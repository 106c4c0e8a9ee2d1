"""Outlines drawn on a slide, as QuPath exports them: GeoJSON in level-0 pixels. Letters: N corners, H, W cells."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw

from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.files.text_files import SMALL_LIMIT_BYTES, read_text

JSON_SUFFIXES = (".geojson", ".json")
REGION_SUFFIXES = (*JSON_SUFFIXES, ".geojson.gz", ".json.gz", ".zip")
IGNORED_MARK = "*"
"""With which QuPath's classes end whose areas are not to be used: Ignore*, Artefact*, Background*."""
TISSUE_CLASS = "Region*"
"""The one that does not mean so: QuPath's class for annotated regions and detected tissue."""
NO_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString")
MISSING_CORE = "isMissing"
"""With which QuPath marks cores of a tissue microarray that hold no tissue, or not enough."""
FARTHEST_PX = 1e8  # beyond any slide, and within what can be drawn
MOST_CELLS, CELLS_OF_AN_EDGE = 2**32, 1000  # some five seconds; an edge in a row costs as much as 1,000 cells

Polygon = list[Float[np.ndarray, "_ 2"]]
"""The outline, then the holes in it."""


@dataclass(frozen=True)
class Areas:
    """The areas of a file: ``tissue``, and ``ignored``, which are to be taken out of it."""

    tissue: list[Polygon]
    ignored: list[Polygon]


def read_regions(path: Path) -> Areas:
    """Areas of a GeoJSON file: a FeatureCollection, a list of Features, a Feature or a geometry, perhaps packed.

    Lines, points and missing cores of tissue microarrays are left out, and areas of classes that QuPath ignores are
    taken out; notes say so.

    Raises:
        GeneDMLError: no GeoJSON, without an area of tissue, with geometries of other kinds, or with malformed corners.
    """
    tissue: list[Polygon] = []
    ignored: list[Polygon] = []
    classes: dict[str, None] = {}
    no_areas = missing_cores = 0
    with reading(str(path), "Export the annotations anew, in QuPath: File, Export objects as GeoJSON.", "GeoJSON"):
        for geometry, properties in _geometries(json.loads(_text(path)), {}):
            if geometry["type"] in NO_AREAS:
                no_areas += 1
            elif properties.get(MISSING_CORE) is True:
                missing_cores += 1
            elif ignored_class := _ignored_class(properties):
                ignored += _polygons(geometry)
                classes[ignored_class] = None
            else:
                tissue += _polygons(geometry)
    if no_areas:
        console.note(f"{path.name}: {console.count(no_areas, 'object')} without an area (lines, points) left out.")
    if missing_cores:
        console.note(f"{path.name}: {console.count(missing_cores, 'missing TMA core')} left out.")
    if ignored:
        console.note(f"{path.name}: areas of {', '.join(classes)} are taken out of the tissue, as QuPath ignores them.")
    if not tissue:
        only = f" but those of {', '.join(classes)}, which QuPath ignores" if ignored else ""
        only = only or (" but missing TMA cores" if missing_cores else "")
        raise GeneDMLError(
            f"{path} holds no area{only}. Draw the tissue as closed areas (Polygon, MultiPolygon) and export."
        )
    return Areas(tissue, ignored)


def moved(polygons: list[Polygon], by_px: Float[np.ndarray, "2"]) -> list[Polygon]:
    """Polygons at another place."""
    return [[ring + by_px for ring in rings] for rings in polygons]


def draw_polygons(polygons: list[Polygon], scale_xy: Float[np.ndarray, "2"], mask: Bool[np.ndarray, "H W"]) -> None:
    """Mark polygons on a mask.

    Args:
        polygons: in level-0 pixels; they may reach beyond the slide, overlap and have holes.
        scale_xy: cells of the mask for one level-0 pixel.
        mask: is changed.

    Raises:
        ValueError: they would take minutes to draw.
    """
    shape_xy = np.array(mask.shape[::-1])
    cells = 0.0
    for rings in polygons:
        corners = [ring * scale_xy for ring in rings]
        cells += sum(_cells_to_draw(ring, shape_xy) for ring in corners)
        if cells > MOST_CELLS:
            raise ValueError("its areas cross or overlap too often to be outlines of tissue")
        start = np.clip(np.floor(corners[0].min(axis=0)), 0, shape_xy).astype(int)
        end = np.clip(np.floor(corners[0].max(axis=0)) + 1, 0, shape_xy).astype(int)
        if (end <= start).any():
            continue
        layer = Image.new("1", tuple((end - start).tolist()))
        for number, ring in enumerate(corners):
            # A cell is drawn by its centre, which Pillow calls a whole number.
            ImageDraw.Draw(layer).polygon((ring - start - 0.5).ravel().tolist(), fill=int(number == 0))
        mask[start[1] : end[1], start[0] : end[0]] |= np.asarray(layer)


def _cells_to_draw(ring: Float[np.ndarray, "N 2"], shape_xy: Int[np.ndarray, "2"]) -> float:
    """Cells that drawing a ring takes, with what it costs to find the edges that cross each row."""
    inside = np.clip(ring, 0, shape_xy)
    rows = np.abs(np.diff(inside[:, 1], append=inside[:1, 1]))
    return float(np.prod(np.ptp(inside, axis=0)) + CELLS_OF_AN_EDGE * rows.sum())


def _text(path: Path) -> str:
    """The text of a GeoJSON file, or of the only one in QuPath's ``.zip``."""
    if path.suffix.lower() != ".zip":
        return read_text(path)
    with ZipFile(path) as packed:
        names = [name for name in packed.namelist() if name.lower().endswith(JSON_SUFFIXES)]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files of GeoJSON, not one")
        with packed.open(names[0]) as file:
            content = file.read(SMALL_LIMIT_BYTES + 1)
    if len(content) > SMALL_LIMIT_BYTES:
        raise ValueError("it unpacks to more than outlines of tissue take")
    return content.decode("utf-8-sig")


def _geometries(stored: Any, properties: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Geometries with the properties of the Feature that they are of."""
    if isinstance(stored, list):
        for entry in stored:
            yield from _geometries(entry, properties)
        return
    kind = stored["type"] if isinstance(stored, dict) else type(stored).__name__
    if kind in ("FeatureCollection", "GeometryCollection"):
        yield from _geometries(stored["features" if kind == "FeatureCollection" else "geometries"], properties)
    elif kind == "Feature":
        of_feature = stored.get("properties")
        properties = properties | (of_feature if isinstance(of_feature, dict) else {})
        yield from () if stored["geometry"] is None else _geometries(stored["geometry"], properties)
    elif kind in ("Polygon", "MultiPolygon", *NO_AREAS):
        yield stored, properties
    else:
        raise ValueError(f"it holds {kind!r}, which is no closed area (Polygon, MultiPolygon)")


def _ignored_class(properties: dict[str, Any]) -> str:
    """The first name of an object's class that says to ignore it; an empty text if there is none."""
    names = (name for name in _class_names(properties.get("classification")) if name != TISSUE_CLASS)
    return next((name for name in names if name.endswith(IGNORED_MARK)), "")


def _class_names(classification: Any) -> Iterator[str]:
    """Names of a class and of those it derives from, in all forms in which QuPath's versions wrote them.

    ``"Tumor: Positive"``, ``{"name": "Tumor: Positive"}``, ``{"names": ["Tumor", "Positive"]}``, nested or not.
    """
    if isinstance(classification, str):
        yield from (name.strip() for name in classification.split(":"))
    elif isinstance(classification, list | dict):
        for entry in classification.values() if isinstance(classification, dict) else classification:
            yield from _class_names(entry)


def _polygons(geometry: dict[str, Any]) -> list[Polygon]:
    coordinates = geometry["coordinates"]
    parts = [coordinates] if geometry["type"] == "Polygon" else coordinates
    return [[_ring(ring) for ring in part] for part in parts if part]


def _ring(corners: Any) -> Float[np.ndarray, "N 2"]:
    ring = np.asarray(corners, dtype=float)
    if ring.ndim != 2 or ring.shape[1] not in (2, 3) or len(ring) < 3:
        raise ValueError(f"a ring of the shape {ring.shape}, where at least three corners x, y are due")
    if not (np.abs(ring) <= FARTHEST_PX).all():
        raise ValueError("a corner that is on no slide")
    return ring[:, :2]
