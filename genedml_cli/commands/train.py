"""genedml train"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import groups, options
from genedml_cli.commands.options import MODEL, RUN

EXAMPLES = (
    "genedml train --samples sheet.csv --encoder stain-texture -o runs/mine",
    "genedml train --dataset HER2ST --root her2st --fold 1 -o runs/her2st",
)


def train(
    training: groups.TrainingOptions,
    machine: groups.ComputeOptions,
    method: options.MethodOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all that is random.", rich_help_panel=MODEL)] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder. (default: runs/TIME)", show_default=False, rich_help_panel=RUN),
    ] = None,
    backbone_weights: options.BackboneWeightsOption = None,
    json_: options.JsonOption = False,
) -> None:
    """Train and test a network, a fold at a time; leaves a run folder that predict and evaluate take.

    With --fold all-sections it trains one model on every section, without scores, which predict then takes.
    """
    from genedml_cli import console
    from genedml_cli.commands.tables import scores
    from genedml_cli.runs import run as runs

    if out is None and (training.shard or training.collect):
        raise typer.BadParameter("--shard and --collect go with --out: shards of a run share its folder.")
    run = out or runs.new_run_folder()
    sections, partial = training.sections()
    config = training.trained(method, seed)
    backbones = {} if backbone_weights is None else {config.method: backbone_weights}
    settings = training.settings(partial, machine.compute, backbones)
    evaluation = runs.train_with(sections, run, config, settings)
    last_line = f"The run is in {run}. Next: genedml predict SLIDE --spots FILE --model {run} -o out.h5ad"
    if training.shard is not None:
        training.say_shard_done(run, json_)
    elif json_:
        console.document({**(evaluation.to_dict() if evaluation else {}), "folder": run})
    elif evaluation is None:
        console.say(f"No section was left out, so there are no scores. {last_line}")
    else:
        scores.show_evaluation(evaluation, last_line)
