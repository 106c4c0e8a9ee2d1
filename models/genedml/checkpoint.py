"""A trained fold as one safetensors file that is enough by itself to predict and that cannot run code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genedml.config import Config, from_dict
from genedml.errors import GeneDMLError
from genedml.network import GeneDML

FORMAT_VERSION = 4
METADATA_KEY = "genedml"
PRETRAINED = Path(__file__).parent / "pretrained"  # the run that comes with genedml; its README is the card


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder whose features the network was trained on."""

    name: str
    width: int
    tokens: int
    weights_sha256: str


@dataclass(frozen=True)
class CrossValidated:
    """What each gene was worth on the test sections of a run's folds: one number a gene, in the panel's order.

    Args:
        folds: how many folds had been tested.
        pcc: PCC of Gene-DML, mean over the folds whose panel has the gene.
        pcc_sd: its standard deviation over them; NaN of a single fold.
        ridge_pcc: mean PCC of ridge regression on the same folds.
    """

    folds: int
    pcc: tuple[float, ...]
    pcc_sd: tuple[float, ...]
    ridge_pcc: tuple[float, ...]


@dataclass(frozen=True)
class ModelCard:
    """All that is known of a trained fold besides its weights.

    Args:
        config: everything it was configured with: network, losses, views, label transform.
        genes: the panel, in the order of the network's outputs.
        encoder: whose features it takes.
        fold: the name of the fold.
        mean_label: mean label of every gene over the training and validation spots: the constant predictor.
        depth_line: slope and intercept of every gene's label over a spot's depth there: the predictor of depth alone.
        training_slides: sample name to SHA-256 of every slide it has seen, those that chose the checkpoint included.
        training_patients: their patients.
        training_donors: their donors, who may be patients of other names in other data sets.
        gene_ids: Ensembl id of every gene, empty where the counts did not know it; nothing if they knew none.
        notes: what must be said with everything it predicts and every score of it; those that warn begin in capitals.
        scores: what was measured when it was made.
        cross_validated: what its genes were worth over the folds of its run; None until a run has scored them.
        made_by: version, command, seed, time.
    """

    config: Config
    genes: tuple[str, ...]
    encoder: EncoderRecord
    fold: str
    mean_label: tuple[float, ...]
    depth_line: tuple[tuple[float, ...], tuple[float, ...]]
    training_slides: Mapping[str, str]
    training_patients: tuple[str, ...]
    training_donors: tuple[str, ...]
    gene_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    cross_validated: CrossValidated | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)


def build_network(card: ModelCard) -> GeneDML:
    """The network a card describes, with fresh weights."""
    config = card.config
    return GeneDML(config.network, config.loss, card.encoder.width, len(card.genes), config.views.neighbor_grid)


def checkpoint_bytes(card: ModelCard, state: Mapping[str, Tensor]) -> bytes:
    """Card and weights as the content of one safetensors file; equal input gives equal bytes."""
    metadata = json.dumps({"format_version": FORMAT_VERSION, **asdict(card)}, sort_keys=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    return save(tensors, {METADATA_KEY: metadata})


def load_card(file: Path) -> ModelCard:
    """Read a checkpoint's card without its weights.

    Raises:
        GeneDMLError: not a checkpoint of genedml, or one of another format version.
    """
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise GeneDMLError(
            f"The model {file} cannot be read: {error}. Copy it again, or train the fold again."
        ) from error
    if METADATA_KEY not in metadata:
        raise GeneDMLError(f"{file} is a safetensors file, but not a model of genedml. Give a file that train wrote.")
    try:
        return _card(json.loads(metadata[METADATA_KEY]))
    except (GeneDMLError, KeyError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise GeneDMLError(
            f"The model {file} has a card that this version cannot read: {reason}. Use the version of genedml that "
            "wrote it, or train the fold again."
        ) from error


def load_checkpoint(file: Path, device: torch.device | str = "cpu") -> tuple[ModelCard, GeneDML]:
    """Card and network in evaluation mode on ``device``.

    Raises:
        GeneDMLError: not a checkpoint of genedml, or weights that do not fit its card.
    """
    card = load_card(file)
    network = build_network(card)
    try:
        network.load_state_dict(load_state(file))
    except RuntimeError as error:
        raise GeneDMLError(
            f"The weights in {file} do not fit its own card: {error}. Copy the file again, or train the fold again."
        ) from error
    return card, network.to(device).eval()


def load_state(file: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, by name."""
    with safe_open(file, "pt") as stored:
        return {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118  no mapping


def _card(values: dict[str, Any]) -> ModelCard:
    version = values.pop("format_version")
    if version != FORMAT_VERSION:
        raise GeneDMLError(f"it has format {version}, not {FORMAT_VERSION}")
    slope, intercept = values.pop("depth_line")
    gene_ids = tuple(values.pop("gene_ids", ()))
    if len(gene_ids) not in (0, len(values["genes"])):
        raise ValueError(f"it has {len(gene_ids)} ids for {len(values['genes'])} genes")
    scored = values.pop("cross_validated")
    return ModelCard(
        config=from_dict(Config, values.pop("config")),
        encoder=EncoderRecord(**values.pop("encoder")),
        genes=tuple(values.pop("genes")),
        gene_ids=gene_ids,
        mean_label=tuple(values.pop("mean_label")),
        depth_line=(tuple(slope), tuple(intercept)),
        notes=tuple(values.pop("notes")),
        training_patients=tuple(values.pop("training_patients")),
        training_donors=tuple(values.pop("training_donors")),
        cross_validated=None if scored is None else _cross_validated(scored),
        **values,
    )


def _cross_validated(values: dict[str, Any]) -> CrossValidated:
    each = {name: tuple(values[name]) for name in ("pcc", "pcc_sd", "ridge_pcc")}
    return CrossValidated(folds=values["folds"], **each)
