"""Spots that networks look up at prediction.

Letters: N spots of the bank, B spots in a batch, W width of the vectors they are found by, K found, M genes.
"""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genedml.errors import GeneDMLError
from genedml.networks.inputs import Batch

EMPTY = -1


class Bank(nn.Module):
    """The labelled spots of a training, in buffers and so in the checkpoint: vectors to find them by, labels, patients.

    Args:
        spots: N.
        width: W.
        genes: M.
    """

    key: Tensor
    label: Tensor
    patient: Tensor

    def __init__(self, spots: int, width: int, genes: int) -> None:
        super().__init__()
        self.register_buffer("key", torch.zeros(spots, width))
        self.register_buffer("label", torch.zeros(spots, genes))
        self.register_buffer("patient", torch.full((spots,), EMPTY))

    @torch.no_grad()
    def fill(self, batches: Iterable[Batch], key_of: Callable[[Batch], Float[Tensor, "B W"]]) -> Int[Tensor, " N"]:
        """Keep all spots of ``batches``, in an order that depends on their labels alone.

        Returns:
            Which spot each row holds, counted over ``batches``.

        Raises:
            GeneDMLError: they are of other genes, or not as many as the bank is for.
        """
        columns: tuple[list[Tensor], ...] = ([], [], [])
        for batch in batches:
            assert batch.label is not None and batch.patient is not None
            self._check_genes(batch.label.shape[1])
            for column, values in zip(columns, (key_of(batch), batch.label, batch.patient), strict=True):
                column.append(values)
        found = sum(map(len, columns[0]))
        if not found or found != len(self.key):
            raise GeneDMLError(
                f"The bank is for {len(self.key)} spots with a label, and {found} were given: train the fold again."
            )
        key, label, patient = map(torch.cat, columns)
        order = label.unique(dim=0, return_inverse=True)[1].argsort(stable=True)
        self.key.copy_(key[order])
        self.label.copy_(label[order])
        self.patient.copy_(patient[order])
        return order

    @torch.no_grad()
    def nearest(
        self, query: Float[Tensor, "B W"], count: int, patient: Int[Tensor, " B"] | None = None
    ) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"]]:
        """Rows of the spots nearest to each vector by Euclidean distance, and which of them are there.

        Args:
            query: vectors to find spots by.
            count: K; of a smaller bank all are found.
            patient: of each vector. Spots of the same are left out: sections of one patient carry nearly the same
                labels, and a network that finds them in training learns to copy. Where fewer than K spots are of
                others, the rest is not there.

        Raises:
            GeneDMLError: the bank was never filled.
        """
        if not self.training and (not len(self.key) or int(self.patient[0]) == EMPTY):
            raise GeneDMLError("The bank is empty, so there is nothing to look up: train the fold to its end.")
        # without matrix products equal vectors are equally far, whatever the batch
        distance = torch.cdist(query, self.key, compute_mode="donot_use_mm_for_euclid_dist")
        if patient is not None:
            distance = distance.masked_fill(patient[:, None] == self.patient, float("inf"))
        near, row = distance.topk(min(count, len(self.key)), largest=False)
        return row, near.isfinite()

    def _check_genes(self, genes: int) -> None:
        if genes != self.label.shape[1]:
            raise GeneDMLError(
                f"The bank is for labels of {self.label.shape[1]} genes, and its spots have {genes}: give the panel "
                "that the network was made for."
            )
