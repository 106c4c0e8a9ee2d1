"""genedml predict"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli import options
from genedml_cli.options import DATA, MODEL, RUN


def predict(
    slide: Annotated[Path, typer.Argument(help="Anything OpenSlide opens, or a JPEG, PNG or TIFF of a section.")],
    spots: Annotated[
        Path,
        typer.Option(
            "--spots",
            help="Spots: ST selection, Space Ranger tissue_positions, CSV/TSV with name,x,y in level-0 px, or .h5ad.",
            rich_help_panel=DATA,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="What to write: .h5ad (holds everything), .zarr, .csv, .csv.gz, .parquet or .geojson.",
            rich_help_panel=RUN,
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="A run folder (mean of its folds, std in layers) or one fold's file. "
            "(default: GENEDML_MODEL, else the small one that comes with genedml)",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="Only this fold of a run folder.", rich_help_panel=MODEL)] = None,
    min_cv_pcc: Annotated[
        float | None, typer.Option(help="Keep genes whose cross-validated PCC is at least this.", rich_help_panel=MODEL)
    ] = None,
    um_per_px: options.UmPerPxOption = None,
    pitch_um: options.PitchOption = None,
    weights: options.WeightsOption = None,
    device: options.DeviceOption = options.Device.auto,
    batch_spots: Annotated[int, typer.Option(min=1, help="Spots predicted at a time.", rich_help_panel=RUN)] = 256,
) -> None:
    """Predict the expression of every spot of a slide; writes AnnData that scanpy and squidpy open."""
    from genedml_cli import console, outputs, prediction

    data = prediction.predict(
        slide,
        spots,
        model,
        out,
        fold=fold,
        min_cv_pcc=min_cv_pcc,
        um_per_px=um_per_px,
        pitch_um=pitch_um,
        weights=weights,
        device=device,
        batch_spots=batch_spots,
    )
    console.say(f"{out}: {data.n_obs} spots x {data.n_vars} genes. Open it with {outputs.how_to_open(out)}")
