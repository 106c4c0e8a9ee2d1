"""genedml benchmark"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options
from genedml_cli.commands.options import DATA, RUN

EXAMPLES = ("genedml benchmark", "genedml benchmark slide.svs --spots spots.csv -o speed.json")


def benchmark(
    slide: Annotated[
        Path | None,
        typer.Argument(help="A slide to measure on. (default: a synthetic section)", show_default=False),
    ] = None,
    spots: Annotated[
        Path | None, typer.Option("--spots", help="Its spots, as for predict.", rich_help_panel=DATA)
    ] = None,
    um_per_px: options.UmPerPxOption = None,
    pitch_um: options.PitchOption = None,
    encoder: options.EncoderOption = "stain-texture",
    weights: options.WeightsOption = None,
    preset: options.PresetOption = None,
    config: options.ConfigOption = None,
    set_: options.SetOption = None,
    neighbors: options.NeighborsOption = None,
    device: options.DeviceOption = options.Device.auto,
    compiled: options.CompileOption = False,
    batch_tiles: options.BatchTilesOption = None,
    max_spots: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use no more spots.", rich_help_panel=RUN)
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="About how long each part takes.", rich_help_panel=RUN)
    ] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON to write.", rich_help_panel=RUN)] = None,
    json_: options.JsonOption = False,
) -> None:
    """Measure reading, encoding, training and prediction on this machine."""
    from genedml_cli import console
    from genedml_cli.benchmark.benchmark import benchmark as measure
    from genedml_cli.commands import choices
    from genedml_cli.commands.tables.benchmark import show_benchmark
    from genedml_cli.machine.compute import Compute

    if (slide is None) != (spots is None):
        raise typer.BadParameter("give a slide and --spots, or neither for a synthetic section")
    overrides = choices.to_overrides(set_, neighbors=neighbors)
    merged = choices.choose_config(None, encoder, preset, config, overrides)
    result = measure(
        slide,
        spots,
        merged,
        um_per_px=um_per_px,
        pitch_um=pitch_um,
        weights=weights,
        compute=Compute(device, compiled, batch_tiles),
        max_spots=max_spots,
        seconds=seconds,
        out=out,
    )
    if json_:
        console.document(result.to_dict())
    else:
        show_benchmark(result)
