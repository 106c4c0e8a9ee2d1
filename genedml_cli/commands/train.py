"""genedml train"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options
from genedml_cli.commands.options import MODEL, RUN

EXAMPLES = (
    "genedml train --samples sheet.csv --encoder stain-texture -o runs/mine",
    "genedml train --dataset HER2ST --root her2st --fold 1 -o runs/her2st",
)


def train(
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
    method: options.MethodOption = None,
    encoder: options.EncoderOption = None,
    weights: options.WeightsOption = None,
    backbone_weights: options.BackboneWeightsOption = None,
    preset: options.PresetOption = None,
    config: options.ConfigOption = None,
    set_: options.SetOption = None,
    select_on: options.SelectOnOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all that is random.", rich_help_panel=MODEL)] = None,
    fold: options.FoldOption = "all",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder. (default: runs/TIME)", show_default=False, rich_help_panel=RUN),
    ] = None,
    features: options.FeaturesOption = Path("features"),
    on: options.OnOption = None,
    device: options.DeviceOption = options.Device.auto,
    compiled: options.CompileOption = False,
    batch_tiles: options.BatchTilesOption = None,
    deterministic: options.DeterministicOption = False,
    json_: options.JsonOption = False,
) -> None:
    """Train and test a network, a fold at a time; leaves a run folder that predict and evaluate take.

    With --fold all-sections it trains one model on every section, without scores, which predict then takes.
    """
    from genedml_cli import console
    from genedml_cli.commands import choices
    from genedml_cli.commands.tables import scores
    from genedml_cli.machine.compute import Compute
    from genedml_cli.runs import run as runs

    scale = choices.known_scale(um_per_px)
    chosen, partial = choices.choose_samples(dataset, samples, root, allow_partial, scale, pitch_um)
    named = choices.only_dataset(dataset)
    overrides = choices.to_overrides(set_, seed=seed, select_on=select_on, um_per_px=um_per_px, neighbors=neighbors)
    merged = choices.choose_config(named, encoder, preset, config, overrides, target, method)
    run = out or runs.new_run_folder()
    evaluation = runs.train(
        chosen,
        run,
        merged,
        fold=fold,
        panel=choices.choose_panel(panel, named),
        features=features,
        weights=weights,
        backbone_weights=backbone_weights,
        compute=Compute(device, compiled, batch_tiles, deterministic),
        on=on,
        partial=partial,
        dataset=named or "",
        allow_off_tissue=allow_off_tissue,
        skip_off_image=skip_off_image,
    )
    last_line = f"The run is in {run}. Next: genedml predict SLIDE --spots FILE --model {run} -o out.h5ad"
    if json_:
        console.document({**(evaluation.to_dict() if evaluation else {}), "folder": run})
    elif evaluation is None:
        console.say(f"No section was left out, so there are no scores. {last_line}")
    else:
        scores.show_evaluation(evaluation, last_line)
