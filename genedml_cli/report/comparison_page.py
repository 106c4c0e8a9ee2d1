"""What the page of several runs beside each other says. Letters: S spots, M genes, R runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from genedml.metrics import pcc
from genedml_cli.console import count
from genedml_cli.evaluation.comparison import Comparison
from genedml_cli.evaluation.evaluation import score_run
from genedml_cli.evaluation.run_comparison import compare_scores, read_comparable
from genedml_cli.evaluation.scores import METRICS, Evaluation
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import check_genes
from genedml_cli.outputs.run_folder import read_record
from genedml_cli.report.atlas import Mapped, atlas_of
from genedml_cli.report.contents import (
    Cell,
    Contents,
    GeneMaps,
    MapGroup,
    Table,
    citations,
    gene_table,
    number_cell,
    parted,
)
from genedml_cli.report.images import gene_pictures, small, tissue_picture
from genedml_cli.report.pictures import add_tissue_of_run, alike, section_picture
from genedml_cli.report.run_page import (
    SCORES_CAPTION,
    SCORES_SHOWN,
    checklist_table,
    gene_groups,
    section_score,
    section_shown,
    signed_cell,
)

COMPARED = [key for key in SCORES_SHOWN if key in METRICS]
MEASURED = "measured"
GENES_CAPTION = "PCC over the spots of a test section, mean \u00b1 standard deviation over folds."
Sections = Mapping[str, Mapping[str, anndata.AnnData]]
"""The prediction of every run, by its name, of every section; spots in the order of the first run."""


def contents_of_runs(runs: Sequence[Path], genes: Sequence[str] = ()) -> Contents:
    """All that the page of several runs says; ``genes`` are shown first, else those with the best and worst mean PCC.

    Raises:
        GeneDMLError: runs that do not stand in one table, one by an earlier version, or they have no such gene.
    """
    predictions = read_comparable(runs)
    evaluations = {run: score_run(run, of_run) for run, of_run in predictions.items()}
    comparison = compare_scores(evaluations)
    names = [str(name) for name in comparison.summary().index]
    by_section = [{record_of(data).sample: data for data in of_run.values()} for of_run in predictions.values()]
    sections = {section: alike(names, [of_run[section] for of_run in by_section]) for section in by_section[0]}
    shown = section_shown(by_section[0])
    check_genes(genes, by_section[0][shown], f"Section {shown}", f"genedml evaluate {runs[0]} --per-gene")
    maps = {name: _mapped(name, models, by_section[0][name], runs[0]) for name, models in sections.items()}
    table = _per_gene(names, list(evaluations.values()))
    groups = gene_groups(by_section[0][shown], table, genes)
    picture = maps[shown].picture
    first_gene = groups[0][1][0] if groups else table["gene"].iloc[0]
    records = [read_record(run) for run in runs]
    warnings, notes = parted(comparison.notes)
    return Contents(
        title=", ".join(names),
        kind="comparison",
        lead=_lead(comparison, names, len(sections)),
        facts=_facts(sections, comparison, records[0]),
        warnings=warnings,
        notes=notes,
        tissue=None if picture.tissue is None else tissue_picture(picture),
        tissue_note=f"Section {shown}, whose mean PCC by {names[0]} is nearest to the mean of all sections.",
        maps=_maps(maps[shown], groups),
        maps_note=f"Below are genes on section {shown}; the PCC below each panel is that of this section.",
        atlas=atlas_of(list(maps.values()), [*dict.fromkeys([*genes, *table["gene"]])], str(first_gene), shown),
        genes=_gene_table(names, table),
        provenance=[(name, _made_by(run, record)) for name, run, record in zip(names, runs, records, strict=True)],
        cite=citations(str(records[0]["config"]["encoder"]), [str(records[0]["dataset"])]),
        scores=_score_table(comparison),
        differences=_difference_table(comparison),
        checklist=checklist_table(comparison.checklist) if comparison.checklist else None,
        sections=_section_table(names, sections),
    )


def _mapped(name: str, models: Mapping[str, anndata.AnnData], first: anndata.AnnData, run: Path) -> Mapped:
    add_tissue_of_run(first, run, name)
    picture = section_picture(name, first, None, {})
    first.uns.pop("spatial", None)  # of many sections these pictures would fill the memory
    truth = np.asarray(first.layers["truth"])
    predicted = {model: np.asarray(data.X) for model, data in models.items()}
    scores = {model: pcc(truth, values) for model, values in predicted.items()}
    return Mapped(picture, list(first.var_names), {MEASURED: truth, **predicted}, scores)


def _maps(section: Mapped, groups: Sequence[tuple[str, Sequence[str]]]) -> list[MapGroup]:
    drawn = small(section.picture)

    def titled(what: str, column: int) -> str:
        return what if what == MEASURED else f"{what}, PCC {section.scores[what][column]:.2f}"

    def maps_of(gene: str) -> GeneMaps:
        column = section.genes.index(gene)
        panels = {titled(what, column): values[:, column] for what, values in section.panels.items()}
        return GeneMaps(gene, "", gene_pictures(drawn, panels, gene))

    return [MapGroup(title, [maps_of(gene) for gene in genes]) for title, genes in groups]


def _per_gene(names: Sequence[str], evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Genes, best mean PCC first: ``gene``, ``pcc`` the mean over runs, and (run, ``mean`` or ``sd``) of each."""
    each = [evaluation.per_gene().set_index("gene") for evaluation in evaluations]
    columns = {f"{name} {of}": table[key] for name, table in zip(names, each, strict=True) for of, key in OF.items()}
    table = pd.DataFrame({"pcc": sum(one["pcc"] for one in each) / len(each), **columns}).rename_axis("gene")
    return table.sort_values("pcc", ascending=False, kind="stable").reset_index()


OF = {"mean": "pcc", "sd": "pcc_sd"}


def _lead(comparison: Comparison, names: Sequence[str], sections: int) -> str:
    scores = {**comparison.summary()[("pcc_a", "mean")], **comparison.reference_summary()[("pcc_a", "mean")]}
    listed = ", ".join(f"{name} {score:.3f}" for name, score in scores.items() if not np.isnan(score))
    same = "section" if sections == 1 else f"{sections} sections"
    return f"{count(len(names), 'run')} on the same {same}. Mean PCC over all genes: {listed}."


def _facts(sections: Sections, comparison: Comparison, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    first = [next(iter(models.values())) for models in sections.values()]
    return [
        ("Sections tested", str(len(sections))),
        ("Folds", str(comparison.scores["fold"].nunique())),
        ("Spots scored", f"{sum(data.n_obs for data in first):,}"),
        ("Genes", f"{max(data.n_vars for data in first)}"),
        ("Data set", str(record["dataset"]) or "own sections"),
        ("Encoder", str(record["config"]["encoder"])),
        ("Label", record_of(first[0]).label),
    ]


def _score_table(comparison: Comparison) -> Table:
    rows = [
        [Cell(f"{name} (paper)"), *(number_cell(float(row.get(key, np.nan))) for key in COMPARED)]
        for name, row in comparison.published.iterrows()
    ]
    for summary in (comparison.summary(), comparison.reference_summary()):
        for name, row in summary.iterrows():
            cells = (number_cell(row[(key, "mean")], row[(key, "std")]) for key in COMPARED)
            rows.append([Cell(str(name)), *cells])
    return Table("scores", ["Method", *(METRICS[key] for key in COMPARED)], rows, SCORES_CAPTION)


def _difference_table(comparison: Comparison) -> Table:
    rows = [
        [Cell(str(name)), *(signed_cell(row[(key, "mean")], row[(key, "std")]) for key in COMPARED)]
        for name, row in comparison.differences().iterrows()
    ]
    caption = f"Less {comparison.base} in the same fold; mean \u00b1 standard deviation over folds."
    return Table("differences", ["Method", *(METRICS[key] for key in COMPARED)], rows, caption)


def _section_table(names: Sequence[str], sections: Sections) -> Table:
    rows = []
    for section, models in sections.items():
        record = record_of(next(iter(models.values())))
        scores = [number_cell(section_score(data, data.X), bar=True) for data in models.values()]
        rows.append([Cell(section), Cell(record.patient), Cell(record.fold), *scores])
    columns = ["Section", "Patient", "Fold", *(f"{name} PCC(A)" for name in names)]
    return Table("sections", columns, rows, sortable=len(rows) > 1, noun="sections")


def _gene_table(names: Sequence[str], table: pd.DataFrame) -> Table:
    rows = [
        [Cell(str(row["gene"])), *(number_cell(row[f"{name} mean"], row[f"{name} sd"], bar=True) for name in names)]
        for _, row in table.iterrows()
    ]
    return gene_table(["Gene", *(f"{name} PCC" for name in names)], rows, GENES_CAPTION, "genes.csv in the run folders")


def _made_by(run: Path, record: Mapping[str, Any]) -> str:
    return f"{run}: {record['made_by'].get('command', '')}, at {record['made_by'].get('time', '')}"
