"""Methods beside each other on the same sections, folds, panel and labels: a grid with seeds, and one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from genedml.checkpoint import ModelCard, load_card
from genedml.config import DEFAULT_METHOD, Config, preset_of
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Tile
from genedml.networks.registry import build, network_class, title_of, variant_of
from genedml_cli.datasets.samples import Sample
from genedml_cli.evaluation.comparison import Comparison, Scored, compared
from genedml_cli.evaluation.evaluation import finished_sections
from genedml_cli.evaluation.external import score_external
from genedml_cli.evaluation.external_comparison import ExternalComparison, compared_externally
from genedml_cli.evaluation.external_sections import ExternalSections
from genedml_cli.evaluation.published import PublishedRow, means_of_networks, rows_beside
from genedml_cli.evaluation.run_comparison import check_comparable
from genedml_cli.files.locks import claimed
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import refuse_overwriting_inputs
from genedml_cli.machine.stopping import on_stop
from genedml_cli.notes import Note
from genedml_cli.outputs.run_folder import model_files_in
from genedml_cli.runs.grid import seconds_of, train_grid
from genedml_cli.runs.planning import RunSettings

NAME = "compare"

Row = tuple[str, str]
"""A method and its preset, which is empty where it is not named."""


@takes_paths
def compare(
    samples: Sequence[Sample],
    out: Path,
    configs: Mapping[Row, Config],
    seeds: int = 3,
    settings: RunSettings = RunSettings(),  # noqa: B008  frozen
) -> Comparison | None:
    """Train every method with several seeds, and make one table of all, held against Gene-DML or else the first.

    Args:
        samples: the sections, with their folds.
        out: the folder of the grid: ``METHOD/seed-N`` or ``METHOD-PRESET/seed-N`` are run folders, ``references/`` is
            what they share. What is finished there is kept.
        configs: of every row; they may differ in nothing that makes scores incomparable.
        seeds: how many, counted on from the first configuration's ``training.seed`` for all.
        settings: of all runs, whose folds are one queue. Of a data set of the paper its rows of tables 1 and 7 stand
            beside.

    Returns:
        The table; None of a shard, which scores nothing.

    Raises:
        GeneDMLError: whatever the user can fix; folds already finished stay.
    """
    _check_alike(configs)
    refuse_overwriting_inputs(out.glob(f"{NAME}.*"), [file for sample in samples for file in sample.files])
    cells = _cells(configs, seeds)
    kept = f"Folds are kept in {out}, begun ones as of a minute or an epoch ago. To go on, run the same command again."
    whole = settings.shard is None
    with claimed(out / f"{NAME}.csv", f"The comparison in {out}", wanted=whole), on_stop(kept):
        evaluations = train_grid(samples, out, cells, settings)
        if not whole:
            return None
        check_comparable({out / cell: list(finished_sections(out / cell).values()) for cell in cells})
        titles = _titles(configs)
        scored = [
            Scored(titles[cell.split("/")[0]], cells[cell].training.seed, evaluation)
            for cell, evaluation in evaluations.items()
        ]
        first = next(iter(configs.values()))
        panels = [score.genes for one in scored for score in one.evaluation.scores]
        published, of_paper = rows_beside(settings.dataset, first.labels, panels)
        result = compared(
            scored,
            title=", ".join(filter(None, ["Methods", settings.dataset])),
            name=NAME,
            noun="method",
            folder=out,
            published=paper_beside(published, configs, settings.dataset),
            notes=[*of_paper, *_unlike(configs)],
            base=base_of(configs),
            particulars=_particulars(out, titles),
        )
        result.write()
    return result


@takes_paths
def compare_externally(
    out: Path,
    configs: Mapping[Row, Config],
    seeds: int,
    sections: ExternalSections,
    settings: RunSettings = RunSettings(),  # noqa: B008  frozen
) -> ExternalComparison:
    """Score every model of a comparison on sections of other donors, and make one table of all.

    Args:
        out: the folder of the grid, as :func:`compare` leaves it; the table is ``external-NAME.csv`` and its kin in it.
        configs, seeds: as for :func:`compare`.
        sections: on which; each is encoded once for all methods.
        settings: where features and weights are, and how the arithmetic runs.

    Raises:
        GeneDMLError: whatever the user can fix; every donor was seen in training; too few genes in common.
    """
    name, cells, titles = f"external-{sections.name}", _cells(configs, seeds), _titles(configs)
    refuse_overwriting_inputs(out.glob(f"{name}.*"), [file for sample in sections.samples for file in sample.files])
    with claimed(out / f"{name}.csv", f"The comparison on {sections.name} in {out}"):
        runs = [out / cell for cell in cells]
        each = score_external(runs, sections, settings.features, settings.weights, settings.compute)
        result = compared_externally(
            [
                (titles[cell.split("/")[0]], config.training.seed, external)
                for (cell, config), external in zip(cells.items(), each, strict=True)
            ],
            title=f"Methods on {sections.name}",
            name=name,
            folder=out,
            base=base_of(configs),
        )
        result.write()
    return result


def _cells(configs: Mapping[Row, Config], seeds: int) -> dict[str, Config]:
    """The configuration of every run, by the path of its folder in the grid's."""
    first = next(iter(configs.values())).training.seed
    return {
        f"{_folder(row)}/seed-{seed}": _with_seed(config, seed)
        for row, config in configs.items()
        for seed in range(first, first + seeds)
    }


def _folder(row: Row) -> str:
    return "-".join(filter(None, row))


def _title(row: Row, config: Config) -> str:
    """What a row is called: its method and variant, and the preset where it is named."""
    method, preset = row
    return ", ".join(filter(None, [title_of(method, variant_of(method, config.network)), preset]))


def _titles(configs: Mapping[Row, Config]) -> dict[str, str]:
    """The title of every row, by its folder in the grid's."""
    return {_folder(row): _title(row, config) for row, config in configs.items()}


def base_of(configs: Mapping[Row, Config]) -> str:
    """The title of the row that the others are held against: the first of Gene-DML, or else the first."""
    of_default = (row for row, config in configs.items() if config.method == DEFAULT_METHOD)
    row = next(of_default, next(iter(configs)))
    return _title(row, configs[row])


def paper_beside(published: Sequence[PublishedRow], configs: Mapping[Row, Config], dataset: str) -> pd.DataFrame:
    """The paper's means of a method by the titles of its rows: those without a named preset or with a published one.

    Args:
        published: of every method.
        configs: of every row of the comparison.
        dataset: Gene-DML's published presets are called by theirs.
    """
    of_paper = {
        _title(row, config): row[0]
        for row, config in configs.items()
        if row[1] in ("", dataset) or row[1].startswith("published")
    }
    return means_of_networks(published, of_paper)


def _check_alike(configs: Mapping[Row, Config]) -> None:
    """Refuse, before anything is trained, settings whose scores do not stand in one table.

    Raises:
        GeneDMLError: naming the part.
    """
    (first, reference), *others = configs.items()
    for row, config in others:
        for part in ("encoder", "labels"):
            if getattr(config, part) != getattr(reference, part):
                raise GeneDMLError(
                    f"{_folder(row)} and {_folder(first)} have other settings of {part}: their scores do not stand in "
                    "one table. Give both the same, with --set or --encoder."
                )


def _unlike(configs: Mapping[Row, Config]) -> list[Note]:
    """What some methods see or learn from and the first does not, so that a difference is not the method's alone."""
    (first, reference), *others = ((_title(row, config), config) for row, config in configs.items())
    parts: dict[str, Callable[[Config], object]] = {
        "views": lambda config: config.views,
        "training.refit": lambda config: config.training.refit,
        "training.select_on": lambda config: config.training.select_on,
    }
    notes = []
    for name, part in parts.items():
        unlike = [title for title, config in others if part(config) != part(reference)]
        if unlike:
            text = f"{', '.join(unlike)}: other {name} than {first}, so differences are not the method's alone."
            notes.append(Note(None, text))
    return notes


def _with_seed(config: Config, seed: int) -> Config:
    return replace(config, training=replace(config.training, seed=seed))


def _particulars(out: Path, titles: Mapping[str, str]) -> pd.DataFrame:
    """Encoder, preset, tile, parameters of every row, and mean wall seconds of training a fold where known."""
    times, rows = seconds_of(out), {}
    for name, title in titles.items():
        runs = sorted(folder.name for folder in (out / name).glob("seed-*"))
        seconds = [value for run in runs for value in times.get(f"{name}/{run}", [])]
        card = load_card(next(iter(model_files_in(out / name / runs[0]).values())))
        with torch.device("meta"):
            network = build(card.config.method, card.config.network, card.shape)
        rows[title] = {
            "encoder": card.encoder.name,
            "preset": preset_of(card.config),
            "tile_um": tile_um(card),
            "parameters": sum(value.numel() for value in network.parameters() if value.requires_grad),
            "seconds_a_fold": sum(seconds) / len(seconds) if seconds else float("nan"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tile_um(card: ModelCard) -> str:
    """Sides in um of the tiles around a spot that its network looks at; from to where slides differ in um/px."""
    views = card.config.views
    scales = sorted({*card.um_per_px}) if views.um_per_px == "native" else [views.um_per_px]
    tiles = network_class(card.config.method).needs(card.config.network).tiles or (Tile(views.tile_px),)
    sides_px = [tile.side_px * tile.zoom for tile in tiles]
    return ", ".join("-".join(dict.fromkeys(f"{side * scale:.0f}" for scale in scales)) for side in sides_px)
