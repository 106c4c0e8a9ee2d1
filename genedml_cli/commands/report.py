"""genedml report"""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("genedml report runs/mine", "genedml report out.h5ad --genes GNAS,FASN --truth counts.csv")


def report(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="TARGET",
            help="A run folder, an .h5ad that predict wrote, or hf://OWNER/NAME; several runs stand beside each other.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The .html to write. (default: report.html in the run, comparison.html in the first of several, "
            "FILE.report.html beside FILE.h5ad, runs/OWNER--NAME/report.html of hf://OWNER/NAME)",
            show_default=False,
        ),
    ] = None,
    genes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENE,GENE",
            help="Genes to show first, with commas between them; every other can be chosen in the page. "
            "(default: those with the best and the worst scores)",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Raw counts of the section, to stand beside a predicted .h5ad.")
    ] = None,
) -> None:
    """Write a run or a prediction as one HTML page: scores, maps, genes, training, provenance; needs no network."""
    from genedml_cli import console
    from genedml_cli.commands import options
    from genedml_cli.report.page import report as write_report

    page = write_report(targets, out, genes=options.names_in(genes or []), truth=truth)
    console.say(f"{page}: {page.stat().st_size / 1e6:.1f} MB. Open it in a browser.")
