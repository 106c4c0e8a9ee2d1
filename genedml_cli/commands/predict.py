"""genedml predict"""

from pathlib import Path
from typing import Annotated, Any

import typer

from genedml_cli import options
from genedml_cli.options import DATA, MODEL, RUN

SlideArgument = Annotated[
    Path | None,
    typer.Argument(help="Anything OpenSlide opens, or a JPEG, PNG or TIFF of a section.", show_default=False),
]
SpotsOption = Annotated[
    Path | None,
    typer.Option(
        "--spots",
        help="Spots: ST selection, Space Ranger tissue_positions, CSV/TSV with name,x,y in level-0 px, or .h5ad.",
        rich_help_panel=DATA,
    ),
]
SlidesOption = Annotated[
    Path | None,
    typer.Option(
        "--slides",
        help="Instead of SLIDE, a sheet of many: CSV with slide,spots and, if you like, name,um_per_px,pitch_um; paths "
        "relative to it. A slide that fails does not stop the others.",
        rich_help_panel=DATA,
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="A run folder (mean of its folds, std in layers) or one fold's file. "
        "(default: GENEDML_MODEL, else the small one that comes with genedml)",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", "-o", help="The .h5ad to write; with --slides, a folder of them.", rich_help_panel=RUN),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        help="With --slides: keep results that are there and were made from the same slide, spots and models.",
        rich_help_panel=RUN,
    ),
]
JobsOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="With --slides: slides at a time, each in a process with models of its own. Worth it where a GPU waits "
        "for reading.",
        rich_help_panel=RUN,
    ),
]


def predict(
    out: OutOption,
    slide: SlideArgument = None,
    spots: SpotsOption = None,
    slides: SlidesOption = None,
    model: ModelOption = None,
    fold: Annotated[str | None, typer.Option(help="Only this fold of a run folder.", rich_help_panel=MODEL)] = None,
    min_cv_pcc: Annotated[
        float | None, typer.Option(help="Keep genes whose cross-validated PCC is at least this.", rich_help_panel=MODEL)
    ] = None,
    um_per_px: options.UmPerPxOption = None,
    pitch_um: options.PitchOption = None,
    weights: options.WeightsOption = None,
    device: options.DeviceOption = options.Device.auto,
    batch_spots: Annotated[int, typer.Option(min=1, help="Spots predicted at a time.", rich_help_panel=RUN)] = 256,
    resume: ResumeOption = True,
    jobs: JobsOption = 1,
    json_: options.JsonOption = False,
) -> None:
    """Predict the expression of every spot of a slide, or of many; writes AnnData that scanpy and squidpy open."""
    settings: dict[str, Any] = {
        "fold": fold,
        "min_cv_pcc": min_cv_pcc,
        "um_per_px": um_per_px,
        "pitch_um": pitch_um,
        "weights": weights,
        "device": device,
        "batch_spots": batch_spots,
    }
    if (slide is None) == (slides is None):
        raise typer.BadParameter("give either a SLIDE, with --spots, or --slides SHEET.csv")
    if slide is not None and spots is not None:
        _predict_slide(slide, spots, model, out, settings, json_)
    elif slides is not None and spots is None:
        _predict_cohort(slides, model, out, {**settings, "resume": resume, "jobs": jobs}, json_)
    else:
        raise typer.BadParameter("--spots goes with a SLIDE; of --slides it is a column")


def _predict_slide(
    slide: Path, spots: Path, model: Path | None, out: Path, settings: dict[str, Any], json_: bool
) -> None:
    from genedml_cli import console, prediction
    from genedml_cli.results import notes_of

    data = prediction.predict(slide, spots, model, out, **settings)
    if json_:
        console.document({"out": out, "spots": data.n_obs, "genes": data.n_vars, "notes": notes_of(data)})
    else:
        console.say(f"{out}: {data.n_obs} spots x {data.n_vars} genes. Open it with: scanpy.read_h5ad({str(out)!r})")


def _predict_cohort(sheet: Path, model: Path | None, out: Path, settings: dict[str, Any], json_: bool) -> None:
    from genedml_cli import cohort, console

    done = cohort.predict_cohort(sheet, model, out, **settings)
    if json_:
        console.document(done.to_dict())
    else:
        cohort.show(done)
    done.refuse_failures()
