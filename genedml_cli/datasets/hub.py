"""Fetch a data set from HEST-1k, which is gated, on the Hugging Face hub."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.datasets import find_dataset
from genedml_cli.datasets.layouts import hest_names
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import free_bytes
from genedml_cli.text import gigabytes, masked

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
    """Turn what the hub's library raises into one sentence each, with the next step."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    again = f"then run the same command again: genedml data fetch {name} --root {root}"
    try:
        yield
    except GatedRepoError as error:
        if get_token() is None:
            raise GeneDMLError(
                f"HEST-1k is gated and there is no token here. Accept its conditions at {PAGE}, log in with: hf auth "
                f"login (or set HF_TOKEN), {again}"
            ) from error
        raise GeneDMLError(
            f"Your account has not accepted the conditions of HEST-1k. Accept them at {PAGE}, with the account that "
            f"the token belongs to, {again}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise GeneDMLError(
            f"The hub cannot be reached ({_reason(error)}); what has come is kept. Check the network, {again}"
        ) from error
    except EntryNotFoundError as error:
        raise GeneDMLError(f"The hub does not have all files of {name}: {_reason(error)}. See {PAGE}") from error
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise GeneDMLError(
                f"The hub does not know the token that is set here. Log in anew with: hf auth login (or set another "
                f"HF_TOKEN), {again}"
            ) from error
        raise GeneDMLError(
            f"The hub refused ({_reason(error)}); what has come is kept. Wait a little, {again}"
        ) from error
    except (HTTPError, OSError) as error:
        raise GeneDMLError(
            f"{root} cannot be written, or the connection broke off ({_reason(error)}); what has come is kept. Fix "
            f"it, {again}"
        ) from error


def _reason(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return masked(" ".join(lines[:2])).rstrip(".") if lines else type(root).__name__
