"""Train Gene-DML on the sections of one fold. Letters: B spots in a batch, N labelled spots, M genes."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genedml.config import Config, TrainingConfig
from genedml.errors import GeneDMLError
from genedml.network import GeneDML, Views
from genedml_cli import console
from genedml_cli.batches import draw_batches
from genedml_cli.devices import mixed_precision
from genedml_cli.features import gather_views
from genedml_cli.metrics import column_nanmean, nanmean, pcc
from genedml_cli.prediction import predict_section
from genedml_cli.sections import SectionData

Batch = tuple[Views, Float[Tensor, "B M"]]
SHOWN = ("total", "prediction", "held_out_pcc")


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
) -> Trained:
    """Train on ``train``, choose the epoch on ``validation`` (on ``test`` if the configuration says so).

    With ``training.refit``, train once more, on the validation sections as well, for as many epochs as were chosen.
    """
    settings = config.training
    if settings.select_on == "test":
        on_test = _fit([*train, *validation], test, config, device, settings.epochs, description)
        return replace(on_test, held_out_pcc=None)
    chosen = _fit(train, validation, config, device, settings.epochs, description)
    if not (settings.refit and validation):
        return chosen
    again = _fit([*train, *validation], [], config, device, chosen.epoch, f"{description}, refit")
    return replace(
        again,
        log=[{"pass": number, **entry} for number, log in enumerate((chosen.log, again.log), 1) for entry in log],
        held_out_pcc=chosen.held_out_pcc,
    )


def mean_pcc(network: GeneDML, sections: Sequence[SectionData], device: torch.device | str) -> Float[np.ndarray, " M"]:
    """PCC of every gene over the spots of a section, mean over sections; NaN if training diverged."""
    scores = []
    for data in sections:
        valid = data.labels.valid
        predicted = predict_section(network, data.features, device)[valid]
        if not np.isfinite(predicted).all():
            return np.full(predicted.shape[1], np.nan)
        scores.append(pcc(data.labels.y[valid], predicted))
    return column_nanmean(np.stack(scores))


class _SpotLoader:
    """Batches of labelled spots of a few sections, with their labels."""

    def __init__(self, sections: Sequence[SectionData], settings: TrainingConfig, device: torch.device | str) -> None:
        self._features = [data.features for data in sections]
        self._sections = [features.section(device) for features in self._features]
        self._rows = [torch.as_tensor(np.flatnonzero(data.labels.valid)) for data in sections]
        self._labels = torch.cat([torch.as_tensor(data.labels.y) for data in sections]).to(device)
        self._first_row = torch.tensor([0, *(len(data.labels.y) for data in sections)]).cumsum(0)
        self._orientations = self._features[0].local.shape[0] if settings.augment else 1
        self._settings = settings

    @property
    def mean_label(self) -> Float[Tensor, " M"]:
        return torch.cat([self._label(torch.full_like(r, s), r) for s, r in enumerate(self._rows)]).mean(dim=0)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        settings = self._settings
        for section, row in draw_batches(self._rows, settings.batch_size, settings.sections_per_batch, generator):
            orientation = torch.randint(self._orientations, (len(row),), generator=generator)
            yield gather_views(self._features, self._sections, section, row, orientation), self._label(section, row)

    def _label(self, section: Int[Tensor, " B"], row: Int[Tensor, " B"]) -> Float[Tensor, "B M"]:
        return self._labels[(self._first_row[section] + row).to(self._labels.device)]


class _Learner:
    """A network, the moving average of its weights that is kept, and what moves them."""

    def __init__(self, network: GeneDML, settings: TrainingConfig, device: torch.device | str) -> None:
        self._network = network.to(device)
        self._average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average))
        self._optimiser = torch.optim.Adam(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimiser, settings.lr_step_epochs, settings.lr_factor)

    @property
    def kept(self) -> GeneDML:
        return cast(GeneDML, self._average.module)

    def learn(self, batches: Iterator[Batch], generator: torch.Generator) -> dict[str, float]:
        """One epoch; returns the mean of every loss part."""
        self._network.train()
        learning_rate = float(self._schedule.get_last_lr()[0])
        steps = [self._step(views, label, generator) for views, label in batches]
        self._schedule.step()
        means = {"learning_rate": learning_rate, **_mean_parts(steps)}
        if self._network.loss.group:
            means["batches_without_group"] = sum("group" not in step for step in steps)
        return means

    def _step(self, views: Views, label: Float[Tensor, "B M"], generator: torch.Generator) -> dict[str, Tensor]:
        with mixed_precision(label.device):
            losses = self._network.losses(views, label, generator)
        self._optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        self._optimiser.step()
        self._average.update_parameters(self._network)
        return {name: value.detach() for name, value in losses.items()}


def _fit(
    train: Sequence[SectionData],
    select: Sequence[SectionData],
    config: Config,
    device: torch.device | str,
    epochs: int,
    description: str,
) -> Trained:
    """Train for ``epochs``, or until ``select`` has not improved for ``patience``; the last epoch if it is empty."""
    settings = config.training
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    loader = _SpotLoader(train, settings, device)
    width, genes = train[0].features.tiles.shape[1], train[0].labels.y.shape[1]
    network = GeneDML(config.network, config.loss, width, genes, config.views.neighbor_grid)
    network.start_at(loader.mean_label.cpu())
    learner = _Learner(network, settings, device)
    best = Trained({}, 0, (), None)
    best_score, log = -np.inf, []
    with console.progress(description, epochs) as advance:
        for epoch in range(1, epochs + 1):
            entry = {"epoch": epoch, **learner.learn(loader.epoch(generator), generator)}
            scores = mean_pcc(learner.kept, select, device) if select else None
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
        raise GeneDMLError(
            f"No epoch has a defined PCC on {', '.join(data.sample.name for data in select)}, held out to choose one: "
            "too few labelled spots, or training diverged. Lower training.learning_rate with --set, or hold out more."
        )
    return replace(best, log=log)


def _mean_parts(steps: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Mean of every loss part over the batches that had it."""
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: float(torch.stack([step[name] for step in steps if name in step]).mean()) for name in names}
