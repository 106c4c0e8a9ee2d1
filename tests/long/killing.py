"""Commands killed at random moments and begun again, held against the same commands left alone.

``python tests/long/killing.py FOLDER --kills 200 --seed 1`` prints what it found as JSON. A script of its own: each
command is a fork of a process that has loaded all modules, so that a kill costs milliseconds rather than the start of
torch. The commands left alone are forks of another process, in which texts have other hashes.
"""

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest  # the tiny encoder
import pandas as pd
import psutil
import torch

from genedml_cli import app
from genedml_cli.cohort import cohort  # noqa: F401  what commands import is loaded once, here
from genedml_cli.commands.tables import scores  # noqa: F401  what commands import is loaded once, here
from genedml_cli.datasets.synthetic import SyntheticConfig, write_dataset
from genedml_cli.features import feature_file
from genedml_cli.figures import genes  # noqa: F401  what commands import is loaded once, here
from genedml_cli.machine import stopping
from genedml_cli.prediction import prediction  # noqa: F401  what commands import is loaded once, here
from genedml_cli.runs import ablation  # noqa: F401  what commands import is loaded once, here
from genedml_cli.runs import run as runs  # noqa: F401  what commands import is loaded once, here
from genedml_cli.training import state as training_state  # noqa: F401  what commands import is loaded once, here

SETTINGS = ("training.epochs=4", "training.refit=true", "training.weight_average=0.9", "training.augment=true")
WIDE = 50
"""Kills from which on every kind of output is written."""
KEPT_EVERY_S = (0.0, 0.1)  # so that little of the time is without anything to go on from
PATIENCE_S = 300
ORPHAN_S = 60
UNHEARD = 75  # the exit code where a signal comes before the command listens, or after its last word
RECORD = "run.json"  # says when the run was made
SUMMARY = "summary.csv"  # says what was predicted, what was kept, and how long it took
PAGE = "cohort.html"  # says when it was written


def commands(world: Path, wide: bool) -> Iterator[tuple[str, ...]]:
    """``extract``, ``train`` and ``predict`` of a slide and of a sheet, in a folder of their own.

    With ``wide`` also ``ablate``, a sheet in two processes, and all other kinds of files.
    """
    said = [word for setting in (*conftest.TINY, *SETTINGS) for word in ("--set", setting)]
    data = ("--samples", str(world / "samples.csv"), "--preset", "small", *said, "--device", "cpu")
    slide = (str(world / "slides" / "P1.tif"), "--spots", str(world / "spots" / "P1.csv"))
    yield "extract", *data
    yield "train", *data, "-o", "run"
    yield "predict", *slide, "--model", "run", "-o", "p1.h5ad", "--force", "--device", "cpu"
    cohort_of = ("--slides", str(world / "cohort.csv"), "--model", "run", "--device", "cpu")
    yield "predict", *cohort_of, "-o", "cohort"
    if wide:
        yield "predict", *cohort_of, "-o", "spread", "--on", "2"
        yield "ablate", *data, "--table", "k", "--values", "3,4", "--seeds", "1", "--fold", "P1", "-o", "grid"
        for name in ("p1.csv.gz", "p1.parquet", "p1.geojson", *(["p1.zarr"] if find_spec("spatialdata") else [])):
            yield "predict", *slide, "--model", "run", "-o", name, "--force", "--device", "cpu"


class Run:
    """One command in a process of its own, in ``folder``."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.began, self.words, self._code = time.monotonic(), words, None
        self._log = folder.with_name(f"{folder.name}.log")
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        self._pid = os.fork()
        if self._pid == 0:
            self._become(folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)

    def code(self, timeout_s: float) -> int | None:
        """The exit code, negative for a signal; None if it has not ended after ``timeout_s``."""
        until = time.monotonic() + timeout_s
        while self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                return None
            else:
                time.sleep(0.002)
        return self._code

    def send(self, number: int) -> int:
        """The exit code after a signal; no process that it began runs on."""
        begun = psutil.Process(self._pid).children(recursive=True)
        os.kill(self._pid, number)
        code = self.code(PATIENCE_S)
        assert code is not None, f"{self.words[0]} does not end"
        assert not psutil.wait_procs(begun, ORPHAN_S)[1], f"processes of {self.words[0]} run on without it"
        return code

    @property
    def said(self) -> str:
        """What it wrote to the terminal."""
        return self._log.read_text()

    def _become(self, folder: Path) -> None:
        for number in stopping.SIGNALS:
            signal.signal(number, lambda *_: os._exit(UNHEARD))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(folder)
        sys.argv = ["genedml", *self.words]
        code = 70
        try:
            app.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def at_work_on(folder: Path) -> str:
    """What a killed process was at, by what it left."""
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    parts = [name for name in left if ".part" in name]
    if any(name.endswith(".part.safetensors") and ("tiny" in name) for name in parts):
        return "extracting"
    if parts:
        return "writing"
    return "training" if any(name.endswith(".state") for name in left) else "elsewhere"


def undisturbed(every: Iterable[Sequence[str]], folder: Path) -> list[float]:
    """Seconds of each command, run without a stop."""
    folder.mkdir(parents=True)
    takes_s = []
    for words in every:
        run = Run(words, folder)
        assert run.code(PATIENCE_S) == 0, run.said
        takes_s.append(time.monotonic() - run.began)
    return takes_s


def sweep(folder: Path, world: Path, kills: int, seed: int, stops: float) -> dict[str, object]:
    """Run all commands again and again, killed ``kills`` times, and compare each time what they leave.

    ``stops``: the share that gets SIGTERM or SIGINT instead of SIGKILL.
    """
    drawn = random.Random(seed)
    alone, every = folder / "alone", list(commands(world, wide=kills > WIDE))
    elsewhere = [sys.executable, __file__, str(folder), "--kills", str(kills), "--alone"]
    hashes = os.environ | {"PYTHONHASHSEED": str(seed + 1)}
    takes_s = json.loads(subprocess.run(elsewhere, env=hashes, stdout=subprocess.PIPE, check=True).stdout)
    counts: Counter[str] = Counter()
    differ: list[str] = []
    slowest_s, rounds = 0.0, 0
    while counts["kills"] < kills:
        rounds += 1
        killed = folder / f"killed-{rounds}"
        killed.mkdir()
        for words, usual_s in zip(every, takes_s, strict=True):
            while True:
                feature_file.EVERY_S = drawn.choice(KEPT_EVERY_S)
                run = Run(words, killed)
                left = counts["kills"] < kills
                code = run.code(drawn.uniform(0, 1.1 * usual_s) if left else PATIENCE_S)
                if code is not None:
                    assert code == 0, f"{words[0]}: {run.said}"
                    break
                if drawn.random() < stops:
                    number, sent = drawn.choice((signal.SIGTERM, signal.SIGINT)), time.monotonic()
                    code = run.send(number)
                    slowest_s = max(slowest_s, time.monotonic() - sent)
                    if code == UNHEARD:
                        continue
                    differ += check_stopped(code, number, run.said, killed)
                    counts["stops"] += 1
                    if code == 0:
                        break
                else:
                    run.send(signal.SIGKILL)
                    counts[at_work_on(killed)] += 1
                counts["kills"] += 1
        differ += differences(alone, killed)
    return {
        "rounds": rounds,
        **counts,
        "differ": differ,
        "alone_s": [round(took_s, 2) for took_s in takes_s],
        "slowest_stop_s": round(slowest_s, 2),
    }


def check_stopped(code: int, number: int, said: str, folder: Path) -> list[str]:
    """What is wrong with how a command ended that was told to."""
    if code == 0:
        return []
    wrong = [] if code == 128 + number else [f"exit code {code} after signal {number}: {said}"]
    if "Traceback" in said or (code > 0 and "Stopped." not in said):
        wrong.append(f"said {said!r}")
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    return wrong + [f"{path} after a stop" for path in hidden if ".part." not in path.name or "tiny" not in path.name]


def differences(one: Path, other: Path) -> list[str]:
    """Files that are not in both folders, or not the same."""
    # a killed process may leave locks, which lock nothing, and parts of what is written anew
    names = [{path.relative_to(root) for path in root.rglob("[!.]*") if path.is_file()} for root in (one, other)]
    found = [f"{other.name}: {name} is in one alone" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        contents = [(root / name).read_bytes() for root in (one, other)]
        if name.name == RECORD:
            contents = [_without_time(content) for content in contents]
        if name.name == SUMMARY:
            contents = [_without_history(content) for content in contents]
        if name.name == PAGE:
            contents = [content[: content.rindex(b"<footer>")] for content in contents]
        if contents[0] != contents[1]:
            found.append(f"{other.name}: {name} differs")
    return found


def _without_time(record: bytes) -> bytes:
    values = json.loads(record)
    del values["made_by"]["time"]
    return json.dumps(values).encode()


def _without_history(summary: bytes) -> bytes:
    table = pd.read_csv(io.BytesIO(summary)).drop(columns=["state", "minutes"])
    return table.to_csv().encode()


def main() -> None:
    """Write a data set and sweep over it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stops", type=float, default=0.0)
    parser.add_argument("--alone", action="store_true", help="for the commands that nothing stops")
    options = parser.parse_args()
    torch.set_num_threads(1)  # forks are safe while torch has started no threads
    if options.kills > WIDE and find_spec("spatialdata"):
        import_module("spatialdata")
    folder = options.folder.absolute()
    world = folder / "world"
    if options.alone:
        print(json.dumps(undisturbed(commands(world, options.kills > WIDE), folder / "alone")))
        return
    write_dataset(world, SyntheticConfig(patients=3, spots_x=7, spots_y=6, genes=20))
    rows = [f"slides/{name}.tif,spots/{name}.csv\n" for name in ("P1", "P2", "P3")]
    (world / "cohort.csv").write_text("".join(["slide,spots\n", *rows]))
    print(json.dumps(sweep(folder, world, options.kills, options.seed, options.stops)))


if __name__ == "__main__":
    main()
