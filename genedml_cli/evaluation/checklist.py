"""What a trustworthy table of scores contains (METHOD section 10), and which of it one contains, told from its data.

Each function below tells of one point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import anndata
import numpy as np
import pandas as pd

from genedml.metrics import nanmean
from genedml_cli.console import count
from genedml_cli.evaluation.null import FEWEST_DRAWS, LEAST_OVERLAP, fewest_found
from genedml_cli.evaluation.points import Point, State
from genedml_cli.evaluation.scores import ABOVE_NULL, DEPTH, Evaluation
from genedml_cli.notes import Mark
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of
from genedml_cli.outputs.reference_layers import REFERENCES

EARLIER = "predictions of earlier versions do not hold {}: train again."
"""Why what a run keeps today is not known of it."""

Result = tuple[State, str]


@dataclass(frozen=True)
class Evidence:
    """What the checklist is told from.

    Args:
        evaluation: the scores.
        sections: that they are of.
        donors: of all sections of the run; none where they are not known.
        no_ceiling: why the ceiling could not be computed, if that was tried.
        no_null: how to have the null, if it was not computed.
    """

    evaluation: Evaluation
    sections: Sequence[anndata.AnnData]
    donors: frozenset[str] = frozenset()
    no_ceiling: str = ""
    no_null: str = ""

    @property
    def records(self) -> list[PredictionRecord]:
        """How each of the sections was predicted."""
        return [record_of(section) for section in self.sections]

    @cached_property
    def means(self) -> pd.Series:
        """Mean over folds of every score of the network."""
        return self.evaluation.summary().loc[self.evaluation.method].xs("mean", level=1)

    def mean(self, key: str) -> float:
        """Mean of a score of the network over folds."""
        return float(self.means[key])

    def marked(self, mark: Mark) -> str:
        """What the notes with a mark say, as sentences; empty where there is none."""
        texts = dict.fromkeys(note.text for note in self.evaluation.notes if note.mark is mark)
        return " ".join(text[:1].upper() + text[1:] for text in texts)


def checklist(evidence: Evidence) -> tuple[Point, ...]:
    """Every point of METHOD section 10, in its order: whether the table has it, with its figures, or why not."""
    return tuple(Point(name, *tell(evidence)) for name, tell in POINTS.items())


def _patients(evidence: Evidence) -> Result:
    record, leaking = evidence.records[0], evidence.marked(Mark.LEAKING)
    if not record.of_run:
        if record.seen_in_training:
            return State.NOT_DONE, evidence.marked(Mark.SEEN)
        return State.NOT_POSSIBLE, (
            "no model was trained on this slide; the prediction does not say whether one was on others of its patient."
        )
    if leaking and len(evidence.donors) == 1:
        return State.NOT_POSSIBLE, f"there is one patient, so sections are left out in turn. {leaking}"
    if leaking:
        return State.NOT_DONE, leaking
    of = f" of {count(len(evidence.donors), 'donor')}" if evidence.donors else ""
    return State.DONE, f"no patient is on both sides of a fold{of}. {evidence.marked(Mark.SAME_DONOR)}".strip()


def _panel(evidence: Evidence) -> Result:
    if panel := evidence.marked(Mark.PANEL):
        return State.NOT_DONE, panel
    if np.isnan(evidence.mean("pcc_h_held_out")):
        return State.NOT_DONE, "nothing was held out inside the training to choose the genes of PCC(H)."
    return State.DONE, "panel and PCC(H) held out are of genes chosen inside the training side."


def _references(evidence: Evidence) -> Result:
    rows = {score.method for score in evidence.evaluation.scores}
    missing = [reference for reference in REFERENCES.values() if reference.title not in rows]
    if not missing:
        return State.DONE, f"{', '.join(reference.title for reference in REFERENCES.values())}."
    named = ", ".join(reference.title for reference in missing)
    if all(reference.encoder for reference in missing):
        return State.NOT_POSSIBLE, f"no {named}: it needs the encoder {missing[0].encoder}."
    return State.NOT_DONE, f"no {named}: {EARLIER.format('them')}"


def _depth(evidence: Evidence) -> Result:
    settings = evidence.records[0].label_settings
    with_depth = nanmean([nanmean(np.abs(score.pcc)) for score in evidence.evaluation.scores if score.method == DEPTH])
    rises = f"mean |PCC| of label and depth {with_depth:.2f}"
    if settings.transform != "log":
        return State.DONE, f"PCC, PCC given depth, and a label of residuals given depth ({rises})."
    return State.NOT_DONE, (
        f"the label rises with depth ({rises}), so PCC counts depth too; PCC given depth does not. A label without it: "
        "train --target pearson."
    )


def _unsmoothed(evidence: Evidence) -> Result:
    score = evidence.mean("pcc_unsmoothed")
    if np.isnan(score):
        return State.NOT_DONE, EARLIER.format("labels of each spot alone")
    if not evidence.records[0].label_settings.smooth:
        return State.DONE, "the label is not smoothed."
    return State.DONE, f"PCC {evidence.mean('pcc_a'):.3f}, with unsmoothed labels {score:.3f}."


def _spatial(evidence: Evidence) -> Result:
    thirds = [evidence.mean(f"pcc_moran_{third}") for third in ("low", "middle", "high")]
    if np.isnan(thirds).all():
        genes = len(evidence.evaluation.scores[0].genes)
        if "morans_i" in evidence.sections[0].var:
            return State.NOT_POSSIBLE, f"too few of {count(genes, 'gene')} have a Moran's I on the training sections."
        return State.NOT_DONE, EARLIER.format("Moran's I")
    low, middle, high = (f"{score:.3f}" for score in thirds)
    return State.DONE, (
        f"PCC {low} of the third of the genes with the lowest Moran's I, {middle} of the middle third, {high} of the "
        f"highest; {evidence.mean('pcc_spatial'):.3f} of the 50 most spatial genes."
    )


def _null(evidence: Evidence) -> Result:
    if evidence.no_null:
        return State.NOT_DONE, evidence.no_null
    own = [score for score in evidence.evaluation.scores if score.method == evidence.evaluation.method]
    drawn = [score.draws for score in own if score.draws]
    if not drawn:
        return State.NOT_POSSIBLE, (
            f"no section allows {FEWEST_DRAWS} moves that cover {LEAST_OVERLAP:.0%} of its spots, as are needed."
        )
    shares = f"{evidence.mean('above_null'):.0%} of the genes are above it, {evidence.mean(ABOVE_NULL):.0%} given depth"
    lacking = f", none for {count(len(own) - len(drawn), 'fold')} of small sections" if len(drawn) < len(own) else ""
    fewest = max(fewest_found(score.draws, len(score.genes)) for score in own if score.draws)
    limit = f": {fewest} genes must be above it for any to be found" if fewest > 1 else ""
    return State.DONE, f"{shares}; {min(drawn)} draws or more a fold{lacking}{limit}."


def _ceiling(evidence: Evidence) -> Result:
    if evidence.evaluation.split_halves:
        return State.DONE, f"the score is {evidence.mean('share_of_ceiling'):.0%} of what is attainable."
    if evidence.no_ceiling:
        return State.NOT_POSSIBLE, evidence.no_ceiling
    return State.NOT_DONE, "genedml evaluate with --full computes it from the counts."


def _intervals(evidence: Evidence) -> Result:
    held, asked = evidence.mean("coverage"), evidence.records[0].interval
    if np.isnan(held) or asked is None:
        return State.NOT_DONE, "these predictions have no intervals."
    figures = f"{held:.1%} of the labels lie in intervals for {asked:.0%}"
    if of_few := evidence.marked(Mark.ONE_PATIENT) or evidence.marked(Mark.FEW_PATIENTS):
        return State.NOT_POSSIBLE, f"{of_few} On these sections {figures}."
    if len(evidence.donors) == 1:
        return State.NOT_POSSIBLE, (
            f"intervals are calibrated on sections of the same patient. On these sections {figures}."
        )
    return State.DONE, f"{figures}."


def _downstream(evidence: Evidence) -> Result:
    of_run = evidence.records[0].of_run
    files = "RUN/predictions/SECTION.h5ad" if of_run else "FILE.h5ad --truth COUNTS"
    return State.NOT_DONE, f"a command of its own: genedml score {files} --gene-sets SETS.gmt"


def _over_patients(evidence: Evidence) -> Result:
    folds = len({score.fold for score in evidence.evaluation.scores})
    patients = {record.patient for record in evidence.records}
    if not evidence.records[0].of_run:
        return State.NOT_POSSIBLE, "it is one section, so there is no spread over patients."
    if len(patients) < 2 or folds < 2:
        return State.NOT_POSSIBLE, f"{count(folds, 'fold')} of {count(len(patients), 'patient')} tested."
    beside = "Two runs fold by fold: genedml evaluate RUN1 RUN2"
    return State.DONE, f"mean and sd over {folds} folds of {len(patients)} patients. {beside}"


def _variance(evidence: Evidence) -> Result:
    ratio = evidence.mean("variance_ratio")
    if np.isnan(ratio):
        return State.NOT_POSSIBLE, "no gene varies."
    return State.DONE, f"{ratio:.2f} of the truth's variance, for the median gene."


POINTS = {
    "whole patients left out": _patients,
    "genes chosen inside the training": _panel,
    "rows of references": _references,
    "scores without depth": _depth,
    "unsmoothed truth": _unsmoothed,
    "spatially variable genes": _spatial,
    "null of moved maps": _null,
    "ceiling of the labels": _ceiling,
    "coverage of intervals": _intervals,
    "gene sets and regions": _downstream,
    "errors over patients": _over_patients,
    "variance of the prediction": _variance,
}
"""The twelve points by name."""
