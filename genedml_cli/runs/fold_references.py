"""The references of a fold, ridge regression and novelty: they depend on its sections alone, not on the network."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from genedml.errors import reading
from genedml_cli.features.section_data import SectionData, left_out_together
from genedml_cli.files.locks import exclusive
from genedml_cli.files.provenance import VERSION
from genedml_cli.files.storage import atomic_write
from genedml_cli.references.novelty import NoveltyModel, fit_novelty, fit_novelty_to_all
from genedml_cli.references.ridge import RidgeModel, fit_ridge
from genedml_cli.runs.fold_plan import FoldPlan
from genedml_cli.text import json_text

RIDGE, NOVELTY = "ridge.", "novelty."
"""What the names of their tables begin with in a shared file."""


@dataclass(frozen=True)
class References:
    """Both; ``novelty`` is None where nothing is held out to measure it on."""

    ridge: RidgeModel
    novelty: NoveltyModel | None


def shared_file(folder: Path, plan: FoldPlan) -> Path:
    """Where the runs of a grid keep the references of folds that have the same sections, features, labels and panel."""
    fold, sections = plan.fold, plan.sections
    parts = {
        "sides": [[(s.name, s.donor) for s in side] for side in (fold.train, fold.validation, fold.test)],
        "sections": {name: (section.features.name, section.counts_sha256) for name, section in sections.items()},
        "labels": asdict(plan.config.labels),
        "genes": plan.genes,
        "made by": [VERSION, version("scikit-learn"), version("numpy")],
    }
    return folder / f"{fold.name}.{hashlib.sha256(json_text(parts).encode()).hexdigest()[:12]}.npz"


def find_references(fitted: Sequence[SectionData], test: Sequence[SectionData], file: Path | None) -> References:
    """The references of a fold: read from ``file`` if another run left them there, else fitted and, if it is given,
    kept there.
    """
    if file is None:
        return _fit(fitted, test)
    with exclusive(file):  # runs of a grid that come to it at the same time wait for the first
        if file.exists():
            return _load(file)
        references = _fit(fitted, test)
        _save(references, file)
        return references


def _fit(fitted: Sequence[SectionData], test: Sequence[SectionData]) -> References:
    """Novelty is in the measure of the sections tested; where there are none, of each of those fitted, without it."""
    features = [data.features for data in fitted]
    if test:
        novelty: NoveltyModel | None = fit_novelty(features, [data.features for data in test])
    else:
        novelty = fit_novelty_to_all(features, left_out_together(fitted))
    return References(fit_ridge(fitted), novelty)


def _save(references: References, file: Path) -> None:
    tables = {f"{RIDGE}{name}": table for name, table in vars(references.ridge).items()}
    if references.novelty is not None:
        tables |= {f"{NOVELTY}{name}": table for name, table in vars(references.novelty).items()}
    with atomic_write(file) as temporary:
        np.savez(temporary, **tables)


def _load(file: Path) -> References:
    with reading(f"The references {file}", "Remove it and run again."), np.load(file) as stored:
        tables = dict(stored)
        ridge, novelty = (
            {name.removeprefix(kind): table for name, table in tables.items() if name.startswith(kind)}
            for kind in (RIDGE, NOVELTY)
        )
        alpha = float(ridge.pop("alpha"))
        return References(RidgeModel(**ridge, alpha=alpha), NoveltyModel(**novelty) if novelty else None)
