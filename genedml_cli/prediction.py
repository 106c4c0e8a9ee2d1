"""Slide + spots + trained model -> predictions. Letters: S spots, M genes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from jaxtyping import Float

from genedml.checkpoint import PRETRAINED, ModelCard, load_card, load_checkpoint
from genedml.encoders import Encoder
from genedml.errors import GeneDMLError
from genedml.network import GeneDML
from genedml_cli import console
from genedml_cli.devices import prepare_encoder
from genedml_cli.features import SectionFeatures, encode_section, encoder_record, gather_views
from genedml_cli.novelty import load_novelty
from genedml_cli.references import reference_file
from genedml_cli.results import add_tissue_image, to_anndata
from genedml_cli.ridge import load_ridge
from genedml_cli.spots import open_section, read_spots
from genedml_cli.storage import arriving, maker, sha256_of
from genedml_cli.worth import add_novelty, gene_columns, keep_worthy

BATCH_SPOTS = 256


@dataclass(frozen=True)
class Models:
    """Trained folds that predict together, and the encoder whose features they all take."""

    files: Sequence[Path]
    cards: Sequence[ModelCard]
    encoder: Encoder
    device: torch.device

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes that every fold predicts."""
        return common_genes(self.cards)

    def predict(
        self, number: int, features: SectionFeatures, batch_spots: int = BATCH_SPOTS
    ) -> Float[np.ndarray, "S M"]:
        """Labels of :attr:`genes` as fold ``number`` predicts them."""
        _, network = load_checkpoint(self.files[number], self.device)
        return predict_section(network, features, self.device, batch_spots)[:, self._columns(number)]

    def of_common_genes(self, each: Sequence[Float[np.ndarray, "S _"]]) -> list[Float[np.ndarray, "S M"]]:
        """Of one table a fold, with its own genes as columns, the columns of :attr:`genes`."""
        return [table[:, self._columns(number)] for number, table in enumerate(each)]

    def _columns(self, number: int) -> list[int]:
        column = {gene: place for place, gene in enumerate(self.cards[number].genes)}
        return [column[gene] for gene in self.genes]


def load_models(files: Sequence[Path], weights: Path | None = None, device: str = "auto") -> Models:
    """The folds in ``files`` with their encoder.

    Raises:
        GeneDMLError: folds that differ in what they take or give, or were trained on features of another encoder.
    """
    cards = [load_card(file) for file in files]
    _check_alike(cards, files)
    encoder = prepare_encoder(cards[0].config.encoder, weights, device)
    _check_encoder(encoder, cards[0], files[0])
    return Models(files, cards, encoder, encoder.device)


def predict(
    slide: Path,
    spots: Path,
    model: Path | None = None,
    out: Path | None = None,
    *,
    fold: str | None = None,
    min_cv_pcc: float | None = None,
    um_per_px: float | None = None,
    pitch_um: float | None = None,
    weights: Path | None = None,
    device: str = "auto",
    batch_spots: int = BATCH_SPOTS,
) -> anndata.AnnData:
    """Predict the expression of every spot of a slide.

    Args:
        slide: anything OpenSlide opens, or a plain section image.
        spots: a spot table (see :func:`genedml_cli.spots.read_spots`).
        model: one fold's ``.safetensors``, or a run folder: then the mean of its folds, with their standard deviation
            as ``layers["std"]``. Where it is None, ``GENEDML_MODEL``, else the model that comes with genedml.
        out: where to write the ``.h5ad``.
        fold: only this fold of a run folder.
        min_cv_pcc: keep only genes whose cross-validated PCC is at least this.
        um_per_px: of level 0, where the slide does not say; a model of native views needs none.
        pitch_um: distance of neighbouring spots, from which um/px follows where nobody says it.
        weights: the encoder's weights file, instead of the hub.
        device: auto, cpu, cuda or mps.

    Returns:
        As :func:`genedml_cli.results.to_anndata`. ``uns["genedml"]["seen_in_training"]`` counts the models that were
        trained on this very slide.

    Raises:
        GeneDMLError: whatever the user can mend; nothing is written then.
    """
    if out is not None and out.suffix != ".h5ad":
        raise GeneDMLError(f"{out} must end with .h5ad.")
    models = load_models(model_files(model or default_model(), fold), weights, device)
    table, views = read_spots(spots), models.cards[0].config.views
    with open_section(slide, table, um_per_px, pitch_um, scale_needed=views.um_per_px != "native") as opened:
        features = encode_section(opened, table, models.encoder, views)
        each = [models.predict(number, features, batch_spots) for number in range(len(models.files))]
        made_by = {
            **_made_by(models, features.slide_sha256),
            "slide": slide.name,
            "slide_sha256": features.slide_sha256,
            **({"um_per_px": opened.um_per_px} if opened.knows_scale else {}),
            "views_um_per_px": views.um_per_px,
            "spots": spots.name,
        }
        layers = {"std": np.std(each, axis=0, ddof=1)} if len(each) > 1 else None
        labels = models.cards[0].config.labels
        data = to_anndata(np.mean(each, axis=0), models.genes, table, labels, made_by, layers)
        add_tissue_image(data, opened, table)
    _add_references(data, models, features)
    _add_worth(data, models, features)
    _say_genes_left_out(models)
    if min_cv_pcc is not None:
        data = keep_worthy(data, min_cv_pcc)
    if out is not None:
        write_h5ad(data, out)
    return data


@torch.inference_mode()
def predict_section(
    network: GeneDML, features: SectionFeatures, device: torch.device | str, batch_spots: int = BATCH_SPOTS
) -> Float[np.ndarray, "S M"]:
    """Predicted labels of every spot of a section; the global transformer runs once, whatever the batch size.

    In single precision on every device: a label of 2 in bfloat16 would come in steps of 1/64.
    """
    network.eval()
    section = features.section(device)
    predicted = []
    context = network.see_sections([section])
    for row in torch.arange(len(features.spots)).split(batch_spots):
        views = gather_views([features], [section], torch.zeros_like(row), row)
        predicted.append(network(views, context).cpu())
    labels = torch.cat(predicted)
    if not labels.isfinite().all():
        raise GeneDMLError(
            "The model predicts NaN or infinite numbers. Its weights, the encoder's or the features are damaged: fetch "
            "or make them again."
        )
    return labels.numpy()


def default_model() -> Path:
    """``GENEDML_MODEL``, else the model that comes with genedml."""
    named = os.environ.get("GENEDML_MODEL")
    if named:
        console.note(f"Model: {named} (GENEDML_MODEL).")
        return Path(named)
    console.warn(
        "No --model: predicting with the one that comes with genedml, trained on five breast cancer sections of one "
        f"patient; to try things out, not to conclude from. Its card: {PRETRAINED / 'README.md'}"
    )
    return PRETRAINED


def model_files(model: Path, fold: str | None = None) -> list[Path]:
    """The checkpoints that ``model`` stands for: one file, or the folds of a run folder.

    Raises:
        GeneDMLError: nothing there, or no such fold.
    """
    if model.is_file():
        if fold is not None:
            raise GeneDMLError(f"{model} is one fold already; leave out --fold or give the run folder.")
        return [model]
    files = {file.stem.removeprefix("fold-"): file for file in sorted(model.glob("fold-*.safetensors"))}
    if not files:
        raise GeneDMLError(f"{model} holds no trained fold. Give a run folder or a .safetensors file of genedml train.")
    if fold is None:
        return list(files.values())
    if fold not in files:
        raise GeneDMLError(f"{model} has no fold {fold}. It has: {', '.join(files)}.")
    return [files[fold]]


def common_genes(cards: Sequence[ModelCard]) -> tuple[str, ...]:
    """The genes that every model predicts, in the order of the first.

    Raises:
        GeneDMLError: there are none.
    """
    genes = tuple(gene for gene in cards[0].genes if all(gene in set(card.genes) for card in cards[1:]))
    if not genes:
        raise GeneDMLError("The folds of this run have no gene in common; predict with one of them: --fold.")
    return genes


def _add_references(data: anndata.AnnData, models: Models, features: SectionFeatures) -> None:
    """What the folds' references say, averaged as their predictions are, so that ``evaluate`` can score them too."""
    slopes, intercepts = zip(*(card.depth_line for card in models.cards), strict=True)
    means = [card.mean_label for card in models.cards]
    columns = {"training_mean": means, "depth_slope": slopes, "depth_intercept": intercepts}
    kept = _beside_all(models, "ridge")
    if kept:
        ridges = [load_ridge(file, card.genes) for file, card in zip(kept, models.cards, strict=True)]
        predicted = [ridge.predict(features) for ridge in ridges]
        data.layers["ridge"] = np.mean(models.of_common_genes(predicted), axis=0).astype(np.float32)
        columns["ridge_held_out_pcc"] = [ridge.inner_pcc for ridge in ridges]
    if all(card.scores["held_out_pcc"] for card in models.cards):
        columns["held_out_pcc"] = [card.scores["held_out_pcc"] for card in models.cards]
    for name, each in columns.items():
        data.var[name] = np.mean(models.of_common_genes([np.asarray(one)[None] for one in each]), axis=0)[0]


def _add_worth(data: anndata.AnnData, models: Models, features: SectionFeatures) -> None:
    """What every gene was worth in cross-validation, and how far every spot is from the training."""
    for name, column in gene_columns(models.cards, models.genes).items():
        data.var[name] = column
    kept = _beside_all(models, "novelty")
    if kept:
        add_novelty(data, [load_novelty(file) for file in kept], features)


def _beside_all(models: Models, kind: str) -> list[Path]:
    """The references of one kind; none if a fold has none, as the mean over some of the folds is another mean."""
    files = [reference_file(file, kind) for file in models.files]
    return files if all(file.is_file() for file in files) else []


def _say_genes_left_out(models: Models) -> None:
    shared, most = len(models.genes), max(len(card.genes) for card in models.cards)
    if shared < most:
        console.note(f"{shared} genes are in the panels of all folds (each has {most}); --fold N gives all of one.")


def write_h5ad(data: anndata.AnnData, path: Path) -> None:
    """Write an ``.h5ad`` whole, compressed.

    Raises:
        GeneDMLError: the folder cannot be written or the disk is full.
    """
    with arriving(path) as temporary:
        data.write_h5ad(temporary, compression="gzip")


def _made_by(models: Models, slide_sha256: str) -> dict[str, Any]:
    """What a prediction remembers of the command and of its models; warns where they know the slide."""
    cards = models.cards
    notes = [note for card in cards for note in card.notes]
    seen = sum(slide_sha256 in card.training_slides.values() for card in cards)
    if seen:
        notes.append(f"SEEN: {seen} of {len(cards)} models were trained on this very slide; scores flatter.")
        other = " Use --fold to pick one that was not." if seen < len(cards) else ""
        console.warn(f"{seen} of {len(cards)} models were trained on this very slide, so scores on it flatter.{other}")
    return {
        **maker(),
        "encoder": cards[0].encoder.name,
        "encoder_weights_sha256": cards[0].encoder.weights_sha256,
        "models": [f"{file.name} {sha256_of(file)}" for file in models.files],
        "panels": [" ".join(card.genes) for card in cards],
        "notes": list(dict.fromkeys(notes)),
        "seen_in_training": seen,
    }


def _check_alike(cards: Sequence[ModelCard], files: Sequence[Path]) -> None:
    """Refuse models that cannot be averaged or stand in one table.

    Raises:
        GeneDMLError: they differ in views, labels or encoder.
    """
    for card, file in zip(cards, files, strict=True):
        for part in ("views", "labels", "encoder"):
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
