"""Features that are not finite end a run at the batch that makes them; modules import where Unix's own are absent."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import QuadrantColours

from genedml.config import ViewsConfig
from genedml.encoders.encoder import Encoder, load_encoder
from genedml.encoders.table import ENCODERS
from genedml.errors import GeneDMLError
from genedml_cli.features.extraction import encode_section, encode_section_to_file
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spots import Spots


class Poisoned(QuadrantColours):
    """Gives a number that is not finite once a tile is bright."""

    def __init__(self, value: float, weight: float) -> None:
        super().__init__()
        self.value = value
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = super().forward(images)
        bright = images.mean(dim=(1, 2, 3)) > 0.9
        tokens[bright, -1, 0] = self.value
        return tokens


@pytest.mark.parametrize(
    ("value", "weight", "fix"),
    [
        (float("nan"), float("nan"), "Its weights hold NaN or infinite numbers: the file is damaged; fetch it again."),
        (float("inf"), 1.0, "Its weights are sound, so half precision does not hold them"),
        (1e6, 1.0, "train with --set views.precision=float32"),
    ],
)
def test_features_that_are_not_finite_are_refused_at_their_batch(red_spot, tmp_path, value, weight, fix):
    spots = Spots(("red", "white"), np.array([[612.0, 400.0], [200.0, 700.0]]))
    encoder = Encoder(ENCODERS["tiny"], Poisoned(value, weight), has_class_token=True)
    views = ViewsConfig(um_per_px="native", neighbor_grid=1)
    with open_slide(red_spot[0]) as slide:
        with pytest.raises(
            GeneDMLError, match=r"not finite, first of tile 2 of 2 of red\.png, 224 px wide at \(88, 588\) of its views"
        ) as e:
            encode_section_to_file(slide, spots, encoder, views, tmp_path / "features", "red")
        assert fix in str(e.value)
        with pytest.raises(GeneDMLError):
            encode_section(slide, spots, encoder, views)
    assert not list((tmp_path / "features").glob("*"))


@pytest.mark.parametrize("through_a_file", [False, True])
def test_single_precision_keeps_what_half_does_not_hold(red_spot, tmp_path, through_a_file):
    spots = Spots(("red", "white"), np.array([[612.0, 400.0], [200.0, 700.0]]))
    encoder = Encoder(ENCODERS["tiny"], Poisoned(1e6, 1.0), has_class_token=True)
    views = ViewsConfig(um_per_px="native", neighbor_grid=1, precision="float32")
    with open_slide(red_spot[0]) as slide:
        if through_a_file:
            features = encode_section_to_file(slide, spots, encoder, views, tmp_path, "red", flips=True)
        else:
            features = encode_section(slide, spots, encoder, views, flips=True)
        plain = encode_section(slide, spots, load_encoder("tiny"), replace(views, precision="float16"), flips=True)
    assert features.local.dtype == features.tiles.dtype == torch.float32
    assert features.local[0, :, -1, 0].tolist()[1] == 1e6
    assert torch.allclose(features.local[:, 0], plain.local[:, 0].float(), atol=1e-3)
    assert torch.allclose(features.pooled, plain.pooled.float(), atol=1e-3)


def test_features_and_the_commands_import_without_the_modules_of_unix():
    absent = "import sys, psutil, filelock; sys.modules.update({'resource': None, 'fcntl': None})"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{absent}; import genedml_cli.features.extraction, genedml_cli.app, genedml_cli.benchmark.benchmark",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
