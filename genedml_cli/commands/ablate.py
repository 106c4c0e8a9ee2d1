"""genedml ablate"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options
from genedml_cli.commands.options import RUN

EXAMPLES = (
    "genedml ablate --table components --samples sheet.csv -o runs/parts",
    "genedml ablate --table k --values 2,4,8 --samples sheet.csv -o runs/k",
)


class Table(StrEnum):
    """What is varied."""

    components = "components"
    k = "k"
    lambda_ = "lambda"
    tau = "tau"
    additions = "additions"


def ablate(
    table: Annotated[
        Table,
        typer.Option(
            help="components: the alignment pathways on and off; k: number of groups; lambda: weight of the group "
            "term; tau: its temperature."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the grid; call again to go on.", rich_help_panel=RUN)
    ],
    values: Annotated[
        str | None,
        typer.Option(
            help="Values of k, lambda or tau, separated by commas. (default: the paper's)", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds a setting, counted on from training.seed.")] = 3,
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
    """Repeat an ablation of the paper: train every setting with several seeds; one table, the paper's beside it."""
    from genedml_cli import console
    from genedml_cli.commands import choices
    from genedml_cli.commands.tables.comparison import show_comparison
    from genedml_cli.machine.compute import Compute
    from genedml_cli.runs import ablation
    from genedml_cli.runs.planning import RunSettings

    scale, named = choices.known_scale(um_per_px), choices.only_dataset(dataset)
    chosen, partial = choices.choose_samples(dataset, samples, root, allow_partial, scale, pitch_um)
    overrides = choices.to_overrides(set_, select_on=select_on, um_per_px=um_per_px, neighbors=neighbors)
    merged = choices.choose_config(named, encoder, preset, config, overrides, target)
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
    )
    result = ablation.ablate(chosen, out, table, merged, ablation.parse_values(values), seeds, settings)
    if json_:
        console.document({**result.to_dict(), "folder": result.folder})
    else:
        show_comparison(result)
