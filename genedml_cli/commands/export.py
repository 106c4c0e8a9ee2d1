"""genedml export"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options

EXAMPLES = ("genedml export out.h5ad -o out.geojson", "genedml export out.h5ad --min-cv-pcc 0.5 -o out.csv")


def export(
    prediction: Annotated[Path, typer.Argument(help="An .h5ad that predict wrote, or one of a run's predictions.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="What to write: .geojson (QuPath), .csv, .csv.gz, .parquet, .zarr (SpatialData), .h5ad."
        ),
    ],
    genes: Annotated[
        str | None,
        typer.Option(
            help="Only these genes, separated by commas, such as GNAS,FASN. (default: all)", show_default=False
        ),
    ] = None,
    min_cv_pcc: Annotated[
        float | None,
        typer.Option(help="Of these, only genes whose cross-validated PCC is at least this.", show_default=False),
    ] = None,
    long: Annotated[
        bool,
        typer.Option("--long", help="Tables: a row for each spot and gene, with the layers, not a column a gene."),
    ] = False,
    scale: options.ScaleOption = options.Scale.label,
    force: options.ForceOption = False,
) -> None:
    """Write a prediction as another kind of file: for QuPath, SpatialData, or as a table."""
    from genedml_cli import console
    from genedml_cli.outputs import formats

    names = [name.strip() for name in (genes or "").split(",") if name.strip()]
    data = formats.export(prediction, out, names, long, min_cv_pcc, force, scale)
    console.say(f"{out}: {data.n_obs} spots x {data.n_vars} genes. Open it with {formats.how_to_open(out)}")
