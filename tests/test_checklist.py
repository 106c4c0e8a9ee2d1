"""The checklist under a table: each point is told from what the table is made of."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from test_fold_scores import section
from test_null import square

from genedml.config import TARGETS
from genedml_cli.evaluation.checklist import POINTS, Evidence, checklist
from genedml_cli.evaluation.fold_scores import score_fold
from genedml_cli.evaluation.null import moves_of
from genedml_cli.evaluation.points import Point, State, lines_of, merged
from genedml_cli.evaluation.scores import SPLIT_HALVES, Evaluation
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of, set_record

DONE, NOT_DONE, NOT_POSSIBLE = State.DONE, State.NOT_DONE, State.NOT_POSSIBLE


def run_section(patient: str, seed: int, **of_record: object) -> anndata.AnnData:
    """A test section of a run as it is written today, with all references."""
    data = section(square(9, 8), seed)
    for layer in ("ridge_own_tile", "nuclei_alone", "place_alone"):
        data.layers[layer] = data.layers["ridge"]
    data.var["held_out_pcc"] = 0.5
    values = {"genedml": "0", "method": "gene-dml", "label_settings": TARGETS["paper"], "notes": (), "interval": 0.9}
    record = PredictionRecord(**values | {"fold": patient, "sample": patient, "patient": patient} | of_record)
    set_record(data, record)
    return data


@pytest.fixture(scope="module")
def sections() -> list[anndata.AnnData]:
    return [run_section("A", 0), run_section("B", 1)]


def evidence(sections: list[anndata.AnnData], *notes: Note, **more: object) -> Evidence:
    records = [record_of(data) for data in sections]
    scores = [
        score
        for data, record in zip(sections, records, strict=True)
        for score in score_fold(record.fold, [data], "Gene-DML", full=True)
    ]
    donors = frozenset(record.patient for record in records)
    return Evidence(Evaluation("", tuple(scores), notes, Path()), sections, **{"donors": donors} | more)


def points(*given: object, **more: object) -> dict[str, Point]:
    return {point.name: point for point in checklist(evidence(*given, **more))}


def test_a_table_of_today_has_all_but_a_label_without_depth_a_ceiling_and_gene_sets(sections):
    found = points(sections)
    assert list(found) == list(POINTS)
    assert len(found) == 12
    assert {name for name, point in found.items() if point.state is not DONE} == {
        "scores without depth",
        "ceiling of the labels",
        "gene sets and regions",
    }
    draws = len(moves_of(square(9, 8)))
    assert found["null of moved maps"].why.startswith(
        f"100% of the genes are above it, 100% given depth; {draws} draws"
    )
    assert found["errors over patients"].why.startswith("mean and sd over 2 folds of 2 patients")


def test_a_label_of_residuals_is_one_without_depth():
    data = [run_section(patient, 0, label_settings=TARGETS["pearson"]) for patient in "AB"]
    assert points(data)["scores without depth"].state is DONE


def test_a_patient_on_both_sides_is_not_done_and_of_one_patient_not_possible(sections):
    leaking = Note(Mark.LEAKING, "a patient is on both sides.")
    assert points(sections, leaking)["whole patients left out"] == Point(
        "whole patients left out", NOT_DONE, "A patient is on both sides."
    )
    alone = points(sections, leaking, donors=frozenset({"A"}))
    assert alone["whole patients left out"].state is NOT_POSSIBLE
    assert alone["coverage of intervals"].state is NOT_POSSIBLE
    assert points(sections[:1])["errors over patients"].state is NOT_POSSIBLE


def test_genes_that_were_chosen_with_test_sections_in_view_are_not_done(sections):
    said = points(sections, Note(Mark.PANEL, "its genes were chosen by the counts of all sections."))
    assert said["genes chosen inside the training"].state is NOT_DONE
    data = [data.copy() for data in sections]
    for one in data:
        one.var["held_out_pcc"] = np.nan
    assert points(data)["genes chosen inside the training"].state is NOT_DONE


def test_what_earlier_versions_did_not_keep_is_not_done_and_says_so(sections):
    data = [data.copy() for data in sections]
    for one in data:
        del one.layers["truth_unsmoothed"], one.layers["lower"], one.layers["ridge_own_tile"], one.var["morans_i"]
    found = points(data)
    for name in ("unsmoothed truth", "spatially variable genes", "rows of references"):
        assert found[name].state is NOT_DONE
        assert "train again" in found[name].why
    assert "ridge own tile" in found["rows of references"].why
    assert found["coverage of intervals"].state is NOT_DONE


def test_intervals_of_few_patients_say_so_before_their_figures(sections):
    few = Note(Mark.FEW_PATIENTS, "intervals are calibrated on 2 left-out patients.")
    point = points(sections, few)["coverage of intervals"]
    assert point.state is NOT_POSSIBLE
    assert point.why.startswith("Intervals are calibrated on 2 left-out patients. On these sections ")


def test_a_row_that_needs_another_encoder_is_not_possible(sections):
    data = [data.copy() for data in sections]
    for one in data:
        del one.layers["nuclei_alone"]
    assert points(data)["rows of references"] == Point(
        "rows of references", NOT_POSSIBLE, "no nuclei alone: it needs the encoder stain-texture."
    )


def test_too_few_spots_for_a_null_are_counted():
    data = section(square(3, 3), 0)
    set_record(data, record_of(run_section("A", 0)))
    point = points([data])["null of moved maps"]
    assert point.state is NOT_POSSIBLE
    assert "99 moves" in point.why
    some = points([data, run_section("B", 1)])["null of moved maps"]
    assert some.state is DONE
    assert "none for 1 fold of small sections" in some.why


def test_a_ceiling_is_done_not_done_or_not_possible(sections):
    told = evidence(sections)
    halves = tuple(replace(score, method=SPLIT_HALVES) for score in told.evaluation.scores[:1])
    done = replace(told, evaluation=replace(told.evaluation, split_halves=halves))
    states = [checklist(one)[7].state for one in (done, told, replace(told, no_ceiling="no counts"))]
    assert states == [DONE, NOT_DONE, NOT_POSSIBLE]


def test_every_point_has_a_line_with_its_figures_or_why_it_is_not_there():
    first, second = Point("a", DONE, "1 of 1."), Point("b", NOT_DONE, "because.")
    assert lines_of([first, second]) == ["Checklist, a: done: 1 of 1.", "Checklist, b: not done: because."]
    assert lines_of([]) == []


def test_of_several_tables_every_point_is_told_as_the_worst_tells_it():
    one = (Point("a", DONE, "same."), Point("b", NOT_DONE, "why."), Point("c", DONE, "2 of 2."))
    two = (Point("a", DONE, "same."), Point("b", NOT_POSSIBLE, "never."), Point("c", DONE, "3 of 3."))
    points = merged({"one": one, "two": two})
    assert [(point.state, point.why) for point in points] == [
        (DONE, "same."),
        (NOT_POSSIBLE, "two: never."),
        (DONE, "one: 2 of 2."),
    ]
    assert merged({"one": one, "two": ()}) == ()


def test_every_point_is_named_on_the_page():
    page = " ".join((Path(__file__).parents[1] / "examples" / "scores.md").read_text().split())
    assert all(name in page for name in POINTS)
