"""Slide + spots + encoder -> the features of a section, kept in a file.

Letters: S spots, V orientations of the local tile (1, or 8 with flips), T tokens of a local tile (the encoder's; with
``views.local_grid`` the L that remain after averaging), D encoder width, U distinct tiles, P tiles of the neighbor
grid, N some tiles. Features are stored in half precision, or as ``views.precision`` says.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from genedml.config import ViewsConfig
from genedml.encoders.encoder import Encoder
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Tile
from genedml_cli import console
from genedml_cli.datasets.samples import Sample
from genedml_cli.features.encoding import MemorySink, encode_plan, tokens_kept
from genedml_cli.features.feature_file import open_for_writing, started
from genedml_cli.features.recipe import Recipe
from genedml_cli.features.section_features import (
    SectionFeatures,
    encoder_record,
    feature_metadata,
    feature_tables,
    mapped_again,
)
from genedml_cli.features.tile_plan import TilePlan, plan_tiles
from genedml_cli.features.tiles import load_tiles, make_tiles, tiles_in_memory
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import free_bytes
from genedml_cli.machine.memory import free_on_host
from genedml_cli.machine.stopping import on_stop
from genedml_cli.slides.patches import PATCHES_SUFFIX, PatchFile, open_patches
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.read_ahead import reading_ahead
from genedml_cli.slides.slide import Slide
from genedml_cli.slides.slide_files import content_sha256
from genedml_cli.slides.tissue import find_tissue
from genedml_cli.spots.placing import check_on_tissue, doubt_spots, say_what_is_derived
from genedml_cli.spots.section import open_section, with_tiles
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots, on_image
from genedml_cli.text import gigabytes

KINDS = {"float16": torch.float16, "float32": torch.float32}
MEMORY_SHARE = 0.2
"""Of free memory that features of a prediction may take; slides of a cohort are predicted side by side."""
ReadTiles = Callable[[slice], UInt8[np.ndarray, "N 224 224 3"]]


@takes_paths
def extract(
    samples: Sequence[Sample],
    encoder: Encoder,
    views: ViewsConfig,
    folder: Path,
    flips: bool = False,
    allow_off_tissue: bool = False,
    skip_off_image: bool = False,
    tiles: Sequence[Tile] = (),
) -> dict[str, SectionFeatures]:
    """Features of every sample by name: read from ``folder`` where they are there, else computed and kept there.

    A file is used again only if slide content, um/px, spots, encoder, its weights and the views are the same. Spots
    are held against the tissue each time; ``allow_off_tissue`` takes them all the same, and ``skip_off_image`` leaves
    out those that lie off the image. ``tiles`` are the fields of raw pixels that are wanted beside.

    Raises:
        GeneDMLError: as for slides and spots, with the sample named.
    """
    found: dict[str, SectionFeatures] = {}
    kept = f"What was encoded is kept in {folder}. To go on, run the same command again."
    with on_stop(kept), console.progress("Sections", len(samples)) as advance:
        for sample in samples:
            try:
                found[sample.name] = _extract_sample(
                    sample, encoder, views, folder, flips, allow_off_tissue, skip_off_image, tiles
                )
            except GeneDMLError as error:
                error.add_note(f"This was section {sample.name}.")
                raise
            advance(note=sample.name)
    return found


def encode_section(
    slide: Slide,
    spots: Spots,
    encoder: Encoder,
    views: ViewsConfig,
    flips: bool = False,
    slide_sha256: str = "",
    tiles: Sequence[Tile] = (),
) -> SectionFeatures:
    """Tile a slide around its spots and encode every distinct tile once.

    Args:
        slide: with known um/px, unless the views are native.
        spots: on it.
        encoder: on the device it is to run on.
        views: tile size, grid and um/px.
        flips: also encode the seven other orientations of each spot's own tile.
        slide_sha256: content of the slide, if known; else it is computed.
        tiles: fields of raw pixels that are wanted beside.

    Raises:
        GeneDMLError: damaged, or far coarser than the views.
    """
    recipe = _recipe(slide, spots, encoder, views, flips, slide_sha256)
    raw = tuple(tiles_in_memory(slide, spots, tile, views) for tile in tiles)
    return replace(_encode_section(slide, recipe, encoder, views, None), raw=raw)


def encode_section_to_file(
    slide: Slide,
    spots: Spots,
    encoder: Encoder,
    views: ViewsConfig,
    folder: Path,
    name: str,
    flips: bool = False,
    slide_sha256: str = "",
    tiles: Sequence[Tile] = (),
) -> SectionFeatures:
    """As :func:`encode_section`, in a file of ``folder`` that begins with ``name``: read if it is there, else made.

    A call that was killed as it made it is gone on from. Memory holds a batch at a time.

    Raises:
        GeneDMLError: as for :func:`encode_section`; the folder cannot be written.
    """
    recipe = _recipe(slide, spots, encoder, views, flips, slide_sha256)
    with on_stop(f"What was encoded is kept in {folder}. To go on, run the same command again."):
        features = recipe.load_or_make(folder, name, lambda file: _encode_section(slide, recipe, encoder, views, file))
        return _with_raw(features, slide, recipe, folder, name, tiles)


def goes_through_a_file(encoder: Encoder, spots: int, views: ViewsConfig, tiles: Sequence[Tile] = ()) -> bool:
    """Whether a prediction keeps its features in a file: where memory is short, or encoding takes hours.

    Hours it takes with a learned encoder on a CPU; of such a file a call that was killed is gone on from.
    """
    vectors = tokens_kept(encoder.info.tokens, views.local_grid) + views.neighbor_grid**2 + 1
    a_spot = vectors * encoder.info.width * KINDS[views.precision].itemsize + sum(3 * tile.side_px**2 for tile in tiles)
    slow = encoder.device.type == "cpu" and encoder.info.build is None
    return slow or spots * a_spot > MEMORY_SHARE * free_on_host()


def _extract_sample(
    sample: Sample,
    encoder: Encoder,
    views: ViewsConfig,
    folder: Path,
    flips: bool,
    allow_off_tissue: bool,
    skip_off_image: bool,
    tiles: Sequence[Tile],
) -> SectionFeatures:
    spots = read_spots(sample.spots)
    if sample.slide.suffix == PATCHES_SUFFIX:
        with open_patches(sample.slide, views) as patches:
            spots = with_tiles(patches, spots)
            sha256 = content_sha256(sample.slide)
            recipe = Recipe(sha256, patches.um_per_px, spots, encoder_record(encoder), views, flips)
            found = recipe.load_or_make(folder, sample.name, partial(_encode_patches, patches, recipe, encoder))
            return _with_raw(found, patches, recipe, folder, sample.name, tiles)
    spots, left_out = on_image(sample.slide, spots) if skip_off_image else (spots, [])
    with open_section(
        sample.slide, spots, sample.um_per_px, sample.pitch_um, scale_needed=views.um_per_px != "native"
    ) as slide:
        share = check_on_tissue(spots, slide, find_tissue(slide), allow_off_tissue)
        say_what_is_derived(slide, spots, sample.pitch_um)
        recipe = _recipe(slide, spots, encoder, views, flips)
        found = recipe.load_or_make(folder, sample.name, partial(_encode_section, slide, recipe, encoder, views))
        found = _with_raw(found, slide, recipe, folder, sample.name, tiles)
        notes = (*slide.notes, *left_out, *doubt_spots(spots, share, sample.spots))
        return replace(found, notes=notes, origin_xy=slide.origin_xy)


def _with_raw(
    features: SectionFeatures,
    source: Slide | PatchFile,
    recipe: Recipe,
    folder: Path,
    name: str,
    tiles: Sequence[Tile],
) -> SectionFeatures:
    views, spots = recipe.views, recipe.spots
    files = tuple(make_tiles(source, spots, tile, views, recipe.parts, folder, name) for tile in tiles)
    return replace(features, raw=tuple(load_tiles(file, len(spots)) for file in files), raw_files=files)


def _recipe(
    slide: Slide, spots: Spots, encoder: Encoder, views: ViewsConfig, flips: bool, slide_sha256: str = ""
) -> Recipe:
    """What the features of a section depend on.

    Raises:
        GeneDMLError: views in um need the slide's um/px, which is unknown.
    """
    um_per_px = slide.um_per_px if slide.knows_scale or views.um_per_px != "native" else None
    return Recipe(slide_sha256 or content_sha256(slide.path), um_per_px, spots, encoder_record(encoder), views, flips)


def _encode_section(
    slide: Slide, recipe: Recipe, encoder: Encoder, views: ViewsConfig, file: Path | None
) -> SectionFeatures:
    raster = Raster(slide, views.um_per_px)
    plan = plan_tiles(recipe.spots.xy_px, raster.scale, raster.size_px, views)
    console.note(f"{slide.path.name}: {len(recipe.spots)} spots, {len(plan.corners_xy)} tiles to read and encode ...")

    def read_from(first: int) -> AbstractContextManager[ReadTiles]:
        return reading_ahead(raster, plan.corners_xy, plan.tile_px, first=first)

    return _encode(recipe, plan, read_from, encoder, slide.path.name, file)


def _encode_patches(patches: PatchFile, recipe: Recipe, encoder: Encoder, file: Path | None) -> SectionFeatures:
    place = patches.places(recipe.spots.names)
    own = np.arange(len(recipe.spots))
    plan = TilePlan(patches.corners_xy[place], own, own[:, None].copy(), patches.tile_px)

    def read(places: slice) -> UInt8[np.ndarray, "N 224 224 3"]:
        return patches.read(place[places])

    return _encode(recipe, plan, lambda _: nullcontext(read), encoder, patches.path.name, file)


def _encode(
    recipe: Recipe,
    plan: TilePlan,
    read_from: Callable[[int], AbstractContextManager[ReadTiles]],
    encoder: Encoder,
    title: str,
    file: Path | None,
) -> SectionFeatures:
    """Encode the tiles of a plan, into a file if there is one; ``read_from`` opens them from a tile on."""
    where, grid, kind = "cpu" if file is None else "meta", recipe.views.local_grid, KINDS[recipe.views.precision]
    width, tokens = encoder.info.width, tokens_kept(encoder.info.tokens, grid)
    features = SectionFeatures(
        recipe.spots,
        torch.empty(8 if recipe.flips else 1, len(plan.own), tokens, width, dtype=kind, device=where),
        torch.empty(len(plan.corners_xy), width, dtype=kind, device=where),
        torch.as_tensor(plan.own),
        torch.as_tensor(plan.neighbor),
        recipe.encoder,
        recipe.um_per_px,
        recipe.slide_sha256,
    )
    if file is None:
        with read_from(0) as read:
            encode_plan(read, plan, encoder, grid, title, MemorySink(features.local, features.tiles))
        return features
    if not started(file):
        _check_space(file.parent, features.local.nbytes + features.tiles.nbytes)
    with (
        open_for_writing(
            file, feature_tables(features), feature_metadata(features, recipe.parts, encoder.device.type)
        ) as room,
        read_from(room.done) as read,
    ):
        encode_plan(read, plan, encoder, grid, title, room)
    return mapped_again(file, recipe.um_per_px)


def _check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot take."""
    free = free_bytes(folder)
    if needed > free:
        raise GeneDMLError(
            f"Its features take {gigabytes(needed)}; the disk of {folder} has {gigabytes(free)} free. Make room, or "
            "write to another disk (--features, -o). To train with less: one orientation of each tile, an eighth "
            "(--set training.augment=false), or averaged tokens (--set views.local_grid=4)."
        )
