"""The genes of a prediction that are worth keeping, by their cross-validated PCC."""

import anndata
import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.notes import Mark, Note


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
    kept = columns.index[columns["cv_pcc"] >= min_cv_pcc]
    if kept.empty:
        best = columns["cv_pcc"].max()
        raise GeneDMLError(f"No gene has a cross-validated PCC of {min_cv_pcc:g}; the best has {best:.2f}: ask less.")
    return list(kept)


def keep_worthy(data: anndata.AnnData, min_cv_pcc: float) -> anndata.AnnData:
    """The :func:`worthy_genes` of a prediction, with a note that scores over them are of chosen genes.

    Raises:
        GeneDMLError: as :func:`worthy_genes`.
    """
    kept = worthy_genes(data.var, min_cv_pcc)
    text = f"{len(kept)} of {data.n_vars} genes, those with a cross-validated PCC of at least {min_cv_pcc:g}."
    note = str(Note(Mark.SELECTED, text))
    console.note(note)
    chosen = data[:, kept].copy()
    made_by = chosen.uns["genedml"]
    made_by |= {"min_cv_pcc": min_cv_pcc, "notes": [*made_by["notes"], note]}
    return chosen
