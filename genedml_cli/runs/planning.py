"""The plans of a run's folds, and of those of all runs of a grid: what they have in common is read or made once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anndata

from genedml.checkpoint import EncoderRecord, load_card
from genedml.config import Config, ViewsConfig
from genedml.encoders.encoder import Encoder, starting_weights
from genedml.encoders.weights import StartingWeights
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Tile
from genedml.networks.registry import network_class, title_of
from genedml_cli import console
from genedml_cli.datasets.duplicates import warn_of_twins
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.panels import check_panels, load_panel
from genedml_cli.datasets.samples import EVERY_FOLD, Sample
from genedml_cli.datasets.shared_counts import check_shared
from genedml_cli.expression.joins import TOLD_APART
from genedml_cli.features.extraction import extract
from genedml_cli.features.section_features import SectionFeatures, encoder_record
from genedml_cli.machine.compute import AUTO, Compute
from genedml_cli.machine.devices import prepare_encoder
from genedml_cli.machine.shards import Shard
from genedml_cli.outputs.run_folder import CONTENT, model_files_in
from genedml_cli.runs.count_tables import CountTables
from genedml_cli.runs.fold_checks import check_folds, check_network
from genedml_cli.runs.fold_notes import panel_note
from genedml_cli.runs.fold_plan import FoldPlan, SectionPlan
from genedml_cli.runs.fold_references import shared_file
from genedml_cli.runs.record import RunRecord


@dataclass(frozen=True)
class RunSettings:
    """What :func:`genedml_cli.runs.run.train` takes besides sections, folder and configuration, and explains.

    Paths may be given as text.
    """

    fold: str = EVERY_FOLD
    panel: str = "training"
    features: Path = Path("features")
    weights: Path | None = None
    compute: Compute = AUTO
    on: str | None = None
    partial: str = ""
    dataset: str = ""
    allow_off_tissue: bool = False
    skip_off_image: bool = False
    backbone_weights: Mapping[str, Path] = field(default_factory=dict)
    """By method."""
    shard: Shard | None = None
    collect: bool = False
    gene_map: Path | None = None

    def __post_init__(self) -> None:
        for name in ("features", "weights", "gene_map"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else Path(given))
        files = {method: Path(file) for method, file in self.backbone_weights.items()}
        object.__setattr__(self, "backbone_weights", files)


@dataclass(frozen=True)
class Run:
    """A run that is to be made: its folder, and which of its folds are still to be trained."""

    folder: Path
    config: Config
    record: RunRecord
    folds: Sequence[Fold]


@dataclass(frozen=True)
class FeaturesKey:
    """What of a configuration the features of a section depend on."""

    encoder: str
    views: ViewsConfig
    flips: bool
    tiles: tuple[Tile, ...]


Plans = dict[Path, list[FoldPlan]]
"""Of every folder of a run."""


def plan_runs(
    runs: Sequence[Run],
    samples: Sequence[Sample],
    settings: RunSettings,
    counts: CountTables,
    references: Path | None = None,
) -> Plans:
    """Plan the folds of runs on the same sections; encodes what is not encoded yet, and begins the runs' folders.

    What may be wrong with counts and panels is said before hours of encoding.

    Args:
        runs: with their folds.
        samples: of all runs.
        settings: of all runs.
        counts: takes those that are read.
        references: where runs that have folds in common keep what does not depend on the network.

    Raises:
        GeneDMLError: whatever is wrong with the files, before anything is trained.
    """
    begun = [run for run in runs if run.folds]
    checked = runs if settings.weights is not None else begun  # named weights are held against models that are there
    encoders = _prepare_encoders(checked, settings)
    if not begun:
        return {}
    for run in begun:
        check_network(run.config, encoders[run.config.encoder].info)
    _check_backbones(runs, settings.backbone_weights)
    starts = _starting_weights(begun, settings.backbone_weights)
    used = [sample for sample in samples if any(sample in fold.sections for run in begun for fold in run.folds)]
    tables = {sample.name: counts.read(sample) for sample in used}
    shared, twins = check_shared(used, tables), warn_of_twins(used, tables)
    panels = _panels(begun, settings.panel, tables)
    planned = [(fold, run.config, panels[_panel_key(fold, run.config)]) for run in begun for fold in run.folds]
    check_folds(planned, tables, settings.skip_off_image)
    features = _extract(begun, used, encoders, settings)
    slides = {name: section.slide_sha256 for made in features.values() for name, section in made.items()}
    begun[0].record.check_unchanged(slides)
    plans: Plans = {}
    for run in begun:
        run.record.write()
        content = {said["name"]: said[f"counts{CONTENT}"] for said in run.record.description["samples"]}
        sections = {
            name: SectionPlan.of(section, content[name], TOLD_APART in tables[name].uns, shared.get(name), twins[name])
            for name, section in features[features_key(run.config)].items()
        }
        encoder = encoder_record(encoders[run.config.encoder])
        plans[run.folder] = [
            replace(
                _plan(fold, run.config, panels[_panel_key(fold, run.config)], encoder, sections, settings, references),
                start=starts.get(_backbone(run)),
            )
            for fold in run.folds
        ]
    return plans


def _prepare_encoders(runs: Sequence[Run], settings: RunSettings) -> dict[str, Encoder]:
    """The encoders by name; refuses to add folds to those of one with other weights."""
    names = dict.fromkeys(run.config.encoder for run in runs)
    encoders = {name: prepare_encoder(name, settings.weights, settings.compute) for name in names}
    for run in runs:
        for file in model_files_in(run.folder).values():
            known = load_card(file).encoder
            if known != encoder_record(encoders[run.config.encoder]):
                raise GeneDMLError(
                    f"{file} was trained on other weights of {known.name} than those here now. Give another --out."
                )
    return encoders


def _check_backbones(runs: Sequence[Run], files: Mapping[str, Path]) -> None:
    """Refuse a weights file for a method that starts from none.

    Raises:
        GeneDMLError: naming it.
    """
    for method in files.keys() - {run.config.method for run in runs if backbone_of(run.config)}:
        raise GeneDMLError(
            f"--backbone-weights has a file for {method}, which starts from no weights with these settings. Leave it "
            "out, or take a method with a backbone, and --preset published (st-net, bleep, triplex)."
        )


def _starting_weights(runs: Sequence[Run], files: Mapping[str, Path]) -> dict[tuple[str, str], StartingWeights]:
    """What the backbone of every method starts from; refuses to add folds to those that started from other weights."""
    backbones = dict.fromkeys(_backbone(run) for run in runs if backbone_of(run.config))
    starts = {(method, name): starting_weights(name, files.get(method)) for method, name in backbones}
    for (method, name), start in starts.items():
        console.note(f"{title_of(method)}: {name}, trained from {start.file}; licence: {start.licence}.")
    for run in (run for run in runs if _backbone(run) in starts):
        for file in model_files_in(run.folder).values():
            if load_card(file).made_by.get("backbone_sha256") != starts[_backbone(run)].sha256:
                raise GeneDMLError(
                    f"The backbone of {file} started from other weights than those here now. Give another --out."
                )
    return starts


def _backbone(run: Run) -> tuple[str, str]:
    return run.config.method, backbone_of(run.config)


def backbone_of(config: Config) -> str:
    """The model of timm whose weights a network of these settings starts from; empty where it starts from none."""
    return network_class(config.method).needs(config.network).backbone


def _panels(runs: Sequence[Run], panel: str, tables: Mapping[str, anndata.AnnData]) -> dict[object, tuple[str, ...]]:
    """The genes of every fold of every run, by :func:`_panel_key`."""
    panels: dict[object, tuple[str, ...]] = {}
    for run in runs:
        for fold in run.folds:
            key = _panel_key(fold, run.config)
            if key not in panels:
                panels[key] = load_panel(panel, fold, tables, run.config.labels.panel_size)
    check_panels({str(number): genes for number, genes in enumerate(panels.values())}, tables)
    return panels


def _panel_key(fold: Fold, config: Config) -> object:
    return fold.train, fold.validation, config.labels.panel_size


def _extract(
    runs: Sequence[Run], samples: Sequence[Sample], encoders: Mapping[str, Encoder], settings: RunSettings
) -> dict[FeaturesKey, dict[str, SectionFeatures]]:
    """The features of every section, by :func:`features_key`."""
    made: dict[FeaturesKey, dict[str, SectionFeatures]] = {}
    allowed = settings.allow_off_tissue, settings.skip_off_image
    # Features in eight orientations also serve where one is asked, so they are made first.
    for key in sorted({features_key(run.config) for run in runs}, key=lambda key: not key.flips):
        made[key] = extract(
            samples, encoders[key.encoder], key.views, settings.features, key.flips, *allowed, tiles=key.tiles
        )
    return made


def features_key(config: Config) -> FeaturesKey:
    """What of a configuration the features of a section depend on."""
    needs = network_class(config.method).needs(config.network)
    return FeaturesKey(
        config.encoder,
        config.views,
        needs.orientations or (config.training.augment and needs.tokens),
        tuple(needs.tiles),
    )


def _plan(
    fold: Fold,
    config: Config,
    genes: tuple[str, ...],
    encoder: EncoderRecord,
    sections: Mapping[str, SectionPlan],
    settings: RunSettings,
    references: Path | None,
) -> FoldPlan:
    of_fold = {sample.name: sections[sample.name] for sample in fold.sections}
    said = settings.dataset, settings.partial, panel_note(settings.panel, settings.dataset)
    plan = FoldPlan(fold, config, genes, encoder, of_fold, *said)
    return plan if references is None else replace(plan, references=shared_file(references, plan))
