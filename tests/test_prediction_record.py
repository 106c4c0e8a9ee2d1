"""The record in ``uns["genedml"]``: stored and read back alike, strict, and documented entry by entry."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hostile import small_prediction

from genedml.errors import GeneDMLError
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.formats import write_h5ad
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import LABEL, PredictionRecord, record_of, set_record

FORMATS_PAGE = Path(__file__).parents[1] / "examples" / "file_formats.md"


def test_a_record_is_read_from_a_file_as_it_was_written(tmp_path):
    data = small_prediction()
    record = replace(
        record_of(data),
        notes=(Note(Mark.SEEN, "1 of 1 models."), Note(None, "Genes: all.")),
        um_per_px=0.25,
        views_um_per_px="native",
        seen_in_training=0,
        qupath_origin_xy_px=(3, 4),
        trained_on=("HER2ST",),
        inputs={"slide": "0", "spots": "1"},
        deterministic=False,
    )
    set_record(data, record)
    write_h5ad(data, tmp_path / "out.h5ad")
    assert record_of(read_prediction(tmp_path / "out.h5ad")) == record


def test_a_file_holds_plain_values_and_nothing_that_does_not_apply():
    stored = small_prediction().uns["genedml"]
    assert stored["notes"] == ["a note"]
    assert stored["label"] == record_of(small_prediction()).label_settings.describe()
    assert not {"fold", "sample", "um_per_px", "grid", "inputs", "qupath_origin_xy_px"} & stored.keys()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"stain": "H&E"}, r"Unknown key stain\."),
        ({"method": None}, r"method = None: "),
        ({"um_per_px": np.float64(0)}, r"um_per_px = 0\.0: "),
        ({"um_per_px": np.inf}, r"um_per_px = inf: "),
        ({"notes": np.array([1.0, 2.0])}, r"notes\.0 = 1\.0: .*a note is a text"),
        ({"qupath_origin_xy_px": np.array([10**9, 0])}, r"qupath_origin_xy_px\.0 = 1000000000: "),
        ({"label": "ln(1 + count)"}, "label is not the one that label_settings describe"),
        ({"models": [""]}, "names neither fold and sample nor slide"),
        ({"fold": "1"}, "names neither fold and sample nor slide"),
    ],
)
def test_an_entry_that_is_not_sound_is_named(change, problem):
    data = small_prediction()
    data.uns["genedml"].update(change)
    with pytest.raises(GeneDMLError, match=problem):
        record_of(data)


@pytest.mark.parametrize("entry", ["genedml", "method", "notes", "label_settings"])
def test_an_entry_that_every_record_has_is_missed(entry):
    data = small_prediction()
    del data.uns["genedml"][entry]
    with pytest.raises(GeneDMLError, match=f"^{entry} is missing"):
        record_of(data)


def test_every_entry_is_explained_and_no_other():
    chapter = FORMATS_PAGE.read_text().partition('### `uns["genedml"]`')[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("| `")]
    entries = [entry for row in rows for entry in re.findall(r"`(\w+)`", row)]
    assert sorted(entries) == sorted([field.name for field in fields(PredictionRecord)] + [LABEL])
    for field in fields(PredictionRecord):
        assert f"\n        {field.name}: " in PredictionRecord.__doc__
