"""How many seconds this machine takes to read, encode, train and predict. Letters: N spots."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.flop_counter import FlopCounterMode

from genedml.config import Config
from genedml.encoders.encoder import Encoded, Encoder, build_backbone
from genedml.encoders.joined import load_encoders
from genedml.encoders.table import ENCODERS
from genedml.networks.network import Network
from genedml_cli import __version__, console
from genedml_cli.benchmark.machine import describe, matrix_flops, peak_memory
from genedml_cli.benchmark.training import time_training
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.features.batch_size import choose_batch_tiles
from genedml_cli.features.encoding import MemorySink, encode_plan, tokens_kept
from genedml_cli.features.extraction import encode_section
from genedml_cli.features.overlap import pipelined
from genedml_cli.features.tile_plan import TilePlan, plan_tiles
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import write_json
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.devices import pick_device
from genedml_cli.machine.stopwatch import Timing, stopwatch
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.prediction_record import PredictionRecord
from genedml_cli.outputs.predictions import add_tissue_image, to_anndata
from genedml_cli.prediction.section import predict_section
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.read_ahead import reading_ahead
from genedml_cli.slides.slide import Slide
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots

SYNTHETIC = SyntheticConfig(patients=1, spots_x=26, spots_y=24, pitch_um=100.0)
LEAST_SPOTS = 8
READ_AT_ONCE = 16


@dataclass(frozen=True)
class Part:
    """One thing that was timed: so many of ``unit`` in so many seconds, by the clock and of processor time."""

    count: float
    unit: str
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Units a second, by the clock."""
        return self.count / self.seconds


@dataclass(frozen=True)
class Benchmark:
    """All that was measured.

    Args:
        machine: processor, cores, device, versions.
        section: the slide, and how many spots.
        encoder: its name.
        neighbors: how neighbor tiles are chosen, ``exact`` or ``lattice``.
        passes_a_spot: tiles that the encoder sees, over spots.
        decoded_megapixels: of the slide, read for all tiles.
        parts: by name: reading, encoder alone, extraction (both at once), training, prediction (slide to file).
        training_steps: among which the spots of the training part were.
        matrix_tflops: of a large matrix product, right beside the encoder.
        encoder_over_matrix: the encoder's FLOP rate over that; None where its work is something else.
        extraction_over_encoder: tiles a second of the extraction over those of the encoder alone, right before it.
        peak_bytes: most memory of the process, on the host and on the device (None without one).
    """

    machine: Mapping[str, Any]
    section: str
    encoder: str
    neighbors: str
    passes_a_spot: float
    decoded_megapixels: float
    parts: Mapping[str, Part]
    training_steps: int
    matrix_tflops: float
    encoder_over_matrix: float | None
    extraction_over_encoder: float
    peak_bytes: Mapping[str, int | None]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, with who measured them."""
        speeds = {name: {f"{part.unit}_per_s": part.rate} for name, part in self.parts.items()}
        return {**asdict(self), "speeds": speeds, "made_by": maker() | {"time": now()}}


@takes_paths
def benchmark(
    slide: Path | None,
    spots: Path | None,
    config: Config,
    *,
    um_per_px: float | None = None,
    pitch_um: float | None = None,
    weights: Path | None = None,
    compute: Compute = AUTO,
    max_spots: int | None = None,
    seconds: float = 10.0,
    out: Path | None = None,
) -> Benchmark:
    """Measure every part for about ``seconds``; reading alone always reads the whole section.

    Args:
        slide: without it, a synthetic one.
        spots: on it.
        config: encoder, views, network and training to measure with. An encoder of the table runs with random weights
            where none are given: its speed is the same.
        um_per_px: of level 0, where the slide does not say.
        pitch_um: distance of neighbouring spots, from which um/px follows where it is not known.
        weights: the encoder's weights file.
        compute: where and how the arithmetic runs.
        max_spots: use no more of the spots than these, nearest to their middle.
        seconds: for each part.
        out: a ``.json`` to write.

    Raises:
        GeneDMLError: as for slides, spots and encoders; the file cannot be written.
    """
    device = pick_device(compute.device)
    machine = describe(device)
    encoder = _any_weights(config.encoder, weights, device)
    if compute.compiled:
        encoder.compile()
    encoder.batch_tiles = compute.batch_tiles
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name = "a synthetic section" if slide is None else slide.name
        if slide is None or spots is None:
            console.note("Painting a synthetic section ...")
            write_dataset(folder, SYNTHETIC)
            slide, spots = folder / "slides/P1.tif", folder / "spots/P1.csv"
        table = _nearest(read_spots(spots), max_spots)
        scale_needed = config.views.um_per_px != "native"
        opened = stack.enter_context(open_section(slide, table, um_per_px, pitch_um, scale_needed=scale_needed))
        result = _measure(opened, table, encoder, config, seconds, folder, machine, f"{name}, {len(table)} spots")
    if out is not None:
        write_json(out, result.to_dict())
    return result


def _measure(
    slide: Slide,
    spots: Spots,
    encoder: Encoder,
    config: Config,
    seconds: float,
    folder: Path,
    machine: Mapping[str, Any],
    section: str,
) -> Benchmark:
    device, views = encoder.device, config.views
    raster = Raster(slide, views.um_per_px)
    plan = plan_tiles(spots.xy_px, raster.scale, raster.size_px, views)
    passes = len(plan.corners_xy) / len(spots)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    console.note("Reading ...")
    parts = {"reading": _reading(raster, plan, device)}
    megapixels = raster.decoded_px / 1e6
    console.note("Encoding ...")
    parts["encoder alone"] = alone = _encoder_alone(encoder, seconds)
    matrix = matrix_flops(device)
    flops = _flops(encoder)
    raster = Raster(slide, views.um_per_px)
    parts["extraction"] = extraction = _extraction(raster, plan, encoder, config, seconds, alone.rate)
    console.note("Training on a section of HER2ST's size, of random features ...")
    training = time_training(encoder.info, config, device, seconds)
    parts["training"] = _part(training.spots, "spots", training.took)
    console.note("Predicting ...")
    nearest = _nearest(spots, max(LEAST_SPOTS, int(seconds * alone.rate / passes)))
    parts["prediction"] = _prediction(slide, nearest, encoder, training.network, config, folder / "prediction.h5ad")
    return Benchmark(
        machine,
        section,
        config.encoder,
        views.neighbors,
        passes,
        megapixels,
        parts,
        training.steps,
        matrix / 1e12,
        None if flops is None else flops * alone.rate / matrix,
        extraction.rate / alone.rate,
        peak_memory(device),
    )


def _part(count: float, unit: str, took: Timing) -> Part:
    return Part(count, unit, took.wall_s, took.cpu_s)


def _reading(raster: Raster, plan: TilePlan, device: torch.device) -> Part:
    """Read every tile of the plan without encoding it."""
    tiles = len(plan.corners_xy)
    with stopwatch(device) as took, reading_ahead(raster, plan.corners_xy, plan.tile_px) as read:
        for start in range(0, tiles, READ_AT_ONCE):
            read(slice(start, start + READ_AT_ONCE))
    return _part(tiles, "tiles", took)


def _encoder_alone(encoder: Encoder, seconds: float) -> Part:
    """Encode tiles that are on the device already."""
    shape = (choose_batch_tiles(encoder), 224, 224, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=encoder.device)
    encoder(images)  # libraries choose their kernels at first use
    tiles, end = 0, time.perf_counter() + seconds

    def calls() -> Iterator[Callable[[], Encoded]]:
        while tiles == 0 or time.perf_counter() < end:
            yield partial(encoder, images)

    with stopwatch(encoder.device) as took, closing(pipelined(calls(), encoder.device)) as results:
        for encoded in results:
            encoded.pooled.cpu()
            tiles += len(images)
    return _part(tiles, "tiles", took)


def _flops(encoder: Encoder) -> int | None:
    """Floating point operations of a tile; None for an encoder that is not a learned network."""
    if encoder.info.build is not None:
        return None
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 224, 224, 3, dtype=torch.uint8, device=encoder.device))
    return counter.get_total_flops()


def _extraction(raster: Raster, plan: TilePlan, encoder: Encoder, config: Config, seconds: float, rate: float) -> Part:
    """Read and encode the first tiles of the plan, as many as ``seconds`` are expected to take at ``rate`` a second."""
    grid, info = config.views.local_grid, encoder.info
    head = _head(plan, max(choose_batch_tiles(encoder), int(seconds * rate)))
    local = torch.empty(1, len(head.own), tokens_kept(info.tokens, grid), info.width, dtype=torch.float16)
    room = MemorySink(local, torch.empty(len(head.corners_xy), info.width, dtype=torch.float16))
    with stopwatch(encoder.device) as took, reading_ahead(raster, head.corners_xy, head.tile_px) as read:
        encode_plan(read, head, encoder, grid, "extraction", room)
    return _part(len(head.corners_xy), "tiles", took)


def _prediction(slide: Slide, spots: Spots, encoder: Encoder, network: Network, config: Config, file: Path) -> Part:
    """From the slide to a file."""
    device = encoder.device
    genes = [f"GENE{number}" for number in range(config.labels.panel_size)]
    with stopwatch(device) as took:
        features = encode_section(slide, spots, encoder, config.views, tiles=network.takes.tiles)
        record = PredictionRecord(genedml=__version__, method=config.method, label_settings=config.labels, notes=())
        data = to_anndata(predict_section(network, features, device), genes, spots, record)
        add_tissue_image(data, slide, spots)
        write(data, file)
    return _part(len(spots), "spots", took)


def _any_weights(name: str, weights: Path | None, device: torch.device) -> Encoder:
    info = ENCODERS.get(name)
    if weights is not None or info is None or info.architecture is None:
        return load_encoders(name, weights, device)
    console.note(f"{name} runs with random weights: its speed is the same, what it predicts here means nothing.")
    return Encoder(info, build_backbone(info), has_class_token=True).to(device)


def _nearest(spots: Spots, count: int | None) -> Spots:
    """The spots nearest to the middle of the array, in their order."""
    if count is None or count >= len(spots):
        return spots
    distance = ((spots.xy_px - np.median(spots.xy_px, axis=0)) ** 2).sum(axis=1)
    rows: Int[np.ndarray, " N"] = np.sort(np.argsort(distance, kind="stable")[:count])
    array_xy = None if spots.array_xy is None else spots.array_xy[rows]
    return Spots(tuple(spots.names[row] for row in rows.tolist()), spots.xy_px[rows], array_xy)


def _head(plan: TilePlan, tiles: int) -> TilePlan:
    """The first tiles of a plan, and the spots whose own tile is among them."""
    inside = plan.own < tiles
    return TilePlan(plan.corners_xy[:tiles], plan.own[inside], plan.neighbor[inside], plan.tile_px)
