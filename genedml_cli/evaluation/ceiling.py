"""How well any model could score: the labels of two halves of the counts against each other (METHOD section 6).

Every read of a section goes to one of two halves by the toss of a coin, as if the section had been sequenced twice at
half the depth. What the labels of the halves do not share is noise that no slide shows.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import anndata
import numpy as np
from jaxtyping import Float

from genedml.config import LabelsConfig
from genedml.errors import GeneDMLError
from genedml.metrics import column_nanmean, nanmean, partial_pcc, pcc
from genedml_cli import console
from genedml_cli.evaluation.scores import SPLIT_HALVES, FoldScores
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.gene_map import with_gene_map
from genedml_cli.expression.labels import make_labels
from genedml_cli.notes import Note
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import spots_of
from genedml_cli.outputs.run_folder import read_record
from genedml_cli.spots.spots import Spots

SEED = 2021
NOTE = Note(
    None,
    "Split halves: PCC r of the labels that two random halves of the counts give. Attainable: sqrt(2 r / (1 + r)), the "
    "PCC of a model that knows all but the noise of the counts.",
)

HalvesPCC = tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]


def split_halves(run: Path, folds: Mapping[str, Sequence[anndata.AnnData]]) -> tuple[FoldScores, ...]:
    """Split-half PCC of the labels of a run's test sections, from the counts that it was trained on.

    Args:
        run: its folder.
        folds: the test sections of each of its folds, as ``predictions/`` holds them.

    Raises:
        GeneDMLError: counts that are no longer there, or not whole numbers.
    """
    read, scores = _reader(run), []
    with console.progress("Split halves", len(folds)) as advance:
        for fold, sections in folds.items():
            scores.append(_fold_scores(fold, sections, read))
            advance(note=f"fold {fold}")
    return tuple(scores)


def split_half_pcc(
    counts: anndata.AnnData, spots: Spots, genes: Sequence[str], labels: LabelsConfig, seed: int | Sequence[int]
) -> HalvesPCC:
    """PCC of every gene between the labels of two halves of a section's counts, and the same with depth held fixed.

    Spots without a label in one of the halves are left out.

    Raises:
        GeneDMLError: counts that are not whole numbers, or that do not join.
    """
    whole = make_labels(counts, spots, genes, labels)
    first, second = (make_labels(half, spots, genes, labels) for half in thin(counts, np.random.default_rng(seed)))
    both = first.valid & second.valid
    y = first.y[both], second.y[both]
    return pcc(*y), partial_pcc(*y, whole.depth[both])


def thin(counts: anndata.AnnData, random: np.random.Generator) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Two halves of raw counts: every read goes to one of them by the toss of a coin.

    Raises:
        GeneDMLError: counts that are not whole numbers, so no reads.
    """
    reads = counts.X.data
    if (reads != np.rint(reads)).any():
        raise GeneDMLError("These counts are not whole numbers, so they cannot be split in halves. Give raw counts.")
    half = random.binomial(reads.astype(np.int64), 0.5)
    first, second = counts.copy(), counts.copy()
    first.X.data, second.X.data = half.astype(np.float32), (reads - half).astype(np.float32)
    return first, second


def _fold_scores(fold: str, sections: Sequence[anndata.AnnData], read: Callable[[str], anndata.AnnData]) -> FoldScores:
    genes = tuple(sections[0].var_names)
    plain, partial = [], []
    for section in sections:
        record = record_of(section)
        seed = [SEED, crc32(record.sample.encode())]
        table = read(record.sample)
        halves = split_half_pcc(table, spots_of(section), genes, record.label_settings, seed)
        plain.append(halves[0])
        partial.append(halves[1])
    return FoldScores(
        SPLIT_HALVES,
        fold,
        genes,
        mse=float("nan"),
        mae=float("nan"),
        pcc_a=nanmean([nanmean(section) for section in plain]),
        pcc_given_depth=nanmean([nanmean(section) for section in partial]),
        pcc=column_nanmean(np.stack(plain)),
        held_out_pcc=None,
        without_pcc=int(np.isnan(plain).sum()),
        per_gene={"pcc_given_depth": column_nanmean(np.stack(partial))},
    )


def _reader(run: Path) -> Callable[[str], anndata.AnnData]:
    """What reads the counts of a section of a run, with the run's gene map."""
    stored = read_record(run)
    files = {sample["name"]: Path(sample["counts"]) for sample in stored["samples"]}
    gene_map = stored.get("gene_map")

    def read(sample: str) -> anndata.AnnData:
        try:
            return with_gene_map(read_counts(files[sample]), None if gene_map is None else Path(gene_map))
        except GeneDMLError as error:
            error.add_note(
                f"The ceiling of {sample} needs the counts where train found them: run it in the same folder."
            )
            raise

    return read
