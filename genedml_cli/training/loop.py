"""Train a network on the sections of one fold. Letters: B spots in a batch, N labelled spots, M genes."""

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genedml.config import Config, TrainingConfig
from genedml.encoders.weights import StartingWeights
from genedml.errors import GeneDMLError
from genedml.metrics import column_nanmean, nanmean, pcc
from genedml.networks.inputs import Batch, Needs
from genedml.networks.network import Network, Shape
from genedml.networks.registry import build, network_class
from genedml.schema import to_dict
from genedml_cli import __version__, console
from genedml_cli.features.placement import PlacedFeatures, place
from genedml_cli.features.section_data import SectionData, left_out_together
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.machine.devices import fitting, seeded, send
from genedml_cli.prediction.section import predict_placed
from genedml_cli.training.batches import draw_batches
from genedml_cli.training.learner import Learner, below, remember
from genedml_cli.training.state import EpochLog, Moment, TrainingState

Member = TypeVar("Member")
"""A section, by its files or with its data."""

LARGE_NETWORK = 2_000_000
"""Parameters from which on training on a CPU gains by several threads; the presets of the paper have 46 to 121 million,
``small`` .2 with its encoder."""
SHOWN = ("total", "prediction", "held_out_pcc")


@dataclass(frozen=True)
class Trained:
    """What training a fold leaves.

    Args:
        state: weights of the chosen epoch, without what training alone uses.
        shape: of the network.
        epoch: the chosen epoch.
        log: every loss part and score of every epoch.
        held_out_pcc: each gene's PCC on the sections the epoch was chosen on; None if there were none.
        bank: section and spot of every row of the network's bank; nothing where it has none.
    """

    state: Mapping[str, Tensor]
    shape: Shape
    epoch: int
    log: Sequence[Mapping[str, float]]
    held_out_pcc: Float[np.ndarray, " M"] | None
    bank: tuple[tuple[str, str], ...] = ()


def train_fold(
    train: Sequence[SectionData],
    validation: Sequence[SectionData],
    test: Sequence[SectionData],
    config: Config,
    device: torch.device | str,
    description: str = "Epochs",
    at_once: int = 1,
    state: Path | None = None,
    log: Path | None = None,
    start: StartingWeights | None = None,
) -> Trained:
    """Train on ``train``, choose the epoch on ``validation`` (on ``test`` if the configuration says so).

    With ``training.refit``, train once more, on the validation sections as well, for as many epochs as were chosen.
    ``at_once`` folds are trained beside each other on this machine. ``state`` is a file that keeps what a call that was
    interrupted had reached: the next goes on from there and ends as if nothing had been. ``log`` is a ``.csv`` that
    grows with the epochs. ``start`` are the weights of a backbone that starts from some.

    Raises:
        GeneDMLError: no epoch can be chosen, the device has too little memory, ``state`` cannot be read, or it or
            ``log`` cannot be written.
    """
    settings = config.training
    on_test = settings.select_on == "test"
    trained_on = learnt_from(train, validation, settings)
    chosen_on = test if on_test else () if settings.refit else validation
    needs = network_class(config.method).needs(config.network)
    turned = settings.augment or needs.orientations
    features = [data.features if turned else data.features.upright for data in trained_on]
    features += [data.features.upright for data in chosen_on]
    sections = _Sections([*trained_on, *chosen_on], place(features, device, needs, at_once))
    first, last = len(train), len(train) + len(validation)
    file = TrainingState(state, _depends_on((train, validation, test), config, device, start))
    begun, table = file.read(), EpochLog(log)
    fit = partial(_fit_in_memory, sections, config=config, device=device, start=start)
    if on_test:
        tested, passes = range(last, last + len(test)), _Passes(file, table, begun=begun)
        result = fit(last, tested, epochs=settings.epochs, description=description, passes=passes)
        return replace(result, held_out_pcc=None)
    chosen, refit = _chosen_before(begun, _shape_of(train, config)), bool(settings.refit and validation)
    if chosen is None:
        passes, begun = _Passes(file, table, 1 if refit else 0, begun=begun), None
        chosen = fit(first, range(first, last), epochs=settings.epochs, description=description, passes=passes)
    if not refit:
        return chosen
    passes = _Passes(file, table, 2, chosen, begun)
    again = fit(last, range(0), epochs=chosen.epoch, description=f"{description}, refit", passes=passes)
    return replace(again, held_out_pcc=chosen.held_out_pcc)


def learnt_from(train: Sequence[Member], validation: Sequence[Member], settings: TrainingConfig) -> list[Member]:
    """The sections that the weights of a fold are fitted on in the end; its references are fitted on the same.

    Validation sections only choose the epoch, but are trained on as well where the test sections choose it, and where
    the fold is trained once more (``training.refit``). So references lose sections where the network does: that needs
    no second training of the presets that have none.
    """
    return [*train, *(validation if settings.select_on == "test" or settings.refit else ())]


def threads_for(config: Config, shape: Shape, device: torch.device) -> int:
    """How many threads a fold's training can use: on a CPU one, if the network is small, else all that torch would use.

    Threads that share small products mostly wait for each other: ten times as long as they compute, where other
    programs use the cores too.

    Args:
        config: of the network.
        shape: of its tensors.
        device: to train on.
    """
    with torch.device("meta"):
        parameters = sum(value.numel() for value in build(config.method, config.network, shape).parameters())
    return 1 if device.type == "cpu" and parameters < LARGE_NETWORK else torch.get_num_threads()


@dataclass(frozen=True)
class _Sections:
    """Sections of a fold, those to train on first, and their features."""

    data: Sequence[SectionData]
    features: PlacedFeatures


def _mean_pcc(network: Network, sections: _Sections, numbers: Iterable[int]) -> Float[np.ndarray, " M"]:
    """PCC of every gene over the spots of a section, mean over sections; NaN if training diverged."""
    scores = []
    for number in numbers:
        data = sections.data[number]
        valid = data.labels.valid
        predicted = predict_placed(network, sections.features, number)[valid]
        if not np.isfinite(predicted).all():
            return np.full(predicted.shape[1], np.nan)
        scores.append(pcc(data.labels.y[valid], predicted))
    return column_nanmean(np.stack(scores))


class SpotLoader:
    """Batches of labelled spots of a few sections, with their labels.

    Args:
        sections: to draw from; ``features`` begin with theirs.
        features: where batches are gathered.
        settings: how batches are drawn.
        device: where labels live.
        needs: what the network takes of a batch.
    """

    def __init__(
        self,
        sections: Sequence[SectionData],
        features: PlacedFeatures,
        settings: TrainingConfig,
        device: torch.device | str,
        needs: Needs,
    ) -> None:
        self._features, self._needs = features, needs
        self._rows = [torch.as_tensor(np.flatnonzero(data.labels.valid)) for data in sections]
        self._labels = _Table([data.labels.y for data in sections], device)
        self._counts = _Table([data.labels.counts for data in sections], device) if needs.counts else None
        self._patients = torch.as_tensor(np.unique(left_out_together(sections), return_inverse=True)[1])
        of_tokens = sections[0].features.local.shape[0] if needs.tokens else 8
        self._orientations = of_tokens if settings.augment and (needs.tokens or needs.tiles) else 1
        self._settings = settings

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Every labelled spot once, in an order and orientations drawn anew."""
        settings = self._settings
        whole = self._needs.whole_sections or self._needs.array_means
        batch_size = sum(map(len, self._rows)) if whole else settings.batch_size
        together = max(1, settings.sections_per_batch) if whole else settings.sections_per_batch
        for section, row in draw_batches(self._rows, batch_size, together, generator):
            yield self._batch(section, row, torch.randint(self._orientations, (len(row),), generator=generator))

    def sections(self) -> Iterator[Batch]:
        """All labelled spots of one section after the other, as they stand, without their tokens and raw tiles."""
        for number, row in enumerate(self._rows):
            yield self._batch(torch.full_like(row, number), row, None, own_tiles=False)

    def _batch(
        self,
        section: Int[Tensor, " B"],
        row: Int[Tensor, " B"],
        orientation: Int[Tensor, " B"] | None,
        own_tiles: bool = True,
    ) -> Batch:
        counts = None if self._counts is None else self._counts.take(section, row)
        batch = self._features.batch(section, row, orientation, own_tiles)
        patient = send(self._patients[section], self._labels.device)
        return replace(batch, label=self._labels.take(section, row), counts=counts, patient=patient)


class _Table:
    """Numbers of the spots of several sections, on a device."""

    def __init__(self, of_sections: Sequence[Float[np.ndarray, "_ M"] | None], device: torch.device | str) -> None:
        tables = [torch.as_tensor(values) for values in of_sections if values is not None]
        self._values = torch.cat(tables).to(device)
        self.device = self._values.device
        self._first_row = torch.tensor([0, *map(len, tables)]).cumsum(0)

    def take(self, section: Int[Tensor, " B"], row: Int[Tensor, " B"]) -> Float[Tensor, "B M"]:
        """The rows of some spots."""
        return self._values[send(self._first_row[section] + row, self.device)]


@dataclass
class _Course:
    """How a pass went so far: an entry an epoch, and the best of them. Without a choice the last is the best."""

    log: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0
    score: float = -np.inf
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    held_out_pcc: Float[np.ndarray, " M"] | None = None

    def add(self, entry: dict[str, float], kept: Network, held_out_pcc: Float[np.ndarray, " M"] | None) -> None:
        """An epoch after which ``kept`` are the weights."""
        self.log.append(entry)
        if held_out_pcc is None:
            self.epoch = len(self.log)
        elif entry["held_out_pcc"] > self.score:
            self.epoch, self.score, self.held_out_pcc = len(self.log), entry["held_out_pcc"], held_out_pcc
            self.weights = copy.deepcopy(kept.state_dict())

    def put_into(self, moment: Moment) -> Moment:
        """A moment that also knows the course."""
        moment.values |= {"log": self.log, "epoch": self.epoch, "score": self.score}
        moment.tensors |= {f"best.{name}": value for name, value in self.weights.items()}
        if self.held_out_pcc is not None:
            moment.tensors["held_out_pcc"] = torch.from_numpy(self.held_out_pcc)
        return moment

    @staticmethod
    def of(moment: Moment, device: torch.device | str) -> "_Course":
        """What :meth:`put_into` left in a moment."""
        weights = {name: value.to(device) for name, value in below("best.", moment.tensors).items()}
        values, scores = moment.values, moment.tensors.get("held_out_pcc")
        return _Course(
            values["log"], values["epoch"], values["score"], weights, None if scores is None else scores.numpy()
        )


@dataclass(frozen=True)
class _Passes:
    """What is kept of a fold's training as it goes, and in which of its passes that is.

    Args:
        file: see :class:`TrainingState`.
        table: of the epochs of all passes.
        number: of the pass, where there are two; else 0.
        chosen: what the pass before left, if there was one.
        begun: the moment to go on from, if this pass was begun before.
    """

    file: TrainingState
    table: EpochLog
    number: int = 0
    chosen: Trained | None = None
    begun: Moment | None = None

    def keep(self, learner: Learner, generator: torch.Generator, course: _Course) -> None:
        """Write the table and the moment after an epoch, if it is time to."""
        self.table.write(self.epochs(course))
        if not self.file.due():
            return
        moment = course.put_into(learner.snapshot(generator))
        if self.chosen is not None:
            moment.values["chosen"] = {"epoch": self.chosen.epoch, "log": list(self.chosen.log)}
            if self.chosen.held_out_pcc is not None:
                moment.tensors["chosen.held_out_pcc"] = torch.from_numpy(self.chosen.held_out_pcc)
        self.file.write(moment)

    def epochs(self, course: _Course) -> list[Mapping[str, float]]:
        """Those of the pass before and of this one, with the number of their pass where there are two."""
        before = [] if self.chosen is None else self.chosen.log
        return [*before, *({"pass": self.number, **entry} if self.number else entry for entry in course.log)]


def _chosen_before(moment: Moment | None, shape: Shape) -> Trained | None:
    """What the first pass left, if a moment is of the second; its weights are not needed any more."""
    if moment is None or "chosen" not in moment.values:
        return None
    scores = moment.tensors.get("chosen.held_out_pcc")
    chosen = moment.values["chosen"]
    return Trained({}, shape, chosen["epoch"], chosen["log"], None if scores is None else scores.numpy())


def shape_of(features: SectionFeatures, genes: int, config: Config, labelled_spots: int = 0) -> Shape:
    """What the tensors of a network depend on, besides its configuration, where it is trained on such features."""
    tokens, width = features.local.shape[2:]
    bank = labelled_spots if network_class(config.method).needs(config.network).bank else 0
    return Shape(genes, width, tokens, config.views.neighbor_grid, bank, config.labels.smooth)


def _shape_of(sections: Sequence[SectionData], config: Config) -> Shape:
    labelled = sum(int(data.labels.valid.sum()) for data in sections)
    return shape_of(sections[0].features, sections[0].labels.y.shape[1], config, labelled)


def _depends_on(
    sides: Sequence[Sequence[SectionData]], config: Config, device: torch.device | str, start: StartingWeights | None
) -> dict[str, str]:
    """All that the training of a fold depends on, by the name under which a difference is told."""
    labels, features = hashlib.sha256(), hashlib.sha256()
    for data in chain(*sides):
        spots, whose = data.features.spots, asdict(data.features.encoder)
        labels.update(data.labels.y.tobytes() + data.labels.valid.tobytes())
        features.update(json.dumps([data.features.slide_sha256, data.features.um_per_px, whose, spots.names]).encode())
        features.update(spots.xy_px.tobytes())
    return {
        "settings": json.dumps(to_dict(config)),
        "sections": json.dumps([[data.sample.name for data in side] for side in sides]),
        "labels": labels.hexdigest(),
        "features": features.hexdigest(),
        "version of torch": torch.__version__,
        "version of genedml": __version__,
        "kind of device": torch.device(device).type,
        **({} if start is None else {"weights of the backbone": start.sha256}),
    }


def _fit_in_memory(sections: _Sections, trained: int, select: range, *, config: Config, **rest: Any) -> Trained:
    """As :func:`_fit`, where the device has too little memory with a sentence; the caller's random numbers stay."""
    needs = network_class(config.method).needs(config.network)
    batch, smaller = f"training in batches of {config.training.batch_size} spots", "lower training.batch_size"
    if needs.whole_sections or needs.array_means:
        batch, smaller = "training on whole sections", "train a smaller network"
    if needs.array_means and not needs.whole_sections:
        smaller = "train on parts of them with --set network.array_mean=false"
    fix = f"Free it from other programs, {smaller}, or train with --device cpu."
    seed = seeded(config.training.seed, torch.device(rest["device"]))
    with fitting(batch, f"{fix} What was trained is kept."), seed:
        return _fit(sections, trained, select, config, **rest)


def _fit(
    sections: _Sections,
    trained: int,
    select: range,
    config: Config,
    device: torch.device | str,
    start: StartingWeights | None,
    epochs: int,
    description: str,
    passes: _Passes,
) -> Trained:
    """Train on the first ``trained`` sections for ``epochs``, or until sections ``select`` have not improved for
    ``patience``; the last epoch if there are none.
    """
    settings = config.training
    generator = torch.Generator().manual_seed(settings.seed)
    train = sections.data[:trained]
    loader = SpotLoader(train, sections.features, settings, device, network_class(config.method).needs(config.network))
    network = build(config.method, config.network, _shape_of(train, config))
    if start is not None:
        network.load_backbone(start.file)
    network.to(device).start_from(loader.sections())
    rows = remember(network, loader.sections())
    learner, course = Learner(network, settings, device), _Course()
    if passes.begun is not None:
        learner.restore(passes.begun, generator)
        course = _Course.of(passes.begun, device)
        done = f"epoch {len(course.log)} of {epochs}"
        console.note(f"{description}: going on after {done}, where an earlier run was interrupted.")
    with console.progress(description, epochs, told="epoch") as advance:
        advance(len(course.log))
        while len(course.log) < epochs and len(course.log) - course.epoch < settings.patience:
            entry = {"epoch": len(course.log) + 1, **learner.train_epoch(loader.epoch(generator), generator)}
            if network.takes.bank_moves:
                remember(learner.averaged, loader.sections())
            scores = _mean_pcc(learner.averaged, sections, select) if select else None
            if scores is not None:
                entry["held_out_pcc"] = nanmean(scores)
            course.add(entry, learner.averaged, scores)
            passes.keep(learner, generator, course)
            advance(note=" ".join(f"{key} {entry[key]:.3f}" for key in SHOWN if key in entry))
    if not course.epoch:
        held_out = ", ".join(sections.data[number].sample.name for number in select)
        raise GeneDMLError(
            f"No epoch has a defined PCC on {held_out}, held out to choose one: "
            "too few labelled spots, or training diverged. Lower training.learning_rate with --set, or hold out more."
        )
    passes.table.write(passes.epochs(course), last=True)
    if select:
        learner.averaged.load_state_dict(course.weights)
    if network.takes.bank_moves:
        remember(learner.averaged, loader.sections())
    named = [(data.sample.name, name) for data in train for name in data.labelled_spots]
    return Trained(
        learner.averaged.without_training().state_dict(),
        learner.averaged.shape,
        course.epoch,
        passes.epochs(course),
        course.held_out_pcc,
        tuple(named[row] for row in rows),
    )
