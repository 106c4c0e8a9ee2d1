"""genedml score"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options

EXAMPLES = (
    "genedml score out.h5ad --gene-sets hallmarks.gmt",
    "genedml score out.h5ad --gene-sets hallmarks.gmt --truth counts.h5ad",
)


def score(
    prediction: Annotated[Path, typer.Argument(help="An .h5ad that predict wrote, or one of a run's predictions.")],
    gene_sets: Annotated[
        Path, typer.Option(help="A .gmt file: a line a set, with name, description and genes between tabs.")
    ],
    truth: Annotated[
        Path | None, typer.Option(help="Raw counts of the section; a run's predictions hold their truth.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The CSV to write: a row a spot, its region and a column a set. (default: NAME.sets.csv)",
            show_default=False,
        ),
    ] = None,
    min_genes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Leave out sets of which fewer genes are predicted.")
    ] = 5,
    resolution: Annotated[
        float, typer.Option(min=0.01, max=100, metavar="X", help="Of the regions (Leiden): more gives more of them.")
    ] = 1.0,
    json_: options.JsonOption = False,
) -> None:
    """Score gene sets and find regions of a prediction; with truth, how far both agree with what was measured."""
    from genedml_cli import console
    from genedml_cli.commands.tables.gene_sets import show_set_scores
    from genedml_cli.evaluation import gene_sets as scoring

    scores = scoring.score(prediction, gene_sets, truth, out, fewest_genes=min_genes, resolution=resolution)
    if json_:
        console.document(scores.to_dict())
    else:
        show_set_scores(scores)
