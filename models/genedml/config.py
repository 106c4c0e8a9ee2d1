"""Every setting of a model and its training, read strictly from TOML. Free of torch.

Order of precedence: defaults < preset < file < ``--set key=value``. An unknown key is an error.
"""

import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from genedml.errors import GeneDMLError, reading, reason_of

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
TOML_LIMIT_BYTES = 2**20
MOST_NAMED = 5  # of the problems of one configuration
Count = Annotated[int, Field(ge=1, le=2**20)]
Depth = Annotated[int, Field(ge=1, le=100)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


def _um_per_px(value: Any) -> Any:
    if value == "native":
        return value
    if isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError("give a number above 0, or native")


Neighbors = Literal["exact", "lattice"]
UmPerPx = Annotated[float | Literal["native"], PlainValidator(_um_per_px)]


@dataclass(frozen=True, config=STRICT)
class TransformerConfig:
    """A stack of pre-norm self-attention blocks."""

    depth: Depth
    heads: Count
    mlp_width: Count
    dropout: Fraction


@dataclass(frozen=True, config=STRICT)
class NetworkConfig:
    """Widths and depths of Gene-DML; defaults are the paper's for HER2ST (METHOD section 3).

    The width of the neighbor and global transformers is the encoder's, so it is not set here.
    """

    shared_width: Count = 512
    neighbor_transformer: TransformerConfig = TransformerConfig(depth=4, heads=4, mlp_width=4096, dropout=0.3)
    global_transformer: TransformerConfig = TransformerConfig(depth=5, heads=8, mlp_width=4096, dropout=0.3)
    fusion_transformer: TransformerConfig = TransformerConfig(depth=1, heads=1, mlp_width=1024, dropout=0.1)
    ffn_width: Count = 1024
    ffn_dropout: Fraction = 0.1
    head_widths: Annotated[tuple[Count, ...], Field(max_length=16)] = (1536, 512)
    head_dropout: Fraction = 0.1
    gene_dropout: Fraction = 0.3


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights, temperatures and switches of the losses (METHOD section 4)."""

    instance: bool = True
    """Multi-scale instance-level alignment, eq. 3-4."""
    group: bool = True
    """Cross-level instance-group alignment, eq. 5."""
    temperature: Positive = 0.07
    group_temperature: Positive = 0.07
    group_weight: Annotated[float, Field(ge=0)] = 0.8
    """Lambda of eq. 7."""
    prediction_weight: Positive = 1.0
    """Weight of eq. 6 in eq. 7, which has none: the alignment terms are some hundred times as large as the error."""
    groups: Count = 18
    """k of the k-means."""
    kmeans_iterations: Count = 10
    detach_targets: bool = False


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How a fold is trained (METHOD section 5)."""

    epochs: Count = 200
    patience: Count = 20
    batch_size: Count = 256
    learning_rate: Positive = 1e-4
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
    scale: Positive = 10_000.0
    library: Literal["panel", "all"] = "panel"
    log_base: Literal["10", "e"] = "10"
    smooth: bool = True
    """Mean over the spot and its array neighbours (3x3 block; on a hexagonal array the 6 around)."""

    def describe(self) -> str:
        """One line for tables and files."""
        log = "log10" if self.log_base == "10" else "ln"
        mean = ", mean over array neighbours" if self.smooth else ""
        genes = "the panel" if self.library == "panel" else "all genes"
        return f"{log}(1 + {self.scale:g} * count / sum over {genes}){mean}"


TARGETS: Mapping[str, LabelsConfig] = {
    "paper": LabelsConfig(),
    "paper-unsmoothed": LabelsConfig(smooth=False),
    "paper-ln": LabelsConfig(log_base="e"),
    "paper-all-genes": LabelsConfig(library="all"),
    "log1p-10k": LabelsConfig(library="all", log_base="e", smooth=False),
}
"""Label transforms by name: the paper's, each of its choices taken back alone, and what scanpy users know."""


def target_name(labels: LabelsConfig) -> str | None:
    """The name in :data:`TARGETS` of a transform, whatever the size of its panel; None if it has none."""
    same = (name for name, target in TARGETS.items() if replace(target, panel_size=labels.panel_size) == labels)
    return next(same, None)


@dataclass(frozen=True, config=STRICT)
class Config:
    """All of it. ``encoder`` names a row of :data:`genedml.encoders.ENCODERS` or a timm model as ``timm:NAME``."""

    encoder: str = "uni"
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    views: ViewsConfig = ViewsConfig()
    labels: LabelsConfig = LabelsConfig()


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(file.name.removesuffix(".toml") for file in _presets().iterdir() if file.name.endswith(".toml"))


def load_config(preset: str | None = None, file: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Merge preset, TOML file and ``key=value`` overrides, in this order, and check the result.

    Raises:
        GeneDMLError: unknown preset, unreadable TOML, an unknown key (the known ones are listed) or a bad value.
    """
    merged = to_dict(Config())
    if preset is not None:
        if preset not in preset_names():
            raise GeneDMLError(f"No preset is called {preset!r}. There are: {', '.join(preset_names())}.")
        merged = _merge(merged, tomllib.loads((_presets() / f"{preset}.toml").read_text(encoding="utf-8")))
    if file is not None:
        merged = _merge(merged, _read_toml(file))
    for override in overrides:
        merged = _merge(merged, _parse_override(override))
    try:
        return from_dict(Config, merged)
    except GeneDMLError as error:
        if file is not None:
            error.add_note(f"Among the settings are those of {file}.")
        raise


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build one of the dataclasses above from plain values, refusing unknown keys and bad values.

    Raises:
        GeneDMLError: naming each key that is wrong and, for unknown ones, those that exist.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        problems = error.errors()
        more = [f"There are {len(problems) - MOST_NAMED} more."] if len(problems) > MOST_NAMED else []
        named = [_sentence(kind, problem) for problem in problems[:MOST_NAMED]]
        raise GeneDMLError("\n".join(named + more)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a configuration dataclass, fit for TOML and JSON."""
    return asdict(config)


def _presets() -> Any:
    return resources.files("genedml") / "presets"


def _read_toml(file: Path) -> dict[str, Any]:
    with reading(f"The configuration {file}", "Mend that place; config.toml of a run is an example.", "TOML"):
        if not file.is_file():
            raise ValueError("there is no such file")
        with file.open("rb") as stream:
            content = stream.read(TOML_LIMIT_BYTES + 1)
        if len(content) > TOML_LIMIT_BYTES:
            raise ValueError(f"it is larger than {TOML_LIMIT_BYTES} bytes")
        return tomllib.loads(content.decode("utf-8-sig"))


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


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _sentence(kind: type, problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "the configuration"
    if problem["type"] != "unexpected_keyword_argument":
        return f"{place} = {reprlib.repr(problem['input'])}: {problem['msg']}."
    owner = kind
    for part in problem["loc"][:-1]:
        owner = get_type_hints(owner)[part]
    known = [field.name for field in fields(owner)] if is_dataclass(owner) else []
    return f"Unknown key {place}.{_did_you_mean(place, kind)} Known here: {', '.join(known)}."


def _did_you_mean(place: str, kind: type) -> str:
    """The key of that name in another section, else the one spelt most alike."""
    every = _keys(kind)
    namesakes = [key for key in every if key.endswith(f".{place}")]
    meant = namesakes or get_close_matches(place, every, 1)
    return f" Did you mean {' or '.join(meant)}?" if meant else ""


def _keys(kind: type, above: str = "") -> list[str]:
    """Every key of a configuration dataclass, those of its sections too: ``training``, ``training.epochs`` ..."""
    hints = get_type_hints(kind)
    nested = [
        _keys(hints[field.name], f"{above}{field.name}.") for field in fields(kind) if is_dataclass(hints[field.name])
    ]
    return [f"{above}{field.name}" for field in fields(kind)] + [key for keys in nested for key in keys]
