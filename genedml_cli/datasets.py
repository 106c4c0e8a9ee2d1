"""The named data sets: what is known of them, and where their files are.

Two layouts are known: HEST-1k's (``wsis/ID.tif``, ``st/ID.h5ad``) and that of HER2ST's authors.
"""

from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli.samples import Sample

DATASET_SECTIONS = {"HER2ST": 36, "STNet": 68, "skinST": 12}


def dataset(name: str, root: Path, allow_partial: bool = False) -> list[Sample]:
    """The sections of a published data set found below ``root``.

    Two layouts are known: HEST-1k's (``wsis/ID.tif``, ``st/ID.h5ad``) and that of HER2ST's authors (``ST-imgs``,
    ``ST-cnts``, ``ST-spotfiles``).

    Raises:
        GeneDMLError: no such data set, or sections missing below ``root`` without ``allow_partial``.
    """
    if name not in DATASET_SECTIONS:
        raise GeneDMLError(f"No data set is called {name!r}. There are: {', '.join(DATASET_SECTIONS)}.")
    with (_facts() / f"samples_{name}.csv").open(encoding="utf-8") as stream:
        table = pd.read_csv(stream, dtype={"section": str, "patient": str, "fold": str})
    found, missing = [], []
    for row in table.itertuples():
        sample = _locate(row, root)
        if sample is None:
            missing.append(str(row.section))
        else:
            found.append(sample)
    if missing and (not allow_partial or not found):
        raise GeneDMLError(
            f"{root} holds {len(found)} of the {len(table)} sections of {name}; missing: {', '.join(missing)}. "
            + ("Add them, or train on what is there with --allow-partial." if found else "Give its folder with --root.")
        )
    return found


def published_panel(name: str) -> tuple[str, ...]:
    """The 250 genes published for a data set, in order.

    Raises:
        GeneDMLError: no such data set.
    """
    if name not in DATASET_SECTIONS:
        raise GeneDMLError(
            f"No panel is called {name!r}, and no file. Give training, all, {', '.join(DATASET_SECTIONS)}, or a file."
        )
    return tuple((_facts() / f"genes250_{name}.txt").read_text(encoding="utf-8").split())


def _facts() -> Traversable:
    return resources.files("genedml_cli") / "facts"


def _locate(row: Any, root: Path) -> Sample | None:
    common = Sample(
        row.section, Path(), Path(), Path(), row.patient, row.fold, float(row.um_per_px), float(row.pitch_um)
    )
    hest = root / "st" / f"{row.hest_id}.h5ad"
    slide = root / "wsis" / f"{row.hest_id}.tif"
    if hest.is_file() and slide.is_file():
        return replace(common, slide=slide, spots=hest, counts=hest)
    images = sorted((root / "ST-imgs" / row.section[0] / row.section).glob("*.jpg"))
    spots = root / "ST-spotfiles" / f"{row.section}_selection.tsv"
    counts = root / "ST-cnts" / f"{row.section}.tsv.gz"
    if images and spots.is_file() and counts.is_file():
        return replace(common, slide=images[0], spots=spots, counts=counts)
    return None
