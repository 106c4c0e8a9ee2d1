"""The scores of every method on the test sections of a fold.

Letters: S spots, M genes. What is defined within a section (all but MSE and MAE) is averaged like
PCC: over the section's genes, then over the fold's sections (METHOD section 6). The null is of all sections together.
"""

from collections.abc import Mapping, Sequence

import anndata
import numpy as np
from jaxtyping import Float, Int

from genedml.metrics import HIGH_GENES, column_nanmean, nanmean, partial_pcc, pcc, residual, variance_ratio
from genedml_cli.evaluation.intervals import coverage
from genedml_cli.evaluation.null import Moves, above_null, draws_of, moves_of, null_p_values
from genedml_cli.evaluation.scores import ABOVE_NULL, CONSTANT, DEPTH, FoldScores
from genedml_cli.outputs.predictions import UNSMOOTHED, spots_of
from genedml_cli.outputs.reference_layers import REFERENCES, held_out_column

THIRDS = ("pcc_moran_low", "pcc_moran_middle", "pcc_moran_high")

OfGenes = Mapping[str, Float[np.ndarray, " M"]]


def score_fold(
    fold: str, sections: Sequence[anndata.AnnData], method: str, full: bool = False, null: bool = True
) -> list[FoldScores]:
    """Scores of a network and of the references over the test sections of a fold, the network's first.

    Args:
        fold: its name.
        sections: labelled spots only: predictions in ``X``, ``truth`` and what references there are in ``layers``,
            ``obs["depth"]``, and in ``var`` the PCC inside the training side where it is known.
        method: the network's title.
        full: score all of :data:`genedml_cli.evaluation.scores.FULL_METRICS`: needs the places of the spots; unsmoothed
            truth (``layers``) and Moran's I (``var``) are used where they are known.
        null: among these the null of moved maps, which takes a hundred times as long as the others.
    """
    layers = {reference.title: layer for layer, reference in REFERENCES.items() if layer in sections[0].layers}
    methods: dict[str, str | None] = {method: None, **layers}
    moves = [moves_of(spots_of(section)) for section in sections] if full and null else []
    return [_score_method(name, layer, fold, sections, full, moves) for name, layer in methods.items()]


def moran_groups(morans_i: Float[np.ndarray, " M"]) -> Mapping[str, Int[np.ndarray, " _"]]:
    """Columns of the thirds of the genes by Moran's I, and of the 50 with the highest; none where too few have one."""
    order = morans_i.argsort(kind="stable")
    order = order[: (~np.isnan(morans_i)).sum()]  # NaN is sorted last
    thirds = np.array_split(order, len(THIRDS)) if len(order) >= len(THIRDS) else [order[:0]] * len(THIRDS)
    return {**dict(zip(THIRDS, thirds, strict=True)), "pcc_spatial": order[::-1][:HIGH_GENES]}


def _score_method(
    name: str,
    layer: str | None,
    fold: str,
    sections: Sequence[anndata.AnnData],
    full: bool,
    moves: Sequence[Moves],
) -> FoldScores:
    plain, partial, errors, more = [], [], [], []
    for section in sections:
        truth, depth = section.layers["truth"], section.obs["depth"].to_numpy(dtype=float)
        predicted = section.X if layer is None else section.layers[layer]
        undefined = np.full(truth.shape[1], np.nan)
        plain.append(undefined if name == CONSTANT else pcc(truth, predicted))
        partial.append(undefined if name in (CONSTANT, DEPTH) else partial_pcc(truth, predicted, depth))
        errors.append(np.asarray(truth - predicted, dtype=np.float64))
        if full:
            covered = coverage(section) if layer is None else None
            more.append(
                _more_scores(name, section, predicted) | {"coverage": undefined if covered is None else covered}
            )
    held_out = "held_out_pcc" if layer is None else held_out_column(layer)
    var, error, of_fold, of_genes = sections[0].var, np.concatenate(errors), {}, {}
    if full:
        null, morans_i = _above_null(name, layer, sections, moves), _morans_i(sections[0])
        of_fold = _of_fold(plain, more, morans_i) | {key: nanmean(genes) for key, genes in null.items()}
        of_genes = _of_genes([{"pcc_given_depth": genes} for genes in partial], more, morans_i) | null
    return FoldScores(
        name,
        fold,
        tuple(var.index),
        float(np.square(error).mean()),
        float(np.abs(error).mean()),
        nanmean([nanmean(genes) for genes in plain]),
        nanmean([nanmean(genes) for genes in partial]),
        column_nanmean(np.stack(plain)),
        var[held_out].to_numpy(dtype=float) if held_out in var else None,
        int(np.isnan(plain).sum()),
        of_fold,
        of_genes,
        draws_of(moves),
    )


def _more_scores(name: str, section: anndata.AnnData, predicted: Float[np.ndarray, "S M"]) -> dict[str, np.ndarray]:
    """What is scored of every gene of one section beside PCC, PCC given depth and errors; NaN where it cannot be."""
    truth, unsmoothed = section.layers["truth"], section.layers.get(UNSMOOTHED)
    undefined = np.full(truth.shape[1], np.nan)
    scored = unsmoothed is not None and name != CONSTANT
    return {
        "pcc_unsmoothed": pcc(unsmoothed, predicted) if scored else undefined,
        "variance_ratio": variance_ratio(truth, predicted),
    }


def _above_null(
    name: str, layer: str | None, sections: Sequence[anndata.AnnData], moves: Sequence[Moves]
) -> dict[str, np.ndarray]:
    """Which genes are above the null of all sections together, and which given depth: 1 or 0, NaN where it has none."""
    undefined = np.full(sections[0].n_vars, np.nan)
    scores = {"above_null": undefined, ABOVE_NULL: undefined}
    if name == CONSTANT or not moves:
        return scores
    truth = [section.layers["truth"] for section in sections]
    predicted = [section.X if layer is None else section.layers[layer] for section in sections]
    scores["above_null"] = above_null(null_p_values(truth, predicted, moves))
    if name != DEPTH:
        depths = [section.obs["depth"].to_numpy(dtype=float) for section in sections]
        truth, predicted = (list(map(residual, tables, depths)) for tables in (truth, predicted))
        scores[ABOVE_NULL] = above_null(null_p_values(truth, predicted, moves))
    return scores


def _morans_i(section: anndata.AnnData) -> Float[np.ndarray, " M"]:
    if "morans_i" not in section.var:
        return np.full(section.n_vars, np.nan)
    return section.var["morans_i"].to_numpy(dtype=float)


def _of_fold(
    plain: Sequence[Float[np.ndarray, " M"]], more: Sequence[OfGenes], morans_i: Float[np.ndarray, " M"]
) -> dict[str, float]:
    """Means over genes, then over sections; of variance ratios, which a gene of few counts drives, the median gene."""
    values = {name: nanmean([nanmean(scores[name]) for scores in more]) for name in more[0]}
    ratios = [scores["variance_ratio"][~np.isnan(scores["variance_ratio"])] for scores in more]
    values["variance_ratio"] = nanmean([float(np.median(known)) for known in ratios if len(known)])
    groups = moran_groups(morans_i)
    return values | {name: nanmean([nanmean(genes[group]) for genes in plain]) for name, group in groups.items()}


def _of_genes(
    partial: Sequence[OfGenes], more: Sequence[OfGenes], morans_i: Float[np.ndarray, " M"]
) -> dict[str, Float[np.ndarray, " M"]]:
    """Means over sections."""
    each = [{**given_depth, **scores} for given_depth, scores in zip(partial, more, strict=True)]
    means = {name: column_nanmean(np.stack([scores[name] for scores in each])) for name in each[0]}
    return {**means, "morans_i": morans_i}
