"""What the page of a model of the hub says: all that its own files know, as it comes without slides and counts."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import tomli_w

from genedml.checkpoint import ModelCard, load_card
from genedml.networks.registry import title_of, variant_of
from genedml.schema import to_dict
from genedml_cli.console import count
from genedml_cli.notes import Note
from genedml_cli.outputs.hub_models import from_hub, parse_name
from genedml_cli.outputs.run_folder import model_files_in
from genedml_cli.prediction.worth import gene_columns
from genedml_cli.report.contents import Cell, Contents, Table, citations, gene_table, number_cell, parted

CAPTION = "PCC of the network and of ridge regression on the test sections of the run's folds, mean over the folds."
WITHOUT_SCORES = "It carries no cross-validated scores, so nothing says what its prediction of a gene is worth."


def contents_of_model(name: Path) -> Contents:
    """All that the page of ``hf://owner/name`` says.

    Raises:
        GeneDMLError: as :func:`genedml_cli.outputs.hub_models.from_hub`.
    """
    folder = from_hub(name)
    cards = [load_card(file) for file in model_files_in(folder).values()]
    first = cards[0]
    genes = [gene for gene in first.genes if all(gene in card.genes for card in cards)]
    scores = gene_columns(cards, genes)
    warnings, notes = parted([Note.of(text) for card in cards for text in card.notes])
    title = title_of(first.config.method, variant_of(first.config.method, first.config.network))
    known = f"The median gene had a PCC of {scores['cv_pcc'].median():.2f}." if "cv_pcc" in scores else WITHOUT_SCORES
    return Contents(
        title=parse_name(name)[0],
        kind="model",
        lead=f"{title} for {count(len(genes), 'gene')}, {count(len(cards), 'model')}. {known}",
        facts=_facts(cards),
        warnings=warnings,
        notes=notes,
        tissue=None,
        tissue_note="",
        maps=(),
        maps_note="",
        atlas={},
        genes=_gene_table(scores),
        provenance=[
            ("Model", f"hf://{'@'.join(parse_name(name))}, commit {folder.name}"),
            ("Seed", str(first.config.training.seed)),
            ("Encoder", f"{first.encoder.name}, weights {first.encoder.weights_sha256}"),
        ],
        cite=citations(first.encoder.name, [str(first.made_by.get("dataset", ""))], parse_name(name)[0]),
        settings=tomli_w.dumps(to_dict(first.config)),
    )


def _facts(cards: Sequence[ModelCard]) -> list[tuple[str, str]]:
    first = cards[0]
    sections = {name for card in cards for name in card.training_slides}
    patients = {name for card in cards for name in card.training_patients}
    scale = [value for card in cards for value in card.um_per_px]
    return [
        ("Trained on", f"{count(len(sections), 'section')} of {count(len(patients), 'patient')}"),
        ("Data set", str(first.made_by.get("dataset") or "own sections")),
        ("Encoder", first.encoder.name),
        ("\u00b5m/px", f"{min(scale):.3g} to {max(scale):.3g}" if scale else "not known"),
        ("Label", first.config.labels.describe()),
    ]


def _gene_table(scores: pd.DataFrame) -> Table:
    if scores.empty:
        return gene_table(["Gene"], [[Cell(str(gene))] for gene in scores.index], WITHOUT_SCORES, "the model's card")
    rows = [
        [Cell(str(gene)), number_cell(row["cv_pcc"], row["cv_pcc_sd"], bar=True), number_cell(row["baseline_pcc"])]
        for gene, row in scores.sort_values("cv_pcc", ascending=False).iterrows()
    ]
    return gene_table(["Gene", "PCC", "Ridge PCC"], rows, CAPTION, "the model's card")
