"""What a prediction's page says. Letters: S spots, M genes."""

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.errors import GeneDMLError
from genedml.metrics import pcc
from genedml_cli.console import count
from genedml_cli.evaluation.evaluation import label_note, score_prediction
from genedml_cli.evaluation.points import Point
from genedml_cli.evaluation.scores import DEPTH, Evaluation, reference_notes
from genedml_cli.figures.maps import SectionPicture
from genedml_cli.notes import SHARED_PATIENTS, Mark, texts_of
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of
from genedml_cli.outputs.predictions import RANKING, check_genes
from genedml_cli.prediction.worth import FAR
from genedml_cli.report.atlas import Mapped, atlas_of
from genedml_cli.report.contents import (
    Cell,
    Contents,
    GeneMaps,
    MapGroup,
    Picture,
    Table,
    citations,
    gene_table,
    number_cell,
    parted,
)
from genedml_cli.report.images import gene_pictures, novelty_picture, small, tissue_picture
from genedml_cli.report.pictures import section_picture
from genedml_cli.report.run_page import checklist_table

GENES_SHOWN = 9
SHA256_SHOWN = 12
WORTH_KNOWING = 0.3  # of cross-validated PCC
WITHOUT_SCORES = (
    "This model carries no cross-validated scores, so nothing here says what the prediction of a gene is worth."
)
UNITS = "Values are normalised already, and smoothed if the label says so: do not normalise them again."
NOVELTY_MEANING = (
    "Novelty compares how a spot looks with the training slides: .9 means that 90 % of the spots that the models were "
    "tested on are more like them. Near 0 a spot looks like the training slides; near 1 its prediction is a guess."
)
NOT_HERE = " on slides unlike this one: here it need not hold"
LONG = ("notes", "label_settings", "panels", "label")  # said elsewhere on the page, or too long to read
NAMES = {"genedml": "Version", "um_per_px": "\u00b5m/px", "views_um_per_px": "Views, \u00b5m/px"}
COLUMN_HELP = {
    "here": "PCC here: with what was measured, over the spots of this section.",
    "cv_pcc": "Cross-validated PCC: mean \u00b1 standard deviation over folds, on sections the models had not seen.",
    "baseline_pcc": "Ridge PCC: ridge regression on the same features, in the same folds.",
    "z": "Mean z: mean less the gene's mean in training, over its standard deviation there: to compare genes.",
    "between models": "Between models: standard deviation between the models that predict together, mean over spots.",
}


def contents_of_prediction(file: Path, genes: Sequence[str] = (), truth: Path | None = None) -> Contents:
    """All that the page of a predicted ``.h5ad`` says.

    Args:
        file: the prediction.
        genes: those shown first; if empty, those of the highest cross-validated PCC.
        truth: raw counts of the section, to stand beside.

    Raises:
        GeneDMLError: not a prediction of genedml, one by an earlier version, part of a run, genes it does not have, or
            counts that do not join.
    """
    data = read_prediction(file)
    record = record_of(data)
    if record.of_run:
        raise GeneDMLError(f"{file} belongs to a run; report the run's folder: genedml report {file.parent.parent}")
    check_genes(genes, data, f"{file}", f"scanpy.read_h5ad({str(file)!r}).var_names")
    all_notes, against = (label_note(record.label_settings), *record.notes), ""
    points: tuple[Point, ...] = ()
    if truth is not None:
        evaluation, data = score_prediction(file, truth)
        all_notes, against, points = evaluation.notes, _against(evaluation, truth), evaluation.checklist
    warnings, notes = parted(all_notes)
    predicted = np.asarray(data.X, dtype=np.float64)
    picture = section_picture(file.stem, data, None, {})
    without = "" if picture.tissue is not None else " The file holds no image of it."
    novelty, novelty_note = _novelty(data, picture)
    section = _mapped(data, predicted, picture)
    maps = _maps(data, section, genes)
    table = _gene_table(data, section)
    order = [*dict.fromkeys([*genes, *(row[0].text for row in table.rows), *data.var_names])]
    return Contents(
        title=file.stem,
        kind="prediction",
        lead=f"{_lead(data)} {against}".strip(),
        facts=_facts(data),
        warnings=[*warnings, *_disagreement(data, predicted)],
        notes=[*notes, UNITS, *([RANKING] if "z" in data.layers else [])],
        tissue=None if picture.tissue is None else tissue_picture(picture),
        tissue_note=f"{record.slide}.{without}",
        maps=[maps],
        maps_note="" if "cv_pcc" in data.var else WITHOUT_SCORES,
        atlas=atlas_of([section], order, maps.genes[0].gene, picture.name),
        genes=table,
        provenance=_provenance(record),
        cite=citations(record.encoder, record.trained_on, _models_named(record)),
        checklist=checklist_table(points) if points else None,
        novelty=novelty,
        novelty_note=novelty_note,
    )


def _models_named(record: PredictionRecord) -> str:
    """Files and the first of their SHA-256."""
    each = [model.rpartition(" ") for model in record.models]
    return ", ".join(f"{file} (SHA-256 {sha256[:SHA256_SHOWN]})" for file, _, sha256 in each)


def _lead(data: anndata.AnnData) -> str:
    record = record_of(data)
    models = len(record.models)
    by = "one model" if models == 1 else f"the mean of {models} models"
    made = f"{count(data.n_vars, 'gene')} predicted for {count(data.n_obs, 'spot')} by {by}."
    if "cv_pcc" not in data.var:
        return f"{made} {WITHOUT_SCORES}"
    scores = data.var["cv_pcc"].dropna()
    good = int((scores >= WORTH_KNOWING).sum())
    shared = any(note == SHARED_PATIENTS or note.mark is Mark.LEAKING for note in record.notes)
    same = " but of the same patients" if shared else ""
    worse = "baseline_pcc" in data.var and data.var["baseline_pcc"].mean() > scores.mean()
    ridge = (
        f" Ridge regression on the same features scored higher: mean PCC {data.var['baseline_pcc'].mean():.3f} against "
    )
    return (
        f"{made} On slides the models had not seen{same}, the median gene had a cross-validated PCC of "
        f"{scores.median():.2f}; {good:,} of {len(scores):,} genes had {WORTH_KNOWING} or more."
        + (f"{ridge}{scores.mean():.3f}." if worse else "")
        + (" This slide is unlike those, so these scores need not hold for it." if _is_novel(data) else "")
    )


def _is_novel(data: anndata.AnnData) -> bool:
    return any(note.mark is Mark.NOVEL for note in record_of(data).notes)


def _against(evaluation: Evaluation, truth: Path) -> str:
    """How near the prediction is to what was measured, in a sentence or two."""
    pcc_a = evaluation.summary()[("pcc_a", "mean")]
    beside = f"; depth alone {pcc_a[DEPTH]:.3f}" if DEPTH in pcc_a else ""
    own = f"Against {truth.name} the mean PCC over genes is {pcc_a[evaluation.method]:.3f}{beside}."
    return " ".join([own, *texts_of(reference_notes(evaluation.scores, folds=False))])


def _mapped(data: anndata.AnnData, predicted: Float[np.ndarray, "S M"], picture: SectionPicture) -> Mapped:
    """The section with all its genes, and what was measured of them where that is known."""
    genes = list(data.var_names)
    if "truth" not in data.layers:
        return Mapped(picture, genes, {"predicted": predicted})
    truth = np.asarray(data.layers["truth"], dtype=np.float64)
    scores = np.full(len(genes), np.nan)
    labelled, matched = ~np.isnan(truth).all(axis=1), ~np.isnan(truth).all(axis=0)
    scores[matched] = pcc(truth[labelled][:, matched], predicted[labelled][:, matched])
    return Mapped(picture, genes, {"measured": truth, "predicted": predicted}, {"predicted": scores})


def _facts(data: anndata.AnnData) -> list[tuple[str, str]]:
    record = record_of(data)
    return [
        ("Slide", record.slide),
        ("Spots", f"{data.n_obs:,}"),
        ("Genes", f"{data.n_vars:,}"),
        ("Models", f"{len(record.models)}"),
        ("Encoder", record.encoder),
        ("\u00b5m/px", "not known" if record.um_per_px is None else f"{record.um_per_px:.4g}"),
        ("Label", record.label),
    ]


def _maps(data: anndata.AnnData, section: Mapped, asked: Sequence[str]) -> MapGroup:
    """The genes asked for, else those of the best scores; where these are not known, those that vary most."""
    scored = "cv_pcc" in data.var
    spread = pd.Series(section.panels["predicted"].std(axis=0), index=data.var_names)
    order = data.var["cv_pcc"] if scored else spread
    best = np.argsort(-order.fillna(-np.inf).to_numpy(), kind="stable")[:GENES_SHOWN]
    drawn = small(section.picture)
    genes = []
    for column in (data.var_names.get_indexer(list(asked)) if asked else best).tolist():
        gene = str(data.var_names[column])
        known = {what: values[:, column] for what, values in section.panels.items()}
        known = {what: values for what, values in known.items() if not np.isnan(values).all()}
        scores = [f"PCC here {section.score(column)}"] if section.score(column) else []
        scores += [f"cross-validated PCC {data.var['cv_pcc'].iloc[column]:.3f}"] if scored else []
        genes.append(GeneMaps(gene, ", ".join(scores), gene_pictures(drawn, known, gene)))
    why = "Genes with the highest cross-validated PCC" if scored else "Genes that vary most"
    why += NOT_HERE if scored and _is_novel(data) else ""
    return MapGroup("Genes asked for" if asked else why, genes)


def _novelty(data: anndata.AnnData, picture: SectionPicture) -> tuple[Picture | None, str]:
    if "novelty" not in data.obs:
        return None, "This model does not say how unlike its training slides a spot is."
    novelty = data.obs["novelty"].to_numpy(dtype=np.float64)
    novel = float(np.mean(novelty > FAR))
    said = (
        f"{NOVELTY_MEANING} Here the mean is {np.nanmean(novelty):.2f}, and {novel:.0%} of the spots are above {FAR};"
        f" of a slide like the training slides it is {1 - FAR:.0%}."
    )
    return novelty_picture(small(picture), novelty), said


def _disagreement(data: anndata.AnnData, predicted: Float[np.ndarray, "S M"]) -> list[str]:
    """For how many genes the models say more different things of a spot than their mean does of different spots."""
    if "std" not in data.layers:
        return []
    more = int((np.asarray(data.layers["std"]).mean(axis=0) > predicted.std(axis=0)).sum())
    if not more:
        return []
    return [
        f"For {more:,} of {count(data.n_vars, 'gene')} the models differ among themselves more than the predicted "
        "values differ between spots (in the table, Between models above SD over spots): do not read their maps."
    ]


def _gene_table(data: anndata.AnnData, section: Mapped) -> Table:
    var, predicted = data.var, section.panels["predicted"]
    columns = ["Gene", "Mean", "SD over spots"]
    parts = [predicted.mean(axis=0), predicted.std(axis=0)]
    captions = ["Mean and standard deviation of the predicted label over the spots."]
    if "std" in data.layers:
        columns.append("Between models")
        parts.append(np.asarray(data.layers["std"]).mean(axis=0))
        captions.append(COLUMN_HELP["between models"])
    if "z" in data.layers:
        columns.append("Mean z")
        parts.append(np.asarray(data.layers["z"]).mean(axis=0))
        captions.append(COLUMN_HELP["z"])
    cells = [[number_cell(float(value)) for value in part] for part in parts]
    order = -predicted.std(axis=0)
    if "cv_pcc" in var:
        spread = var["cv_pcc_sd"] if "cv_pcc_sd" in var else pd.Series(np.nan, index=var.index)
        both = zip(var["cv_pcc"], spread, strict=True)
        scores = [number_cell(float(mean), float(sd), bar=True) for mean, sd in both]
        columns.insert(1, "Cross-validated PCC")
        cells.insert(0, scores)
        captions.append(COLUMN_HELP["cv_pcc"])
        order = -var["cv_pcc"].fillna(-np.inf).to_numpy()
    if "baseline_pcc" in var:
        place = 1 + ("cv_pcc" in var)
        columns.insert(place, "Ridge PCC")
        cells.insert(place - 1, [number_cell(float(value)) for value in var["baseline_pcc"]])
        captions.append(COLUMN_HELP["baseline_pcc"])
    if section.scores:
        columns.insert(1, "PCC here")
        cells.insert(0, [number_cell(float(value), bar=True) for value in section.scores["predicted"]])
        captions.insert(0, COLUMN_HELP["here"])
    rows = [
        [Cell(str(var.index[place])), *(column[place] for column in cells)]
        for place in np.argsort(order, kind="stable")
    ]
    return gene_table(columns, rows, " ".join(captions), "the file's var")


def _provenance(record: PredictionRecord) -> Sequence[tuple[str, str]]:
    """Whatever the file remembers of its making, in the order of the record's fields."""
    return [
        (
            NAMES.get(key, key.replace("_", " ").capitalize()),
            "\n".join(str(entry) for entry in np.atleast_1d(value)),
        )
        for key, value in record.stored().items()
        if key not in LONG
    ]
