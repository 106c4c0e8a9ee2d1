"""Shards: one command run many times, each with its share of the jobs; no two of them write the same file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Job = TypeVar("Job")


@dataclass(frozen=True)
class Shard:
    """One share of several: every ``count``-th job, from ``number`` on.

    Shards may run on machines that know nothing of each other, so they lock nothing: which jobs are theirs depends on
    the order of all jobs alone.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def take(self, jobs: Sequence[Job]) -> list[Job]:
        """Its jobs, of all."""
        return list(jobs[self.number :: self.count])

    def done(self, folder: Path) -> str:
        """What to say where a shard is done, and what next."""
        return f"Shard {self} is done: {folder}. When all are, run the same command with --collect in place of --shard."


def parse_shard(text: str) -> Shard:
    """A shard as an option gives it: ``I/N``, from ``0/N`` to ``N-1/N``.

    Raises:
        ValueError: it is none.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"{text!r} is no shard I/N: of 40 the first is 0/40 and the last 39/40.")
    return Shard(int(number), int(count))
