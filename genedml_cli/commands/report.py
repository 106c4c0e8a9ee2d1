"""genedml report"""

from pathlib import Path
from typing import Annotated

import typer


def report(
    target: Annotated[Path, typer.Argument(help="A run folder, or an .h5ad that predict wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The .html to write. (default: report.html in the run, FILE.report.html beside FILE.h5ad)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a run or a prediction as one HTML page: scores, maps, genes, training, provenance; needs no network."""
    from genedml_cli import console
    from genedml_cli.report.page import report as write_report

    page = write_report(target, out)
    console.say(f"{page}: {page.stat().st_size / 1e6:.1f} MB. Open it in a browser.")
