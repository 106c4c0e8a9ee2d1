"""What a run's page says. Letters: S spots, M genes, G genes shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from genedml.checkpoint import ModelCard, load_card
from genedml.errors import reading
from genedml.metrics import nanmean, pcc
from genedml_cli.console import count
from genedml_cli.evaluation.evaluation import finished_sections, score_run
from genedml_cli.evaluation.points import Point
from genedml_cli.evaluation.scores import ABOVE_NULL, DEPTH, NARROW, RIDGE, Evaluation, reference_notes
from genedml_cli.files.text_files import read_text
from genedml_cli.notes import texts_of
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import check_genes
from genedml_cli.outputs.reference_layers import REFERENCES
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
from genedml_cli.report.curves import PASS, charts_of, chosen_epoch, read_logs
from genedml_cli.report.images import gene_pictures, small, tissue_picture
from genedml_cli.report.pictures import add_tissue_of_run, section_picture

GENES_SHOWN = 6  # at either end
MAPS_CHOSEN = "the genes with the highest and the lowest PCC over all folds"
# PCC first, where a narrow page starts.
SCORES_SHOWN = sorted(NARROW, key=lambda key: not key.startswith(("pcc", ABOVE_NULL)))
SCORES_CAPTION = (
    "Mean \u00b1 standard deviation over folds. MSE and MAE are in the label's units, lower is better; of PCC, the "
    "correlation of truth and prediction over a section's spots, higher is. PCC(A): all genes. PCC(H): the 50 genes "
    "ranked best over the test folds, which flatters; held out: the 50 chosen inside the training side. PCC given "
    "depth: with the spot's sequencing depth held fixed. References, fitted on the same sections: "
    f"{', '.join(reference.title for reference in REFERENCES.values())}."
)
NULL_CAPTION = " Above null given depth: the share of the genes that beat the same maps moved over the array."
GENES_CAPTION = (
    "PCC over the spots of a test section, mean \u00b1 standard deviation over folds. Over ridge: how much better than "
    "ridge regression on the same features."
)
CHARTS_NOTE = "A line a fold, over the epochs on its training sections; point at one for its name."
CHOSEN_NOTE = " The dot is the epoch that was chosen."
REFIT_NOTE = (
    " Afterwards each model was trained again, with the sections that had chosen the epoch, for as many epochs as were "
    "chosen."
)


def contents_of_run(run: Path, genes: Sequence[str] = ()) -> Contents:
    """All that the page of a run folder says; ``genes`` are shown first, else those with the best and worst scores.

    Raises:
        GeneDMLError: no run, none of its folds is finished, it is by an earlier version, or it has no such gene.
    """
    finished = finished_sections(run)
    record = read_record(run)
    evaluation = score_run(run, finished, full=True)
    data = {record_of(section).sample: section for section in finished.values()}
    cards = {fold: load_card(run / f"fold-{fold}.safetensors") for fold in _folds(evaluation)}
    first = next(iter(cards.values()))
    logs = read_logs(run, list(cards))
    table = evaluation.per_gene()
    shown = section_shown(data)
    check_genes(genes, data[shown], f"Section {shown} of {run}", f"genedml evaluate {run} --per-gene")
    sections = {name: _mapped(name, section, run) for name, section in data.items()}
    picture = sections[shown].picture
    groups = gene_groups(data[shown], table[table["gene"].isin(_genes_of_every_fold(evaluation))], genes)
    maps = _maps(sections[shown], groups)
    warnings, notes = parted(evaluation.notes)
    return Contents(
        title=run.resolve().name,
        kind="run",
        lead=_lead(evaluation, _same_patients(data, cards, record)),
        facts=_facts(data, evaluation, first, record),
        warnings=warnings,
        notes=notes,
        tissue=None if picture.tissue is None else tissue_picture(picture),
        tissue_note=f"Section {shown}, whose mean PCC is nearest to the mean of all sections."
        + ("" if picture.tissue is not None else " Its slide is not there as it was trained from, so it is not drawn."),
        maps=maps,
        maps_note=f"Below are {'the genes asked for' if genes else MAPS_CHOSEN}, on section {shown}; the PCC beside "
        "each name is that of this section.",
        atlas=atlas_of(
            list(sections.values()),
            [*dict.fromkeys([*genes, *table["gene"]])],
            maps[0].genes[0].gene if maps else str(table["gene"].iloc[0]),
            shown,
        ),
        genes=_gene_table(table),
        provenance=_provenance(record, first),
        cite=citations(first.encoder.name, [str(record["dataset"])]),
        scores=_score_table(evaluation),
        checklist=checklist_table(evaluation.checklist),
        folds=_fold_table(evaluation, logs),
        sections=_section_table(data),
        charts=charts_of(logs),
        charts_note=_charts_note(logs),
        settings=_settings(run / "config.toml"),
    )


def _settings(file: Path) -> str:
    with reading(f"The settings {file}", "Copy the file again."):
        return read_text(file) if file.is_file() else ""


def _folds(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(score.fold for score in evaluation.scores))


def _genes_of_every_fold(evaluation: Evaluation) -> set[str]:
    panels = [set(score.genes) for score in evaluation.scores if score.method == evaluation.method]
    return set.intersection(*panels)


def _same_patients(
    data: Mapping[str, anndata.AnnData], cards: Mapping[str, ModelCard], record: Mapping[str, Any]
) -> str:
    """What must be said in the headline where sections are of patients that their model was trained on."""
    donors = {str(sample["name"]): str(sample.get("donor", "")) for sample in record["samples"]}
    same = [
        name for name, section in data.items() if donors.get(name, "") in cards[record_of(section).fold].training_donors
    ]
    if not same:
        return ""
    patients = len({donors[name] for name in same})
    if len(same) < len(data):
        return f", {len(same)} of {len(data)} of them of a patient it was trained on,"
    return f", of the same patient{'s' if patients > 1 else ''} as those it was trained on,"


def _lead(evaluation: Evaluation, same_patients: str) -> str:
    summary, folds = evaluation.summary(), len(_folds(evaluation))

    def score(method: str) -> str:
        row = summary.loc[method]
        return number_cell(row[("pcc_a", "mean")], row[("pcc_a", "std")]).text

    others = {RIDGE: "ridge regression on the same features", DEPTH: "sequencing depth alone"}
    beside = [f"{name} {score(method)}" for method, name in others.items() if method in summary.index]
    over = f", mean over {count(folds, 'fold')}" if folds > 1 else ""
    where = f"On sections it had not seen{same_patients or ','}"
    own = f"{where} {evaluation.method} has a PCC of {score(evaluation.method)} over all genes{over}."
    sentences = [
        own,
        *([f"Beside it: {', '.join(beside)}."] if beside else []),
        *texts_of(reference_notes(evaluation.scores)),
    ]
    return " ".join(sentences)


def _facts(
    data: Mapping[str, anndata.AnnData], evaluation: Evaluation, card: ModelCard, record: Mapping[str, Any]
) -> list[tuple[str, str]]:
    patients = {record_of(section).patient for section in data.values()}
    folds = {str(sample["fold"]) for sample in record["samples"]}
    genes = sorted({section.n_vars for section in data.values()})
    scored = sum(section.n_obs for section in data.values())
    return [
        ("Sections tested", f"{len(data)} of {count(len(patients), 'patient')}"),
        ("Folds", f"{len(_folds(evaluation))} of {len(folds)}"),
        ("Spots scored", f"{scored:,}"),
        ("Genes", f"{' to '.join(str(number) for number in genes[:: max(1, len(genes) - 1)])} a fold"),
        ("Data set", str(record["dataset"]) or "own sections"),
        ("Encoder", card.encoder.name),
        ("Label", card.config.labels.describe()),
    ]


def section_shown(data: Mapping[str, anndata.AnnData]) -> str:
    """The section that stands for all: neither the best nor the worst."""
    scores = {name: section_score(section, section.X) for name, section in data.items()}
    mean = nanmean(list(scores.values()))
    known = {name: score for name, score in scores.items() if not np.isnan(score)}
    return min(known or scores, key=lambda name: abs(scores[name] - mean) if known else 0.0)


def _mapped(name: str, section: anndata.AnnData, run: Path) -> Mapped:
    """A section with all its genes, and its tissue where the slide is at hand."""
    truth, predicted = np.asarray(section.layers["truth"]), np.asarray(section.X)
    add_tissue_of_run(section, run, name)
    picture = section_picture(name, section, None, {})
    section.uns.pop("spatial", None)  # of many sections these pictures would fill the memory
    return Mapped(
        picture,
        list(section.var_names),
        {"measured": truth, "predicted": predicted},
        {"predicted": pcc(truth, predicted)},
    )


def section_score(section: anndata.AnnData, predicted: Any) -> float:
    """Mean PCC over the genes of a section."""
    return nanmean(pcc(np.asarray(section.layers["truth"]), np.asarray(predicted)))


def gene_groups(section: anndata.AnnData, table: pd.DataFrame, genes: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """The genes that are shown first, by why they are: asked for, or with the best and the worst PCC."""
    if genes:
        return [("Genes asked for", genes)]
    ranked = [gene for gene in table[table["pcc"].notna()]["gene"] if gene in section.var_names]
    best = ranked[:GENES_SHOWN]
    worst = [gene for gene in ranked[::-1] if gene not in best][:GENES_SHOWN]
    return [(title, chosen) for title, chosen in (("Best predicted", best), ("Worst predicted", worst)) if chosen]


def _maps(section: Mapped, groups: Sequence[tuple[str, Sequence[str]]]) -> list[MapGroup]:
    drawn = small(section.picture)

    def maps_of(gene: str) -> GeneMaps:
        column = section.genes.index(gene)
        panels = {what: values[:, column] for what, values in section.panels.items()}
        return GeneMaps(gene, f"PCC {section.score(column) or '-'}", gene_pictures(drawn, panels, gene))

    return [MapGroup(title, [maps_of(gene) for gene in genes]) for title, genes in groups]


def _score_table(evaluation: Evaluation) -> Table:
    nan = float("nan")
    rows = [
        [Cell(row.label), *(number_cell(row.mean.get(key, nan), row.sd.get(key, nan)) for key in SCORES_SHOWN)]
        for row in evaluation.published
    ]
    rows += [
        [Cell(str(method)), *(number_cell(row[(key, "mean")], row[(key, "std")]) for key in SCORES_SHOWN)]
        for method, row in evaluation.summary().iterrows()
    ]
    return Table("scores", ["Method", *(NARROW[key] for key in SCORES_SHOWN)], rows, SCORES_CAPTION + NULL_CAPTION)


def checklist_table(points: Sequence[Point]) -> Table:
    """What a trustworthy table of scores contains, and which of it this one does."""
    rows = [[Cell(point.name), Cell(str(point.state)), Cell(point.why)] for point in points]
    return Table("checklist", ["A trustworthy table has", "Here", "Why"], rows)


def _fold_table(evaluation: Evaluation, logs: Mapping[str, pd.DataFrame]) -> Table:
    values = evaluation.values()
    own = values[values["method"] == evaluation.method].set_index("fold")
    ridge = values[values["method"] == RIDGE].set_index("fold")["pcc_a"]
    rows = []
    for fold, row in own.iterrows():
        epoch = chosen_epoch(logs[str(fold)]) if str(fold) in logs else None
        scores = [number_cell(row["pcc_a"], bar=True), number_cell(ridge.get(fold, np.nan))]
        scores += [number_cell(row[key]) for key in ("pcc_h", "pcc_given_depth", "mse")]
        rows.append([Cell(str(fold)), Cell("-") if epoch is None else Cell(str(epoch), float(epoch)), *scores])
    columns = ["Fold", "Epoch", "PCC(A)", "ridge PCC(A)", "PCC(H)", "PCC given depth", "MSE"]
    return Table("folds", columns, rows, sortable=len(rows) > 1, noun="folds")


def _section_table(data: Mapping[str, anndata.AnnData]) -> Table:
    rows = []
    for name, section in data.items():
        of_section = record_of(section)
        ridge = section_score(section, section.layers["ridge"]) if "ridge" in section.layers else np.nan
        rows.append(
            [
                Cell(name),
                Cell(of_section.patient),
                Cell(of_section.fold),
                Cell(f"{section.n_obs:,}", float(section.n_obs)),
                number_cell(section_score(section, section.X), bar=True),
                number_cell(ridge),
            ]
        )
    columns = ["Section", "Patient", "Fold", "Spots", "PCC(A)", "ridge PCC(A)"]
    return Table("sections", columns, rows, sortable=len(rows) > 1, noun="sections")


def _gene_table(table: pd.DataFrame) -> Table:
    references = [(f"{name}_pcc", title) for name, title in (("ridge", "Ridge PCC"), ("depth_alone", "Depth PCC"))]
    known = [(column, title) for column, title in references if column in table]
    has_ridge = "ridge_pcc" in table
    rows = []
    for _, row in table.iterrows():
        own = number_cell(row["pcc"], row["pcc_sd"], bar=True)
        others = [number_cell(row[column], row[f"{column}_sd"]) for column, _ in known]
        gain = [signed_cell(row["pcc"] - row["ridge_pcc"])] if has_ridge else []
        rows.append([Cell(str(row["gene"])), own, *others, *gain])
    columns = ["Gene", "PCC", *(title for _, title in known), *(["Over ridge"] if has_ridge else [])]
    return gene_table(columns, rows, GENES_CAPTION, "genes.csv in the run folder")


def signed_cell(value: float, sd: float = np.nan) -> Cell:
    """A difference with its sign, and its standard deviation where it is known; or a dash."""
    if np.isnan(value):
        return Cell("-")
    spread = "" if np.isnan(sd) else f" \u00b1{sd:.3f}".replace("0.", ".", 1)
    return Cell(f"{value:+.3f}{spread}", float(value))


def _charts_note(logs: Mapping[str, pd.DataFrame]) -> str:
    chosen = any(chosen_epoch(log) is not None for log in logs.values())
    again = any((log[PASS] > 1).any() for log in logs.values())
    return CHARTS_NOTE + (CHOSEN_NOTE if chosen else "") + (REFIT_NOTE if again else "")


def _provenance(record: Mapping[str, Any], card: ModelCard) -> Sequence[tuple[str, str]]:
    config = card.config
    return [
        ("Command", str(record["made_by"].get("command", ""))),
        ("Version", f"genedml {record['made_by'].get('genedml', '')}, torch {record.get('torch', '')}"),
        ("Time", str(record["made_by"].get("time", ""))),
        ("Seed", str(config.training.seed)),
        ("Gene panel", str(record.get("panel", ""))),
        ("Views", "level-0 pixels" if config.views.um_per_px == "native" else f"{config.views.um_per_px} \u00b5m/px"),
        ("Encoder", f"{card.encoder.name}, weights {card.encoder.weights_sha256}"),
    ]
