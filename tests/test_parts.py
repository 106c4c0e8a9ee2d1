"""Files in the making: every process has its own, and what one that is gone left is cleared or gone on from."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from genedml_cli.features import feature_file
from genedml_cli.files import parts
from genedml_cli.files.parts import LEFT, abandoned_parts, journal_of, new_part
from genedml_cli.files.storage import atomic_folder, atomic_write, write_text


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


def test_two_who_write_one_file_take_no_part_from_each_other(tmp_path):
    path = tmp_path / "out.csv"
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first != second and {first.suffix, second.suffix} == {".csv"}
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_left_is_cleared_by_the_next_and_what_is_written_is_not(tmp_path, monkeypatch, gone):
    path, day_s = tmp_path / "out.csv", 24 * 3600
    left = [new_part(path, gone), new_part(path, LEFT)]
    at_work = [new_part(path), new_part(tmp_path / "out.csv.gz", gone), tmp_path / ".out.csv.not.ours.part.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "node-7.cluster")
        elsewhere = new_part(path, gone)
    for part in (*left, *at_work, elsewhere):
        part.write_text("half")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, elsewhere, *at_work])
    os.utime(elsewhere, (time.time() - day_s - 60,) * 2)
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *at_work])


def test_parts_of_other_users_and_of_other_containers_are_not_abandoned(tmp_path, monkeypatch, gone):
    path = tmp_path / "out.csv"
    part = new_part(path, gone)
    part.touch()
    assert abandoned_parts(path) == [part]
    for name, other in (("PROCESS_NUMBERS", tmp_path), ("user_number", lambda: -1)):
        with monkeypatch.context() as patch:
            patch.setattr(parts, name, other)
            assert abandoned_parts(path) == []


def test_what_cannot_be_removed_keeps_nobody_from_writing(tmp_path, monkeypatch, gone):
    path, unlink = tmp_path / "out.csv", Path.unlink
    left = new_part(path, gone)
    left.touch()

    def refuse(file: Path, missing_ok: bool = False) -> None:
        if file == left:
            raise PermissionError(1, "Operation not permitted", str(file))
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_features_that_another_process_writes_beside_the_same_output_stay(tmp_path, gone):
    with feature_file.features_beside(tmp_path / "a.h5ad") as folder:
        folder.mkdir()
        whole = folder / "a.safetensors"
        at_work, left = new_part(whole), new_part(whole, gone)
        for file in (whole, at_work, journal_of(at_work), left, journal_of(left)):
            file.touch()
    assert sorted(folder.iterdir()) == [at_work, journal_of(at_work)]
    at_work.unlink()
    journal_of(at_work).unlink()
    with feature_file.features_beside(tmp_path / "a.h5ad"):
        pass
    assert not folder.exists()


def test_a_folder_that_was_being_exchanged_is_there_again(tmp_path, gone):
    path = tmp_path / "out.zarr"
    left = new_part(path, gone)
    (left / "before").mkdir(parents=True)
    (left / "before" / "values").write_text("first")
    with pytest.raises(ZeroDivisionError), atomic_folder(path):
        assert (path / "values").read_text() == "first"
        raise ZeroDivisionError
    assert [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("*"))] == [
        "out.zarr",
        "out.zarr/values",
    ]


TENSORS = {"local": torch.ones(1, 2, 1, 3), "tiles": torch.ones(4, 3)}


def begun(path: Path, done: int, by: int) -> None:
    """Let a feature file be begun by a process that was killed."""
    with pytest.raises(KeyboardInterrupt), feature_file.open_for_writing(path, TENSORS, {"of": "one"}) as file:
        file.put_all(TENSORS["local"], TENSORS["tiles"])
        file.done = done
        file.record()
        raise KeyboardInterrupt
    (part,) = (part for part in abandoned_parts(path) if LEFT in part.name and part.suffix != ".json")
    feature_file._hand_over(part, new_part(path, by))


def test_a_feature_file_is_gone_on_from_by_one_and_begun_anew_by_another(tmp_path, gone):
    path = tmp_path / "file"
    begun(path, 3, gone)
    with feature_file.open_for_writing(path, TENSORS, {"of": "one"}) as first:
        first.record()  # a line more of the journal that came with it
        assert len(journal_of(next(tmp_path.glob(".file.*.part"))).read_text().splitlines()) == 2
        with feature_file.open_for_writing(path, TENSORS, {"of": "one"}) as second:
            assert (first.done, second.done) == (3, 0)
            second.put_all(TENSORS["local"], TENSORS["tiles"])
        whole = path.read_bytes()
    assert path.read_bytes() == whole
    feature_file.check_seal(path)
    assert list(tmp_path.iterdir()) == [path]


def test_of_several_parts_the_furthest_is_gone_on_from(tmp_path, monkeypatch):
    path = tmp_path / "file"
    for done in (1, 4, 2, 3):
        begun(path, done, 1)
    monkeypatch.setattr(parts, "_is_running", lambda process: process != 1)
    with feature_file.open_for_writing(path, TENSORS, {"of": "one"}) as file:
        assert file.done == 4
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", ["", "1", " ", "x"])
def test_a_journal_whose_last_line_was_cut_says_what_was_done_before(tmp_path, cut):
    (tmp_path / "journal").write_text(f"other 9\nkey 2\nkey {cut}")
    assert feature_file._recorded(tmp_path / "journal", "key") == 2


def test_a_process_that_is_gone_but_not_waited_for_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        until = time.monotonic() + 30
        while parts._is_running(process.pid):
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_process_that_nobody_may_look_at_is_running(monkeypatch):
    def refuse(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "status", refuse)
    assert parts._is_running(os.getpid())
