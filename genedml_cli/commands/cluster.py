"""genedml cluster slurm"""

import sys
from contextlib import redirect_stdout
from typing import Annotated, cast

import typer
import typer.core

from genedml_cli.commands import options

EXAMPLES = (
    "genedml cluster slurm --nodes 4 -- predict --slides cohort.csv -o results",
    "genedml cluster slurm --gpus-per-node 4 -- train --samples s.csv -o mine",
)
app = options.App(
    no_args_is_help=True, help="Work on the machines of a cluster: slurm.", epilog=options.epilog(EXAMPLES)
)


@app.callback()
def _group() -> None:
    """Keeps ``slurm`` a command of its own while it is the only one."""


class _InContext(typer.core.TyperCommand):
    context_class = typer.Context


@app.command(examples=EXAMPLES, cls=_InContext)
def slurm(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="What to run, after two dashes.")],
    nodes: Annotated[int, typer.Option(min=1, metavar="N", help="Machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, metavar="N", help="GPUs of each; one worker a GPU.")] = 0,
    cpus_per_node: Annotated[
        int, typer.Option(min=1, metavar="N", help="Cores of each; without GPUs one worker four cores.")
    ] = 16,
) -> None:
    """Print a file for sbatch that starts Ray on the nodes of a job and runs a command on it; submits nothing."""
    from genedml_cli import console
    from genedml_cli.machine.slurm import sbatch_file

    text = sbatch_file(words, nodes, gpus_per_node, cpus_per_node)
    with redirect_stdout(sys.stderr):  # help, if the words ask for it, is not the file
        _check(words, context)
    console.say(text.rstrip())


def _check(words: list[str], context: typer.Context) -> None:
    """Read the words as the command line will, so that what is wrong with them is said before a job waits for hours."""
    root = context.find_root()
    name, command, rest = cast(typer.core.TyperGroup, root.command).resolve_command(root, words)
    if command is not None:
        command.make_context(name, rest, parent=root)
