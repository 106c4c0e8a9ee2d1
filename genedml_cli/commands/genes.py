"""genedml genes"""

from typing import Annotated

import typer

from genedml_cli.commands import options

EXAMPLES = ("genedml genes HER2ST", "genedml genes --samples sheet.csv --size 500")


def genes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A data set, one fold's file, a run folder whose folds have one panel, or pretrained; none with "
            "--samples.",
            show_default=False,
        ),
    ] = None,
    derive: Annotated[
        bool, typer.Option("--derive", help="Derive the data set's panel from its counts, which need no images.")
    ] = False,
    root: options.RootOption = None,
    samples: options.SamplesOption = None,
    allow_partial: options.PartialOption = False,
    size: Annotated[int, typer.Option(min=1, metavar="N", help="How many genes to derive.")] = 250,
    json_: options.JsonOption = False,
) -> None:
    """Print a panel, one gene a line: as published, of a model, or derived from counts."""
    from genedml_cli import console
    from genedml_cli.runs import panels

    found = panels.find_panel(name, derive, root, samples, allow_partial, size)
    if json_:
        console.document({"genes": found})
    else:
        console.say("\n".join(found))
