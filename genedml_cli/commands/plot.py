"""genedml plot"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options

EXAMPLES = (
    "genedml plot runs/mine --genes GNAS,FASN",
    "genedml plot out.h5ad --genes GNAS --truth counts.csv -o gnas.pdf",
)


def plot(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="TARGET",
            help="Run folders, or .h5ad files of one section (what predict wrote, predictions/ of a run); each is a "
            "column.",
        ),
    ],
    genes: Annotated[
        list[str],
        typer.Option(metavar="GENE,GENE", help="Genes with commas between them, such as GNAS,FASN. Repeatable."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The .png, .pdf or .svg to write. (default: genes.png in the run, FILE.genes.png beside FILE.h5ad)",
            show_default=False,
        ),
    ] = None,
    sections: Annotated[
        str | None,
        typer.Option(help="Sections of the runs, with commas between them. (default: all)", show_default=False),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Raw counts of the section, for .h5ad files.")] = None,
    ridge: Annotated[bool, typer.Option("--ridge", help="Also the ridge reference of the first run.")] = False,
    ncols: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Genes beside each other. (default: as many as fit a page)", show_default=False
        ),
    ] = None,
    shared_scale: Annotated[
        bool,
        typer.Option(
            "--shared-scale/--own-scales",
            help="One scale of colours for all panels of a gene, or each panel its own, to compare patterns alone.",
        ),
    ] = True,
    scale: options.ScaleOption = options.Scale.label,
    cmap: Annotated[str, typer.Option(help="Colours by their name in matplotlib, such as magma.")] = "viridis",
    spot_size: Annotated[
        float, typer.Option(min=0.1, max=10, metavar="X", help="Diameter of the spots drawn, over their true diameter.")
    ] = 1.0,
) -> None:
    """Draw truth and prediction of genes over the section: a grid of genes, a row a section, PCC over each panel.

    Several methods on one section stand in a table: a row a gene, a column a method.
    """
    from genedml_cli import console
    from genedml_cli.figures.maps import Look
    from genedml_cli.report import pictures

    names = options.names_in(genes)
    picture, drawn = pictures.plot(
        targets,
        names,
        out,
        sections=options.names_in([sections or ""]),
        truth=truth,
        ridge=ridge,
        scale=scale,
        look=Look(cmap, shared_scale, ncols),
        spot_size=spot_size,
    )
    console.say(f"{picture}: {drawn} section{'s' if drawn > 1 else ''}, {', '.join(names)}.")
