"""M2OST: published sizes, counts of tokens, and what must not change its predictions."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Batch, Section
from genedml.networks.m2ost import M2OST, ChannelGate, FeatureStem, Level, M2OSTConfig, PixelStem
from genedml.networks.network import Shape
from genedml.networks.registry import title_of, variant_of
from genedml.schema import TransformerConfig

WIDTH, GENES, TOKENS, SPOTS = 8, 5, 5, 6
SHAPE = Shape(GENES, WIDTH, TOKENS, 5)
CONFIG = M2OSTConfig(width=12, transformer=TransformerConfig(depth=2, heads=3, mlp_width=8, dropout=0.2))
AROUND = [6, 7, 8, 11, 12, 13, 16, 17, 18]


def make_network(config: M2OSTConfig = CONFIG) -> M2OST:
    torch.manual_seed(0)
    return M2OST(config, SHAPE)


def test_settings_on_features_are_no_published_m2ost_and_are_called_otherwise():
    titles = {
        preset: title_of("m2ost", variant_of("m2ost", load_config(preset, overrides=["method=m2ost"]).network))
        for preset in ("features", "published")
    }
    assert titles == {"features": "M2OST (features)", "published": "M2OST"}


def make_batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    mask = torch.rand(SPOTS, 25, generator=random) > 0.3
    mask[:, 12] = True
    grid_xy = torch.stack([torch.arange(SPOTS), torch.zeros(SPOTS, dtype=torch.long)], dim=1)
    return Batch(
        [Section(torch.randn(SPOTS, WIDTH, generator=random), grid_xy)],
        torch.zeros(SPOTS, dtype=torch.long),
        torch.arange(SPOTS),
        tokens=torch.randn(SPOTS, TOKENS, WIDTH, generator=random),
        neighbor=torch.randn(SPOTS, 25, WIDTH, generator=random),
        neighbor_mask=mask,
        tiles=tuple(torch.rand(SPOTS, 3, 224, 224, generator=random) for _ in range(3)),
        label=torch.rand(SPOTS, GENES, generator=random),
    )


def take(batch: Batch, rows: torch.Tensor) -> Batch:
    """Some of the spots, in this order."""
    names = ("section", "row", "tokens", "neighbor", "neighbor_mask", "label")
    parts = {name: getattr(batch, name)[rows] for name in names}
    return replace(batch, tiles=tuple(tiles[rows] for tiles in batch.tiles), **parts)


@pytest.mark.parametrize(("depth", "count"), [(4, 7_043_466), (6, 10_028_170)])
def test_it_has_the_published_size_but_for_the_norms_that_nothing_uses(depth, count):
    config = load_config("published", overrides=["method=m2ost", f"network.transformer.depth={depth}"]).network
    unused = 2 * 3 * config.width  # weight and bias of a norm over three levels, one a block
    with torch.device("meta"):
        network = M2OST(config, Shape(250, 1024, 197, 5))
    assert sum(value.numel() for value in network.parameters()) == count - depth * unused
    assert [len(places) for places in network.positions] == [197, 393, 589]


def test_the_levels_of_pixels_hold_the_patches_of_their_windows_the_smallest_first():
    stem, batch = PixelStem(12), make_batch()
    levels = [level.tokens for level in stem(batch)]
    assert [tokens.shape[1] for tokens in levels] == list(stem.lengths) == [196, 392, 588]
    quarter = batch.tiles[2][:, :, 84:140, 84:140]
    half = batch.tiles[2][:, :, 56:168, 56:168]
    sixteen, eight, four = stem.embeddings
    assert torch.equal(levels[2], torch.cat([four(quarter), eight(half), sixteen(batch.tiles[2])], dim=1))
    second_patch = batch.tiles[0][:, :, :16, 16:32].flatten(1)
    assert torch.allclose(levels[0][:, 1], sixteen.embed(second_patch), atol=1e-5)


def test_the_levels_of_features_are_the_own_tokens_the_tiles_around_and_the_grid():
    stem, batch = FeatureStem(SHAPE, 12), make_batch()
    own, near, wide = stem(batch)
    assert torch.equal(own.tokens, stem.project_own(batch.tokens))
    assert torch.allclose(near.tokens, stem.project_tile(batch.neighbor[:, AROUND]), atol=1e-6)
    assert torch.equal(near.mask, batch.neighbor_mask[:, AROUND])
    assert [level.tokens.shape[1] for level in (own, near, wide)] == list(stem.lengths) == [TOKENS, 9, 25]
    with pytest.raises(GeneDMLError, match=r"views.neighbor_grid = 3: set it to 5 or more"):
        FeatureStem(Shape(GENES, WIDTH, TOKENS, 3), 12)


def test_a_gate_of_zero_logits_multiplies_by_one_and_a_half_and_any_by_one_to_two():
    gate, tokens = ChannelGate(4, 6), torch.rand(2, 3, 4)
    levels = [Level(tokens), Level(2 * tokens), Level(3 * tokens)]
    for level, before in zip(gate(levels), levels, strict=True):
        ratio = level.tokens / before.tokens
        assert ratio.min() > 1
        assert ratio.max() < 2
    nn.init.zeros_(gate.gate[-1].weight)
    nn.init.zeros_(gate.gate[-1].bias)
    assert all(torch.allclose(level.tokens, 1.5 * was.tokens) for level, was in zip(gate(levels), levels, strict=True))


@pytest.mark.parametrize("stem", ["features", "pixels"])
def test_each_spot_is_predicted_alone_and_twice_the_same(stem):
    network, batch = make_network(replace(CONFIG, stem=stem)), make_batch()
    network.losses(batch)["total"].backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    whole = network(batch)
    assert torch.equal(network(batch), whole)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.allclose(network(take(batch, order)), whole[order], atol=1e-5)
    assert torch.allclose(network(take(batch, order[:1])), whole[order[:1]], atol=1e-5)


@pytest.mark.parametrize("stem", ["features", "pixels"])
def test_a_section_of_one_spot_trains_and_is_predicted_as_among_others(stem):
    network, batch = make_network(replace(CONFIG, stem=stem)), make_batch()
    alone = take(batch, torch.tensor([2]))
    section = Section(batch.pooled[2:3], batch.sections[0].grid_xy[2:3])
    alone = replace(alone, sections=[section], row=torch.tensor([0]))
    network.losses(alone)["total"].backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())
    network.eval()
    assert torch.allclose(network(alone), network(batch)[2:3], atol=1e-5)


def test_swapping_two_fields_of_view_changes_the_result():
    network, batch = make_network(replace(CONFIG, stem="pixels")).eval(), make_batch()
    one, two, four = batch.tiles
    assert not torch.allclose(network(replace(batch, tiles=(one, four, two))), network(batch), atol=1e-5)
    assert not torch.allclose(network(replace(batch, tiles=(two, one, four))), network(batch), atol=1e-5)


def test_what_lies_outside_the_slide_changes_nothing():
    network, batch = make_network().eval(), make_batch()
    other = batch.neighbor.masked_fill(~batch.neighbor_mask[..., None], 100.0)
    assert torch.allclose(network(replace(batch, neighbor=other)), network(batch), atol=1e-5)
    seen = batch.neighbor.masked_fill(batch.neighbor_mask[..., None], 100.0)
    assert not torch.allclose(network(replace(batch, neighbor=seen)), network(batch), atol=1e-3)
