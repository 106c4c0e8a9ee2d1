"""What every kind of slide gives: regions of its levels, and which part of its canvas was scanned."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from PIL import Image


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
    sizes_px: tuple[tuple[int, int], ...]

    @property
    def scanned_size_px(self) -> tuple[int, int]:
        """Width and height of what was scanned of level 0."""
        return self.sizes_px[0] if self.scanned is None else (self.scanned.width, self.scanned.height)

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        """An RGB region in pixels of ``level``, inside the level."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""
