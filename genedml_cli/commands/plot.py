"""genedml plot"""

from pathlib import Path
from typing import Annotated

import typer


def plot(
    targets: Annotated[
        list[Path],
        typer.Argument(help="Run folders, or .h5ad files that predict wrote of one slide; each is a column a gene."),
    ],
    genes: Annotated[str, typer.Option(help="Genes, parted by commas, such as GNAS,FASN.")],
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
        typer.Option(help="Sections of the runs, parted by commas. (default: all)", show_default=False),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Raw counts of the section, for .h5ad files.")] = None,
    ridge: Annotated[bool, typer.Option("--ridge", help="Also the ridge reference of the first run.")] = False,
) -> None:
    """Draw truth and prediction of genes over the section: a row a section, a column a model, PCC over each."""
    from genedml_cli import console, pictures

    names = [name.strip() for name in genes.split(",") if name.strip()]
    chosen = [name.strip() for name in (sections or "").split(",") if name.strip()]
    picture, drawn = pictures.plot(targets, names, out, sections=chosen, truth=truth, ridge=ridge)
    console.say(f"{picture}: {drawn} section{'s' if drawn > 1 else ''}, {', '.join(names)}.")
