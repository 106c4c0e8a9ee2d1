"""genedml compare"""

from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import groups, options
from genedml_cli.commands.options import DATA, MODEL, RUN

EXAMPLES = (
    "genedml compare --samples sheet.csv -o compare",
    "genedml compare --methods triplex,triplex:published --samples s.csv -o two",
)


def compare(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the grid; call again to go on.", rich_help_panel=RUN)
    ],
    training: groups.TrainingOptions,
    machine: groups.ComputeOptions,
    methods: Annotated[
        str,
        typer.Option(
            help="Names with commas between them, each with its preset behind a colon if it is to have another "
            "(triplex:published), or all (see: genedml methods).",
            metavar="NAMES",
        ),
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds a method, counted on from training.seed.")] = 3,
    external: Annotated[
        str | None,
        typer.Option(
            help="Score every model also on sections of other donors: a sample sheet, or visium-breast.",
            rich_help_panel=DATA,
        ),
    ] = None,
    external_root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds their data. (default: --root)", show_default=False, rich_help_panel=DATA),
    ] = None,
    backbone_weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights file that a method's own backbone starts from (st-net, bleep, triplex with a published "
            "preset), instead of the hub; once a method, as METHOD=FILE, or FILE where only one has a backbone.",
            metavar="METHOD=FILE",
            rich_help_panel=MODEL,
        ),
    ] = None,
    json_: options.JsonOption = False,
) -> None:
    """Train several methods on the same sections, folds, panel and labels; one table, the paper's rows beside it."""
    from genedml_cli import console
    from genedml_cli.commands import choices
    from genedml_cli.commands.tables.comparison import show_comparison
    from genedml_cli.commands.tables.external import show_external_comparison
    from genedml_cli.evaluation.external_sections import find_sections
    from genedml_cli.runs import comparison

    if external is None and external_root is not None:
        raise typer.BadParameter("--external-root goes with --external.")
    allowed = training.allow_partial, training.allow_off_tissue, training.skip_off_image
    elsewhere = None if external is None else find_sections(external, external_root or training.root, *allowed)
    sections, partial = training.sections()
    rows = [name.partition(":") for name in choices.choose_methods(methods)]
    configs = {(method, preset): training.trained(method, preset=preset) for method, _, preset in rows}
    backbones = choices.choose_backbone_weights(backbone_weights or (), configs.values())
    settings = training.settings(partial, machine.compute, backbones)
    result = comparison.compare(sections, out, configs, seeds, settings)
    if result is None:
        training.say_shard_done(out, json_)
        return
    of_others = None if elsewhere is None else comparison.compare_externally(out, configs, seeds, elsewhere, settings)
    if json_:
        external_rows = {} if of_others is None else {"external": of_others.to_dict()}
        console.document({**result.to_dict(), "folder": result.folder, **external_rows})
        return
    show_comparison(result)
    if of_others is not None:
        show_external_comparison(of_others)
