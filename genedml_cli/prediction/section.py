"""Network + features -> labels. Letters: S spots, M genes."""

import numpy as np
import torch
from jaxtyping import Float

from genedml.errors import GeneDMLError
from genedml.networks.network import Network
from genedml_cli.features.placement import PlacedFeatures
from genedml_cli.features.section_features import SectionFeatures
from genedml_cli.machine.compute import BATCH_SPOTS
from genedml_cli.machine.devices import fitting


@torch.inference_mode()
def predict_section(
    network: Network, features: SectionFeatures, device: torch.device | str, batch_spots: int = BATCH_SPOTS
) -> Float[np.ndarray, "S M"]:
    """Predicted labels of every spot of a section."""
    return predict_placed(network, PlacedFeatures([features], device, network.takes), 0, batch_spots)


@torch.inference_mode()
def predict_placed(
    network: Network, features: PlacedFeatures, number: int, batch_spots: int = BATCH_SPOTS
) -> Float[np.ndarray, "S M"]:
    """Predicted labels of every spot of section ``number``; the global transformer runs once, whatever the batch size.

    In single precision on every device: a label of 2 in bfloat16 would come in steps of 1/64.

    Raises:
        GeneDMLError: they are not finite.
    """
    with fitting(f"predicting {batch_spots} spots at a time", "Free it, or give fewer --batch-spots or --device cpu."):
        return _predict_placed(network, features, number, batch_spots)


def _predict_placed(
    network: Network, features: PlacedFeatures, number: int, batch_spots: int
) -> Float[np.ndarray, "S M"]:
    network.eval()
    section = features.sections[number]
    predicted = []
    context = network.see_sections([section])
    spots = len(section.pooled)
    for row in torch.arange(spots).split(spots if network.takes.whole_sections else batch_spots):
        predicted.append(network(features.batch(torch.full_like(row, number), row), context))
    labels = network.finish(torch.cat(predicted), section).cpu()
    if not labels.isfinite().all():
        raise GeneDMLError(
            "The model predicts NaN or infinite numbers. Its training diverged (lower training.learning_rate), or its "
            "weights, the encoder's or the features are damaged: fetch or make them again."
        )
    return labels.numpy()
