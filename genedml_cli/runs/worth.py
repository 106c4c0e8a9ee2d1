"""What each gene was worth, written into a run's models."""

from dataclasses import replace
from pathlib import Path

from genedml.checkpoint import CrossValidated, checkpoint_bytes, load_card, load_state
from genedml_cli.evaluation.scores import Evaluation
from genedml_cli.files.storage import atomic_write
from genedml_cli.outputs.run_folder import model_files_in


def record_scores(run: Path, evaluation: Evaluation) -> None:
    """Write what each gene was worth over the folds of a run into every model of it, that of all sections as well."""
    genes = evaluation.per_gene().set_index("gene")
    panels = [score.genes for score in evaluation.scores if score.method == evaluation.method]
    for file in model_files_in(run).values():
        card = load_card(file)
        columns = genes.reindex(card.genes)[["pcc", "pcc_sd", "ridge_pcc"]]
        folds = tuple(sum(gene in panel for panel in panels) for gene in card.genes)
        scored = CrossValidated(folds, *(tuple(values) for values in columns.round(4).to_numpy().T.tolist()))
        # As text, because a score that is not defined does not equal itself.
        if repr(card.cross_validated) != repr(scored):
            with atomic_write(file) as temporary:
                temporary.write_bytes(checkpoint_bytes(replace(card, cross_validated=scored), load_state(file)))
