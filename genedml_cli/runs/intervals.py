"""Intervals of a run: what its models know of them, and those of its test sections. Letters: S spots, M genes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.checkpoint import Calibration, checkpoint_bytes, load_card, load_state
from genedml_cli.files.storage import atomic_write
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.prediction_file import NoLabelledSpotError, read_prediction
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.run_folder import model_file, model_files_in, read_record
from genedml_cli.prediction.intervals import TAILS, USUAL, add_interval, calibrate, interval_note, interval_of


@dataclass(frozen=True)
class TestedSection:
    """A test section of a finished fold.

    Args:
        file: its prediction.
        fold: that tests it.
        donor: whose tissue it is.
        residuals: label minus prediction, by spot and gene.
    """

    file: Path
    fold: str
    donor: str
    residuals: pd.DataFrame


def record_intervals(run: Path) -> None:
    """Write into every model of a run how far off the other folds were on their test sections, and into the files of
    its own test sections the interval that these give. A model of all sections has what all folds were off, as has the
    only fold of a run.

    The sections that a fold tests are to its model what a new slide will be: it was neither trained nor, unless
    ``select_on`` is ``test``, chosen on them. All folds are made alike, so that residuals of one are exchangeable with
    those of another as far as their patients are. The mean of several folds and a model of all sections come nearer to
    the labels than a fold does, so their intervals are rather too wide.
    """
    tested = list(_tested_sections(run))
    if not tested:
        return
    cards = {file: load_card(file) for file in model_files_in(run).values()}
    genes = list(dict.fromkeys(gene for card in cards.values() for gene in card.genes))
    for file, card in cards.items():
        of_fold = [section for section in tested if section.fold == card.fold]
        known = _of_genes(_calibrate(_without(tested, of_fold) or tested, genes), genes, card.genes)
        if repr(known) != repr(card.calibration):  # as text, because NaN does not equal itself
            with atomic_write(file) as temporary:
                temporary.write_bytes(checkpoint_bytes(replace(card, calibration=known), load_state(file)))
    for fold in dict.fromkeys(section.fold for section in tested):
        of_fold = [section for section in tested if section.fold == fold]
        _write_interval(of_fold, _without(tested, of_fold))


def _tested_sections(run: Path) -> Iterator[TestedSection]:
    donors = {sample["name"]: sample.get("donor") for sample in read_record(run)["samples"]}
    for file in sorted((run / "predictions").glob("*.h5ad")):
        with suppress(NoLabelledSpotError):  # evaluate says so
            data = read_prediction(file)
            record = record_of(data)
            if model_file(run, record.fold).exists():  # it comes last: without it the fold was interrupted
                donor = donors.get(record.sample) or record.patient
                yield TestedSection(file, record.fold, donor, pd.DataFrame(_residuals(data), columns=data.var_names))


def _residuals(data: anndata.AnnData) -> Float[np.ndarray, "S M"]:
    return np.asarray(data.layers["truth"], dtype=np.float64) - np.asarray(data.X, dtype=np.float64)


def _without(tested: Sequence[TestedSection], of_fold: Sequence[TestedSection]) -> list[TestedSection]:
    """The sections of other folds; of other donors alone, where there are any."""
    folds, donors = {section.fold for section in of_fold}, {section.donor for section in of_fold}
    others = [section for section in tested if section.fold not in folds]
    return [section for section in others if section.donor not in donors] or others


def _calibrate(tested: Sequence[TestedSection], genes: Sequence[str], tails: Sequence[float] = TAILS) -> Calibration:
    """By donor, or by section where all are of one donor."""
    donors = [section.donor for section in tested]
    residuals = [section.residuals for section in tested]
    if len({*donors}) > 1:
        return calibrate(residuals, donors, genes, "patients", tails)
    return calibrate(residuals, [section.file.stem for section in tested], genes, "sections", tails)


def _of_genes(calibration: Calibration, genes: Sequence[str], wanted: Sequence[str]) -> Calibration:
    place = pd.Index(genes).get_indexer(list(wanted))
    groups, lower, upper = calibration.groups, calibration.lower, calibration.upper
    return replace(
        calibration,
        groups=tuple(groups[at] for at in place),
        lower=tuple(lower[at] for at in place),
        upper=tuple(upper[at] for at in place),
    )


def _write_interval(of_fold: Sequence[TestedSection], others: Sequence[TestedSection]) -> None:
    """Put the interval that ``others`` give into the files of a fold's test sections, where it is not there yet."""
    if not others:
        return
    genes = list(of_fold[0].residuals)
    calibration = _calibrate(others, genes, [round((1 - USUAL) / 2, 9)])
    interval, note = interval_of([(genes, calibration)], genes, USUAL), interval_note([calibration], USUAL)
    for section in of_fold:
        data = read_prediction(section.file)
        before = data.layers.get("lower"), data.layers.get("upper"), record_of(data)
        add_interval(data, interval, note)
        alike = [_equal(was, data.layers[name]) for was, name in zip(before[:2], ("lower", "upper"), strict=True)]
        if not all(alike) or record_of(data) != before[2]:
            write(data, section.file)


def _equal(before: np.ndarray | None, now: np.ndarray) -> bool:
    return before is not None and np.array_equal(before, now, equal_nan=True)
