"""Networks that see whole sections: hand examples, published sizes, and what must not change their predictions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml.networks import hist2st, histogene
from genedml.networks.hist2st import GraphConfig, GraphLayer, Hist2ST, Hist2STConfig, Hist2STLossConfig
from genedml.networks.hist2st_losses import count_loss, distillation_loss, size_factors
from genedml.networks.histogene import HisToGene, HisToGeneConfig
from genedml.networks.inputs import Batch, Section
from genedml.networks.layers import turned
from genedml.networks.network import Network, Shape
from genedml.networks.positions import SinePositions, TablePositions
from genedml.schema import TransformerConfig

WIDTH, GENES = 8, 5
SHAPE = Shape(GENES, WIDTH, 5, 5)
SMALL = TransformerConfig(depth=2, heads=2, mlp_width=16, dropout=0.2)
HISTOGENE = HisToGeneConfig(width=16, transformer=SMALL)
HIST2ST = Hist2STConfig(width=16, transformer=SMALL, loss=Hist2STLossConfig(distillation=0.5, copies=2))
SQUARE = torch.tensor([(x, y) for y in range(4) for x in range(5)])
ONE_SPOT = torch.tensor([(7, 3)])
ISOLATED = torch.tensor([(0, 0), (1, 0), (0, 1), (40, 40)])


SECTIONWISE = {
    "histogene": (HisToGene, HISTOGENE),
    "histogene-tables": (HisToGene, replace(HISTOGENE, position="table")),
    "histogene-nowhere": (HisToGene, replace(HISTOGENE, position="none")),
    "hist2st": (Hist2ST, HIST2ST),
    "hist2st-published-graph": (Hist2ST, replace(HIST2ST, graph=GraphConfig(self_loop=False))),
}


@pytest.fixture(params=SECTIONWISE)
def network(request) -> Network:
    """Every network for whole sections, in training mode; tables are trained for all places."""
    torch.manual_seed(0)
    build, config = SECTIONWISE[request.param]
    made = build(config, SHAPE)
    if isinstance(made.positions, TablePositions):
        made.positions.trained.fill_(True)
    return made


def make_section(grid_xy: Tensor, seed: int = 1) -> Section:
    random = torch.Generator().manual_seed(seed)
    turned = torch.randn(8, len(grid_xy), WIDTH, generator=random)
    return Section(turned[0], grid_xy, turned=turned)


def some_spots(section: Section, rows: Tensor) -> Section:
    """A section of some of the spots, in their order."""
    return Section(section.pooled[rows], section.grid_xy[rows], turned=section.turned[:, rows])


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
    permuted = some_spots(section, order)
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
    fewer = some_spots(section, torch.arange(1, len(SQUARE)))
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
    ("kind", "width", "setting", "millions"),
    [
        (HisToGene, 1536, "network.transformer.depth=8", 69.1),
        (HisToGene, 1024, "network.transformer.depth=4", 35.0),
        (Hist2ST, 1024, "network.loss.distillation=0.0", 73.58),  # without the weighting of copies
    ],
)
def test_published_sizes_on_features_of_an_encoder(kind, width, setting, millions):
    settings = [f"method={kind.__name__.lower()}", "network.stem=features", setting]
    with torch.device("meta"):
        network = kind(load_config("published", overrides=settings).network, Shape(250, width, 197, 5))
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("genes", "stem", "count"),
    [(785, "pixels", 106_648_337), (250, "pixels", 106_099_962), (250, "features", 68_613_370)],
)
def test_histogene_has_the_published_size(genes, stem, count):
    config = load_config("published", overrides=["method=histogene", f"network.stem={stem}"]).network
    with torch.device("meta"):
        assert parameters(HisToGene(config, Shape(genes, 1024, 197, 5))) == count


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


def test_a_network_told_no_places_predicts_the_same_wherever_spots_stand_and_one_that_is_told_says_so():
    section = make_section(SQUARE)
    moved = replace(section, grid_xy=SQUARE.flip(0))
    for position, alike in (("none", True), ("sine", False)):
        torch.manual_seed(0)
        config = replace(HISTOGENE, position=position)
        network = HisToGene(config, SHAPE).eval()
        (here,), (there,) = (network.see_sections([one]) for one in (section, moved))
        assert torch.equal(here, there) is alike
        assert any(f'network.position = "{position}"' in text for text in HisToGene.cautions(config)) is not alike


@pytest.mark.parametrize("kind", [HisToGene, Hist2ST])
def test_a_network_for_whole_sections_says_that_it_predicts_from_the_spots_that_are_given(kind):
    config = HISTOGENE if kind is HisToGene else HIST2ST
    assert kind.cautions(config)[0].startswith(f"{kind.__name__} predicts a spot from all spots given of its section")


def test_batch_norms_that_learned_from_few_spots_are_said():
    few = "A training section has 31 labelled spots: the batch norms of Hist2ST's stem learn rough statistics"
    for stem, spots, said in (("pixels", (40, 31), True), ("pixels", (40, 32), False), ("features", (31,), False)):
        texts = Hist2ST.cautions(replace(HIST2ST, stem=stem), spots)
        assert any(text.startswith(few) for text in texts) is said


def spot_names(edges: Tensor, spots: int) -> list[set[int]]:
    """The neighbours of each spot, without the fillers."""
    return [{row for row in rows if row < spots} for rows in edges.tolist()]


def test_edges_on_a_square_array_join_spots_within_the_radius():
    section = make_section(SQUARE)
    assert spot_names(section.edges(1.0), 20)[6] == {1, 5, 7, 11}
    assert spot_names(section.edges(1.5), 20)[6] == {0, 1, 2, 5, 7, 10, 11, 12}
    assert spot_names(section.edges(2.0), 20)[0] == {1, 2, 5, 6, 10}
    assert section.edges(1.0) is section.edges(1.0)


def test_edges_on_a_hexagonal_array_join_the_six_around():
    axial = torch.tensor([(x, y) for y in range(-1, 2) for x in range(-1, 2)])
    hexagonal = replace(make_section(axial), hexagonal=True)
    around = [(0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1)]
    joined = spot_names(hexagonal.edges(1.0), 9)[4]
    assert sorted(map(tuple, axial[sorted(joined)].tolist())) == sorted(around)
    assert len(spot_names(make_section(axial).edges(1.5), 9)[4]) == 8


def test_the_nearest_are_chosen_by_distance_and_then_by_place_whatever_the_order_of_spots():
    section = make_section(SQUARE)
    near = section.edges(2.0, nearest=4)
    assert spot_names(near, 20)[6] == {1, 5, 7, 11}
    assert spot_names(near, 20)[1] == {0, 2, 6, 5}  # of the two diagonal ones below, the left
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    permuted = replace(section, grid_xy=SQUARE[order])
    back = [{int(order[row]) for row in rows} for rows in spot_names(permuted.edges(2.0, nearest=4), 20)]
    assert back == [spot_names(near, 20)[number] for number in order.tolist()]


def test_spots_of_one_cell_are_joined_and_lonely_ones_have_no_edge():
    doubled = make_section(torch.tensor([(0, 0), (0, 0), (0, 1), (9, 9)]))
    assert spot_names(doubled.edges(1.0), 4) == [{1, 2}, {0, 2}, {0, 1}, set()]
    assert make_section(ONE_SPOT).edges(2.0).shape == (1, 0)


def test_a_graph_layer_takes_the_mean_of_neighbours():
    layer = GraphLayer(2)
    nn.init.eye_(layer.linear.weight)
    chain, spots = torch.tensor([(0, 0), (1, 0), (2, 0)]), torch.tensor([(1.0, 0.0), (0.0, 2.0), (3.0, 4.0)])
    out = layer(spots, Section(spots, chain).edges(1.0))
    half = 0.5**0.5
    assert torch.allclose(out, torch.tensor([(0, 1), (half, half), (0, 1)]), atol=1e-6)


def test_without_attention_and_with_itself_as_its_only_neighbour_hist2st_is_layers_and_an_lstm_of_each_spot():
    torch.manual_seed(0)
    network = Hist2ST(replace(HIST2ST, position="none"), SHAPE).eval()
    network.blocks = nn.ModuleList()
    section = make_section(10 * SQUARE)  # too far apart for edges
    depths, spots = [], network.stem(section.pooled)
    for layer in network.graph:
        spots = nn.functional.normalize(layer.linear(spots).relu(), dim=1)
        depths.append(spots)
    of_each = [network.lstm(torch.stack(depths, dim=1)[[row]])[0].mean(dim=1) for row in range(len(SQUARE))]
    expected = network.head(network.norm(torch.cat(of_each)))
    assert torch.allclose(network(make_batch([section])), expected, atol=1e-5)
    assert expected.std(dim=0).max() > 1e-3


def test_a_spot_alone_gets_zeros_and_one_that_is_its_only_neighbour_itself():
    layer = GraphLayer(2)
    nn.init.eye_(layer.linear.weight)
    spots = torch.tensor([(3.0, 4.0)])
    assert torch.equal(layer(spots, torch.empty(1, 0, dtype=torch.long)), torch.zeros(1, 2))
    assert torch.allclose(layer(spots, torch.tensor([[0]])), torch.tensor([(0.6, 0.8)]))


def test_likelihood_of_counts_is_the_hand_example():
    two, one = torch.full((2, 1), 2.0).log(), torch.full((2, 1), 1.0)
    dispersion, dropout = one.expm1().log(), (one / 9).log()  # softplus and sigmoid make 1 and .1 of them
    counts = torch.tensor([[0.0], [3.0]])
    for factor, expected in ((1.0, 1.6683), (0.5, 1.7379)):
        loss = count_loss(counts, torch.full((2,), factor), two, dispersion, dropout)
        assert float(loss) == pytest.approx(expected, abs=1e-4)
    for row, expected in enumerate((0.9163, 2.4204)):
        factor = torch.zeros(2)
        factor[row] = 1.0  # the other spot is left out
        assert float(count_loss(counts, factor, two, dispersion, dropout)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_extreme_logits_have_a_finite_likelihood_and_finite_gradients(logit):
    logits = [torch.full((2, 2), logit, requires_grad=True) for _ in range(3)]
    loss = count_loss(torch.tensor([[0.0, 7.0], [1e5, 0.0]]), torch.ones(2), *logits)
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad.isfinite().all() for value in logits)


def test_spots_without_any_count_have_a_finite_loss_of_their_own_kind():
    zeros = torch.zeros(2, 3, requires_grad=True)
    loss = count_loss(torch.zeros(2, 3), torch.zeros(2), zeros, zeros, zeros)
    loss.backward()
    assert loss.detach() == 0
    assert torch.equal(zeros.grad, torch.zeros(2, 3))


def test_size_factors_are_of_the_median_spot_with_counts_of_the_own_section():
    counts = torch.tensor([[1.0, 1.0], [3.0, 1.0], [0.0, 0.0], [50.0, 50.0], [0.0, 0.0]])
    section = torch.tensor([0, 0, 0, 1, 2])
    assert torch.allclose(size_factors(counts, section, 3), torch.tensor([2 / 3, 4 / 3, 0, 1, 0]))


def test_distillation_is_the_hand_example_with_gradients_into_both():
    plain = torch.tensor([[2.0]], requires_grad=True)
    copies = torch.tensor([[[1.0]], [[3.0]]], requires_grad=True)
    loss = distillation_loss(plain, copies, torch.tensor([[1.0], [3.0]]).log())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.25)
    assert float(plain.grad) == pytest.approx(2 * (2 - 2.5))
    assert copies.grad.flatten().tolist() == pytest.approx([0.25, 0.75])


def test_the_total_of_hist2st_is_the_published_weighted_sum():
    torch.manual_seed(0)
    network = Hist2ST(HIST2ST, SHAPE)
    losses = network.losses(make_batch([make_section(SQUARE), make_section(ISOLATED)]), torch.Generator())
    weights = {"prediction": 1.0, "counts": 0.25, "distillation": 0.5}
    assert losses.keys() - {"total"} == weights.keys()
    total = sum(weight * float(losses[name].detach()) for name, weight in weights.items())
    assert float(losses["total"].detach()) == pytest.approx(total)
    losses["total"].backward()
    assert all(value.grad.abs().sum() > 0 for value in network.parameters())


def test_hist2st_makes_and_asks_for_no_more_than_its_losses_take():
    plain = replace(HIST2ST, loss=Hist2STLossConfig(counts=0.0))
    needs, everything = Hist2ST.needs(plain), Hist2ST.needs(HIST2ST)
    assert (needs.whole_sections, needs.counts, needs.orientations) == (True, False, False)
    assert (everything.whole_sections, everything.counts, everything.orientations) == (True, True, True)
    losses = Hist2ST(plain, SHAPE).losses(make_batch([replace(make_section(SQUARE), turned=None)]))
    assert losses.keys() == {"prediction", "total"}


@pytest.mark.parametrize(("genes", "count"), [(785, 75_789_833), (171, 73_272_433), (250, 73_596_333)])
def test_hist2st_has_the_published_size(genes, count):
    config = load_config("published", overrides=["method=hist2st"]).network
    with torch.device("meta"):
        assert parameters(Hist2ST(config, Shape(genes, 1024, 197, 5))) == count


@pytest.mark.parametrize("stem", [histogene.PixelStem(1024), hist2st.PixelStem()], ids=["histogene", "hist2st"])
def test_a_pixel_stem_makes_a_vector_of_each_tile_alone_in_evaluation_mode(stem):
    tiles = torch.rand(3, 3, 112, 112)
    assert stem(tiles).shape == (3, 1024)
    stem.eval()
    assert torch.allclose(stem(tiles)[0], stem(tiles[:1])[0], atol=1e-5)
    darker = stem(tiles * 0.5)
    assert not torch.allclose(darker, stem(tiles), atol=1e-3)


def test_the_pixels_of_hist2st_have_one_width():
    with pytest.raises(GeneDMLError, match=r"network.width = 16, but .* set network.width = 1024"):
        Hist2ST(replace(HIST2ST, stem="pixels"), SHAPE)


@pytest.mark.parametrize("kind", [HisToGene, Hist2ST])
def test_pixels_are_seen_of_the_spots_of_the_batch_each_in_its_own_section(kind):
    torch.manual_seed(0)
    config = replace(HISTOGENE if kind is HisToGene else HIST2ST, stem="pixels", width=1024)
    network = kind(config, SHAPE)
    batch = make_batch([make_section(SQUARE[:5]), make_section(SQUARE[4:8])])
    batch = replace(batch, tiles=(torch.rand(9, 3, 112, 112),))
    network.losses(batch, torch.Generator().manual_seed(1))["total"].backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())
    network.eval()
    assert network.see_sections(batch.sections) is None
    whole = network(batch)
    order = torch.tensor([7, 0, 8, 3, 1, 6, 2, 5, 4])
    shuffled = replace(batch, section=batch.section[order], row=batch.row[order], tiles=(batch.tiles[0][order],))
    assert torch.allclose(network(shuffled), whole[order], atol=1e-4)
    tiles = batch.tiles[0].clone()
    tiles[:5] = 0
    changed = network(replace(batch, tiles=(tiles,)))
    assert torch.allclose(changed[5:], whole[5:], atol=1e-5)
    assert not torch.allclose(changed[:5], whole[:5], atol=1e-4)


def test_tiles_are_turned_as_the_features_are():
    tiles = torch.rand(2, 3, 4, 4)
    for orientation in range(8):
        expected = torch.rot90(tiles[0].permute(1, 2, 0), orientation % 4)
        expected = expected.flip(1) if orientation >= 4 else expected
        assert torch.equal(turned(tiles, orientation)[0].permute(1, 2, 0), expected)


def test_places_of_spots_that_are_not_asked_for_are_not_marked_as_trained():
    positions = TablePositions(5, 4)
    grid_xy = torch.tensor([[10, 20], [11, 21], [13, 24]])
    assert torch.equal(
        positions(grid_xy, torch.tensor([1])), positions.tables[0].weight[[1]] + positions.tables[1].weight[[1]]
    )
    assert positions.trained.nonzero().tolist() == [[0, 1], [1, 1]]
