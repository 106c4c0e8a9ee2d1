"""The references of a fold, linear ones and novelty: they depend on its sections, not on the network."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from genedml.errors import reading
from genedml.ridge import RidgeModel
from genedml_cli.features.section_data import SectionData, left_out_together
from genedml_cli.files.locks import exclusive
from genedml_cli.files.provenance import VERSION
from genedml_cli.files.storage import atomic_write
from genedml_cli.references.linear import VECTORS, LinearReferences, fit_linear
from genedml_cli.references.novelty import NoveltyModel, fit_novelty, fit_novelty_to_all
from genedml_cli.runs.fold_plan import FoldPlan
from genedml_cli.text import json_text
from genedml_cli.training.loop import learnt_from

NOVELTY = "novelty"
"""What the names of its tables begin with in a shared file; those of a linear reference begin with its name."""


@dataclass(frozen=True)
class References:
    """Both; ``novelty`` is None where nothing is held out to measure it on."""

    linear: LinearReferences
    novelty: NoveltyModel | None


def shared_file(folder: Path, plan: FoldPlan) -> Path:
    """Where the runs of a grid keep the references of folds that have the same sections, features, labels and panel.

    Folds that are fitted on other sections of the same sides, as one is with ``training.refit``, have other ones.
    """
    fold, sections = plan.fold, plan.sections
    parts = {
        "sides": [[(s.name, s.donor) for s in side] for side in (fold.train, fold.validation, fold.test)],
        "sections": {name: (section.features.name, section.counts_sha256) for name, section in sections.items()},
        "learnt": [sample.name for sample in learnt_from(fold.train, fold.validation, plan.config.training)],
        "labels": asdict(plan.config.labels),
        "genes": plan.genes,
        "made by": [VERSION, version("torch"), version("numpy")],
    }
    return folder / f"{fold.name}.{hashlib.sha256(json_text(parts).encode()).hexdigest()[:12]}.npz"


def find_references(
    learnt: Sequence[SectionData],
    seen: Sequence[SectionData],
    test: Sequence[SectionData],
    smooth: bool,
    file: Path | None,
) -> References:
    """The references of a fold: read from ``file`` if another run left them there, else fitted and, if it is given,
    kept there.

    Args:
        learnt: what linear references are fitted on, see :func:`genedml_cli.training.loop.learnt_from`.
        seen: sections that are familiar: trained on, or held out to choose the epoch.
        test: sections in whose measure novelty is.
        smooth: whether labels are means over array neighbours.
        file: of the runs of a grid; None for one run.
    """
    if file is None:
        return _fit(learnt, seen, test, smooth)
    with exclusive(file):  # runs of a grid that come to it at the same time wait for the first
        if file.exists():
            return _load(file)
        references = _fit(learnt, seen, test, smooth)
        _save(references, file)
        return references


def _fit(
    learnt: Sequence[SectionData], seen: Sequence[SectionData], test: Sequence[SectionData], smooth: bool
) -> References:
    """Novelty is in the measure of the sections tested; where there are none, of each of those seen, without it."""
    features = [data.features for data in seen]
    if test:
        novelty: NoveltyModel | None = fit_novelty(features, [data.features for data in test])
    else:
        novelty = fit_novelty_to_all(features, left_out_together(seen))
    return References(fit_linear(learnt, smooth), novelty)


def _save(references: References, file: Path) -> None:
    models = {**references.linear} | ({} if references.novelty is None else {NOVELTY: references.novelty})
    tables = {f"{name}.{field}": table for name, model in models.items() for field, table in vars(model).items()}
    with atomic_write(file) as temporary:
        np.savez(temporary, **tables)


def _load(file: Path) -> References:
    with reading(f"The references {file}", "Remove it and run again."), np.load(file) as stored:
        models: dict[str, dict[str, np.ndarray]] = {}
        for name, table in stored.items():
            model, field = name.split(".")
            models.setdefault(model, {})[field] = table
        linear = {}
        for name in VECTORS:
            if name in models:
                averaged, alpha = bool(models[name].pop("averaged")), float(models[name].pop("alpha"))
                linear[name] = RidgeModel(**models[name], averaged=averaged, alpha=alpha)
        return References(linear, NoveltyModel(**models[NOVELTY]) if NOVELTY in models else None)
