"""Every setting of a model and its training, read strictly from TOML. Free of torch.

Order of precedence: defaults < preset < file < ``--set key=value``. An unknown key is an error.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator
from pydantic.dataclasses import dataclass

from genedml.errors import GeneDMLError, did_you_mean, reason_of
from genedml.networks.registry import config_class
from genedml.schema import STRICT, Count, Fraction, Positive, from_dict, overlaid, read_toml, to_dict


def _um_per_px(value: Any) -> Any:
    if value == "native":
        return value
    if isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError("give a number above 0, or native")


Neighbors = Literal["exact", "lattice"]
UmPerPx = Annotated[float | Literal["native"], PlainValidator(_um_per_px)]


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How a fold is trained (METHOD section 5)."""

    epochs: Count = 200
    patience: Count = 20
    batch_size: Count = 256
    """Spots; networks that see or average whole sections take all labelled spots of ``sections_per_batch``."""
    learning_rate: Positive = 1e-4
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: Fraction = 0.0
    """Of ``sgd``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    lr_step_epochs: Count = 20
    lr_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    sections_per_batch: Annotated[int, Field(ge=0)] = 1
    """Sections that one batch draws its spots from; 0 shuffles all spots of all sections."""
    augment: bool = True
    """The eight flips and quarter-turns of the local tile."""
    select_on: Literal["validation", "test"] = "validation"
    """Where the checkpoint is chosen: on patients held out inside the training folds, or, as published, on test."""
    refit: bool = False
    """Train once more, on the held-out patients as well, for as many epochs as were chosen on them."""
    weight_average: Fraction = 0.0
    """Decay a step of an exponential moving average of the weights, which is what is chosen and kept; 0 for none."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 2021


@dataclass(frozen=True, config=STRICT)
class ViewsConfig:
    """What a spot sees (METHOD section 2): the local tile and the neighbor grid around its centre."""

    um_per_px: UmPerPx = 0.5
    """Of the views, whatever the slide's; or ``native``: level-0 pixels, what the published numbers used."""
    tile_px: Literal[224] = 224
    neighbor_grid: Annotated[int, Field(ge=1, le=15)] = 5
    neighbors: Neighbors = "lattice"
    """Where neighbor tiles stand: around each spot's own centre, or on one lattice over the slide, shared by spots."""
    local_grid: Annotated[int, Field(ge=0)] = 0
    """Side of the grid that the local tile's patch tokens are averaged to; 0 keeps all of them, as the paper does."""
    precision: Literal["float16", "float32"] = "float16"
    """In which features are kept, and encoded on CUDA; ``float32`` for an encoder whose features overflow half."""

    @model_validator(mode="after")
    def _centred(self) -> "ViewsConfig":
        if self.neighbor_grid % 2 == 0:
            raise ValueError(
                f"neighbor_grid must be odd, so that its centre is the spot's tile; it is {self.neighbor_grid}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class LabelsConfig:
    """Raw counts to labels (METHOD section 1); results are comparable only within one such transform."""

    panel_size: Count = 250
    transform: Literal["log", "pearson"] = "log"
    """The logarithm of a gene's share of the spot's counts, or Pearson residuals (METHOD section 9)."""
    scale: Positive = 10_000.0
    """Of ``log``, as is ``log_base``."""
    library: Literal["panel", "all"] = "panel"
    """Which genes a spot's total is over; ``all`` for ``pearson``."""
    log_base: Literal["10", "e"] = "10"
    smooth: bool = True
    """Mean over the spot and its array neighbours (3x3 block; on a hexagonal array the 6 around)."""

    @model_validator(mode="after")
    def _of_one_transform(self) -> "LabelsConfig":
        if self.transform == "pearson" and (self.library, self.scale, self.log_base) != ("all", 10_000.0, "10"):
            raise ValueError(
                "Pearson residuals take the totals of all genes (labels.library=all), and neither labels.scale nor "
                "labels.log_base; --target pearson sets them so"
            )
        return self

    @property
    def unit(self) -> str:
        """A few letters for a colour bar: CP10k are counts per 10,000 of the library."""
        if self.transform == "pearson":
            return "Pearson residual"
        per = f"{self.scale / 1000:g}k" if self.scale >= 1000 else f"{self.scale:g}"
        return f"{'log10' if self.log_base == '10' else 'ln'}(1 + CP{per})"

    def describe(self) -> str:
        """One line for tables and files."""
        log = "log10" if self.log_base == "10" else "ln"
        mean = ", mean over array neighbours" if self.smooth else ""
        genes = "the panel" if self.library == "panel" else "all genes"
        if self.transform == "pearson":
            return f"Pearson residual of the count, given the spot's total over {genes}{mean}"
        return f"{log}(1 + {self.scale:g} * count / sum over {genes}){mean}"


TARGETS: Mapping[str, LabelsConfig] = {
    "paper": LabelsConfig(),
    "paper-unsmoothed": LabelsConfig(smooth=False),
    "paper-ln": LabelsConfig(log_base="e"),
    "paper-all-genes": LabelsConfig(library="all"),
    "log1p-10k": LabelsConfig(library="all", log_base="e", smooth=False),
    "pearson": LabelsConfig(transform="pearson", library="all"),
    "pearson-unsmoothed": LabelsConfig(transform="pearson", library="all", smooth=False),
}
"""Label transforms by name: the paper's, each of its choices taken back alone, what scanpy users know, and residuals in
which a spot's depth is accounted for."""


def target_name(labels: LabelsConfig) -> str | None:
    """The name in :data:`TARGETS` of a transform, whatever the size of its panel; None if it has none."""
    same = (name for name, target in TARGETS.items() if replace(target, panel_size=labels.panel_size) == labels)
    return next(same, None)


@dataclass(frozen=True, config=STRICT)
class Config:
    """All of it."""

    method: str = "gene-dml"
    """The network: a row of :data:`genedml.networks.registry.NETWORKS`, or one of another package."""
    encoder: str = "uni"
    """A row of :data:`genedml.encoders.table.ENCODERS`, or a timm model as ``timm:NAME``, or several with ``+``."""
    network: Any = None
    """What ``method`` can be set to, in a configuration class of its own; None for its defaults."""
    training: TrainingConfig = TrainingConfig()
    views: ViewsConfig = ViewsConfig()
    labels: LabelsConfig = LabelsConfig()

    def __post_init__(self) -> None:
        kind = config_class(self.method)
        if not isinstance(self.network, kind):
            object.__setattr__(
                self, "network", from_dict(kind, {} if self.network is None else self.network, "network.")
            )


DEFAULT_METHOD = Config.method


def preset_names(method: str = DEFAULT_METHOD) -> list[str]:
    """Names of the presets that come with the package for a method."""
    folder = _presets(method)
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_config(preset: str | None = None, file: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Merge preset, TOML file and ``key=value`` overrides, in this order, and check the result.

    Raises:
        GeneDMLError: unknown preset, unreadable TOML, an unknown key (the known ones are listed) or a bad value.
    """
    given = {} if file is None else read_toml(file)
    for override in overrides:
        given = overlaid(given, _parse_override(override))
    method = given.get("method", DEFAULT_METHOD)
    merged = to_dict(Config(method))
    if preset is not None:
        names = preset_names(method)
        if preset not in names:
            there = f"{did_you_mean(preset, names)} There are: {', '.join(names) or 'none'}."
            raise GeneDMLError(f"No preset of {method} is called {preset!r}.{there}")
        merged = overlaid(merged, tomllib.loads((_presets(method) / f"{preset}.toml").read_text(encoding="utf-8")))
    merged = overlaid(merged, given)
    try:
        return from_dict(Config, merged)
    except GeneDMLError as error:
        if file is not None:
            error.add_note(f"Among the settings are those of {file}.")
        raise


def preset_of(config: Config) -> str:
    """The preset whose settings of the network these are; nothing where there is none."""
    method = f"method={config.method}"
    found = (
        name for name in preset_names(config.method) if load_config(name, None, [method]).network == config.network
    )
    return next(found, "")


def _presets(method: str) -> Any:
    return resources.files("genedml") / "presets" / method


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise GeneDMLError(f"--set takes key=value, such as training.epochs=50; it got {text!r}.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    except (ValueError, RecursionError) as error:
        raise GeneDMLError(f"--set {key.strip()} cannot be read: {reason_of(error)}. Give key=value.") from error
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed
