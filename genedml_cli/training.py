"""Train Gene-DML on the sections of one fold. Letters: B spots in a batch, N labelled spots, M genes."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genedml.config import Config, TrainingConfig
from genedml.errors import GeneDMLError
from genedml.network import GeneDML, Views
from genedml_cli import console
from genedml_cli.batches import draw_batches
from genedml_cli.devices import mixed_precision, send
from genedml_cli.inference import predict_placed
from genedml_cli.metrics import column_nanmean, nanmean, pcc
from genedml_cli.placement import PlacedFeatures, place
from genedml_cli.sections import SectionData

Batch = tuple[Views, Float[Tensor, "B M"]]
SHOWN = ("total", "prediction", "held_out_pcc")
FUSED = ("cpu", "cuda")
"""Devices on which torch has Adam as one kernel."""


@dataclass(frozen=True)
class Trained:
    """What training a fold leaves.

    Args:
        state: weights of the chosen epoch.
        epoch: the chosen epoch.
        log: every loss part and score of every epoch.
        held_out_pcc: each gene's PCC on the sections the epoch was chosen on; None if there were none.
    """

    state: Mapping[str, Tensor]
    epoch: int
    log: Sequence[Mapping[str, float]]
    held_out_pcc: Float[np.ndarray, " M"] | None


def train_fold(
    train: Sequence[SectionData],
    validation: Sequence[SectionData],
    test: Sequence[SectionData],
    config: Config,
    device: torch.device | str,
    description: str = "Epochs",
    at_once: int = 1,
) -> Trained:
    """Train on ``train``, choose the epoch on ``validation`` (on ``test`` if the configuration says so).

    With ``training.refit``, train once more, on the validation sections as well, for as many epochs as were chosen.
    ``at_once`` folds are trained beside each other on this machine.
    """
    settings = config.training
    on_test = settings.select_on == "test"
    trained_on = [*train, *(validation if on_test or settings.refit else ())]
    chosen_on = test if on_test else () if settings.refit else validation
    features = [data.features if settings.augment else data.features.upright for data in trained_on]
    features += [data.features.upright for data in chosen_on]
    sections = _Sections([*trained_on, *chosen_on], place(features, device, at_once))
    first, last = len(train), len(train) + len(validation)
    if on_test:
        result = _fit(sections, last, range(last, last + len(test)), config, device, settings.epochs, description)
        return replace(result, held_out_pcc=None)
    chosen = _fit(sections, first, range(first, last), config, device, settings.epochs, description)
    if not (settings.refit and validation):
        return chosen
    again = _fit(sections, last, range(0), config, device, chosen.epoch, f"{description}, refit")
    return replace(
        again,
        log=[{"pass": number, **entry} for number, log in enumerate((chosen.log, again.log), 1) for entry in log],
        held_out_pcc=chosen.held_out_pcc,
    )


@dataclass(frozen=True)
class _Sections:
    """Sections of a fold, those to train on first, and their features."""

    data: Sequence[SectionData]
    features: PlacedFeatures


def _mean_pcc(network: GeneDML, sections: _Sections, numbers: Iterable[int]) -> Float[np.ndarray, " M"]:
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
    """

    def __init__(
        self,
        sections: Sequence[SectionData],
        features: PlacedFeatures,
        settings: TrainingConfig,
        device: torch.device | str,
    ) -> None:
        self._features = features
        self._rows = [torch.as_tensor(np.flatnonzero(data.labels.valid)) for data in sections]
        self._labels = torch.cat([torch.as_tensor(data.labels.y) for data in sections]).to(device)
        self._first_row = torch.tensor([0, *(len(data.labels.y) for data in sections)]).cumsum(0)
        self._orientations = sections[0].features.local.shape[0] if settings.augment else 1
        self._settings = settings

    @property
    def mean_label(self) -> Float[Tensor, " M"]:
        return torch.cat([self._label(torch.full_like(r, s), r) for s, r in enumerate(self._rows)]).mean(dim=0)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        settings = self._settings
        for section, row in draw_batches(self._rows, settings.batch_size, settings.sections_per_batch, generator):
            orientation = torch.randint(self._orientations, (len(row),), generator=generator)
            yield self._features.views(section, row, orientation), self._label(section, row)

    def _label(self, section: Int[Tensor, " B"], row: Int[Tensor, " B"]) -> Float[Tensor, "B M"]:
        return self._labels[send(self._first_row[section] + row, self._labels.device)]


class Learner:
    """A network, the moving average of its weights that is kept, and what moves them. No step waits for the device."""

    def __init__(self, network: GeneDML, settings: TrainingConfig, device: torch.device | str) -> None:
        self._network = network.to(device)
        self._decay, self._steps = settings.weight_average, 0
        self.kept = copy.deepcopy(self._network) if self._decay else self._network
        self._optimiser = torch.optim.Adam(
            network.parameters(),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=torch.device(device).type in FUSED,
        )
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimiser, settings.lr_step_epochs, settings.lr_factor)

    def learn(self, batches: Iterator[Batch], generator: torch.Generator) -> dict[str, float]:
        """One epoch; returns the mean of every loss part."""
        self._network.train()
        learning_rate = float(self._schedule.get_last_lr()[0])
        steps = [self.step(views, label, generator) for views, label in batches]
        self._schedule.step()
        means = {"learning_rate": learning_rate, **_mean_parts(steps)}
        if self._network.loss.group:
            means["batches_without_group"] = sum("group" not in step for step in steps)
        return means

    def step(self, views: Views, label: Float[Tensor, "B M"], generator: torch.Generator) -> dict[str, Tensor]:
        with mixed_precision(label.device):
            losses = self._network.losses(views, label, generator)
        self._optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        self._optimiser.step()
        self._update_average()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        self._steps += 1
        if not self._decay:
            return
        decay = self._decay if self._steps > 1 else 0.0  # the average of one step is that step
        average, now = list(self.kept.parameters()), list(self._network.parameters())
        get_ema_multi_avg_fn(decay)(average, now, self._steps)


def _fit(
    sections: _Sections,
    trained: int,
    select: range,
    config: Config,
    device: torch.device | str,
    epochs: int,
    description: str,
) -> Trained:
    """Train on the first ``trained`` sections for ``epochs``, or until sections ``select`` have not improved for
    ``patience``; the last epoch if there are none.
    """
    settings = config.training
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    train = sections.data[:trained]
    loader = SpotLoader(train, sections.features, settings, device)
    width, genes = train[0].features.tiles.shape[1], train[0].labels.y.shape[1]
    network = GeneDML(config.network, config.loss, width, genes, config.views.neighbor_grid)
    network.start_at(loader.mean_label.cpu())
    learner = Learner(network, settings, device)
    best = Trained({}, 0, (), None)
    best_score, log = -np.inf, []
    with console.progress(description, epochs) as advance:
        for epoch in range(1, epochs + 1):
            entry = {"epoch": epoch, **learner.learn(loader.epoch(generator), generator)}
            scores = _mean_pcc(learner.kept, sections, select) if select else None
            if scores is not None:
                entry["held_out_pcc"] = nanmean(scores)
            log.append(entry)
            advance(note=" ".join(f"{key} {entry[key]:.3f}" for key in SHOWN if key in entry))
            if scores is None or entry["held_out_pcc"] > best_score:
                best_score = entry.get("held_out_pcc", best_score)
                state = learner.kept.state_dict() if scores is None else copy.deepcopy(learner.kept.state_dict())
                best = replace(best, state=state, epoch=epoch, held_out_pcc=scores)
            elif epoch - best.epoch >= settings.patience:
                break
    if not best.state:
        held_out = ", ".join(sections.data[number].sample.name for number in select)
        raise GeneDMLError(
            f"No epoch has a defined PCC on {held_out}, held out to choose one: "
            "too few labelled spots, or training diverged. Lower training.learning_rate with --set, or hold out more."
        )
    return replace(best, log=log)


def _mean_parts(steps: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Mean of every loss part over the batches that had it."""
    names = dict.fromkeys(name for step in steps for name in step)
    means = [torch.stack([step[name] for step in steps if name in step]).mean() for name in names]
    return dict(zip(names, torch.stack(means).tolist(), strict=True))
