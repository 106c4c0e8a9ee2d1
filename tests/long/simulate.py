"""A queue of many slides handed out to many workers that do nothing, in a time of their own; some of them die.

``python tests/long/simulate.py --slides 100000`` prints what it found as JSON. What is measured is :class:`Crew`, which
every engine of several processes uses: the memory of the queue and its outcomes, beside that of the libraries; jobs a
second; and the makespan over its bound, the sum of all durations over the workers or the longest of them. Durations are
log-normal with the spread of the spots under tissue of the 36 sections of HER2ST (sigma of their logarithm: 0.42), or
``--sigma``.
"""

import argparse
import heapq
import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from genedml_cli.cohort.slide import PREDICTED, CohortSlide, Outcome
from genedml_cli.machine.crew import DIED, READY, RESULT, Crew, Place, Worker
from genedml_cli.machine.memory import peak_on_host

SIGMA = 0.42
MEDIAN_S = 60.0
START_S = 15.0
"""How long a worker takes to load its models."""


class Imagined:
    """An engine whose workers take the time that a slide is said to take, and at most the time until they die."""

    tries = 3
    remedy = ""

    def __init__(self, durations_s: dict[str, float], dies_at_s: dict[int, float]) -> None:
        self._durations_s, self._dies_at_s = durations_s, dies_at_s
        self._coming: list[tuple[float, int, Worker, str, object]] = []
        self._order = itertools.count()
        self.now_s = 0.0

    def start(self, place: Place) -> Worker:
        worker = Worker(place, None)
        self._expect(self.now_s + START_S, worker, READY, None)
        return worker

    def give(self, worker: Worker, job: CohortSlide) -> None:
        ends_s, dies_s = self.now_s + self._durations_s[job.name], self._dies_at_s.get(worker.place.number)
        if dies_s is not None and dies_s < ends_s:
            del self._dies_at_s[worker.place.number]
            self._expect(max(dies_s, self.now_s), worker, DIED, "SIGKILL")
        else:
            self._expect(ends_s, worker, RESULT, Outcome(job.name, job.slide, PREDICTED, 2500, 250))

    def hear(self) -> Iterator[tuple[Worker, str, object]]:
        self.now_s, _, worker, kind, value = heapq.heappop(self._coming)
        yield worker, kind, value

    def end(self) -> None:
        pass

    def _expect(self, at_s: float, worker: Worker, kind: str, value: object) -> None:
        heapq.heappush(self._coming, (at_s, next(self._order), worker, kind, value))


def simulate(slides: int, workers: int, dying: float, sigma: float, seed: int) -> dict[str, float]:
    """Hand out ``slides`` to ``workers``, of which a share dies once at some time."""
    drawn, before_bytes = random.Random(seed), peak_on_host()
    durations_s = {f"slide-{number}": MEDIAN_S * drawn.lognormvariate(0, sigma) for number in range(slides)}
    bound_s = max(sum(durations_s.values()) / workers, max(durations_s.values()))
    dead = drawn.sample(range(workers), round(dying * workers))
    engine = Imagined(durations_s, {number: drawn.uniform(0, bound_s) for number in dead})
    names = sorted(durations_s, key=lambda name: durations_s[name], reverse=True)
    jobs = [CohortSlide(name, Path(f"slides/{name}.svs"), None) for name in names]
    began = time.perf_counter()
    done: dict[str, Outcome] = {}
    for outcome in Crew(engine, jobs).run([Place("cpu", 1, number, workers) for number in range(workers)]):
        assert outcome.name not in done
        done[outcome.name] = outcome
    took_s = time.perf_counter() - began
    assert set(done) == set(names)
    return {
        "slides": slides,
        "died": len(dead),
        "jobs_a_second": round(slides / took_s),
        "makespan_over_bound": round(engine.now_s / bound_s, 4),
        "queue_mb": round((peak_on_host() - before_bytes) / 1e6),
        "libraries_mb": round(before_bytes / 1e6),
    }


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--dying", type=float, default=0.05, help="share of the workers that die once")
    parser.add_argument("--sigma", type=float, default=SIGMA, help="of the logarithm of durations")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(simulate(options.slides, options.workers, options.dying, options.sigma, options.seed)))


if __name__ == "__main__":
    main()
