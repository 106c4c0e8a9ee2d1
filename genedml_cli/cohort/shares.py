"""A cohort predicted in shards: each leaves the outcomes of its slides, and these are joined."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from genedml.errors import GeneDMLError
from genedml.schema import from_dict
from genedml_cli.cohort.slide import FAILED, CohortSlide, CohortTask, Outcome
from genedml_cli.files.storage import sha256_of, write_json
from genedml_cli.files.text_files import read_json
from genedml_cli.machine.shards import Shard


@dataclass(frozen=True)
class Share:
    """What a shard leaves.

    Args:
        shard: which it was.
        settings: what all shards of a cohort have in common, see :func:`settings_of`.
        rows: by the name of each of its slides, see :func:`row_of`.
        outcomes: of its slides.
    """

    shard: Shard
    settings: Mapping[str, str]
    rows: Mapping[str, Mapping[str, str]]
    outcomes: tuple[Outcome, ...]

    def write(self, folder: Path) -> None:
        """``shard-I-of-N.json`` beside the results."""
        write_json(folder / f"shard-{self.shard.number}-of-{self.shard.count}.json", asdict(self))


def settings_of(task: CohortTask) -> dict[str, str]:
    """What results of one cohort have in common, by what a difference of it is called."""
    return {
        "models": " ".join(map(sha256_of, task.files)),
        "min_cv_pcc": str(task.min_cv_pcc),
        "interval": str(task.interval),
    }


def row_of(slide: CohortSlide) -> dict[str, str]:
    """The files of a slide and what places its spots, by what a difference of it is called."""
    files = {"slide": slide.slide, "spots": slide.spots, "tissue": slide.placing.tissue}
    paths = {name: "" if file is None else str(file.resolve()) for name, file in files.items()}
    return {name: str(value) for name, value in {**asdict(slide.placing), **paths}.items()}


def join_shares(slides: Sequence[CohortSlide], task: CohortTask) -> list[Outcome]:
    """The outcome of every slide; one that its shard has not predicted, or whose result is gone, has failed.

    Raises:
        GeneDMLError: there is no shard, they are of different N, or one was made with other models, settings or rows.
    """
    files = sorted(task.out.glob("shard-*-of-*.json"))
    if not files:
        raise GeneDMLError(f"No shard of this cohort is in {task.out}. Run the same command with --shard I/N first.")
    shares = {file: from_dict(Share, read_json(file)) for file in files}
    counts = sorted({share.shard.count for share in shares.values()})
    if len(counts) > 1:
        raise GeneDMLError(
            f"{task.out} holds shards of different N: {', '.join(map(str, counts))}. Remove the files "
            "shard-*-of-N.json of all but one."
        )
    settings, outcomes = settings_of(task), dict[str, Outcome]()
    for file, share in shares.items():
        own_slides = share.shard.take(slides)
        _refuse_others(file, share, settings, own_slides)
        by_name = {outcome.name: outcome for outcome in share.outcomes}
        outcomes |= {slide.name: by_name[slide.name] for slide in own_slides if slide.name in by_name}
    return [
        _checked(outcomes.get(slide.name), slide, task, f"{place % counts[0]}/{counts[0]}")
        for place, slide in enumerate(slides)
    ]


def _refuse_others(file: Path, share: Share, settings: Mapping[str, str], slides: Iterable[CohortSlide]) -> None:
    """Refuse a share that was made with other settings, or rows that are not those of the sheet.

    Raises:
        GeneDMLError: naming the differing settings, and of the first differing slide what differs.
    """
    differ = _differing(settings, share.settings)
    for slide in slides:
        if slide.name in share.rows and (of_row := _differing(row_of(slide), share.rows[slide.name])):
            differ.append(f"{', '.join(of_row)} of {slide.name}")
            break
    if differ:
        raise GeneDMLError(f"{file} was made with other {', '.join(differ)}. Run that shard again, or remove it.")


def _differing(asked: Mapping[str, str], recorded: Mapping[str, str]) -> list[str]:
    return [name for name, value in asked.items() if recorded.get(name) != value]


def _checked(outcome: Outcome | None, slide: CohortSlide, task: CohortTask, shard: str) -> Outcome:
    again = f"Run the same command with --shard {shard}."
    if outcome is None:
        return Outcome(slide.name, slide.slide, FAILED, problem=f"no shard has predicted it. {again}")
    file = task.out / f"{slide.name}.h5ad"
    if outcome.state != FAILED and not file.exists():
        return Outcome(slide.name, slide.slide, FAILED, problem=f"{file} was made and is gone. {again}")
    return outcome
