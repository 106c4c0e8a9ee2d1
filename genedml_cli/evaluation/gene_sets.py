"""Scores of gene sets and regions of spots, of predictions and of what was measured. Letters: S spots, M genes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.errors import GeneDMLError, reading
from genedml.metrics import pcc
from genedml_cli.evaluation.evaluation import label_note, score_prediction
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import beside, refuse_overwriting_inputs, write_text
from genedml_cli.files.text_files import read_text
from genedml_cli.notes import Note, marks_of, texts_of
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of

FEWEST_GENES = 5
"""Of a set in the panel: the mean over fewer is that of single genes."""
COMPONENTS, NEIGHBORS = 30, 15
"""Principal components and neighbours of a spot for Leiden, as scanpy's tutorials take them."""
SEED = 0
MOST_BINS, GENES_A_BIN = 25, 10
"""Of genes with like means, of which the controls of a set are: scanpy's number, fewer of a small panel."""
REFERENCE = "ridge"
"""The layer that is held against the truth beside the prediction."""


@dataclass(frozen=True)
class SetScores:
    """What sets of genes and regions say of a section.

    Args:
        prediction: the file.
        spots: a row a spot: ``region``, then a column a set.
        genes: how many genes of every set are in the panel, and of how many.
        left_out: the sets that are not scored, and why.
        notes: what must be said with them.
        written: where the spots stand as a table.
        pcc: of every set's score with that of the truth, by method; empty without truth.
        ari: of the regions with those of the truth, by method; empty without truth.
    """

    prediction: Path
    spots: pd.DataFrame
    genes: Mapping[str, tuple[int, int]]
    left_out: Mapping[str, str]
    notes: tuple[Note, ...]
    written: Path
    pcc: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ari: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        sets = {
            name: {"genes": found, "of": of, "pcc": {method: scores[name] for method, scores in self.pcc.items()}}
            for name, (found, of) in self.genes.items()
        }
        regions = {"regions": int(self.spots["region"].nunique()), "ari": dict(self.ari)}
        return {"sets": sets, "left_out": dict(self.left_out), **regions, "notes": texts_of(self.notes)}


@takes_paths
def score(
    prediction: Path,
    gene_sets: Path,
    truth: Path | None = None,
    out: Path | None = None,
    *,
    fewest_genes: int = FEWEST_GENES,
    resolution: float = 1.0,
) -> SetScores:
    """Score gene sets at every spot of a prediction, find regions of alike spots, and hold both against the truth.

    A set's score is scanpy's ``score_genes``: the mean label of its genes less that of other genes of the panel as high
    as they are: in the truth where it is known, else in the prediction, and the same ones for both.
    Regions are Leiden's on the principal components of all genes.

    Args:
        prediction: an ``.h5ad`` of predict, or of a run's folder ``predictions``, which holds its truth.
        gene_sets: a ``.gmt`` file: a line a set, its name, a description and its genes, with tabs between.
        truth: raw counts of the section of a prediction of predict.
        out: the CSV to write, a row a spot; if None, ``NAME.sets.csv`` beside the prediction.
        fewest_genes: sets of which the panel has fewer are left out, and named.
        resolution: of Leiden; more gives more regions.

    Raises:
        GeneDMLError: no prediction, no gene sets, none that can be scored, or counts that do not join.
    """
    sets = read_gene_sets(gene_sets)
    out = beside(prediction, "sets.csv") if out is None else out
    refuse_overwriting_inputs([out], [prediction, gene_sets, truth])
    if truth is None:
        data = read_prediction(prediction)
        notes: tuple[Note, ...] = (label_note(record_of(data).label_settings), *record_of(data).notes)
    else:
        evaluation, data = score_prediction(prediction, truth)
        notes = evaluation.notes
    kept, left_out = _scorable(sets, list(data.var_names), fewest_genes)
    values = np.asarray(data.X)
    reference = np.asarray(data.layers["truth"]) if "truth" in data.layers else values
    measured = ~np.isnan(reference).all(axis=1)
    means = np.nan_to_num(reference[measured].mean(axis=0))
    controls = control_genes(means, list(data.var_names), kept)
    spots = set_scores(values, list(data.var_names), kept, controls)
    spots.insert(0, "region", regions_of(values, resolution))
    spots.index = pd.Index(data.obs_names, name="spot")
    write_text(out, spots.assign(marks=marks_of(notes)).to_csv())
    found = {name: (len(genes), len(sets[name])) for name, genes in kept.items()}
    against = _against_truth(data, sets, fewest_genes, resolution) if "truth" in data.layers else ({}, {})
    return SetScores(prediction, spots, found, left_out, notes, out, *against)


def read_gene_sets(path: Path) -> dict[str, tuple[str, ...]]:
    """The genes of every set of a ``.gmt`` file, each once.

    Raises:
        GeneDMLError: no such file, a line that is none of a set, or a name that stands twice.
    """
    sets: dict[str, tuple[str, ...]] = {}
    with reading(f"The gene sets {path}", "Give a .gmt file: name, description and genes, with tabs between."):
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if not line.strip():
                continue
            name, *rest = (cell.strip() for cell in line.split("\t"))
            genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
            if not name or not genes:
                raise ValueError(f"line {number} names no set with genes")
            if name in sets:
                raise ValueError(f"line {number} names {name} a second time")
            sets[name] = genes
        if not sets:
            raise ValueError("it is empty")
    return sets


def control_genes(
    means: Float[np.ndarray, " M"], genes: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """What every set is held against: all other genes in the bins of its genes, by mean, as scanpy's ``score_genes``.

    scanpy draws 50 of a bin that has more, here all are taken. Where a set fills its bins, all other genes are.

    Args:
        means: of every gene, of the table by which controls are chosen.
        genes: their names.
        sets: genes of every set.
    """
    bins = max(1, min(MOST_BINS, len(genes) // GENES_A_BIN))
    in_bin = len(genes) + 1 if bins == 1 else int(np.round(len(genes) / (bins - 1)))
    cut = pd.Series(means, index=list(genes)).rank(method="min") // in_bin
    controls = {}
    for name, of_set in sets.items():
        others = cut.drop(list(of_set))
        beside = others[others.isin(cut[list(of_set)])]
        controls[name] = list((beside if len(beside) else others).index)
    return controls


def set_scores(
    values: Float[np.ndarray, "S M"],
    genes: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    controls: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """The mean of every set's genes less that of its controls, a row a spot."""
    table = pd.DataFrame(np.asarray(values, dtype=np.float64), columns=list(genes))
    return pd.DataFrame(
        {name: table[list(own)].mean(axis=1) - table[list(controls[name])].mean(axis=1) for name, own in sets.items()}
    )


def regions_of(values: Float[np.ndarray, "S M"], resolution: float = 1.0) -> list[str]:
    """The region of every spot: Leiden's clusters of a graph of neighbours in the main components of all genes.

    Raises:
        GeneDMLError: fewer than three spots or genes.
    """
    from scanpy import pp, tl

    if min(values.shape) < 3:
        raise GeneDMLError(f"{values.shape[0]} spots of {values.shape[1]} genes have no regions. Predict more.")
    data = anndata.AnnData(values.astype(np.float32))
    pp.pca(data, n_comps=min(COMPONENTS, min(values.shape) - 1), random_state=SEED)
    pp.neighbors(data, n_neighbors=min(NEIGHBORS, len(values) - 1), random_state=SEED)
    tl.leiden(data, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=SEED)
    return data.obs["leiden"].astype(str).tolist()


def _scorable(
    sets: Mapping[str, Sequence[str]], panel: Sequence[str], fewest: int
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The genes of the panel in every set that has enough of them, and why the others are left out.

    Raises:
        GeneDMLError: none has.
    """
    known, kept, left_out = set(panel), {}, {}
    for name, genes in sets.items():
        there = [gene for gene in genes if gene in known]
        if len(there) < fewest:
            left_out[name] = f"{len(there)} of its {len(genes)} genes are in the panel"
        elif len(there) > len(known) / 2:
            left_out[name] = f"it holds {len(there)} of the panel's {len(known)} genes: too few are left to compare"
        else:
            kept[name] = there
    if not kept:
        raise GeneDMLError(
            f"No set can be scored: none has {fewest} to {len(known) // 2} genes of the {len(known)} predicted "
            f"(the first: {', '.join(list(panel)[:3])}). Give symbols as these are, or fewer --min-genes."
        )
    return kept, left_out


def _against_truth(
    data: anndata.AnnData, sets: Mapping[str, Sequence[str]], fewest: int, resolution: float
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """PCC of sets and ARI of regions with those of the truth, by method, over the spots and genes that have a label."""
    from sklearn.metrics import adjusted_rand_score

    truth = np.asarray(data.layers["truth"])
    labelled, matched = ~np.isnan(truth).all(axis=1), ~np.isnan(truth).all(axis=0)
    measured = data[labelled, matched]
    genes = list(measured.var_names)
    kept, _ = _scorable(sets, genes, fewest)
    controls = control_genes(np.asarray(measured.layers["truth"]).mean(axis=0), genes, kept)
    expected = set_scores(np.asarray(measured.layers["truth"]), genes, kept, controls)
    regions = regions_of(np.asarray(measured.layers["truth"]), resolution)
    methods = {record_of(data).title: np.asarray(measured.X)}
    if REFERENCE in measured.layers:
        methods[REFERENCE] = np.asarray(measured.layers[REFERENCE])
    scores, agreement = {}, {}
    for method, values in methods.items():
        own = set_scores(values, genes, kept, controls)
        scores[method] = dict(zip(kept, pcc(expected.to_numpy(), own.to_numpy()).tolist(), strict=True))
        scores[method] |= {name: float("nan") for name in sets if name not in kept}
        agreement[method] = float(adjusted_rand_score(regions, regions_of(values, resolution)))
    return scores, agreement
