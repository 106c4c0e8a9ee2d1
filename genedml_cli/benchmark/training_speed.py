"""How many spots a second training takes, on sections of HER2ST's number and size with random features."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from genedml.checkpoint import EncoderRecord
from genedml.config import Config
from genedml.encoders.table import EncoderInfo
from genedml.networks.inputs import Batch, Needs
from genedml.networks.registry import build, network_class
from genedml_cli.benchmark.naive import over_all
from genedml_cli.datasets.datasets import find_dataset
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.labels import Labels
from genedml_cli.features.encoding import average_patches
from genedml_cli.features.placement import PlacedFeatures, Placement, choose
from genedml_cli.features.section_data import SectionData
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.machine.stopwatch import Timing, stopwatch
from genedml_cli.spots.spots import Spots
from genedml_cli.training.learner import Learner
from genedml_cli.training.loop import SpotLoader, shape_of

LIKE = "HER2ST"
PITCH_PX = 400.0
TURN_STEPS = 10
NEIGHBOR_TILES_A_SPOT = 4


@dataclass(frozen=True)
class Steps:
    """Steps of one way to train: the spots they saw, what they took, and how long the network had no work of it.

    ``waited_s`` is the time in which a batch was gathered where that and the network share a processor; on CUDA, the
    time in which the device ran no kernel.
    """

    spots: int
    took: Timing
    waited_s: float

    @property
    def spots_per_s(self) -> float:
        """By the clock."""
        return self.spots / self.took.wall_s

    @property
    def waited_share(self) -> float:
        """Of the time by the clock."""
        return self.waited_s / self.took.wall_s

    @property
    def a_spot(self) -> Timing:
        """What a spot took."""
        return self.took.times(1 / self.spots)


@dataclass(frozen=True)
class TrainingSpeed:
    """Ways to train, by the batch: of few sections, of all sections shuffled, and shuffled with every section run.

    ``plain`` is the last, if it was asked for: the global transformer runs at each step over all that is trained on.
    """

    sections_per_batch: int
    batch_size: int
    few: Steps
    shuffled: Steps
    plain: Steps | None


def training_speed(
    encoder: EncoderInfo, config: Config, device: torch.device, seconds: float, against_naive: bool = False
) -> TrainingSpeed:
    """Train one network for about ``seconds``, at least a step in each way.

    The ways take turns of about the same length, the slowest first, so that whatever else the machine does slows all.
    Gathering a batch is part of its step.
    """
    few = max(1, config.training.sections_per_batch)
    data = _sections(encoder, config, np.random.default_rng(config.training.seed))
    needs = network_class(config.method).needs(config.network)
    features = _placed(data, device, needs)
    network = build(config.method, config.network, shape_of(data[0].features, data[0].labels.y.shape[1], config))
    learner = Learner(network, config.training, device)
    shuffled, grouped = (
        SpotLoader(data, features, replace(config.training, sections_per_batch=sections), device, needs)
        for sections in (0, few)
    )
    ways = [_Way(learner, shuffled, device), _Way(learner, grouped, device)]
    if against_naive:
        ways.insert(0, _Way(learner, shuffled, device, functools.partial(over_all, sections=features.sections)))
    ways[-1].turn()
    ways[-1].forget()  # libraries choose their kernels at first use
    while sum(way.took.wall_s for way in ways) < seconds:
        for number, way in enumerate(ways):
            way.turn()
            while number and way.took.wall_s < ways[0].took.wall_s:
                way.turn()
    steps = [way.steps() for way in ways]
    return TrainingSpeed(few, config.training.batch_size, steps[-1], steps[-2], steps[0] if against_naive else None)


class _Way:
    """One way to train: what its steps took so far, and how many spots they saw."""

    def __init__(
        self,
        learner: Learner,
        loader: SpotLoader,
        device: torch.device,
        change: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        self._learner, self._device, self._change = learner, device, change
        self._random = torch.Generator().manual_seed(0)
        self._batches = chain.from_iterable(loader.epoch(self._random) for _ in count())
        self.forget()

    def forget(self) -> None:
        self._spots, self._gathered_s, self.took = 0, 0.0, Timing()

    def turn(self) -> None:
        """Several steps on CUDA, where a step is gathered while the one before is computed; else one."""
        with stopwatch(self._device) as took:
            for _ in range(TURN_STEPS if self._device.type == "cuda" else 1):
                begin = time.perf_counter()
                batch = self._change(next(self._batches))
                self._gathered_s += time.perf_counter() - begin
                self._learner.step(batch, self._random)
                self._spots += len(batch)
        self.took += took

    def steps(self) -> Steps:
        if self._device.type != "cuda":
            return Steps(self._spots, self.took, self._gathered_s)
        spots, took = self._spots, self.took
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            self.turn()
        busy_s = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6
        idle_s = took.wall_s - busy_s * spots / (self._spots - spots)
        return Steps(spots, took, max(0.0, idle_s))


def _placed(data: Sequence[SectionData], device: torch.device, needs: Needs) -> PlacedFeatures:
    """On the device if they fit; else as they are, for they are in memory and share it."""
    features = [section.features for section in data]
    where = choose(features, device, needs)
    return PlacedFeatures(features, device, needs, where if where is Placement.device else Placement.disk)


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
