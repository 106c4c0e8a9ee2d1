"""genedml models"""

from genedml_cli.commands import options

EXAMPLES = ("genedml models", "genedml models --json")


def models(json_: options.JsonOption = False) -> None:
    """List the trained models on this machine: the two that come along, runs under runs/, those from the hub."""
    from genedml_cli import console
    from genedml_cli.commands.tables import models as table
    from genedml_cli.outputs.local_models import local_models

    found = local_models()
    if json_:
        console.document([model.to_dict() for model in found])
    else:
        table.show_models(found)
