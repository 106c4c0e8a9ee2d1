"""Intervals around predictions: how often they hold the label, what a model keeps of them, what a file says."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hostile import small_card

from genedml.checkpoint import Calibration, checkpoint_bytes, fingerprint, load_card, load_state
from genedml.errors import GeneDMLError
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.evaluation.intervals import coverage
from genedml_cli.notes import Mark
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.prediction.intervals import (
    TAILS,
    calibrate,
    interval_note,
    interval_of,
    interval_of_cards,
    upper_quantiles,
)
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.intervals import record_intervals


def left_out(rng: np.random.Generator, groups: int, offset_sd: float, spots: int = 200) -> list[pd.DataFrame]:
    """Residuals of one gene of exchangeable groups: each has an offset of its own, and skewed noise."""
    offsets = rng.normal(0, offset_sd, groups)
    return [pd.DataFrame({"A": offset + rng.gamma(2, 0.5, spots)}) for offset in offsets]


@pytest.mark.parametrize(("groups", "offset_sd", "tolerance"), [(4, 0.0, 0.01), (8, 0.5, 0.02), (4, 0.5, 0.04)])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_an_interval_holds_what_it_says_in_a_group_to_come(groups, offset_sd, tolerance, level):
    rng, held = np.random.default_rng(0), []
    for _ in range(150):
        *calibrating, to_come = left_out(rng, groups + 1, offset_sd)
        names = [str(number) for number in range(groups)]
        interval = interval_of([(["A"], calibrate(calibrating, names, ["A"], "patients"))], ["A"], level)
        residual = to_come["A"].to_numpy()
        held.append(((interval.lower <= residual) & (residual <= interval.upper)).mean())
    assert np.mean(held) == pytest.approx(level, abs=tolerance)


def test_the_quantile_of_one_group_is_that_of_split_conformal_prediction():
    residuals = np.random.default_rng(1).permutation(99).astype(float)  # 0 to 98: n + 1 = 100
    assert upper_quantiles([residuals], [0.1, 0.05, 0.005]).tolist() == [89.0, 94.0, 98.0]
    # Two groups weigh the same, whichever has more spots; equal means are not spread. Over spots it would be 49.
    assert upper_quantiles([residuals, np.full(300, 49.0)], [0.1]).tolist() == [79.0]


def test_offsets_of_few_groups_are_spread_as_those_of_a_group_to_come():
    groups = [np.full(10, -1.0), np.full(10, 1.0)]
    assert upper_quantiles(groups, [0.1])[0] == pytest.approx(np.sqrt(3))
    assert np.isnan(upper_quantiles([], [0.1])).all()


def test_a_gene_that_some_folds_lack_is_calibrated_by_the_others():
    tables = [pd.DataFrame({"A": [0.0, 1.0], "B": [5.0, 6.0]}), pd.DataFrame({"A": [2.0, 3.0]})]
    known = calibrate(tables, ["p", "q"], ["A", "B", "C"], "patients")
    assert known.groups == (2, 1, 0)
    assert known.lower[1][0], known.upper[1][0] == (5.0, 6.0)
    interval = interval_of([(["A", "B", "C"], known)], ["C", "B"], 0.9)
    assert np.isnan(interval.lower[0])
    assert interval.upper[1] == 6.0


@pytest.mark.parametrize(("groups", "held"), [(2, 0.83), (3, 0.85), (8, 0.88)])
def test_intervals_of_few_patients_hold_fewer_labels_than_they_say_as_the_page_says(groups, held):
    """Offsets between patients as large as what varies within them; level .9."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(300):
        *calibrating, to_come = left_out(rng, groups + 1, 0.5**0.5)
        known = calibrate(calibrating, [str(number) for number in range(groups)], ["A"], "patients", [0.05])
        interval = interval_of([(["A"], known)], ["A"], 0.9)
        residual = to_come["A"].to_numpy()
        shares.append(((interval.lower <= residual) & (residual <= interval.upper)).mean())
    assert np.mean(shares) == pytest.approx(held, abs=0.02)


def test_few_patients_are_marked_where_no_quantile_of_so_few_is_finite():
    def note(groups: tuple[int, ...], level: float, of: str = "patients"):
        table = tuple((0.0,) for _ in groups)
        return interval_note([Calibration((0.05,), of, groups, table, table), None], level)

    assert note((2, 3), 0.9).mark is Mark.FEW_PATIENTS
    assert "on 2 to 3 left-out patients; with fewer than 9" in note((2, 3), 0.9).text
    assert note((8, 9), 0.9).mark is Mark.FEW_PATIENTS
    assert note((9, 0), 0.9) is None  # a gene of no group has no interval
    assert note((4, 4), 0.8) is None
    assert note((4, 4), 0.9, of="sections").mark is Mark.ONE_PATIENT
    assert "on 1 left-out section of one patient" in note((1, 1), 0.9, of="sections").text
    assert note((0,), 0.9) is None


def test_few_patients_stand_in_a_runs_files_its_scores_and_its_predictions(run, p1):
    of_file = record_of(read_prediction(run / "predictions" / "P1.h5ad")).notes
    predicted, narrow = (record_of(predict(**p1, model=run, interval=level)).notes for level in (0.9, 0.5))
    for notes in (of_file, predicted, evaluate(run).notes):
        assert [note.text[:42] for note in notes if note.mark is Mark.FEW_PATIENTS] == [
            "intervals are calibrated on 2 left-out pat"
        ]
    assert not any(note.mark is Mark.FEW_PATIENTS for note in narrow)


def test_coverage_is_the_share_of_labels_inside():
    truth = np.array([[1.0, 1.0], [2.0, 9.0], [3.0, 1.0], [4.0, 1.0]])
    data = AnnData(truth.copy(), layers={"truth": truth})
    assert coverage(data) is None
    data.layers["lower"], data.layers["upper"] = np.full((4, 2), 2.0), np.full((4, 2), 3.5)
    data.layers["lower"][:, 1] = data.layers["upper"][:, 1] = np.nan
    assert coverage(data)[0] == 0.5
    assert np.isnan(coverage(data)[1])


def test_the_test_sections_of_a_run_have_intervals_of_the_other_folds(run):
    files = {name: run / "predictions" / f"{name}.h5ad" for name in ("P1", "P2", "P3")}
    sections = {name: read_prediction(file) for name, file in files.items()}
    residual = {name: data.layers["truth"] - data.X for name, data in sections.items()}
    own, others = sections["P1"], [residual["P2"][:, 0], residual["P3"][:, 0]]
    upper = upper_quantiles([values.astype(np.float64) for values in others], [0.05])
    assert np.allclose(own.layers["upper"][:, 0] - own.X[:, 0], upper, atol=1e-4)
    assert record_of(own).interval == 0.9
    held = np.mean([coverage(data) for data in sections.values()])
    assert held == pytest.approx(0.9, abs=0.1)  # three sections of 42 spots
    before = {name: file.stat().st_mtime_ns for name, file in files.items()}
    record_intervals(run)
    assert {name: file.stat().st_mtime_ns for name, file in files.items()} == before


def test_a_prediction_has_intervals_of_all_folds_and_of_the_level_asked_for(run, p1):
    usual, wide = predict(**p1, model=run), predict(**p1, model=run, interval=0.98)
    cards = [load_card(run / f"fold-{name}.safetensors") for name in ("P1", "P2", "P3")]
    assert {card.calibration.of for card in cards} == {"patients"}
    assert {card.calibration.groups for card in cards} == {(2,) * 20}  # each without its own test section
    at = cards[0].calibration.tails.index(0.05)
    upper = [[card.calibration.upper[card.genes.index(gene)][at] for gene in usual.var_names] for card in cards]
    assert np.allclose(usual.layers["upper"], usual.X + np.mean(upper, axis=0), atol=1e-5)
    assert (usual.layers["lower"] < usual.layers["upper"]).all()
    assert (wide.layers["lower"] <= usual.layers["lower"]).all()
    assert (wide.layers["upper"] >= usual.layers["upper"]).all()
    assert (record_of(usual).interval, record_of(wide).interval) == (0.9, 0.98)
    none = predict(**p1, model=run, interval=0)
    assert "lower" not in none.layers
    assert record_of(none).interval is None


def test_a_model_of_before_intervals_predicts_and_says_that_it_knows_none(run, p1, tmp_path):
    file, old = run / "fold-P1.safetensors", tmp_path / "old.safetensors"
    card, state = load_card(file), load_state(file)
    old.write_bytes(checkpoint_bytes(replace(card, calibration=None, label_sd=()), state))
    data = predict(**p1, model=old)
    assert not {"lower", "upper", "z"} & {*data.layers}
    with pytest.raises(GeneDMLError, match="knows no intervals"):
        predict(**p1, model=old, interval=0.9, out=tmp_path / "out.h5ad")
    with pytest.raises(GeneDMLError, match=r"hold 50% to 99% of the labels, not 0\.3"):
        predict(**p1, model=file, interval=0.3)
    old.write_bytes(checkpoint_bytes(replace(card, calibration=None), state))
    assert fingerprint(old) == fingerprint(file)


def test_intervals_of_one_patient_are_marked(run, p1, tmp_path):
    shutil.copy(run / "fold-P1.safetensors", tmp_path)
    file = tmp_path / "fold-P1.safetensors"
    card = load_card(file)
    calibration = replace(card.calibration, of="sections")
    file.write_bytes(checkpoint_bytes(replace(card, calibration=calibration), load_state(file)))
    assert any(str(note).startswith("ONE PATIENT: intervals") for note in record_of(predict(**p1, model=file)).notes)
    assert not any("intervals" in str(note) for note in record_of(predict(**p1, model=file, interval=0)).notes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tails": (0.1, 0.05)}, "the tails of its intervals"),
        ({"groups": (1,)}, "intervals for another number"),
        ({"lower": ((0.0,),) * 3}, "intervals for another number"),
    ],
)
def test_a_card_whose_intervals_are_not_sound_is_refused(change, problem, tmp_path):
    tables = [pd.DataFrame({gene: [0.0, 1.0] for gene in small_card().genes})]
    known = calibrate(tables, ["p"], small_card().genes, "patients", TAILS[:2])
    card = replace(small_card(), calibration=replace(known, **change))
    file = tmp_path / "card.safetensors"
    file.write_bytes(checkpoint_bytes(card, {}))
    with pytest.raises(GeneDMLError, match=problem):
        load_card(file)


def test_models_without_intervals_get_none_unless_asked():
    assert interval_of_cards([small_card()], ["GNAS"], None) is None
    with pytest.raises(GeneDMLError, match="Leave out --interval"):
        interval_of_cards([small_card()], ["GNAS"], 0.9)
