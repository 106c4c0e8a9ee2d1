"""The blocks networks are built of.

Letters: N sequences, L tokens of a sequence, W width, S spots of a section, C occupied cells of its grid, O offsets,
M genes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from genedml.encoders.table import IMAGENET_MEAN, IMAGENET_STD
from genedml.errors import GeneDMLError
from genedml.schema import TransformerConfig

RECOMPUTED = 20_000_000
"""On a CPU, a block whose widest layer has more numbers is computed again for its gradients rather than kept: a third
more time, half the memory. With 256 spots, blocks of the paper's Gene-DML have 26 and 58 million."""


class Dropout(nn.Dropout):
    """PyTorch's, but on a CPU its random numbers come four at a time and cost a third of a training step less.

    The probability is met to 2^-16.
    """

    def forward(self, x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        keep = bits[: x.numel()].view_as(x) >= dropped - 2**15
        return x * keep.to(x.dtype).mul_(2**16 / (2**16 - dropped))


class Attention(nn.Module):
    """Multi-head self-attention whose inner width is the model's width.

    Args:
        width: W, of the tokens.
        heads: a divisor of the width.
        dropout: after the projection out, and on the scores where ``score_dropout``.
        qkv_bias: whether queries, keys and values have a bias.
        score_dropout: see ``dropout``.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, qkv_bias: bool = True, score_dropout: bool = True
    ) -> None:
        super().__init__()
        if width % heads:
            raise GeneDMLError(f"{heads} attention heads do not divide the width {width}; choose a divisor of {width}.")
        self.heads = heads
        self.dropout = dropout if score_dropout else 0.0
        self.to_qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.to_out = nn.Sequential(nn.Linear(width, width), Dropout(dropout))

    def forward(
        self,
        x: Float[Tensor, "N L W"],
        bias: Float[Tensor, "..."] | None = None,
        source: Float[Tensor, "N K W"] | None = None,
    ) -> Float[Tensor, "N L W"]:
        """Self-attention, or attention to the tokens of ``source``.

        ``bias`` is added to the scores, broadcast to [N heads L L], or [N heads L K]; minus infinity hides a key.
        """
        if source is None:
            qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
        else:
            width = x.shape[-1]
            query = self._project(x, slice(width)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            pair = self._project(source, slice(width, None)).unflatten(-1, (2, self.heads, -1))
            key, value = pair.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _project(self, x: Float[Tensor, "N L W"], outputs: slice) -> Float[Tensor, "N L _"]:
        """Some of the outputs of ``to_qkv``."""
        bias = self.to_qkv.bias
        return functional.linear(x, self.to_qkv.weight[outputs], None if bias is None else bias[outputs])


class FeedForward(nn.Sequential):
    """Two linear layers with GELU and dropout, back to the width they came from."""

    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, hidden_width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(hidden_width, width),
            Dropout(dropout),
        )


class Block(nn.Module):
    """One pre-norm transformer block; ``qkv_bias`` and ``score_dropout`` as in :class:`Attention`.

    With a ``source``, its tokens are attended to instead of those of ``x``, after the same LayerNorm.
    """

    def __init__(
        self, width: int, config: TransformerConfig, qkv_bias: bool = True, score_dropout: bool = True
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.heads, config.dropout, qkv_bias, score_dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.mlp_width, config.dropout)
        self.widest = max(width, config.mlp_width)

    def forward(
        self,
        x: Float[Tensor, "N L W"],
        bias: Float[Tensor, "..."] | None = None,
        source: Float[Tensor, "N K W"] | None = None,
    ) -> Float[Tensor, "N L W"]:
        if self.training and x.device.type == "cpu" and x.shape[:-1].numel() * self.widest > RECOMPUTED:
            return checkpoint(self._forward, x, bias, source, use_reentrant=False)
        return self._forward(x, bias, source)

    def _forward(
        self, x: Float[Tensor, "N L W"], bias: Float[Tensor, "..."] | None, source: Float[Tensor, "N K W"] | None
    ) -> Float[Tensor, "N L W"]:
        normed = None if source is None else self.attention_norm(source)
        x = x + self.attention(self.attention_norm(x), bias, normed)
        return x + self.mlp(self.mlp_norm(x))


class RelativePositionBias(nn.Module):
    """A learned score for each head and each offset between two cells of a square grid, rows first.

    With ``signed = False`` an offset and its mirror images share one.
    """

    index: Tensor

    def __init__(self, side: int, heads: int, signed: bool = True) -> None:
        super().__init__()
        span = 2 * side - 1 if signed else side
        self.table = nn.Parameter(torch.zeros(heads, span**2))
        nn.init.trunc_normal_(self.table, std=0.02)
        cells = torch.from_numpy(np.indices((side, side)).reshape(2, -1).T.copy())
        offsets = cells[:, None] - cells[None, :]
        offsets = offsets + side - 1 if signed else offsets.abs()
        self.register_buffer("index", offsets[..., 0] * span + offsets[..., 1], persistent=False)

    def forward(self) -> Float[Tensor, "H L L"]:
        return self.table[:, self.index]


class Standardise(nn.Module):
    """Tiles in [0, 1] less a mean of each colour, over its standard deviation: ImageNet's, where none are given."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, tiles: Float[Tensor, "N 3 H H"]) -> Float[Tensor, "N 3 H H"]:
        return (tiles - self.mean) / self.std


ORIENTATIONS = 8
"""Flips and quarter-turns of a tile."""


def turned(tiles: Float[Tensor, "N 3 H H"], orientation: int) -> Float[Tensor, "N 3 H H"]:
    """One of the eight flips and quarter-turns of tiles; 0 leaves them as they are."""
    tiles = torch.rot90(tiles, orientation % 4, dims=(2, 3))
    return tiles.flip(3) if orientation >= 4 else tiles


class ConstantHead(nn.Linear):
    """A linear layer of zero weights, which predicts its bias of whatever it is given until it is trained."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


@dataclass(frozen=True)
class SpotGrid:
    """The occupied cells of a spot grid, as a convolution over them needs it; depends on places alone.

    Args:
        cell_of_spot: the cell that each spot is in.
        spots_in_cell: how many are in each.
        neighbors: row of each cell's 3x3 neighbours, left to right within top to bottom; C stands for an empty cell.
    """

    cell_of_spot: Int[Tensor, " S"]
    spots_in_cell: Int[Tensor, " C"]
    neighbors: Int[Tensor, "C 9"]


class GridConvolution(nn.Module):
    """Depthwise 3x3 convolution over the spot grid, added to its input: the position encoding of the global scale.

    Works on the occupied cells alone, through an explicit table of each cell's neighbours, so that the order of
    spots, gaps, far outliers and several spots in one cell (they share the mean) are all right. Equal to a dense
    zero-padded ``conv2d`` on the scattered grid.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(9, width))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.uniform_(self.weight, -1 / 3, 1 / 3)

    def forward(self, x: Float[Tensor, "S W"], grid: SpotGrid) -> Float[Tensor, "S W"]:
        cells = x.new_zeros(len(grid.spots_in_cell), x.shape[1]).index_add(0, grid.cell_of_spot, x)
        cells = cells / grid.spots_in_cell[:, None].to(x.dtype)
        padded = torch.cat([cells, cells.new_zeros(1, cells.shape[1])])
        out = self.bias.expand_as(cells)
        for offset in range(9):
            out = out + self.weight[offset] * padded[grid.neighbors[:, offset]]
        return x + out[grid.cell_of_spot]


class GlobalTransformer(nn.Module):
    """Self-attention over all spots of a section; a grid convolution after the first block tells them their places.

    ``qkv_bias`` and ``score_dropout`` as in :class:`Attention`.
    """

    def __init__(
        self, width: int, config: TransformerConfig, qkv_bias: bool = True, score_dropout: bool = True
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, config, qkv_bias, score_dropout) for _ in range(config.depth))
        self.position = GridConvolution(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, spots: Float[Tensor, "S W"], grid: SpotGrid) -> Float[Tensor, "S W"]:
        for depth, block in enumerate(self.blocks):
            spots = block(spots[None])[0]
            if depth == 0:
                spots = self.position(spots, grid)
        return self.norm(spots)


def spot_grid(grid_xy: Int[Tensor, "S 2"]) -> SpotGrid:
    """The occupied cells of a grid. On CUDA the host waits for their number, so it is asked once a section."""
    cells_xy, cell_of_spot, spots_in_cell = grid_xy.unique(dim=0, return_inverse=True, return_counts=True)
    step = torch.tensor([-1, 0, 1], device=grid_xy.device)
    around = torch.cartesian_prod(step, step).flip(-1)  # rows first
    return SpotGrid(cell_of_spot, spots_in_cell, neighbor_cells(cells_xy, around))


def neighbor_cells(cells_xy: Int[Tensor, "C 2"], offsets_xy: Int[Tensor, "O 2"]) -> Int[Tensor, "C O"]:
    """Row of the cell at each offset from each cell; C stands for an empty one."""
    reach = offsets_xy.abs().max()
    origin = cells_xy.min(dim=0).values - reach
    stride = cells_xy[:, 0].max() - origin[0] + reach + 1

    def key(xy: Int[Tensor, "... 2"]) -> Int[Tensor, "..."]:
        return (xy[..., 1] - origin[1]) * stride + xy[..., 0] - origin[0]

    keys, row_of_key = key(cells_xy).sort()
    wanted = key(cells_xy[:, None] + offsets_xy)
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, row_of_key[place], len(keys))


def hide(mask: Bool[Tensor, "N L"], dtype: torch.dtype) -> Float[Tensor, "N 1 1 L"]:
    """Attention bias that hides the keys where ``mask`` is False."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(~mask, float("-inf"))[:, None, None, :]


def masked_mean(x: Float[Tensor, "N L W"], mask: Bool[Tensor, "N L"]) -> Float[Tensor, "N W"]:
    """Mean over the tokens where ``mask`` is True."""
    weight = mask.to(x.dtype)[..., None]
    return (x * weight).sum(dim=1) / weight.sum(dim=1)
