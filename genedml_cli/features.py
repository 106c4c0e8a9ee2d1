"""Slide + spots + encoder -> the features of a section, kept in a file.

Letters: S spots, V orientations of the local tile (1, or 8 with flips), T tokens of a local tile (the encoder's; with
``views.local_grid`` the L that remain after averaging), D encoder width, U distinct tiles, P tiles of the neighbor
grid, N some tiles. Features are stored in half precision.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import safe_open
from torch import Tensor

from genedml.checkpoint import EncoderRecord
from genedml.config import ViewsConfig, to_dict
from genedml.encoders import Encoder
from genedml.errors import GeneDMLError, reading
from genedml.network import Section
from genedml_cli import console
from genedml_cli.encoding import VectorsInMemory, encode_plan, tokens_kept
from genedml_cli.feature_file import LOCAL, TILES, check_seal, making, started
from genedml_cli.locks import forget_dead, in_turn
from genedml_cli.patches import PATCHES_SUFFIX, PatchFile, open_patches
from genedml_cli.paths import takes_paths
from genedml_cli.reading import reading_ahead
from genedml_cli.samples import Sample
from genedml_cli.siting import check_on_tissue, doubt_spots, say_what_is_derived
from genedml_cli.slide_files import content_sha256
from genedml_cli.slides import Raster, Slide
from genedml_cli.spot_files import read_spots
from genedml_cli.spots import Spots, on_image, open_section
from genedml_cli.stopping import keeping
from genedml_cli.storage import VERSION, free_bytes, gigabytes
from genedml_cli.tiling import TilePlan, plan_tiles
from genedml_cli.tissue import find_tissue

FORMAT_VERSION = 4
METADATA_KEY = "genedml"
WORDS = {"slide": "slide content", "um_per_px": "um/px", "weights": "weights of the encoder", "flips": "orientations"}
"""What the parts of a recipe are called, where it is not by their names."""

ReadTiles = Callable[[slice], UInt8[np.ndarray, "N 224 224 3"]]


@dataclass(frozen=True)
class SectionFeatures:
    """All that the network sees of one section.

    Args:
        spots: the spots, in the order of every array.
        local: tokens of each spot's own tile, in every orientation kept; orientation 0 is the tile as it stands.
        tiles: pooled vector of every distinct tile.
        own: row of ``tiles`` of each spot's own tile.
        neighbor: row of ``tiles`` at each place of each spot's grid, -1 where the slide ends.
        encoder: whose features these are.
        um_per_px: of level 0 of the slide; None where views in level-0 pixels did not need it and nobody knows it.
        slide_sha256: content of the slide file.
        file: the feature file, of which ``local`` and ``tiles`` are maps: only what is looked at is read. None while
            they are in memory alone.
        notes: what must be said with whatever is made of them: doubts about the slide's scale or where the spots lie.
        origin_xy: of the slide, see :attr:`genedml_cli.slides.Slide.origin_xy`.
    """

    spots: Spots
    local: Float[Tensor, "V S T D"]
    tiles: Float[Tensor, "U D"]
    own: Int[Tensor, " S"]
    neighbor: Int[Tensor, "S P"]
    encoder: EncoderRecord
    um_per_px: float | None
    slide_sha256: str
    file: Path | None = None
    notes: tuple[str, ...] = ()
    origin_xy: tuple[int, int] = (0, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes the name of the file where there is one, not gigabytes."""
        if self.file:
            return _mapped_again, (self.file, self.um_per_px, self.notes, self.origin_xy, len(self.local))
        return SectionFeatures, tuple(getattr(self, field.name) for field in fields(self))

    @property
    def upright(self) -> "SectionFeatures":
        """The same without the other orientations of the local tile."""
        return replace(self, local=self.local[:1])

    @property
    def pooled(self) -> Float[Tensor, "S D"]:
        """Pooled vector of every spot's own tile."""
        return self.tiles[self.own]

    def section(self, device: torch.device | str = "cpu") -> Section:
        """The global view, in single precision."""
        grid_xy = torch.as_tensor(self.spots.grid_xy)
        return Section(self.pooled.to(device).float(), grid_xy.to(device))


@dataclass(frozen=True)
class Recipe:
    """All that the features of a section depend on: they are used again only where none of its parts differs.

    ``um_per_px`` is none of them where views are in level-0 pixels.
    """

    slide_sha256: str
    um_per_px: float | None
    spots: Spots
    encoder: EncoderRecord
    views: ViewsConfig
    flips: bool

    @property
    def parts(self) -> dict[str, Any]:
        """Each part by the name under which a difference of it is told."""
        spots = self.spots
        array_xy = None if spots.array_xy is None else spots.array_xy.tolist()
        listed = json.dumps([spots.names, spots.xy_px.tolist(), array_xy])
        return {
            "slide": self.slide_sha256,
            "um_per_px": None if self.views.um_per_px == "native" else self.um_per_px,
            "spots": hashlib.sha256(listed.encode()).hexdigest(),
            "encoder": self.encoder.name,
            "weights": self.encoder.weights_sha256,
            "views": to_dict(self.views),
            "flips": self.flips,
        }

    def kept(self, folder: Path, name: str, encode: Callable[[Path], SectionFeatures]) -> SectionFeatures:
        """The features of section ``name`` from their file in ``folder``, which ``encode`` makes if it is not there.

        Where one orientation is asked, a file of all eight does: of it the first is taken. Says what differs where
        there are features of that section, but others.
        """
        file, turned = self._file(folder, name), replace(self, flips=True)._file(folder, name)
        if file.exists():
            return self._opened(file)
        if turned.exists():
            return self._opened(turned).upright
        with in_turn(file):
            if file.exists():  # by now: another process was at it
                return self._opened(file)
            _say_what_differs(folder, name, self.parts)
            return encode(file)

    def _file(self, folder: Path, name: str) -> Path:
        key = hashlib.sha256(json.dumps([FORMAT_VERSION, self.parts], sort_keys=True).encode()).hexdigest()
        return folder / f"{name}.{self.encoder.name.replace(':', '-')}.{key[:12]}.safetensors"

    def _opened(self, file: Path) -> SectionFeatures:
        forget_dead(file)
        return replace(load_features(file), um_per_px=self.um_per_px)


def _say_what_differs(folder: Path, name: str, parts: Mapping[str, Any]) -> None:
    """In how far the features of a section that are there are others, by those that differ least."""
    found: list[list[str]] = []
    for file in sorted(folder.glob(f"{escape(name)}.*.safetensors")):
        with suppress(GeneDMLError), reading(f"The feature file {file}", ""), safe_open(file, "pt") as stored:
            made_of = json.loads(stored.metadata()[METADATA_KEY])["made_of"]
            found.append([WORDS.get(part, part) for part in parts if made_of.get(part) != parts[part]])
    if found:
        least = min(found, key=len)
        differ = ", ".join(least)
        console.note(f"{name}: the features in {folder} are of other {differ or 'format'}; making new ones.")


@takes_paths
def extract(
    samples: Sequence[Sample],
    encoder: Encoder,
    views: ViewsConfig,
    folder: Path,
    flips: bool = False,
    allow_off_tissue: bool = False,
    skip_off_image: bool = False,
) -> dict[str, SectionFeatures]:
    """Features of every sample by name: read from ``folder`` where they are there, else computed and kept there.

    A file is used again only if slide content, um/px, spots, encoder, its weights and the views are the same. Spots
    are held against the tissue each time; ``allow_off_tissue`` takes them all the same, and ``skip_off_image`` leaves
    out those that lie off the image.

    Raises:
        GeneDMLError: as for slides and spots, with the sample named.
    """
    found: dict[str, SectionFeatures] = {}
    kept = f"What was encoded is kept in {folder}. To go on, run the same command again."
    with keeping(kept), console.progress("Sections", len(samples)) as advance:
        for sample in samples:
            try:
                found[sample.name] = _extract_sample(
                    sample, encoder, views, folder, flips, allow_off_tissue, skip_off_image
                )
            except GeneDMLError as error:
                error.add_note(f"This was section {sample.name}.")
                raise
            advance(note=sample.name)
    return found


def encode_section(
    slide: Slide, spots: Spots, encoder: Encoder, views: ViewsConfig, flips: bool = False, slide_sha256: str = ""
) -> SectionFeatures:
    """Tile a slide around its spots and encode every distinct tile once.

    Args:
        slide: with known um/px, unless the views are native.
        spots: on it.
        encoder: on the device it is to run on.
        views: tile size, grid and um/px.
        flips: also encode the seven other orientations of each spot's own tile.
        slide_sha256: content of the slide, if known; else it is computed.

    Raises:
        GeneDMLError: damaged, or far coarser than the views.
    """
    recipe = _recipe(slide, spots, encoder, views, flips, slide_sha256)
    return _encode_section(slide, recipe, encoder, views, None)


def keep_section(
    slide: Slide,
    spots: Spots,
    encoder: Encoder,
    views: ViewsConfig,
    folder: Path,
    name: str,
    flips: bool = False,
    slide_sha256: str = "",
) -> SectionFeatures:
    """As :func:`encode_section`, in a file of ``folder`` that begins with ``name``: read if it is there, else made.

    A call that was killed as it made it is gone on from. Memory holds a batch at a time.

    Raises:
        GeneDMLError: as for :func:`encode_section`; the folder cannot be written.
    """
    recipe = _recipe(slide, spots, encoder, views, flips, slide_sha256)
    return recipe.kept(folder, name, lambda file: _encode_section(slide, recipe, encoder, views, file))


def encoder_record(encoder: Encoder) -> EncoderRecord:
    """What a model remembers of its encoder."""
    return EncoderRecord(encoder.info.name, encoder.info.width, encoder.info.tokens, encoder.weights_sha256)


def save_features(features: SectionFeatures, path: Path, made_of: Mapping[str, Any]) -> None:
    """Write a feature file whole; ``made_of`` as :attr:`Recipe.parts`."""
    with making(path, _tables(features), _metadata(features, made_of)) as file:
        file.put_all(features.local, features.tiles)


def load_features(path: Path, checked: bool = False) -> SectionFeatures:
    """Open a feature file; its vectors are mapped, so that they take no memory until they are looked at.

    Args:
        path: of the file.
        checked: this run wrote it, or has held it against its hash already.

    Raises:
        GeneDMLError: broken, not a feature file of this format, or changed since it was written.
    """
    with reading(f"The feature file {path}", "Remove it and run again: its section is then encoded anew."):
        with safe_open(path, "pt") as stored:
            metadata = json.loads((stored.metadata() or {})[METADATA_KEY])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no mapping
        if metadata["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {metadata['format_version']}, not {FORMAT_VERSION}")
        if not checked:
            check_seal(path)
        array_xy = tensors["array_xy"].numpy() if "array_xy" in tensors else None
        _check_rows(tensors, len(metadata["names"]))
        return SectionFeatures(
            Spots(tuple(metadata["names"]), tensors["xy_px"].numpy(), array_xy),
            tensors["local"],
            tensors["tiles"],
            tensors["own"],
            tensors["neighbor"],
            EncoderRecord(**metadata["encoder"]),
            metadata["um_per_px"],
            metadata["slide_sha256"],
            path,
        )


def _mapped_again(
    path: Path,
    um_per_px: float | None,
    notes: tuple[str, ...] = (),
    origin_xy: tuple[int, int] = (0, 0),
    orientations: int | None = None,
) -> SectionFeatures:
    features = load_features(path, checked=True)
    local = features.local[:orientations]
    return replace(features, local=local, um_per_px=um_per_px, notes=notes, origin_xy=origin_xy)


def _check_rows(tensors: dict[str, Tensor], spots: int) -> None:
    """Refuse tables of other lengths than the spots, and rows of ``tiles`` that are not there."""
    lengths = {len(tensors[name]) for name in ("own", "neighbor", "xy_px")} | {tensors["local"].shape[1]}
    own, neighbor, tiles = tensors["own"], tensors["neighbor"], len(tensors["tiles"])
    if lengths != {spots} or not spots:
        raise ValueError(f"its tables are not of its {spots} spots")
    if min(own.min(), neighbor.min() + 1) < 0 or max(own.max(), neighbor.max()) >= tiles:
        raise ValueError("it names tiles that it does not hold")


def _extract_sample(
    sample: Sample,
    encoder: Encoder,
    views: ViewsConfig,
    folder: Path,
    flips: bool,
    allow_off_tissue: bool,
    skip_off_image: bool,
) -> SectionFeatures:
    spots = read_spots(sample.spots)
    if sample.slide.suffix == PATCHES_SUFFIX:
        with open_patches(sample.slide, views) as patches:
            spots = patches.with_tiles(spots)
            sha256 = content_sha256(sample.slide)
            recipe = Recipe(sha256, patches.um_per_px, spots, encoder_record(encoder), views, flips)
            return recipe.kept(folder, sample.name, partial(_encode_patches, patches, recipe, encoder))
    spots, left_out = on_image(sample.slide, spots) if skip_off_image else (spots, [])
    with open_section(
        sample.slide, spots, sample.um_per_px, sample.pitch_um, scale_needed=views.um_per_px != "native"
    ) as slide:
        share = check_on_tissue(spots, slide, find_tissue(slide), allow_off_tissue)
        say_what_is_derived(slide, spots, sample.pitch_um)
        recipe = _recipe(slide, spots, encoder, views, flips)
        found = recipe.kept(folder, sample.name, partial(_encode_section, slide, recipe, encoder, views))
        notes = (*slide.notes, *left_out, *doubt_spots(spots, share, sample.spots))
        return replace(found, notes=notes, origin_xy=slide.origin_xy)


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
    where, grid = "cpu" if file is None else "meta", recipe.views.local_grid
    width, tokens = encoder.info.width, tokens_kept(encoder.info.tokens, grid)
    features = SectionFeatures(
        recipe.spots,
        torch.empty(8 if recipe.flips else 1, len(plan.own), tokens, width, dtype=torch.float16, device=where),
        torch.empty(len(plan.corners_xy), width, dtype=torch.float16, device=where),
        torch.as_tensor(plan.own),
        torch.as_tensor(plan.neighbor),
        recipe.encoder,
        recipe.um_per_px,
        recipe.slide_sha256,
    )
    if file is None:
        with read_from(0) as read:
            encode_plan(read, plan, encoder, grid, title, VectorsInMemory(features.local, features.tiles))
        return features
    if not started(file):
        _check_space(file.parent, features.local.nbytes + features.tiles.nbytes)
    with (
        making(file, _tables(features), _metadata(features, recipe.parts, encoder.device.type)) as room,
        read_from(room.done) as read,
    ):
        encode_plan(read, plan, encoder, grid, title, room)
    return _mapped_again(file, recipe.um_per_px)


def _tables(features: SectionFeatures) -> dict[str, Tensor]:
    """What a feature file holds, by name."""
    tensors = {
        LOCAL: features.local,
        TILES: features.tiles,
        "own": features.own,
        "neighbor": features.neighbor,
        "xy_px": torch.as_tensor(features.spots.xy_px),
    }
    if features.spots.array_xy is not None:
        tensors["array_xy"] = torch.as_tensor(features.spots.array_xy)
    return tensors


def _metadata(features: SectionFeatures, made_of: Mapping[str, Any], device: str = "") -> dict[str, str]:
    """What a feature file says of itself. A part that was made on another kind of device is not gone on from."""
    values = {
        "format_version": FORMAT_VERSION,
        "names": features.spots.names,
        "encoder": asdict(features.encoder),
        "um_per_px": made_of.get("um_per_px", features.um_per_px),  # what the file is made of, not what else was said
        "slide_sha256": features.slide_sha256,
        "made_of": made_of,
        "made_by": {**VERSION, "device": device},
    }
    return {METADATA_KEY: json.dumps(values, sort_keys=True)}


def _check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot take."""
    free = free_bytes(folder)
    if needed > free:
        raise GeneDMLError(
            f"Its features take {gigabytes(needed)}; the disk of {folder} has {gigabytes(free)} free. Make room, or "
            "write to another disk (--features, -o). To train with less: one orientation of each tile, an eighth "
            "(--set training.augment=false), or averaged tokens (--set views.local_grid=4)."
        )
