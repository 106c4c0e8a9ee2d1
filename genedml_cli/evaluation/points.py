"""The points of the checklist under a table of scores, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a table does about a point."""

    DONE = "done"
    NOT_DONE = "not done"
    NOT_POSSIBLE = "not possible here"


@dataclass(frozen=True)
class Point:
    """One point of what a trustworthy table contains (METHOD section 10).

    Args:
        name: what is asked for.
        state: whether it is there.
        why: the figures that show it, or why it is not there.
    """

    name: str
    state: State
    why: str

    def to_dict(self) -> dict[str, str]:
        """Plain values."""
        return {"point": self.name, "state": str(self.state), "why": self.why}


def merged(checklists: Mapping[str, Sequence[Point]]) -> tuple[Point, ...]:
    """The checklist of a table of several parts: of every point the worst state, and the reason of the first in it.

    Args:
        checklists: of every part, by its name; nothing is told where one has none.
    """
    points = []
    for of_parts in zip(*checklists.values(), strict=False):
        state = max((point.state for point in of_parts), key=list(State).index)
        reasons = {name: point.why for name, point in zip(checklists, of_parts, strict=True) if point.state is state}
        name, why = next(iter(reasons.items()))
        alike = len(set(reasons.values())) == 1 and len(reasons) == len(of_parts)
        points.append(Point(of_parts[0].name, state, why if alike else f"{name}: {why}"))
    return tuple(points)


def lines_of(points: Sequence[Point]) -> list[str]:
    """The checklist as text: a line a point, with its figures or why it is not there."""
    return [f"Checklist, {point.name}: {point.state}: {point.why}" for point in points]
