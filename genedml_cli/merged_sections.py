"""Tables that hold several sections: told by a column of theirs, or by what stands around the barcodes.

A barcode is unique within a section only: Visium arrays share theirs, ST arrays their positions. Programs that put
sections into one table tell them apart by a *tag* beside the barcode: ``AAAC-2`` (``spaceranger aggr``), ``AAAC-1-0``
(anndata), ``AAAC-1_2``, ``S1_AAAC-1`` (Seurat).
"""

from collections.abc import Iterable

import pandas as pd

LIBRARY_COLUMNS = ("library_id", "library")
"""Columns of ``obs`` that name the capture area, so they decide where they are there."""

SECTION_COLUMNS = (
    *("section", "section_id", "section_name", "sample", "sample_id", "sample_name", "capture_area", "batch"),
    *("slide", "slide_id", "slide_name", "slice", "slice_id"),
)
"""Other columns that name the section of a spot."""

BARCODE = r"^(?P<before>.*?)(?<![A-Za-z0-9])(?P<core>[ACGTN]{4,}|\d+x\d+|s_\d+um_\d+_\d+)(?![A-Za-z0-9])(?P<after>.*)$"
"""Of Visium, of ST and of Visium HD, within a name."""

TAGGED = (
    r"^(?P<before>)(?P<core>.+)(?P<after>[-_.:]\d+)$",
    r"^(?P<before>[^-_.:]+[-_.:])(?P<core>.+)(?P<after>)$",
)
"""A tag after or before a name of another kind."""

PLAIN_TAGS = ("", "-1")
"""What one section's own table has: these say nothing of which section it is."""

SHOWN = 4


def sections_in(obs: pd.DataFrame, pictures: Iterable[str] = ()) -> str:
    """What a table says of its sections where it holds several: ``2 sections (library_id A, B)``; else empty.

    Args:
        obs: the table of spots of an AnnData file, or some of its rows.
        pictures: keys of ``uns["spatial"]``, which count where no column names sections.
    """
    named = {str(column).lower(): column for column in reversed(obs.columns)}
    columns = [named[name] for name in LIBRARY_COLUMNS if name in named][:1]
    columns = columns or [named[name] for name in SECTION_COLUMNS if name in named]
    for column in columns:
        sections = obs[column].dropna().astype(str).unique()
        if 1 < len(sections) < max(len(obs), 3):  # a number of its own for every spot is no section
            return several(sections, f"{column} ")
    pictures = list(pictures)
    return several(pictures, "uns['spatial'] ") if not columns and len(pictures) > 1 else ""


def split_names(names: Iterable[str], plain: Iterable[str] = ()) -> pd.DataFrame:
    """Of every name of a spot the barcode and its tag, in columns ``core`` and ``tag``.

    A name without a barcode is all core; only if a part of it is one of the ``plain`` names, the rest is its tag.
    """
    whole = pd.Series(list(names), dtype=str)
    parts = whole.str.extract(BARCODE)
    plain = set(plain)
    for pattern in TAGGED:
        unknown = parts["core"].isna() & ~whole.isin(plain)
        tagged = whole[unknown].str.extract(pattern)
        parts.update(tagged[tagged["core"].isin(plain)])
    before, after = parts["before"].fillna(""), parts["after"].fillna("")
    tag = before + after.where((before == "") | (after == ""), "..." + after)
    return pd.DataFrame({"core": parts["core"].fillna(whole), "tag": tag})


def share_of_barcodes(names: Iterable[str]) -> float:
    """How many of the names hold a barcode."""
    return float(pd.Series(list(names), dtype=str).str.match(BARCODE).mean())


def sections_by_tag(names: Iterable[str]) -> str:
    """``3 sections (-1, -2, -3)`` where names repeat barcodes under several tags; else empty."""
    parts = split_names(names).drop_duplicates()
    repeated = parts["core"].duplicated(keep=False)
    return several(parts.loc[repeated, "tag"].unique()) if repeated.any() else ""


def several(names: Iterable[str], kind: str = "") -> str:
    """``3 sections (-1, -2, -3)``, after the column that names them."""
    names = sorted(names)
    shown = ", ".join(name or "no tag" for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} sections ({kind}{shown})"
