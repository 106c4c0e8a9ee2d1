"""Trained models by name, ``hf://owner/name[@revision]``: from the Hugging Face hub into its cache on this disk.

A repository that :mod:`genedml_cli.runs.pushing` wrote holds ``genedml.json``: a list of its models' files, with sizes
and SHA-256; no others are fetched. What is in the cache is used without asking the hub.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from genedml.errors import GeneDMLError, reading
from genedml.hub import asks_for_leave, hub_error, hub_reason
from genedml_cli import console
from genedml_cli.files.storage import free_bytes, sha256_of
from genedml_cli.text import gigabytes

# A Path makes one slash of two.
NAME = re.compile(r"hf:/{1,2}(?P<repository>\w[\w.-]*/\w[\w.-]*?)(?:@(?P<revision>\w[\w.-]*))?")
LIST = "genedml.json"
MODEL_FILE = re.compile(r"(fold-[\w.-]+|all-sections|(ridge|novelty)-[\w.-]+)\.safetensors")
LIST_BYTES, MODEL_BYTES, FILES = 1_000_000, 20_000_000_000, 500
"""The most that a list, and all models of one repository, may take, and how many files they may be."""
FIX = "Ask whoever pushed it to push it again, or give another model."


@dataclass(frozen=True)
class Listed:
    """A file of a repository, as its list has it."""

    name: str
    size: int
    sha256: str


def is_hub_name(model: Path) -> bool:
    """Whether a model is named as one of the hub."""
    return str(model).startswith("hf:/")


def parse_name(model: Path) -> tuple[str, str]:
    """Repository and revision of a hub name.

    Raises:
        GeneDMLError: it is not of the form ``hf://owner/name[@revision]``.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    match = NAME.fullmatch(str(model))
    try:
        if match is not None:
            validate_repo_id(match["repository"])
            return match["repository"], match["revision"] or "main"
    except HFValidationError:  # characters or a length that the hub does not take
        pass
    raise GeneDMLError(f"{model} names no model of the hub. Write hf://owner/name or hf://owner/name@revision.")


def from_hub(model: Path) -> Path:
    """The folder of a model: ``model`` itself, or, where it names one of the hub, its files in the hub's cache.

    Raises:
        GeneDMLError: the hub cannot be reached and it is not in the cache; it is gated, not there, no model of genedml,
            too large, or its files are not those of its list.
    """
    if not is_hub_name(model):
        return model
    repository, revision = parse_name(model)
    folder = cached(repository, revision)
    if folder is None:
        with _hub_errors(repository):
            folder = _fetch(repository, revision)
    console.note(f"Model: {repository} of the hub, commit {folder.name[:12]}.")
    return folder


def cached(repository: str, revision: str) -> Path | None:
    """Where the cache has a whole model, if it has; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, LIST, revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    files = read_list(folder / LIST, repository)
    return folder if all((folder / file.name).is_file() for file in files) else None


def read_list(path: Path, repository: str) -> list[Listed]:
    """The files that a repository's list names.

    Raises:
        GeneDMLError: it is no such list, names files that are no models, or more than :data:`MODEL_BYTES`.
    """
    with reading(f"The list {LIST} of {repository}", FIX):
        if path.stat().st_size > LIST_BYTES:
            raise ValueError("it is larger than a list")
        listed = [
            Listed(str(row["name"]), int(row["size"]), str(row["sha256"])) for row in json.loads(path.read_text())
        ]
        odd = [file.name for file in listed if not MODEL_FILE.fullmatch(file.name) or file.size < 0]
        if odd or not listed or len(listed) > FILES or len({file.name for file in listed}) < len(listed):
            raise ValueError(f"it names {odd[0]!r}, no file of a model" if odd else f"it names {len(listed)} files")
        if sum(file.size for file in listed) > MODEL_BYTES:
            raise ValueError(f"its models take more than {gigabytes(MODEL_BYTES)}")
    return listed


def results_of(run: Path) -> Path:
    """Where results of a run go: its own folder, or, of a model in the hub's cache, ``runs/OWNER--NAME``."""
    if run.parent.name == "snapshots":
        return Path("runs") / run.parent.parent.name.removeprefix("models--")
    return run


def _fetch(repository: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    head = hf_hub_download(repository, LIST, revision=revision, dry_run=True)
    if (head.file_size or 0) > LIST_BYTES:
        raise GeneDMLError(f"The list {LIST} of {repository} is larger than a list. {FIX}")
    path = Path(hf_hub_download(repository, LIST, revision=revision))
    files = read_list(path, repository)
    _check_space(repository, path, sum(file.size for file in files))
    for number, file in enumerate(files, 1):
        served = hf_hub_download(repository, file.name, revision=head.commit_hash, dry_run=True)
        if served.file_size != file.size:
            raise GeneDMLError(
                f"{file.name} of {repository} has {served.file_size} bytes, in its list {file.size}. {FIX}"
            )
        console.note(f"{number}/{len(files)} {file.name}, {gigabytes(file.size)}")
        came = Path(hf_hub_download(repository, file.name, revision=head.commit_hash))
        if sha256_of(came) != file.sha256:
            came.resolve().unlink()
            came.unlink(missing_ok=True)
            raise GeneDMLError(f"{file.name} of {repository} is not the file of its list, by its SHA-256. {FIX}")
    return path.parent


def _check_space(repository: str, path: Path, needed: int) -> None:
    free = free_bytes(path.parent)
    if needed > free:
        raise GeneDMLError(
            f"The models of {repository} take {gigabytes(needed)}; the disk of the hub's cache has {gigabytes(free)} "
            "free. Make room, or set HF_HOME to a folder on another disk."
        )


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn what the hub's library raises into a sentence with the next step."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    page = f"https://huggingface.co/{repository}"
    try:
        yield
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if asks_for_leave(error):
            raise hub_error(error, f"The models of {repository} are", page, "run the same command again") from error
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise GeneDMLError(f"{page} has no model that genedml push wrote: {hub_reason(error)}. {FIX}") from error
        raise GeneDMLError(
            f"The models of {repository} are not here: {hub_reason(error)}. Run the same command again with the hub in "
            "reach; what has come is kept, and a model that is here whole needs no network."
        ) from error
