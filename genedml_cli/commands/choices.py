"""From options to samples and configuration."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from genedml.config import DEFAULT_METHOD, TARGETS, Config, load_config, preset_names
from genedml.errors import GeneDMLError
from genedml.networks.registry import network_info, network_names
from genedml_cli.datasets.datasets import DATASETS, dataset, find_dataset, partial_note
from genedml_cli.datasets.samples import Sample, read_sheet

DEFAULT_PRESET, FEATURES = "HER2ST", "features"
WEIGHTLESS = "stain-texture"
NATIVE = "native"


def choose_samples(
    names: Sequence[str] | None,
    sheet: Path | None,
    root: Path | None,
    allow_partial: bool,
    um_per_px: float | None = None,
    pitch_um: float | None = None,
) -> tuple[list[Sample], str]:
    """The sections of some data sets below one root, or of a sheet, and what must be said if some are missing.

    ``um_per_px`` and ``pitch_um`` are for the sections of a sheet that do not say their own.

    Raises:
        GeneDMLError: neither or both are given; what :mod:`genedml_cli.datasets.samples` and
            :mod:`genedml_cli.datasets.datasets` raise.
    """
    if bool(names) == (sheet is not None):
        raise GeneDMLError("Give either --dataset NAME or --samples SHEET.csv.")
    if names and (um_per_px is not None or pitch_um is not None):
        raise GeneDMLError("A named data set has its own um/px and pitch: leave out --um-per-px NUMBER and --pitch-um.")
    if sheet is not None and allow_partial:
        raise GeneDMLError("--allow-partial goes with --dataset: a sheet names the sections that are meant.")
    if sheet is not None:
        listed = read_sheet(sheet, root)
        return [replace(one, um_per_px=one.um_per_px or um_per_px, pitch_um=pitch_um) for one in listed], ""
    found = {name: dataset(name, root or Path(), allow_partial) for name in names or ()}
    partial = [partial_note(find_dataset(name), samples) for name, samples in found.items()]
    notes = [str(note) for note in partial if note is not None]
    samples = [sample for samples in found.values() for sample in samples]
    if notes and len({sample.fold for sample in samples}) == 1:
        samples, note = part_fold(samples)
        notes.append(note)
    return samples, " ".join(notes)


def part_fold(samples: Sequence[Sample]) -> tuple[list[Sample], str]:
    """Sections of a single published fold parted by donor, or, of a single donor, by section; and what to say of it.

    Folds of one donor's sections leak, and every result of them says so.
    """
    several = len({sample.donor for sample in samples}) > 1
    parted = [replace(sample, fold=sample.donor if several else sample.name) for sample in samples]
    kind = "donor" if several else "section"
    return parted, f"All are of the published fold {samples[0].fold}, so each {kind} is a fold here."


def only_dataset(names: Sequence[str] | None) -> str | None:
    """The data set whose preset and panel are meant: none where several are joined."""
    return names[0] if names and len(set(names)) == 1 else None


def choose_config(
    dataset_name: str | None,
    encoder: str | None,
    preset: str | None,
    file: Path | None,
    overrides: Sequence[str] = (),
    target: str | None = None,
    method: str | None = None,
) -> Config:
    """Defaults < preset < file < ``overrides`` < method, encoder and target.

    Without ``preset``, that of :func:`default_preset`; none over a file. ``target`` names a row of
    :data:`genedml.config.TARGETS`; the size of the panel stays.
    """
    if preset is None and file is None:
        preset = default_preset(method or DEFAULT_METHOD, dataset_name, encoder)
    named = {"method": method, "encoder": encoder}
    config = load_config(preset, file, [*overrides, *(f"{key}={name}" for key, name in named.items() if name)])
    if target is None:
        return config
    return replace(config, labels=replace(TARGETS[target], panel_size=config.labels.panel_size))


def default_preset(method: str, dataset_name: str | None, encoder: str | None) -> str | None:
    """Of Gene-DML ``small`` for the encoder stain-texture, else the data set's, else HER2ST; of others ``features``."""
    if method != DEFAULT_METHOD:
        return FEATURES if FEATURES in preset_names(method) else None
    if encoder == WEIGHTLESS:
        return "small"
    return dataset_name if dataset_name in preset_names() else DEFAULT_PRESET


def choose_methods(names: str) -> list[str]:
    """Names with commas between them, each with a preset behind a colon or without; ``all`` for every network.

    Raises:
        GeneDMLError: there is no network of a name.
    """
    if names == "all":
        return network_names()
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in chosen:
        network_info(name.partition(":")[0])
    if not chosen:
        raise GeneDMLError(f"--methods names none. There are: {', '.join(network_names())}.")
    return chosen


def choose_backbone_weights(given: Iterable[str], configs: Iterable[Config]) -> dict[str, Path]:
    """Weights files by method, of ``METHOD=FILE``, or of ``FILE`` where one method starts from weights.

    Raises:
        GeneDMLError: there is no network of a name, a method is named twice, or a file without a name is not of one.
    """
    files: dict[str, Path] = {}
    for text in given:
        method, equals, file = text.partition("=")
        if equals and Path(method).name == method:  # else a file in a folder with = in its name
            network_info(method)
        else:
            method, file = _only_backbone(configs), text
        if method in files:
            raise GeneDMLError(f"--backbone-weights has two files for {method}. Give it one.")
        files[method] = Path(file)
    return files


def _only_backbone(configs: Iterable[Config]) -> str:
    from genedml_cli.runs.planning import backbone_of

    methods = list(dict.fromkeys(config.method for config in configs if backbone_of(config)))
    if len(methods) == 1:
        return methods[0]
    start = f"{', '.join(methods)} start from weights" if methods else "no method starts from weights"
    raise GeneDMLError(
        f"--backbone-weights FILE is for one method, but here {start}. Say whose it is, once a method, as METHOD=FILE; "
        "st-net, bleep and triplex take one with a published preset (st-net:published)."
    )


def to_overrides(
    set_: Sequence[str] | None,
    *,
    seed: int | None = None,
    select_on: str | None = None,
    um_per_px: str | None = None,
    neighbors: str | None = None,
) -> list[str]:
    """What options say, as ``key=value`` settings over those of ``--set``."""
    said = {
        "training.seed": seed,
        "training.select_on": select_on,
        "views.um_per_px": um_per_px if um_per_px == NATIVE else None,
        "views.neighbors": neighbors,
    }
    return [*(set_ or []), *(f"{key}={value}" for key, value in said.items() if value is not None)]


def known_scale(um_per_px: str | None) -> float | None:
    """um/px of level 0, where ``--um-per-px`` says it."""
    return None if um_per_px in (None, NATIVE) else float(str(um_per_px))


def choose_panel(panel: str | None, dataset_name: str | None) -> str:
    """The data set's published panel, or one derived from the training sections."""
    published = dataset_name in DATASETS and DATASETS[dataset_name].panel is not None
    return panel or (str(dataset_name) if published else "training")
