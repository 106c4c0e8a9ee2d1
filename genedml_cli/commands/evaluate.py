"""genedml evaluate"""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    target: Annotated[
        Path | None,
        typer.Argument(
            help="A run folder, or an .h5ad that predict wrote. (default: newest under runs/)", show_default=False
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Raw counts of the section, for an .h5ad.")] = None,
    per_gene: Annotated[bool, typer.Option("--per-gene", help="Also list every gene.")] = False,
) -> None:
    """Score a run or a prediction: MSE, MAE and PCC beside the constant, depth and ridge references."""
    from genedml_cli import evaluation, tables

    result = evaluation.evaluate(target, truth)
    tables.show_evaluation(result, f"The same as CSV and JSON: {result.folder}/")
    if per_gene:
        tables.show_genes(result)
