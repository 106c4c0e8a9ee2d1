"""The command line: one line a command, and the one place where errors become sentences."""

import sys

import typer

from genedml.errors import lines_of
from genedml_cli import options, stopping
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
    plot,
    predict,
    report,
    train,
)

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


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 something the user can mend, 2 wrong usage, 130 and 143 stopped by Ctrl-C and SIGTERM; else a
    traceback.
    """
    try:
        with stopping.orderly():
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
