"""What a feature file is made from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from safetensors import safe_open

from genedml.checkpoint import EncoderRecord
from genedml.config import ViewsConfig
from genedml.errors import GeneDMLError, reading
from genedml.schema import to_dict
from genedml_cli import console
from genedml_cli.features.section_features import FORMAT_VERSION, METADATA_KEY, SectionFeatures, load_features
from genedml_cli.files.locks import exclusive
from genedml_cli.spots.spots import Spots

WORDS = {"slide": "slide content", "um_per_px": "um/px", "weights": "weights of the encoder", "flips": "orientations"}
"""What the parts of a recipe are called, where it is not by their names."""


@dataclass(frozen=True)
class Recipe:
    """All that the features of a section depend on: they are used again only where none of its parts differs.

    ``um_per_px`` is none of them where views are in level-0 pixels.
    """

    slide_sha256: str
    um_per_px: float | None
    spots: Spots
    encoder: EncoderRecord
    views: ViewsConfig
    flips: bool

    @property
    def parts(self) -> dict[str, Any]:
        """Each part by the name under which a difference of it is told."""
        spots = self.spots
        array_xy = None if spots.array_xy is None else spots.array_xy.tolist()
        listed = json.dumps([spots.names, spots.xy_px.tolist(), array_xy])
        views = to_dict(self.views)
        if self.views.precision == "float16":  # as all were before there was a choice
            del views["precision"]
        return {
            "slide": self.slide_sha256,
            "um_per_px": None if self.views.um_per_px == "native" else self.um_per_px,
            "spots": hashlib.sha256(listed.encode()).hexdigest(),
            "encoder": self.encoder.name,
            "weights": self.encoder.weights_sha256,
            "views": views,
            "flips": self.flips,
        }

    def load_or_make(self, folder: Path, name: str, encode: Callable[[Path], SectionFeatures]) -> SectionFeatures:
        """The features of section ``name`` from their file in ``folder``, which ``encode`` makes if it is not there.

        Where one orientation is asked, a file of all eight does: of it the first is taken. Says what differs where
        there are features of that section, but others.
        """
        file, turned = self._file(folder, name), replace(self, flips=True)._file(folder, name)
        if file.exists():
            return self._opened(file)
        if turned.exists():
            return self._opened(turned).upright
        with exclusive(file):
            if file.exists():  # by now: another process was at it
                return self._opened(file)
            _say_what_differs(folder, name, self.parts)
            return encode(file)

    def _file(self, folder: Path, name: str) -> Path:
        key = hashlib.sha256(json.dumps([FORMAT_VERSION, self.parts], sort_keys=True).encode()).hexdigest()
        return folder / f"{name}.{self.encoder.name.replace(':', '-')}.{key[:12]}.safetensors"

    def _opened(self, file: Path) -> SectionFeatures:
        return replace(load_features(file), um_per_px=self.um_per_px)


def _say_what_differs(folder: Path, name: str, parts: Mapping[str, Any]) -> None:
    """In how far the features of a section that are there are others, by those that differ least."""
    found: list[list[str]] = []
    for file in sorted(folder.glob(f"{escape(name)}.*.safetensors")):
        with suppress(GeneDMLError), reading(f"The feature file {file}", ""), safe_open(file, "pt") as stored:
            made_of = json.loads(stored.metadata()[METADATA_KEY])["made_of"]
            found.append([WORDS.get(part, part) for part in parts if made_of.get(part) != parts[part]])
    if found:
        least = min(found, key=len)
        differ = ", ".join(least)
        console.note(f"{name}: the features in {folder} are of other {differ or 'format'}; making new ones.")
