"""Contrastive losses between two views of the same spots, from their similarities. Letters: B spots in a batch."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def soft_target_loss(logits: Float[Tensor, "B B"], target: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Cross entropy of the rows and of the columns with those of ``target``, mean of both."""
    return (_soft_cross_entropy(logits, target) + _soft_cross_entropy(logits.T, target.T)) / 2


def hard_target_loss(logits: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: spot b of one view belongs to spot b of the other; ln B at chance."""
    partner = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, partner) + functional.cross_entropy(logits.T, partner)) / 2


def _soft_cross_entropy(logits: Float[Tensor, "B B"], target: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
