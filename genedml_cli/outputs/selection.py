"""The genes of a prediction that are worth keeping, by their cross-validated PCC."""

from dataclasses import replace

import anndata
import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.prediction_record import record_of, set_record


def worthy_genes(columns: pd.DataFrame, min_cv_pcc: float) -> list[str]:
    """The genes whose cross-validated PCC is at least ``min_cv_pcc``; one that is not defined is not.

    Args:
        columns: as of :func:`gene_columns`, or the ``var`` of a prediction.
        min_cv_pcc: the least.

    Raises:
        GeneDMLError: there are no scores, or no gene is that good.
    """
    if "cv_pcc" not in columns:
        raise GeneDMLError(
            "No cross-validated scores to choose by: the model carries none, or this is a section of a run. Leave out "
            "--min-cv-pcc."
        )
    genes = columns.index[columns["cv_pcc"] >= min_cv_pcc]
    if genes.empty:
        best = columns["cv_pcc"].max()
        raise GeneDMLError(f"No gene has a cross-validated PCC of {min_cv_pcc:g}; the best has {best:.2f}: ask less.")
    return list(genes)


def keep_worthy(data: anndata.AnnData, min_cv_pcc: float) -> anndata.AnnData:
    """The :func:`worthy_genes` of a prediction, with a note that scores over them are of chosen genes.

    Raises:
        GeneDMLError: as :func:`worthy_genes`.
    """
    genes = worthy_genes(data.var, min_cv_pcc)
    text = f"{len(genes)} of {data.n_vars} genes, those with a cross-validated PCC of at least {min_cv_pcc:g}."
    note = Note(Mark.SELECTED, text)
    console.note(str(note))
    chosen, record = data[:, genes].copy(), record_of(data)
    set_record(chosen, replace(record, min_cv_pcc=min_cv_pcc, notes=(*record.notes, note)))
    return chosen
