"""Gene-DML as mathematics: losses and grouping against naive loops, invariances of the network."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from genedml.config import load_config
from genedml.networks import layers
from genedml.networks.gene_dml import GeneDML, GeneDMLConfig, LossConfig
from genedml.networks.gene_dml_grouping import kmeans
from genedml.networks.gene_dml_losses import contrastive_loss, cross_level_loss, instance_loss, prediction_loss
from genedml.networks.inputs import Batch, Section
from genedml.networks.layers import Dropout, GridConvolution, RelativePositionBias, spot_grid
from genedml.networks.network import Shape

WIDTH, GENES, TOKENS = 16, 12, 7
SHAPE = Shape(GENES, WIDTH, TOKENS, 5)
NEIGHBORS = ("neighbor", "neighbor_mask")


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / sum(weights) for weight in weights]


def make_network(**loss: object) -> GeneDML:
    torch.manual_seed(0)
    small = load_config("small").network
    config = GeneDMLConfig(
        shared_width=8,
        neighbor_transformer=small.neighbor_transformer,
        global_transformer=small.global_transformer,
        fusion_transformer=small.fusion_transformer,
        loss=LossConfig(**({"groups": 3} | loss)),
    )
    return GeneDML(config, SHAPE).eval()


def make_batch(grid_xy: list[tuple[int, int]], seed: int = 1) -> Batch:
    random = torch.Generator().manual_seed(seed)
    spots = len(grid_xy)
    section = Section(torch.randn(spots, WIDTH, generator=random), torch.tensor(grid_xy))
    mask = torch.rand(spots, 25, generator=random) > 0.3
    mask[:, 12] = True
    return Batch(
        [section],
        torch.zeros(spots, dtype=torch.long),
        torch.arange(spots),
        tokens=torch.randn(spots, TOKENS, WIDTH, generator=random),
        neighbor=torch.randn(spots, 25, WIDTH, generator=random),
        neighbor_mask=mask,
        label=torch.rand(spots, GENES, generator=random),
    )


def take(batch: Batch, rows: Tensor) -> Batch:
    """The same spots of the same section, fewer or in another order."""
    parts = {name: getattr(batch, name)[rows] for name in ("section", "tokens", *NEIGHBORS, "label")}
    return replace(batch, row=rows, **parts)


SQUARE = [(x, y) for y in range(3) for x in range(4)]


def test_instance_loss_equals_its_naive_loop():
    random = torch.Generator().manual_seed(3)
    image, gene = torch.randn(6, 5, generator=random), torch.randn(6, 5, generator=random)
    tau, n = 0.07, 6
    target = [
        softmax([(cosine(image[i], image[j]) + cosine(gene[i], gene[j])) / (2 * tau) for j in range(n)])
        for i in range(n)
    ]
    total = 0.0
    for i in range(n):
        rows = softmax([cosine(gene[i], image[j]) / tau for j in range(n)])
        columns = softmax([cosine(gene[j], image[i]) / tau for j in range(n)])
        total -= sum(target[i][j] * math.log(rows[j]) for j in range(n)) / 2
        total -= sum(target[j][i] * math.log(columns[j]) for j in range(n)) / 2
    assert float(instance_loss(image, gene, tau)) == pytest.approx(total / n, rel=1e-4)


def test_detached_targets_carry_no_gradient_but_the_same_value():
    image, gene = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    free, held = instance_loss(image, gene, 0.1), instance_loss(image, gene, 0.1, detach_targets=True)
    (from_free,) = torch.autograd.grad(free, image)
    (from_held,) = torch.autograd.grad(held, image)
    assert torch.allclose(free, held)
    assert not torch.allclose(from_free, from_held)


def test_cross_level_loss_equals_its_naive_loop():
    random = torch.Generator().manual_seed(4)
    image, gene = torch.randn(9, 5, generator=random), torch.randn(9, 5, generator=random)
    of_image, of_gene = kmeans(image, 3, 10, random), kmeans(gene, 3, 10, random)
    tau, total = 0.07, 0.0
    for i in range(9):
        to_gene = softmax([cosine(image[i], centre) / tau for centre in of_gene.centroids])
        to_image = softmax([cosine(gene[i], centre) / tau for centre in of_image.centroids])
        total -= math.log(to_gene[of_gene.assignment[i]]) / 2 + math.log(to_image[of_image.assignment[i]]) / 2
    assert float(cross_level_loss(image, gene, of_image, of_gene, tau)) == pytest.approx(total / 9, rel=1e-4)


def test_contrastive_loss_of_perfect_and_of_exchanged_partners():
    gene = torch.eye(4)
    assert float(contrastive_loss(gene, gene, 0.07)) < 1e-4
    assert float(contrastive_loss(gene.flip(0), gene, 0.07)) > 5


def test_prediction_loss_is_the_mean_over_spots_and_genes():
    predicted, label = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    assert float(prediction_loss(predicted, label)) == pytest.approx((1 + 4 + 9 + 16) / 4)


def naive_kmeans(x: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    centres = x[start].copy()
    assignment = np.zeros(len(x), dtype=int)
    for _ in range(iterations):
        assignment = np.array([np.argmin([np.sum((row - centre) ** 2) for centre in centres]) for row in x])
        for group in range(len(centres)):
            if (assignment == group).any():
                centres[group] = x[assignment == group].mean(axis=0)
    return assignment, centres


@pytest.mark.parametrize("k", [1, 3, 8])
def test_kmeans_equals_its_naive_loop(k):
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(5))
    start = torch.randperm(20, generator=torch.Generator().manual_seed(6))[:k]
    found = kmeans(x, k, 10, torch.Generator().manual_seed(6))
    assignment, centres = naive_kmeans(x.numpy(), start.numpy(), 10)
    assert np.array_equal(found.assignment.numpy(), assignment)
    assert np.allclose(found.centroids.numpy(), centres, atol=1e-5)


def test_kmeans_keeps_the_centre_of_an_empty_group_and_finds_planted_groups():
    same = torch.ones(6, 2)
    assert torch.equal(kmeans(same, 2, 10).centroids, torch.ones(2, 2))
    planted = torch.cat([torch.randn(10, 2) * 0.1, torch.randn(10, 2) * 0.1 + 9])
    groups = min(
        (kmeans(planted, 2, 10, torch.Generator().manual_seed(s)) for s in range(5)), key=lambda g: spread(planted, g)
    )
    assert len(set(groups.assignment[:10].tolist())) == len(set(groups.assignment[10:].tolist())) == 1
    assert groups.assignment[0] != groups.assignment[10]


def spread(x: Tensor, groups) -> float:
    return float((x - groups.centroids[groups.assignment]).square().sum())


def test_kmeans_refuses_fewer_rows_than_groups():
    with pytest.raises(ValueError, match="at least 4 rows"):
        kmeans(torch.zeros(3, 2), 4, 10)


def test_losses_are_named_weighted_and_switched():
    batch = make_batch(SQUARE)
    parts = make_network(group_weight=0.5).losses(batch)
    assert set(parts) == {"prediction", "instance", "group", "total"}
    expected = parts["prediction"] + parts["instance"] + 0.5 * parts["group"]
    assert float(parts["total"]) == pytest.approx(float(expected))
    assert set(make_network(group=False).losses(batch)) == {"prediction", "instance", "total"}
    assert set(make_network(instance=False).losses(batch)) == {"prediction", "group", "total"}
    neither = make_network(instance=False, group=False).losses(batch)
    assert set(neither) == {"prediction", "contrastive", "total"}


def test_batches_below_two_spots_a_group_leave_out_the_group_term():
    assert "group" in make_network(groups=6).losses(make_batch(SQUARE))
    assert "group" not in make_network(groups=7).losses(make_batch(SQUARE))


def test_the_prediction_term_is_of_the_averaged_output_with_the_error_of_a_sections_mean_apart():
    plain, batch = make_network(centred=True, offset_weight=0.25), make_batch(SQUARE)
    network = GeneDML(replace(plain.config, array_mean=True), replace(SHAPE, smooth=True)).eval()
    network.load_state_dict(plain.state_dict())
    output, error = plain(batch).tolist(), []
    for spot, (x, y) in enumerate(SQUARE):
        near = [output[other] for other, (u, v) in enumerate(SQUARE) if max(abs(u - x), abs(v - y)) <= 1]
        means = [sum(values) / len(near) for values in zip(*near, strict=True)]
        error.append([mean - float(label) for mean, label in zip(means, batch.label[spot], strict=True)])
    of_section = [sum(errors) / len(SQUARE) for errors in zip(*error, strict=True)]
    spread = [(value - mean) ** 2 for row in error for value, mean in zip(row, of_section, strict=True)]
    offset = [mean**2 for mean in of_section]
    expected = sum(spread) / len(spread) + 0.25 * sum(offset) / len(offset)
    assert float(network.losses(batch)["prediction"]) == pytest.approx(expected, rel=1e-5)


def test_what_training_alone_uses_is_no_part_of_a_prediction():
    network, batch = make_network(), make_batch(SQUARE)
    before, parts = network(batch), len(network.state_dict())
    assert torch.equal(network.without_training()(batch), before)
    assert len(network.state_dict()) < parts


def test_every_parameter_learns_from_the_losses():
    network = make_network().train()
    network.losses(make_batch(SQUARE))["total"].backward()
    # The group branches place the groups; hard assignments pass gradient to them through the centroids alone.
    idle = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []


def test_order_of_spots_does_not_matter():
    network, batch = make_network(), make_batch(SQUARE)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(8))
    back = order.argsort()
    section = Section(batch.sections[0].pooled[order], batch.sections[0].grid_xy[order])
    moved = replace(batch, sections=[section], row=back)
    assert torch.allclose(network(batch), network(moved), atol=1e-5)


def test_one_batch_equals_many_and_shares_its_context():
    network, batch = make_network(), make_batch(SQUARE)
    whole = network(batch)
    context = network.see_sections(batch.sections)
    parts = [network(take(batch, rows), context) for rows in torch.arange(12).split(5)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-5)


def test_spots_of_two_sections_in_one_batch_do_not_see_each_other():
    network, first, second = make_network(), make_batch(SQUARE), make_batch(SQUARE[:5], seed=2)
    parts = {name: torch.cat([getattr(second, name), getattr(first, name)]) for name in ("tokens", *NEIGHBORS, "row")}
    section = torch.cat([second.section + 1, first.section])
    both = Batch([*first.sections, *second.sections], section, **parts)
    expected = torch.cat([network(second), network(first)])
    assert torch.allclose(network(both), expected, atol=1e-5)


def test_the_other_spots_of_a_section_do_matter():
    network, batch = make_network(), make_batch(SQUARE)
    alone = Section(batch.sections[0].pooled[:1], batch.sections[0].grid_xy[:1])
    lonely = replace(take(batch, torch.tensor([0])), sections=[alone])
    assert not torch.allclose(network(batch)[:1], network(lonely), atol=1e-5)


def test_hidden_tiles_change_nothing():
    network, batch = make_network(), make_batch(SQUARE)
    changed = batch.neighbor.masked_fill(~batch.neighbor_mask[..., None], 99.0)
    other = replace(batch, neighbor=changed)
    assert torch.allclose(network(batch), network(other), atol=1e-5)


@pytest.mark.parametrize(
    "grid_xy",
    [SQUARE, [(0, 0)], [(2, 1), (2, 1), (3, 1)], [(5, 0), (0, 3), (1, 3), (-4, -2)], [(0, 0), (10**6, 10**6)]],
    ids=["rectangle", "single", "two in one cell", "gaps", "far apart"],
)
def test_grid_convolution_equals_a_dense_one(grid_xy):
    torch.manual_seed(2)
    convolution, xy = GridConvolution(3), torch.tensor(grid_xy)
    x = torch.randn(len(xy), 3)
    cells = {tuple(cell): x[(xy == torch.tensor(cell)).all(1)].mean(0) for cell in grid_xy}
    for (column, row), own, out in zip(grid_xy, x, convolution(x, spot_grid(xy)), strict=True):
        expected = convolution.bias + own
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                weight = convolution.weight[(dy + 1) * 3 + dx + 1]
                expected = expected + weight * cells.get((column + dx, row + dy), torch.zeros(3))
        assert torch.allclose(out, expected, atol=1e-5)


def test_relative_position_bias_depends_on_the_offset_alone():
    bias = RelativePositionBias(5, 2)()
    assert torch.equal(bias[:, 0, 6], bias[:, 12, 18])
    assert not torch.equal(bias[:, 0, 6], bias[:, 6, 0])
    assert len(bias[0].unique()) == 81


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_dropout_keeps_the_share_it_should_and_each_element_by_itself(probability):
    torch.manual_seed(0)
    values = torch.full((1001, 1001), 2.0, dtype=torch.float64)
    dropped = Dropout(probability)(values)
    kept = (dropped != 0).double().flatten()
    assert float(kept.mean()) == pytest.approx(1 - probability, abs=4e-3 * math.sqrt(probability * (1 - probability)))
    assert dropped[dropped != 0].numpy() == pytest.approx(2 / (1 - probability), rel=2e-4)
    for distance in (1, 2, 3, 4, 1001):  # four elements share a draw
        pair = torch.stack([kept[:-distance], kept[distance:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4e-3


def test_dropout_draws_anew_from_the_seed_and_only_in_training():
    values, dropout = torch.ones(7, 3), Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(1)
    assert torch.equal(dropout(values), first) and not torch.equal(first, second)
    assert torch.equal(dropout.eval()(values), values)


def test_blocks_that_are_computed_again_give_the_same_gradients_to_the_bit(monkeypatch):
    gradients = []
    for limit in (layers.RECOMPUTED, 0):
        monkeypatch.setattr(layers, "RECOMPUTED", limit)
        network = make_network().train()
        torch.manual_seed(3)
        network.losses(make_batch(SQUARE), torch.Generator().manual_seed(1))["total"].backward()
        gradients.append([value.grad for value in network.parameters()])
    assert all(torch.equal(kept, anew) for kept, anew in zip(*gradients, strict=True))


@pytest.mark.parametrize(("preset", "millions"), [("HER2ST", 121), ("STNet", 84), ("skinST", 46)])
def test_presets_have_the_papers_size(preset, millions):
    config = load_config(preset)
    with torch.device("meta"):
        network = GeneDML(config.network, Shape(250, 1024, 197, 5))
    count = sum(value.numel() for value in network.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)


def test_evaluation_mode_has_no_dropout_and_training_mode_has():
    network, batch = make_network(), make_batch(SQUARE)
    assert torch.equal(network(batch), network(batch))
    network.train()
    assert not torch.equal(network(batch), network(batch))


@pytest.mark.parametrize("parts", [{}, {"instance": False, "group": False}], ids=["aligned", "contrastive"])
def test_losses_under_bfloat16_are_single_precision_of_what_the_network_gave(parts):
    network, batch = make_network(**parts), make_batch(SQUARE)
    single = network.losses(batch, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert network.embed(batch).fused.dtype == torch.bfloat16
        mixed = network.losses(batch, torch.Generator().manual_seed(1))
    assert mixed.keys() == single.keys()
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(single[name]), rel=0.05), name
    mixed["total"].backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)


def test_losses_of_equal_embeddings_are_the_same_to_the_bit_whatever_the_autocast(monkeypatch):
    network, batch = make_network(), make_batch(SQUARE)
    coarse = [network.embed(batch).to(torch.bfloat16), network.gene_encoder(batch.label).bfloat16()]
    monkeypatch.setattr(network, "embed", lambda _: coarse[0])
    monkeypatch.setattr(network.gene_encoder, "forward", lambda _: coarse[1])
    monkeypatch.setattr(network.head, "forward", lambda _: torch.zeros(12, GENES))
    plain = network.losses(batch, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network.losses(batch, torch.Generator().manual_seed(1))
    assert {name: float(value) for name, value in mixed.items()} == {name: float(v) for name, v in plain.items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_equals_cuda():
    network, batch = make_network(), make_batch(SQUARE)
    on_cpu = network.losses(batch, torch.Generator().manual_seed(1))
    section = Section(batch.sections[0].pooled.cuda(), batch.sections[0].grid_xy.cuda())
    parts = {name: getattr(batch, name).cuda() for name in ("section", "row", "tokens", *NEIGHBORS, "label")}
    moved = Batch([section], **parts)
    on_cuda = network.cuda().losses(moved, torch.Generator().manual_seed(1))
    for name, value in on_cpu.items():
        assert float(on_cuda[name]) == pytest.approx(float(value), rel=1e-3)


def test_kmeans_holds_no_difference_of_every_row_and_group():
    x, k = torch.randn(256, 64), 90
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kmeans(x, k, 3)
    largest = max(event.self_cpu_memory_usage for event in seen.events())
    assert 0 < largest < 256 * k * 64 * 4 / 8
