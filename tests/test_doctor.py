"""What the doctor finds."""

import json
import sys

import pytest

from genedml.encoders.table import ENCODERS
from genedml_cli import app, doctor
from genedml_cli.doctor import CHECKS, Finding, State, examine


@pytest.fixture
def command(monkeypatch, capsys):
    """The command with some words: exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["genedml", "doctor", *words])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def bare_hub(monkeypatch, tmp_path):
    """No token and no cache."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("genedml.encoders.weights.find_weights", lambda info: None)


def test_this_machine_is_fit_and_lacks_weights_without_that_being_broken(bare_hub, command):
    findings = {one.what: one for one in examine()}
    assert [one for one in findings.values() if one.state is State.broken] == []
    assert "tiled TIFF" in findings["OpenSlide"].found
    assert findings["encoder stain-texture"].state is State.ok
    missing = findings["encoders"]
    assert missing.state is State.note
    lacking = [name for name, info in ENCODERS.items() if info.hub is not None]
    assert missing.found == f"weights not here: {', '.join(lacking)}"
    assert "--weights FILE" in missing.fix
    assert "hf auth login" in findings["hub login"].fix
    code, out, _ = command()
    assert code == 0
    assert "hub login: hf auth login" in out


def test_a_token_is_told_of_and_never_shown(monkeypatch, command):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    code, out, err = command("--json")
    assert code == 0
    assert next(one for one in json.loads(out) if one["what"] == "hub login")["state"] == "ok"
    assert "hf_secret" not in out + err


def test_a_check_that_breaks_is_a_finding_and_ends_with_1(monkeypatch, command):
    def breaks():
        raise ImportError("libopenslide.so.1 is not there")

    monkeypatch.setitem(CHECKS, "OpenSlide", breaks)
    code, out, err = command("--json")
    assert code == 1
    found = next(one for one in json.loads(out) if one["what"] == "OpenSlide")
    assert found["state"] == "BROKEN"
    assert "libopenslide.so.1 is not there" in found["found"]
    assert "Broken, and nothing runs without it: OpenSlide" in err


def test_packages_that_are_missing_or_too_old_are_broken(monkeypatch):
    wanted = ["torch>=999", "no-such-package>=1", "numpy>=1", "not-wanted>=1; extra == 'test'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    (found,) = doctor._packages()
    assert found.state is State.broken
    assert "torch>=999 (here: " in found.found and "no-such-package>=1 (here: 0)" in found.found
    assert "numpy" not in found.found and "not-wanted" not in found.found


def test_a_card_that_torch_does_not_see_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "_drivers", lambda: ["NVIDIA X, 550.1"])
    found = doctor._no_gpu()
    assert found.state is State.note
    assert "NVIDIA X, 550.1 is here" in found.found and "pytorch.org" in found.fix


def test_little_memory_disk_or_a_folder_that_cannot_be_written_is_told(monkeypatch):
    monkeypatch.setattr("genedml_cli.machine.memory.free_on_host", lambda: 10**9)
    (memory,) = doctor._memory()
    assert memory.state is State.note and memory.fix
    monkeypatch.setattr(doctor, "free_bytes", lambda folder: 10**6)
    assert all(one.state is State.note and "make room" in one.fix for one in doctor._disks())
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    unwritable = {one.what: one for one in doctor._disks()}
    assert all("not writable" in one.found and one.fix for one in unwritable.values())
    assert "no weights can be fetched" in unwritable["hub's cache"].fix


def test_every_finding_that_is_not_ok_says_how_to_mend_it(bare_hub):
    findings: list[Finding] = examine()
    assert [one.what for one in findings if one.state is not State.ok and not one.fix] == []
