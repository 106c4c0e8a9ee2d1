"""genedml encoders"""


def encoders() -> None:
    """List the image encoders: width, tokens, licence, and whether their weights are on this machine."""
    from genedml.encoders import ENCODERS
    from genedml_cli import tables

    tables.show_encoders(ENCODERS.values())
