"""Networks that see whole sections: hand examples, published sizes, and what must not change their predictions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml.networks.histogene import HisToGene, HisToGeneConfig, PixelStem
from genedml.networks.inputs import Batch, Section
from genedml.networks.network import Network, Shape
from genedml.networks.positions import SinePositions, TablePositions
from genedml.schema import TransformerConfig

WIDTH, GENES = 8, 5
SHAPE = Shape(GENES, WIDTH, 5, 5)
SMALL = TransformerConfig(depth=2, heads=2, mlp_width=16, dropout=0.2)
HISTOGENE = HisToGeneConfig(width=16, transformer=SMALL)
SQUARE = torch.tensor([(x, y) for y in range(4) for x in range(5)])
ONE_SPOT = torch.tensor([(7, 3)])
ISOLATED = torch.tensor([(0, 0), (1, 0), (0, 1), (40, 40)])


def make_histogene(config: HisToGeneConfig = HISTOGENE) -> Network:
    torch.manual_seed(0)
    return HisToGene(config, SHAPE)


SECTIONWISE = {"histogene": make_histogene}


@pytest.fixture(params=SECTIONWISE)
def network(request) -> Network:
    """Every network for whole sections, in training mode."""
    return SECTIONWISE[request.param]()


def make_section(grid_xy: Tensor, seed: int = 1) -> Section:
    random = torch.Generator().manual_seed(seed)
    return Section(torch.randn(len(grid_xy), WIDTH, generator=random), grid_xy)


def make_batch(sections: list[Section], seed: int = 2) -> Batch:
    """All spots of sections, with labels and counts."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([len(section.pooled) for section in sections])
    counts = torch.poisson(torch.full((int(sizes.sum()), GENES), 3.0), generator=random)
    return Batch(
        sections,
        torch.arange(len(sections)).repeat_interleave(sizes),
        torch.cat([torch.arange(size) for size in sizes.tolist()]),
        label=torch.rand(counts.shape, generator=random),
        counts=counts,
    )


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_two_evaluations_are_equal_to_the_bit_and_training_has_dropout(network):
    batch = make_batch([make_section(SQUARE)])
    network(batch)
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    assert torch.equal(network(batch), network(batch))


def test_permuting_spots_with_their_places_permutes_the_predictions(network):
    section = make_section(SQUARE)
    order = torch.randperm(len(SQUARE), generator=torch.Generator().manual_seed(3))
    permuted = replace(section, pooled=section.pooled[order], grid_xy=section.grid_xy[order])
    network.eval()
    whole = network(make_batch([section]))
    assert torch.allclose(network(make_batch([permuted])), whole[order], atol=1e-5)
    assert not torch.allclose(whole, whole[order], atol=1e-3)


def test_a_section_does_not_depend_on_where_it_lies_nor_on_others_but_on_its_spots(network):
    section, other = make_section(SQUARE), make_section(SQUARE[:7], seed=5)
    network.eval()
    alone = network(make_batch([section]))
    moved = replace(section, grid_xy=section.grid_xy + torch.tensor([30, -4]))
    assert torch.equal(network(make_batch([moved])), alone)
    assert torch.allclose(network(make_batch([other, section]))[7:], alone, atol=1e-6)
    fewer = replace(section, pooled=section.pooled[1:], grid_xy=section.grid_xy[1:])
    assert not torch.allclose(network(make_batch([fewer])), alone[1:], atol=1e-4)


@pytest.mark.parametrize("grid_xy", [ONE_SPOT, ISOLATED], ids=["one spot", "an isolated spot"])
def test_lonely_spots_have_finite_predictions_and_gradients(network, grid_xy):
    batch = make_batch([make_section(grid_xy)])
    losses = network.losses(batch, torch.Generator().manual_seed(1))
    losses["total"].backward()
    assert network(batch).isfinite().all()
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


def test_only_labelled_spots_are_in_the_loss_but_all_spots_are_seen(network):
    section = make_section(SQUARE)
    network.eval()
    whole = make_batch([section])
    labelled = torch.tensor([11, 2, 5])
    parts = {name: getattr(whole, name)[labelled] for name in ("section", "row", "label", "counts")}
    some = replace(whole, **parts)
    assert torch.equal(network(some), network(whole)[labelled])
    error = network.losses(some, torch.Generator().manual_seed(1))["prediction"]
    assert torch.allclose(error, (network(whole)[labelled] - some.label).square().mean())


def test_training_starts_near_the_mean_label(network):
    mean = torch.linspace(10, 50, GENES)
    network.start_at(mean)
    network.eval()
    assert torch.allclose(network(make_batch([make_section(SQUARE)])).mean(dim=0), mean, atol=3)


@pytest.mark.parametrize(
    ("genes", "pixels", "count"), [(785, True, 106_648_337), (250, True, 106_099_962), (250, False, 68_613_370)]
)
def test_histogene_has_the_published_size(genes, pixels, count):
    config = load_config("published", overrides=["method=histogene"]).network
    with torch.device("meta"):
        stem = PixelStem(config.width) if pixels else None
        assert parameters(HisToGene(config, Shape(genes, 1024, 197, 5), stem)) == count


def test_the_pixel_stem_of_histogene_makes_a_token_of_each_tile():
    stem = PixelStem(4)
    tiles = torch.rand(2, 3, 112, 112)
    tokens = stem(tiles)
    assert tokens.shape == (2, 4)
    assert torch.allclose(tokens[0], stem(tiles[:1])[0], atol=1e-5)


def test_a_place_is_the_sum_of_its_column_and_its_row():
    positions = TablePositions(5, 4)
    out = positions(torch.tensor([(2, 7), (3, 7), (2, 9), (3, 9)]))
    columns, rows = (table.weight for table in positions.tables)
    assert torch.equal(out[1], columns[1] + rows[0])
    assert torch.allclose(out[3] - out[2], out[1] - out[0], atol=1e-6)


def test_a_place_beyond_the_tables_or_never_trained_is_an_error_that_says_what_to_set():
    positions = TablePositions(4, 4)
    with pytest.raises(GeneDMLError, match=r"column 5 .* have 4: set network.positions = 5 or more"):
        positions(torch.tensor([(10, 0), (14, 0)]))
    positions(torch.tensor([(0, 0), (1, 1)]))
    positions.eval()
    positions(torch.tensor([(5, 8), (6, 9)]))
    with pytest.raises(GeneDMLError, match=r'row 3 .* never learned: set network.position = "sine"'):
        positions(torch.tensor([(0, 0), (1, 2)]))


def test_what_was_trained_is_kept_with_the_weights():
    positions, again = TablePositions(4, 4), TablePositions(4, 4).eval()
    places = torch.tensor([(0, 0), (1, 3)])
    positions(places)
    again.load_state_dict(positions.state_dict())
    with pytest.raises(GeneDMLError, match="row 2"):
        again(torch.tensor([(0, 0), (0, 1)]))
    assert torch.equal(again(places), positions(places))


def test_sines_tell_every_place_apart_and_near_places_are_alike():
    positions = SinePositions(16)(SQUARE)
    apart = torch.cdist(positions, positions)
    assert apart[~torch.eye(len(SQUARE), dtype=torch.bool)].min() > 0.5
    assert apart[0, 1] < apart[0, 3]
    with pytest.raises(GeneDMLError, match="width that 4 divides"):
        SinePositions(6)
