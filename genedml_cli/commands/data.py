"""genedml data list | info | fetch | bin | check"""

from pathlib import Path
from typing import Annotated, Any

import typer

from genedml_cli.commands import options

app = options.App(
    no_args_is_help=True,
    help="Data: published data sets (list, info, fetch, check); bins or transcripts summed into spots (bin).",
    epilog=options.epilog(("genedml data list", "genedml data fetch HER2ST --root her2st")),
)

NameArgument = Annotated[str, typer.Argument(help="A data set (see: genedml data list).")]
RootOption = Annotated[Path, typer.Option("--root", help="Folder that holds the data, or is to hold it.")]


@app.command("list", examples=("genedml data list", "genedml data list --json"))
def list_(json_: options.JsonOption = False) -> None:
    """List the data sets: sections, patients, folds, platform, pitch."""
    from genedml_cli import console
    from genedml_cli.commands.tables import datasets
    from genedml_cli.datasets.datasets import DATASETS

    if json_:
        console.document(datasets.datasets_document(DATASETS.values()))
    else:
        datasets.show_datasets(DATASETS.values())


@app.command(examples=("genedml data info HER2ST", "genedml data info HER2ST --root her2st"))
def info(name: NameArgument, root: RootOption = Path(), json_: options.JsonOption = False) -> None:
    """Show the sections of a data set: HEST ids, patients, folds, um/px, licence, and which are on this disk."""
    from genedml_cli import console
    from genedml_cli.commands.tables import datasets
    from genedml_cli.datasets.datasets import find_dataset

    if json_:
        console.document(datasets.dataset_document(find_dataset(name), root))
    else:
        datasets.show_dataset(find_dataset(name), root)


@app.command(examples=("genedml data fetch HER2ST --root her2st", "genedml data fetch HER2ST --root her2st --patches"))
def fetch(
    name: NameArgument,
    root: RootOption,
    patches: Annotated[
        bool,
        typer.Option("--patches", help="The spots' tiles instead of the slides: enough for views.neighbor_grid=1."),
    ] = False,
) -> None:
    """Fetch a data set's sections from HEST-1k (gated) on the Hugging Face hub; files that are there are kept."""
    from genedml_cli import console
    from genedml_cli.datasets import hub

    done = hub.fetch(name, root, patches)
    console.say(f"{root}/: {done.fetched} files came, {done.kept} were there.")
    console.say(f"Next: genedml data check {name} --root {root}")


BIN_EXAMPLES = ("genedml data bin outs --um 100 -o section.h5ad", "genedml data bin outs -o s.h5ad --slide he.tif")


@app.command("bin", examples=BIN_EXAMPLES)
def bin_(
    outs: Annotated[Path, typer.Argument(help="The folder outs of Visium HD, or that of Xenium.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .h5ad to write: what --spots and a sheet take.")],
    um: Annotated[int, typer.Option(min=2, max=1000, help="From spot to spot, in um; spots leave no gap.")] = 100,
    grid: Annotated[options.Grid, typer.Option("--grid", help="Packing of the spots.")] = options.Grid.hex,
    slide: Annotated[
        Path | None, typer.Option("--slide", help="The H&E image: spots off it are left out and named.")
    ] = None,
    min_qv: Annotated[float, typer.Option(min=0, max=40, help="Xenium: least quality of a transcript.")] = 20,
    alignment: Annotated[
        Path | None,
        typer.Option(
            help="Xenium: *_imagealignment.csv of Xenium Explorer, H&E pixels to morphology pixels. (default: the one "
            "that lies in OUTS or beside it)",
            show_default=False,
        ),
    ] = None,
    affine: Annotated[
        Path | None, typer.Option(help="Xenium: instead, 3 x 3 numbers, um of transcripts to H&E pixels, as .csv.")
    ] = None,
    force: options.ForceOption = False,
) -> None:
    """Sum bins of Visium HD, or transcripts of Xenium, into spots: raw counts, Ensembl ids, level-0 pixels."""
    from genedml_cli import console
    from genedml_cli.pseudo_spots.binning import bin_section

    where: dict[str, Any] = {"slide": slide, "alignment": alignment, "affine": affine}
    section = bin_section(outs, out, um, grid.value, min_qv=min_qv, force=force, **where)
    console.say(f"{out}: {len(section.names)} spots of {um} um x {section.counts.n_vars} genes.")
    console.say(f"Next: genedml predict SLIDE --spots {out} -o out.h5ad; or train on it: spots and counts of a sheet")


@app.command(examples=("genedml data check HER2ST --root her2st", "genedml data check --samples sheet.csv"))
def check(
    name: Annotated[
        str | None, typer.Argument(help="A data set (see: genedml data list); none with --samples.", show_default=False)
    ] = None,
    samples: options.SamplesOption = None,
    root: options.RootOption = None,
    pitch_um: options.PitchOption = None,
    allow_partial: options.PartialOption = False,
    skip_off_image: options.OffImageOption = False,
    gene_map: options.GeneMapOption = None,
    json_: options.JsonOption = False,
) -> None:
    """Look at every section: image opens, um/px as in the table, spots on the image, counts join, panel genes there."""
    from genedml_cli import console
    from genedml_cli.commands import choices
    from genedml_cli.commands.tables.checks import show_checks
    from genedml_cli.datasets import checking

    chosen, _ = choices.choose_samples([], samples, root, allow_partial, None, pitch_um) if samples else ([], "")
    if (name is None) == (samples is None) or (name and pitch_um):
        raise typer.BadParameter("Give either a data set, or --samples SHEET.csv and, if you like, --pitch-um.")
    if name is None and gene_map is not None:
        raise typer.BadParameter("--gene-map goes with a data set, whose panel it joins to the counts.")
    if name is None:
        checks = checking.check_samples(chosen, skip_off_image=skip_off_image)
    else:
        checks = checking.check_dataset(name, root or Path(), skip_off_image, gene_map)
    if json_:
        console.document([check.to_dict() for check in checks])
    elif name is None:
        show_checks(str(samples), checks, "are in order")
    else:
        show_checks(name, checks)
    if samples is not None:
        checking.refuse_wrong_samples(samples, chosen, checks)
    elif name is not None:
        checking.refuse_wrong(name, root or Path(), checks, allow_partial)
