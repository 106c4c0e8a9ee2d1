"""Which spots meet in a batch. Letters: B spots of a batch."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def draw_batches(
    rows: Sequence[Int[Tensor, " _"]], batch_size: int, sections_per_batch: int, generator: torch.Generator
) -> Iterator[tuple[Int[Tensor, " B"], Int[Tensor, " B"]]]:
    """One epoch: every labelled spot once, as (section, row) of each spot of a batch.

    The global transformer runs over all spots of the sections in a batch, so batches are drawn from
    ``sections_per_batch`` sections at a time, in an order shuffled anew; 0 shuffles the spots of all sections.

    Args:
        rows: the labelled rows of every section, each of its own length.
    """
    order = torch.randperm(len(rows), generator=generator).tolist()
    together = sections_per_batch or len(rows)
    for start in range(0, len(order), together):
        group = order[start : start + together]
        section = torch.cat([torch.full_like(rows[number], number) for number in group])
        row = torch.cat([rows[number] for number in group])
        shuffled = torch.randperm(len(row), generator=generator)
        for pick in _even_parts(shuffled, batch_size):
            yield section[pick], row[pick]


def _even_parts(shuffled: Int[Tensor, " N"], batch_size: int) -> Sequence[Int[Tensor, " B"]]:
    # Even parts, the last of them not a rest of few spots without negatives; up to half as large again as asked for.
    return shuffled.tensor_split(max(1, round(len(shuffled) / batch_size)))
