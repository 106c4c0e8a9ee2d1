"""Raw tiles around spots: what they show, where they are kept, how they reach a network."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from genedml.config import ViewsConfig, load_config
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Batch, Needs, Tile
from genedml.networks.network import Network, Shape
from genedml.networks.registry import NETWORKS, NetworkInfo
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.features.encoding import orient
from genedml_cli.features.tiles import load_tiles, make_tiles, tiles_in_memory
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spots import Spots

VIEWS = ViewsConfig(um_per_px="native")
MADE_OF = {"slide": "a", "um_per_px": None, "spots": "b"}


@pytest.fixture
def noise(tmp_path):
    """A slide of noise, 600 x 500 px, and its pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (500, 600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    with open_slide(tmp_path / "noise.png") as slide:
        yield slide, pixels


def spots(*xy: tuple[float, float]) -> Spots:
    return Spots(tuple(f"s{number}" for number in range(len(xy))), np.array(xy, dtype=float), None)


def test_a_tile_is_the_pixels_around_its_spot_white_beyond_the_edge(noise):
    slide, pixels = noise
    found = tiles_in_memory(slide, spots((300, 200), (10, 490)), Tile(64), VIEWS).numpy()
    np.testing.assert_array_equal(found[0], pixels[168:232, 268:332])
    np.testing.assert_array_equal(found[1, :42, 22:], pixels[458:500, 0:42])
    assert (found[1, 42:] == 255).all()
    assert (found[1, :, :22] == 255).all()


def test_a_zoom_sees_as_many_times_as_wide(noise):
    slide, pixels = noise
    found = tiles_in_memory(slide, spots((300, 200)), Tile(50, zoom=2), VIEWS).numpy()[0].astype(float)
    middle = pixels[150:250, 250:350].astype(float).reshape(50, 2, 50, 2, 3).mean(axis=(1, 3))
    assert np.abs(found - middle).mean() < 12
    assert np.corrcoef(found.ravel(), middle.ravel())[0, 1] > 0.9


def test_tiles_are_read_once_and_refused_where_the_file_was_changed(noise, tmp_path):
    slide, _ = noise
    places, given = spots((300, 200), (100, 100)), (Tile(32), VIEWS, MADE_OF, tmp_path, "N")
    first = load_tiles(make_tiles(slide, places, *given), 2)
    assert torch.equal(first, tiles_in_memory(slide, places, Tile(32), VIEWS))
    (file,) = tmp_path.glob("N.tiles-32px-x1.*.safetensors")
    before = file.stat().st_mtime_ns
    assert make_tiles(slide, places, *given) == file
    assert file.stat().st_mtime_ns == before
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(GeneDMLError, match=r"N\.tiles.*changed since it was written.*Remove it and run again"):
        load_tiles(file, 2)


class Red(Network):
    """Mean colours of a spot's own pixels, then a line; remembers what it was shown."""

    shown: list[Tensor] = []  # noqa: RUF012  of this test

    def __init__(self, config: object, shape: Shape) -> None:
        super().__init__(config, shape)
        self.line = nn.Linear(6, shape.genes)

    @classmethod
    def needs(cls, config: object) -> Needs:
        return Needs(tiles=(Tile(32), Tile(16, zoom=4)))

    def forward(self, batch: Batch, context: object = None) -> Float[Tensor, "B M"]:
        Red.shown.append(batch.tiles[0])
        return self.line(torch.cat([tile.mean(dim=(2, 3)) for tile in batch.tiles], dim=1))


def test_a_network_of_raw_pixels_trains_and_predicts(world, p1, tmp_path, monkeypatch):
    row = NetworkInfo("red", "Red", "test_tiles:Red", "line_network:LineConfig")
    monkeypatch.setitem(NETWORKS, "red", row)
    samples = read_sheet(world / "samples.csv")
    settings = ("encoder=tiny", "labels.panel_size=20", "views.local_grid=0", "training.epochs=2")
    config = load_config(overrides=["method=red", "training.augment=true", *settings])
    train(samples, tmp_path / "run", config, fold="P1", features=tmp_path / "features")
    assert len(list((tmp_path / "features").glob("P1.tiles-*"))) == 2
    assert 0 <= min(float(tile.min()) for tile in Red.shown) < max(float(tile.max()) for tile in Red.shown) <= 1
    Red.shown.clear()
    data = predict(p1["slide"], p1["spots"], tmp_path / "run")
    with open_slide(p1["slide"]) as slide:
        places = Spots(tuple(data.obs_names), data.obsm["spatial"], None)
        upright = tiles_in_memory(slide, places, Tile(32), config.views)
    assert torch.equal(torch.cat(Red.shown), upright.permute(0, 3, 1, 2).float() / 255)


def test_tiles_are_turned_as_the_vectors_are():
    tiles = torch.randint(0, 255, (2, 4, 4, 3), dtype=torch.uint8)
    from genedml_cli.features.placement import oriented

    turned = oriented(tiles, torch.tensor([0, 5]))
    assert torch.equal(turned[0], tiles[0].permute(2, 0, 1).float() / 255)
    assert torch.equal(turned[1], orient(tiles[1:], 5)[0].permute(2, 0, 1).float() / 255)
