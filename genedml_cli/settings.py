"""From options to samples and configuration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from genedml.config import TARGETS, Config, load_config
from genedml.errors import GeneDMLError
from genedml_cli.datasets import DATASET_SECTIONS, dataset
from genedml_cli.samples import Sample, read_sheet

DEFAULT_PRESET = "HER2ST"
WEIGHTLESS = "stain-texture"


def choose_samples(
    name: str | None,
    sheet: Path | None,
    root: Path | None,
    allow_partial: bool,
    um_per_px: float | None = None,
    pitch_um: float | None = None,
) -> tuple[list[Sample], str]:
    """The sections of a data set or a sheet, and what must be said if some are missing.

    ``um_per_px`` and ``pitch_um`` are for the sections of a sheet that do not say their own.

    Raises:
        GeneDMLError: neither or both are given; what :mod:`genedml_cli.samples` raises.
    """
    if (name is None) == (sheet is None):
        raise GeneDMLError("Give either --dataset NAME or --samples SHEET.csv.")
    if sheet is not None:
        listed = read_sheet(sheet, root)
        return [replace(one, um_per_px=one.um_per_px or um_per_px, pitch_um=pitch_um) for one in listed], ""
    samples = dataset(str(name), root or Path(), allow_partial)
    total = DATASET_SECTIONS[str(name)]
    return samples, f"PARTIAL: {len(samples)} of the {total} sections of {name}." if len(samples) < total else ""


def choose_config(
    dataset_name: str | None,
    encoder: str | None,
    preset: str | None,
    file: Path | None,
    overrides: Sequence[str],
    seed: int | None,
    *,
    target: str | None = None,
    select_on: str | None = None,
    native: bool = False,
) -> Config:
    """Defaults < preset < file < ``--set`` < options.

    ``target`` names a row of :data:`genedml.config.TARGETS`; the size of the panel stays. ``native`` is for views in
    level-0 pixels.

    Without ``preset``: ``small`` for the encoder stain-texture, else the data set's, else HER2ST; none over a file.
    """
    if preset is None and file is None:
        preset = "small" if encoder == WEIGHTLESS else dataset_name or DEFAULT_PRESET
    own = [f"encoder={encoder}"] if encoder else []
    own += [f"training.seed={seed}"] if seed is not None else []
    own += [f"training.select_on={select_on}"] if select_on else []
    own += ["views.um_per_px=native"] if native else []
    config = load_config(preset, file, [*overrides, *own])
    if target is None:
        return config
    return replace(config, labels=replace(TARGETS[target], panel_size=config.labels.panel_size))


def read_um_per_px(text: str | None) -> tuple[float | None, bool]:
    """What ``--um-per-px`` says: um/px of level 0 if it is a number, and whether it asks for native views."""
    native = text == "native"
    return (None if text is None or native else float(text)), native


def choose_panel(panel: str | None, dataset_name: str | None) -> str:
    """The data set's published panel, or one derived from the training sections."""
    return panel or dataset_name or "training"
