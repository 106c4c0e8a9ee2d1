"""Folds beside each other: the same files as one after the other; what goes wrong in a process is said in this one."""

import functools
import os

import pytest
import torch
from conftest import tiny_config

from genedml.checkpoint import load_checkpoint
from genedml.errors import GeneDMLError
from genedml_cli import runs
from genedml_cli.compute import Compute
from genedml_cli.samples import read_sheet
from genedml_cli.workers import spread

TWO = [torch.device("cpu"), torch.device("cpu")]


def test_folds_on_two_devices_are_those_of_one(world, tmp_path, monkeypatch):
    samples, config = read_sheet(world / "samples.csv"), tiny_config("training.epochs=2")
    runs.train(samples, tmp_path / "one", config, features=tmp_path / "features", compute=Compute("cpu"))
    monkeypatch.setattr(runs, "all_like", lambda _: TWO)
    runs.train(samples, tmp_path / "two", config, features=tmp_path / "features", compute=Compute("cpu"))
    for fold in ("P1", "P2", "P3"):
        one, two = (load_checkpoint(tmp_path / run / f"fold-{fold}.safetensors")[1] for run in ("one", "two"))
        for (name, value), other in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(value, other), name
    tables = [(tmp_path / run / "metrics.csv").read_text() for run in ("one", "two")]
    assert tables[0] == tables[1]


def refuse(job: str, device: torch.device, word: str) -> str:
    if job == "bad":
        raise GeneDMLError(f"{job} on {device}: {word}")
    if job == "killed":
        os._exit(9)
    return job


@pytest.mark.parametrize(("job", "sentence"), [("bad", "bad on cpu: mend it"), ("killed", "ended without a word")])
def test_what_goes_wrong_in_a_process_is_raised_here(job, sentence):
    with pytest.raises(GeneDMLError, match=sentence):
        list(spread(functools.partial(refuse, word="mend it"), [job, "good"], TWO))


def test_one_device_needs_no_process():
    here = os.getpid()
    assert list(spread(lambda job, device: (job, os.getpid()), ["a", "b"], TWO[:1])) == [("a", here), ("b", here)]
