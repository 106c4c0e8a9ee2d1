"""genedml demo"""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("genedml demo", "genedml demo -o trial")


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")] = Path("genedml-demo"),
) -> None:
    """Make a small synthetic data set, train, predict a held-out slide, evaluate and plot: about a minute."""
    from genedml_cli.commands.tables.demo import show_demo
    from genedml_cli.demo import run_demo

    show_demo(run_demo(out))
