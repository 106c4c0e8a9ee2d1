"""Outlines drawn on a slide, as QuPath exports them: GeoJSON in level-0 pixels. Letters: N corners, H, W cells."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw

from genedml.errors import GeneDMLError, reading
from genedml_cli.inputs import read_text

REGION_SUFFIXES = (".geojson", ".json")
FARTHEST_PX = 1e8  # beyond any slide, and within what can be drawn
MOST_CELLS, CELLS_OF_AN_EDGE = 2**32, 1000  # some five seconds; an edge in a row costs as much as 1,000 cells

Polygon = list[Float[np.ndarray, "_ 2"]]
"""The outline, then the holes in it."""


def read_regions(path: Path) -> list[Polygon]:
    """Areas of a GeoJSON file: a FeatureCollection, a list of Features, a Feature or a geometry.

    Raises:
        GeneDMLError: no GeoJSON, without an area, with something else than areas, or with malformed corners.
    """
    with reading(str(path), "Export the annotations anew, in QuPath: File, Export objects as GeoJSON.", "GeoJSON"):
        stored = json.loads(read_text(path))
        polygons = [polygon for geometry in _geometries(stored) for polygon in _polygons(geometry)]
    if not polygons:
        raise GeneDMLError(f"{path} holds no area. Draw the tissue as closed areas (Polygon, MultiPolygon) and export.")
    return polygons


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


def _geometries(stored: Any) -> Iterator[dict[str, Any]]:
    if isinstance(stored, list):
        for entry in stored:
            yield from _geometries(entry)
        return
    kind = stored["type"] if isinstance(stored, dict) else type(stored).__name__
    if kind in ("FeatureCollection", "GeometryCollection"):
        yield from _geometries(stored["features" if kind == "FeatureCollection" else "geometries"])
    elif kind == "Feature":
        yield from () if stored["geometry"] is None else _geometries(stored["geometry"])
    elif kind in ("Polygon", "MultiPolygon"):
        yield stored
    else:
        raise ValueError(f"it holds {kind!r}, which is no closed area (Polygon, MultiPolygon)")


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
