"""The command line: one line a command, and the one place where errors become sentences."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from genedml.errors import GeneDMLError, lines_of
from genedml_cli.commands import (
    ablate,
    benchmark,
    cluster,
    compare,
    data,
    demo,
    doctor,
    encoders,
    evaluate,
    export,
    extract,
    genes,
    methods,
    models,
    options,
    plot,
    predict,
    push,
    report,
    score,
    train,
)
from genedml_cli.machine import stopping

app = options.App(
    name="genedml",
    help="Predict spatial gene expression from H&E slides with Gene-DML.",
    epilog=options.epilog(("genedml predict slide.svs -o out.h5ad", "genedml demo")),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PREDICT, TRAIN, DATA, MACHINE = "Predict", "Train and compare", "Data", "This machine"
app.command(rich_help_panel=PREDICT, examples=predict.EXAMPLES)(predict.predict)
app.command(rich_help_panel=PREDICT, examples=report.EXAMPLES)(report.report)
app.command(rich_help_panel=PREDICT, examples=plot.EXAMPLES)(plot.plot)
app.command(rich_help_panel=PREDICT, examples=export.EXAMPLES)(export.export)
app.command(rich_help_panel=PREDICT, examples=score.EXAMPLES)(score.score)
app.command(rich_help_panel=TRAIN, examples=train.EXAMPLES)(train.train)
app.command(rich_help_panel=TRAIN, examples=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(rich_help_panel=TRAIN, examples=methods.EXAMPLES)(methods.methods)
app.command(rich_help_panel=TRAIN, examples=compare.EXAMPLES)(compare.compare)
app.command(rich_help_panel=TRAIN, examples=ablate.EXAMPLES)(ablate.ablate)
app.command(rich_help_panel=TRAIN, examples=extract.EXAMPLES)(extract.extract)
app.command(rich_help_panel=TRAIN, examples=push.EXAMPLES)(push.push)
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.command(rich_help_panel=DATA, examples=genes.EXAMPLES)(genes.genes)
app.add_typer(cluster.app, name="cluster", rich_help_panel=MACHINE)
app.command(rich_help_panel=MACHINE, examples=demo.EXAMPLES)(demo.demo)
app.command(rich_help_panel=MACHINE, examples=doctor.EXAMPLES)(doctor.doctor)
app.command(rich_help_panel=MACHINE, examples=encoders.EXAMPLES)(encoders.encoders)
app.command(rich_help_panel=MACHINE, examples=models.EXAMPLES)(models.models)
app.command(rich_help_panel=MACHINE, examples=benchmark.EXAMPLES)(benchmark.benchmark)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from genedml_cli import __version__

        typer.echo(f"genedml {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    quiet: options.QuietOption = False,
    version: bool = typer.Option(
        False, "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Predict spatial gene expression from H&E slides with Gene-DML."""
    options.App.quiet = quiet


def _fix_streams() -> None:
    """Let output that is closed go nowhere, and letters that its encoding lacks become question marks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _check_words(words: Sequence[str]) -> None:
    """Refuse names of files that are no text: neither AnnData nor safetensors can hold or open them."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise GeneDMLError(
                f"{word!a} is no UTF-8 text. Rename the file, or set a locale of UTF-8, such as LC_ALL=C.UTF-8."
            ) from error


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 something the user can fix, 2 wrong usage, 130 and 143 stopped by Ctrl-C and SIGTERM; else a
    traceback. With ``GENEDML_DEBUG`` the traceback of what the user can fix stands before its sentence.
    """
    _fix_streams()
    try:
        with stopping.stop_signals():
            _check_words(sys.argv[1:])
            app()
    except stopping.Stopped as stopped:
        stopping.end(stopped)
    except Exception as error:
        lines = lines_of(error)
        if not lines:
            raise
        from genedml_cli import console

        if os.environ.get("GENEDML_DEBUG"):
            traceback.print_exception(error)
        console.error("\n".join(lines))
        sys.exit(1)
