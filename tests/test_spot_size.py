"""Pseudo-spots: how many a section may have, and that a model remembers the size of those it was trained on."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from PIL import Image

from genedml.checkpoint import load_card
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.notes import Mark
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spots import MOST_SPOTS, Spots, size_note


def spots_of(size_um: int | None, columns: int = 6, rows: int = 5) -> Spots:
    array_xy = np.array([(column, row) for row in range(rows) for column in range(columns)])
    kind = "{0}x{1}" if size_um is None else f"s_{size_um:03}um_{{1:05}}_{{0:05}}-1"
    return Spots(tuple(kind.format(*place) for place in array_xy), 10.0 + 4 * array_xy, array_xy)


def test_the_names_of_summed_spots_say_their_size():
    assert spots_of(100).summed_um == 100
    assert spots_of(8).summed_um == 8
    assert spots_of(None).summed_um is None


@pytest.mark.parametrize(
    ("trained", "size_um", "pitch_um", "said"),
    [
        ((100,), 100, None, None),
        (
            (100,),
            55,
            None,
            "summed over 100 um, and these are of 55 um. Sum at the same size: genedml data bin, --um 100",
        ),
        ((50, 100), 75, None, "summed over 50 and 100 um, and these are of 75 um"),
        ((100,), None, 200.0, "these are of 200 um"),
        ((100,), None, 102.0, None),
        ((100,), None, None, None),
        ((), 55, None, None),
    ],
)
def test_spots_of_another_size_than_the_training_are_marked(trained, size_um, pitch_um, said):
    note = size_note(trained, spots_of(size_um), pitch_um)
    assert (note is None) == (said is None)
    if note is not None:
        assert note.mark is Mark.SPOT_SIZE
        assert said in note.text


def test_more_spots_than_a_section_can_bear_are_refused_with_the_command_that_sums_them(tmp_path):
    Image.new("RGB", (900, 700)).save(tmp_path / "he.png")
    spots = spots_of(16, 200, MOST_SPOTS // 200 + 1)
    with pytest.raises(
        GeneDMLError, match=r"has 20,200 spots of 16 um, more than the 20,000 .*genedml data bin OUTS --um"
    ):
        open_section(tmp_path / "he.png", spots, 0.5)


def renamed(world: Path, folder: Path) -> Path:
    """The sheet of ``world`` with spots that are called as pseudo-spots of 200 um."""
    rows = []
    for sample in read_sheet(world / "samples.csv"):
        spots, counts = pd.read_csv(sample.spots), pd.read_csv(sample.counts, sep="\t", index_col=0)
        named = {name: "s_200um_{1:05}_{0:05}".format(*map(int, name.split("x"))) for name in counts.index}
        spots.assign(name=spots["name"].map(named)).to_csv(folder / f"{sample.name}.csv", index=False)
        counts.rename(index=named).to_csv(folder / f"{sample.name}.tsv", sep="\t")
        rows.append((sample.name, sample.slide, f"{sample.name}.csv", f"{sample.name}.tsv", sample.patient))
    with (folder / "sheet.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("sample", "slide", "spots", "counts", "patient"), *rows])
    return folder / "sheet.csv"


def test_a_model_remembers_the_size_of_the_spots_it_was_trained_on(world, tmp_path):
    samples = read_sheet(renamed(world, tmp_path))
    train(samples, tmp_path / "run", tiny_config("training.epochs=1"), fold="P1", features=tmp_path / "features")
    model = tmp_path / "run" / "fold-P1.safetensors"
    assert load_card(model).spot_um == (200,)
    (measured, summed), marked = (world / "spots" / "P1.csv", tmp_path / "P1.csv"), []
    for spots in (measured, summed):
        data = predict(world / "slides" / "P1.tif", spots, model)
        marked.append([note for note in data.uns["genedml"]["notes"] if note.startswith(Mark.SPOT_SIZE)])
    assert [len(notes) for notes in marked] == [1, 0]
    assert "summed over 200 um, and these are of 112 um" in marked[0][0]


def test_a_model_of_measured_spots_remembers_none(run):
    assert load_card(next(run.glob("fold-*.safetensors"))).spot_um == ()
