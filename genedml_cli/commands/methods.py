"""genedml methods"""

from typing import Annotated

import typer

from genedml_cli.commands import options

EXAMPLES = ("genedml methods", "genedml methods --encoder virchow2")


def methods(
    encoder: Annotated[str, typer.Option(help="Encoder for whose vectors parameters are counted.")] = "uni",
    json_: options.JsonOption = False,
) -> None:
    """List the networks that train takes: paper, what they see, parameters, whether they need raw pixels."""
    from genedml_cli import console
    from genedml_cli.commands.tables import methods as table

    rows = table.method_rows(encoder)
    if json_:
        console.document([row.to_dict() for row in rows])
    else:
        table.show_methods(rows, encoder)
