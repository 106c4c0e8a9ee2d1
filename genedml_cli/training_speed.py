"""How many spots a second training takes, on sections of HER2ST's number and size with random features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch

from genedml.checkpoint import EncoderRecord
from genedml.config import Config
from genedml.encoders import EncoderInfo
from genedml.network import GeneDML
from genedml_cli.datasets import find_dataset
from genedml_cli.encoding import average_patches
from genedml_cli.expression import Labels
from genedml_cli.features import SectionFeatures
from genedml_cli.learner import Learner
from genedml_cli.machine import Timing, stopwatch
from genedml_cli.placement import PlacedFeatures, Placement, choose
from genedml_cli.samples import Sample
from genedml_cli.sections import SectionData
from genedml_cli.spots import Spots
from genedml_cli.training import SpotLoader

LIKE = "HER2ST"
PITCH_PX = 400.0
NEIGHBOR_TILES_A_SPOT = 4


@dataclass(frozen=True)
class TrainingSpeed:
    """Spots that steps saw, and what they took: batches from few sections, and of all sections shuffled."""

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
    """Train one network for about ``seconds``, at least a step in each way.

    The ways take turns of about the same length, a shuffled step first, so that whatever else the machine does slows
    both. Gathering a batch is part of its step.
    """
    few = max(1, config.training.sections_per_batch)
    data = _sections(encoder, config, np.random.default_rng(config.training.seed))
    features = _placed(data, device)
    width, genes = encoder.width, config.labels.panel_size
    network = GeneDML(config.network, config.loss, width, genes, config.views.neighbor_grid)
    learner = Learner(network, config.training, device)
    shuffled, grouped = (
        _Way(learner, SpotLoader(data, features, replace(config.training, sections_per_batch=sections), device), device)
        for sections in (0, few)
    )
    grouped.step()
    grouped.forget()  # libraries choose their kernels at first use
    while shuffled.took.wall_s + grouped.took.wall_s < seconds:
        shuffled.step()
        while grouped.took.wall_s < shuffled.took.wall_s:
            grouped.step()
    batch = config.training.batch_size
    return TrainingSpeed(few, batch, grouped.spots, grouped.took, shuffled.spots, shuffled.took)


class _Way:
    """One way to draw batches: what its steps took so far, and how many spots they saw."""

    def __init__(self, learner: Learner, loader: SpotLoader, device: torch.device) -> None:
        self._learner, self._device = learner, device
        self._random = torch.Generator().manual_seed(0)
        self._batches = chain.from_iterable(loader.epoch(self._random) for _ in count())
        self.forget()

    def forget(self) -> None:
        self.spots, self.took = 0, Timing()

    def step(self) -> None:
        with stopwatch(self._device) as took:
            views, label = next(self._batches)
            self._learner.step(views, label, self._random)
        self.spots += len(label)
        self.took = Timing(self.took.wall_s + took.wall_s, self.took.cpu_s + took.cpu_s)


def _placed(data: Sequence[SectionData], device: torch.device) -> PlacedFeatures:
    """On the device if they fit; else as they are, for they are in memory and share it."""
    features = [section.features for section in data]
    where = choose(features, device)
    return PlacedFeatures(features, device, where if where is Placement.device else Placement.disk)


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
