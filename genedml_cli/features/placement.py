"""Where the features of the sections being trained on live, and batches gathered from there.

Letters: B spots in a batch, N rows, P tiles of the neighbor grid, V orientations, S spots, U distinct tiles.
"""

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from genedml.errors import GeneDMLError
from genedml.networks.inputs import Batch, Needs
from genedml_cli import console
from genedml_cli.features.encoding import orient
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.features.tile_plan import OUTSIDE
from genedml_cli.machine.devices import free_on_device, send
from genedml_cli.machine.memory import free_on_host
from genedml_cli.text import gigabytes

SHARE = 0.5
"""Of free memory that features may take; the rest is for the network, its gradients and other programs."""


class Placement(StrEnum):
    """Where features are, in the words of the line that says it."""

    device = "on the device"
    host = "in host memory"
    disk = "read from disk as needed"


class PlacedFeatures:
    """Features of some sections, all in one place. What a batch holds does not depend on the place.

    Args:
        features: of every section. On disk they stay as they are: maps of the feature files, of which only what a
            batch needs is read.
        device: where batches are wanted.
        needs: what batches hold.
        where: the place.

    Raises:
        GeneDMLError: the network looks at raw pixels, which were not extracted.
    """

    def __init__(
        self,
        features: Sequence[SectionFeatures],
        device: torch.device | str,
        needs: Needs,
        where: Placement = Placement.disk,
    ) -> None:
        lacking = sum(len(one.raw) < len(needs.tiles) for one in features)
        if lacking:
            raise GeneDMLError(
                f"This network looks at raw pixels, and the features of {lacking} of {len(features)} sections are "
                "vectors alone: extract them with its tiles (genedml extract --method NAME --preset published)."
            )
        self._needs = needs
        self.sections = [one.section(device, needs.orientations) for one in features]
        self._device = torch.device(device)
        self._orientations = torch.tensor([one.local.shape[0] for one in features])
        self._spots = torch.tensor([len(one.spots) for one in features])
        self._neighbor = torch.cat([one.neighbor for one in features])
        if needs.tokens:
            self._local = _Rows([one.local.flatten(0, 1) for one in features], self._device, where)
        if needs.neighbors:
            self._tiles = _Rows([one.tiles for one in features], self._device, where)
        self._raw = [
            _Rows([one.raw[field] for one in features], self._device, where) for field in range(len(needs.tiles))
        ]

    def batch(
        self,
        section: Int[Tensor, " B"],
        row: Int[Tensor, " B"],
        orientation: Int[Tensor, " B"] | None = None,
        own_tiles: bool = True,
    ) -> Batch:
        """Some spots, as a network needs them, with the sections that they are of and no others.

        Spot b is row ``row[b]`` of section ``section[b]``, its local tile in orientation ``orientation[b]`` (0 if
        None). The indices are on the host, so that nothing here waits for the device. Without ``own_tiles``,
        tokens and raw tiles are left out: of all spots of a section they are gigabytes.
        """
        touched, of_spot = section.unique(return_inverse=True)
        parts: dict[str, Tensor] = {}
        if self._needs.tokens and own_tiles:
            turned = row if orientation is None else row + orientation * self._spots[section]
            parts["tokens"] = self._local.take(self._local.starts[section] + turned).float()
        if self._needs.neighbors:
            place = self._neighbor[_starts(self._spots)[section] + row]
            tile = self._tiles.starts[section][:, None] + place.clamp(min=0)
            parts["neighbor"] = self._tiles.take(tile.flatten()).unflatten(0, place.shape).float()
            parts["neighbor_mask"] = send(place != OUTSIDE, self._device)
        fields = self._raw if own_tiles else []
        raw = tuple(oriented(rows.take(rows.starts[section] + row), orientation) for rows in fields)
        sections = [self.sections[number] for number in touched.tolist()]
        return Batch(sections, send(of_spot, self._device), send(row, self._device), tiles=raw, **parts)


def oriented(tiles: UInt8[Tensor, "B H W 3"], orientation: Int[Tensor, " B"] | None) -> Float[Tensor, "B 3 H W"]:
    """Each tile flipped and turned as it is drawn, on its device; from 0 to 1."""
    if orientation is not None:
        turned = torch.empty_like(tiles)
        for number in orientation.unique().tolist():
            here = send(torch.nonzero(orientation == number).flatten(), tiles.device)
            turned[here] = orient(tiles[here], number)
        tiles = turned
    return tiles.permute(0, 3, 1, 2).float() / 255


class _Rows:
    """Rows of several tables as if they were one: copied together to a place, or left where they are."""

    def __init__(self, tables: Sequence[Shaped[Tensor, "..."]], device: torch.device, where: Placement) -> None:
        self.starts = _starts(torch.tensor([len(table) for table in tables]))
        self._device = device
        self._tables = list(tables)
        if where is not Placement.disk:
            home = device if where is Placement.device else torch.device("cpu")
            whole = torch.empty(sum(map(len, tables)), *tables[0].shape[1:], dtype=tables[0].dtype, device=home)
            for start, table in zip(self.starts.tolist(), tables, strict=True):
                whole[start : start + len(table)] = table
            self._tables = [whole]

    def take(self, index: Int[Tensor, " N"]) -> Shaped[Tensor, "N ..."]:
        """Some rows, on the device."""
        if len(self._tables) == 1:
            (table,) = self._tables
            if table.device.type == self._device.type:
                return table[send(index, table.device)]
            rows = torch.index_select(table, 0, index, out=self._room(len(index)))
            return rows.to(self._device, non_blocking=True)
        out = self._room(len(index))
        number = torch.searchsorted(self.starts, index, right=True) - 1
        for one in number.unique().tolist():
            here = number == one
            out[here] = self._tables[one][index[here] - self.starts[one]]
        return out.to(self._device, non_blocking=True)

    def _room(self, rows: int) -> Shaped[Tensor, "N ..."]:
        """On the host, pinned where the device is CUDA's, so that what is gathered is copied once."""
        first = self._tables[0]
        return torch.empty(rows, *first.shape[1:], dtype=first.dtype, pin_memory=self._device.type == "cuda")


def place(
    features: Sequence[SectionFeatures], device: torch.device | str, needs: Needs, at_once: int = 1
) -> PlacedFeatures:
    """Put features on the device if they fit there, else into host memory, else leave them on disk; says where.

    Args:
        features: of the sections to train on and to choose the epoch on.
        device: where batches are wanted.
        needs: what batches hold.
        at_once: processes that share the host's memory.
    """
    where = choose(features, torch.device(device), needs, at_once)
    console.note(f"Features of {len(features)} sections: {gigabytes(_size(features, needs))}, {where}.")
    return PlacedFeatures(features, device, needs, where)


def choose(features: Sequence[SectionFeatures], device: torch.device, needs: Needs, at_once: int = 1) -> Placement:
    """Where features are to live, by the memory that is free now; on a CPU the host is the device."""
    size = _size(features, needs)
    if device.type != "cpu" and size <= SHARE * free_on_device(device):
        return Placement.device
    return Placement.host if size * at_once <= SHARE * free_on_host() else Placement.disk


def _size(features: Sequence[SectionFeatures], needs: Needs) -> int:
    vectors = sum(needs.tokens * one.local.nbytes + needs.neighbors * one.tiles.nbytes for one in features)
    return vectors + sum(tiles.nbytes for one in features for tiles in one.raw)


def _starts(lengths: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    return lengths.cumsum(0) - lengths
