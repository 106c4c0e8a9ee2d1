"""The features of one section, in memory and in a file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import safe_open
from scipy.sparse import csr_matrix
from torch import Tensor

from genedml.checkpoint import EncoderRecord
from genedml.encoders.encoder import Encoder
from genedml.errors import reading
from genedml.networks.inputs import Section
from genedml_cli.features.feature_file import LOCAL, TILES, check_seal, open_for_writing
from genedml_cli.features.tile_plan import OUTSIDE
from genedml_cli.features.tiles import load_tiles
from genedml_cli.files.provenance import VERSION
from genedml_cli.notes import Note
from genedml_cli.spots.spots import Spots

FORMAT_VERSION = 4


METADATA_KEY = "genedml"


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
        um_per_px: of level 0 of the slide; None where views in level-0 pixels did not need it and it is not known.
        slide_sha256: content of the slide file.
        file: the feature file, of which ``local`` and ``tiles`` are maps: only what is looked at is read. None while
            they are in memory alone.
        notes: what must be said with whatever is made of them: doubts about the slide's scale or where the spots lie.
        origin_xy: of the slide, see :attr:`genedml_cli.slides.slide.Slide.origin_xy`.
        raw: pixels around every spot, a table for each field that the network looks at; see
            :mod:`genedml_cli.features.tiles`.
        raw_files: of which ``raw`` are maps.
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
    notes: tuple[Note, ...] = ()
    origin_xy: tuple[int, int] = (0, 0)
    raw: tuple[UInt8[Tensor, "S _ _ 3"], ...] = ()
    raw_files: tuple[Path, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes the name of the file where there is one, not gigabytes."""
        if self.file:
            said = self.um_per_px, self.notes, self.origin_xy
            return mapped_again, (self.file, *said, len(self.local), self.raw_files)
        return SectionFeatures, tuple(getattr(self, field.name) for field in fields(self))

    @property
    def upright(self) -> "SectionFeatures":
        """The same without the other orientations of the local tile."""
        return replace(self, local=self.local[:1])

    @property
    def pooled(self) -> Float[Tensor, "S D"]:
        """Pooled vector of every spot's own tile."""
        return self.tiles[self.own]

    @property
    def turned(self) -> Float[Tensor, "V S D"]:
        """Pooled vector of every spot's own tile in each orientation, as the encoder pools: its class token, which
        stands before the patches, or where there is none their mean.
        """
        tokens = self.local.shape[2]
        has_class_token = math.isqrt(tokens) ** 2 < tokens
        return self.local[:, :, 0] if has_class_token else self.local.float().mean(dim=2)

    @cached_property
    def at_three_scales(self) -> Float[np.ndarray, "S W"]:
        """What references are fitted on, W = 3 D: the vector of every spot's own tile, the mean over its neighbor grid,
        and the mean over the grid's outer ring. Kept as long as the section, 12 KB a spot of UNI's width.
        """
        side = math.isqrt(self.neighbor.shape[1])
        row, column = np.divmod(np.arange(side * side), side)
        ring = (np.minimum(row, column) == 0) | (np.maximum(row, column) == side - 1)
        place = self.neighbor.numpy()
        inside, tiles = place != OUTSIDE, self.tiles.numpy()
        grid_sum, ring_sum = np.zeros((2, len(place), tiles.shape[1]), np.float32)
        for number in range(side * side):  # all tiles of all spots at once would be 25 times what the spots are
            vectors = tiles[np.maximum(place[:, number], 0)].astype(np.float32) * inside[:, number, None]
            grid_sum += vectors
            if ring[number]:
                ring_sum += vectors
        counts = (np.maximum(mask.sum(axis=1), 1)[:, None].astype(np.float32) for mask in (inside, inside & ring))
        means = [total / count for total, count in zip((grid_sum, ring_sum), counts, strict=True)]
        return np.concatenate([self.pooled.float().numpy(), *means], axis=1)

    def section(self, device: torch.device | str = "cpu", orientations: bool = False) -> Section:
        """The global view, in single precision; with ``orientations``, of turned tiles as well."""
        grid_xy = torch.as_tensor(self.spots.grid_xy)
        turned = self.turned.to(device).float() if orientations else None
        pooled, hexagonal = self.pooled.to(device).float(), self.spots.lattice == "hex"
        near = None if self.spots.mean_within_px is None else torch.as_tensor(_rows(self.spots.averaged())).to(device)
        return Section(pooled, grid_xy.to(device), hexagonal, turned, self.spots.array is not None, near)


def encoder_record(encoder: Encoder) -> EncoderRecord:
    """What a model remembers of its encoder."""
    return EncoderRecord(encoder.info.name, encoder.info.width, encoder.info.tokens, encoder.weights_sha256)


def save_features(features: SectionFeatures, path: Path, made_of: Mapping[str, Any]) -> None:
    """Write a feature file whole; ``made_of`` as :attr:`Recipe.parts`."""
    with open_for_writing(path, feature_tables(features), feature_metadata(features, made_of)) as file:
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


def mapped_again(
    path: Path,
    um_per_px: float | None,
    notes: tuple[Note, ...] = (),
    origin_xy: tuple[int, int] = (0, 0),
    orientations: int | None = None,
    raw_files: tuple[Path, ...] = (),
) -> SectionFeatures:
    features = load_features(path, checked=True)
    raw = tuple(load_tiles(file, len(features.spots), checked=True) for file in raw_files)
    said = replace(features, um_per_px=um_per_px, notes=notes, origin_xy=origin_xy)
    return replace(said, local=features.local[:orientations], raw=raw, raw_files=raw_files)


def _check_rows(tensors: dict[str, Tensor], spots: int) -> None:
    """Refuse tables of other lengths than the spots, and rows of ``tiles`` that are not there."""
    lengths = {len(tensors[name]) for name in ("own", "neighbor", "xy_px")} | {tensors["local"].shape[1]}
    own, neighbor, tiles = tensors["own"], tensors["neighbor"], len(tensors["tiles"])
    if lengths != {spots} or not spots:
        raise ValueError(f"its tables are not of its {spots} spots")
    if min(own.min(), neighbor.min() + 1) < 0 or max(own.max(), neighbor.max()) >= tiles:
        raise ValueError("it names tiles that it does not hold")


def feature_tables(features: SectionFeatures) -> dict[str, Tensor]:
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


def feature_metadata(features: SectionFeatures, made_of: Mapping[str, Any], device: str = "") -> dict[str, str]:
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


def _rows(near: csr_matrix) -> Int[np.ndarray, "S K"]:
    """The columns that are set in each row, but for its own; S where it has fewer."""
    own, spots = near.tocoo(), near.shape[0]
    row, column = (part[own.row != own.col] for part in (own.row, own.col))
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=spots)
    rows = np.full((spots, counts.max(initial=0)), spots)
    rows[row[order], np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)] = column[order]
    return rows
