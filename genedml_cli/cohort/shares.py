"""A cohort predicted in shards: each leaves the outcomes of its slides, and these are joined."""

from collections.abc import Mapping, Sequence
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
        outcomes: of its slides.
    """

    shard: Shard
    settings: Mapping[str, str]
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


def join_shares(slides: Sequence[CohortSlide], task: CohortTask) -> list[Outcome]:
    """The outcome of every slide; one that no shard has predicted, or whose result is gone, has failed.

    Raises:
        GeneDMLError: there is no shard, or one was made with other models or settings.
    """
    files = sorted(task.out.glob("shard-*-of-*.json"))
    if not files:
        raise GeneDMLError(f"No shard of this cohort is in {task.out}. Run the same command with --shard I/N first.")
    settings, outcomes, counts = settings_of(task), dict[str, Outcome](), set[int]()
    for file in files:
        share = from_dict(Share, read_json(file))
        differ = [name for name, value in settings.items() if share.settings.get(name) != value]
        if differ:
            raise GeneDMLError(f"{file} was made with other {', '.join(differ)}. Run that shard again, or remove it.")
        counts.add(share.shard.count)
        for outcome in share.outcomes:
            if outcome.name not in outcomes or outcomes[outcome.name].state == FAILED:
                outcomes[outcome.name] = outcome
    return [
        _checked(outcomes.get(slide.name), slide, task, [f"{place % count}/{count}" for count in sorted(counts)])
        for place, slide in enumerate(slides)
    ]


def _checked(outcome: Outcome | None, slide: CohortSlide, task: CohortTask, shards: Sequence[str]) -> Outcome:
    again = f"Run the same command with --shard {' or '.join(shards)}."
    if outcome is None or outcome.slide.name != slide.slide.name:
        return Outcome(slide.name, slide.slide, FAILED, problem=f"no shard has predicted it. {again}")
    file = task.out / f"{slide.name}.h5ad"
    if outcome.state != FAILED and not file.exists():
        return Outcome(slide.name, slide.slide, FAILED, problem=f"{file} was made and is gone. {again}")
    return outcome
