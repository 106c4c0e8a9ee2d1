"""Scores of gene sets, as a table on the terminal."""

import math

from genedml_cli import console
from genedml_cli.evaluation.gene_sets import SetScores
from genedml_cli.notes import marks_of


def show_set_scores(scores: SetScores) -> None:
    """A row a set, how regions agree, which sets are left out, and what must be said with it."""
    methods = list(scores.pcc)
    rows = [
        [name, f"{found}/{of}", *(_number(scores.pcc[method][name]) for method in methods)]
        for name, (found, of) in scores.genes.items()
    ]
    console.table(scores.prediction.stem, ["set", "genes", *(f"PCC {method}" for method in methods)], rows)
    regions = f"Regions: {scores.spots['region'].nunique()}"
    agreement = ", ".join(f"{method} {_number(value)}" for method, value in scores.ari.items())
    console.say(f"{regions}; ARI with those of the truth: {agreement}." if agreement else f"{regions}.")
    for name, why in scores.left_out.items():
        console.say(f"Left out: {name}, {why}.")
    if marks_of(scores.notes):
        console.say(marks_of(scores.notes))
    console.say(f"Every spot: {scores.written}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
