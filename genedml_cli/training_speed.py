"""How many spots a second training takes, on sections of HER2ST's number and size with random features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from genedml.checkpoint import EncoderRecord
from genedml.config import Config
from genedml.encoders import EncoderInfo
from genedml_cli.datasets import find_dataset
from genedml_cli.encoding import average_patches
from genedml_cli.expression import Labels
from genedml_cli.features import SectionFeatures
from genedml_cli.machine import Timing, stopwatch
from genedml_cli.samples import Sample
from genedml_cli.sections import SectionData
from genedml_cli.spots import Spots
from genedml_cli.training import train_fold

LIKE = "HER2ST"
PITCH_PX = 400.0
NEIGHBOR_TILES_A_SPOT = 4


@dataclass(frozen=True)
class TrainingSpeed:
    """Spots that an epoch saw, and what it took: batches from few sections, and of all sections shuffled."""

    sections_per_batch: int
    batch_size: int
    spots: int
    took: Timing
    shuffled_spots: int
    shuffled_took: Timing

    @property
    def spots_per_s(self) -> float:
        """With batches from few sections, by the clock."""
        return self.spots / self.took.wall_s

    @property
    def shuffled_spots_per_s(self) -> float:
        """With shuffled batches, by the clock."""
        return self.shuffled_spots / self.shuffled_took.wall_s


def training_speed(encoder: EncoderInfo, config: Config, device: torch.device, seconds: float) -> TrainingSpeed:
    """Train for about ``seconds`` in each way, but no less than a batch and no more than an epoch.

    Shuffled batches hold spots of all sections, so all of them stay in the data, with as many labelled spots as there
    is time for; batches from few sections see only those, so there are as many sections as there is time for.
    """
    few = max(1, config.training.sections_per_batch)
    data = _sections(encoder, config, np.random.default_rng(config.training.seed))
    batch = config.training.batch_size
    _epoch(data[:1], config, few, device)  # libraries choose their kernels at first use
    one = _epoch(data[:few], config, few, device)
    count = _fitting(seconds, one.wall_s, len(data) // few) * few
    took = _epoch(data[:count], config, few, device)
    one = _epoch(_labelled(data, batch), config, 0, device)
    spots = sum(len(section.features.spots) for section in data)
    shuffled = _fitting(seconds, one.wall_s, spots // batch) * batch
    shuffled_took = _epoch(_labelled(data, shuffled), config, 0, device)
    seen = sum(len(section.features.spots) for section in data[:count])
    return TrainingSpeed(few, batch, seen, took, shuffled, shuffled_took)


def _fitting(seconds: float, one_s: float, most: int) -> int:
    return min(most, max(1, int(seconds / one_s)))


def _epoch(data: Sequence[SectionData], config: Config, sections_per_batch: int, device: torch.device) -> Timing:
    once = replace(config.training, epochs=1, sections_per_batch=sections_per_batch, refit=False, augment=False)
    with stopwatch(device) as timing:
        train_fold(data, [], [], replace(config, training=once), device)
    return timing


def _labelled(data: Sequence[SectionData], spots: int) -> list[SectionData]:
    """The same sections with ``spots`` labels in all, evenly spread."""
    ends = np.cumsum([len(section.features.spots) for section in data])
    kept = np.zeros(ends[-1], bool)
    kept[np.linspace(0, ends[-1] - 1, spots).astype(int)] = True
    parts = np.split(kept, ends[:-1])
    return [
        replace(section, labels=replace(section.labels, valid=part)) for section, part in zip(data, parts, strict=True)
    ]


def _sections(encoder: EncoderInfo, config: Config, rng: np.random.Generator) -> list[SectionData]:
    """All share the numbers of the largest: what they are does not change the time."""
    sections = find_dataset(LIKE).sections
    most = max(section.spots for section in sections)
    tokens = average_patches(torch.empty(1, encoder.tokens, encoder.width), config.views.local_grid).shape[1]
    local = torch.randn(1, most, tokens, encoder.width, dtype=torch.float16)
    tiles = torch.randn(most * NEIGHBOR_TILES_A_SPOT, encoder.width, dtype=torch.float16)
    neighbor = torch.randint(len(tiles), (most, config.views.neighbor_grid**2))
    y = rng.random((most, config.labels.panel_size), dtype=np.float32)
    record = EncoderRecord(encoder.name, encoder.width, encoder.tokens, "")
    data = []
    for section in sections:
        count = section.spots
        row, column = np.divmod(np.arange(count), int(count**0.5))
        array_xy = np.stack([column, row], axis=1)
        spots = Spots(tuple(map(str, range(count))), array_xy * PITCH_PX, array_xy)
        features = SectionFeatures(
            spots, local[:, :count], tiles, torch.arange(count), neighbor[:count], record, None, ""
        )
        labels = Labels(y[:count], np.ones(count, bool), np.zeros(count), 0, 0)
        nowhere = Path(section.name)
        sample = Sample(section.name, nowhere, nowhere, nowhere, section.patient, section.fold)
        data.append(SectionData(sample, features, labels))
    return data
