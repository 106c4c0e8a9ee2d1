"""genedml ablate"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import groups, options
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
            "term; tau: its temperature; additions: what the preset small adds to the paper, each taken away."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the grid; call again to go on.", rich_help_panel=RUN)
    ],
    training: groups.TrainingOptions,
    machine: groups.ComputeOptions,
    values: Annotated[
        str | None,
        typer.Option(
            help="Values of k, lambda or tau, separated by commas. (default: the paper's)", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds a setting, counted on from training.seed.")] = 3,
    json_: options.JsonOption = False,
) -> None:
    """Repeat an ablation of the paper: train every setting with several seeds; one table, the paper's beside it."""
    from genedml_cli import console
    from genedml_cli.commands.tables.comparison import show_comparison
    from genedml_cli.runs import ablation

    sections, partial = training.sections()
    settings = training.settings(partial, machine.compute)
    result = ablation.ablate(sections, out, table, training.trained(), ablation.parse_values(values), seeds, settings)
    if result is None:
        training.say_shard_done(out, json_)
    elif json_:
        console.document({**result.to_dict(), "folder": result.folder})
    else:
        show_comparison(result)
