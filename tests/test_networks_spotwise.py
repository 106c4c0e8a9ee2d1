"""Networks that see spots: hand examples, published sizes, and what must not change their predictions."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genedml.errors import GeneDMLError
from genedml.networks.bank import Bank
from genedml.networks.bleep import BLEEP, BLEEPConfig, ProjectionHead, similarity_loss
from genedml.networks.deepspot import AveragedLinear, DeepSpot, DeepSpotConfig
from genedml.networks.egn import EGN, AttentivePool, EGNConfig, egn_losses
from genedml.networks.inputs import Batch, Section
from genedml.networks.layers import RelativePositionBias, hide
from genedml.networks.mlp import MLP, LinearConfig, MLPConfig
from genedml.networks.network import Network, Shape
from genedml.networks.st_net import STNet, STNetConfig
from genedml.networks.triplex import TRIPLEX, TRIPLEXConfig, triplex_losses
from genedml.schema import TransformerConfig, from_dict

WIDTH, GENES, TOKENS, SIDE, BANK = 8, 5, 6, 3, 12
SHAPE = Shape(GENES, WIDTH, TOKENS, SIDE, BANK)
SMALL = TransformerConfig(depth=2, heads=2, mlp_width=16, dropout=0.2)
NETWORKS = {
    "linear": (MLP, LinearConfig()),
    "mlp": (MLP, MLPConfig(hidden_widths=(16,), dropout=0.2)),
    "st-net": (STNet, STNetConfig()),
    "bleep": (BLEEP, BLEEPConfig(shared_width=16, references=3)),
    "egn": (EGN, EGNConfig(16, SMALL, exchange_heads=2, exchange_channels=4, exchange_hidden_width=8, exemplars=3)),
    "triplex": (TRIPLEX, TRIPLEXConfig(16, SMALL, SMALL, SMALL)),
    "deepspot": (DeepSpot, DeepSpotConfig(16)),
}
SPOTWISE = [name for name in NETWORKS if name != "triplex"]
STARTS_CONSTANT = ["linear", "mlp", "st-net"]
BANKED = ["bleep", "egn"]
CONTEXT = ("tokens", "neighbor", "neighbor_mask", "label", "patient")


def make_batch(spots: int = 7, seed: int = 1, patients: int = 0) -> Batch:
    """Spots of one section in a row, the last of them far away; labels and patients where there are patients."""
    random = torch.Generator().manual_seed(seed)
    grid_xy = torch.stack([torch.arange(spots), torch.zeros(spots, dtype=torch.long)], dim=1)
    grid_xy[-1] = torch.tensor([40, 40])
    mask = torch.rand(spots, SIDE**2, generator=random) > 0.3
    mask[:, SIDE**2 // 2] = True
    return Batch(
        [Section(torch.randn(spots, WIDTH, generator=random), grid_xy)],
        torch.zeros(spots, dtype=torch.long),
        torch.arange(spots),
        tokens=torch.randn(spots, TOKENS, WIDTH, generator=random),
        neighbor=torch.randn(spots, SIDE**2, WIDTH, generator=random),
        neighbor_mask=mask,
        label=torch.rand(spots, GENES, generator=random) if patients else None,
        patient=torch.arange(spots) % patients if patients else None,
    )


def take(batch: Batch, rows: Tensor) -> Batch:
    """Some spots of the same section."""
    parts = {name: getattr(batch, name)[rows] for name in CONTEXT if getattr(batch, name) is not None}
    return replace(batch, section=batch.section[rows], row=rows, **parts)


def training_spots() -> Batch:
    return make_batch(BANK, seed=2, patients=3)


def make_network(name: str, shape: Shape = SHAPE) -> Network:
    torch.manual_seed(0)
    kind, config = NETWORKS[name]
    network = kind(config, shape).eval()
    if name in STARTS_CONSTANT:  # as if it had been trained
        nn.init.normal_(network.head.weight)
    with torch.no_grad():
        network.remember([training_spots()])
    return network


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    """Every network, in evaluation mode, with a bank where it needs one."""
    return make_network(request.param)


@pytest.fixture(params=SPOTWISE)
def spotwise(request) -> Network:
    """Every network whose predictions do not depend on other spots."""
    return make_network(request.param)


@pytest.fixture(params=BANKED)
def banked(request) -> Network:
    """Every network with a bank."""
    return make_network(request.param)


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_two_evaluations_are_equal_to_the_bit(network):
    batch = make_batch()
    assert torch.equal(network(batch), network(batch))


def test_training_mode_is_only_that_of_dropout(network):
    batch = make_batch()
    expected = network(batch)
    network.train()
    for part in network.modules():
        if hasattr(part, "dropout"):
            part.dropout = 0.0
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    assert torch.equal(network(batch), expected)


def test_the_order_of_spots_does_not_matter(network):
    batch, order = make_batch(), torch.tensor([3, 0, 6, 5, 1, 2, 4])
    assert torch.allclose(network(take(batch, order)), network(batch)[order], atol=1e-5)


def test_a_spot_alone_is_predicted_as_in_a_batch(spotwise):
    batch = make_batch()
    alone = make_batch()
    section = Section(batch.pooled[4:5], alone.sections[0].grid_xy[4:5])
    alone = replace(take(batch, torch.tensor([4])), sections=[section], row=torch.tensor([0]))
    assert torch.allclose(spotwise(alone), spotwise(batch)[4:5], atol=1e-5)


def test_spots_differ_and_each_sees_its_own_tile(network):
    assert make_batch().pooled.std(dim=0).min() > 0.1
    assert network(make_batch()).std(dim=0).max() > 1e-3


def test_a_section_of_one_spot_and_an_isolated_spot_train_and_are_finite(network):
    network.train()
    for spots in (1, 7):
        network.zero_grad()
        network.losses(make_batch(spots, patients=3))["total"].backward()
        assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)
    network.eval()
    assert network(make_batch(1)).isfinite().all()
    assert network(make_batch()).isfinite().all()


def test_the_loss_reaches_every_parameter_but_what_follows_the_last_exchange(network):
    network.losses(make_batch(patients=3))["total"].backward()
    unreached = [name for name, value in network.named_parameters() if value.grad is None]
    last = [f"blocks.1.exchange.exemplar_norm.{name}" for name in ("weight", "bias")]
    assert unreached == (last if isinstance(network, EGN) else [])


def test_the_state_holds_all_that_a_prediction_needs(network):
    again = type(network)(network.config, SHAPE).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(make_batch()), network(make_batch()))


@pytest.mark.parametrize("name", STARTS_CONSTANT)
def test_it_starts_at_the_mean_label_and_nothing_before_the_head_moves_in_the_first_step(name):
    kind, config = NETWORKS[name]
    network, mean = kind(config, SHAPE), torch.linspace(0, 2, GENES)
    network.start_at(mean)
    assert torch.equal(network(make_batch()), mean.expand(7, GENES))
    network.losses(make_batch(patients=3))["total"].backward()
    trunk = [value.grad for name, value in network.named_parameters() if not name.startswith("head.")]
    assert all((grad == 0).all() for grad in trunk)
    assert network.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["egn", "triplex", "deepspot"])
def test_others_start_about_the_mean_label(name):
    network, mean = make_network(name), torch.linspace(10, 50, GENES)
    network.start_at(mean)
    assert torch.allclose(network(make_batch()).mean(dim=0), mean, atol=3)


@pytest.mark.parametrize(("reduction", "expected"), [("sum", 3.0), ("mean", 1.5)])
def test_the_loss_of_st_net_is_that_of_the_hand_example(reduction, expected):
    network = STNet(STNetConfig(reduction), Shape(2, WIDTH, TOKENS, SIDE))
    label = torch.tensor([[1.0, 1.0], [2.0, 0.0]])  # it predicts 0, so these are its errors
    assert network.losses(replace(make_batch(2), label=label))["total"].item() == expected


def test_st_net_of_features_and_the_linear_floor_are_the_published_head():
    assert parameters(STNet(STNetConfig(), Shape(250, 1024, 1, 5))) == 256_250
    assert parameters(MLP(LinearConfig(), Shape(250, 1024, 1, 5))) == 256_250


IDENTITY, SWAPPED, SLANTED = torch.eye(2), torch.eye(2).flip(0), torch.tensor([[1.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("gene", "temperature", "expected"),
    [(IDENTITY, 1.0, 0.5822), (SWAPPED, 1.0, 1.0443), (SLANTED, 1.0, 0.6817), (SLANTED, 0.5, 0.6578)],
)
def test_the_loss_of_bleep_is_that_of_the_hand_example(gene, temperature, expected):
    assert similarity_loss(IDENTITY, gene, temperature).item() == pytest.approx(expected, abs=5e-5)


def test_hard_targets_at_chance_cost_the_logarithm_of_the_batch():
    alike = torch.ones(128, 4)
    assert similarity_loss(alike, alike, 0.07, "hard").item() == pytest.approx(math.log(128), rel=1e-5)


def test_the_loss_of_bleep_takes_its_settings():
    batch, network = make_batch(patients=3), make_network("bleep")
    image, gene = network.image_head(batch.pooled), network.gene_head(batch.label)
    raw = BLEEP(BLEEPConfig(16, normalise=False, temperature=1.0), SHAPE).eval()
    raw.load_state_dict(network.state_dict())
    assert torch.allclose(raw.losses(batch)["total"], similarity_loss(image, gene, 1.0))
    unit = [nn.functional.normalize(view, dim=1) for view in (image, gene)]
    assert torch.allclose(network.losses(batch)["total"], similarity_loss(*unit, 0.07))


def test_bleep_of_features_has_the_published_heads():
    assert parameters(BLEEP(BLEEPConfig(), Shape(250, 2048, 1, 5))) == 721_408
    assert parameters(BLEEP(BLEEPConfig(), Shape(250, 1024, 1, 5))) == 459_264


def test_bleep_predicts_the_mean_label_of_the_two_nearest_by_cosine():
    network = BLEEP(BLEEPConfig(2, references=2), Shape(1, 2, 1, SIDE, bank=3)).eval()
    network.image_head = nn.Identity()
    keys, label = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0], [10.0], [4.0]])
    section, three = Section(keys, torch.zeros(3, 2, dtype=torch.long)), torch.arange(3)
    spots = Batch([section], torch.zeros(3, dtype=torch.long), three, label=label, patient=three)
    network.bank.fill([spots], lambda batch: nn.functional.normalize(batch.pooled, dim=1))
    query = Section(torch.tensor([[1.0, 0.2]]), torch.zeros(1, 2, dtype=torch.long))
    assert network(Batch([query], torch.tensor([0]), torch.tensor([0]))).item() == 2


def test_bleep_predicts_within_the_range_of_its_references():
    spots, network = training_spots(), make_network("bleep")
    predicted = network(make_batch(200, seed=9))
    assert (predicted >= spots.label.amin(dim=0)).all()
    assert (predicted <= spots.label.amax(dim=0)).all()


def test_bleep_that_is_trained_finds_the_references_of_each_tile():
    torch.manual_seed(0)
    kinds = torch.arange(BANK) % 3
    spots = training_spots()
    section = Section(torch.eye(WIDTH)[kinds] + 0.1 * spots.pooled, spots.sections[0].grid_xy)
    spots = replace(spots, sections=[section], label=torch.eye(GENES)[kinds])
    network = BLEEP(BLEEPConfig(16, dropout=0.0, references=4), SHAPE)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        network.losses(spots)["total"].backward()
        optimiser.step()
    network.eval()
    network.remember([spots])
    assert torch.allclose(network(replace(spots, patient=None)), spots.label)


def test_the_loss_of_egn_is_that_of_the_hand_example():
    label = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    predicted = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    losses = egn_losses(predicted, label, 0.5)
    assert losses["prediction"].item() == pytest.approx(1 / 3, abs=1e-6)
    assert losses["correlation"].item() == pytest.approx(0.25, abs=1e-6)
    assert losses["total"].item() == pytest.approx(0.4583, abs=5e-5)


def test_a_gene_that_does_not_vary_counts_as_uncorrelated():
    label = torch.tensor([[0.0, 3.0], [1.0, 3.0]])
    assert egn_losses(label, label, 1.0)["correlation"].item() == pytest.approx(0.5, abs=1e-5)


def test_the_pool_of_egn_is_that_of_the_hand_example():
    pool = AttentivePool(1)
    nn.init.ones_(pool.project.weight)
    nn.init.zeros_(pool.project.bias)
    assert pool(torch.tensor([[[0.0], [10.0]]])).item() == pytest.approx(8.6553, abs=5e-5)


def test_exemplars_without_expression_say_nothing():
    network = make_network("egn")
    nn.init.zeros_(network.expression.weight)
    nn.init.zeros_(network.expression.bias)
    nn.init.zeros_(network.blocks[1].exchange.value.bias)
    silent = network(make_batch())
    network.bank.key.add_(1)
    assert torch.equal(network(make_batch()), silent)


def test_egn_reads_the_expression_of_its_exemplars():
    network = make_network("egn")
    before = network(make_batch())
    network.bank.label.copy_(network.bank.label.flip(0))
    assert not torch.allclose(network(make_batch()), before, atol=1e-4)


def test_the_order_and_the_parts_of_the_references_do_not_matter(banked):
    expected, spots = banked(make_batch()), training_spots()
    shuffled = torch.randperm(BANK, generator=torch.Generator().manual_seed(5))
    banked.remember([take(spots, shuffled[:5]), take(spots, shuffled[5:])])
    assert torch.equal(banked(make_batch()), expected)


def test_which_of_equally_near_spots_are_found_does_not_hang_on_their_order():
    label = torch.rand(BANK, GENES, generator=torch.Generator().manual_seed(7))
    spots = replace(training_spots(), label=label)
    chosen = []
    for order in (torch.arange(BANK), torch.arange(BANK).flip(0)):
        bank = Bank(BANK, WIDTH, GENES).eval()
        bank.fill([take(spots, order)], lambda batch: torch.ones(len(batch), WIDTH))
        chosen.append(bank.label[bank.nearest(torch.zeros(1, WIDTH), 3)[0]])
    assert torch.equal(*chosen)


def test_the_nearest_spot_of_a_training_tile_is_itself_unless_its_patient_is_left_out():
    spots = training_spots()
    bank = Bank(BANK, WIDTH, GENES).eval()
    bank.fill([spots], lambda batch: batch.pooled)
    row, there = bank.nearest(spots.pooled, 1)
    assert there.all()
    assert torch.equal(bank.key[row[:, 0]], spots.pooled)
    row, there = bank.nearest(spots.pooled, BANK, spots.patient)
    assert (there.sum(dim=1) == BANK - BANK // 3).all()
    assert ((bank.patient[row] != spots.patient[:, None]) == there).all()


def test_a_training_spot_learns_nothing_from_its_own_patient(banked):
    """Other labels of patient 0 in the bank change what spots of patient 1 are shown, and not those of patient 0."""
    spots = training_spots()
    spots = replace(spots, patient=torch.arange(BANK) // (BANK // 2))
    banked.remember([spots])
    before = banked(spots)
    banked.bank.label[banked.bank.patient == 0] += 1.0
    moved = (banked(spots) - before).abs().amax(dim=1)
    assert (moved[spots.patient == 0] == 0).all()
    assert (moved[spots.patient == 1] > 1e-4).all()


def test_an_empty_bank_and_one_of_other_genes_or_spots_are_refused_in_a_sentence(banked):
    kind, config = next(row for row in NETWORKS.values() if isinstance(banked, row[0]))
    with pytest.raises(GeneDMLError, match="The bank is empty, so there is nothing to look up"):
        kind(config, SHAPE).eval()(make_batch())
    with pytest.raises(GeneDMLError):
        kind(config, replace(SHAPE, bank=0)).eval()(make_batch())
    spots = training_spots()
    with pytest.raises(GeneDMLError, match=rf"labels of {GENES} genes, and its spots have {GENES - 1}"):
        banked.remember([replace(spots, label=spots.label[:, 1:])])
    with pytest.raises(GeneDMLError, match=rf"The bank is for {BANK} spots with a label, and 7 were given"):
        banked.remember([make_batch(7, patients=3)])


def test_the_loss_of_triplex_is_that_of_the_hand_example():
    views = {"target": 2.0, "neighbor": 3.0, "global": 4.0}
    of_views = {view: torch.full((1, 1), value) for view, value in views.items()}
    losses = triplex_losses(torch.ones(1, 1), of_views, torch.zeros(1, 1), 0.3)
    assert losses["total"].item() == pytest.approx(1 + 0.7 * (4 + 9 + 16) + 0.3 * (1 + 4 + 9))
    assert losses["total"].item() == pytest.approx(25.5)
    assert losses["neighbor"].item() == pytest.approx(0.7 * 9 + 0.3 * 4)


def transformer(depth: int, heads: int, mlp_width: int) -> TransformerConfig:
    return TransformerConfig(depth=depth, heads=heads, mlp_width=mlp_width, dropout=0.3)


def triplex_sizes(data_set: str, width: int) -> TRIPLEXConfig:
    """The published settings: depth, heads and MLP ratio of neighbor, global and fusion transformer."""
    sizes = {
        "HER2ST": ((4, 4, 4), (5, 8, 4), (1, 4, 4)),
        "STNet": ((4, 8, 4), (3, 8, 2), (3, 16, 4)),
        "skinST": ((4, 16, 1), (2, 16, 1), (2, 8, 4)),
    }
    return TRIPLEXConfig(width, *(transformer(depth, heads, r * width) for depth, heads, r in sizes[data_set]))


@pytest.mark.parametrize(
    ("data_set", "neighbor", "global_", "fusion", "total", "millions_at_1024"),
    [
        ("HER2ST", 12_604_816, 15_760_384, 3_151_872, 32_030_072, 127.0),
        ("STNet", 12_605_216, 6_309_888, 9_453_568, 28_881_672, 114.4),
        ("skinST", 6_308_416, 3_159_040, 6_302_720, 16_283_176, 64.0),
    ],
)
def test_triplex_has_the_published_size(data_set, neighbor, global_, fusion, total, millions_at_1024):
    with torch.device("meta"):
        network = TRIPLEX(triplex_sizes(data_set, 512), Shape(250, 512, 49, 5))
        wide = TRIPLEX(triplex_sizes(data_set, 1024), Shape(250, 1024, 197, 5))
    assert parameters(network.neighbor_encoder) == neighbor
    assert parameters(network.global_encoder) == global_
    assert parameters(network.fusion) == fusion
    assert parameters(network) == total
    assert parameters(wide) / 1e6 == pytest.approx(millions_at_1024, abs=0.05)


def test_both_attentions_of_triplex_agree_where_they_see_the_same():
    fusion, batch = make_network("triplex").fusion, make_batch()
    query, tokens = torch.randn(7, 16), torch.randn(7, SIDE**2, 16)
    everywhere = torch.ones(7, SIDE**2, dtype=torch.bool)
    assert torch.allclose(fusion.attend(query, tokens), fusion.attend(query, tokens, hide(everywhere, tokens.dtype)))
    hidden = hide(batch.neighbor_mask, tokens.dtype)
    assert not torch.allclose(fusion.attend(query, tokens), fusion.attend(query, tokens, hidden), atol=1e-4)


def test_tiles_outside_the_slide_change_nothing_in_triplex():
    network, batch = make_network("triplex"), make_batch(patients=3)
    noise = torch.where(batch.neighbor_mask[..., None], batch.neighbor, 1e3)
    noisy = replace(batch, neighbor=noise)
    assert torch.equal(network(noisy), network(batch))
    assert torch.equal(network.losses(noisy)["total"], network.losses(batch)["total"])


def test_permuting_the_spots_of_a_section_with_their_places_permutes_what_triplex_predicts():
    network, batch, order = make_network("triplex"), make_batch(), torch.tensor([3, 0, 6, 5, 1, 2, 4])
    section = batch.sections[0]
    permuted = Section(section.pooled[order], section.grid_xy[order])
    again = replace(take(batch, order), sections=[permuted], row=torch.arange(7))
    assert torch.allclose(network(again), network(batch)[order], atol=1e-5)


def test_triplex_sees_its_section_once_for_many_batches_and_depends_on_its_spots():
    network, batch = make_network("triplex"), make_batch()
    context = network.see_sections(batch.sections)
    parts = [network(take(batch, rows), context) for rows in torch.arange(7).split(3)]
    assert torch.allclose(torch.cat(parts), network(batch), atol=1e-5)
    section = batch.sections[0]
    fewer = replace(take(batch, torch.arange(4)), sections=[Section(section.pooled[:4], section.grid_xy[:4])])
    assert not torch.allclose(network(fewer), network(batch)[:4], atol=1e-5)


def test_offsets_without_sign_share_a_score_with_their_mirror_images():
    bias = RelativePositionBias(5, 2, signed=False)
    scores = bias()
    assert bias.table.shape == (2, 25)
    assert torch.equal(scores, scores.transpose(1, 2))
    assert torch.equal(scores[:, 0, 1], scores[:, 23, 22])
    assert (scores[:, 0, 1] != scores[:, 0, 5]).all()


def test_attention_to_a_source_of_the_same_tokens_is_self_attention():
    network, x = make_network("triplex"), torch.randn(2, 4, 16)
    block = network.fusion.blocks[0]
    assert torch.allclose(block(x, source=x), block(x), atol=1e-6)


def test_deepspot_takes_its_tokens_and_the_tiles_on_the_slide_as_sets():
    network, batch = make_network("deepspot"), make_batch()
    expected, mixed = network(batch), torch.tensor([3, 1, 0, 2, 5, 4])
    around = torch.arange(SIDE**2).flip(0)
    shuffled = replace(
        batch,
        tokens=batch.tokens[:, mixed],
        neighbor=batch.neighbor[:, around],
        neighbor_mask=batch.neighbor_mask[:, around],
    )
    assert torch.allclose(network(shuffled), expected, atol=1e-5)
    outside = batch.neighbor.masked_fill(~batch.neighbor_mask[..., None], 1e3)
    assert torch.equal(network(replace(batch, neighbor=outside)), expected)
    inside = batch.neighbor.masked_fill(batch.neighbor_mask[..., None], 1e3)
    assert not torch.allclose(network(replace(batch, neighbor=inside)), expected, atol=1e-2)


def test_maps_are_averaged_after_their_relu():
    maps = AveragedLinear(1, 1, 2, relu=True)
    with torch.no_grad():
        maps.linear.weight.copy_(torch.tensor([[1.0], [-3.0]]))
        maps.linear.bias.zero_()
    assert maps(torch.tensor([[2.0]])).item() == 1.0
    assert maps(torch.tensor([[-2.0]])).item() == 3.0


def make_mclstexp(**settings: str) -> BLEEP:
    torch.manual_seed(0)
    config = BLEEPConfig(16, targets="hard", references=3, attention_depth=2, attention_heads=2, **settings)
    return BLEEP(config, SHAPE).eval()


def test_an_expression_of_mclstexp_depends_on_its_batch_and_not_on_the_order_and_a_tile_on_itself_alone():
    network, spots = make_mclstexp(), training_spots()
    order = torch.randperm(BANK, generator=torch.Generator().manual_seed(5))
    labels = network.embed_labels(spots)
    assert torch.allclose(network.embed_labels(take(spots, order)), labels[order], atol=1e-5)
    assert not torch.allclose(network.embed_labels(take(spots, order[:4])), labels[order[:4]], atol=1e-3)
    assert torch.allclose(network.embed_tiles(take(spots, order[:4])), network.embed_tiles(spots)[order[:4]], atol=1e-6)
    network.remember([spots])
    expected = network(make_batch())
    network.remember([take(spots, order)])
    assert torch.allclose(network(make_batch()), expected, atol=1e-5)


def test_mclstexp_knows_places_only_if_it_is_told_to():
    spots = training_spots()
    far = Section(spots.sections[0].pooled, spots.sections[0].grid_xy.flip(0))
    for position in ("none", "sine"):
        network = make_mclstexp(position=position)
        moved = (network.embed_labels(replace(spots, sections=[far])) - network.embed_labels(spots)).abs().max()
        assert (moved > 1e-3) == (position == "sine")


@pytest.mark.parametrize("unread", [{"position": "sine"}, {"attention_heads": 4}])
def test_settings_of_mclstexp_that_bleep_does_not_read_are_refused(unread):
    with pytest.raises(GeneDMLError, match="are of the blocks of mclSTExp, and attention_depth = 0 has none"):
        BLEEP.check(from_dict(BLEEPConfig, unread), [], [])


def test_mclstexp_is_trained_by_hard_targets_in_every_part():
    network, spots = make_mclstexp(), training_spots()
    loss = network.losses(spots)["total"]
    views = [nn.functional.normalize(v, dim=1) for v in (network.embed_tiles(spots), network.embed_labels(spots))]
    assert torch.allclose(loss, similarity_loss(*views, 0.07, "hard"))
    loss.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())


def test_a_projection_is_a_residual_that_ends_with_unit_variance():
    out = ProjectionHead(WIDTH, BLEEPConfig(16)).eval()(make_batch().pooled)
    assert torch.allclose(out.var(dim=1, unbiased=False), torch.ones(7), atol=1e-3)
