"""A section with its features and labels: what training and its references take."""

from dataclasses import dataclass

from genedml_cli.expression import Labels
from genedml_cli.features import SectionFeatures
from genedml_cli.samples import Sample


@dataclass(frozen=True)
class SectionData:
    """One section with all that training needs of it; ``notes`` are what must be said of it with every score."""

    sample: Sample
    features: SectionFeatures
    labels: Labels
    notes: tuple[str, ...] = ()
