"""The plain way, to compare with: one region read a spot, every tile of it encoded, every section run at each step.

Letters: N tiles.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from genedml.config import ViewsConfig
from genedml.encoders.encoder import Encoder
from genedml.networks.inputs import Batch, Section
from genedml_cli.slides.pyramids import WHITE
from genedml_cli.slides.raster import Raster
from genedml_cli.spots.spots import Spots


def read_plainly(raster: Raster, spots: Spots, views: ViewsConfig, seconds: float) -> int:
    """Read the neighbor view of one spot after the other until the time is over; returns how many."""
    end = time.perf_counter() + seconds
    for done, (x, y) in enumerate(spots.xy_px.tolist(), 1):
        read_region(raster, x, y, views.tile_px * views.neighbor_grid)
        if time.perf_counter() > end:
            return done
    return len(spots)


@torch.inference_mode()
def extract_plainly(raster: Raster, spots: Spots, encoder: Encoder, views: ViewsConfig, seconds: float) -> int:
    """Read and encode one spot after the other, local tile and neighbors apart; returns how many."""
    end = time.perf_counter() + seconds
    for done, (x, y) in enumerate(spots.xy_px.tolist(), 1):
        region = read_region(raster, x, y, views.tile_px * views.neighbor_grid)
        tiles = cut(region, views)
        middle = len(tiles) // 2
        for batch in (tiles[middle : middle + 1], tiles):
            encoded = encoder(torch.from_numpy(batch).to(encoder.device))
            encoded.tokens.half().cpu(), encoded.pooled.half().cpu()
        if time.perf_counter() > end:
            return done
    return len(spots)


def read_region(raster: Raster, x_px: float, y_px: float, side_px: int) -> Image.Image:
    """The square of ``side_px`` raster pixels around a level-0 position, straight from the slide."""
    source, level = raster.slide.source, raster.level
    side = round(side_px * raster.level_scale)
    down = source.downsamples[level]
    left, top = round(x_px / down) - side // 2, round(y_px / down) - side // 2
    width, height = source.sizes_px[level]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    square = Image.new("RGB", (side, side), (WHITE, WHITE, WHITE))
    square.paste(source.read(level, x0, y0, x1 - x0, y1 - y0), (x0 - left, y0 - top))
    return square.resize((side_px, side_px), Image.Resampling.BICUBIC)


def cut(region: Image.Image, views: ViewsConfig) -> UInt8[np.ndarray, "N 224 224 3"]:
    """The tiles of a square region, row by row."""
    side, tile = views.neighbor_grid, views.tile_px
    tiles = np.asarray(region).reshape(side, tile, side, tile, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, tile, tile, 3))


def over_all(batch: Batch, sections: Sequence[Section]) -> Batch:
    """The same spots with all the sections, so that the global transformer runs over those without a spot too."""
    number_of = {id(section): number for number, section in enumerate(sections)}
    numbers = torch.tensor([number_of[id(section)] for section in batch.sections], device=batch.section.device)
    return replace(batch, sections=sections, section=numbers[batch.section])
