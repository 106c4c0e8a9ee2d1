"""A tiny world: a slide with one red spot, spots, counts with a planted gene, an encoder of eight numbers."""

from pathlib import Path

from jaxtyping import install_import_hook

# Shapes in signatures are checked while the tests run, and only then.
install_import_hook(["genedml", "genedml_cli"], "shapes.check")

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from anndata import AnnData
from PIL import Image
from torch import nn

from genedml.config import Config, load_config
from genedml.encoders.table import ENCODERS, EncoderInfo
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.expression.counts import read_counts
from genedml_cli.runs.run import train

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Folds are trained in this process, whatever an earlier test set."""
    torch.set_num_threads(1)


torch.set_num_threads(1)  # of what fixtures of a module train


class QuadrantColours(nn.Module):
    """Five tokens of eight numbers: mean, spread and darkness of red, green and blue of a tile and its quadrants."""

    VERSION = 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[-1] // 2
        quadrants = [images[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        return torch.stack([self._describe(part) for part in (images, *quadrants)], dim=1)

    def _describe(self, part: torch.Tensor) -> torch.Tensor:
        mean, sd = part.mean(dim=(2, 3)), part.std(dim=(2, 3))
        return torch.cat([mean, sd, mean.amax(1, keepdim=True), mean.amin(1, keepdim=True)], dim=1) * 4 - 2


# A row more, as a user would add one: 5 tokens of 8 numbers.
ENCODERS["tiny"] = EncoderInfo("tiny", 5, 8, "MIT", mean=(0.0,) * 3, std=(1.0,) * 3, build=QuadrantColours)


TINY = (
    "encoder=tiny",
    "labels.panel_size=20",
    "training.epochs=1",
    "training.refit=false",
    "training.augment=false",
    "network.loss.groups=4",
    "network.shared_width=16",
    "views.local_grid=0",
)


# At 40 epochs the loss still falls steeply, and what was learned by then hangs on the random numbers of this torch.
LEARNING = (
    "training.epochs=80",
    "training.patience=80",
    "training.learning_rate=0.003",
    "training.augment=true",
    "training.weight_average=0.9",
    "network.loss.prediction_weight=100.0",
)


def tiny_config(*more: str) -> Config:
    """Settings for the tiny world: one epoch, unless ``more`` says otherwise."""
    return load_config("small", overrides=[*TINY, *more])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of three patients: ``samples.csv``, slides, spots, counts."""
    folder = tmp_path_factory.mktemp("world")
    write_dataset(folder, SyntheticConfig(patients=3, spots_x=7, spots_y=6, genes=20))
    return folder


@pytest.fixture(scope="session")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three folds on the tiny world."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(read_sheet(world / "samples.csv"), out, tiny_config(*LEARNING), features=out.parent / "features")
    return out


@pytest.fixture(scope="session")
def quick_run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of one epoch on the tiny world, of networks that see no neighbors."""
    folder = tmp_path_factory.mktemp("quick")
    for fold in ("P1", "P2"):
        config = tiny_config("views.neighbor_grid=1")
        train(read_sheet(world / "samples.csv"), folder / "run", config, fold=fold, features=folder / "features")
    return folder / "run"


@pytest.fixture
def p1(world: Path) -> dict[str, Path]:
    """The files of the first section."""
    return {"slide": world / "slides" / "P1.tif", "spots": world / "spots" / "P1.csv"}


@pytest.fixture
def red_spot(tmp_path: Path) -> tuple[Path, Path]:
    """A white 1200 x 900 px image whose spot ``red`` at (612, 400) is a red square, and its spot table."""
    pixels = np.full((900, 1200, 3), 255, dtype=np.uint8)
    pixels[400 - 56 : 400 + 56, 612 - 56 : 612 + 56] = (255, 0, 0)
    slide, spots = tmp_path / "red.png", tmp_path / "red.csv"
    Image.fromarray(pixels).save(slide)
    pd.DataFrame({"name": ["red", "white", "corner"], "x": [612, 200, 5], "y": [400, 700, 4]}).to_csv(
        spots, index=False
    )
    return slide, spots


@pytest.fixture(scope="session")
def her2st() -> Path:
    """The real HER2ST sections."""
    folder = SHARED_DATA / "her2st"
    if not folder.is_dir():
        pytest.skip("the real HER2ST sections are not on this machine")
    return folder


@pytest.fixture(scope="session")
def her2st_counts(her2st: Path) -> dict[str, AnnData]:
    """Raw counts of all 36 HER2ST sections by name."""
    return {file.name.split(".")[0]: read_counts(file) for file in sorted((her2st / "ST-cnts").glob("*.tsv.gz"))}


@pytest.fixture(scope="session")
def real_slides() -> Path:
    """Real slide files of OpenSlide's test data."""
    folder = SHARED_DATA / "slides"
    if not folder.is_dir():
        pytest.skip("the real slides are not on this machine")
    return folder


def write_aperio(path: Path, pixels: np.ndarray, um_per_px: float) -> None:
    """A tiled pyramidal TIFF with the description by which OpenSlide knows an Aperio slide."""

    with tifffile.TiffWriter(path) as writer:
        for step in (1, 4):
            writer.write(
                np.asarray(Image.fromarray(pixels).reduce(step)),
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": 90},
                description=f"Aperio Image Library v11\n|AppMag = 20|MPP = {um_per_px}",
                software=False,
                metadata=None,
            )
