"""A trained fold as one safetensors file that is enough by itself to predict and that cannot run code."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from safetensors import safe_open
from torch import Tensor

from genedml.config import Config
from genedml.errors import CONTROL, GeneDMLError, reading, reason_of
from genedml.networks.network import Network, Shape
from genedml.networks.registry import build
from genedml.schema import STRICT, from_dict
from genedml.strict_json import with_nan, without_nan
from genedml.tensor_files import assign, tensor_bytes

FORMAT_VERSION = 5
SCORES_OF_GENES = {"held_out_pcc", "morans_i"}
"""Of a card's ``scores``, those of every gene: the PCC inside the training side, Moran's I on the training sections."""
METADATA_KEY, HASH_KEY = "genedml", "sha256"
FIX = "Copy it again, or train the fold again."


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder whose features the network was trained on."""

    __pydantic_config__: ClassVar = STRICT
    name: str
    width: int
    tokens: int
    weights_sha256: str


@dataclass(frozen=True)
class CrossValidated:
    """What each gene was worth on the test sections of a run's folds: one number a gene, in the panel's order.

    Args:
        folds: how many tested folds have the gene in their panel.
        pcc: PCC of the network, mean over the folds whose panel has the gene.
        pcc_sd: its standard deviation over them; NaN of a single fold.
        ridge_pcc: mean PCC of ridge regression on the same folds.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    folds: tuple[int, ...]
    pcc: tuple[float, ...]
    pcc_sd: tuple[float, ...]
    ridge_pcc: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """How far labels lay from predictions of sections that their fold had not seen; the units are those of the label.

    Args:
        tails: shares of the labels to lie below ``lower``, and above ``upper``.
        of: what was left out in turn: ``patients``, or ``sections`` where there is one patient.
        groups: how many of them every gene was tested on, in the panel's order; 0 of one that none has.
        lower, upper: label minus prediction, for every gene and tail; NaN of a gene that was not tested.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    tails: tuple[float, ...]
    of: Literal["patients", "sections"]
    groups: tuple[int, ...]
    lower: tuple[tuple[float, ...], ...]
    upper: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ModelCard:
    """All that is known of a trained fold besides its weights.

    Args:
        config: everything it was configured with: method, network, losses, views, label transform.
        shape: what the network's tensors depend on besides its configuration.
        genes: the panel, in the order of the network's outputs.
        encoder: whose features it takes.
        fold: the name of the fold.
        mean_label: mean label of every gene over the spots that the weights were fitted on: the constant predictor.
        label_sd: its standard deviation over them; nothing in models of earlier versions.
        depth_line: slope and intercept of every gene's label over a spot's depth there: the predictor of depth alone.
        training_slides: sample name to SHA-256 of every slide it has seen, those that chose the checkpoint included.
        training_patients: their patients.
        training_donors: their donors, who may be patients of other names in other data sets.
        um_per_px: of level 0 of the sections it was trained on, the smallest and the largest; nothing if not known
            them. A model of views in level-0 pixels is for slides of about these.
        spot_um: sizes of the pseudo-spots it was trained on, each once; nothing of measured spots.
        array: packing of the arrays that it was trained on, ``square`` or ``hex``, and um between their spots; None
            where they are unlike or not known.
        gene_ids: Ensembl id of every gene, empty where the counts did not know it; nothing if they knew none.
        bank: section and spot of every row of what the network looks up at prediction, in its order; nothing of one
            that looks nothing up, and of models of earlier versions.
        notes: what must be said with everything it predicts and every score of it; those that warn begin in capitals.
        scores: what was measured when it was made.
        cross_validated: what its genes were worth over the folds of its run; None until a run has scored them.
        calibration: what intervals around its predictions are made of; None until a run has tested a fold.
        made_by: versions, seed, and the published data set it was trained on, if it is one; the command and the time
            are in the run's ``run.json``.
    """

    __pydantic_config__: ClassVar = STRICT
    config: Config
    shape: Shape
    genes: tuple[str, ...]
    encoder: EncoderRecord
    fold: str
    mean_label: tuple[float, ...]
    depth_line: tuple[tuple[float, ...], tuple[float, ...]]
    training_slides: Mapping[str, str]
    training_patients: tuple[str, ...]
    training_donors: tuple[str, ...]
    um_per_px: tuple[float, ...] = ()
    spot_um: tuple[float, ...] = ()
    array: tuple[Literal["square", "hex"], float] | None = None
    gene_ids: tuple[str, ...] = ()
    bank: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    cross_validated: CrossValidated | None = None
    label_sd: tuple[float, ...] = ()
    calibration: Calibration | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)


def build_network(card: ModelCard) -> Network:
    """The network a card describes, to predict with, and with fresh weights."""
    return build(card.config.method, card.config.network, card.shape).without_training()


def checkpoint_bytes(card: ModelCard, state: Mapping[str, Tensor]) -> bytes:
    """Card and weights as the content of one safetensors file; equal input gives equal bytes.

    A score that is not defined is null in the card's JSON, and NaN when it is read.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    values = {"format_version": FORMAT_VERSION, "weights_sha256": weights_sha256(tensors), **asdict(card)}
    return tensor_bytes(tensors, sealed(METADATA_KEY, json.dumps(without_nan(values), sort_keys=True)))


def sealed(key: str, text: str) -> dict[str, str]:
    """Metadata of a safetensors file: a text under ``key``, and its SHA-256, since the format has none of its own."""
    return {key: text, HASH_KEY: hashlib.sha256(text.encode()).hexdigest()}


def unsealed(key: str, metadata: Mapping[str, str] | None) -> str:
    """The text that :func:`sealed` put under ``key``, as it was.

    Raises:
        ValueError, KeyError: it is not there, or it has changed since it was written.
    """
    found = dict(metadata or {})
    text = found.pop(key)
    if found.pop(HASH_KEY) != hashlib.sha256(text.encode()).hexdigest() or found:
        raise ValueError("it has changed since it was written")
    return text


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and values."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def network_sha256(file: Path) -> str:
    """By which the references of a fold know its network: :func:`weights_sha256`, as its checkpoint says it.

    Raises:
        GeneDMLError: as :func:`load_card`.
    """
    return _read_card(file)[1]


def load_card(file: Path) -> ModelCard:
    """Read a checkpoint's card without its weights.

    Raises:
        GeneDMLError: not a checkpoint of genedml, or one of another format version.
    """
    return _read_card(file)[0]


def fingerprint(file: Path) -> str:
    """SHA-256 of all that a checkpoint predicts by: weights and card, without what later folds add to it, and without
    the names of what it looks up.

    Raises:
        GeneDMLError: as :func:`load_card`.
    """
    card, weights = _read_card(file)
    values = asdict(replace(card, cross_validated=None, made_by={}))
    del values["calibration"], values["bank"]
    return hashlib.sha256(f"{weights} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


def load_checkpoint(file: Path, device: torch.device | str = "cpu") -> tuple[ModelCard, Network]:
    """Card and network in evaluation mode on ``device``; on the CPU its weights are a map of the file.

    Raises:
        GeneDMLError: not a checkpoint of genedml, or weights that do not fit its card.
    """
    card, sha256 = _read_card(file)
    state = _read_state(file, card, sha256)
    network = build_network(card)
    assign(network, {key: state[key] for key in network.state_dict()})
    return card, network.to(device).eval()


def load_state(file: Path) -> dict[str, Tensor]:
    """All weights in a checkpoint, by name: those of earlier versions hold what training alone uses as well.

    Raises:
        GeneDMLError: not a checkpoint of genedml, weights that do not fit its card, or that have changed.
    """
    return _read_state(file, *_read_card(file))


def _read_state(file: Path, card: ModelCard, sha256: str) -> dict[str, Tensor]:
    with reading(f"The model {file}", FIX), safe_open(file, "pt") as stored:
        shapes = {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118  no mapping
        _check_shapes(card, shapes)
        state = {key: stored.get_tensor(key) for key in shapes}
        if sha256 != weights_sha256(state):
            raise ValueError("its weights have changed since it was written")
    return state


def _read_card(file: Path) -> tuple[ModelCard, str]:
    with reading(f"The model {file}", FIX):
        if not file.is_file():
            raise ValueError("there is no such file")
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata() or {}
    if METADATA_KEY not in metadata:
        raise GeneDMLError(f"{file} is a safetensors file, but not a model of genedml. Give a file that train wrote.")
    try:
        values = json.loads(unsealed(METADATA_KEY, metadata))
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise GeneDMLError(f"it has format {version}, not {FORMAT_VERSION}")
        sha256 = values.pop("weights_sha256")
        _put_nan_back(values)
        card = from_dict(ModelCard, values)
        _check_card(card)
    except Exception as error:  # a card is JSON of any form
        raise GeneDMLError(
            f"The model {file} has a card that this version cannot read: {reason_of(error)}. Use the version of "
            "genedml that wrote it, or train the fold again."
        ) from error
    return card, sha256


def _put_nan_back(values: dict[str, Any]) -> None:
    """Scores that are not defined, which are null in JSON, as numbers."""
    for name in SCORES_OF_GENES & {*values["scores"]}:
        values["scores"][name] = with_nan(values["scores"][name])
    if values["cross_validated"] is not None:
        values["cross_validated"] = {name: with_nan(scores) for name, scores in values["cross_validated"].items()}
    if values.get("calibration") is not None:
        for side in ("lower", "upper"):
            values["calibration"][side] = [with_nan(quantiles) for quantiles in values["calibration"][side]]


def _check_card(card: ModelCard) -> None:
    genes = len(card.genes)
    if (card.shape.genes, card.shape.width) != (genes, card.encoder.width):
        raise ValueError(f"its network is for {card.shape.genes} genes and vectors of {card.shape.width} numbers")
    if not genes or len(set(card.genes)) < genes or any(CONTROL.search(gene) for gene in card.genes):
        raise ValueError("its genes are none, named twice, or no names")
    slope, intercept = card.depth_line
    if {len(card.mean_label), len(slope), len(intercept)} != {genes}:
        raise ValueError(f"it has {genes} genes, but references for another number")
    if not all(math.isfinite(value) for value in (*card.mean_label, *slope, *intercept)):
        raise ValueError("its references are no numbers")
    if len(card.um_per_px) not in (0, 2) or not all(0 < value < math.inf for value in card.um_per_px):
        raise ValueError(f"its um/px are {card.um_per_px}")
    if len(card.bank) not in (0, card.shape.bank) or not {name for name, _ in card.bank} <= {*card.training_slides}:
        raise ValueError(f"it names {len(card.bank)} spots for a bank of {card.shape.bank}, or some it never saw")
    if len(card.gene_ids) not in (0, genes):
        raise ValueError(f"it has {len(card.gene_ids)} ids for {genes} genes")
    for scores in (card.scores["held_out_pcc"], card.scores.get("morans_i", [])):
        if not isinstance(scores, list) or not all(isinstance(value, float | int) for value in scores):
            raise ValueError("its held-out scores or its Moran's I are no numbers")
        if len(scores) not in (0, genes):
            raise ValueError(f"it has {genes} genes, but scores for another number")
    scored = card.cross_validated
    if scored is not None and {
        len(values) for values in (scored.folds, scored.pcc, scored.pcc_sd, scored.ridge_pcc)
    } != {genes}:
        raise ValueError(f"it has {genes} genes, but cross-validated scores for another number")
    if len(card.label_sd) not in (0, genes) or not all(0 <= sd < math.inf for sd in card.label_sd):
        raise ValueError("its standard deviations of the labels are no such numbers, or of other genes")
    if card.calibration is not None:
        _check_calibration(card.calibration, genes)


def _check_calibration(calibration: Calibration, genes: int) -> None:
    tails, sides = calibration.tails, (calibration.lower, calibration.upper)
    if {len(calibration.groups), *map(len, sides)} != {genes} or {len(row) for side in sides for row in side} != {
        len(tails)
    }:
        raise ValueError(f"it has {genes} genes, but intervals for another number")
    if not tails or sorted({*tails}) != [*tails] or not all(0 < tail < 0.5 for tail in tails):
        raise ValueError(f"the tails of its intervals are {tails}")
    if any(math.isinf(value) for side in sides for row in side for value in row):
        raise ValueError("its intervals are infinite")


def _check_shapes(card: ModelCard, found: Mapping[str, tuple[int, ...]]) -> None:
    """Before a network is made as large as a card says: the file holds just the tensors of it, or also those that only
    its training used."""
    with torch.device("meta"):
        network = build(card.config.method, card.config.network, card.shape)
    whole = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    needed = {key: whole[key] for key in network.without_training().state_dict()}
    wanted = whole if found.keys() & (whole.keys() - needed.keys()) else needed
    if wanted != found:
        differ = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise ValueError(f"its weights do not fit its own card ({len(differ)} of them, first: {differ[0]})")
