"""A slide that is removed, exchanged, cut or written while it is read: a sentence, and nothing is left of it."""

import os
import shutil
import threading
from pathlib import Path

import h5py
import numpy as np
import openslide
import pandas as pd
import pytest
from conftest import write_aperio

from genedml.config import ViewsConfig
from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import Sample
from genedml_cli.features.batch_size import BATCH_TILES
from genedml_cli.features.encoding import BatchRunner
from genedml_cli.features.extraction import extract
from genedml_cli.slides.slide_files import Watched, content_sha256

VIEWS = ViewsConfig(neighbor_grid=1)


@pytest.fixture
def sample(tmp_path) -> Sample:
    """A pyramid of 4096 x 4096 px with a spot in every 512."""
    slide, spots = tmp_path / "slide.svs", tmp_path / "spots.csv"
    pixels = np.random.default_rng(0).integers(60, 250, (64, 64, 3), dtype=np.uint8)
    write_aperio(slide, pixels.repeat(64, axis=0).repeat(64, axis=1), 0.5)
    x, y = (side.ravel() * 512 + 256 for side in np.meshgrid(range(8), range(8)))
    pd.DataFrame({"name": [f"s{place}" for place in range(64)], "x": x, "y": y}).to_csv(spots, index=False)
    return Sample("one", slide, spots, spots, "P1", "P1")


def remove(slide: Path) -> None:
    slide.unlink()


def exchange(slide: Path) -> None:
    other = slide.with_name("other")
    shutil.copy(slide, other)
    write_into(other)
    other.replace(slide)


def cut(slide: Path) -> None:
    os.truncate(slide, slide.stat().st_size // 2)


def write_into(slide: Path) -> None:
    content = bytearray(slide.read_bytes())
    content[len(content) // 2] ^= 255
    slide.write_bytes(content)


def meanwhile(monkeypatch, what, slide: Path) -> None:
    """Let it happen to the slide when the first tile has been encoded."""
    call, happened, one_thread = BatchRunner.__call__, [], threading.Lock()
    monkeypatch.setitem(BATCH_TILES, "cpu", 1)

    def encode(self, images):
        with one_thread:
            if not happened:
                happened.append(what(slide))
        return call(self, images)

    monkeypatch.setattr(BatchRunner, "__call__", encode)


@pytest.mark.parametrize("what", [remove, exchange, cut, write_into])
def test_a_slide_that_does_not_stay_as_it_is_leaves_no_features(sample, what, tmp_path, monkeypatch):
    meanwhile(monkeypatch, what, sample.slide)
    with pytest.raises(GeneDMLError, match=r"slide\.svs (vanished|was changed) while it was read\. .*run again"):
        extract([sample], load_encoder("tiny"), VIEWS, tmp_path / "features", allow_off_tissue=True)
    assert not (tmp_path / "features").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_a_patch_file_that_is_exchanged_while_it_is_read_leaves_no_features(tmp_path, monkeypatch):
    patches, spots, names = tmp_path / "P1.h5", tmp_path / "spots.csv", [f"s{place}" for place in range(8)]
    with h5py.File(patches, "w") as file:
        file["img"] = np.random.default_rng(0).integers(60, 250, (8, 224, 224, 3), dtype=np.uint8)
        file["img"].attrs["downsample"] = 1.0
        file["barcode"], file["coords"] = np.array(names, "S"), np.zeros((8, 2), int)
    pd.DataFrame({"name": names, "x": range(8), "y": range(8)}).to_csv(spots, index=False)
    meanwhile(monkeypatch, write_into, patches)
    with pytest.raises(GeneDMLError, match=r"P1\.h5 was changed while it was read"):
        extract([Sample("one", patches, spots, spots, "P1", "P1")], load_encoder("tiny"), VIEWS, tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_drive_that_fails_while_a_thread_reads_is_a_sentence(sample, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("genedml_cli.features.extraction.find_tissue", lambda _: None)
    monkeypatch.setattr("genedml_cli.features.extraction.check_on_tissue", lambda *_: None)
    monkeypatch.setattr(openslide.OpenSlide, "read_region", fail)
    with pytest.raises(GeneDMLError, match=r"slide\.svs is damaged at x \d+, y \d+: Input/output error\. Fetch"):
        extract([sample], load_encoder("tiny"), VIEWS, tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_slide_that_stays_is_read(sample, tmp_path):
    found = extract([sample], load_encoder("tiny"), VIEWS, tmp_path / "features", allow_off_tissue=True)
    assert len(found["one"].tiles) == 64


@pytest.mark.parametrize(
    ("slide", "beside", "another"),
    [
        ("a.mrxs", "a/Data0001.dat", "b/Data0001.dat"),
        ("1.dcm", "2.dcm", "2.txt"),
        ("a 10.vms", "a 10(1,0).jpg", "b 10(1,0).jpg"),
    ],
)
def test_a_slide_of_several_files_is_known_and_watched_by_all_of_them(tmp_path, slide, beside, another):
    for name in (slide, beside, another):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"as it was")
    before, watched = content_sha256(tmp_path / slide), Watched(tmp_path / slide)
    (tmp_path / another).write_bytes(b"of another slide")
    watched.check()
    assert content_sha256(tmp_path / slide) == before
    (tmp_path / beside).write_bytes(b"other pixels")
    assert content_sha256(tmp_path / slide) != before
    with pytest.raises(GeneDMLError):
        watched.check()
