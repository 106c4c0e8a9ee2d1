"""Weights files as people have them: wrapped, prefixed, in half precision; refused where one key does not fit."""

import pytest
import torch
from torch import nn

from genedml.encoders.weight_files import load_weights
from genedml.errors import GeneDMLError


def backbone() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5)))


def random_state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(value.shape, generator=generator) for key, value in backbone().state_dict().items()}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


STATE, OTHER = random_state(1), random_state(2)
HEAD = {"projector.weight": torch.zeros(3)}
FORMS = {
    "plain": STATE,
    **{
        prefix: prefixed(prefix, STATE)
        for prefix in ("module.", "backbone.", "model.", "encoder.", "teacher.backbone.")
    },
    **{name: {name: STATE, "epoch": 3} for name in ("state_dict", "model", "teacher", "model_state_dict")},
    "wrapped and prefixed": {"state_dict": prefixed("module.backbone.", STATE) | prefixed("module.", HEAD)},
    "wrapped twice": {
        "checkpoint": {"teacher": prefixed("backbone.", STATE)},
        "optimizer": {"state": {0: {"step": 1}}},
    },
    "beside the student": {"student": prefixed("module.backbone.", OTHER), "teacher": prefixed("backbone.", STATE)},
    "student and teacher flat": prefixed("student.", OTHER) | prefixed("teacher.", STATE),
    "with a mask token": STATE | {"mask_token": torch.zeros(1, 1, 3)},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_wherever_they_stand(tmp_path, form):
    torch.save(FORMS[form], tmp_path / "w.pth")
    module = backbone()
    load_weights(module, tmp_path / "w.pth", "tiny")
    assert all(torch.equal(value, STATE[key]) for key, value in module.state_dict().items())


def test_half_precision_is_loaded_as_the_same_numbers(tmp_path):
    torch.save({"module." + key: value.half() for key, value in STATE.items()}, tmp_path / "w.pth")
    module = backbone()
    load_weights(module, tmp_path / "w.pth", "tiny")
    assert all(torch.equal(value, STATE[key].half().float()) for key, value in module.state_dict().items())


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            prefixed("module.", without(STATE, "1.0.bias")),
            r"1 of 6 keys are missing \(first: 1\.0\.bias\), 0 are unknown",
        ),
        (
            {"model": STATE | {"x.weight": torch.zeros(2)}},
            r"0 of 6 keys are missing, 1 are unknown \(first: x\.weight\)",
        ),
        ({"model": STATE | {"0.bias": torch.zeros(9)}}, r"1 have another shape \(first: 0\.bias\)"),
        ({"a": STATE, "b": OTHER}, r"holds weights of tiny more than once, under a\. and b\."),
        ({"args": {"lr": 1}, "epoch": 3}, r"6 of 6 keys are missing"),
        ({"epoch": 3}, r"something else than named tensors"),
    ],
)
def test_weights_of_which_a_key_does_not_fit_are_refused_and_nothing_is_loaded(tmp_path, stored, message):
    torch.save(stored, tmp_path / "w.pth")
    module = backbone()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(GeneDMLError, match=message):
        load_weights(module, tmp_path / "w.pth", "tiny")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
