"""The trained models on this machine: those that come along, run folders below ``runs/``, the hub's cache."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genedml import PRETRAINED
from genedml.checkpoint import load_card
from genedml.errors import GeneDMLError
from genedml_cli.outputs.hub_models import LIST
from genedml_cli.outputs.run_folder import model_files_in


@dataclass(frozen=True)
class LocalModel:
    """One model.

    Args:
        name: as ``--model`` takes it.
        folder: its files.
        method, encoder, genes: of its first fold.
        folds: how many models it is, one a fold, and one of all sections.
        commit: of one from the hub; empty of others.
        problem: why its card cannot be read; nothing else is known then.
    """

    name: str
    folder: str
    method: str = ""
    encoder: str = ""
    genes: int = 0
    folds: int = 0
    commit: str = ""
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def local_models(runs: Path = Path("runs")) -> list[LocalModel]:
    """All of them; nothing is fetched."""
    below = sorted({file.parent for file in runs.glob("*/*.safetensors")})
    found = [
        *((name, folder, "") for name, folder in PRETRAINED.items()),
        *((str(run), run, "") for run in below),
        *_of_hub(),
    ]
    return [_described(name, folder, commit) for name, folder, commit in found if model_files_in(folder)]


def _of_hub() -> Iterator[tuple[str, Path, str]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = sorted(scan_cache_dir().repos, key=lambda repository: repository.repo_id)
    except CacheNotFound:
        return
    for repository in repositories:
        for revision in sorted(repository.revisions, key=lambda revision: revision.commit_hash):
            if repository.repo_type == "model" and any(file.file_name == LIST for file in revision.files):
                pinned = "" if "main" in revision.refs else f"@{revision.commit_hash}"
                yield f"hf://{repository.repo_id}{pinned}", revision.snapshot_path, revision.commit_hash


def _described(name: str, folder: Path, commit: str) -> LocalModel:
    files = model_files_in(folder)
    try:
        card = load_card(next(iter(files.values())))
    except GeneDMLError as error:
        return LocalModel(name, str(folder), commit=commit, problem=str(error))
    known = card.config.method, card.encoder.name, len(card.genes), len(files)
    return LocalModel(name, str(folder), *known, commit=commit)
