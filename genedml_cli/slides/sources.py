"""What every kind of slide gives: regions of its levels, and which part of its canvas was scanned."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from genedml.errors import GeneDMLError, reason_of
from genedml_cli.slides.slide_files import Watched

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class ScannedArea:
    """The part of a slide's canvas that a scanner scanned, in level-0 pixels; QuPath shows it as the whole image."""

    x: int
    y: int
    width: int
    height: int


class Source(ABC):
    """Pixels of a pyramid; level 0 is the finest."""

    scanned: ScannedArea | None = None
    downsamples: tuple[float, ...]
    sizes_px: tuple[Size, ...]

    @property
    def scanned_size_px(self) -> Size:
        """Width and height of what was scanned of level 0."""
        return self.sizes_px[0] if self.scanned is None else (self.scanned.width, self.scanned.height)

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        """An RGB region in pixels of ``level``, inside the level."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


class Levels(Source):
    """Levels of a file, of which some may be passed over.

    Args:
        path: the file.
        file: the same, watched since before it was opened.
        sizes_px: of all levels that the file has.
        downsamples: level-0 pixels of a pixel of each.

    Attributes:
        um_per_px: of level 0; None where the file does not say.
    """

    um_per_px: float | None = None

    def __init__(self, path: Path, file: Watched, sizes_px: Sequence[Size], downsamples: Sequence[float]) -> None:
        self.path = path
        self._file = file
        self._all = tuple(zip(sizes_px, downsamples, strict=True))
        self.use_levels(range(len(self._all)))

    def use_levels(self, numbers: Sequence[int]) -> None:
        """Take these of the file's levels for those of the slide."""
        self.numbers = tuple(numbers)
        self.sizes_px = tuple(self._all[number][0] for number in numbers)
        self.downsamples = tuple(self._all[number][1] for number in numbers)

    def damaged(self, level: int, x: int, y: int, error: Exception) -> GeneDMLError:
        """What to raise where pixels cannot be read.

        Raises:
            GeneDMLError: instead, that the file is another by now.
        """
        self._file.check()
        x, y = round(x * self.downsamples[level]), round(y * self.downsamples[level])
        return GeneDMLError(f"{self.path} is damaged at x {x}, y {y}: {reason_of(error)}. Fetch the file again.")

    @abstractmethod
    def tiles_px(self) -> Sequence[Size]:
        """Width and height of the tiles of every level, 0 where it has none."""

    @abstractmethod
    def said_um_per_px(self) -> Sequence[float]:
        """Micrometres of a level-0 pixel across and down as the file says, plausible or not; empty where it does not.

        Raises:
            GeneDMLError: its pixels are not the colours of a stain.
        """
