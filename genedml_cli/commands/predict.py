"""genedml predict"""

from pathlib import Path
from typing import Annotated, Any

import typer

from genedml_cli import options
from genedml_cli.options import MODEL, RUN


def predict(
    slide: Annotated[Path, typer.Argument(help="Anything OpenSlide opens, or a JPEG, PNG or TIFF of a section.")],
    spots: options.SpotsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="What to write: .h5ad (holds everything), .zarr, .csv, .csv.gz, .parquet or .geojson.",
            rich_help_panel=RUN,
        ),
    ] = None,
    preview: options.PreviewOption = None,
    grid: options.GridOption = options.Grid.hex,
    tissue: options.TissueOption = None,
    allow_off_tissue: options.OffTissueOption = False,
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
    pitch_um: options.SpotsPitchOption = None,
    weights: options.WeightsOption = None,
    device: options.DeviceOption = options.Device.auto,
    compiled: options.CompileOption = False,
    batch_spots: Annotated[int, typer.Option(min=1, help="Spots predicted at a time.", rich_help_panel=RUN)] = 256,
) -> None:
    """Predict the expression of spots of a slide, given or on a grid; writes AnnData that scanpy and squidpy open."""
    from genedml_cli import console, outputs, prediction
    from genedml_cli.preview import preview as draw_preview

    where: dict[str, Any] = {"um_per_px": um_per_px, "pitch_um": pitch_um, "grid": grid.value, "tissue": tissue}
    if preview is not None:
        console.say(f"{preview}: {draw_preview(slide, spots, preview, **where)}")
    elif out is None:
        raise typer.BadParameter("Give --out FILE.h5ad to predict, or --preview FILE.png to look first.")
    if out is None:
        return
    data = prediction.predict(
        slide,
        spots,
        model,
        out,
        fold=fold,
        min_cv_pcc=min_cv_pcc,
        **where,
        allow_off_tissue=allow_off_tissue,
        weights=weights,
        device=device,
        compiled=compiled,
        batch_spots=batch_spots,
    )
    console.say(f"{out}: {data.n_obs} spots x {data.n_vars} genes. Open it with {outputs.how_to_open(out)}")
