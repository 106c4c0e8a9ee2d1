"""What only a GPU can show: it computes what the CPU computes, twice the same, and goes on where its memory ends."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from genedml.config import Config, load_config
from genedml.encoders.encoder import Encoder, build_backbone, load_encoder
from genedml.encoders.table import ENCODERS
from genedml.networks.gene_dml_grouping import kmeans
from genedml.networks.inputs import Batch
from genedml.networks.network import Network
from genedml.networks.registry import NETWORKS, build, network_class
from genedml_cli.benchmark.training import random_section
from genedml_cli.features.encoding import BatchRunner
from genedml_cli.features.placement import place
from genedml_cli.training.learner import Learner, remember
from genedml_cli.training.loop import SpotLoader, shape_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda")
SETTINGS = ("encoder=tiny", "views.local_grid=0", "labels.panel_size=20", "training.batch_size=64")


@pytest.fixture(autouse=True)
def all_digits() -> Iterator[None]:
    """Convolutions and recurrent layers take inputs whole, as on a CPU."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def vit() -> tuple[Encoder, Encoder]:
    """A ViT-S with random weights on the CPU, and the same on CUDA."""
    torch.manual_seed(0)
    info = ENCODERS["lunit-dino-s16"]
    backbone = build_backbone(info)
    return Encoder(info, backbone, True), Encoder(info, copy.deepcopy(backbone), True).to(CUDA)


def make_tiles(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """Length of the difference over that of the vectors themselves."""
    return float((one.cpu() - other).norm() / other.norm())


def test_an_encoder_on_cuda_equals_the_cpu(vit):
    on_cpu, on_cuda = vit
    tiles = make_tiles(4)
    expected = on_cpu(tiles)
    single, half = on_cuda(tiles.to(CUDA), single=True), on_cuda(tiles.to(CUDA))
    for got, allowed in ((single, 1e-3), (half, 5e-3)):
        assert far(got.tokens, expected.tokens) < allowed
        assert far(got.pooled, expected.pooled) < allowed


def test_two_passes_of_an_encoder_are_equal(vit):
    tiles = make_tiles(20).to(CUDA)
    first, second = (BatchRunner(vit[1])(tiles) for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)


def test_batches_are_halved_where_cuda_has_no_memory_for_them(vit):
    encoder, tiles = vit[1], make_tiles(512).to(CUDA)
    encoder.batch_tiles = 32
    expected = BatchRunner(encoder)(tiles)
    encoder.batch_tiles = 512
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 6 * 10**8) / total)
    try:
        encoded = BatchRunner(encoder)(tiles)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= encoder.batch_tiles < 512
    assert far(encoded.pooled, expected.pooled.cpu()) < 5e-3


def test_kmeans_on_cuda_equals_the_cpu():
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    on_cpu, on_cuda = (kmeans(rows, 18, 10, torch.Generator().manual_seed(2)) for rows in (x, x.to(CUDA)))
    assert torch.equal(on_cuda.assignment.cpu(), on_cpu.assignment)
    torch.testing.assert_close(on_cuda.centroids.cpu(), on_cpu.centroids, rtol=1e-4, atol=1e-5)


def configuration(method: str) -> Config:
    preset = "small" if method == "gene-dml" else "features"
    return load_config(preset, overrides=[f"method={method}", *SETTINGS])


def network_and_loader(config: Config, device: torch.device) -> tuple[Network, SpotLoader]:
    """The same on every device."""
    needs = network_class(config.method).needs(config.network)
    torch.manual_seed(3)
    section = random_section(load_encoder("tiny").info, config, needs)
    network = build(config.method, config.network, shape_of(section.features, 20, config, len(section.labels.y)))
    return network, SpotLoader([section], place([section.features], device, needs), config.training, device, needs)


def first_batch(loader: SpotLoader) -> Batch:
    """Of another patient than the section's own, so that what a network remembers may be looked up."""
    batch = next(loader.epoch(torch.Generator().manual_seed(4)))
    return replace(batch, patient=torch.full_like(batch.section, 7))


@pytest.mark.parametrize("method", NETWORKS)
def test_losses_and_predictions_on_cuda_equal_the_cpu(method):
    config, cpu = configuration(method), torch.device("cpu")
    network, loader = network_and_loader(config, cpu)
    remember(network, loader.sections())
    learner = Learner(network, config.training, cpu)
    learner.step(first_batch(loader), torch.Generator().manual_seed(5))  # heads begin as zeros
    results = []
    for device in (cpu, CUDA):
        loader = network_and_loader(config, device)[1]
        network.to(device)
        remember(network, loader.sections())
        network.eval()
        batch = first_batch(loader)
        losses = network.losses(batch, torch.Generator().manual_seed(6))
        with torch.no_grad():
            results.append(({name: float(value) for name, value in losses.items()}, network(batch).cpu()))
    (losses, predicted), (losses_there, predicted_there) = results
    assert losses_there == pytest.approx(losses, rel=2e-3, abs=1e-5)
    assert predicted.std() > 0
    assert far(predicted_there, predicted) < 2e-3


def test_steps_of_training_on_cuda_lead_where_those_on_the_cpu_do():
    transformers = ("neighbor_transformer", "global_transformer", "fusion_transformer")
    parts = (*(f"{name}.dropout" for name in transformers), "ffn_dropout", "head_dropout", "gene_dropout")
    still = [f"network.{part}=0" for part in parts]
    config = load_config("small", overrides=[*SETTINGS, *still])
    ends = []
    for device in (torch.device("cpu"), CUDA):
        network, loader = network_and_loader(config, device)
        learner, random = Learner(network, config.training, device), torch.Generator().manual_seed(6)
        batch = first_batch(loader)
        ends.append(np.array([float(learner.step(batch, random)["total"]) for _ in range(10)]))
    on_cpu, on_cuda = ends
    assert on_cpu[-1] < on_cpu[0] * 0.95
    assert on_cuda == pytest.approx(on_cpu, rel=0.03)  # bfloat16 there, single precision here
