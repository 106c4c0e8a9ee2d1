"""genedml compare"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options
from genedml_cli.commands.options import DATA, RUN

EXAMPLES = (
    "genedml compare --samples sheet.csv -o compare",
    "genedml compare --methods gene-dml,triplex --samples sheet.csv -o two",
)


def compare(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the grid; call again to go on.", rich_help_panel=RUN)
    ],
    methods: Annotated[
        str, typer.Option(help="Names with commas between them, or all (see: genedml methods).", metavar="NAMES")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds a method, counted on from training.seed.")] = 3,
    external: Annotated[
        str | None,
        typer.Option(
            help="Score every model also on sections of other donors: a sample sheet, or visium-breast.",
            rich_help_panel=DATA,
        ),
    ] = None,
    external_root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds their data. (default: --root)", show_default=False, rich_help_panel=DATA),
    ] = None,
    dataset: options.DatasetOption = None,
    samples: options.SamplesOption = None,
    root: options.RootOption = None,
    allow_partial: options.PartialOption = False,
    allow_off_tissue: options.OffTissueOption = False,
    skip_off_image: options.OffImageOption = False,
    um_per_px: options.ViewsUmPerPxOption = None,
    pitch_um: options.PitchOption = None,
    panel: options.PanelOption = None,
    target: options.TargetOption = None,
    neighbors: options.NeighborsOption = None,
    encoder: options.EncoderOption = None,
    weights: options.WeightsOption = None,
    backbone_weights: options.BackboneWeightsOption = None,
    preset: options.PresetOption = None,
    config: options.ConfigOption = None,
    set_: options.SetOption = None,
    select_on: options.SelectOnOption = None,
    fold: options.FoldOption = "all",
    features: options.FeaturesOption = Path("features"),
    on: options.OnOption = None,
    device: options.DeviceOption = options.Device.auto,
    compiled: options.CompileOption = False,
    batch_tiles: options.BatchTilesOption = None,
    deterministic: options.DeterministicOption = False,
    json_: options.JsonOption = False,
) -> None:
    """Train several methods on the same sections, folds, panel and labels; one table, the paper's rows beside it."""
    from genedml_cli import console
    from genedml_cli.commands import choices
    from genedml_cli.commands.tables.comparison import show_comparison
    from genedml_cli.commands.tables.external import show_external_comparison
    from genedml_cli.evaluation.external_sections import find_sections
    from genedml_cli.machine.compute import Compute
    from genedml_cli.runs import comparison
    from genedml_cli.runs.planning import RunSettings

    if external is None and external_root is not None:
        raise typer.BadParameter("--external-root goes with --external.")
    allowed = allow_partial, allow_off_tissue, skip_off_image
    elsewhere = None if external is None else find_sections(external, external_root or root, *allowed)
    scale, named = choices.known_scale(um_per_px), choices.only_dataset(dataset)
    chosen, partial = choices.choose_samples(dataset, samples, root, allow_partial, scale, pitch_um)
    overrides = choices.to_overrides(set_, select_on=select_on, um_per_px=um_per_px, neighbors=neighbors)
    configs = {
        method: choices.choose_config(named, encoder, preset, config, overrides, target, method)
        for method in choices.choose_methods(methods)
    }
    settings = RunSettings(
        fold,
        choices.choose_panel(panel, named),
        features,
        weights,
        Compute(device, compiled, batch_tiles, deterministic),
        on,
        partial,
        named or "",
        allow_off_tissue,
        skip_off_image,
        backbone_weights,
    )
    result = comparison.compare(chosen, out, configs, seeds, settings)
    of_others = None if elsewhere is None else comparison.compare_externally(out, configs, seeds, elsewhere, settings)
    if json_:
        external_rows = {} if of_others is None else {"external": of_others.to_dict()}
        console.document({**result.to_dict(), "folder": result.folder, **external_rows})
        return
    show_comparison(result)
    if of_others is not None:
        show_external_comparison(of_others)
