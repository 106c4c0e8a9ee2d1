"""genedml evaluate"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import options
from genedml_cli.commands.options import DATA

EXAMPLES = ("genedml evaluate runs/mine --per-gene", "genedml evaluate out.h5ad --truth counts.csv")


def evaluate(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="TARGET",
            help="A run folder, or an .h5ad that predict wrote; several runs stand in one table, held against the "
            "first; hf://OWNER/NAME with --external. (default: newest under runs/)",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Raw counts of the section, for an .h5ad.")] = None,
    per_gene: Annotated[bool, typer.Option("--per-gene", help="Also list every gene.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="All scores of every method: unsmoothed truth, thirds of the genes by Moran's I, the null of moved "
            "maps, variance ratio, and of a run the share of the ceiling, as with --ceiling.",
        ),
    ] = False,
    ceiling: Annotated[
        bool, typer.Option("--ceiling", help="Also how far two halves of a run's counts agree, so what is attainable.")
    ] = False,
    external: Annotated[
        str | None,
        typer.Option(
            help="Score every fold's model on sections of other donors: a sample sheet, or visium-breast.",
            rich_help_panel=DATA,
        ),
    ] = None,
    gene_map: options.GeneMapOption = None,
    root: options.RootOption = None,
    allow_partial: options.PartialOption = False,
    allow_off_tissue: options.OffTissueOption = False,
    skip_off_image: options.OffImageOption = False,
    weights: options.WeightsOption = None,
    features: options.FeaturesOption = Path("features"),
    device: options.DeviceOption = options.Device.auto,
    deterministic: options.DeterministicOption = False,
    json_: options.JsonOption = False,
) -> None:
    """Score a run or a prediction: MSE, MAE and PCC beside the constant, depth and ridge references."""
    if external is None and (root or weights or allow_partial or allow_off_tissue or skip_off_image or deterministic):
        others = "--root, --weights, --allow-partial, --allow-off-tissue, --skip-off-image and --deterministic"
        raise typer.BadParameter(f"{others} go with --external.")
    if external is not None and (truth is not None or ceiling or per_gene or full):
        raise typer.BadParameter("--external goes without --truth, --ceiling, --full and --per-gene.")
    if targets and len(targets) > 1:
        if truth is not None or ceiling or per_gene or full or external is not None:
            raise typer.BadParameter("Several runs go without --truth, --ceiling, --full, --per-gene and --external.")
        _evaluate_several(targets, json_)
        return
    target = targets[0] if targets else None
    if external is None:
        if gene_map is not None and truth is None:
            raise typer.BadParameter("--gene-map goes with --truth or --external.")
        _evaluate(target, truth, ceiling, full, per_gene, json_, gene_map)
        return
    from genedml_cli import console
    from genedml_cli.commands.tables.external import show_external
    from genedml_cli.evaluation.external import evaluate_external
    from genedml_cli.machine.compute import Compute

    compute = Compute(device, deterministic=deterministic)
    scored = evaluate_external(
        target,
        external,
        root,
        allow_partial,
        allow_off_tissue,
        features,
        skip_off_image=skip_off_image,
        weights=weights,
        compute=compute,
        gene_map=gene_map,
    )
    if json_:
        console.document({**scored.to_dict(), "folder": scored.folder if scored.written else None})
    else:
        show_external(scored)


def _evaluate_several(runs: Sequence[Path], json_: bool) -> None:
    from genedml_cli import console
    from genedml_cli.commands.tables.comparison import show_comparison
    from genedml_cli.evaluation.comparison import compare_runs

    comparison = compare_runs(runs)
    if json_:
        console.document(comparison.to_dict())
    else:
        show_comparison(comparison, written=False)


def _evaluate(
    target: Path | None,
    truth: Path | None,
    ceiling: bool,
    full: bool,
    per_gene: bool,
    json_: bool,
    gene_map: Path | None,
) -> None:
    from genedml_cli import console
    from genedml_cli.commands.tables import scores
    from genedml_cli.evaluation import evaluation

    result = evaluation.evaluate(target, truth, ceiling, gene_map, ceiling_if_possible=full or json_)
    if json_:
        genes = {"genes": result.per_gene().to_dict("records")} if per_gene else {}
        console.document({**result.to_dict(), "folder": result.folder if result.written else None, **genes})
        return
    scores.show_evaluation(result, f"The same as CSV and JSON: {result.folder}/" if result.written else "", full)
    if per_gene:
        scores.show_genes(result, full)
