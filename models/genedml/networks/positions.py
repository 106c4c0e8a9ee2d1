"""What tells a section's spots apart by their places. Letters: S spots, N places, W width.

Places are counted from the section's first column and row, so that where the section lies on its array does not matter.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genedml.errors import GeneDMLError

Position = Literal["table", "sine", "none"]
LONGEST_PERIOD = 10_000
"""Of the sines, over 2 pi spots."""


class TablePositions(nn.Module):
    """A learned vector for each column and each row, of which a spot gets the sum (HisToGene).

    Args:
        size: columns, and rows, that it has a vector for.
        width: W.
    """

    trained: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for _ in range(2))
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)  # type: ignore[arg-type]
        self.register_buffer("trained", torch.zeros(2, size, dtype=torch.bool))

    def forward(self, grid_xy: Int[Tensor, "S 2"], row: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B W"]:
        """The vectors of the spots of a section, or of some rows of it; in training mode they are marked as trained.

        Raises:
            GeneDMLError: a spot stands beyond the tables, or where none stood in training.
        """
        places = _places(grid_xy, row)
        size = self.trained.shape[1]
        if places.max() >= size:
            name, place = _first_beyond(places, size)
            raise GeneDMLError(
                f"A spot stands in {name} {place + 1} of its section, but the position tables have {size}: set "
                f'network.positions = {place + 1} or more, or network.position = "sine", and train again.'
            )
        for axis, name in enumerate(("column", "row")):
            if self.training:
                self.trained[axis, places[:, axis]] = True
            missing = places[:, axis][~self.trained[axis, places[:, axis]]]
            if len(missing):
                raise GeneDMLError(
                    f"A spot stands in {name} {int(missing.min()) + 1} of its section, where no spot of the training "
                    'sections did, so its position was never learned: set network.position = "sine" and train again.'
                )
        return self.tables[0](places[:, 0]) + self.tables[1](places[:, 1])


class SinePositions(nn.Module):
    """Sines and cosines of column and row, half of the width each, with nothing to learn.

    Raises:
        GeneDMLError: the width cannot be divided by four.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 4:
            raise GeneDMLError(f"Sine positions need a width that 4 divides; network.width is {width}.")
        self.width = width

    def forward(self, grid_xy: Int[Tensor, "S 2"], row: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B W"]:
        places = _places(grid_xy, row).float()
        steps = torch.arange(self.width // 4, device=grid_xy.device) / (self.width // 4)
        angle = places[..., None] * LONGEST_PERIOD**-steps
        return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)


class NoPositions(nn.Module):
    """Zeros: spots are told apart by what is seen of them alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, grid_xy: Int[Tensor, "S 2"], row: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B W"]:
        """No vector for any of the spots of a section, or of some rows of it."""
        return torch.zeros(len(grid_xy) if row is None else len(row), self.width, device=grid_xy.device)


def make_positions(kind: Position, size: int, width: int) -> nn.Module:
    """The module that maps places [S 2] to vectors [S W]; ``size`` is of tables alone."""
    if kind == "table":
        return TablePositions(size, width)
    return SinePositions(width) if kind == "sine" else NoPositions(width)


def _places(grid_xy: Int[Tensor, "S 2"], row: Int[Tensor, " B"] | None) -> Int[Tensor, "B 2"]:
    """Column and row of spots, counted from the corner of their section."""
    places = grid_xy - grid_xy.min(dim=0).values
    return places if row is None else places[row]


def _first_beyond(places: Int[Tensor, "S 2"], size: int) -> tuple[str, int]:
    farthest = places.max(dim=0).values.tolist()
    axis = 0 if farthest[0] >= size else 1
    return ("column", "row")[axis], farthest[axis]
