"""What a prediction is worth: each gene's score over the folds of its run, each spot's distance from the training.

Letters: S spots, M genes.
"""

from collections.abc import Sequence
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd

from genedml.checkpoint import ModelCard
from genedml_cli import console
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.prediction_record import record_of, set_record
from genedml_cli.references.novelty import NoveltyModel

FAR = 0.95
FAR_SPOTS = 0.25
COLUMNS = {"cv_pcc": "pcc", "cv_pcc_sd": "pcc_sd", "cv_folds": "folds", "baseline_pcc": "ridge_pcc"}


def gene_columns(cards: Sequence[ModelCard], genes: Sequence[str]) -> pd.DataFrame:
    """``cv_pcc``, ``cv_pcc_sd``, ``cv_folds`` and ``baseline_pcc`` of ``genes``; empty if a model has not been scored.

    Models of one run say the same of a gene; of models put together by hand it is the mean.
    """
    scored = [(card.genes, card.cross_validated) for card in cards if card.cross_validated is not None]
    if len(scored) < len(cards):
        return pd.DataFrame(index=pd.Index(genes))
    each = [
        pd.DataFrame({name: getattr(values, field) for name, field in COLUMNS.items()}, index=of).loc[list(genes)]
        for of, values in scored
    ]
    return sum(each[1:], each[0]) / len(each)


def add_novelty(data: anndata.AnnData, measures: Sequence[NoveltyModel], features: SectionFeatures) -> None:
    """``obs["novelty"]``, the mean over the folds' measures; a note and a warning if too many spots are far out."""
    novelty = np.mean([measure.novelty(features) for measure in measures], axis=0)
    data.obs["novelty"] = novelty.astype(np.float32)
    far = float((novelty > FAR).mean())
    if far > FAR_SPOTS:
        text = (
            f"{far:.0%} of this slide's spots look unlike the training slides (novelty above {FAR}; of a slide like "
            f"them it is {1 - FAR:.0%}). Their prediction is a guess. Check um/px, or train on slides of this stain, "
            "scanner and tissue; obs['novelty'] tells it spot by spot."
        )
        record = record_of(data)
        set_record(data, replace(record, notes=(*record.notes, Note(Mark.NOVEL, text))))
        console.warn(text)
