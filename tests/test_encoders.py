"""Encoders: the table, strict weights, real architectures, and stain-texture's own promises."""

import shutil
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import HTTPError

from genedml.encoders import encoder as encoders
from genedml.encoders.encoder import build_backbone, fingerprint, halved, load_encoder, load_weights, tokens_of
from genedml.encoders.stain_texture import StainTexture
from genedml.encoders.table import ENCODERS
from genedml.errors import GeneDMLError
from genedml_cli.machine.compute import Compute
from genedml_cli.machine.devices import prepare_encoder

SMALL_VIT = "timm:vit_tiny_patch16_224"


def noise_tiles(count: int) -> torch.Tensor:
    smooth = torch.rand(count, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    big = torch.nn.functional.interpolate(smooth, size=224, mode="bicubic").clamp(0, 1)
    return (big * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


MILLIONS = {
    "uni": (303.35, 0.1),
    "uni2-h": (681, 1),
    "virchow2": (631, 1),
    "gigapath": (1_135, 5),
    "h-optimus-0": (1_135, 5),
    "h-optimus-1": (1_135, 5),
    "h0-mini": (85.7, 0.05),
    "openmidnight": (1_135, 5),
    "midnight": (1_140, 10),
    "hibou-b": (85.7, 0.05),
    "hibou-l": (303.7, 0.05),
    "phikon": (85.8, 0.05),
    "phikon-v2": (303.4, 0.05),
    "distillpath-s": (21.7, 0.05),
    "lunit-dino-s16": (86.7 / 4, 0.05),
    "kaiko-s16": (86.7 / 4, 0.05),
    "kaiko-b16": (343 / 4, 0.1),
}
"""Parameters that an encoder's card or page gives (of the last three, the bytes of its weights file), and how far off
the rounding of that may be."""


OF_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OF_BIOPTIMUS = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
OF_HIBOU = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)
OF_LUNIT = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
OTHER_COLOURS = {
    **dict.fromkeys(("h-optimus-0", "h-optimus-1", "h0-mini"), OF_BIOPTIMUS),
    **dict.fromkeys(("midnight", "kaiko-s16", "kaiko-b16"), HALVES),
    **dict.fromkeys(("hibou-b", "hibou-l"), OF_HIBOU),
    "lunit-dino-s16": OF_LUNIT,
}
"""Mean and sd of the encoders that do not take those of ImageNet, as their pages give them."""
WITHOUT_LAYER_SCALE = {"phikon", "distillpath-s", "lunit-dino-s16", "kaiko-s16", "kaiko-b16"}


@pytest.mark.parametrize("name", [name for name, info in ENCODERS.items() if info.architecture])
def test_every_row_describes_its_architecture(name):
    info = ENCODERS[name]
    with torch.device("meta"):
        backbone = build_backbone(info)
        tokens = backbone.forward_features(torch.zeros(1, 3, 224, 224))
    assert tuple(tokens.shape[1:]) == (info.tokens, info.width)
    assert backbone.num_prefix_tokens == info.tokens - backbone.patch_embed.num_patches
    assert {*dict(backbone.named_buffers())} <= {*backbone.state_dict()}  # else some would stay on the meta device
    millions, rounding = MILLIONS[name]
    assert sum(value.numel() for value in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=rounding)
    assert (info.mean, info.std) == OTHER_COLOURS.get(name, OF_IMAGENET)
    assert ("blocks.0.ls1.gamma" in backbone.state_dict()) == (name not in WITHOUT_LAYER_SCALE)
    assert info.hub
    assert info.licence


def test_uni_with_random_weights_encodes_tiles():
    info = ENCODERS["uni"]
    torch.manual_seed(0)
    encoder = encoders.Encoder(info, build_backbone(info), has_class_token=True)
    encoded = encoder(noise_tiles(2))
    assert encoded.tokens.shape == (2, 197, 1024)
    assert torch.equal(encoded.pooled, encoded.tokens[:, 0])
    assert not encoded.tokens.requires_grad
    assert not torch.allclose(encoded.pooled[0], encoded.pooled[1])


@pytest.fixture(scope="module")
def vit_weights(tmp_path_factory):
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    safetensors.torch.save_file(state, file)
    return file


def test_local_weights_are_loaded_whole_and_fingerprinted(vit_weights, tmp_path):
    encoder = load_encoder(SMALL_VIT, vit_weights)
    assert (encoder.info.tokens, encoder.info.width) == (197, 192)
    in_torch = tmp_path / "vit.bin"
    torch.save(safetensors.torch.load_file(vit_weights), in_torch)
    assert load_encoder(SMALL_VIT, in_torch).weights_sha256 == encoder.weights_sha256
    images = noise_tiles(2)
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    backbone.load_state_dict(safetensors.torch.load_file(vit_weights))
    normal = (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        assert torch.allclose(encoder(images).tokens, backbone.forward_features(normal), atol=1e-4)


def test_a_row_of_the_table_draws_no_random_numbers_and_holds_half_precision_as_single(monkeypatch, tmp_path):
    options = {"embed_dim": 48, "num_heads": 3, "depth": 1}
    info = replace(ENCODERS["lunit-dino-s16"], width=48, options=options)
    monkeypatch.setitem(ENCODERS, info.name, info)
    state = {key: value.half() for key, value in build_backbone(info).state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    before = torch.get_rng_state()
    encoder = load_encoder(info.name, tmp_path / "half.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    own = encoder.backbone.state_dict()
    assert {value.dtype for value in own.values()} == {torch.float32}
    assert all(torch.equal(own[key], state[key].float()) for key in state)
    assert not any(value.requires_grad for value in encoder.backbone.parameters())


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused_before_anything_is_loaded(vit_weights, tmp_path, change):
    state = safetensors.torch.load_file(vit_weights)
    if change == "missing":
        del state["norm.weight"]
    elif change == "extra":
        state["head.weight"] = torch.zeros(3)
    else:
        state["norm.weight"] = torch.zeros(3)
    safetensors.torch.save_file(state, tmp_path / "bad.safetensors")
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    before = encoders.fingerprint(backbone)
    with pytest.raises(GeneDMLError, match=r"bad.safetensors does not hold the weights of .*(norm|head)\.weight"):
        load_weights(backbone, tmp_path / "bad.safetensors", "vit")
    assert encoders.fingerprint(backbone) == before


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_timms_own_weights_files_are_taken_without_their_classifier(tmp_path, name):
    whole = timm.create_model(name, num_classes=10)
    file = tmp_path / "timm.safetensors"
    safetensors.torch.save_file(whole.state_dict(), file)
    encoder = load_encoder(f"timm:{name}", file)
    own = encoder.backbone.state_dict()
    assert set(whole.state_dict()) - set(own) >= {"head.weight", "head.bias"}
    assert all(torch.equal(own[key], whole.state_dict()[key]) for key in own)
    safetensors.torch.save_file(whole.state_dict() | {"decoder.weight": torch.zeros(3)}, file)
    with pytest.raises(GeneDMLError, match=r"1 are unknown \(first: decoder\.weight\)"):
        load_encoder(f"timm:{name}", file)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Hostile()}, tmp_path / "evil.bin")
    with pytest.raises(GeneDMLError):
        load_encoder(SMALL_VIT, tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


def test_an_unreachable_hub_claims_no_gate_and_names_the_way_without_weights(monkeypatch, tmp_path):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_: object, **settings: object) -> None:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr(encoders, "build_backbone", lambda info: torch.nn.Identity())
    with pytest.raises(GeneDMLError, match="the hub cannot be reached") as caught:
        load_encoder("uni")
    for way_out in ("https://huggingface.co/MahmoodLab/UNI", "--weights FILE", "--encoder stain-texture"):
        assert way_out in str(caught.value)
    assert "accept the conditions" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), HTTPError("broke off")])
def test_a_download_that_breaks_off_is_a_sentence(monkeypatch, error):
    def fail(*_: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr(encoders, "build_backbone", lambda info: torch.nn.Identity())
    with pytest.raises(GeneDMLError, match=r"the connection broke off, or .*\(.*(No space left|broke off).*\)\. Run"):
        load_encoder("uni")


def test_what_timm_proposes_of_weights_that_may_be_code_is_not_passed_on(monkeypatch):
    def fail(*_: object, **settings: object) -> None:
        raise RuntimeError("retry with weights_only=False") from UnpicklingError("code")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(GeneDMLError, match="something else than tensors, which may be code") as caught:
        load_encoder(SMALL_VIT)
    assert "weights_only" not in str(caught.value)


def test_unknown_encoders_are_named():
    with pytest.raises(GeneDMLError, match="There are: stain-texture, uni, uni2-h"):
        load_encoder("unni")
    for name in ("no_such_model", "local-dir:../weights", "hf-hub:owner/name", "resnet18./../name"):
        with pytest.raises(GeneDMLError, match=f"timm has no model '{name}'"):
            load_encoder(f"timm:{name}")
    with pytest.raises(GeneDMLError):
        load_encoder("stain-texture", weights=Path("x"))


def test_a_backbone_without_class_token_is_pooled_by_its_mean():
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", num_classes=0)
    info = encoders.EncoderInfo("resnet", 49, 512, "see timm")
    encoded = encoders.Encoder(info, backbone, has_class_token=False)(noise_tiles(2))
    assert encoded.tokens.shape == (2, 49, 512)
    assert torch.allclose(encoded.pooled, encoded.tokens.mean(dim=1))


def test_stain_texture_is_finite_bounded_and_the_same_for_one_tile_and_many():
    flat = torch.stack([torch.full((224, 224, 3), value, dtype=torch.uint8) for value in (0, 128, 255)])
    tiles = torch.cat([flat, noise_tiles(3)])
    encoder = load_encoder("stain-texture")
    tokens = encoder(tiles).tokens
    assert tokens.shape == (6, 197, StainTexture.WIDTH)
    assert torch.isfinite(tokens).all()
    assert tokens.abs().max() <= 10
    alone = torch.cat([encoder(tile[None]).tokens for tile in tiles])
    assert torch.allclose(tokens, alone, atol=1e-4)


def test_stain_texture_of_a_flipped_tile_is_the_same_in_other_places():
    tiles = noise_tiles(2)
    encoder = load_encoder("stain-texture")
    plain, flipped = encoder(tiles).tokens, encoder(tiles.flip(2)).tokens
    grid = plain[:, 1:].unflatten(1, (14, 14))
    assert torch.allclose(plain[:, 0], flipped[:, 0], atol=1e-3)
    assert torch.allclose(grid.flip(2), flipped[:, 1:].unflatten(1, (14, 14)), atol=2e-2)


def test_more_haematoxylin_raises_its_channel():
    from genedml.encoders.stain_texture import HAEMATOXYLIN_RGB, STANDARD

    def tile(amount: float) -> torch.Tensor:
        colour = 255 * 10 ** (-amount * np.array(HAEMATOXYLIN_RGB))
        return torch.tensor(colour.round(), dtype=torch.uint8).expand(1, 224, 224, 3).contiguous()

    channel = [*STANDARD].index("log_h")
    encoder = load_encoder("stain-texture")
    light, dark = (float(encoder(tile(amount)).pooled[0, channel]) for amount in (0.2, 0.8))
    assert dark > light + 1


def painted_tile() -> torch.Tensor:
    """Nuclei of several sizes on fibres, and glass in a corner: whole numbers alone, the same for ever."""
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    nuclei = (x % 37 - 18) ** 2 + (y % 29 - 14) ** 2 < 20 + (x // 37 + y // 29) * 10
    tile = torch.tensor((226, 160, 200)).repeat(224, 224, 1)
    tile[(x + 3 * y) % 23 < 6] = torch.tensor((205, 110, 165))
    tile[nuclei] = torch.tensor((95, 60, 140))
    tile[x + y < 60] = torch.tensor((245, 243, 246))
    return tile.to(torch.uint8)[None]


def test_the_numbers_of_stain_texture_are_those_of_its_version():
    from genedml.encoders.stain_texture import STANDARD

    tokens = load_encoder("stain-texture")(painted_tile()).tokens[0]
    # channel: of the tile, of the patch in row 7, column 1
    expected = {
        "log_h": (-1.0035, -0.6152),
        "nucleus": (-0.9351, -0.6180),
        "h_band_to_2.0": (2.5119, -0.0162),
        "e_over_h_band_1.4": (-0.2511, -0.8565),
        "round": (1.4252, 0.1215),
        "width_to_7": (6.1407, 0.9265),
        "h_alignment": (-1.0831, 0.6534),
        "log_fibre": (1.9049, 1.5806),
    }
    found = {name: tokens[[0, 100], [*STANDARD].index(name)].tolist() for name in expected}
    found["mean and sd of all"] = [float(tokens.mean()), float(tokens.std())]
    for name, numbers in (expected | {"mean and sd of all": (0.2222, 1.2712)}).items():
        assert found[name] == pytest.approx(numbers, abs=1e-3), (
            f"{name} changed. If that was meant: raise VERSION in StainTexture, so that no features and models of "
            "before pass for those of now, and put the new numbers here."
        )


def test_a_new_version_is_another_encoder_and_none_is_refused(monkeypatch):
    before = load_encoder("stain-texture").weights_sha256
    monkeypatch.setattr(StainTexture, "VERSION", StainTexture.VERSION + 1)
    assert load_encoder("stain-texture").weights_sha256 != before
    monkeypatch.delattr(StainTexture, "VERSION")
    with pytest.raises(GeneDMLError, match=r"stain-texture has no weights .* Write VERSION = 1"):
        load_encoder("stain-texture")


@pytest.mark.parametrize(
    ("name", "licence"), [("stain-texture", "MIT"), (SMALL_VIT, "see timm"), ("tiny", ENCODERS["tiny"].licence)]
)
def test_whose_encoder_it_is_and_its_licence_are_said_once(vit_weights, capfd, name, licence):
    encoder = prepare_encoder(name, vit_weights if name == SMALL_VIT else None, Compute("cpu"))
    said = capfd.readouterr()
    assert said.err == f"Encoder {name} on cpu; licence: {licence}.\n"
    assert said.out == ""
    assert encoder.info.name == name


def test_the_table_says_what_is_found_at_100_columns(monkeypatch, capfd):
    from rich.console import Console

    from genedml_cli import console
    from genedml_cli.commands.tables import encoders

    monkeypatch.setattr(console, "_results", Console(width=100, highlight=False))
    monkeypatch.setattr(encoders, "find_weights", lambda info: info.hub if info.name == "uni" else None)
    encoders.show_encoders([info for name, info in ENCODERS.items() if name != "tiny"])
    shown = capfd.readouterr().out
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "found" in rows["uni"]
    assert "not here" in rows["gigapath"]
    assert "prov-gigapath/prov-gigapath" in {row["hub"] for row in encoders.encoders_document(ENCODERS.values())}
    assert "none needed" in rows["stain-texture"]


def test_the_page_lists_every_encoder_as_the_table_has_it():
    page = (Path(__file__).parents[1] / "examples" / "encoders.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, info in ENCODERS.items():
        if name != "tiny":
            (row,) = [line for line in rows if f"`{name}`" in line]
            _, _, width, tokens, licence, weights, _ = (cell.strip() for cell in row.split("|"))
            assert str(info.width) in width.split(", ")
            assert (tokens, licence) == (str(info.tokens), info.licence)
            assert info.hub is None or info.hub.split("/")[0] in weights


def test_backbones_get_images_with_colours_last_in_memory(monkeypatch):
    encoder, seen = load_encoder("tiny"), []
    monkeypatch.setattr(encoder, "_run", lambda backbone, images: seen.append(images) or backbone(images))
    encoder(noise_tiles(2))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_half_of_a_backbone_gives_its_features_and_leaves_it_as_it_is(name):
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=0).eval().requires_grad_(False)
    before, images = fingerprint(backbone), torch.randn(2, 3, 224, 224)
    half = halved(backbone)
    assert next(half.parameters()).dtype is torch.float16
    expected = tokens_of(backbone, images)
    apart = tokens_of(half, images.half()).float() - expected
    assert 0 < apart.norm() / expected.norm() < 5e-3
    assert fingerprint(backbone) == before
    for kept, own in zip(half.modules(), backbone.modules(), strict=True):
        if isinstance(own, torch.nn.BatchNorm2d):
            assert torch.equal(kept.running_var, own.running_var)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_stain_texture_on_cuda_equals_the_cpu():
    tiles = noise_tiles(4)
    on_cpu = load_encoder("stain-texture")(tiles).tokens
    on_cuda = load_encoder("stain-texture", device="cuda")(tiles.cuda()).tokens.cpu()
    assert torch.allclose(on_cpu, on_cuda, atol=1e-3)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_encoder_gives_the_same_features_and_is_the_same_encoder():
    plain, compiled = load_encoder("tiny"), load_encoder("tiny")
    compiled.compile()
    assert compiled.weights_sha256 == plain.weights_sha256
    for count in (5, 3):
        tiles = torch.randint(0, 256, (count, 224, 224, 3), dtype=torch.uint8)
        torch.testing.assert_close(compiled(tiles).tokens, plain(tiles).tokens, rtol=1e-3, atol=1e-4)


def test_a_machine_that_cannot_compile_says_so_and_encodes_all_the_same(monkeypatch):
    def compile_to_failure(call: object, **_: object) -> object:
        def run(*_: object) -> None:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", compile_to_failure)
    encoder = load_encoder("tiny")
    with pytest.raises(GeneDMLError, match=r"No working C\+\+ compiler found.*leave out --compile"):
        encoder.compile()
    assert encoder(torch.zeros(1, 224, 224, 3, dtype=torch.uint8)).pooled.shape == (1, 8)
