"""A cohort as a terminal shows it."""

from genedml_cli import console
from genedml_cli.cohort.cohort import SUMMARY, Cohort
from genedml_cli.cohort.results import PAGE, PSEUDOBULK
from genedml_cli.cohort.slide import FAILED, KEPT, PREDICTED, Outcome


def show_cohort(cohort: Cohort) -> None:
    """One row a slide, then what failed and why."""
    rows = [
        [one.name, one.state, _count(one.spots), _count(one.genes), f"{one.minutes:.1f}", _marks(one)]
        for one in cohort.outcomes
    ]
    states = [one.state for one in cohort.outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (PREDICTED, KEPT, FAILED) if state in states)
    console.table(
        f"{console.count(len(rows), 'slide')}: {counts}", ["slide", "state", "spots", "genes", "minutes", "marks"], rows
    )
    for one in cohort.failed:
        console.say(f"{one.name}: {one.problem}")
    if cohort.shard is not None:
        console.say(cohort.shard.done(cohort.folder))
        return
    console.say(f"Results, {SUMMARY} and {PSEUDOBULK}: {cohort.folder}/. To look at them all: {cohort.folder / PAGE}")


def _count(number_: int | None) -> str:
    return "-" if number_ is None else str(number_)


def _marks(outcome: Outcome) -> str:
    return ", ".join(dict.fromkeys(str(note.mark) for note in outcome.marks)) or "-"
