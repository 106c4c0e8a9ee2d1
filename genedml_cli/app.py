"""The command line: one line a command, and the one place where errors become sentences."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from genedml.errors import GeneDMLError, lines_of
from genedml_cli.commands import (
    ablate,
    benchmark,
    data,
    demo,
    doctor,
    encoders,
    evaluate,
    export,
    extract,
    genes,
    methods,
    options,
    plot,
    predict,
    report,
    train,
)
from genedml_cli.machine import stopping

app = options.App(
    name="genedml",
    help="Predict spatial gene expression from H&E slides with Gene-DML.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(train.train)
app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.command()(ablate.ablate)
app.command()(plot.plot)
app.command()(export.export)
app.command()(report.report)
app.command()(extract.extract)
app.command()(encoders.encoders)
app.command()(methods.methods)
app.command()(benchmark.benchmark)
app.command()(genes.genes)
app.command()(doctor.doctor)
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from genedml_cli import __version__

        typer.echo(f"genedml {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    quiet: options.QuietOption = False,
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
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
    traceback.
    """
    _fix_streams()
    try:
        with stopping.orderly():
            _check_words(sys.argv[1:])
            app()
    except stopping.Stopped as stopped:
        stopping.end(stopped)
    except Exception as error:
        lines = lines_of(error)
        if not lines:
            raise
        from genedml_cli import console

        console.error("\n".join(lines))
        sys.exit(1)
