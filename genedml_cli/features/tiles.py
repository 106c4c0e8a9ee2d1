"""Raw tiles around spots, for networks with a backbone of their own, kept in files as vectors are.

Letters: S spots, N some tiles, H and W sides of a tile.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import safe_open
from torch import Tensor

from genedml.config import ViewsConfig
from genedml.errors import GeneDMLError, reading
from genedml.networks.inputs import Tile
from genedml.tensor_files import layout
from genedml_cli import console
from genedml_cli.features.feature_file import SEAL, SEAL_BYTES, check_seal, sealed_digest
from genedml_cli.features.tile_plan import plan_tiles
from genedml_cli.files.storage import atomic_write
from genedml_cli.slides.patches import PatchFile
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.read_ahead import reading_ahead
from genedml_cli.slides.slide import Slide
from genedml_cli.spots.spots import Spots

FORMAT_VERSION = 1
PIXELS = "pixels"
METADATA_KEY = "genedml"
AT_ONCE = 64
"""Tiles read at a time."""


def read_tiles(slide: Slide, spots: Spots, tile: Tile, views: ViewsConfig, out: UInt8[np.ndarray, "S H W 3"]) -> None:
    """Put the tile around every spot into ``out``, by the same plan and reader as the encoder's; white off the slide.

    Raises:
        GeneDMLError: damaged, or far coarser than the views.
    """
    raster = Raster(slide, views.um_per_px, zoom=tile.zoom)
    plan = plan_tiles(spots.xy_px, raster.scale, raster.size_px, views, tile.side_px)
    order = np.argsort(plan.own, kind="stable")
    own = plan.own[order]
    with (
        console.progress(f"Tiles of {slide.path.name}", len(plan.corners_xy)) as advance,
        reading_ahead(raster, plan.corners_xy, plan.tile_px) as read,
    ):
        for start in range(0, len(plan.corners_xy), AT_ONCE):
            pixels = read(slice(start, start + AT_ONCE))
            first, last = np.searchsorted(own, [start, start + len(pixels)])
            out[order[first:last]] = pixels[own[first:last] - start]
            advance(len(pixels))


def read_patches(patches: PatchFile, spots: Spots, tile: Tile, out: UInt8[np.ndarray, "S H W 3"]) -> None:
    """As :func:`read_tiles`, from a file of tiles that are cut already: their middle, if they are large enough.

    Raises:
        GeneDMLError: the field is wider than theirs.
    """
    if tile.zoom != 1 or tile.side_px > patches.tile_px:
        raise GeneDMLError(
            f"{patches.path} holds tiles of {patches.tile_px} px; this method looks at {tile.side_px} px, "
            f"{tile.zoom:g} times as wide. Give the slide itself."
        )
    inside = slice((patches.tile_px - tile.side_px) // 2, (patches.tile_px + tile.side_px) // 2)
    rows = patches.places(spots.names)
    for start in range(0, len(rows), AT_ONCE):
        out[start : start + AT_ONCE] = patches.read(rows[start : start + AT_ONCE])[:, inside, inside]


def tiles_in_memory(slide: Slide, spots: Spots, tile: Tile, views: ViewsConfig) -> UInt8[Tensor, "S H W 3"]:
    """The tile around every spot."""
    out = np.empty((len(spots), tile.side_px, tile.side_px, 3), dtype=np.uint8)
    read_tiles(slide, spots, tile, views, out)
    return torch.from_numpy(out)


def make_tiles(
    source: Slide | PatchFile,
    spots: Spots,
    tile: Tile,
    views: ViewsConfig,
    made_of: Mapping[str, Any],
    folder: Path,
    name: str,
) -> Path:
    """The file in ``folder`` that holds the tile around every spot of section ``name``; it is made if need be.

    Args:
        source: the slide, or tiles that are cut already.
        spots: on it.
        tile: which field.
        views: of which only um/px matter.
        made_of: what the features of the section are made of; slide, um/px and spots of it are held against the file.
        folder: of the section's feature file.
        name: of the section.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    parts = {part: made_of[part] for part in ("slide", "um_per_px", "spots")}
    parts |= {"views_um_per_px": views.um_per_px, "side_px": tile.side_px, "zoom": tile.zoom, "format": FORMAT_VERSION}
    text = json.dumps(parts, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    file = folder / f"{name}.tiles-{tile.side_px}px-x{tile.zoom:g}.{key}.safetensors"
    if not file.exists():
        _write(file, source, spots, tile, views, text)
    return file


def load_tiles(file: Path, spots: int, checked: bool = False) -> UInt8[Tensor, "S H W 3"]:
    """The tile around every one of so many spots, mapped from a file; ``checked`` as of
    :func:`genedml_cli.features.section_features.load_features`.

    Raises:
        GeneDMLError: the file is damaged.
    """
    with reading(f"The file of tiles {file}", "Remove it and run again: the tiles are then read anew."):
        if not checked:
            check_seal(file)
        with safe_open(file, "pt") as stored:
            pixels = stored.get_tensor(PIXELS)
        if len(pixels) != spots:
            raise ValueError(f"it holds {len(pixels)} tiles for {spots} spots")
        return pixels


def _write(file: Path, source: Slide | PatchFile, spots: Spots, tile: Tile, views: ViewsConfig, text: str) -> None:
    shape = (len(spots), tile.side_px, tile.side_px, 3)
    tensors = {
        PIXELS: torch.empty(shape, dtype=torch.uint8, device="meta"),
        SEAL: torch.empty(SEAL_BYTES, dtype=torch.uint8),
    }
    head, begins = layout(tensors, {METADATA_KEY: text})
    with atomic_write(file) as temporary:
        with temporary.open("wb") as stream:
            stream.write(head)
            stream.truncate(begins[SEAL] + SEAL_BYTES)
        out = np.memmap(temporary, np.uint8, "r+", begins[PIXELS], shape)
        if isinstance(source, PatchFile):
            read_patches(source, spots, tile, out)
        else:
            read_tiles(source, spots, tile, views, out)
        out.flush()
        with temporary.open("r+b") as stream:
            stream.seek(begins[SEAL])
            stream.write(sealed_digest(temporary))
