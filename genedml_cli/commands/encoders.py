"""genedml encoders"""

from genedml_cli.commands import options

EXAMPLES = ("genedml encoders", "genedml encoders --json")


def encoders(json_: options.JsonOption = False) -> None:
    """List the image encoders: width, tokens, licence, and whether their weights are on this machine."""
    from genedml.encoders.table import ENCODERS
    from genedml_cli import console
    from genedml_cli.commands.tables import encoders

    if json_:
        console.document(encoders.encoders_document(ENCODERS.values()))
    else:
        encoders.show_encoders(ENCODERS.values())
