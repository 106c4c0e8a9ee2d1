"""Killed or stopped: what is kept is whole, and going on ends as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_config

from genedml.checkpoint import checkpoint_bytes, load_card, load_state
from genedml.config import ViewsConfig
from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml.tensor_files import tensor_bytes
from genedml_cli import console
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.features import feature_file
from genedml_cli.features.batch_size import BATCH_TILES
from genedml_cli.features.encoding import BatchRunner
from genedml_cli.features.extraction import extract
from genedml_cli.files.storage import write_text
from genedml_cli.machine.compute import Compute, all_deterministic
from genedml_cli.machine.devices import fitting
from genedml_cli.machine.stopping import Stopped
from genedml_cli.runs import run as runs
from genedml_cli.training import loop as training
from genedml_cli.training import state as training_state

VIEWS = ViewsConfig()
EPOCHS = ("training.epochs=4", "training.refit=true", "training.weight_average=0.9")


# Training


@pytest.fixture
def samples(world) -> list[Sample]:
    return read_sheet(world / "samples.csv")


def stopped_in(monkeypatch, epoch: int) -> None:
    """Let training be interrupted after so many epochs, with every one of them kept."""
    monkeypatch.setattr(training_state, "AT_MOST_S", 0.0)
    keep, count = training._Passes.keep, iter(range(1, 100))

    def keep_and_stop(self, *rest):
        keep(self, *rest)
        if next(count) == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Passes, "keep", keep_and_stop)


def trained(samples, out: Path, *more: str) -> bytes:
    runs.train(
        samples, out, tiny_config(*EPOCHS, *more), fold="P1", features=out.parent / "features", compute=Compute("cpu")
    )
    return (out / "fold-P1.safetensors").read_bytes()


@pytest.mark.parametrize("epoch", [1, 4, 5], ids=["first-pass", "its-end", "refit"])  # 5: how many follow is chosen
def test_training_goes_on_after_the_last_epoch(samples, tmp_path, epoch, capsys):
    whole = trained(samples, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_in(patch, epoch)
        trained(samples, tmp_path / "run")
    assert (tmp_path / "run" / "fold-P1.state").exists()
    capsys.readouterr()
    assert trained(samples, tmp_path / "run") == whole
    assert f"going on after epoch {epoch if epoch <= 4 else epoch - 4}" in capsys.readouterr().err
    left = {path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*")}
    assert left == {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}


def test_the_log_grows_with_the_epochs_and_ends_as_one_that_was_never_interrupted(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(training_state, "LOG_EVERY_S", 0.0)
    trained(samples, tmp_path / "whole")
    whole = (tmp_path / "whole" / "fold-P1.log.csv").read_text().splitlines()
    for epoch in (2, 5):  # the second goes on from the first
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stopped_in(patch, 2 if epoch == 2 else 3)
            trained(samples, tmp_path / "run")
        assert (tmp_path / "run" / "fold-P1.log.csv").read_text().splitlines() == whole[: 1 + epoch]
    trained(samples, tmp_path / "run")
    assert (tmp_path / "run" / "fold-P1.log.csv").read_text().splitlines() == whole


def test_the_log_is_written_at_most_every_other_second_and_at_the_end(tmp_path, monkeypatch):
    now, log = [100.0], tmp_path / "log.csv"
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    table = training_state.EpochLog(log)
    for epoch, seconds, rows in [(1, 0.0, 1), (2, 1.0, 1), (3, 1.5, 3)]:
        now[0] += seconds
        table.write([{"epoch": number + 1} for number in range(epoch)])
        assert len(log.read_text().splitlines()) == 1 + rows
    table.write([{"epoch": 1}], last=True)
    assert log.read_text() == "epoch\n1\n"


def test_without_a_terminal_an_epoch_is_told_first_and_then_each_half_minute(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console.progress("Fold P1", 80, told="epoch") as advance:
        advance(3)  # epochs of an earlier run
        for epoch in range(4, 15):
            advance(note=f"total {epoch}")
            now[0] += 10
    with console.progress("Sections", 2) as advance:
        advance(note="quiet")
    told = [f"Fold P1: epoch {epoch} of 80: total {epoch}" for epoch in (4, 7, 10, 13)]
    assert capsys.readouterr().err.splitlines() == told


def test_a_state_of_other_labels_is_not_gone_on_from(samples, world, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_in(patch, 2)
        trained(samples, tmp_path / "run")
    copied = tmp_path / "world"
    shutil.copytree(world, copied)
    for one in samples:
        table = copied / one.counts.relative_to(world)
        text = subprocess.run(["zcat", "-f", str(one.counts)], capture_output=True, text=True, check=True).stdout
        head, first, *rest = text.splitlines()
        name, *numbers = first.split("\t")
        first = "\t".join([name, *(str(int(float(number)) + 7) for number in numbers)])
        plain = table.with_suffix("") if table.suffix == ".gz" else table
        table.unlink()
        plain.write_text("\n".join([head, first, *rest]))
    others = [replace(one, counts=next((copied / "counts").glob(f"{one.name}*"))) for one in samples]
    (tmp_path / "run" / "run.json").unlink()
    capsys.readouterr()
    trained(others, tmp_path / "run")
    assert "fold-P1.state is of other labels" in capsys.readouterr().err


def test_a_damaged_state_is_an_error(samples, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fold-P1.state").write_bytes(b"half")
    with pytest.raises(GeneDMLError, match=r"fold-P1\.state cannot be read: .*Remove it"):
        trained(samples, tmp_path / "run")


def test_state_is_written_less_often_where_it_takes_long(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state = training_state.TrainingState(tmp_path / "state", {})
    assert state.due()
    monkeypatch.setattr(training_state, "save_file", lambda *_: now.__setitem__(0, now[0] + 2) or write_nothing(_[1]))
    state.write(training_state.Moment())
    now[0] += 39
    assert not state.due()
    now[0] += 1.5
    assert state.due()


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def test_the_bytes_of_a_checkpoint_are_its_contents_alone(run):
    file = run / "fold-P1.safetensors"
    card, state = load_card(file), load_state(file)
    for _ in range(20):  # safetensors draws an order of metadata at each call
        assert checkpoint_bytes(card, state) == file.read_bytes()


def test_tensors_are_written_as_the_library_reads_them(tmp_path):
    from safetensors import safe_open

    tensors = {"b": torch.arange(6).reshape(2, 3), "a": torch.rand(5).half(), "c": torch.rand(2, dtype=torch.float64)}
    (tmp_path / "file").write_bytes(tensor_bytes(tensors, {"z": "1", "a": "2"}))
    with safe_open(tmp_path / "file", "pt") as stored:
        assert stored.metadata() == {"a": "2", "z": "1"}
        assert all(torch.equal(stored.get_tensor(name), tensor) for name, tensor in tensors.items())


# Extraction


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny")


@pytest.fixture
def red_sample(red_spot) -> Sample:
    return Sample("red", *red_spot, red_spot[1], "P1", "P1", um_per_px=0.5)


def stop_encoding(monkeypatch, batches: int) -> list[int]:
    """Let the encoder be interrupted after so many batches; counts the tiles it is given."""
    monkeypatch.setattr(feature_file, "EVERY_S", -1.0)
    monkeypatch.setitem(BATCH_TILES, "cpu", 4)
    call, seen = BatchRunner.__call__, []

    def count(self, images):
        if len(seen) == batches:
            raise KeyboardInterrupt
        seen.append(len(images))
        return call(self, images)

    monkeypatch.setattr(BatchRunner, "__call__", count)
    return seen


def test_extraction_goes_on_where_it_was(red_sample, encoder, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        seen = stop_encoding(patch, 1000)
        extract([red_sample], encoder, VIEWS, tmp_path / "whole")
        tiles = sum(seen)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_encoding(patch, 5)
        extract([red_sample], encoder, VIEWS, tmp_path / "features")
    assert {path.suffix for path in (tmp_path / "features").iterdir()} == {".safetensors", ".json"}
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        seen = stop_encoding(patch, 1000)
        extract([red_sample], encoder, VIEWS, tmp_path / "features")
    assert sum(seen) <= tiles - 4 * 4 + 4
    assert "Going on from tile" in capsys.readouterr().err
    (whole,), (found,) = ((tmp_path / name).iterdir() for name in ("whole", "features"))
    assert (whole.name, whole.read_bytes()) == (found.name, found.read_bytes())


class Killed(BaseException):
    """Ends a block as a SIGKILL does: nothing is cleared up."""


def test_a_journal_of_another_part_is_not_gone_on_from(tmp_path):
    path, tensors = tmp_path / "file", {"local": torch.ones(1, 2, 1, 3), "tiles": torch.ones(2, 3)}
    with pytest.raises(Killed), feature_file.open_for_writing(path, tensors, {"of": "one"}) as file:
        file.put_all(tensors["local"], tensors["tiles"])
        file.done = 2
        file.record()
        raise Killed
    with pytest.raises(Killed), feature_file.open_for_writing(path, tensors, {"of": "another"}):
        raise Killed
    with feature_file.open_for_writing(path, tensors, {"of": "one"}) as file:
        assert file.done == 0
        file.put_all(tensors["local"], tensors["tiles"])


def test_a_full_disk_while_encoding_is_a_sentence_and_leaves_nothing(red_sample, encoder, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "features" / "earlier", "kept")
    monkeypatch.setattr(feature_file.FileSink, "_write", full)
    with pytest.raises(GeneDMLError):
        extract([red_sample], encoder, VIEWS, tmp_path / "features")
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["earlier"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda sample, views: (replace(sample, um_per_px=0.4), views), "um/px"),
        (lambda sample, views: (sample, replace(views, neighbor_grid=3)), "views"),
    ],
)
def test_what_differs_from_the_features_that_are_there_is_said(red_sample, encoder, tmp_path, capsys, change, what):
    views = ViewsConfig(neighbor_grid=1)
    extract([red_sample], encoder, views, tmp_path / "features")
    capsys.readouterr()
    sample, views = change(red_sample, views)
    extract([sample], encoder, views, tmp_path / "features")
    assert f"red: the features in {tmp_path / 'features'} are of other {what}; making new ones." in " ".join(
        capsys.readouterr().err.split()
    )


def test_what_was_encoded_when_it_was_stopped_is_on_record(red_sample, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(BATCH_TILES, "cpu", 4)
    put, seen = feature_file.FileSink.put, []

    def stop(self, batch):
        put(self, batch)
        seen.append(batch)
        if len(seen) == 3:
            raise Stopped(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(feature_file.FileSink, "put", stop)
        extract([red_sample], encoder, VIEWS, tmp_path / "features")
    capsys.readouterr()
    extract([red_sample], encoder, VIEWS, tmp_path / "features")
    assert "Going on from tile 13," in capsys.readouterr().err


# Disks and devices


def test_a_device_without_memory_is_a_sentence(samples, tmp_path, monkeypatch):
    def out_of_memory(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("genedml_cli.training.learner.Learner.train_epoch", out_of_memory)
    with pytest.raises(GeneDMLError, match=r"no memory for training on whole sections\. .*network\.array_mean=false"):
        trained(samples, tmp_path / "run")
    with pytest.raises(GeneDMLError, match=r"no memory for this\. Do that\."), fitting("this", "Do that."):
        raise MemoryError


def test_determinism_is_asked_for_and_taken_back():
    with all_deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_determinism_is_on_record_and_a_run_keeps_to_it(samples, tmp_path):
    words = {"fold": "P1", "features": tmp_path / "features"}
    runs.train(samples, tmp_path / "run", tiny_config(), compute=Compute("cpu", deterministic=True), **words)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["deterministic"] is True
    assert load_card(tmp_path / "run" / "fold-P1.safetensors").made_by["deterministic"] is True
    with pytest.raises(GeneDMLError, match="deterministic: True there, False here"):
        runs.train(samples, tmp_path / "run", tiny_config(), compute=Compute("cpu"), **words)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_deterministic_training_on_cuda_gives_the_same_bytes(samples, tmp_path):
    config = tiny_config(*EPOCHS, "training.augment=true")
    contents = []
    for name in ("one", "two"):
        compute = Compute("cuda", deterministic=True)
        runs.train(samples, tmp_path / name, config, fold="P1", features=tmp_path / name, compute=compute)
        contents.append((tmp_path / name / "fold-P1.safetensors").read_bytes())
    assert contents[0] == contents[1]
