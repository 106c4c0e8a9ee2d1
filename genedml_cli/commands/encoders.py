"""genedml encoders"""

from genedml_cli import options


def encoders(json_: options.JsonOption = False) -> None:
    """List the image encoders: width, tokens, licence, and whether their weights are on this machine."""
    from genedml.encoders import ENCODERS
    from genedml_cli import console, encoder_tables

    if json_:
        console.document(encoder_tables.encoders_document(ENCODERS.values()))
    else:
        encoder_tables.show_encoders(ENCODERS.values())
