"""Disks that are full, cannot be written, or lose a bit: a sentence, and nothing half-written is left."""

import resource

import anndata
import numpy as np
import pytest
import torch

from genedml.errors import GeneDMLError
from genedml_cli.features import extraction, feature_file
from genedml_cli.files.storage import atomic_write
from genedml_cli.machine.compute import Compute
from genedml_cli.prediction.prediction import predict
from genedml_cli.references.novelty import NoveltyModel, save_novelty
from genedml_cli.training import state as training_state


def test_a_folder_that_cannot_be_written_is_a_sentence(run, p1, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GeneDMLError):
        predict(p1["slide"], p1["spots"], run, tmp_path / "file" / "out.h5ad", compute=Compute("cpu"))
    with pytest.raises(GeneDMLError), atomic_write(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("name", ["state", "novelty"])
def test_a_disk_that_takes_no_more_is_a_sentence_and_leaves_nothing(tmp_path, name):
    values = np.ones((500, 500), np.float32)
    moment = training_state.Moment(tensors={"weights": torch.from_numpy(values)})
    write = {
        "state": lambda path: training_state.TrainingState(path, {}).write(moment),
        "novelty": lambda path: save_novelty(NoveltyModel(values[0], values[0], values, values, values[0]), "0", path),
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(GeneDMLError, match=rf"{name} cannot be written: .*File too large"):
            write[name](tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_state_with_a_changed_bit_is_an_error(tmp_path):
    state = training_state.TrainingState(tmp_path / "state", {})
    state.write(training_state.Moment(tensors={"weights": torch.ones(4)}))
    assert torch.equal(state.read().tensors["weights"], torch.ones(4))
    content = bytearray((tmp_path / "state").read_bytes())
    content[-1] ^= 1
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(GeneDMLError, match="it has changed since it was written"):
        state.read()


def test_a_prediction_keeps_its_features_in_memory_where_they_fit(run, p1, tmp_path, monkeypatch):
    def predicted() -> anndata.AnnData:
        return predict(p1["slide"], p1["spots"], run, tmp_path / "out.h5ad", compute=Compute("cpu"), force=True)

    with monkeypatch.context() as patch:
        patch.setattr(feature_file.FileSink, "__init__", None)
        in_memory = predicted()
    flush, written = feature_file.FileSink.flush, []
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "free_on_host", lambda: 0)
        patch.setattr(feature_file.FileSink, "flush", lambda self: (written.append(self), flush(self)))
        in_file = predicted()
    assert written
    np.testing.assert_array_equal(in_memory.X, in_file.X)


def test_a_prediction_that_fails_or_ends_leaves_no_features(run, p1, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "free_on_host", lambda: 0)

    def gone(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(GeneDMLError):
        patch.setattr(feature_file.FileSink, "_write", gone)
        predict(p1["slide"], p1["spots"], run, tmp_path / "out.h5ad", compute=Compute("cpu"))
    assert list(tmp_path.iterdir()) == []
    predict(p1["slide"], p1["spots"], run, tmp_path / "out.h5ad", compute=Compute("cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"]
