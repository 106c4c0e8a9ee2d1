"""The file of a reference that stands beside a fold's network: tables of numbers, and whose they are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from genedml.checkpoint import weights_sha256
from genedml.tensor_files import tensor_bytes
from genedml_cli.files.storage import atomic_write

Tables = Mapping[str, np.ndarray]


def save_reference(tables: Tables, network: str, path: Path, genes: Sequence[str] | None = None) -> None:
    """Write a reference whole.

    Args:
        tables: its numbers by name.
        network: SHA-256 of the network that it stands beside (:func:`genedml.checkpoint.network_sha256`).
        path: of the file.
        genes: in order, where it is of genes.
    """
    metadata = {"sha256": _sha256(tables), "network": network}
    if genes is not None:
        metadata["genes"] = json.dumps(list(genes))
    tensors = {name: torch.tensor(table) for name, table in tables.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(tensor_bytes(tensors, metadata))


def load_reference(path: Path, network: str, genes: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The tables of a reference. Errors are for :func:`genedml.errors.reading` around it.

    Raises:
        ValueError: it is of other genes, beside another network, or changed since it was written.
        Exception: whatever safetensors raises.
    """
    with safe_open(path, "np") as stored:
        metadata = stored.metadata()
        tables = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no mapping
    if genes is not None and json.loads(metadata["genes"]) != list(genes):
        raise ValueError("it is of other genes than the fold")
    if metadata["network"] != network:
        raise ValueError("it is of another fold or run")
    if metadata["sha256"] != _sha256(tables):
        raise ValueError("it has changed since it was written")
    return tables


def _sha256(tables: Tables) -> str:
    """Of the numbers, since safetensors has none of its own."""
    return weights_sha256({name: torch.from_numpy(np.ascontiguousarray(table)) for name, table in tables.items()})
