"""What a fold is trained from: its plan, a file in the run folder that whoever trains the fold reads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from genedml.checkpoint import EncoderRecord
from genedml.config import Config
from genedml.encoders.weights import StartingWeights
from genedml.schema import from_dict
from genedml_cli.datasets.folds import Fold
from genedml_cli.features.section_features import SectionFeatures, mapped_again
from genedml_cli.files.paths import check_seen
from genedml_cli.files.storage import write_json
from genedml_cli.files.text_files import read_json
from genedml_cli.machine.packing import with_absolute_paths
from genedml_cli.notes import Note
from genedml_cli.outputs.run_folder import plan_file


@dataclass(frozen=True)
class FoldJob:
    """The fold of a run folder that is to be trained."""

    run: Path
    fold: str


@dataclass(frozen=True)
class SectionPlan:
    """Where the features of a section are, and what is to be known of its counts.

    Args:
        features, raw_files: the feature file, and the files of raw pixels.
        orientations: of the local tile that are taken from it.
        um_per_px, origin_xy, notes: see :class:`genedml_cli.features.section_features.SectionFeatures`.
        counts_sha256: content of the counts when the fold was planned.
        told_apart: see :func:`genedml_cli.datasets.shared_counts.told_apart`.
        shared: what must be said of counts that another section has, too; None of those that none has.
        twins: names of sections that are this one under another name.
    """

    features: Path
    raw_files: tuple[Path, ...]
    orientations: int
    um_per_px: float | None
    origin_xy: tuple[int, int]
    notes: tuple[Note, ...]
    counts_sha256: str
    told_apart: bool
    shared: Note | None
    twins: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        features: SectionFeatures,
        counts_sha256: str,
        told_apart: bool,
        shared: Note | None,
        twins: tuple[str, ...] = (),
    ) -> "SectionPlan":
        """The plan of a section whose features are in a file."""
        if features.file is None:
            raise ValueError("features to train on are in a file")
        seen = (features.raw_files, len(features.local), features.um_per_px, features.origin_xy, features.notes)
        return cls(features.file, *seen, counts_sha256, told_apart, shared, twins)

    def open_features(self) -> SectionFeatures:
        """The features, their vectors mapped."""
        said = self.um_per_px, self.notes, self.origin_xy
        return mapped_again(self.features, *said, self.orientations, self.raw_files)


@dataclass(frozen=True)
class FoldPlan:
    """All that a fold depends on, by names and files.

    Args:
        fold: its sections.
        config: of the run.
        genes: the panel.
        encoder: whose features are trained on.
        sections: by name.
        dataset, partial: as :func:`genedml_cli.runs.run.train` takes them.
        panel_note: what must be said of the panel.
        references: where the fold's ridge regression and novelty are kept for the runs of a grid; None for one run.
        start: weights of the network's backbone, if it has one that starts from some.
    """

    fold: Fold
    config: Config
    genes: tuple[str, ...]
    encoder: EncoderRecord
    sections: Mapping[str, SectionPlan]
    dataset: str = ""
    partial: str = ""
    panel_note: Note | None = None
    references: Path | None = None
    start: StartingWeights | None = None

    def write(self, run: Path) -> FoldJob:
        """Put the plan into a run folder."""
        write_json(plan_file(run, self.fold.name), asdict(with_absolute_paths(self)))
        return FoldJob(run, self.fold.name)


def read_plan(job: FoldJob) -> FoldPlan:
    """The plan of a fold that is to be trained.

    Raises:
        GeneDMLError: it cannot be seen or read.
    """
    file = plan_file(job.run, job.fold)
    check_seen(file)
    return from_dict(FoldPlan, read_json(file))
