"""Intervals around predicted labels, by how far off predictions of left-out sections were.

Letters: S spots, M genes, T tails, N spots of a group.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.checkpoint import Calibration, ModelCard
from genedml.errors import GeneDMLError
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.prediction_record import record_of, set_record

USUAL = 0.9
"""Share of the labels that an interval is to hold, where nobody asks for another."""
TAILS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25)
"""What a model keeps: enough for intervals of 50 to 99 %."""
DECIMALS = 4


@dataclass(frozen=True)
class Interval:
    """What is added to the prediction of every gene for both ends of the interval that holds ``level`` of its labels.

    NaN for a gene that no section was tested on.
    """

    level: float
    lower: Float[np.ndarray, " M"]
    upper: Float[np.ndarray, " M"]


def calibrate(
    tested: Sequence[pd.DataFrame],
    groups: Sequence[str],
    genes: Sequence[str],
    of: Literal["patients", "sections"],
    tails: Sequence[float] = TAILS,
) -> Calibration:
    """Quantiles of the residuals of left-out sections, for every gene over the sections that have it.

    Args:
        tested: of every section, label minus prediction, spots x genes: panels may differ between folds.
        groups: what was left out in turn, by section: its patient, or the section itself.
        genes: to calibrate.
        of: ``patients`` or ``sections``, whichever ``groups`` are.
        tails: shares of the labels below and above.
    """
    names = list(dict.fromkeys(groups))
    values = [{gene: table[gene].to_numpy(np.float64) for gene in table} for table in tested]
    lower, upper, counted = [], [], []
    for gene in genes:
        having = [
            [table[gene] for table, group in zip(values, groups, strict=True) if group == name and gene in table]
            for name in names
        ]
        residuals = [np.concatenate(parts) for parts in having if parts]
        counted.append(len(residuals))
        upper.append(tuple(upper_quantiles(residuals, tails).round(DECIMALS).tolist()))
        lower.append(tuple((0 - upper_quantiles([-group for group in residuals], tails)).round(DECIMALS).tolist()))
    return Calibration(tuple(tails), of, tuple(counted), tuple(lower), tuple(upper))


def upper_quantiles(groups: Sequence[Float[np.ndarray, " _"]], tails: Sequence[float]) -> Float[np.ndarray, " T"]:
    """What a residual of a group to come exceeds with the probability of each tail; NaN without groups.

    Split conformal prediction (Lei et al. 2018, J. Am. Stat. Assoc. 113:1094): the quantile ``(1 - tail) (n + 1) / n``
    of n held-out residuals. What is exchangeable are groups, not spots, so the quantile is of the mean of the groups'
    distributions (Dunn, Wasserman and Ramdas 2023, J. Am. Stat. Assoc. 118:2491, "pooling CDFs"). A section has an
    offset of its own. With a variance v between the offsets, that of a group to come lies about the mean of G groups
    with variance v (1 + 1/G), while theirs do with v (1 - 1/G): so they are spread by sqrt((G + 1) / (G - 1)), as far
    as there are two groups. On HER2ST C2-C6 that moves the coverage of 90 % intervals from .87 to .89.

    This holds on average over groups to come, as far as their offsets are normal and their variance is known; of few
    groups it is not, and the coverage falls short: :func:`interval_note` says so.
    """
    if not groups:
        return np.full(len(tails), np.nan)
    number, means = len(groups), np.array([group.mean() for group in groups])
    spread = np.sqrt((number + 1) / (number - 1)) - 1 if number > 1 else 0.0
    moved = [group + spread * (mean - means.mean()) for group, mean in zip(groups, means, strict=True)]
    residuals = np.concatenate(moved)
    share = np.concatenate([np.full(len(group), 1 / (number * len(group))) for group in groups])
    order = residuals.argsort(kind="stable")
    wanted = (1 - np.asarray(tails)) * (len(residuals) + 1) / len(residuals)
    place = np.searchsorted(share[order].cumsum(), wanted - 1e-9)  # rounding of the sum is no residual more
    return residuals[order][np.minimum(place, len(residuals) - 1)]


def interval_of(
    calibrations: Sequence[tuple[Sequence[str], Calibration]], genes: Sequence[str], level: float
) -> Interval:
    """The interval that is to hold ``level`` of the labels, in the order of ``genes``.

    Between two tails that are kept its ends are on the straight line, which lies outside of thin tails.

    Args:
        calibrations: of models that predict together, with their genes; of one run they say the same of a gene.
        genes: in order.
        level: 0 to 1.

    Raises:
        GeneDMLError: another level than those that are kept.
    """
    tail, ends = round((1 - level) / 2, 9), []
    for side in ("lower", "upper"):
        each = []
        for of, calibration in calibrations:
            tails = calibration.tails
            if not tails[0] <= tail <= tails[-1]:
                least, most = 1 - 2 * tails[-1], 1 - 2 * tails[0]
                raise GeneDMLError(
                    f"The model knows intervals that hold {least:.0%} to {most:.0%} of the labels, not {level:g}. Give "
                    f"--interval between {least:g} and {most:g}, or 0 for none."
                )
            quantiles = [np.interp(tail, tails, values) for values in getattr(calibration, side)]
            each.append(pd.Series(quantiles, index=list(of)).loc[list(genes)].to_numpy())
        ends.append(np.mean(each, axis=0))
    return Interval(level, *ends)


def interval_of_cards(cards: Sequence[ModelCard], genes: Sequence[str], level: float | None) -> Interval | None:
    """The interval that predictions of ``genes`` by some models get, if any.

    Args:
        cards: of the models.
        genes: that they predict.
        level: that is asked for; None for :data:`USUAL` if the models know intervals, 0 for none.

    Raises:
        GeneDMLError: the models know none, though one is asked for, or not that one.
    """
    known = [(card.genes, card.calibration) for card in cards if card.calibration is not None]
    lacking = len(known) < len(cards)
    if level == 0 or (level is None and lacking):
        return None
    if lacking:
        raise GeneDMLError(
            "The model knows no intervals: an earlier version made it, or no fold of its run was tested. Leave out "
            "--interval, or train the folds of its run with this version."
        )
    return interval_of(known, genes, USUAL if level is None else level)


def add_interval(data: anndata.AnnData, interval: Interval, note: Note | None = None) -> None:
    """``layers["lower"]`` and ``layers["upper"]``: the ends of the interval of every spot and gene; ``note`` is said
    with them.

    It is of the one label that would be measured at a spot, with the offset of a new section in it. What it promises is
    over sections like those left out, not within each of them, and of no mean over spots.
    """
    for name, end in (("lower", interval.lower), ("upper", interval.upper)):
        data.layers[name] = (np.asarray(data.X, dtype=np.float64) + end).astype(np.float32)
    record = record_of(data)
    others = [other for other in record.notes if other.mark not in (Mark.ONE_PATIENT, Mark.FEW_PATIENTS)]
    notes = (*others, *filter(None, [note]))
    set_record(data, replace(record, interval=interval.level, notes=notes))


def interval_note(calibrations: Iterable[Calibration | None], level: float) -> Note | None:
    """What must be said of intervals that too few patients have tested, or only one.

    The finite-sample quantile of split conformal prediction is infinite where ``groups + 1 < 1 / (1 - level)``: then
    no width is promised to hold ``level`` of the labels of a patient to come.
    """
    known = [calibration for calibration in calibrations if calibration is not None]
    tested = sorted({groups for calibration in known for groups in calibration.groups if groups})
    if not tested:
        return None
    number = " to ".join(str(groups) for groups in dict.fromkeys([tested[0], tested[-1]]))
    several = "" if number == "1" else "s"
    if {calibration.of for calibration in known} == {"sections"}:
        text = f"{number} left-out section{several} of one patient, so of another patient they hold fewer labels."
        return Note(Mark.ONE_PATIENT, f"intervals are calibrated on {text}")
    needed = math.ceil(round(1 / (1 - level), 6)) - 1
    if tested[0] >= needed:
        return None
    text = (
        f"intervals are calibrated on {number} left-out patient{several}; with fewer than {needed} nothing warrants "
        f"that they hold {level:.0%} of a next one's labels: they are estimates, and may hold fewer."
    )
    return Note(Mark.FEW_PATIENTS, text)
