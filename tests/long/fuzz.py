"""The long run: broken files for one parser, or all, each ending in success or one sentence within ten seconds.

    python tests/long/fuzz.py spots --runs 10000
    python tests/long/fuzz.py all --runs 10000 --seed 7
    python tests/long/fuzz.py spots --runs 10000 --guided      (atheris: coverage says which input to change next)

Every parser runs in a process of its own, so that a crash of a library below Python is seen and counted, and under a
bound of memory, so that nothing is allocated by what a file declares.
"""

import argparse
import collections
import importlib
import json
import multiprocessing
import os
import pkgutil
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for hostile.py
os.environ.setdefault("JAXTYPING_DISABLE", "1")  # the shapes are the tests' business
SLOW_S = 10
MEMORY_BYTES = 12 * 2**30


class Judge:
    """Reads what it is given with one parser and keeps account of how it ended."""

    def __init__(self, name: str, folder: Path) -> None:
        from hostile import PARSERS

        self.name, self.parser = name, PARSERS[name]
        self.file = folder / self.parser.file
        self.parser.write(self.file)
        self.sound = self.file.read_bytes()
        self.truth = repr(self.parser.read(self.file))
        self.inputs = 0
        self.counts: collections.Counter[str] = collections.Counter()
        self.kinds: dict[str, str] = {}
        self.slowest_s, self.started = 0.0, time.perf_counter()
        self.kept = folder.parent / f"failures-{name}"

    def try_one(self, content: bytes) -> None:
        """One input, judged."""
        from genedml.errors import GeneDMLError

        self.file.write_bytes(content)
        self.inputs += 1
        start = time.perf_counter()
        try:
            same = repr(self.parser.read(self.file)) == self.truth
            self.counts["as before" if same else "another content"] += 1
        except GeneDMLError as error:
            self.counts["refused"] += 1
            if len(str(error)) > 2000:
                self._keep("bad sentence", content)
        except Exception as error:
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
            self._keep(
                f"{type(error).__name__} {where} {str(error).splitlines()[0][:100] if str(error) else ''}", content
            )
        self._took(time.perf_counter() - start, content)

    def report(self) -> str:
        """One line of JSON."""
        seconds = {"seconds": round(time.perf_counter() - self.started), "slowest_s": round(self.slowest_s, 2)}
        figures = {"inputs": self.inputs, **seconds, **self.counts}
        return json.dumps({"parser": self.name, **figures, "failures": self.kinds})

    def _took(self, seconds: float, content: bytes) -> None:
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > SLOW_S:
            self._keep(f"slow: {seconds:.0f} s", content)

    def _keep(self, kind: str, content: bytes) -> None:
        self.counts["FAILED"] += 1
        if kind not in self.kinds:
            self.kept.mkdir(parents=True, exist_ok=True)
            file = self.kept / f"{len(self.kinds)}-{self.parser.file}"
            file.write_bytes(content)
            self.kinds[kind] = str(file)


def run_parser(name: str, runs: int, seed: int, guided: bool, folder: Path) -> None:
    """All inputs of one parser, in this process."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if guided:
        import atheris

        import genedml_cli

        # Before hostile, whose conftest puts another import hook in front.
        with atheris.instrument_imports(include=["genedml_cli", "genedml"]):
            for module in pkgutil.walk_packages(genedml_cli.__path__, "genedml_cli."):
                importlib.import_module(module.name)
    from hostile import broken

    judge = Judge(name, folder)
    if guided:
        corpus = folder / "corpus"
        corpus.mkdir()
        (corpus / "sound").write_bytes(judge.sound)

        def one(content: bytes) -> None:
            judge.try_one(content)
            if judge.inputs >= runs:
                print(judge.report(), flush=True)
                os._exit(0)

        atheris.Setup([sys.argv[0], str(corpus), f"-seed={seed}", "-max_len=4096", "-print_final_stats=0"], one)
        atheris.Fuzz()
        return
    chance = random.Random(f"{name} {seed}")
    for number in range(runs):
        content = broken(judge.sound, chance)
        (folder / "last").write_bytes(content)  # what a crash was about
        judge.try_one(content)
        if number % 1000 == 999:
            print(judge.report(), file=sys.stderr, flush=True)
    print(judge.report(), flush=True)
    sys.exit(int(judge.counts["FAILED"] > 0))


def main() -> int:
    """Every parser asked for, each in a process of its own."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("parser", help="names of parsers, separated by commas, or all")
    words.add_argument("--runs", type=int, default=10_000)
    words.add_argument("--seed", type=int, default=2021)
    words.add_argument("--guided", action="store_true")
    asked = words.parse_args()
    if asked.guided:
        run_parser(asked.parser, asked.runs, asked.seed, True, _folder(asked.parser))
        return 0
    from hostile import PARSERS

    failed = False
    for name in PARSERS if asked.parser == "all" else asked.parser.split(","):
        folder = _folder(name)
        job = multiprocessing.get_context("fork").Process(
            target=run_parser, args=(name, asked.runs, asked.seed, False, folder)
        )
        job.start()
        job.join()
        if job.exitcode:
            cause = signal.Signals(-job.exitcode).name if job.exitcode < 0 else f"exit code {job.exitcode}"
            print(json.dumps({"parser": name, "CRASH": cause, "input": str(folder / "last")}), flush=True)
        failed = failed or bool(job.exitcode)
    return int(failed)


def _folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-")) / "run"
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
