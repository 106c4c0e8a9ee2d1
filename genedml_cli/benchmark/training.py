"""What a training step takes, on a section of HER2ST's mean size with random features and labels."""

import time
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch

from genedml.checkpoint import EncoderRecord
from genedml.config import Config
from genedml.encoders.table import EncoderInfo
from genedml.networks.inputs import Needs
from genedml.networks.network import Network
from genedml.networks.registry import build, network_class
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.labels import Labels
from genedml_cli.features.encoding import tokens_kept
from genedml_cli.features.placement import place
from genedml_cli.features.section_data import SectionData
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.machine.stopwatch import Timing, stopwatch
from genedml_cli.spots.spots import Spots
from genedml_cli.training.learner import Learner
from genedml_cli.training.loop import SpotLoader, shape_of

SPOTS = 378
"""Of a section of HER2ST: 13,620 spots on 36 sections."""
PITCH_PX = 400.0
NEIGHBOR_TILES_A_SPOT = 4


@dataclass(frozen=True)
class TimedTraining:
    """Steps of training, the spots they saw, what they took, and the network."""

    steps: int
    spots: int
    took: Timing
    network: Network


def time_training(encoder: EncoderInfo, config: Config, device: torch.device, seconds: float) -> TimedTraining:
    """Train for about ``seconds``, gathering of batches included.

    Off the CPU a first step is not counted, in which libraries choose their kernels.
    """
    needs = network_class(config.method).needs(config.network)
    section = random_section(encoder, config, needs)
    loader = SpotLoader([section], place([section.features], device, needs), config.training, device, needs)
    network = build(config.method, config.network, shape_of(section.features, config.labels.panel_size, config, SPOTS))
    learner = Learner(network, config.training, device)
    generator = torch.Generator().manual_seed(config.training.seed)
    batches = chain.from_iterable(loader.epoch(generator) for _ in count())
    if device.type != "cpu":
        learner.step(next(batches), generator)
    steps = spots = 0
    end = time.perf_counter() + seconds
    with stopwatch(device) as took:
        while not steps or time.perf_counter() < end:
            batch = next(batches)
            learner.step(batch, generator)
            steps, spots = steps + 1, spots + len(batch)
    network.eval()
    with torch.no_grad():
        network.remember(loader.sections())
    return TimedTraining(steps, spots, took, network)


def random_section(encoder: EncoderInfo, config: Config, needs: Needs) -> SectionData:
    """A square section of :data:`SPOTS` spots, with the features that a network needs and the labels of a panel."""
    random = np.random.default_rng(config.training.seed)
    tokens = tokens_kept(encoder.tokens, config.views.local_grid)
    tiles = SPOTS * NEIGHBOR_TILES_A_SPOT
    array_xy = np.stack(np.divmod(np.arange(SPOTS), int(SPOTS**0.5)), axis=1)
    features = SectionFeatures(
        Spots(tuple(map(str, range(SPOTS))), array_xy * PITCH_PX, array_xy),
        torch.randn(1, SPOTS, tokens, encoder.width).half(),
        torch.randn(tiles, encoder.width).half(),
        torch.arange(SPOTS),
        torch.randint(tiles, (SPOTS, config.views.neighbor_grid**2)),
        EncoderRecord(encoder.name, encoder.width, encoder.tokens, ""),
        None,
        "",
        raw=tuple(
            torch.randint(256, (SPOTS, tile.side_px, tile.side_px, 3), dtype=torch.uint8) for tile in needs.tiles
        ),
    )
    y = random.random((SPOTS, config.labels.panel_size), dtype=np.float32)
    labels = Labels(y, y, np.ones(SPOTS, bool), np.zeros(SPOTS), 0, 0, counts=np.round(y * 10))
    sample = Sample("random", Path("random"), Path("random"), Path("random"), "random", "random")
    return SectionData(sample, features, labels)
