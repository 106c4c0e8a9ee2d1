"""Extraction: the fast way is the plain way; what is read, encoded and held; errors and memory that runs out."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genedml.config import ViewsConfig, load_config
from genedml.encoders.encoder import Encoder, load_encoder
from genedml.encoders.table import ENCODERS
from genedml.errors import GeneDMLError
from genedml_cli.commands.choices import choose_config, to_overrides
from genedml_cli.features.encoding import BatchRunner
from genedml_cli.features.extraction import encode_section
from genedml_cli.features.section_features import load_features, save_features
from genedml_cli.features.tile_plan import TilePlan, plan_tiles
from genedml_cli.slides.raster import Raster
from genedml_cli.slides.read_ahead import AHEAD_OF_EACH, reading_ahead
from genedml_cli.slides.slide import Slide, Source, open_slide
from genedml_cli.slides.slide_files import Watched
from genedml_cli.spots.spots import Spots

TILE = 224
WIDTH, HEIGHT = 1500, 1300
EXACT, LATTICE = ViewsConfig(neighbors="exact"), ViewsConfig(neighbors="lattice")


def hexagonal(pitch_px: float, columns: int, rows: int, start: float) -> np.ndarray:
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    xy = np.stack([column + row % 2 / 2, row * 3**0.5 / 2], axis=-1).reshape(-1, 2)
    return start + xy * pitch_px


ARRAYS = {
    "hexagonal": hexagonal(200.0, 3, 3, 420.0),
    "rectangular": np.stack(np.meshgrid([400.0, 624.0, 848.0], [500.0, 724.0]), axis=-1).reshape(-1, 2),
    "irregular": np.array([[333.3, 700.9], [871.5, 402.2], [1010.0, 871.0], [1010.0, 871.0]]),
    "border": np.array([[0.0, 0.0], [WIDTH - 1.0, HEIGHT - 0.6], [3.0, 700.0], [1499.9, 111.0]]),
}


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    pixels = np.random.default_rng(3).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
    return path


def make_spots(xy_px: np.ndarray) -> Spots:
    return Spots(tuple(map(str, range(len(xy_px)))), xy_px)


def plainly(slide: Path, xy_px: np.ndarray, encoder: Encoder, views: ViewsConfig) -> list[tuple[torch.Tensor, ...]]:
    """Of every spot its own tokens, pooled vector, and 25 neighbors with NaN off the slide: one region a spot."""
    side = views.neighbor_grid * TILE
    padded = np.pad(np.asarray(Image.open(slide)), ((side, side), (side, side), (0, 0)), constant_values=255)

    def region(x: int, y: int, size: int) -> np.ndarray:
        return padded[y + side - size // 2 : y + side + size // 2, x + side - size // 2 : x + side + size // 2]

    found = []
    for x, y in np.minimum(np.rint(xy_px), [WIDTH - 1, HEIGHT - 1]).astype(int):
        own = encoder(torch.from_numpy(region(x, y, TILE).copy())[None])
        if views.neighbors == "lattice":
            x, y = x // TILE * TILE + TILE // 2, y // TILE * TILE + TILE // 2
        cut = region(x, y, side).reshape(5, TILE, 5, TILE, 3).swapaxes(1, 2).reshape(25, TILE, TILE, 3)
        neighbors = encoder(torch.from_numpy(cut.copy())).pooled.clone()
        for place in range(25):
            middle_x, middle_y = x + (place % 5 - 2) * TILE, y + (place // 5 - 2) * TILE
            if not (0 <= middle_x < WIDTH and 0 <= middle_y < HEIGHT) and place != 12:
                neighbors[place] = torch.nan
        found.append((own.tokens[0], own.pooled[0], neighbors))
    return found


@pytest.mark.parametrize("views", [EXACT, LATTICE], ids=["exact", "lattice"])
@pytest.mark.parametrize("array", ARRAYS)
def test_features_are_those_of_the_plain_way_bit_for_bit(noise, views, array):
    encoder = load_encoder("tiny")
    with open_slide(noise, 0.5) as slide:
        features = encode_section(slide, make_spots(ARRAYS[array]), encoder, views)
    seen = features.tiles[features.neighbor.clamp(min=0)]
    seen[features.neighbor < 0] = torch.nan
    for spot, (tokens, pooled, neighbors) in enumerate(plainly(noise, ARRAYS[array], encoder, views)):
        assert torch.equal(features.local[0, spot], tokens.half())
        assert torch.equal(features.pooled[spot], pooled.half())
        assert torch.equal(seen[spot].isnan(), neighbors.isnan())
        assert torch.equal(seen[spot].nan_to_num(), neighbors.half().nan_to_num())


def test_stain_texture_is_the_same_in_any_batch(noise):
    encoder, xy_px = load_encoder("stain-texture"), ARRAYS["irregular"][:2]
    with open_slide(noise, 0.5) as slide:
        features = encode_section(slide, make_spots(xy_px), encoder, EXACT)
    for spot, (tokens, _, neighbors) in enumerate(plainly(noise, xy_px, encoder, EXACT)):
        assert torch.equal(features.local[0, spot], tokens.half())
        seen = features.neighbor[spot] >= 0
        assert torch.equal(features.tiles[features.neighbor[spot][seen]], neighbors[seen].half())


def test_own_tiles_and_neighbors_are_told_apart_in_files_and_by_the_reference(noise, tmp_path):
    spots = make_spots(ARRAYS["irregular"])
    with open_slide(noise, 0.5) as slide:
        features = encode_section(slide, spots, load_encoder("tiny"), LATTICE)
    save_features(features, tmp_path / "noise.safetensors", {})
    read = load_features(tmp_path / "noise.safetensors")
    own, neighbors, _ = np.split(read.at_three_scales, 3, axis=1)
    np.testing.assert_array_equal(own, features.local[0, :, 0].float().numpy())
    row = features.neighbor[0]
    mean = features.tiles[row[row >= 0]].float().numpy().mean(axis=0)
    np.testing.assert_allclose(neighbors[0], mean, rtol=1e-5, atol=1e-6)
    assert not torch.equal(features.pooled, features.tiles[features.neighbor[:, 12]])


@pytest.mark.parametrize("array", ARRAYS)
def test_lattice_tiles_are_shared_and_hold_the_spot_in_their_middle(array):
    plan = plan_tiles(ARRAYS[array], 1.0, (WIDTH, HEIGHT), LATTICE)
    centres = np.minimum(np.rint(ARRAYS[array]), [WIDTH - 1, HEIGHT - 1])
    assert (plan.corners_xy[plan.own] + TILE // 2 == centres).all()
    grid = plan.neighbor.reshape(-1, 5, 5)
    middle = plan.corners_xy[grid[:, 2, 2]]
    assert (middle % TILE == 0).all()
    assert ((middle <= centres) & (centres < middle + TILE)).all()
    steps = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1) * TILE
    expected = np.broadcast_to(middle[:, None, None] + steps, (*grid.shape, 2))
    assert (plan.corners_xy[grid][grid >= 0] == expected[grid >= 0]).all()


def test_a_visium_array_takes_less_than_two_passes_a_spot_instead_of_25():
    xy_px = hexagonal(200.0, 64, 78, 1000.0)
    size = tuple((xy_px.max(axis=0) + 1000).astype(int).tolist())
    passes = {views.neighbors: len(plan_tiles(xy_px, 1.0, size, views).corners_xy) for views in (EXACT, LATTICE)}
    assert passes["exact"] == 25 * len(xy_px)
    assert 1.6 < passes["lattice"] / len(xy_px) < 1.9


def test_a_grid_whose_pitch_is_the_tile_is_encoded_once():
    xy_px = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2) * 224.0 + 1000
    plan = plan_tiles(xy_px, 1.0, (9000, 9000), EXACT)
    assert len(plan.corners_xy) == 24 * 24


def test_the_mode_is_part_of_the_configuration():
    assert choose_config(None, "stain-texture", None, None).views == ViewsConfig(neighbors="lattice", local_grid=4)
    exact = choose_config(None, "stain-texture", None, None, to_overrides([], neighbors="exact"))
    assert exact.views.neighbors == "exact"
    assert all(load_config(name).views.neighbors == "exact" for name in ("HER2ST", "STNet", "skinST"))


def test_a_grid_of_one_tile_is_the_same_in_both_modes():
    xy_px = np.array([[300.0, 300.0], [1000.0, 700.0]])
    plans = [plan_tiles(xy_px, 1.0, (2000, 2000), replace(views, neighbor_grid=1)) for views in (EXACT, LATTICE)]
    assert np.array_equal(plans[0].corners_xy, plans[1].corners_xy)
    assert np.array_equal(plans[0].neighbor, plans[1].neighbor)


class Made(Source):
    """Pixels made when asked for: a large slide that takes no memory; counts what is asked of it."""

    downsamples = (1.0,)

    def __init__(self, width: int, height: int, broken: bool = False) -> None:
        self.sizes_px = ((width, height),)
        self.broken = broken
        self.regions: list[tuple[int, int]] = []

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        if self.broken and y > 4000:
            raise GeneDMLError("damaged")
        self.regions.append((x, y))
        return Image.new("RGB", (width, height), (x % 256, y % 256, 7))

    def close(self) -> None:
        pass


def made_raster(plan_on: np.ndarray, broken: bool = False, cache_bytes: int = 64 * 2**20) -> tuple[Raster, TilePlan]:
    width, height = (plan_on.max(axis=0) + 2000).astype(int).tolist()
    raster = Raster(Slide(Path("made"), Made(width, height, broken), 0.5, Watched(Path("made"))), 0.5, cache_bytes)
    return raster, plan_tiles(plan_on, 1.0, raster.size_px, LATTICE)


def read_all(raster: Raster, plan: TilePlan, readers: int = 2) -> None:
    with reading_ahead(raster, plan.corners_xy, TILE, readers) as read:
        for start in range(0, len(plan.corners_xy), 50):
            read(slice(start, start + 50))


def test_every_pixel_is_decoded_once_in_bounded_memory():
    raster, plan = made_raster(hexagonal(200.0, 40, 46, 3000.0))
    read_all(raster, plan)
    assert len(set(raster.slide.source.regions)) == len(raster.slide.source.regions)
    lattice = plan.corners_xy[(plan.corners_xy % TILE == 0).all(axis=1)]
    assert raster.decoded_px <= 1.3 * len(np.unique(lattice, axis=0)) * TILE**2
    whole = raster.size_px[0] * raster.size_px[1] * 3
    assert raster.cached_bytes <= 64 * 2**20 < whole / 4


def test_reading_ahead_gives_the_pixels_of_reading():
    raster, plan = made_raster(hexagonal(200.0, 5, 5, 700.0))
    with reading_ahead(raster, plan.corners_xy, TILE, 2) as read:
        tiles = read(slice(0, 30))
    for tile, (x, y) in zip(tiles, plan.corners_xy[:30].tolist(), strict=True):
        np.testing.assert_array_equal(tile, raster.read(x, y, TILE, TILE))


def test_readers_stay_few_blocks_ahead():
    raster, plan = made_raster(hexagonal(200.0, 40, 46, 3000.0))
    with reading_ahead(raster, plan.corners_xy, TILE, 2) as read:
        read(slice(0, 1))
        assert len(raster.slide.source.regions) <= 4 + 2 * AHEAD_OF_EACH + 1


def readers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_an_error_in_a_reader_surfaces_before_its_block_is_needed():
    raster, plan = made_raster(hexagonal(200.0, 5, 40, 1000.0), broken=True)
    with pytest.raises(GeneDMLError, match="damaged"):
        read_all(raster, plan)
    assert readers_alive() == []


def test_readers_end_when_the_encoder_is_interrupted(noise, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    encoder = load_encoder("tiny")
    monkeypatch.setattr(encoder, "forward", stop)
    with open_slide(noise, 0.5) as slide, pytest.raises(KeyboardInterrupt):
        encode_section(slide, make_spots(ARRAYS["hexagonal"]), encoder, EXACT)
    assert readers_alive() == []


class Small(torch.nn.Module):
    """Has memory for a few tiles only."""

    VERSION = 1

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images.mean(dim=(2, 3))[:, None].repeat(1, 5, 1)


def test_batches_are_halved_until_they_fit(monkeypatch):
    monkeypatch.setattr(Encoder, "device", torch.device("cuda:0"))  # which it is told, not asked
    encoder = Encoder(ENCODERS["tiny"], Small(limit=5), has_class_token=True)
    encoder.batch_tiles = 64
    runner = BatchRunner(encoder)
    tiles = torch.randint(0, 256, (50, TILE, TILE, 3), dtype=torch.uint8)
    encoded = runner(tiles)
    assert encoder.batch_tiles == 4
    torch.testing.assert_close(encoded.pooled, tiles.float().mean(dim=(1, 2)) / 255)


@pytest.mark.parametrize(
    ("told", "is_memory"),
    [
        ("MPS backend out of memory (MPS allocated: 17 GB)", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_want_of_memory_is_told_from_other_errors_on_every_device(told, is_memory, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError(told)

    encoder = load_encoder("tiny")
    monkeypatch.setattr(encoder, "forward", fail)
    with pytest.raises(
        GeneDMLError if is_memory else RuntimeError, match="no memory for 16 tiles" if is_memory else told
    ):
        BatchRunner(encoder)(torch.zeros(3, TILE, TILE, 3, dtype=torch.uint8))


def test_on_a_cpu_batches_stay_as_bytes_depend_on_them():
    encoder = Encoder(ENCODERS["tiny"], Small(limit=5), has_class_token=True)
    with pytest.raises(GeneDMLError, match=r"This machine has no memory for 16 tiles of tiny\. .*--batch-tiles"):
        BatchRunner(encoder)(torch.zeros(16, TILE, TILE, 3, dtype=torch.uint8))


def test_no_memory_for_one_tile_is_an_error(monkeypatch):
    monkeypatch.setattr(Encoder, "device", torch.device("cuda:0"))
    encoder = Encoder(ENCODERS["tiny"], Small(limit=0), has_class_token=True)
    encoder.batch_tiles = 2
    with pytest.raises(GeneDMLError, match=r"cuda:0 has no memory for 1 tile of tiny\. .*--device cpu"):
        BatchRunner(encoder)(torch.zeros(3, TILE, TILE, 3, dtype=torch.uint8))
