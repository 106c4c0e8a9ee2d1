"""Fetch a data set from HEST-1k, which is gated, on the Hugging Face hub."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genedml.errors import GeneDMLError
from genedml.hub import hub_error
from genedml_cli import console
from genedml_cli.datasets.datasets import find_dataset
from genedml_cli.datasets.layouts import hest_names
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import free_bytes
from genedml_cli.text import gigabytes

REPOSITORY = "MahmoodLab/hest"
PAGE = f"https://huggingface.co/datasets/{REPOSITORY}"


@dataclass(frozen=True)
class Fetched:
    """What a fetch did: files that were there already, files that came, their bytes, and the hub's commit."""

    kept: int
    fetched: int
    size_bytes: int
    commit: str


@takes_paths
def fetch(name: str, root: Path, patches: bool = False) -> Fetched:
    """Bring the files of a data set below ``root``, in HEST-1k's layout: of its sections alone, all of one commit.

    What is there and unchanged is kept, so that running it again fetches the rest. A connection that breaks is taken up
    again within its file.

    Args:
        name: the data set.
        root: made if it is missing.
        patches: the spots' tiles (``patches/ID.h5``) instead of the slides.

    Raises:
        GeneDMLError: no such data set; hub out of reach; no token, licence not accepted; file not on the hub; disk
            too small.
    """
    files = [file for section in find_dataset(name).sections for file in hest_names(section.hest_id, patches)]
    with _hub_errors(name, root):
        plan = _plan(files, root)
        missing = [entry for entry in plan if entry.will_download]
        _check_space(root, sum(entry.file_size or 0 for entry in missing), patches)
        for number, entry in enumerate(missing, 1):
            console.note(f"{number}/{len(missing)} {entry.filename}, {gigabytes(entry.file_size or 0)}")
            _download(entry.filename, root, entry.commit_hash)
    size = sum(entry.file_size or 0 for entry in missing)
    return Fetched(len(plan) - len(missing), len(missing), size, plan[0].commit_hash)


def _plan(files: Sequence[str], root: Path) -> list[Any]:
    """What the hub says of every file: size, commit, and whether it has to come; all of the first one's commit."""
    plan: list[Any] = []
    with console.progress("Asking the hub", len(files)) as advance:
        for file in files:
            plan.append(_download(file, root, plan[0].commit_hash if plan else None, dry_run=True))
            advance(note=file)
    return plan


def _download(file: str, root: Path, commit: str | None, dry_run: bool = False) -> Any:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(REPOSITORY, file, repo_type="dataset", revision=commit, local_dir=root, dry_run=dry_run)


def _check_space(root: Path, needed: int, patches: bool) -> None:
    free = free_bytes(root)
    if needed > free:
        less = "" if patches else ", or fetch the spots' tiles instead of the slides with --patches"
        raise GeneDMLError(
            f"The files that are missing take {gigabytes(needed)}; the disk of {root} has {gigabytes(free)} free. "
            f"Nothing was fetched. Make room, give a --root on another disk{less}."
        )


@contextmanager
def _hub_errors(name: str, root: Path) -> Iterator[None]:
    """Turn what the hub's library raises into a sentence with the next step."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except (HfHubHTTPError, HTTPError, OSError) as error:
        last_step = f"run the same command again; what has come is kept: genedml data fetch {name} --root {root}"
        raise hub_error(error, f"All files of {name} are", PAGE, last_step) from error
