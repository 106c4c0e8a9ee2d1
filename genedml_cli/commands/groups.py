"""Groups of options that commands have in common: a parameter of such a type takes all of them.

:class:`genedml_cli.commands.options.App` shows every field as an option of the command.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genedml_cli.commands import options
from genedml_cli.machine.compute import Compute

if TYPE_CHECKING:
    from genedml.config import Config
    from genedml_cli.datasets.samples import Sample
    from genedml_cli.evaluation.external import External
    from genedml_cli.runs.planning import RunSettings


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how the arithmetic runs."""

    device: options.DeviceOption = options.Device.auto
    compiled: options.CompileOption = False
    batch_tiles: options.BatchTilesOption = None
    deterministic: options.DeterministicOption = False

    @property
    def compute(self) -> Compute:
        """The same as the library takes it."""
        return Compute(self.device, self.compiled, self.batch_tiles, self.deterministic)


@dataclass(frozen=True)
class SectionOptions:
    """Sections, and what their features depend on."""

    dataset: options.DatasetOption = None
    samples: options.SamplesOption = None
    root: options.RootOption = None
    allow_partial: options.PartialOption = False
    allow_off_tissue: options.OffTissueOption = False
    skip_off_image: options.OffImageOption = False
    um_per_px: options.ViewsUmPerPxOption = None
    pitch_um: options.PitchOption = None
    neighbors: options.NeighborsOption = None
    encoder: options.EncoderOption = None
    weights: options.WeightsOption = None
    preset: options.PresetOption = None
    config: options.ConfigOption = None
    set_: options.SetOption = None
    features: options.FeaturesOption = Path("features")

    @property
    def named(self) -> str | None:
        """The data set whose preset and panel are meant."""
        from genedml_cli.commands.choices import only_dataset

        return only_dataset(self.dataset)

    def sections(self) -> "tuple[list[Sample], str]":
        """As :func:`genedml_cli.commands.choices.choose_samples`."""
        from genedml_cli.commands.choices import choose_samples, known_scale

        scale = known_scale(self.um_per_px)
        return choose_samples(self.dataset, self.samples, self.root, self.allow_partial, scale, self.pitch_um)

    def configuration(
        self,
        method: str | None = None,
        *,
        target: str | None = None,
        seed: int | None = None,
        select_on: str | None = None,
    ) -> "Config":
        """As :func:`genedml_cli.commands.choices.choose_config`, with what the options say over the file."""
        from genedml_cli.commands.choices import choose_config, to_overrides

        overrides = to_overrides(
            self.set_, seed=seed, select_on=select_on, um_per_px=self.um_per_px, neighbors=self.neighbors
        )
        return choose_config(self.named, self.encoder, self.preset, self.config, overrides, target, method)


@dataclass(frozen=True)
class TrainingOptions(SectionOptions):
    """Sections, configuration and folds: what is trained."""

    panel: options.PanelOption = None
    gene_map: options.GeneMapOption = None
    target: options.TargetOption = None
    select_on: options.SelectOnOption = None
    fold: options.FoldOption = "all"
    on: options.OnOption = None
    shard: options.ShardOption = None
    collect: options.CollectOption = False

    def trained(self, method: str | None = None, seed: int | None = None, preset: str = "") -> "Config":
        """The configuration of a run; ``preset`` in the place of the one that was given for all methods."""
        options_of_run = replace(self, preset=preset or self.preset)
        return options_of_run.configuration(method, target=self.target, seed=seed, select_on=self.select_on)

    def settings(self, partial: str, compute: Compute, backbones: Mapping[str, Path] | None = None) -> "RunSettings":
        """Of all runs; ``partial`` is what must be said of sections that are missing, ``backbones`` files by method."""
        from genedml_cli.commands.choices import choose_panel
        from genedml_cli.runs.planning import RunSettings

        return RunSettings(
            self.fold,
            choose_panel(self.panel, self.named),
            self.features,
            self.weights,
            compute,
            self.on,
            partial,
            self.named or "",
            self.allow_off_tissue,
            self.skip_off_image,
            backbones or {},
            self.shard,
            self.collect,
            self.gene_map,
        )

    def say_shard_done(self, folder: Path, json_: bool) -> None:
        """What a shard says in place of scores."""
        from genedml_cli import console

        if json_:
            console.document({"folder": folder, "shard": str(self.shard)})
        elif self.shard is not None:
            console.say(self.shard.done(folder))


@dataclass(frozen=True)
class ExternalOptions:
    """Sections of other donors to score the models of a run on, and what their features depend on."""

    external: Annotated[
        str | None,
        typer.Option(
            help="Score every fold's model on sections of other donors: a sample sheet, or visium-breast.",
            rich_help_panel=options.DATA,
        ),
    ] = None
    root: options.RootOption = None
    allow_partial: options.PartialOption = False
    allow_off_tissue: options.OffTissueOption = False
    skip_off_image: options.OffImageOption = False
    weights: options.WeightsOption = None
    features: options.FeaturesOption = Path("features")
    device: options.DeviceOption = options.Device.auto
    deterministic: options.DeterministicOption = False

    def check(self) -> None:
        """Refuse options of sections without any.

        Raises:
            typer.BadParameter: naming them.
        """
        allowed = self.allow_partial or self.allow_off_tissue or self.skip_off_image
        if self.external is None and (self.root or self.weights or allowed or self.deterministic):
            others = "--root, --weights, --allow-partial, --allow-off-tissue, --skip-off-image and --deterministic"
            raise typer.BadParameter(f"{others} go with --external.")

    def evaluated(self, run: Path | None, gene_map: Path | None, ceiling_if_possible: bool) -> "External":
        """As :func:`genedml_cli.evaluation.external.evaluate_external`."""
        from genedml_cli.evaluation.external import evaluate_external

        return evaluate_external(
            run,
            self.external or "",
            self.root,
            self.allow_partial,
            self.allow_off_tissue,
            self.features,
            skip_off_image=self.skip_off_image,
            weights=self.weights,
            compute=Compute(self.device, deterministic=self.deterministic),
            gene_map=gene_map,
            ceiling_if_possible=ceiling_if_possible,
        )
