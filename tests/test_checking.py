"""``data check --samples``: every section of a sheet is looked at, and what is wrong is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from genedml.errors import GeneDMLError
from genedml_cli.app import app
from genedml_cli.datasets import checking
from genedml_cli.datasets.folds import make_folds
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spot_files import read_spots


@pytest.fixture
def sheet(world: Path, tmp_path: Path) -> Path:
    for name in ("slides", "spots", "counts"):
        shutil.copytree(world / name, tmp_path / name)
    return Path(shutil.copy(world / "samples.csv", tmp_path))


def test_a_sheet_that_is_well_is_so(sheet):
    checks = json.loads(CliRunner().invoke(app, ["data", "check", "--samples", str(sheet), "--json"]).stdout)
    assert [(check["section"]["name"], check["state"]) for check in checks] == [(f"P{n}", "ok") for n in (1, 2, 3)]
    assert all(check["spots"] == check["with_counts"] > 30 for check in checks)
    shown = CliRunner().invoke(app, ["data", "check", "--samples", str(sheet)]).stdout
    assert "All 3 sections are in order." in shown


def test_of_sections_of_one_patient_it_says_what_train_will_say(sheet):
    pd.read_csv(sheet).assign(patient="Anna").drop(columns="fold", errors="ignore").to_csv(sheet, index=False)
    done = CliRunner().invoke(app, ["data", "check", "--samples", str(sheet)])
    with pytest.raises(GeneDMLError, match="All 3 sections are in fold Anna, so none is left to train on") as refused:
        make_folds(read_sheet(sheet))
    assert "All 3 sections are in order." in done.stdout
    assert done.exit_code == 0
    assert f"train refuses this sheet as it is: {refused.value}" in " ".join(done.stderr.split())


def test_every_wrong_section_is_named_with_what_is_wrong(sheet):
    (sheet.parent / "slides" / "P1.tif").write_bytes(b"no slide")
    spots = pd.read_csv(sheet.parent / "spots" / "P2.csv")
    spots.assign(name=[f"other-{number}" for number in range(len(spots))]).to_csv(
        sheet.parent / "spots" / "P2.csv", index=False
    )
    samples = read_sheet(sheet)
    checks = checking.check_samples(samples)
    assert [check.state for check in checks] == ["WRONG", "WRONG", "ok"]
    (problem,) = checks[1].problems
    assert problem.startswith("No spot has counts: spots are called other-0, ")
    with pytest.raises(GeneDMLError, match=r"Wrong in .*: 2 of 3 sections, P1, P2\."):
        checking.refuse_wrong_samples(sheet, samples, checks)


def test_a_scale_that_contradicts_the_pitch_is_wrong(sheet):
    samples = read_sheet(sheet)
    scale = checking.check_samples(samples)[0]
    assert scale.file_um_per_px is not None
    apart = pd.read_csv(sheet.parent / "spots" / "P1.csv")[["x", "y"]].to_numpy()
    pitch_px = float(min(abs(apart[0] - other).sum() for other in apart[1:]))
    right, wrong = (
        checking.check_samples([replace(samples[0], pitch_um=pitch_px * scale.file_um_per_px * times)])[0]
        for times in (1, 1.5)
    )
    assert right.state == "ok"
    assert "the spots' pitch gives" in " ".join(wrong.problems)


def test_the_scale_of_a_picture_without_one_is_what_the_sheet_says(sheet, capfd):
    (sample, *_) = read_sheet(sheet)
    with open_slide(sample.slide) as slide:
        um_per_px = slide.um_per_px
        slide.source.read(0, 0, 0, *slide.size_px).save(picture := sample.slide.with_suffix(".png"))
    picture = replace(sample, slide=picture, um_per_px=um_per_px)
    (check,) = checking.check_samples([picture])
    assert (check.state, check.file_um_per_px) == ("ok", None)
    pitch_um = read_spots(sample.spots).pitch_px * um_per_px
    checking.check_samples([replace(picture, um_per_px=None, pitch_um=pitch_um)])
    shown = capfd.readouterr().err
    assert shown.count(f"{um_per_px:.4g} um/px as given") == shown.count(f"{um_per_px:.4g} um/px from the pitch") == 1
    (check,) = checking.check_samples([replace(picture, pitch_um=2 * pitch_um)])
    assert f"um/px, the sheet {um_per_px:.4f}" in " ".join(check.problems)
