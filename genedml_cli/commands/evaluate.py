"""genedml evaluate"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from genedml_cli.commands import groups, options

EXAMPLES = ("genedml evaluate runs/mine --per-gene", "genedml evaluate out.h5ad --truth counts.csv")


def evaluate(
    external: groups.ExternalOptions,
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
            "maps, variance ratio and the share of the ceiling; of several runs also their differences.",
        ),
    ] = False,
    ceiling: Annotated[
        bool, typer.Option("--ceiling", help="Also how far two halves of a run's counts agree, so what is attainable.")
    ] = False,
    gene_map: options.GeneMapOption = None,
    json_: options.JsonOption = False,
) -> None:
    """Score a run or a prediction: MSE, MAE and PCC beside the constant, depth and ridge references."""
    external.check()
    several, target = len(targets or ()) > 1, targets[0] if targets else None
    if several and external.external is not None:
        raise typer.BadParameter("--external goes with one run.")
    if (several or external.external is not None) and (truth is not None or ceiling or per_gene):
        raise typer.BadParameter("--truth, --ceiling and --per-gene go with one target and without --external.")
    if gene_map is not None and truth is None and external.external is None:
        raise typer.BadParameter("--gene-map goes with --truth or --external.")
    if external.external is not None:
        _evaluate_externally(target, external, full, json_, gene_map)
    elif targets and several:
        _evaluate_several(targets, full, json_)
    else:
        _evaluate(target, truth, ceiling, full, per_gene, json_, gene_map)


def _evaluate_externally(
    run: Path | None, external: groups.ExternalOptions, full: bool, json_: bool, gene_map: Path | None
) -> None:
    from genedml_cli import console
    from genedml_cli.commands.tables.external import show_external

    scored = external.evaluated(run, gene_map, ceiling_if_possible=full or json_)
    if json_:
        console.document({**scored.to_dict(), "folder": scored.folder if scored.written else None})
    else:
        show_external(scored, full)


def _evaluate_several(runs: Sequence[Path], full: bool, json_: bool) -> None:
    from genedml_cli import console
    from genedml_cli.commands.tables.comparison import show_comparison
    from genedml_cli.evaluation.run_comparison import compare_runs

    comparison = compare_runs(runs, full or json_)
    if json_:
        console.document(comparison.to_dict())
    else:
        show_comparison(comparison, written=False, full=full)


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
