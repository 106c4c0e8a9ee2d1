"""genedml push"""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("genedml push runs/mine hf://owner/name", "genedml push runs/mine hf://my-lab/breast-visium")


def push(
    run: Annotated[Path, typer.Argument(help="A run folder with finished models.")],
    model: Annotated[Path, typer.Argument(metavar="hf://OWNER/NAME", help="Where to: made, private, if need be.")],
) -> None:
    """Put a run's models and a card on the Hugging Face hub; names of patients and sections become numbers."""
    from genedml_cli import console
    from genedml_cli.runs import pushing
    from genedml_cli.text import gigabytes

    done = pushing.push(run, model)
    console.say(f"{done.page}: {console.count(len(done.files), 'file')}, {gigabytes(done.size)}.")
    console.say("Read its README.md there before you make it public. Others give it as --model hf://OWNER/NAME.")
