"""Folds by patient: which sections train, choose and test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import ALL_SECTIONS, Sample
from genedml_cli.notes import Mark, Note


@dataclass(frozen=True)
class Fold:
    """Sections to train on, to choose the checkpoint on, and to test on.

    ``left_out`` are of no side: their donor is tested here under another patient's name. ``epochs_of_folds`` is how
    many epochs the folds of the same run chose, by fold; the model of all sections, which has nothing to choose on, is
    trained for their median.
    """

    name: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    left_out: tuple[Sample, ...] = ()
    epochs_of_folds: Mapping[str, int] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Sample, ...]:
        """Those of all three sides."""
        return (*self.train, *self.validation, *self.test)

    @property
    def tests_nothing(self) -> bool:
        """Whether it is that of :func:`all_sections`."""
        return self.name == ALL_SECTIONS

    @property
    def leaks(self) -> bool:
        """Whether a donor is on both sides: trained or chosen on, and tested."""
        seen = {sample.donor for sample in (*self.train, *self.validation)}
        return any(sample.donor in seen for sample in self.test)

    @property
    def left_out_note(self) -> Note | None:
        """What must be said of ``left_out`` in every result, if there are any."""
        if not self.left_out:
            return None
        names = ", ".join(sample.name for sample in self.left_out)
        donors = {sample.donor for sample in self.left_out}
        tested = ", ".join(sample.name for sample in self.test if sample.donor in donors)
        text = f"fold {self.name}, which tests {tested}, is trained without {names}: the same tissue."
        return Note(Mark.SAME_DONOR, text)


@runtime_checkable
class KnowsDonors(Protocol):
    """Whatever remembers the donors that it was trained on, as :class:`genedml.checkpoint.ModelCard` does."""

    @property
    def training_donors(self) -> tuple[str, ...]:
        """Their names."""


def seen_donors(card: KnowsDonors, samples: Iterable[Sample]) -> list[Sample]:
    """The sections of donors that a model was trained or chosen on: a test of it has to leave them out."""
    return [sample for sample in samples if sample.donor in card.training_donors]


def make_folds(samples: Sequence[Sample]) -> list[Fold]:
    """One fold for each value of ``fold``, tested on its sections and trained on the others.

    The checkpoint is chosen on the patients of the fold that follows in order, where at least two other folds remain;
    else on the last patient, or for want of a second one the last section, of the training side. A single training
    section leaves nothing to choose on. Sections of one donor under two patients' names stay on one side: where one of
    them is tested, those of another name are left out.

    Raises:
        GeneDMLError: a single fold, or one donor, leaves nothing to train on.
    """
    names = sorted({sample.fold for sample in samples}, key=_fold_order)
    if len(names) < 2:
        raise GeneDMLError(
            f"All {len(samples)} sections are in fold {names[0]}, so none is left to train on. Add sections of another "
            "patient, or a column fold that parts them (it is then marked as leaking). For a model without scores: "
            f"--fold {ALL_SECTIONS}."
        )
    return [_make_fold(name, names, samples) for name in names]


def all_sections(samples: Sequence[Sample], epochs_of_folds: Mapping[str, int]) -> Fold:
    """Every section to train on and none to test, for a model that is to predict other slides.

    Where ``epochs_of_folds`` do not say for how many epochs, the last patient, or for want of a second one the last
    section, is held out to choose their number. A single section leaves nothing to choose on.
    """
    held = [] if epochs_of_folds else _held_out(samples)
    rest = tuple(sample for sample in samples if sample not in held)
    return Fold(ALL_SECTIONS, rest, tuple(held), (), epochs_of_folds=epochs_of_folds)


def _held_out(samples: Sequence[Sample], fold: str | None = None) -> list[Sample]:
    """Of sections to train on those to choose the epoch on: of ``fold``, else the last patient, else the last section.

    None where nothing would be left to train on.
    """
    patients = sorted({sample.patient for sample in samples})
    if fold is not None:
        held = [sample for sample in samples if sample.fold == fold]
    elif len(patients) > 1:
        held = [sample for sample in samples if sample.patient == patients[-1]]
    else:
        held = list(samples[-1:])
    held += _under_another_name([sample for sample in samples if sample not in held], held)
    return held if len(held) < len(samples) else []


def _make_fold(name: str, names: Sequence[str], samples: Sequence[Sample]) -> Fold:
    test = tuple(sample for sample in samples if sample.fold == name)
    others = [sample for sample in samples if sample.fold != name]
    left_out = _under_another_name(others, test)
    rest = [sample for sample in others if sample not in left_out]
    if not rest:
        raise GeneDMLError(
            f"Fold {name} tests {', '.join(sample.name for sample in test)}, and all other sections are of the same "
            "donors, so none is left to train on. Add sections of another donor."
        )
    place = names.index(name)
    following = [other for other in (*names[place + 1 :], *names[:place]) if any(one.fold == other for one in rest)]
    held = _held_out(rest, following[0] if len(following) > 1 else None)
    return Fold(name, tuple(sample for sample in rest if sample not in held), tuple(held), test, tuple(left_out))


def _under_another_name(samples: Iterable[Sample], side: Sequence[Sample]) -> list[Sample]:
    """Those of ``samples`` whose donor is in ``side`` as another patient."""
    return [one for one in samples if any(one.donor == s.donor and one.patient != s.patient for s in side)]


def _fold_order(name: str) -> tuple[bool, float, str]:
    return (not name.isdigit(), float(name) if name.isdigit() else 0.0, name)
