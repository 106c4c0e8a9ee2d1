"""What a run folder knows of its run: that nothing else is added to it, and what of it is done."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from genedml.checkpoint import EncoderRecord, load_card
from genedml.config import Config, to_dict
from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.features import SectionFeatures
from genedml_cli.inputs import read_json
from genedml_cli.samples import Fold, Sample
from genedml_cli.storage import maker, now, sha256_of, write_json, write_text

SHOWN = 5
"""Differences that a message names."""
CONTENT = "_sha256"


@dataclass(frozen=True)
class RunRecord:
    """``run.json``: all that makes two runs the same, as JSON keeps it.

    Of slides and encoder weights the models know the content (:func:`check_finished`); spots and counts are known here.
    """

    folder: Path
    description: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, config: Config, samples: Sequence[Sample], said: Mapping[str, Any]) -> "RunRecord":
        """The record of a run to be; ``said`` is what else it is told, its panel among it.

        Raises:
            GeneDMLError: a file of spots or counts is not there.
        """
        sheet = [_described(sample) for sample in samples]
        panel = Path(str(said.get("panel", "")))
        of_panel = {f"panel{CONTENT}": sha256_of(panel)} if panel.is_file() else {}
        return cls(folder, json.loads(json.dumps({"config": to_dict(config), **said, **of_panel, "samples": sheet})))

    def check(self) -> None:
        """Refuse to add to a folder what is of another run.

        Raises:
            GeneDMLError: naming what differs.
        """
        if not self._file.exists():
            return
        before = read_json(self._file)
        there = dict(_flat({key: before.get(key) for key in self.description}))
        here = dict(_flat(self.description))
        differ = [key for key in here | there if here.get(key) != there.get(key)]
        if differ:
            listed = "; ".join(_difference(key, there.get(key), here.get(key)) for key in differ[:SHOWN])
            more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
            raise GeneDMLError(f"{self.folder} holds another run ({listed}{more}). Give another --out.")

    def write(self, config: Config) -> None:
        """Say whose folder this is; only when everything the run needs could be read."""
        if not self._file.exists():
            write_text(self.folder / "config.toml", tomli_w.dumps(to_dict(config)))
            made_by = {"made_by": maker() | {"time": now()}, "torch": torch.__version__}
            write_json(self._file, {**self.description, **made_by})

    @property
    def _file(self) -> Path:
        return self.folder / "run.json"


def unfinished(folds: Sequence[Fold], out: Path) -> list[Fold]:
    """The folds that are not in ``out`` yet; says which are."""
    finished = [fold for fold in folds if (out / f"fold-{fold.name}.safetensors").exists()]
    for fold in finished:
        console.note(f"Fold {fold.name} is there already; keeping it.")
        state_file(out, fold.name).unlink(missing_ok=True)
    return [fold for fold in folds if fold not in finished]


def check_finished(out: Path, features: Mapping[str, SectionFeatures], encoder: EncoderRecord) -> None:
    """Refuse to add folds to those of other slides or of an encoder with other weights.

    Raises:
        GeneDMLError: naming which.
    """
    for file in sorted(out.glob("fold-*.safetensors")):
        card = load_card(file)
        slides = {name: found.slide_sha256 for name, found in features.items()}
        changed = [name for name, sha256 in card.training_slides.items() if slides.get(name, sha256) != sha256]
        what = f"other slides ({', '.join(changed)})" if changed else f"other weights of {card.encoder.name}"
        if changed or card.encoder != encoder:
            raise GeneDMLError(f"{file} was trained on {what} than those here now. Give another --out.")


def state_file(out: Path, fold: str) -> Path:
    """Keeps the training of a fold that is not finished."""
    return out / f"fold-{fold}.state"


def what_is_kept(out: Path, features: Path) -> str:
    """What a run that is told to end leaves, and how to go on."""
    finished, begun = (
        [file.name.removeprefix("fold-").removesuffix(suffix) for file in sorted(out.glob(f"fold-*{suffix}"))]
        for suffix in (".safetensors", ".state")
    )
    kept = [f"fold {name} in {out}" for name in finished]
    kept += [f"fold {name} as it was a minute or an epoch ago" for name in begun if name not in finished]
    kept += [f"features in {features}"] if features.exists() else []
    said = f"Kept: {', '.join(kept)}." if kept else "Nothing was done yet that could be kept."
    return f"{said} To go on, run the same command with --out {out}."


def _described(sample: Sample) -> dict[str, str]:
    content = {f"{name}{CONTENT}": sha256_of(getattr(sample, name)) for name in ("spots", "counts")}
    return {**{key: str(value) for key, value in dataclasses.asdict(sample).items()}, **content}


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
