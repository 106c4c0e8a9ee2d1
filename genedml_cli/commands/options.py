"""Options that several commands share, declared once."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from genedml_cli.machine.shards import Shard, parse_shard


class Device(StrEnum):
    """Where the arithmetic runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Target(StrEnum):
    """Label transforms; :data:`genedml.config.TARGETS` says what they are."""

    paper = "paper"
    paper_unsmoothed = "paper-unsmoothed"
    paper_ln = "paper-ln"
    paper_all_genes = "paper-all-genes"
    log1p_10k = "log1p-10k"
    pearson = "pearson"
    pearson_unsmoothed = "pearson-unsmoothed"


class SelectOn(StrEnum):
    """Where the epoch of a fold is chosen."""

    validation = "validation"
    test = "test"


class Neighbors(StrEnum):
    """Where neighbor tiles stand; :class:`genedml.config.ViewsConfig` says more."""

    exact = "exact"
    lattice = "lattice"


class Scale(StrEnum):
    """Of values: the label's own, or z."""

    label = "label"
    z = "z"


ScaleOption = Annotated[
    Scale,
    typer.Option(help="z: less the gene's mean in training, over its standard deviation there, to compare genes."),
]


class Grid(StrEnum):
    """How spots are packed where none are given: as Visium's, or as ST's."""

    hex = "hex"
    square = "square"


def _number_or_native(text: str | None) -> str | None:
    if text not in (None, "native"):
        try:
            float(str(text))
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is neither a number nor native.") from error
    return text


def names_in(words: Iterable[str]) -> list[str]:
    """The names that words give, with commas between them, each once."""
    return list(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))


DATA, MODEL, RUN = "Data", "Model", "Where and how"

DatasetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="A published data set (see: genedml data list). Repeatable: the folds of one number are joined.",
        rich_help_panel=DATA,
    ),
]
SamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        help="A sample sheet: CSV with sample,slide,spots,counts,patient and, if you like, fold,um_per_px; or "
        "slide,outs with folders of Space Ranger.",
        rich_help_panel=DATA,
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder that holds the data; paths of a sheet start here.", rich_help_panel=DATA),
]
PartialOption = Annotated[
    bool,
    typer.Option(
        "--allow-partial", help="Use a data set of which sections are missing, and say so.", rich_help_panel=DATA
    ),
]
PanelOption = Annotated[
    str | None,
    typer.Option(
        "--panel",
        help="Genes: training (derived from each fold's training sections), all, a data set's name, or a file with "
        "one gene a line. (default: the data set's published panel, else training)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Network to train (see: genedml methods). (default: gene-dml)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="Frozen image encoder (see: genedml encoders), timm:NAME, or several: A+B. (default: the preset's)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="The encoder's weights file, instead of the hub.", rich_help_panel=MODEL),
]
BackboneWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--backbone-weights",
        help="Weights file that the network's own backbone starts from (--preset published of st-net, bleep, triplex), "
        "instead of the hub.",
        rich_help_panel=MODEL,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="HER2ST, STNet, skinST or small; features or published for other methods, of which some have more (see: "
        "genedml methods). (default: small for "
        "stain-texture, else the data set's, else HER2ST; features for other methods)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file over the preset; config.toml of a run is one.", rich_help_panel=MODEL),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting over all others, such as training.epochs=50. Repeatable.",
        rich_help_panel=MODEL,
    ),
]
FoldOption = Annotated[
    str,
    typer.Option(
        "--fold",
        help="One fold; all; or (train alone) all-sections: a model of every section, for other slides, unscored.",
        rich_help_panel=RUN,
    ),
]
FeaturesOption = Annotated[
    Path, typer.Option("--features", help="Folder that keeps feature files.", rich_help_panel=RUN)
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the arithmetic runs.", rich_help_panel=RUN)]
DeterministicOption = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On CUDA too the same result each time, by slower kernels; on the CPU it always is.",
        rich_help_panel=RUN,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Let torch compile the encoder: minutes at first, then faster; the same features but for rounding. Needs "
        "a C++ compiler.",
        rich_help_panel=RUN,
    ),
]
BatchTilesOption = Annotated[
    int | None,
    typer.Option(
        "--batch-tiles",
        metavar="N",
        min=1,
        max=10**6,
        help="Tiles encoded at a time; halved where a GPU's memory runs out. (default: by trial on CUDA, few on a CPU)",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
GeneMapOption = Annotated[
    Path | None,
    typer.Option(
        "--gene-map",
        metavar="FILE.csv",
        help="Genes that were renamed: CSV with the columns alias,gene; joins counts to a panel or a model.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
TargetOption = Annotated[
    Target | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Label transform: paper; pearson, pearson-unsmoothed (Pearson residuals, in which the spot's depth is "
        "accounted for); log1p-10k (ln, library over all genes, unsmoothed); or the paper's with one choice taken "
        "back: paper-unsmoothed, paper-ln, paper-all-genes. Scores of different ones are not comparable. "
        "(default: the configuration's, paper)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
SelectOnOption = Annotated[
    SelectOn | None,
    typer.Option(
        "--select-on",
        help="Choose the epoch on patients held out inside the training folds, or, as published, on the test fold: "
        "every table then says so. (default: the configuration's, validation)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
NeighborsOption = Annotated[
    Neighbors | None,
    typer.Option(
        "--neighbors",
        help="exact: the neighbor tiles of every spot around its own centre, as in the paper; lattice: on one lattice "
        "over the slide, shared by spots, a fraction of the work. Part of the model. (default: exact with the paper's "
        "presets, else lattice)",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
ViewsUmPerPxOption = Annotated[
    str | None,
    typer.Option(
        "--um-per-px",
        metavar="NUMBER|native",
        callback=_number_or_native,
        help="Micrometres of a level-0 pixel, where the slide does not say. Or native: views in level-0 pixels, what "
        "the published numbers used; um/px need not be known then.",
        rich_help_panel=DATA,
    ),
]
UmPerPxOption = Annotated[
    float | None,
    typer.Option(
        "--um-per-px", help="Micrometres of a level-0 pixel, where the slide does not say.", rich_help_panel=DATA
    ),
]
PitchOption = Annotated[
    float | None,
    typer.Option(
        "--pitch-um",
        help="Distance of neighbouring spots in um (ST 200, Visium 100); gives um/px where it is not known.",
        rich_help_panel=DATA,
    ),
]
OffTissueOption = Annotated[
    bool,
    typer.Option(
        "--allow-off-tissue",
        help="Take spots even if most lie off the tissue that is found on the slide.",
        rich_help_panel=DATA,
    ),
]
OffImageOption = Annotated[
    bool,
    typer.Option(
        "--skip-off-image", help="Leave out spots that lie off the image, and say how many.", rich_help_panel=DATA
    ),
]
SpotsOption = Annotated[
    Path | None,
    typer.Option(
        "--spots",
        help="Spots: Space Ranger's outs folder or tissue_positions, ST selection, CSV/TSV with name,x,y in level-0 "
        "px, or .h5ad. Without it, a grid over the tissue.",
        rich_help_panel=DATA,
    ),
]
SpotsPitchOption = Annotated[
    float | None,
    typer.Option(
        "--pitch-um",
        help="Distance of neighbouring spots in um. With --spots (ST 200, Visium 100), um/px follow from it where "
        "they are not known; else it is the grid's. (default of a grid: 100)",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
ON = "here|N|gpus|ray"
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar=ON,
        help="Folds one after the other, or so many at a time, each in a process; gpus: a process a GPU; ray: on the "
        "cluster of RAY_ADDRESS or ray://host:port, else one of this machine. On a CPU the bytes are the same, "
        "with ray where OMP_NUM_THREADS is set. (default: here; folds of small networks on a CPU as many at a time as "
        "torch has threads)",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
ShardOption = Annotated[
    Shard | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        parser=parse_shard,
        help="Do every N-th part alone, from 0/N to N-1/N, as in an array job; shards may run on any machines, in any "
        "order.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
CollectOption = Annotated[
    bool,
    typer.Option(
        "--collect", help="Join what the shards left; name what is missing, with exit code 1.", rich_help_panel=RUN
    ),
]
GridOption = Annotated[
    Grid, typer.Option("--grid", help="Packing of the grid: as Visium's, or as ST's.", rich_help_panel=DATA)
]
TissueOption = Annotated[
    Path | None,
    typer.Option(
        "--tissue",
        metavar="FILE",
        help="What is tissue, over what is found: a picture of the slide, black where there is none, or outlines as "
        "QuPath exports them (.geojson).",
        rich_help_panel=DATA,
    ),
]
SectionOption = Annotated[
    int | None,
    typer.Option(
        "--section",
        min=1,
        metavar="N",
        help="Of several sections on the slide, 1 mm or more apart, only this one; --preview numbers them.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
PreviewOption = Annotated[
    Path | None,
    typer.Option(
        "--preview",
        metavar="FILE.png",
        help="Draw the slide with tissue and spots, before anything is encoded; without --out, that is all.",
        rich_help_panel=RUN,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        metavar="",
        help="No progress and no notes. Errors stay, and warnings: what must be known to trust the result.",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Write over a result that is there. Only results of predict and export need it: pictures, pages and "
        "tables of scores are made anew each time.",
        rich_help_panel=RUN,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON document on stdout, for programs.")]


def epilog(examples: Sequence[str]) -> str:
    """What stands below a help page."""
    return "\n\n".join(("Examples:", *examples))


class App(typer.Typer):
    """A Typer app whose every command takes ``--quiet`` and shows examples.

    ``quiet`` is whether ``--quiet`` stood before the command.
    """

    quiet = False

    def command(  # type: ignore[override]
        self, name: str | None = None, *, examples: Sequence[str] = (), **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As Typer's; ``examples`` stand below the help."""
        register = super().command(name, epilog=epilog(examples), **settings)
        return lambda function: register(_quietable(function))


def _quietable(function: Callable[..., Any]) -> Callable[..., Any]:
    """With ``--quiet``, and with the fields of groups (:mod:`genedml_cli.commands.groups`) as options of their own."""
    parameters = inspect.signature(function).parameters.values()
    groups: dict[str, Any] = {
        one.name: one.annotation for one in parameters if dataclasses.is_dataclass(one.annotation)
    }

    @functools.wraps(function)
    def call(quiet: bool, **values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        if not (quiet or App.quiet):
            return function(**values)
        from genedml_cli import console

        with console.quieted():
            return function(**values)

    options = []
    for one in parameters:
        fields = dataclasses.fields(one.annotation) if one.name in groups else ()
        options += [_option(field.name, field.type, field.default) for field in fields]
        options += [] if fields else [_option(one.name, one.annotation, one.default)]
    options.append(_option("quiet", QuietOption, False))
    call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    call.__annotations__ = {option.name: option.annotation for option in options}
    return call


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    for option in getattr(kind, "__metadata__", ()):
        if kind.__origin__ is bool:
            option.metavar = ""  # a flag takes no value, so help shows no type
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
