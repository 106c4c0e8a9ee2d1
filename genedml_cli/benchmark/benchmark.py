"""How fast this machine reads, encodes, trains and predicts, and what that means for whole data sets.

Every share and ratio is of one run in one process. Letters: U tiles of a section.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.flop_counter import FlopCounterMode

from genedml.config import Config, Neighbors, ViewsConfig
from genedml.encoders.encoder import Encoded, Encoder, build_backbone, load_encoder
from genedml.encoders.table import ENCODERS
from genedml.networks.network import Shape
from genedml.networks.registry import build
from genedml_cli import console
from genedml_cli.benchmark.machine import describe, matrix_flops, peak_memory
from genedml_cli.benchmark.naive import extract_plainly, read_plainly
from genedml_cli.benchmark.training_speed import TrainingSpeed, training_speed
from genedml_cli.benchmark.workloads import MODES, Workload, workloads
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.features.batch_size import choose_batch_tiles
from genedml_cli.features.encoding import VectorsInMemory, encode_plan, tokens_kept
from genedml_cli.features.extraction import encode_section
from genedml_cli.features.overlap import overlapped
from genedml_cli.features.tile_plan import TilePlan, plan_tiles
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import write_json
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.devices import pick_device
from genedml_cli.machine.stopwatch import Timing, stopwatch
from genedml_cli.outputs.formats import write
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
UNION_BAND_PX = 512
STARTS = 5
TYPER_APP = "import typer; app = typer.Typer(); app.command('a')(lambda: None); app.command('b')(lambda: None); app()"
OUR_APP = "from genedml_cli.app import main; main()"


@dataclass(frozen=True)
class Decoding:
    """Reading the views of all spots without encoding them; ``plain`` is one region a spot, for as many spots."""

    tiles: int
    megapixels: float
    decoded_over_needed: float
    took: Timing
    plain: Timing | None

    @property
    def tiles_per_s(self) -> float:
        """By the clock."""
        return self.tiles / self.took.wall_s


@dataclass(frozen=True)
class Extraction:
    """Reading and encoding ``tiles`` tiles of a section that takes ``passes`` of the encoder a spot.

    ``alone`` is the same number of tiles encoded that were on the device already, right before and right after.
    """

    passes: float
    tiles: int
    took: Timing
    alone: Timing

    @property
    def tiles_per_s(self) -> float:
        """By the clock."""
        return self.tiles / self.took.wall_s

    @property
    def a_spot(self) -> Timing:
        """What a spot costs, over the whole section."""
        return self.took.times(self.passes / self.tiles)


@dataclass(frozen=True)
class Prediction:
    """Slide and spots to a file, end to end; ``peak_bytes`` of the whole process until then."""

    spots: int
    took: Timing
    peak_bytes: Mapping[str, int | None]


@dataclass(frozen=True)
class Benchmark:
    """All that was measured.

    Args:
        machine: its name.
        section: the slide, and how many spots.
        encoder: its name.
        decoding: in the mode of the configuration.
        encoder_alone: what a tile takes that is on the device already.
        encoder_share: the encoder's FLOP rate over a large matrix product's; None where its work is something else.
        extraction: by mode.
        plain_a_spot: what a spot costs the plain way, if asked for.
        training: in both ways to draw batches.
        prediction: end to end.
        start: of ``genedml --help``, the whole process; the shortest of several.
        typer_start: of a Typer app of two commands.
        workloads: the work of whole data sets.
    """

    machine: Mapping[str, Any]
    section: str
    encoder: str
    mode: Neighbors
    decoding: Decoding
    encoder_alone: Timing
    encoder_share: float | None
    extraction: Mapping[Neighbors, Extraction]
    plain_a_spot: Timing | None
    training: TrainingSpeed
    prediction: Prediction
    start: Timing
    typer_start: Timing
    workloads: tuple[Workload, ...]

    @property
    def encoder_tiles_per_s(self) -> float:
        """Of the encoder alone."""
        return 1 / self.encoder_alone.wall_s

    def to_dict(self) -> dict[str, Any]:
        """As plain values, with who measured them."""
        return {**asdict(self), "speeds": self.speeds(), "made_by": maker() | {"time": now()}}

    def speeds(self) -> dict[str, float]:
        """By the clock, in the units of their names."""
        part = self.extraction[self.mode]
        return {
            "decoding_mpx_per_s": self.decoding.megapixels / self.decoding.took.wall_s,
            "decoding_tiles_per_s": self.decoding.tiles_per_s,
            "encoder_alone_tiles_per_s": self.encoder_tiles_per_s,
            "extraction_tiles_per_s": part.tiles_per_s,
            "extraction_spots_per_s": 1 / part.a_spot.wall_s,
            "extraction_over_encoder_alone": part.alone.wall_s / part.took.wall_s,
            "training_spots_per_s": self.training.few.spots_per_s,
            "training_waited_share": self.training.few.waited_share,
            "prediction_spots_per_s": self.prediction.spots / self.prediction.took.wall_s,
        }


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
    against_naive: bool = False,
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
        against_naive: also run the plain way, on as many spots as there is time for.
        max_spots: use no more of the spots than these, nearest to their middle.
        seconds: for each part.
        out: a ``.json`` to write.

    Raises:
        GeneDMLError: as for slides, spots and encoders; the file cannot be written.
    """
    where = pick_device(compute.device)
    machine = describe(where)
    encoder = _any_weights(config.encoder, weights, where, compute.compiled)
    encoder.batch_tiles = compute.batch_tiles
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if slide is None or spots is None:
            console.note("Painting a synthetic section ...")
            write_dataset(folder, SYNTHETIC)
            slide, spots = folder / "slides/P1.tif", folder / "spots/P1.csv"
        table = _nearest(read_spots(spots), max_spots)
        opened = stack.enter_context(
            open_section(slide, table, um_per_px, pitch_um, scale_needed=config.views.um_per_px != "native")
        )
        name = f"{'a synthetic section' if slide.is_relative_to(folder) else slide.name}, {len(table)} spots"
        bench = _Bench(opened, table, encoder, config, seconds, against_naive)
        result = bench.run(machine, name, folder)
    if out is not None:
        write_json(out, result.to_dict())
    return result


class _Bench:
    """One section, one encoder, and the parts that are measured on them."""

    def __init__(
        self, slide: Slide, spots: Spots, encoder: Encoder, config: Config, seconds: float, against_naive: bool
    ) -> None:
        self._slide, self._spots, self._encoder, self._config = slide, spots, encoder, config
        self._seconds, self._against_naive = seconds, against_naive

    def run(self, machine: Mapping[str, Any], section: str, folder: Path) -> Benchmark:
        """Everything, a note before each part."""
        config, device = self._config, self._encoder.device
        console.note("Reading ...")
        decoding = self._decoding()
        console.note("Encoding ...")
        share, alone = self._encoder_share(), self._encoder_alone(self._seconds)
        rate = 1 / alone.wall_s
        extraction = {mode: self._extraction(mode, rate) for mode in MODES}
        plain = self._plain_a_spot() if self._against_naive else None
        console.note("Predicting ...")
        prediction = self._prediction(rate / extraction[config.views.neighbors].passes, folder)
        console.note("Training on sections of HER2ST's number and size, of random features ...")
        training = training_speed(self._encoder.info, config, device, self._seconds, self._against_naive)
        start, typer_start = _starts(OUR_APP, TYPER_APP)
        return Benchmark(
            machine,
            section,
            config.encoder,
            config.views.neighbors,
            decoding,
            alone,
            share,
            extraction,
            plain,
            training,
            prediction,
            start,
            typer_start,
            tuple(workloads(config.views)),
        )

    def _planned(self, mode: Neighbors) -> tuple[Raster, TilePlan, ViewsConfig]:
        views = replace(self._config.views, neighbors=mode)
        raster = Raster(self._slide, views.um_per_px)
        return raster, plan_tiles(self._spots.xy_px, raster.scale, raster.size_px, views), views

    def _decoding(self) -> Decoding:
        raster, plan, views = self._planned(self._config.views.neighbors)
        with stopwatch(self._encoder.device) as took, reading_ahead(raster, plan.corners_xy, plan.tile_px) as read:
            for start in range(0, len(plan.corners_xy), READ_AT_ONCE):
                read(slice(start, start + READ_AT_ONCE))
        needed = union_px(plan.corners_xy, plan.tile_px, raster.size_px) * raster.level_scale**2
        plain = None
        if self._against_naive:
            with stopwatch(self._encoder.device) as plain:
                done = read_plainly(raster, _from_middle(self._spots), views, self._seconds)
            plain = plain.times(len(self._spots) / done)
        return Decoding(len(plan.corners_xy), raster.decoded_px / 1e6, raster.decoded_px / needed, took, plain)

    def _encoder_share(self) -> float | None:
        """Measured at a large batch, right beside the matrix product."""
        if self._encoder.info.build is not None:
            return None
        tile = torch.zeros(1, 224, 224, 3, dtype=torch.uint8, device=self._encoder.device)
        with FlopCounterMode(display=False) as counter:
            self._encoder(tile)
        took = self._encoder_alone(self._seconds)
        return counter.get_total_flops() / took.wall_s / matrix_flops(self._encoder.device)

    def _encoder_alone(self, seconds: float) -> Timing:
        """For a tile."""
        device = self._encoder.device
        images = torch.randint(
            0, 256, (choose_batch_tiles(self._encoder), 224, 224, 3), dtype=torch.uint8, device=device
        )
        self._encoder(images)
        tiles, end = 0, time.perf_counter() + seconds

        def calls() -> Iterator[Callable[[], Encoded]]:
            while tiles == 0 or time.perf_counter() < end:
                yield partial(self._encoder, images)

        with stopwatch(device) as took, closing(overlapped(calls(), device)) as results:
            for encoded in results:
                encoded.pooled.cpu()
                tiles += len(images)
        return took.times(1 / tiles)

    def _extraction(self, mode: Neighbors, tiles_per_s: float) -> Extraction:
        raster, plan, views = self._planned(mode)
        passes = len(plan.corners_xy) / len(self._spots)
        head = _head(plan, max(choose_batch_tiles(self._encoder), int(self._seconds * tiles_per_s)))
        before = self._encoder_alone(self._seconds / 2)
        with (
            stopwatch(self._encoder.device) as took,
            reading_ahead(raster, head.corners_xy, head.tile_px) as read,
        ):
            encode_plan(read, head, self._encoder, views.local_grid, mode, self._room(head))
        alone = before + self._encoder_alone(self._seconds / 2)
        return Extraction(passes, len(head.corners_xy), took, alone.times(len(head.corners_xy) / 2))

    def _room(self, plan: TilePlan) -> VectorsInMemory:
        encoder, grid = self._encoder.info, self._config.views.local_grid
        local = torch.empty(1, len(plan.own), tokens_kept(encoder.tokens, grid), encoder.width, dtype=torch.float16)
        return VectorsInMemory(local, torch.empty(len(plan.corners_xy), encoder.width, dtype=torch.float16))

    def _plain_a_spot(self) -> Timing:
        raster, _, views = self._planned("exact")
        with stopwatch(self._encoder.device) as took:
            done = extract_plainly(raster, _from_middle(self._spots), self._encoder, views, self._seconds)
        return took.times(1 / done)

    def _prediction(self, spots_per_s: float, folder: Path) -> Prediction:
        config, device = self._config, self._encoder.device
        spots = _nearest(self._spots, max(LEAST_SPOTS, int(self._seconds * spots_per_s)))
        genes = [f"GENE{number}" for number in range(config.labels.panel_size)]
        tokens = tokens_kept(self._encoder.info.tokens, config.views.local_grid)
        shape = Shape(len(genes), self._encoder.info.width, tokens, config.views.neighbor_grid)
        network = build(config.method, config.network, shape).to(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with stopwatch(device) as took:
            features = encode_section(self._slide, spots, self._encoder, config.views)
            data = to_anndata(predict_section(network, features, device), genes, spots, config.labels, maker())
            add_tissue_image(data, self._slide, spots)
            write(data, folder / "prediction.h5ad")
        return Prediction(len(spots), took, peak_memory(device))


def union_px(corners_xy: Int[np.ndarray, "U 2"], tile_px: int, size_px: tuple[int, int]) -> int:
    """Pixels that at least one tile covers, on the raster."""
    width, height = size_px
    total = 0
    for top in range(0, height, UNION_BAND_PX):
        covered = np.zeros((min(UNION_BAND_PX, height - top), width), bool)
        here = (corners_xy[:, 1] < top + UNION_BAND_PX) & (corners_xy[:, 1] + tile_px > top)
        for x, y in corners_xy[here].tolist():
            covered[max(0, y - top) : y - top + tile_px, max(0, x) : x + tile_px] = True
        total += int(covered.sum())
    return total


def _any_weights(name: str, weights: Path | None, device: torch.device, compiled: bool) -> Encoder:
    info = ENCODERS.get(name)
    if weights is None and info is not None and info.architecture is not None:
        encoder = Encoder(info, build_backbone(info), has_class_token=True).to(device)
    else:
        encoder = load_encoder(name, weights, device)
    if compiled:
        encoder.compile()
    return encoder


def _nearest(spots: Spots, count: int | None) -> Spots:
    """The spots nearest to the middle of the array, in their order."""
    if count is None or count >= len(spots):
        return spots
    distance = ((spots.xy_px - np.median(spots.xy_px, axis=0)) ** 2).sum(axis=1)
    return _chosen(spots, np.sort(np.argsort(distance, kind="stable")[:count]))


def _from_middle(spots: Spots) -> Spots:
    """In file order, as plain tools read them, but not from the border on."""
    return _chosen(spots, np.roll(np.arange(len(spots)), -(len(spots) // 2)))


def _chosen(spots: Spots, rows: Int[np.ndarray, " _"]) -> Spots:
    array_xy = None if spots.array_xy is None else spots.array_xy[rows]
    return Spots(tuple(spots.names[row] for row in rows.tolist()), spots.xy_px[rows], array_xy)


def _head(plan: TilePlan, tiles: int) -> TilePlan:
    """The first tiles of a plan, and the spots whose own tile is among them."""
    kept = plan.own < tiles
    return TilePlan(plan.corners_xy[:tiles], plan.own[kept], plan.neighbor[kept], plan.tile_px)


def _starts(*codes: str) -> list[Timing]:
    """The least that each command line took to print its help, taken in turns."""
    rounds = [[_start(code) for code in codes] for _ in range(STARTS)]
    return [
        Timing(min(one.wall_s for one in same), min(one.cpu_s for one in same)) for same in zip(*rounds, strict=True)
    ]


def _start(code: str) -> Timing:
    before, begin = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, check=True)
    wall_s, after = time.perf_counter() - begin, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Timing(wall_s, cpu)
