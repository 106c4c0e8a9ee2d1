"""Is a data set or sample sheet what its table says? Every section is looked at before anything is trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.datasets import Section, check_complete, find_dataset, locate, published_panel
from genedml_cli.datasets.duplicates import SectionCounts, find_twins, same_place, twins_text
from genedml_cli.datasets.folds import make_folds
from genedml_cli.datasets.samples import Sample
from genedml_cli.datasets.shared_counts import same_rows, shared_note, told_apart
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.gene_map import with_gene_map
from genedml_cli.expression.joins import TOLD_APART, doubt_of, without_counts
from genedml_cli.expression.panels import join_genes, say_join
from genedml_cli.files.paths import takes_paths
from genedml_cli.notes import Mark, Note
from genedml_cli.slides.patches import PATCHES_SUFFIX, open_patches
from genedml_cli.slides.slide import open_slide
from genedml_cli.slides.tissue import find_tissue
from genedml_cli.spots.placing import check_on_tissue, say_what_is_derived
from genedml_cli.spots.section import check_on_slide, with_tiles
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots, on_image, take_pitch

SCALE_TOLERANCE = 0.05
WITHOUT_COUNTS_TOLERANCE = 0.05  # a few selected spots have no counts in the authors' own tables
PROBE_PX = 224


@dataclass
class SectionCheck:
    """What was found of one section; None where it could not be told.

    Args:
        section: the section as the table or the sheet has it.
        image: kind and size of the image.
        file_um_per_px: as the image file says.
        array_um_per_px: pitch of the array in um over its pitch in pixels.
        spots: number of spots.
        with_counts: how many of them the counts name.
        panel_genes: how many genes of the published panel the counts have.
        problems: what is wrong, a sentence each.
        here: whether its files are on this disk.
    """

    section: Section | Sample
    image: str | None = None
    file_um_per_px: float | None = None
    array_um_per_px: float | None = None
    spots: int | None = None
    with_counts: int | None = None
    panel_genes: int | None = None
    problems: list[str] = field(default_factory=list)
    here: bool = True

    @property
    def state(self) -> str:
        """``ok``, ``WRONG`` or ``not here``."""
        return ("WRONG" if self.problems else "ok") if self.here else "not here"

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "state": self.state}


@takes_paths
def check_dataset(
    name: str, root: Path, skip_off_image: bool = False, gene_map: Path | None = None
) -> list[SectionCheck]:
    """Look at every section of a data set below ``root``: image, um/px, spots, counts, panel.

    Args:
        name: of the data set.
        root: the folder that holds its files.
        skip_off_image: leave out spots that lie off the image.
        gene_map: of genes that were renamed, see :mod:`genedml_cli.expression.gene_map`.

    Raises:
        GeneDMLError: no such data set, or none of its sections is there.
    """
    known = find_dataset(name)
    located = {section.name: locate(known, section, root) for section in known.sections}
    found = {section: sample for section, sample in located.items() if sample is not None}
    check_complete(known, root, found, allow_partial=True)
    panel = published_panel(name) if known.panel else ()
    checks: list[SectionCheck] = []
    counted: dict[str, SectionCounts] = {}
    with console.progress("Sections", len(known.sections)) as advance:
        for section in known.sections:
            advance(note=section.name)
            check = SectionCheck(section, here=section.name in found)
            if check.here:
                counts = _check_section(
                    check, found[section.name], known.pitch_um, panel, skip_off_image, gene_map=gene_map
                )
                counted |= {section.name: counts} if counts else {}
            checks.append(check)
    _check_shared(checks, found, counted)
    return checks


def check_samples(
    samples: Sequence[Sample], panel: Sequence[str] = (), skip_off_image: bool = False
) -> list[SectionCheck]:
    """Look at every section of a sample sheet as at those of a data set, but for what only a table knows."""
    checks, apart = [SectionCheck(sample) for sample in samples], told_apart(samples)
    counted: dict[str, SectionCounts] = {}
    with console.progress("Sections", len(samples)) as advance:
        for check, sample in zip(checks, samples, strict=True):
            advance(note=sample.name)
            counts = _check_section(check, sample, sample.pitch_um, panel, skip_off_image, sample.name in apart)
            counted |= {sample.name: counts} if counts else {}
    _check_shared(checks, {sample.name: sample for sample in samples}, counted)
    return checks


def refuse_wrong_samples(sheet: Path, samples: Sequence[Sample], checks: Sequence[SectionCheck]) -> None:
    """Refuse a sheet in which something is wrong; warn where its sections make no folds, so that train refuses it.

    Raises:
        GeneDMLError: naming the sections.
    """
    wrong = [check.section.name for check in checks if check.problems]
    if wrong:
        raise GeneDMLError(
            f"Wrong in {sheet}: {len(wrong)} of {len(checks)} sections, {', '.join(wrong)}. Fix their files, or leave "
            "out their rows."
        )
    try:
        make_folds(samples)
    except GeneDMLError as error:  # it may be for --fold all-sections, or to test on
        console.warn(f"train refuses this sheet as it is: {error}")


def refuse_wrong(name: str, root: Path, checks: Sequence[SectionCheck], allow_partial: bool = False) -> None:
    """Refuse sections in which something is wrong and, without ``allow_partial``, those that are not here.

    Raises:
        GeneDMLError: naming them.
    """
    wrong = [check.section.name for check in checks if check.problems]
    absent = [check.section.name for check in checks if not check.here]
    sentences = []
    if wrong:
        sentences.append(
            f"Wrong in {name}: {len(wrong)} of {len(checks)} sections, {', '.join(wrong)}. Fix them, or remove "
            f"their files and run: genedml data fetch {name} --root {root}"
        )
    if absent and not allow_partial:
        sentences.append(
            f"Not here: {len(absent)} of {len(checks)} sections of {name}, {', '.join(absent)}. Fetch them: "
            f"genedml data fetch {name} --root {root}; or go without them: --allow-partial."
        )
    if sentences:
        raise GeneDMLError("\n".join(sentences))


def _check_shared(
    checks: Sequence[SectionCheck], samples: Mapping[str, Sample], counted: Mapping[str, SectionCounts]
) -> None:
    """Put into both checks that two sections have the same counts, are one, or are the same place of two patients."""
    by_name = {check.section.name: check for check in checks}
    said = {
        pair: shared_note(*(samples[name] for name in pair))
        for pair in same_rows({name: counts.rows for name, counts in counted.items()})
    }
    leaking = {(first, second): twins_text(first, second, how) for first, second, how in find_twins(counted)}
    for first, second in combinations(counted, 2):
        one, other = samples[first], samples[second]
        if one.donor != other.donor and (first, second) not in {*said, *leaking} and same_place(one, other):
            leaking[first, second] = twins_text(first, second, "their spots lie at the same places of the same slide")
    for pair, problem in [*said.items(), *((pair, str(Note(Mark.LEAKING, text))) for pair, text in leaking.items())]:
        for name in pair:
            by_name[name].problems.append(problem)


def _check_section(
    check: SectionCheck,
    sample: Sample,
    pitch_um: float | None,
    panel: Sequence[str],
    skip_off_image: bool,
    apart: bool = False,
    gene_map: Path | None = None,
) -> SectionCounts | None:
    spots, counted = None, None
    try:
        spots = read_spots(sample.spots)
        check.spots = len(spots)
        pitch_um = spots.pitch_um if pitch_um is None else pitch_um
        if sample.slide.suffix == PATCHES_SUFFIX:
            _check_patches(check, sample, spots)
        else:
            spots = on_image(sample.slide, spots)[0] if skip_off_image else spots
            _check_slide(check, sample, spots, pitch_um)
    except GeneDMLError as error:
        check.problems.append(str(error))
    try:
        counted = _check_counts(check, sample, spots, panel, apart, gene_map)
    except GeneDMLError as error:
        check.problems.append(str(error))
    if spots is not None:
        _check_scale(check, spots, pitch_um)
    return counted


def _check_slide(check: SectionCheck, sample: Sample, spots: Spots, pitch_um: float | None) -> None:
    with open_slide(sample.slide) as slide:
        width, height = slide.size_px
        check.image = f"{width}x{height}"
        check.file_um_per_px = slide.um_per_px if slide.knows_scale else None
        check_on_slide(spots, slide)
        if sample.um_per_px is not None:
            slide.set_um_per_px(sample.um_per_px)
        elif pitch_um is not None and not slide.knows_scale and spots.knows_pitch:
            take_pitch(slide, spots, pitch_um)
        check_on_tissue(spots, slide, find_tissue(slide))
        say_what_is_derived(slide, spots, pitch_um)
        # A download that broke off opens, but not at its end.
        x, y = spots.xy_px[spots.xy_px[:, 1].argmax()].astype(int).tolist()
        slide.source.read(0, x, y, min(PROBE_PX, width - x), min(PROBE_PX, height - y))


def _check_patches(check: SectionCheck, sample: Sample, spots: Spots) -> None:
    with open_patches(sample.slide) as patches:
        check.image = f"{len(patches.names)} tiles"
        check.file_um_per_px = patches.um_per_px
        place = patches.places(with_tiles(patches, spots).names)
        patches.read(place[-1:])


def _check_counts(
    check: SectionCheck,
    sample: Sample,
    spots: Spots | None,
    panel: Sequence[str],
    apart: bool,
    gene_map: Path | None,
) -> SectionCounts | None:
    counts = with_gene_map(read_counts(sample.counts), gene_map)
    join = join_genes(counts, panel)
    say_join(join, f"{sample.name}: ")
    missing = [gene for gene, at in zip(panel, join.columns, strict=True) if at < 0]
    check.panel_genes = len(panel) - len(missing) if panel else None
    if missing:
        check.problems.append(
            f"{sample.counts.name} lacks {len(missing)} of the panel's {len(panel)} genes (first: "
            f"{', '.join(missing[:3])})."
        )
    if spots is None:
        return None
    place = pd.Index(counts.obs_names).get_indexer(pd.Index(spots.names))
    check.with_counts = int((place >= 0).sum())
    counts.uns[TOLD_APART] = apart
    doubt = doubt_of(counts, spots.names, place)
    if doubt:
        check.problems.append(f"{sample.counts.name} {doubt}.")
    if not check.with_counts:
        check.problems.append(without_counts(counts, spots.names))
    elif check.with_counts < (1 - WITHOUT_COUNTS_TOLERANCE) * len(spots):
        check.problems.append(
            f"only {check.with_counts} of {len(spots)} spots have counts: spots are called "
            f"{', '.join(spots.names[:3])}, counts {', '.join(counts.obs_names[:3])}."
        )
    return SectionCounts.of(sample, counts)


def _check_scale(check: SectionCheck, spots: Spots, pitch_um: float | None) -> None:
    if pitch_um is not None and spots.knows_pitch:
        check.array_um_per_px = float(pitch_um / spots.pitch_px)
    stated = {"the image": check.file_um_per_px, "the spots' pitch": check.array_um_per_px}
    known = {source: value for source, value in stated.items() if value is not None}
    if check.section.um_per_px is not None:
        named = "the sheet" if isinstance(check.section, Sample) else "the table"
        expected = check.section.um_per_px
    elif known:
        named, expected = next(iter(known.items()))
    else:
        check.problems.append(
            "nothing tells its um/px: the image does not, and no pitch of several spots is known. Give um_per_px in "
            "the sheet, or --pitch-um."
        )
        return
    for source, value in known.items():
        if not np.isclose(value, expected, rtol=SCALE_TOLERANCE, atol=0):
            check.problems.append(
                f"{source} gives {value:.4f} um/px, {named} {expected:.4f}: the image or the spots are of another "
                "resolution, or of another section."
            )
    if not known and not isinstance(check.section, Sample):
        check.problems.append("nothing tells its um/px: the image does not, and its spots tell no pitch.")
