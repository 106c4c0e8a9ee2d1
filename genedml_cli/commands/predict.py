"""genedml predict"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genedml_cli.commands import groups, options
from genedml_cli.commands.options import DATA, MODEL, RUN
from genedml_cli.machine.compute import Compute

if TYPE_CHECKING:
    from genedml_cli.spots.placing import Placing

EXAMPLES = (
    "genedml predict slide.svs -o out.h5ad",
    "genedml predict slide.svs --spots spots.csv --model runs/mine -o out.h5ad",
)

SlideArgument = Annotated[
    Path | None,
    typer.Argument(help="Anything OpenSlide opens, or a JPEG, PNG or TIFF of a section.", show_default=False),
]
SlidesOption = Annotated[
    Path | None,
    typer.Option(
        "--slides",
        help="Instead of SLIDE, a CSV sheet of many: column slide, optional name, spots, um_per_px, pitch_um, "
        "tissue, section; paths relative to it. A slide that fails does not stop the others.",
        rich_help_panel=DATA,
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="A run folder, one fold's file, hf://OWNER/NAME[@REVISION] of the hub, or one of those that "
        "come with genedml: pretrained, pretrained-pearson. (default: GENEDML_MODEL, else pretrained)",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
FoldOption = Annotated[
    str | None,
    typer.Option(
        help="Only this fold of a run folder, all (their mean) or all-sections. (default: all-sections if it is "
        "there, else all)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
MinCvPccOption = Annotated[
    float | None, typer.Option(help="Keep genes whose cross-validated PCC is at least this.", rich_help_panel=MODEL)
]
IntervalOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.99,
        metavar="SHARE",
        help="Layers lower and upper, to hold this share of the labels, 0.5 to 0.99; 0: none. (default: 0.9 if the "
        "model knows intervals)",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="What to write: .h5ad (holds everything), .zarr, .csv, .csv.gz, .parquet or .geojson; with --slides a "
        "folder.",
        rich_help_panel=RUN,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        help="With --slides: keep results that are there and were made from the same slide, spots and models.",
        rich_help_panel=RUN,
    ),
]


class Kind(StrEnum):
    """Kinds of file; the suffixes of :data:`genedml_cli.outputs.formats.FORMATS`."""

    h5ad = "h5ad"
    zarr = "zarr"
    csv = "csv"
    csv_gz = "csv.gz"
    parquet = "parquet"
    geojson = "geojson"


FormatOption = Annotated[
    list[Kind] | None,
    typer.Option(
        "--format",
        metavar="KIND",
        help="With --slides: write every slide as this kind too, beside its .h5ad: zarr, csv, csv.gz, parquet or "
        "geojson. Repeatable.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
BatchSpotsOption = Annotated[
    int, typer.Option(min=1, max=10**6, metavar="N", help="Spots predicted at a time.", rich_help_panel=RUN)
]
CohortOnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar=options.ON,
        help="With --slides: slides one after the other, or so many at a time, each in a process with models of "
        "its own; gpus: a process a GPU; ray: on the cluster of RAY_ADDRESS or ray://host:port, else one of this "
        "machine. (default: here)",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="With --slides: read the slides of kept results whole to see that they are the same, rather than go by "
        "size and time of their files.",
        rich_help_panel=RUN,
    ),
]
MergeOption = Annotated[
    bool,
    typer.Option(
        "--merge",
        help="With --slides: also write all slides as one merged.h5ad, with obs['slide'].",
        rich_help_panel=RUN,
    ),
]


@dataclass(frozen=True)
class PlaceOptions:
    """How spots come to stand on a slide."""

    grid: options.GridOption = options.Grid.hex
    tissue: options.TissueOption = None
    allow_off_tissue: options.OffTissueOption = False
    skip_off_image: options.OffImageOption = False
    um_per_px: options.UmPerPxOption = None
    pitch_um: options.SpotsPitchOption = None
    section: options.SectionOption = None

    @property
    def placing(self) -> "Placing":
        """The same as the library takes it."""
        from genedml_cli.spots.placing import Placing

        allowed = self.allow_off_tissue, self.skip_off_image
        return Placing(self.um_per_px, self.pitch_um, self.grid.value, self.tissue, *allowed, self.section)


@dataclass(frozen=True)
class ModelOptions:
    """What predicts, and which genes are kept; named as the library's calls take them."""

    model: ModelOption = None
    fold: FoldOption = None
    min_cv_pcc: MinCvPccOption = None
    interval: IntervalOption = None
    weights: options.WeightsOption = None
    batch_spots: BatchSpotsOption = 256


@dataclass(frozen=True)
class CohortOptions:
    """How the slides of a sheet are predicted."""

    resume: ResumeOption = True
    on: CohortOnOption = None
    format_: FormatOption = None
    merge: MergeOption = False
    shard: options.ShardOption = None
    collect: options.CollectOption = False
    verify: VerifyOption = False


def predict(
    place: PlaceOptions,
    by: ModelOptions,
    machine: groups.ComputeOptions,
    cohort: CohortOptions,
    slide: SlideArgument = None,
    spots: options.SpotsOption = None,
    slides: SlidesOption = None,
    out: OutOption = None,
    preview: options.PreviewOption = None,
    force: options.ForceOption = False,
    json_: options.JsonOption = False,
) -> None:
    """Predict the expression of spots of a slide, given or on a grid; writes AnnData that scanpy and squidpy open."""
    if (slide is None) == (slides is None):
        raise typer.BadParameter("Give either a SLIDE or --slides SHEET.csv.")
    if slides is None and cohort != CohortOptions():
        raise typer.BadParameter(
            "--on, --no-resume, --format, --merge, --shard, --collect and --verify go with --slides."
        )
    if cohort.shard and cohort.collect:
        raise typer.BadParameter("Give either --shard or --collect.")
    if slides is not None and force:
        raise typer.BadParameter("--force goes with a SLIDE; with --slides, --no-resume predicts all again.")
    if preview is not None and out is None and json_:
        raise typer.BadParameter("--json goes with --out; --preview alone draws a picture.")
    if slides is not None:
        if out is None or spots or preview or place.tissue or place.section:
            raise typer.BadParameter(
                "--slides goes with --out FOLDER and without --preview; the sheet has columns spots, tissue, section."
            )
        if out.suffix in (".h5ad", ".csv", ".zarr"):
            raise typer.BadParameter(f"With --slides, --out is a folder; {out} looks like a file.")
        _predict_cohort(slides, out, place, by, machine.compute, cohort, json_)
    elif slide is not None:
        if preview is not None:
            _preview(slide, spots, preview, place)
        elif out is None:
            raise typer.BadParameter("Give --out FILE.h5ad to predict, or --preview FILE.png to look first.")
        if out is not None:
            _predict_slide(slide, spots, out, place, by, machine.compute, force, json_)


def _preview(slide: Path, spots: Path | None, picture: Path, place: PlaceOptions) -> None:
    from genedml_cli import console
    from genedml_cli.report.preview import preview

    console.say(f"{picture}: {preview(slide, spots, picture, place.placing)}")


def _predict_slide(
    slide: Path,
    spots: Path | None,
    out: Path,
    place: PlaceOptions,
    by: ModelOptions,
    compute: Compute,
    force: bool,
    json_: bool,
) -> None:
    from genedml_cli import console
    from genedml_cli.notes import texts_of
    from genedml_cli.outputs import formats
    from genedml_cli.outputs.prediction_record import record_of
    from genedml_cli.prediction import prediction

    data = prediction.predict(slide, spots, out=out, **vars(place.placing), **vars(by), compute=compute, force=force)
    if json_:
        notes = texts_of(record_of(data).notes)
        console.document({"out": out, "spots": data.n_obs, "genes": data.n_vars, "notes": notes})
    else:
        console.say(f"{out}: {data.n_obs} spots x {data.n_vars} genes. Open it with {formats.how_to_open(out)}")


def _predict_cohort(
    sheet: Path,
    out: Path,
    place: PlaceOptions,
    by: ModelOptions,
    compute: Compute,
    options_of_cohort: CohortOptions,
    json_: bool,
) -> None:
    from genedml_cli import console
    from genedml_cli.cohort import cohort
    from genedml_cli.commands.tables.cohort import show_cohort

    done = cohort.predict_cohort(
        sheet,
        out=out,
        **vars(by),
        placing=place.placing,
        compute=compute,
        resume=options_of_cohort.resume,
        on=options_of_cohort.on or "here",
        formats=[f".{kind}" for kind in options_of_cohort.format_ or ()],
        merge=options_of_cohort.merge,
        shard=options_of_cohort.shard,
        collect=options_of_cohort.collect,
        verify=options_of_cohort.verify,
    )
    if json_:
        console.document(done.to_dict())
    else:
        show_cohort(done)
    done.refuse_failures()
