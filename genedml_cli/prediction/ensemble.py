"""Trained folds that predict together. Letters: S spots, M genes."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from genedml import PRETRAINED, PRETRAINED_ON
from genedml.checkpoint import ModelCard, fingerprint, load_card, load_checkpoint, network_sha256
from genedml.encoders.encoder import Encoder
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Needs
from genedml.networks.network import Network
from genedml.networks.registry import network_class
from genedml_cli import console
from genedml_cli.datasets.samples import ALL_SECTIONS
from genedml_cli.expression.panels import agreed_gene_ids
from genedml_cli.features.section_features import SectionFeatures, encoder_record
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import sha256_of
from genedml_cli.machine.compute import AUTO, BATCH_SPOTS, Compute
from genedml_cli.machine.devices import prepare_encoder
from genedml_cli.notes import SHARED_PATIENTS, Mark, Note, panels_note
from genedml_cli.outputs.run_folder import model_files_in, reference_file
from genedml_cli.prediction.section import predict_section
from genedml_cli.spots.spots import Spots, size_note

SCALE_TOLERANCE = 1.25
"""Times the um/px of the training that a model of native views takes: objectives are a factor of 2 apart, scanners of
one objective less than this."""


@dataclass(frozen=True)
class Ensemble:
    """Trained folds that predict together, and the encoder whose features they all take.

    Networks are maps of their files, each read and held against its hash once. Off the CPU one fold at a time is in
    the device's memory; with ``keep`` they stay there, for many slides.
    """

    files: Sequence[Path]
    cards: Sequence[ModelCard]
    mapped: Sequence[Network]
    encoder: Encoder
    device: torch.device
    keep: bool = False
    _kept: dict[int, Network] = field(default_factory=dict, repr=False)

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes that every fold predicts."""
        return common_genes(self.cards)

    @property
    def needs(self) -> Needs:
        """What the networks take of a batch."""
        config = self.cards[0].config
        return network_class(config.method).needs(config.network)

    @property
    def gene_ids(self) -> tuple[str, ...]:
        """The Ensembl ids of :attr:`genes`, where the folds know them."""
        known = [dict(zip(card.genes, card.gene_ids, strict=True)) for card in self.cards if card.gene_ids]
        return agreed_gene_ids(known, self.genes)

    def predict(
        self, number: int, features: SectionFeatures, batch_spots: int = BATCH_SPOTS
    ) -> Float[np.ndarray, "S M"]:
        """Labels of :attr:`genes` as fold ``number`` predicts them."""
        return predict_section(self.network(number), features, self.device, batch_spots)[:, self._columns(number)]

    def network(self, number: int) -> Network:
        """That of fold ``number``, on :attr:`device`."""
        if self.device.type == "cpu":
            return self.mapped[number]
        network = self._kept.get(number) or copy.deepcopy(self.mapped[number]).to(self.device)
        if self.keep:
            self._kept[number] = network
        return network

    def of_common_genes(self, each: Sequence[Float[np.ndarray, "S _"]]) -> list[Float[np.ndarray, "S M"]]:
        """Of one table a fold, with its own genes as columns, the columns of :attr:`genes`."""
        return [table[:, self._columns(number)] for number, table in enumerate(each)]

    @cached_property
    def fingerprints(self) -> list[str]:
        """Name and fingerprint of every file."""
        return [f"{file.name} {fingerprint(file)}" for file in self.files]

    @cached_property
    def networks(self) -> list[str]:
        """SHA-256 of each network, by which its references know it."""
        return [network_sha256(file) for file in self.files]

    @cached_property
    def references_sha256(self) -> str:
        """Of all that stands beside a prediction: scores of the genes, intervals, linear references, novelty."""
        kept = [reference_file(file, kind) for file in self.files for kind in ("ridge", "novelty")]
        of_run = [(card.cross_validated, card.calibration) for card in self.cards]
        listed = of_run, [file.is_file() and sha256_of(file) for file in kept]
        return hashlib.sha256(repr(listed).encode()).hexdigest()

    @property
    def trained_on(self) -> list[str]:
        """The published data sets that the folds were trained on."""
        named = [str(card.made_by.get("dataset", "")) for card in self.cards]
        shipped = [PRETRAINED_ON for file in self.files if file.parent in PRETRAINED.values()]
        return list(dict.fromkeys(filter(None, [*shipped, *named])))

    def check_scale(self, slide: str, um_per_px: float | None) -> None:
        """Refuse a slide of another scale than the training's where views are in level-0 pixels.

        Warns where the slide's or the training's is not known.

        Raises:
            GeneDMLError: tissue on ``slide``, of ``um_per_px``, has another size in the views than it was trained at.
        """
        if self.cards[0].config.views.um_per_px != "native":
            return
        trained = [value for card in self.cards for value in card.um_per_px]
        if not trained or um_per_px is None:
            whose = "sections it was trained on" if not trained else f"slide {slide}"
            console.warn(
                f"The model looks at level-0 pixels, and um/px of the {whose} is not known: whether tissue has the "
                "size that it was trained at is not checked."
            )
        elif not min(trained) / SCALE_TOLERANCE <= um_per_px <= max(trained) * SCALE_TOLERANCE:
            raise GeneDMLError(
                f"{slide} has {um_per_px:.3g} um/px. The model looks at level-0 pixels and was trained on slides of "
                f"{min(trained):.3g} to {max(trained):.3g} um/px, so it would see tissue at another size. Give a model "
                "with views in um (train without --um-per-px native), or one trained on such slides."
            )

    def averaged_as_trained(self, spots: Spots, um_per_px: float | None) -> Spots:
        """The spots of a finer array than the training's, with means over as large an area as there."""
        arrays = {card.array for card in self.cards}
        (array,) = arrays if len(arrays) == 1 else (None,)
        if array is None or um_per_px is None or not self.cards[0].config.labels.smooth:
            return spots
        return spots.mean_as_on(*array, um_per_px)

    def size_note(self, spots: Spots, um_per_px: float | None) -> Note | None:
        """What must be said where spots are of another size than the pseudo-spots of the training."""
        pitch_um = spots.pitch_px * um_per_px if um_per_px is not None and spots.knows_pitch else None
        return size_note({um for card in self.cards for um in card.spot_um}, spots, pitch_um)

    def _columns(self, number: int) -> list[int]:
        column = {gene: place for place, gene in enumerate(self.cards[number].genes)}
        return [column[gene] for gene in self.genes]


@takes_paths
def load_models(
    files: Sequence[Path],
    weights: Path | None = None,
    compute: Compute = AUTO,
    keep: bool = False,
    encoder: Encoder | None = None,
) -> Ensemble:
    """The folds in ``files`` with their encoder, or with one that is ready; ``keep`` as in :class:`Ensemble`.

    Raises:
        GeneDMLError: folds that differ in what they take or give, or were trained on features of another encoder.
    """
    cards = [load_card(file) for file in files]
    _check_alike(cards, files)
    mapped = [load_checkpoint(file)[1] for file in files]  # damaged weights are refused before hours of encoding
    encoder = encoder or prepare_encoder(cards[0].config.encoder, weights, compute)
    _check_encoder(encoder, cards[0], files[0])
    return Ensemble(files, cards, mapped, encoder, encoder.device, keep)


def common_genes(cards: Sequence[ModelCard]) -> tuple[str, ...]:
    """The genes that every model predicts, in the order of the first.

    Raises:
        GeneDMLError: there are none.
    """
    shared = set(cards[0].genes).intersection(*(card.genes for card in cards[1:]))
    genes = tuple(gene for gene in cards[0].genes if gene in shared)
    if not genes:
        raise GeneDMLError("The folds of this run have no gene in common; predict with one of them: --fold.")
    return genes


def notes_for_others(cards: Sequence[ModelCard]) -> list[Note]:
    """What must be said with predictions of slides that no fold of the run has tested, each once.

    That a patient is on both sides of the run's folds, as it is where all sections are of one, or that its panel was
    chosen with its test sections in view, says nothing of another slide, but of the run's own scores.
    """
    notes = dict.fromkeys(Note.of(text) for card in cards for text in card.notes)
    others = [note for note in notes if note.mark not in (Mark.LEAKING, Mark.PANEL)]
    of_one = any(card.cross_validated and len(set(card.training_donors)) == 1 for card in cards)
    return [*others, SHARED_PATIENTS] if of_one or any(note.mark is Mark.LEAKING for note in notes) else others


def genes_left_out(cards: Sequence[ModelCard]) -> Note | None:
    """What must be said where the folds' panels differ, so that genes are left out."""
    shared, most = len(common_genes(cards)), max(len(card.genes) for card in cards)
    return panels_note(shared, most) if shared < most else None


def say_which(models: Ensemble) -> None:
    """Say which models predict, where that is not plain, what they are for, and whether genes are left out."""
    folder = models.files[0].parent
    if folder in PRETRAINED.values():
        console.warn(
            f"The model {folder.name} comes with genedml. It was trained on five breast cancer sections of one "
            f"patient: to try things out, not to conclude from. Its card: {folder / 'README.md'}"
        )
    elif [card.fold for card in models.cards] == [ALL_SECTIONS] and len(model_files_in(folder)) > 1:
        console.note(f"Model: {models.files[0]}, trained on all sections; --fold all gives the mean of a run's folds.")
    left_out = genes_left_out(models.cards)
    if left_out:
        console.note(str(left_out))


def _check_alike(cards: Sequence[ModelCard], files: Sequence[Path]) -> None:
    """Refuse models that cannot be averaged or stand in one table.

    Raises:
        GeneDMLError: they differ in method, views, labels or encoder.
    """
    for card, file in zip(cards, files, strict=True):
        for part in ("method", "views", "labels", "encoder"):
            if getattr(card.config, part) != getattr(cards[0].config, part):
                raise GeneDMLError(f"{file} was trained with another setting of {part} than {files[0]}; use one alone.")
        if card.encoder != cards[0].encoder:
            raise GeneDMLError(f"{file} was trained on other weights of {card.encoder.name} than {files[0]}; use one.")


def _check_encoder(encoder: Encoder, card: ModelCard, file: Path) -> None:
    """Refuse an encoder whose features a model was not trained on.

    Raises:
        GeneDMLError: another encoder, or other weights.
    """
    if encoder_record(encoder) != card.encoder:
        raise GeneDMLError(
            f"{file} was trained on features of {card.encoder.name} with weights {card.encoder.weights_sha256[:12]}; "
            f"here they are {encoder.info.name} with weights {encoder.weights_sha256[:12]}. Give the same weights with "
            "--weights FILE, or train again."
        )
