"""Slide + spots + trained model -> predictions. Letters: S spots, M genes."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np

from genedml.networks.registry import variant_of
from genedml_cli import __version__, console
from genedml_cli.features.extraction import encode_section, encode_section_to_file, goes_through_a_file
from genedml_cli.features.feature_file import features_beside
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.files.locks import claimed
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.provenance import command_line
from genedml_cli.files.storage import refuse_overwriting_inputs
from genedml_cli.machine.compute import AUTO, BATCH_SPOTS, Compute, all_deterministic
from genedml_cli.notes import Mark, Note
from genedml_cli.outputs.formats import check_free, check_output_path, write
from genedml_cli.outputs.prediction_record import PredictionRecord
from genedml_cli.outputs.predictions import add_tissue_image, add_z, to_anndata
from genedml_cli.outputs.reference_layers import held_out_column
from genedml_cli.outputs.run_folder import default_model, model_files, reference_file
from genedml_cli.outputs.selection import keep_worthy, worthy_genes
from genedml_cli.prediction.ensemble import Ensemble, genes_left_out, load_models, notes_for_others, say_which
from genedml_cli.prediction.intervals import add_interval, interval_note, interval_of_cards
from genedml_cli.prediction.worth import add_novelty, gene_columns
from genedml_cli.references.linear import load_linear, predict_linear
from genedml_cli.references.novelty import load_novelty
from genedml_cli.slides.slide import check_slide_path
from genedml_cli.spots.lattice import Lattice
from genedml_cli.spots.placing import Placing, Site, place_spots
from genedml_cli.spots.spot_files import spots_file


@takes_paths
def predict(
    slide: Path,
    spots: Path | None = None,
    model: Path | None = None,
    out: Path | None = None,
    *,
    fold: str | None = None,
    min_cv_pcc: float | None = None,
    interval: float | None = None,
    um_per_px: float | None = None,
    pitch_um: float | None = None,
    grid: Lattice = "hex",
    tissue: Path | None = None,
    allow_off_tissue: bool = False,
    skip_off_image: bool = False,
    section: int | None = None,
    weights: Path | None = None,
    compute: Compute = AUTO,
    batch_spots: int = BATCH_SPOTS,
    force: bool = False,
) -> anndata.AnnData:
    """Predict the expression of every spot of a slide.

    Args:
        slide: anything OpenSlide opens, or a plain section image.
        spots: a spot table; None for a grid over the tissue.
        model: one fold's ``.safetensors``, or a run folder: then its model of all sections, if it has one, else the
            mean of its folds, with their standard deviation as ``layers["std"]``; or ``pretrained``. Where it is None,
            ``GENEDML_MODEL``, else the model that comes with genedml.
        out: where to write it; its suffix is one of :data:`genedml_cli.outputs.formats.FORMATS`.
        fold: only this fold of a run folder; ``all`` for the mean of its folds, ``all-sections`` for that model.
        min_cv_pcc: keep only genes whose cross-validated PCC is at least this.
        interval: share of the labels that ``layers["lower"]`` and ``layers["upper"]`` are to hold between them, 0.5 to
            0.99; 0 for none. None is 0.9 where the model knows intervals: with a slide alone nothing else says how far
            off a value may be.
        um_per_px: of level 0, where the slide does not say; a model of native views needs none, a grid does.
        pitch_um, grid, tissue, allow_off_tissue, skip_off_image, section: as of
            :class:`genedml_cli.spots.placing.Placing`.
        weights: the encoder's weights file, instead of the hub.
        compute: where and how the arithmetic runs.
        force: write over a result that is there.

    Returns:
        As :func:`genedml_cli.outputs.predictions.to_anndata`. ``uns["genedml"]["seen_in_training"]`` counts the
        models that were trained on this very slide.

    Raises:
        GeneDMLError: whatever the user can fix; nothing is written then.
    """
    if out is not None:
        check_output_path(out)
        refuse_overwriting_inputs([out], [slide, spots, tissue])
    check_slide_path(slide)
    spots = None if spots is None else spots_file(spots)
    placing = Placing(um_per_px, pitch_um, grid, tissue, allow_off_tissue, skip_off_image, section)
    with nullcontext() if out is None else claimed(out), all_deterministic(compute.deterministic):
        if out is not None:
            check_free(out, force)
        models = load_models(model_files(model or default_model(), fold), weights, compute)
        say_which(models)
        if out is None:
            return predict_slide(models, slide, spots, placing, min_cv_pcc, batch_spots, interval=interval)
        with features_beside(out) as folder:
            data = predict_slide(models, slide, spots, placing, min_cv_pcc, batch_spots, folder, interval)
            write(data, out)
            return data


def predict_slide(
    models: Ensemble,
    slide: Path,
    spots: Path | None,
    placing: Placing,
    min_cv_pcc: float | None = None,
    batch_spots: int = BATCH_SPOTS,
    features_in: Path | None = None,
    interval: float | None = None,
) -> anndata.AnnData:
    """Predict one slide with models that are loaded already; result and errors as of :func:`predict`.

    With ``features_in``, a folder, its features go through a file there where memory is short or encoding takes hours;
    what a call that was killed left of it is gone on from.
    """
    views = models.cards[0].config.views
    if min_cv_pcc is not None:
        worthy_genes(gene_columns(models.cards, models.genes), min_cv_pcc)  # before hours of encoding
    ends = interval_of_cards(models.cards, models.genes, interval)
    with place_spots(slide, spots, placing, scale_needed=views.um_per_px != "native") as placed:
        models.check_scale(slide.name, placed.slide.um_per_px if placed.slide.knows_scale else None)
        encoder, tiles = models.encoder, models.needs.tiles
        if features_in is not None and goes_through_a_file(encoder, len(placed.spots), views, tiles):
            features = encode_section_to_file(
                placed.slide, placed.spots, encoder, views, features_in, slide.name, tiles=tiles
            )
        else:
            features = encode_section(placed.slide, placed.spots, encoder, views, tiles=tiles)
        scale = placed.slide.um_per_px if placed.slide.knows_scale else None
        features = replace(features, spots=models.averaged_as_trained(features.spots, scale))
        data = _to_anndata(models, placed, features, batch_spots)
        add_tissue_image(data, placed.slide, placed.spots)
    _add_references(data, models, features)
    _add_worth(data, models, features)
    if ends is not None:
        add_interval(data, ends, interval_note((card.calibration for card in models.cards), ends.level))
    return data if min_cv_pcc is None else keep_worthy(data, min_cv_pcc)


def _to_anndata(models: Ensemble, placed: Site, features: SectionFeatures, batch_spots: int) -> anndata.AnnData:
    """What the folds predict, their mean and spread, and all that a prediction remembers of how it was made."""
    each = [models.predict(number, features, batch_spots) for number in range(len(models.files))]
    layers = {"std": np.std(each, axis=0, ddof=1)} if len(each) > 1 else None
    mean, record = np.mean(each, axis=0), _record(models, placed, features)
    return to_anndata(mean, models.genes, placed.spots, record, layers, models.gene_ids)


def _add_references(data: anndata.AnnData, models: Ensemble, features: SectionFeatures) -> None:
    """What the folds' references say, averaged as their predictions are, so that ``evaluate`` can score them too."""
    slopes, intercepts = zip(*(card.depth_line for card in models.cards), strict=True)
    means = [card.mean_label for card in models.cards]
    columns = {"training_mean": means, "depth_slope": slopes, "depth_intercept": intercepts}
    beside = zip(models.files, models.cards, models.networks, strict=True)
    linear = [load_linear(file, card.genes, network) for file, card, network in beside]
    predicted = [predict_linear(of_fold, features) for of_fold in linear]
    for layer in linear[0]:
        if all(layer in of_fold for of_fold in linear):  # the mean over some of the folds is another mean
            each_fold = models.of_common_genes([layers[layer] for layers in predicted])
            data.layers[layer] = np.mean(each_fold, axis=0).astype(np.float32)
            columns[held_out_column(layer)] = [of_fold[layer].inner_pcc for of_fold in linear]
    if all(card.scores["held_out_pcc"] for card in models.cards):
        columns["held_out_pcc"] = [card.scores["held_out_pcc"] for card in models.cards]
    if all(card.scores.get("morans_i") for card in models.cards):
        columns["morans_i"] = [card.scores["morans_i"] for card in models.cards]
    for name, each in columns.items():
        data.var[name] = np.mean(models.of_common_genes([np.asarray(one)[None] for one in each]), axis=0)[0]
    if all(card.label_sd for card in models.cards):
        deviations = models.of_common_genes([np.asarray(card.label_sd)[None] for card in models.cards])
        add_z(data, data.var["training_mean"].to_numpy(), np.mean(deviations, axis=0)[0])


def _add_worth(data: anndata.AnnData, models: Ensemble, features: SectionFeatures) -> None:
    """What every gene was worth in cross-validation, and how far every spot is from the training."""
    for name, column in gene_columns(models.cards, models.genes).items():
        data.var[name] = column
    kept = _beside_all(models, "novelty")
    if kept:
        measures = [load_novelty(file, network) for file, network in zip(kept, models.networks, strict=True)]
        add_novelty(data, measures, features)


def _beside_all(models: Ensemble, kind: str) -> list[Path]:
    """The references of one kind; none if a fold has none, as the mean over some of the folds is another mean."""
    files = [reference_file(file, kind) for file in models.files]
    return files if all(file.is_file() for file in files) else []


def _record(models: Ensemble, placed: Site, features: SectionFeatures) -> PredictionRecord:
    """How the slide is predicted, and what must be said with it; warns where models were trained on the slide."""
    cards, slide, slide_sha256 = models.cards, placed.slide, features.slide_sha256
    panels = [" ".join(card.genes) for card in cards]
    notes = [*notes_for_others(cards), *filter(None, [genes_left_out(cards)])]
    unseen = [card.fold for card in cards if slide_sha256 not in card.training_slides.values()]
    seen = len(cards) - len(unseen)
    if seen:
        notes.append(Note(Mark.SEEN, f"{seen} of {len(cards)} models were trained on this very slide; scores flatter."))
        other = f" Not so: --fold {' or '.join(unseen)}." if unseen else ""
        console.warn(f"{seen} of {len(cards)} models were trained on this very slide, so scores on it flatter.{other}")
    size = models.size_note(placed.spots, slide.um_per_px if slide.knows_scale else None)
    if size is not None:
        console.warn(str(size))
    if features.spots.mean_within_px is not None:
        within_um = features.spots.mean_within_px * slide.um_per_px
        notes.append(
            Note(
                None,
                "The spots are closer together than those of the training: each value is a mean over the spots within "
                f"{within_um:.0f} um, as large an area as there.",
            )
        )
    return PredictionRecord(
        command=command_line(),
        genedml=__version__,
        slide=slide.path.name,
        slide_sha256=slide_sha256,
        spots=placed.source,
        encoder=cards[0].encoder.name,
        encoder_weights_sha256=cards[0].encoder.weights_sha256,
        method=cards[0].config.method,
        variant=variant_of(cards[0].config.method, cards[0].config.network),
        label_settings=cards[0].config.labels,
        notes=(*notes, *filter(None, [size]), *placed.notes),
        models=tuple(models.fingerprints),
        panels=tuple(panels if len(set(panels)) > 1 else panels[:1]),
        trained_on=tuple(models.trained_on),
        seen_in_training=seen,
        views_um_per_px=cards[0].config.views.um_per_px,
        um_per_px=slide.um_per_px if slide.knows_scale else None,
        um_per_px_from=slide.um_per_px_from if slide.knows_scale else "",
        tissue=placed.tissue.source,
        spots_on_tissue=placed.on_tissue,
        grid=placed.grid or "",
        grid_pitch_um=placed.grid_pitch_um,
        qupath_origin_xy_px=slide.origin_xy,
    )
