"""Are the counts those of these spots? Names are unique within a section only, so a join by name needs more than names.

Letters: S spots.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from zlib import crc32

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Int

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.merged_sections import PLAIN_TAGS, sections_in, several_by_tag, split_names
from genedml_cli.samples import Sample
from genedml_cli.spot_files import read_spots

MOSTLY = 0.5

SAME_ROWS = 0.5
"""Share of a section's spots whose counts are another section's, beyond which they are copies."""

Rows = set[tuple[str, int]]
"""Names of spots, each with a number that stands for its counts."""

TOLD_APART = "told_apart"
"""In ``uns`` of counts: that the samples which share their file have names of one tag each, another for every one."""

FRACTION = 1024
"""Counts that are not whole are compared in such parts."""


def told_apart(samples: Sequence[Sample]) -> set[str]:
    """Names of samples that share a file of counts and whose spots have one tag, another than those of the rest."""
    of_file: dict[Path, dict[str, str]] = defaultdict(dict)
    files = Counter(sample.counts for sample in samples)
    for sample in samples:
        if files[sample.counts] > 1:
            of_file[sample.counts][sample.name] = " or ".join(split_names(_spots_of(sample))["tag"].unique())
    return {name for tags in of_file.values() for name, tag in tags.items() if [*tags.values()].count(tag) == 1}


def _spots_of(sample: Sample) -> tuple[str, ...]:
    """Names of a sample's spots; none where they cannot be read, which is said where they are needed."""
    try:
        return read_spots(sample.spots).names
    except GeneDMLError:
        return ()


def doubt_of(counts: anndata.AnnData, names: Sequence[str], place: Int[np.ndarray, " S"]) -> str:
    """Why counts that join by name may be of another section; empty if nothing speaks for it.

    Args:
        counts: of which ``uns[TOLD_APART]`` may say that the other samples of the file have other tags.
        names: of the spots.
        place: the row of ``counts`` that has the name of each spot; -1 where there is none.
    """
    obs, joined = counts.obs, place[place >= 0]
    sections = sections_in(obs.iloc[joined], names=obs.index)
    if sections:
        return f"gives these spots counts of {sections}"
    spots, rows = split_names(names), split_names(obs.index, names)
    tags = spots["tag"][place >= 0].unique()
    if (
        counts.uns.get(TOLD_APART) or len(tags) != 1 or tags[0] not in PLAIN_TAGS
    ):  # a tag that is no section's own default says which section it is
        return ""
    same_barcode = rows["core"].isin(rows["core"].iloc[joined])
    if rows.loc[same_barcode, "tag"].nunique() < 2:
        return ""
    called = f"all named {tags[0]}" if tags[0] else "without a tag"
    return f"holds spots of {several_by_tag(rows[same_barcode])}, and these spots are {called}"


def without_counts(counts: anndata.AnnData, names: Sequence[str]) -> str:
    """Why no spot has counts, as far as the names show it."""
    said = f"No spot has counts: spots are called {', '.join(names[:3])}, counts {', '.join(counts.obs_names[:3])}. "
    if np.isin(list(names), counts.var_names).mean() > MOSTLY:
        return said + "These are turned, genes in rows. Give them with spots in rows; pandas turns a table with .T."
    spots, rows = split_names(names, counts.obs_names), split_names(counts.obs_names, names)
    same_barcode = rows["core"].isin(spots["core"])
    if not spots["core"].isin(rows["core"]).mean() > MOSTLY:
        return said + "Names must be the same in both."
    if rows.loc[same_barcode, "tag"].nunique() > 1:
        sections = several_by_tag(rows[same_barcode])
        return said + f"The counts are of {sections}: give the table of one, with names as the spots have them."
    return said + "Their barcodes are the same, but not what stands beside them: name them alike."


def check_shared(samples: Sequence[Sample], counts: Mapping[str, anndata.AnnData]) -> dict[str, str]:
    """Refuse counts that several samples have in common: they are those of one of them at most. Into ``uns`` of the
    counts of samples whose names tell them apart goes that they do.

    Returns:
        By sample what must be said with every score, where samples of one donor share counts, which may be one section
        twice.

    Raises:
        GeneDMLError: samples of several donors share counts.
    """
    by_name = {sample.name: sample for sample in samples}
    for name in told_apart(samples):
        counts[name].uns[TOLD_APART] = True
    rows = {sample.name: joined_rows(sample, counts[sample.name]) for sample in samples}
    notes: dict[str, str] = {}
    for first, second in same_rows(rows):
        pair = by_name[first], by_name[second]
        note = shared_note(*pair)
        if pair[0].donor != pair[1].donor:
            raise GeneDMLError(f"{note} Give every sample the counts of its own section.")
        console.warn(note)
        notes |= dict.fromkeys((first, second), f"DOUBTFUL JOIN: {note}")
    return notes


def shared_note(first: Sample, second: Sample) -> str:
    """What is said of two samples with the same counts."""
    files = dict.fromkeys(sample.counts.name for sample in (first, second))
    return (
        f"{first.name} and {second.name} are given the same counts of the same spots, from {' and '.join(files)}, "
        "which no two sections have."
    )


def joined_rows(sample: Sample, counts: anndata.AnnData) -> Rows:
    """Names of a sample's spots, each with a number that stands for its counts; without those that have no counts."""
    table, names = counts.X, pd.Index(read_spots(sample.spots).names)
    genes = np.array([crc32(gene.encode()) for gene in counts.var_names], dtype=np.int64)
    values = np.rint(table.data.astype(np.float64) * FRACTION).astype(np.int64) * genes[table.indices]
    ends = np.concatenate([[0], np.cumsum(values)])[table.indptr]  # in whole numbers, which overflow alike
    place = counts.obs_names.get_indexer(names)
    marks = np.diff(ends)[place]
    return {(name, int(mark)) for name, mark, row in zip(names, marks, place, strict=True) if row >= 0 and mark}


def same_rows(rows: Mapping[str, Rows]) -> list[tuple[str, str]]:
    """Pairs of samples of which most spots of one have the name and the counts of a spot of the other."""
    users: dict[tuple[str, int], list[str]] = defaultdict(list)
    for sample, marks in rows.items():
        for mark in marks:
            users[mark].append(sample)
    shared = Counter(pair for names in users.values() for pair in combinations(names, 2))
    return [pair for pair, spots in shared.items() if spots > SAME_ROWS * min(len(rows[name]) for name in pair)]
