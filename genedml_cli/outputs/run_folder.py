"""The file names of a run folder."""

import os
from pathlib import Path
from typing import Any

from genedml import DEFAULT_PRETRAINED, PRETRAINED
from genedml.errors import GeneDMLError, did_you_mean, reading
from genedml_cli import console
from genedml_cli.datasets.samples import ALL_SECTIONS, EVERY_FOLD
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.text_files import read_json
from genedml_cli.outputs.hub_models import from_hub

CONTENT = "_sha256"
RECORD = "run.json"
CONFIG = "config.toml"
CEILING = "ceiling.csv"
"""The split halves of a run's test sections, which depend on its counts and labels alone: computed once."""
MODEL = ".safetensors"
WRITTEN = (
    *(RECORD, CONFIG, CEILING, "metrics.*", "genes.*", "fold-*", f"{ALL_SECTIONS}.*", "ridge-*", "novelty-*"),
    "predictions/*",
)


def written_in(run: Path) -> list[Path]:
    """What is there of the files that a run writes into its folder, whoever wrote it."""
    return [file for pattern in WRITTEN for file in run.glob(pattern)]


def read_record(run: Path) -> dict[str, Any]:
    """What ``run.json`` in a run folder says.

    Raises:
        GeneDMLError: it is not there, or not the record of a run.
    """
    file = run / RECORD
    with reading(f"The record {file}", "Copy the run again, or train again into a new folder."):
        record = read_json(file)
        for sample in record["samples"]:
            [str(sample[key]) for key in ("name", "slide", "counts", "fold")]
        str(record["dataset"]), record["made_by"].get("command")
    return record


def model_file(out: Path, fold: str) -> Path:
    """The model of a fold, or of all sections, in a run folder. It is written last: to exist means to be finished."""
    return out / f"{fold if fold == ALL_SECTIONS else f'fold-{fold}'}{MODEL}"


def model_files_in(run: Path) -> dict[str, Path]:
    """Every finished model of a run by its fold, that of all sections last."""
    folds = {name_of(file): file for file in sorted(run.glob(f"fold-*{MODEL}"))}
    of_all = model_file(run, ALL_SECTIONS)
    return folds | ({ALL_SECTIONS: of_all} if of_all.is_file() else {})


def name_of(file: Path) -> str:
    """The fold that a file of a run, such as its model, is of."""
    return file.stem.removeprefix("fold-")


def in_words(fold: str) -> str:
    """A fold as a message names it."""
    return "The model of all sections" if fold == ALL_SECTIONS else f"Fold {fold}"


def state_file(out: Path, fold: str) -> Path:
    """Keeps the training of a fold that is not finished."""
    return model_file(out, fold).with_suffix(".state")


def plan_file(out: Path, fold: str) -> Path:
    """What a fold that is being trained is trained from."""
    return model_file(out, fold).with_suffix(".plan.json")


def log_file(out: Path, fold: str) -> Path:
    """Losses and scores of every epoch of a fold."""
    return model_file(out, fold).with_suffix(".log.csv")


def reference_file(checkpoint: Path, kind: str) -> Path:
    """Where a fold's ``ridge`` or ``novelty`` is kept: beside its checkpoint."""
    return checkpoint.with_name(f"{kind}-{checkpoint.stem.removeprefix('fold-')}.safetensors")


GIVE_MODEL = (
    "Give a run folder or a .safetensors file of genedml train, hf://OWNER/NAME of the hub, or one that is shipped: "
    f"{' or '.join(PRETRAINED)}."
)


def default_model() -> Path:
    """``GENEDML_MODEL``, else the model that comes with genedml."""
    named = os.environ.get("GENEDML_MODEL")
    if named:
        console.note(f"Model: {named} (GENEDML_MODEL).")
        return Path(named)
    console.note(f"No --model: {DEFAULT_PRETRAINED}.")
    return PRETRAINED[DEFAULT_PRETRAINED]


@takes_paths
def model_files(model: Path, fold: str | None = None) -> list[Path]:
    """The checkpoints that ``model`` stands for: one file, those of a run folder, of a shipped run, or of the hub.

    A run folder goes before a shipped run of its name. Of a run it is the model of all sections, if it is there and
    ``fold`` names no other; else the folds. ``fold`` may also be ``all`` (the folds) or ``all-sections``.

    Raises:
        GeneDMLError: nothing there, no model, or no such fold; as :func:`genedml_cli.outputs.hub_models.from_hub`.
    """
    model = from_hub(model)
    if model.suffix.lower() == ".h5ad":
        raise GeneDMLError(f"{model} is AnnData, a prediction or counts, and no model. {GIVE_MODEL}")
    if model.is_file():
        if fold is not None:
            raise GeneDMLError(f"{model} is one fold already; leave out --fold or give the run folder.")
        return [model]
    files = model_files_in(model) or model_files_in(PRETRAINED.get(str(model), model))
    folds = [file for name, file in files.items() if name != ALL_SECTIONS]
    if not files:
        if not model.exists():
            raise GeneDMLError(f"There is no model {model}.{did_you_mean(str(model), PRETRAINED)} {GIVE_MODEL}")
        raise GeneDMLError(f"{model} holds no trained fold. {GIVE_MODEL}")
    if fold is None:
        return [files[ALL_SECTIONS]] if ALL_SECTIONS in files else folds
    if fold == EVERY_FOLD and folds:
        return folds
    if fold not in files:
        raise GeneDMLError(f"{model} has no fold {fold}. It has: {', '.join(files)}.")
    return [files[fold]]
