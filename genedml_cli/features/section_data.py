"""A section with its features and labels: what training and its references take."""

from collections.abc import Sequence
from dataclasses import dataclass

from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.labels import Labels
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.notes import Note


@dataclass(frozen=True)
class SectionData:
    """One section with all that training needs of it; ``notes`` are what must be said of it with every score."""

    sample: Sample
    features: SectionFeatures
    labels: Labels
    notes: tuple[Note, ...] = ()

    @property
    def labelled_spots(self) -> list[str]:
        """Names of the spots that have a label."""
        return [name for name, valid in zip(self.features.spots.names, self.labels.valid, strict=True) if valid]


def left_out_together(sections: Sequence[SectionData]) -> list[str]:
    """The group of every section, where one at a time is left out: its donor; of a single donor, the section itself."""
    donors = [data.sample.donor for data in sections]
    return donors if len(set(donors)) > 1 else [data.sample.name for data in sections]
