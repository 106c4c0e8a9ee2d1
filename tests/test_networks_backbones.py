"""Networks with a backbone of their own on raw tiles: published sizes, what is predicted, where weights come from."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, nn

from genedml.config import load_config
from genedml.encoders.encoder import backbone_info, build_backbone, starting_weights
from genedml.errors import GeneDMLError
from genedml.networks.backbone import Backbone
from genedml.networks.bleep import BLEEP, BLEEPConfig
from genedml.networks.egn import EGN, EGNConfig
from genedml.networks.inputs import Batch, Section
from genedml.networks.layers import turned
from genedml.networks.network import Network, Shape
from genedml.networks.registry import build
from genedml.networks.st_net import STNet, STNetConfig
from genedml.networks.triplex import TRIPLEX, TRIPLEXConfig
from genedml.schema import TransformerConfig

TINY = "test_resnet.r160_in1k"
WIDTH, GENES, SPOTS = 8, 5, 6
SHAPE = Shape(GENES, WIDTH, 5, 3, bank=SPOTS)
SMALL = TransformerConfig(depth=2, heads=2, mlp_width=16, dropout=0.2)
PIXELS = {"stem": "pixels", "backbone": TINY}
NETWORKS = {
    "st-net": (STNet, STNetConfig(turned_mean=True, **PIXELS)),
    "bleep": (BLEEP, BLEEPConfig(shared_width=16, references=3, **PIXELS)),
    "triplex": (TRIPLEX, TRIPLEXConfig(16, SMALL, SMALL, SMALL, **PIXELS)),
    "egn": (EGN, EGNConfig(16, SMALL, exemplars=3, stem="pixels")),
}
SIDES = {"egn": 256}
"""Of tiles; of the others any will do."""


def make_batch(side: int = 64) -> Batch:
    """Spots of one section in a row, with tiles, labels and two patients."""
    random = torch.Generator().manual_seed(1)
    grid_xy = torch.stack([torch.arange(SPOTS), torch.zeros(SPOTS, dtype=torch.long)], dim=1)
    return Batch(
        [Section(torch.randn(SPOTS, WIDTH, generator=random), grid_xy)],
        torch.zeros(SPOTS, dtype=torch.long),
        torch.arange(SPOTS),
        neighbor=torch.randn(SPOTS, 9, WIDTH, generator=random),
        neighbor_mask=torch.ones(SPOTS, 9, dtype=torch.bool),
        tiles=(torch.rand(SPOTS, 3, side, side, generator=random),),
        label=torch.rand(SPOTS, GENES, generator=random),
        patient=torch.arange(SPOTS) % 2,
    )


def take(batch: Batch, rows: Tensor) -> Batch:
    names = ("section", "row", "neighbor", "neighbor_mask", "label", "patient")
    return replace(batch, tiles=(batch.tiles[0][rows],), **{name: getattr(batch, name)[rows] for name in names})


@pytest.fixture(params=NETWORKS)
def method(request) -> str:
    return request.param


@pytest.fixture
def batch(method) -> Batch:
    return make_batch(SIDES.get(method, 64))


@pytest.fixture
def network(method, batch) -> Network:
    """A network on raw tiles in evaluation mode, with a bank where it needs one, its head as if it had been trained."""
    torch.manual_seed(0)
    kind, config = NETWORKS[method]
    made = kind(config, SHAPE).eval()
    if method == "st-net":
        nn.init.normal_(made.head.weight)
    with torch.no_grad():
        made.remember([replace(batch, tiles=())])
    return made


def published(name: str, width: int, genes: int = 250, *overrides: str, preset: str = "published") -> Network:
    """A network of the published settings without memory for its weights."""
    config = load_config(preset, overrides=[f"method={name}", *overrides]).network
    with torch.device("meta"):
        return build(name, config, Shape(genes, width, 1, 5, 10))


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_the_published_presets_have_the_published_sizes():
    assert parameters(published("st-net", 1024)) == 7_210_106
    assert parameters(published("bleep", 1024)) == 24_229_440
    of_its_authors = published("bleep", 1024, 3467)
    assert parameters(of_its_authors) == 25_052_992
    assert (parameters(of_its_authors.image_head), parameters(of_its_authors.gene_head)) == (590_848, 954_112)


@pytest.mark.parametrize(
    ("preset", "total"),
    [("published", 43_206_584), ("published-STNet", 40_058_184), ("published-skinST", 27_459_688)],
)
def test_triplex_has_the_published_size_with_its_backbone(preset, total):
    network = published("triplex", 512, preset=preset)
    assert parameters(network) == total
    assert parameters(network.backbone) == 11_176_512


@pytest.mark.parametrize(
    ("vector", "overrides", "total"),
    [
        (2048, (), 133_356_794),  # the authors' command: the vector of a ResNet-50
        (512, ("network.exchange_heads=16", "network.exemplars=9"), 140_700_922),  # the paper: that of a StyleGAN
    ],
)
def test_egn_has_both_published_sizes_but_for_what_its_authors_code_never_uses(vector, overrides, total):
    network = published("egn", vector, 250, *overrides)
    config = network.config
    inner = config.exchange_heads * config.exchange_channels
    unused = config.transformer.depth // 2 * (inner * config.width + config.width)  # a layer in each exchange
    unused += config.width  # and one position more than there are patches
    assert parameters(network) + unused == total


def test_it_predicts_twice_the_same_whatever_the_order_and_each_spot_alone_but_for_its_section(network, batch):
    whole = network(batch)
    assert torch.equal(network(batch), whole)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    assert torch.allclose(network(take(batch, order)), whole[order], atol=1e-5)
    assert torch.allclose(network(take(batch, order[:1])), whole[order[:1]], atol=1e-5)
    assert whole.std(dim=0).max() > 1e-4


def test_each_spot_is_predicted_from_its_own_pixels(network, batch):
    other = batch.tiles[0].clone()
    other[2] = 1 - other[2].flip(1)
    moved = (network(replace(batch, tiles=(other,))) - network(batch)).abs().amax(dim=1)
    if not isinstance(network, BLEEP):  # whose nearest references need not change
        assert moved[2] > 1e-4
    assert moved[[0, 1, 3, 4, 5]].max() < 1e-5


def test_a_step_moves_the_first_layer_and_prediction_leaves_the_statistics_of_batches(network, batch):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.losses(batch)["total"].backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    after = {name: value.clone() for name, value in network.state_dict().items()}
    first = next(name for name in after if name.startswith(("backbone.", "embed.")) and name.endswith("weight"))
    assert after[first].isfinite().all()
    assert not torch.equal(after[first], before[first])
    statistics = [name for name in after if name.endswith("running_mean")]
    assert len(statistics) > 0 or isinstance(network, EGN)
    assert all(not torch.equal(after[name], before[name]) for name in statistics)
    network.eval()(batch)
    assert all(torch.equal(network.state_dict()[name], after[name]) for name in after)


def test_the_mean_over_orientations_is_the_same_of_a_turned_tile_and_that_of_eight_predictions():
    batch = make_batch()
    torch.manual_seed(0)
    network = STNet(NETWORKS["st-net"][1], SHAPE).eval()
    nn.init.normal_(network.head.weight)
    mean = network(batch)
    assert torch.allclose(network(replace(batch, tiles=(turned(batch.tiles[0], 5),))), mean, atol=1e-5)
    plain = STNet(replace(NETWORKS["st-net"][1], turned_mean=False), SHAPE).eval()
    plain.load_state_dict(network.state_dict())
    each = [plain(replace(batch, tiles=(turned(batch.tiles[0], number),))) for number in range(8)]
    assert torch.allclose(torch.stack(each).mean(dim=0), mean, atol=1e-6)
    assert not torch.allclose(each[0], each[1], atol=1e-4)


def test_st_net_starts_at_the_mean_label_and_its_backbone_does_not_move_in_the_first_step():
    network, mean = STNet(NETWORKS["st-net"][1], SHAPE), torch.linspace(0, 2, GENES)
    network.start_at(mean)
    assert torch.equal(network(make_batch()), mean.expand(SPOTS, GENES))
    network.losses(make_batch())["total"].backward()
    assert all((value.grad == 0).all() for value in network.backbone.parameters())
    assert network.head.weight.grad.abs().max() > 0


def test_a_mean_over_orientations_of_features_is_refused_in_a_sentence():
    with pytest.raises(GeneDMLError, match=r"network.turned_mean is of raw tiles.*network.turned_mean = false"):
        STNet(STNetConfig(turned_mean=True), SHAPE)


def test_a_prediction_of_many_tiles_is_that_of_its_parts(monkeypatch):
    backbone, tiles = Backbone(TINY).eval(), make_batch().tiles[0]
    whole = backbone(tiles)
    monkeypatch.setattr("genedml.networks.backbone.AT_ONCE", 4)
    assert torch.allclose(backbone(tiles), whole, atol=1e-5)
    pooled = backbone.model(backbone.standardise(tiles))  # as timm pools
    assert torch.allclose(whole.mean(dim=1), pooled, atol=1e-5)


@pytest.mark.parametrize("name", ["densenet121.tv_in1k", "resnet50.tv_in1k", "resnet18.tv_in1k"])
def test_the_backbones_of_the_presets_are_known_to_the_hub(name):
    assert backbone_info(name).hub == f"timm/{name}"
    assert backbone_info(name).licence in ("apache-2.0", "bsd-3-clause")


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", TINY, "resnet18"])
def test_tiles_are_standardised_as_those_that_the_weights_of_a_backbone_were_trained_on(name):
    settings, tiles = timm.get_pretrained_cfg(name), torch.rand(2, 3, 4, 4)
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    assert torch.allclose(Backbone(name).standardise(tiles), (tiles - mean) / std)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("resnet81", "timm has no model 'resnet81'"),
        ("resnet18.no_such", r"timm has no weights 'resnet18\.no_such': Invalid pretrained tag"),
        ("hf-hub:owner/name", "timm has no model"),
        ("vit_base_patch16_384", r"vit_base_patch16_384 takes \(3, 384, 384\) tiles"),
    ],
)
def test_a_backbone_that_there_is_none_of_is_named(name, problem):
    with pytest.raises(GeneDMLError, match=problem):
        STNet(STNetConfig(stem="pixels", backbone=name), SHAPE)


def test_a_backbone_starts_from_a_file_with_or_without_its_classifier_and_counters(tmp_path):
    torch.manual_seed(3)
    trained = build_backbone(backbone_info(TINY))
    state = trained.state_dict()
    bare = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(bare | {"fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}, tmp_path / "torchvision.pth")
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "study.ckpt")
    starts = [starting_weights(TINY, tmp_path / name) for name in ("torchvision.pth", "study.ckpt")]
    assert starts[0].sha256 == starts[1].sha256
    network = NETWORKS["bleep"][0](NETWORKS["bleep"][1], SHAPE)
    network.load_backbone(tmp_path / "torchvision.pth")
    assert all(torch.equal(value, state[name]) for name, value in network.backbone.model.state_dict().items())
    torch.save(bare | {"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(GeneDMLError, match=r"other\.pth does not hold the weights of test_resnet"):
        starting_weights(TINY, tmp_path / "other.pth")
