"""What a run folder knows of its run: that nothing else is added to it, and what of it is done."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from genedml.config import Config
from genedml.errors import GeneDMLError
from genedml.schema import to_dict
from genedml_cli import console
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.samples import ALL_SECTIONS, Sample
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import sha256_of, write_json, write_text
from genedml_cli.outputs.run_folder import (
    CONFIG,
    CONTENT,
    RECORD,
    in_words,
    model_file,
    model_files_in,
    name_of,
    plan_file,
    read_record,
    state_file,
)
from genedml_cli.slides.slide_files import content_sha256

FILES = ("panel", "gene_map")
"""Of a run, besides those of its sections."""
SHOWN = 5
"""Differences that a message names."""


@dataclass(frozen=True)
class RunRecord:
    """``run.json``: all that makes two runs the same, as JSON keeps it.

    Of encoder weights the models know the content; that of slides, spots and counts stands here.
    """

    folder: Path
    description: dict[str, Any]

    @classmethod
    def of(
        cls, folder: Path, config: Config, sheet: Sequence[Mapping[str, str]], said: Mapping[str, Any]
    ) -> "RunRecord":
        """The record of a run to be.

        Args:
            folder: of the run.
            config: of the run.
            sheet: the sections, as :func:`describe` gives them.
            said: what else the run is told, its panel and its gene map among it.
        """
        files = {what: Path(str(said.get(what) or "")) for what in FILES}
        contents = {f"{what}{CONTENT}": sha256_of(file) for what, file in files.items() if file.is_file()}
        return cls(folder, json.loads(json.dumps({"config": to_dict(config), **said, **contents, "samples": [*sheet]})))

    def check(self) -> None:
        """Refuse to add to a folder what is of another run.

        Raises:
            GeneDMLError: naming what differs.
        """
        if not self._file.exists():
            self._check_config()
            return
        before = read_record(self.folder)
        there = dict(_flat({key: before.get(key) for key in self.description}))
        here = dict(_flat(self.description))
        differ = [key for key in here | there if here.get(key) != there.get(key)]
        if differ:
            listed = "; ".join(_difference(key, there.get(key), here.get(key)) for key in differ[:SHOWN])
            more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
            raise GeneDMLError(
                f"{self.folder} holds another run ({listed}{more}). Put back what it was made of, or give "
                "another --out."
            )

    def check_unchanged(self, slides: Mapping[str, str]) -> None:
        """Refuse to train on files that were exchanged since the record was begun.

        Args:
            slides: the content of the slides that were encoded, by section.

        Raises:
            GeneDMLError: naming the file.
        """
        files = [(self.description, what) for what in FILES]
        for sample in self.description["samples"]:
            files += [(sample, "spots"), (sample, "counts")]
            known = sample[f"slide{CONTENT}"]
            if slides.get(sample["name"], known) != known:
                raise exchanged(sample["slide"])
        for said, what in files:
            if f"{what}{CONTENT}" in said and sha256_of(Path(said[what])) != said[f"{what}{CONTENT}"]:
                raise exchanged(said[what])

    def write(self) -> None:
        """Say whose folder this is; only when everything the run needs could be read."""
        if not self._file.exists():
            write_text(self.folder / CONFIG, self._config)
            made_by = {"made_by": maker() | {"time": now()}, "torch": version("torch")}
            write_json(self._file, {**self.description, **made_by})

    def _check_config(self) -> None:
        file = self.folder / CONFIG
        if file.exists() and sha256_of(file) != sha256(self._config.encode()).hexdigest():
            raise GeneDMLError(f"{file} is there, of no run, and would be written over. Give another --out.")

    @property
    def _config(self) -> str:
        return tomli_w.dumps(self.description["config"])

    @property
    def _file(self) -> Path:
        return self.folder / RECORD


def describe(samples: Sequence[Sample]) -> list[dict[str, str]]:
    """Sections as a record keeps them, each with the content of its files.

    Raises:
        GeneDMLError: a file is not there.
    """
    sheet = []
    with console.progress("Slides looked at", len(samples)) as advance:
        for sample in samples:
            sheet.append(_described(sample))
            advance(note=sample.name)
    return sheet


def unfinished(folds: Sequence[Fold], out: Path) -> list[Fold]:
    """The folds that are not in ``out`` yet; says which are."""
    finished = [fold for fold in folds if model_file(out, fold.name).exists()]
    for fold in finished:
        console.note(f"{in_words(fold.name)} in {out} is there already; keeping it.")
        for file in (state_file, plan_file):
            file(out, fold.name).unlink(missing_ok=True)
    return [fold for fold in folds if fold not in finished]


def what_is_kept(out: Path, features: Path) -> str:
    """What a run that is told to end leaves, and how to go on."""
    finished = model_files_in(out)
    begun = [name_of(file) for pattern in ("fold-*", ALL_SECTIONS) for file in sorted(out.glob(f"{pattern}.state"))]
    of = {name: in_words(name)[0].lower() + in_words(name)[1:] for name in (*finished, *begun)}
    kept = [f"{of[name]} in {out}" for name in finished]
    kept += [f"{of[name]} as it was a minute or an epoch ago" for name in begun if name not in finished]
    kept += [f"features in {features}/"] if features.exists() else []
    said = f"Kept: {', '.join(kept)}." if kept else "Nothing was done yet that could be kept."
    return f"{said} To go on, run the same command with --out {out}."


def _described(sample: Sample) -> dict[str, str]:
    content = {
        "slide": content_sha256(sample.slide),
        "spots": sha256_of(sample.spots),
        "counts": sha256_of(sample.counts),
    }
    said = {key: str(value) for key, value in dataclasses.asdict(sample).items()}
    return said | {f"{name}{CONTENT}": sha256 for name, sha256 in content.items()}


def exchanged(file: str | Path) -> GeneDMLError:
    """A file changed between two looks at it."""
    return GeneDMLError(f"{file} was exchanged while this command ran. Run it again.")


def _difference(key: str, there: Any, here: Any) -> str:
    if key.endswith(CONTENT):
        return f"{key.removesuffix(CONTENT)}: another content"
    return f"{key}: {there} there, {here} here"


def _flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value under the names above it; the entries of a list of samples under their own."""
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        value = {str(entry.get("name")): entry for entry in value}
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flat(entry, f"{above}.{key}" if above else key)
    else:
        yield above, value
