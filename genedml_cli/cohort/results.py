"""What a cohort's results give together: one AnnData, a table of means, a page. One result at a time is in memory.

Letters: S spots, M genes.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import anndata
import numpy as np
import pandas as pd

from genedml.errors import GeneDMLError
from genedml.schema import to_dict
from genedml_cli.cohort.page import values_of, write_cohort_page
from genedml_cli.cohort.slide import FAILED, Outcome
from genedml_cli.figures.maps import PERCENTILES
from genedml_cli.files.provenance import maker
from genedml_cli.files.storage import atomic_write
from genedml_cli.machine.memory import free_on_host
from genedml_cli.notes import Note, marks_of
from genedml_cli.outputs.formats import write_h5ad
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import PredictionRecord, record_of
from genedml_cli.text import gigabytes

MERGED, PSEUDOBULK, PAGE = "merged.h5ad", "pseudobulk.csv", "cohort.html"
SLIDE = "slide"
"""The column of ``obs``, and squidpy's ``library_key``, that says of which slide a spot of the merged file is."""
COPIES = 3
"""Of all values, while they are joined and written."""
NOT_SHARED = ("panels", "label", "label_settings", "notes", "command", "genedml")


def gather(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write ``pseudobulk.csv`` and ``cohort.html`` of the slides that have a result.

    Raises:
        GeneDMLError: a result that cannot be read, or a file that cannot be written.
    """
    shown, low, high = "", 0.0, 0.0
    with TemporaryFile() as values:
        with atomic_write(folder / PSEUDOBULK) as temporary, temporary.open("w", encoding="utf-8") as table:
            for outcome in outcomes:
                if outcome.state == FAILED:
                    continue
                data = read_prediction(folder / f"{outcome.name}.h5ad")
                table.write(_means(data, outcome).to_csv(header=not shown, lineterminator="\n"))
                shown = shown or best_gene(data)
                values.write(values_of(data, shown).tobytes())
            if not shown:
                table.write(f"{SLIDE},marks\n")
        values.flush()
        if values.tell():  # a percentile takes all values of the gene: they lie in the file, not in memory
            low, high = np.percentile(np.memmap(values, np.float64), PERCENTILES, overwrite_input=True).tolist()
    write_cohort_page(folder / PAGE, outcomes, shown, low, high)


def _means(data: anndata.AnnData, outcome: Outcome) -> pd.DataFrame:
    """One row: the mean of every gene, and the marks of the slide."""
    row = data.to_df().mean().to_frame(outcome.name).T.rename_axis(SLIDE).round(5)
    return row.assign(marks=marks_of(outcome.marks))


def best_gene(data: anndata.AnnData) -> str:
    """The gene with the best cross-validated PCC; the first, where there are no scores."""
    scores = data.var["cv_pcc"].dropna() if "cv_pcc" in data.var else pd.Series(dtype=float)
    return str(scores.idxmax() if len(scores) else data.var_names[0])


def merge(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write ``merged.h5ad``: the spots of all slides that have a result, as squidpy takes several slides.

    Spots are named ``SLIDE_SPOT``, ``obs["slide"]`` has their slide, ``uns["spatial"]`` a picture a slide, and
    ``uns["genedml"]["slides"]`` what each result says of its making. Genes are those of every slide.

    Raises:
        GeneDMLError: no slide has a result, or there is too little memory.
    """
    names = [outcome.name for outcome in outcomes if outcome.state != FAILED]
    if not names:
        raise GeneDMLError(f"No slide has a result, so there is nothing to merge into {folder / MERGED}.")
    spots = sum(outcome.spots or 0 for outcome in outcomes)
    parts: dict[str, anndata.AnnData] = {}
    for name in names:
        parts[name] = read_prediction(folder / f"{name}.h5ad")
        if len(parts) == 1:
            _check_memory(parts[name], spots, len(names), folder / MERGED)
    write_h5ad(joined(parts, [outcome.name for outcome in outcomes if outcome.state == FAILED]), folder / MERGED)
    return folder / MERGED


def joined(parts: Mapping[str, anndata.AnnData], failed: Sequence[str] = ()) -> anndata.AnnData:
    """The predictions of several slides by their names as one AnnData; see :func:`merge`."""
    first = next(iter(parts.values()))
    records = {name: record_of(data) for name, data in parts.items()}
    pictures = {name: next(iter(data.uns["spatial"].values())) for name, data in parts.items() if "spatial" in data.uns}
    obs = pd.concat([part.obs.assign(**{SLIDE: name}).set_index(_named(part, name)) for name, part in parts.items()])
    obs[SLIDE] = pd.Categorical(obs[SLIDE], categories=list(parts))
    data = anndata.concat([_bare(part, name) for name, part in parts.items()], join="inner")
    data.obs = obs
    data.var = first.var.loc[data.var_names]
    if "log1p" in first.uns:
        data.uns["log1p"] = first.uns["log1p"]
    data.uns["spatial"] = pictures
    data.uns["genedml"] = {
        **maker(),
        "label": record_of(first).label,
        "label_settings": to_dict(record_of(first).label_settings),
        "notes": _notes(records),
        "slides": {name: _of_slide(record) for name, record in records.items()},
        "failed": list(failed),
    }
    return data


def _named(data: anndata.AnnData, slide: str) -> pd.Index:
    return pd.Index([f"{slide}_{spot}" for spot in data.obs_names], dtype=str)


def _bare(data: anndata.AnnData, slide: str) -> anndata.AnnData:
    """Values and places alone, under names that no other slide has."""
    return anndata.AnnData(
        data.X,
        obs=pd.DataFrame(index=_named(data, slide)),
        var=pd.DataFrame(index=data.var_names),
        layers=dict(data.layers),
        obsm={"spatial": data.obsm["spatial"]},
    )


def _notes(records: Mapping[str, PredictionRecord]) -> list[str]:
    """Every note once; one that warns of some slides only names them."""
    slides: dict[Note, list[str]] = {}
    for name, record in records.items():
        for note in record.notes:
            slides.setdefault(note, []).append(name)
    some = {note: note.warns and len(names) < len(records) for note, names in slides.items()}
    return [f"{note} (of {', '.join(names)})" if some[note] else str(note) for note, names in slides.items()]


def _of_slide(record: PredictionRecord) -> dict[str, Any]:
    """What is not said once for all slides."""
    return {key: value for key, value in record.stored().items() if key not in NOT_SHARED}


def _check_memory(first: anndata.AnnData, spots: int, slides: int, path: Path) -> None:
    """Refuse to join what memory does not hold, before it is read; results of slides stay.

    Raises:
        GeneDMLError: it does not.
    """
    pictures = [image for entry in first.uns.get("spatial", {}).values() for image in entry["images"].values()]
    needed = COPIES * (sys.getsizeof(first) * spots // first.n_obs + slides * sum(image.nbytes for image in pictures))
    free = free_on_host()
    if needed > free:
        raise GeneDMLError(
            f"To write {path} takes about {gigabytes(needed)} of memory; {gigabytes(free)} are free. Results of "
            "slides are kept: leave out --merge, or run the same command where there is more memory."
        )
