"""Tables that hold several sections: told by a column of theirs, or by what stands around the barcodes.

A barcode is unique within a section only: Visium arrays share theirs, ST arrays their positions. Programs that put
sections into one table tell them apart by a *tag* beside the barcode: ``AAAC-2`` (``spaceranger aggr``), ``AAAC-1-0``
(anndata), ``AAAC-1_2``, ``S1_AAAC-1`` (Seurat).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.spatial import cKDTree

LIBRARY_COLUMNS = ("libraryid", "library")
"""Columns of ``obs``, by :func:`column_key`, that name the capture area, so they decide where they are there."""

SECTION_COLUMNS = (
    *("section", "sectionid", "sectionname", "sample", "sampleid", "samplename", "capturearea", "batch"),
    *("slide", "slideid", "slidename", "slice", "sliceid", "slicename"),
)
"""Columns that may name the section of a spot, or a part of it: alone they say nothing."""

GROUP_COLUMNS = (
    *("origident", "patient", "patientid", "donor", "donorid", "subject", "subjectid", "individual", "dataset"),
    *("image", "imageid", "imagename", "fov"),
)
"""Columns that may as well name what several sections have in common: pictures of several sections say more."""

BARCODE = (
    r"^(?P<before>.*?)(?<![A-Za-z0-9])(?P<core>[ACGTN]{4,}|\d+\.\d+x\d+(?:\.\d+)?|\d+x\d+(?:\.\d{2,})?"
    r"|s_\d+um_\d+_\d+)(?![A-Za-z0-9])(?P<after>.*)$"
)
"""Of Visium, of ST, whose refined positions have fractions, and of Visium HD, within a name."""

TAGGED = (
    r"^(?P<before>)(?P<core>.+)(?P<after>[-_.:]\d+)$",
    r"^(?P<before>[^-_.:]+[-_.:])(?P<core>.+)(?P<after>)$",
)
"""A tag after or before a name of another kind."""

PLAIN_TAGS = ("", "-1")
"""What one section's own table has: these say nothing of which section it is."""

PARTS_OF_PICTURES = ("images", "scalefactors", "metadata")
"""Of one section, where ``uns["spatial"]`` leaves out its name."""

SHOWN = 4

CLOSER = 0.45
"""Of the distance to the next spot of its own section: one of another section that is nearer lies upon it. Below one
half, which it is where two parts of one array take turns."""

OVERLAP = 0.05
"""Share of spots that are so near to another section's, beyond which sections lie upon each other."""


def column_key(column: object) -> str:
    """A column's name without what people write differently: ``Pixel_X``, ``pixel.x`` and ``pixelX`` are one."""
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def picture_keys(spatial: object) -> list[str]:
    """The sections that ``uns["spatial"]`` has pictures of, whether it is read or still in its file."""
    parts = spatial if isinstance(spatial, Mapping) else {}
    return [name for name in parts if name not in PARTS_OF_PICTURES and isinstance(parts.get(name), Mapping)]


def sections_in(
    obs: pd.DataFrame,
    pictures: Iterable[str] = (),
    names: Iterable[str] | None = None,
    xy_px: Float[np.ndarray, "S 2"] | None = None,
) -> str:
    """What a table says of its sections where it holds several: ``2 sections (library_id A, B)``; else empty.

    A column that does not name the capture area, such as ``batch``, may as well name parts of one section. It counts
    where a barcode stands several times, spots lie upon each other or there are several pictures.

    Args:
        obs: the table of spots of an AnnData file, or some of its rows.
        pictures: keys of ``uns["spatial"]``, which count where no column names sections.
        names: of the spots of the whole table; those of ``obs`` if None.
        xy_px: where the spots of ``obs`` lie.
    """
    pictures, naming = list(pictures), naming_columns(obs)
    for column, sections in naming.items():
        if len(sections) > 1 and (
            column_key(column) in LIBRARY_COLUMNS
            or len(pictures) > 1
            or split_names(obs.index if names is None else names)["core"].duplicated().any()
            or (xy_px is not None and _lie_upon_each_other(obs[column], xy_px))
        ):
            return several(sections, f"{column} ")
    one = any(column_key(column) not in GROUP_COLUMNS for column in naming)
    return several(pictures, "uns['spatial'] ") if not one and len(pictures) > 1 else ""


def naming_columns(obs: pd.DataFrame) -> dict[str, list[str]]:
    """Columns that may name the section of a spot, each with the sections that it names.

    None where every spot has a number of its own, which is no section.
    """
    named = {column_key(column): column for column in reversed(obs.columns)}
    library = [named[key] for key in LIBRARY_COLUMNS if key in named][:1]
    columns = library or [named[key] for key in (*SECTION_COLUMNS, *GROUP_COLUMNS) if key in named]
    sections = {column: sorted(obs[column].dropna().astype(str).unique()) for column in columns}
    return {column: names if len(names) < max(len(obs), 3) else [] for column, names in sections.items()}


def _lie_upon_each_other(sections: pd.Series, xy_px: Float[np.ndarray, "S 2"]) -> bool:
    """Whether many spots are nearer to spots of other sections than to those of their own."""
    known = sections.notna().to_numpy() & np.isfinite(xy_px).all(axis=1)
    codes, xy_px = pd.factorize(sections[known])[0], xy_px[known]
    within = np.full(len(codes), np.inf)
    for code in np.unique(codes):
        within[codes == code] = _nearest(xy_px[codes == code])
    together, alone = _nearest(xy_px), np.isinf(within)
    return bool(((together < CLOSER * within) & ~alone).mean() > OVERLAP)


def _nearest(xy_px: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, " S"]:
    """From each spot to the next; infinite from a spot alone."""
    return cKDTree(xy_px).query(xy_px, k=2)[0][:, 1]


def split_names(names: Iterable[str], plain: Iterable[str] = ()) -> pd.DataFrame:
    """Every name of a spot, its barcode and its tag, in columns ``name``, ``core`` and ``tag``.

    A name without a barcode is all core; only if a part of it is one of the ``plain`` names, the rest is its tag.
    """
    whole = pd.Series(list(names), dtype=str)
    parts = whole.str.extract(BARCODE)
    plain = set(plain)
    for pattern in TAGGED:
        unknown = parts["core"].isna() & ~whole.isin(plain)
        tagged = whole[unknown].str.extract(pattern)
        parts.update(tagged[tagged["core"].isin(plain)])
    tag = (parts["before"].fillna("") + " " + parts["after"].fillna("")).str.strip()
    return pd.DataFrame({"name": whole, "core": parts["core"].fillna(whole), "tag": tag})


def names_in(obs: pd.DataFrame) -> pd.Index:
    """Names of the spots of an AnnData file: its index or, where that only counts rows, its column of barcodes."""
    columns = [column for column in obs.columns if column_key(column) in ("barcode", "barcodes")]
    if columns and list(obs.index) == [str(row) for row in range(len(obs))]:
        barcodes = obs[columns[0]]
        if barcodes.notna().all() and barcodes.is_unique:
            return pd.Index(barcodes.astype(str), name=obs.index.name)
    return obs.index


def share_of_barcodes(names: Iterable[str]) -> float:
    """How many of the names hold a barcode."""
    return float(pd.Series(list(names), dtype=str).str.match(BARCODE).mean())


def sections_by_tag(names: Iterable[str]) -> str:
    """``3 sections (such as AAAC-1, AAAC-2, AAAC-3)`` where names repeat barcodes under several tags; else empty."""
    parts = split_names(names).drop_duplicates(["core", "tag"])
    repeated = parts["core"].duplicated(keep=False)
    return several_by_tag(parts[repeated]) if repeated.any() else ""


def several_by_tag(parts: pd.DataFrame) -> str:
    """One name of every tag of :func:`split_names`."""
    return several(parts.drop_duplicates("tag")["name"], "such as ")


def several(names: Iterable[str], kind: str = "") -> str:
    """``3 sections (A, B, C)``, after what names them."""
    names = sorted(names)
    return f"{len(names)} sections ({kind}{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
