"""Do two sections share their counts? Letters: S spots."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from zlib import crc32

import anndata
import numpy as np
import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.joins import TOLD_APART
from genedml_cli.files.merged_sections import split_names
from genedml_cli.notes import Mark, Note
from genedml_cli.spots.spot_files import read_spots

SAME_ROWS = 0.5
"""Share of a section's spots whose counts are another section's, beyond which they are copies."""


Rows = set[tuple[str, int]]
"""Names of spots, each with a number that stands for its counts."""


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


def check_shared(samples: Sequence[Sample], counts: Mapping[str, anndata.AnnData]) -> dict[str, Note]:
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
    notes: dict[str, Note] = {}
    for first, second in same_rows(rows):
        pair = by_name[first], by_name[second]
        same = shared_note(*pair)
        if pair[0].donor != pair[1].donor:
            raise GeneDMLError(f"{same} Give every sample the counts of its own section.")
        console.warn(same)
        notes |= dict.fromkeys((first, second), Note(Mark.DOUBTFUL_JOIN, same))
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
