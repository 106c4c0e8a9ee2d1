"""Are two sections one, under two names? Told by their counts, whatever their spots are called. Letters: S spots."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import anndata
import numpy as np
from jaxtyping import Float, Int
from scipy.signal import correlate
from scipy.spatial import cKDTree

from genedml_cli import console
from genedml_cli.datasets.samples import Sample
from genedml_cli.datasets.shared_counts import SAME_ROWS, Rows, joined_rows, same_rows
from genedml_cli.slides.slide_files import content_sha256
from genedml_cli.spots.spot_files import read_spots

ALIKE = 0.97
"""Correlation of totals from which two sections are one. Of the 630 pairs of HER2ST's 36 sections the most is .84
between two patients and .87 within one; of half a section with those of other patients (1,170 pairs) .92; of C2 with a
part of it, renamed and moved, of which half the reads were thrown away or the 1,000 highest genes are left, .998 or
more."""
OVERLAP, FEWEST_SPOTS = 0.5, 50
"""Share of the smaller section's spots, and spots, that must meet."""

LARGEST_ARRAY = 2**17
"""Places of an array whose totals are compared; a Visium slide of 11 mm has 28,672."""

Maps = tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]
"""Where there are spots (1, else 0), and their totals less the mean (0 where there are none)."""


@dataclass(frozen=True)
class SectionCounts:
    """What of a section's counts tells whether another section is the same one.

    Args:
        rows: names of spots with the mark of their counts.
        array_xy: place of the spots on their array; None where it is not known.
        totals: log10(1 + total counts) of the same spots.
    """

    rows: Rows
    array_xy: Int[np.ndarray, "S 2"] | None
    totals: Float[np.ndarray, " S"]

    @classmethod
    def of(cls, sample: Sample, counts: anndata.AnnData) -> "SectionCounts":
        """Of the sample's spots that have counts."""
        spots = read_spots(sample.spots)
        place = counts.obs_names.get_indexer(list(spots.names))
        joined = place >= 0
        totals = np.asarray(counts.X[place[joined]].sum(axis=1), dtype=np.float64).ravel()
        array_xy = None if spots.array_xy is None else spots.array_xy[joined]
        return cls(joined_rows(sample, counts), array_xy, np.log10(1 + totals))


def find_twins(sections: Mapping[str, SectionCounts]) -> Iterator[tuple[str, str, str]]:
    """Pairs of sections that are one, each with how that is known, in words.

    Either most spots of one have the very counts of a spot of the other, under another name
    (:func:`genedml_cli.datasets.shared_counts.same_rows` finds those of the same name); or their totals, laid upon each
    other at the shift of their arrays at which they agree best, correlate as those of two sections never do.
    """
    said = set(same_rows({name: section.rows for name, section in sections.items()}))
    marks = {name: {mark for _, mark in section.rows} for name, section in sections.items()}
    maps = {name: _maps(section) for name, section in sections.items()}
    for first, second in combinations(sections, 2):
        if (first, second) in said:
            continue
        shared, fewer = len(marks[first] & marks[second]), min(len(marks[first]), len(marks[second]))
        if fewer and shared > SAME_ROWS * fewer:
            yield first, second, f"{shared} of {fewer} spots have the same counts"
            continue
        one, other = maps[first], maps[second]
        if one is not None and other is not None:
            correlation, spots = best_correlation(one, other)
            if correlation >= ALIKE:
                how = f"the total counts of {spots} spots that meet correlate with {correlation:.3f}"
                yield first, second, how


def same_place(one: Sample, other: Sample) -> bool:
    """Whether two samples are the same part of the same slide, whatever its file is called."""
    if not (one.slide.is_file() and other.slide.is_file()) or one.slide.stat().st_size != other.slide.stat().st_size:
        return False
    if content_sha256(one.slide) != content_sha256(other.slide):
        return False
    spots, others = read_spots(one.spots), read_spots(other.spots)
    distance, _ = cKDTree(spots.xy_px).query(others.xy_px)
    near = 0.5 * min((part.spacing_px for part in (spots, others) if len(part) > 1), default=1.0)
    return bool((distance < near).sum() > SAME_ROWS * min(len(spots), len(others)))


def warn_of_twins(samples: Sequence[Sample], counts: Mapping[str, anndata.AnnData]) -> dict[str, tuple[str, ...]]:
    """The names of the sections that are the same as each sample; warns of every pair."""
    twins: dict[str, tuple[str, ...]] = {sample.name: () for sample in samples}
    for first, second, how in find_twins({one.name: SectionCounts.of(one, counts[one.name]) for one in samples}):
        console.warn(twins_text(first, second, how))
        twins[first] += (second,)
        twins[second] += (first,)
    return twins


def twins_text(first: str, second: str, how: str) -> str:
    """What is said of two sections that are one."""
    return f"{first} and {second} are one section under two names: {how}. Leave one of them out."


def best_correlation(one: Maps, other: Maps) -> tuple[float, int]:
    """The highest PCC of the totals of two sections over all shifts of their arrays, and the spots that meet there.

    Shifts at which too few meet are left out: -1 and 0 if all are. All sums over the spots that meet come from
    correlations of the maps (Padfield 2012, IEEE Trans. Image Process. 21:2706).
    """
    (here, values), (there, others) = one, other
    meeting = np.rint(_sums(here, there))
    enough = meeting >= max(FEWEST_SPOTS, OVERLAP * min(here.sum(), there.sum()))
    if not enough.any():
        return -1.0, 0
    count = np.where(enough, meeting, 1.0)
    sum_one, sum_other = _sums(values, there), _sums(here, others)
    both = _sums(values, others) - sum_one * sum_other / count
    spread = (_sums(values**2, there) - sum_one**2 / count) * (_sums(here, others**2) - sum_other**2 / count)
    defined = enough & (spread > 1e-9)
    scores = np.divide(both, np.sqrt(np.maximum(spread, 0)), out=np.full_like(both, -1.0), where=defined)
    best = int(scores.argmax())
    return float(scores.flat[best]), int(meeting.flat[best])


def _maps(section: SectionCounts) -> Maps | None:
    if section.array_xy is None or len(section.totals) < FEWEST_SPOTS:
        return None
    place = section.array_xy - section.array_xy.min(axis=0)
    size = place.max(axis=0) + 1
    if size.prod() > LARGEST_ARRAY:
        return None
    here = np.zeros(size)
    values = np.zeros_like(here)
    here[tuple(place.T)] = 1
    values[tuple(place.T)] = section.totals - section.totals.mean()
    return here, values


def _sums(one: Float[np.ndarray, "_ _"], other: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, "_ _"]:
    """The sum of products at every shift."""
    return np.asarray(correlate(one, other, method="fft"))
