"""Features: which tiles are encoded, whose they are, and files that are used again only where nothing changed."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genedml.config import ViewsConfig
from genedml.encoders.encoder import load_encoder
from genedml.errors import GeneDMLError
from genedml.networks.inputs import Needs
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.features.batch_size import BATCH_TILES
from genedml_cli.features.encoding import average_patches, orient
from genedml_cli.features.extraction import encode_section, encode_section_to_file, extract
from genedml_cli.features.feature_file import check_seal, open_for_writing
from genedml_cli.features.placement import PlacedFeatures
from genedml_cli.features.section_features import SectionFeatures, load_features, save_features
from genedml_cli.features.tile_plan import plan_tiles
from genedml_cli.files.storage import atomic_write, sha256_of
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots

VIEWS = ViewsConfig(neighbors="exact")
OWN_TILE = ViewsConfig(neighbor_grid=1)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def sample(world) -> Sample:
    return read_sheet(world / "samples.csv")[0]


@pytest.fixture(scope="module")
def features(sample, encoder) -> SectionFeatures:
    """The first section of the tiny world, in all eight orientations."""
    with open_slide(sample.slide) as slide:
        return encode_section(slide, read_spots(sample.spots), encoder, VIEWS, flips=True)


@pytest.fixture
def red_sample(red_spot) -> Sample:
    return Sample("red", *red_spot, red_spot[1], "P1", "P1", um_per_px=0.5)


def test_tiles_of_a_spot_are_planned_row_by_row():
    plan = plan_tiles(np.array([[2000.0, 1600.0]]), 1.0, (4000, 3000), VIEWS)
    centres = plan.corners_xy[plan.neighbor[0]] + 112
    expected = [(2000 + x * 224, 1600 + y * 224) for y in range(-2, 3) for x in range(-2, 3)]
    assert centres.tolist() == [list(centre) for centre in expected]
    assert plan.own.tolist() == [plan.neighbor[0, 12]]


def test_plan_counts_in_pixels_of_the_model():
    plan = plan_tiles(np.array([[2000.0, 1600.0]]), 2.0, (2000, 1500), VIEWS)
    assert (plan.corners_xy[plan.own[0]] + 112).tolist() == [1000, 800]


def test_tiles_whose_centre_is_off_the_slide_are_left_out():
    plan = plan_tiles(np.array([[5.0, 4.0], [999.0, 899.0]]), 1.0, (1000, 900), VIEWS)
    inside = (plan.neighbor >= 0).reshape(2, 5, 5)
    assert inside[0].tolist() == [[x >= 2 and y >= 2 for x in range(5)] for y in range(5)]
    assert inside[1].tolist() == [[x <= 2 and y <= 2 for x in range(5)] for y in range(5)]


def test_a_spot_at_the_very_edge_keeps_its_own_tile():
    plan = plan_tiles(np.array([[999.9, 899.9]]), 1.0, (1000, 900), VIEWS)
    assert plan.own[0] >= 0


def test_coincident_tiles_are_planned_once(sample):
    spots = read_spots(sample.spots)
    plan = plan_tiles(spots.xy_px, 1.0, (2016, 1792), VIEWS)
    assert len(plan.corners_xy) <= 9 * 8 < 25 * len(spots) / 10
    assert len(np.unique(plan.corners_xy, axis=0)) == len(plan.corners_xy)
    assert set(plan.neighbor.ravel().tolist()) == {-1, *range(len(plan.corners_xy))}


def test_the_red_spots_own_tile_is_red(red_spot, encoder):
    with open_section(red_spot[0], read_spots(red_spot[1]), um_per_px=0.5) as slide:
        features = encode_section(slide, read_spots(red_spot[1]), encoder, VIEWS)
    mean_red, mean_green, mean_blue = (features.pooled[:, :3].float().T + 2) / 4
    quarter = 1 - 112**2 / 224**2  # white is left around the red square
    torch.testing.assert_close(mean_red, torch.ones(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(mean_green, torch.tensor([quarter, 1, 1]), atol=2e-3, rtol=0)
    torch.testing.assert_close(mean_blue, mean_green)


def test_pooled_is_the_first_token_of_the_own_tile(features):
    torch.testing.assert_close(features.pooled, features.local[0, :, 0])


def test_features_are_those_of_the_tiles_themselves(features, sample, encoder):
    from PIL import Image

    pixels = np.asarray(Image.open(sample.slide))
    x, y = features.spots.xy_px[17].astype(int)
    tile = torch.from_numpy(pixels[y - 112 : y + 112, x - 112 : x + 112].copy())[None]
    for orientation in range(8):
        tokens = encoder(orient(tile, orientation)).tokens[0]
        torch.testing.assert_close(features.local[orientation, 17].float(), tokens, atol=2e-3, rtol=0)


def test_features_follow_the_order_of_spots(features, sample, encoder):
    spots = features.spots
    order = np.random.default_rng(0).permutation(len(spots))
    other = Spots(tuple(spots.names[place] for place in order), spots.xy_px[order], spots.array_xy[order])
    with open_slide(sample.slide) as slide:
        permuted = encode_section(slide, other, encoder, VIEWS)
    assert torch.equal(permuted.local, features.local[:1, order])
    assert torch.equal(permuted.pooled, features.pooled[order])
    neighbor = features.neighbor[order]
    assert torch.equal(permuted.neighbor < 0, neighbor < 0)
    assert torch.equal(permuted.tiles[permuted.neighbor], features.tiles[neighbor])


def test_tiles_in_small_batches_are_the_same(features, sample, encoder, monkeypatch):
    monkeypatch.setitem(BATCH_TILES, "cpu", 7)
    with open_slide(sample.slide) as slide:
        small = encode_section(slide, features.spots, encoder, VIEWS)
    torch.testing.assert_close(small.tiles, features.tiles, atol=1e-3, rtol=0)
    torch.testing.assert_close(small.local, features.local[:1], atol=1e-3, rtol=0)


def test_two_spots_in_one_place_share_their_tile(red_spot, encoder):
    twice = Spots(("a", "b"), np.array([[612.0, 400.0], [612.0, 400.0]]))
    with open_section(red_spot[0], twice, um_per_px=0.5) as slide:
        features = encode_section(slide, twice, encoder, VIEWS, flips=True)
    assert torch.equal(features.neighbor[0], features.neighbor[1])
    assert torch.equal(features.local[:, 0], features.local[:, 1])


def test_a_single_spot_has_a_section(red_spot, encoder):
    single = Spots(("red",), np.array([[612.0, 400.0]]))
    with open_section(red_spot[0], single, um_per_px=0.5) as slide:
        section = encode_section(slide, single, encoder, VIEWS).section()
    assert section.pooled.shape == (1, 8)
    assert section.grid_xy.tolist() == [[0, 0]]


def asymmetric_tile() -> torch.Tensor:
    return torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1).repeat(1, 1, 1, 3)


def test_orientation_zero_is_the_tile_itself():
    assert torch.equal(orient(asymmetric_tile(), 0), asymmetric_tile())


def test_orientations_are_the_eight_of_the_square():
    found = {orient(asymmetric_tile(), orientation)[0, :, :, 0].numpy().tobytes() for orientation in range(8)}
    square = np.arange(16, dtype=np.uint8).reshape(4, 4)
    every = {np.rot90(side, turns).tobytes() for side in (square, square.T) for turns in range(4)}
    assert len(found) == 8
    assert found == every


def test_patches_are_averaged_to_a_grid_and_other_tokens_stay():
    tokens = torch.arange(1 + 16).float().reshape(1, 17, 1).expand(2, -1, 3)
    averaged = average_patches(tokens, 2)[0, :, 0]
    patches = np.arange(1, 17).reshape(4, 4)
    expected = [0, *(patches[y : y + 2, x : x + 2].mean() for y in (0, 2) for x in (0, 2))]
    assert averaged.tolist() == expected
    assert torch.equal(average_patches(tokens, 0), tokens)
    with pytest.raises(GeneDMLError, match="4 x 4 patches"):
        average_patches(tokens, 5)


def test_a_section_keeps_averaged_patches_of_every_orientation(features, sample, encoder):
    views = replace(VIEWS, local_grid=1)
    with open_slide(sample.slide) as slide:
        small = encode_section(slide, read_spots(sample.spots), encoder, views, flips=True)
    assert small.local.shape == (8, len(small.spots), 2, 8)
    assert torch.allclose(small.local[:, :, 1].float(), features.local[:, :, 1:].float().mean(dim=2), atol=1e-3)
    assert torch.equal(small.tiles, features.tiles)


def test_a_batch_is_gathered_from_its_sections(features, red_sample, encoder, tmp_path):
    red = extract([red_sample], encoder, VIEWS, tmp_path, flips=True)["red"]
    section, row, orientation = torch.tensor([1, 0, 1]), torch.tensor([2, 5, 0]), torch.tensor([0, 3, 6])
    views = PlacedFeatures([features, red], "cpu", Needs(tokens=True, neighbors=True)).batch(section, row, orientation)
    for place, own in enumerate([red, features, red]):
        assert torch.equal(views.tokens[place], own.local[orientation[place], row[place]].float())
        seen = own.neighbor[row[place]]
        assert torch.equal(views.neighbor_mask[place], seen >= 0)
        assert torch.equal(views.neighbor[place][seen >= 0], own.tiles[seen[seen >= 0]].float())


@pytest.mark.parametrize("indexed", [True, False])
def test_features_are_read_as_they_were_written(features, tmp_path, indexed):
    written = features if indexed else replace(features, spots=Spots(features.spots.names, features.spots.xy_px))
    save_features(written, tmp_path / "P1.safetensors", {})
    read = load_features(tmp_path / "P1.safetensors")
    for name in ("local", "tiles", "own", "neighbor"):
        assert torch.equal(getattr(read, name), getattr(written, name))
    assert read.spots.names == written.spots.names
    np.testing.assert_array_equal(read.spots.xy_px, written.spots.xy_px)
    assert (read.spots.array_xy is not None) == indexed
    assert indexed is False or np.array_equal(read.spots.array_xy, written.spots.array_xy)
    assert (read.encoder, read.um_per_px, read.slide_sha256) == (written.encoder, 0.5, written.slide_sha256)


def test_features_remember_the_slides_content(features, sample):
    assert features.slide_sha256 == sha256_of(sample.slide)


def test_extract_uses_its_file_again(red_sample, encoder, tmp_path):
    first = extract([red_sample], encoder, OWN_TILE, tmp_path / "features")["red"]
    (file,) = (tmp_path / "features").iterdir()
    before = file.stat()
    again = extract([red_sample], encoder, OWN_TILE, tmp_path / "features")["red"]
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert torch.equal(again.tiles, first.tiles)


@pytest.mark.parametrize("how", ["extract", "keep_section"])
def test_a_file_of_eight_orientations_serves_where_one_is_asked(red_sample, encoder, tmp_path, how):
    folder = tmp_path / "features"
    eight = extract([red_sample], encoder, VIEWS, folder, flips=True)["red"]
    if how == "extract":
        upright = extract([red_sample], encoder, VIEWS, folder)["red"]
    else:
        spots = read_spots(red_sample.spots)
        with open_section(red_sample.slide, spots, red_sample.um_per_px) as slide:
            upright = encode_section_to_file(slide, spots, encoder, VIEWS, folder, "red")
    assert eight.local.shape[0] == 8
    assert torch.equal(upright.local, eight.local[:1])
    assert torch.equal(upright.tiles, eight.tiles)
    sent = pickle.loads(pickle.dumps(upright))
    assert torch.equal(sent.local, upright.local)
    assert len(pickle.dumps(upright)) < 2000
    assert len(list(folder.iterdir())) == 1


def moved_spot(sample: Sample) -> Sample:
    sample.spots.write_text(sample.spots.read_text().replace("612", "613"))
    return sample


def renamed_spot(sample: Sample) -> Sample:
    sample.spots.write_text(sample.spots.read_text().replace("white", "blank"))
    return sample


def other_um_per_px(sample: Sample) -> Sample:
    return replace(sample, um_per_px=0.4)


def repainted_slide(sample: Sample) -> Sample:
    from PIL import Image

    Image.new("RGB", (1200, 900), "blue").save(sample.slide)
    return sample


@pytest.mark.parametrize("change", [moved_spot, renamed_spot, other_um_per_px, repainted_slide])
def test_extract_makes_another_file_where_the_section_changed(red_sample, encoder, tmp_path, change):
    folder = tmp_path / "features"
    extract([red_sample], encoder, OWN_TILE, folder)
    extract([change(red_sample)], encoder, OWN_TILE, folder)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("views", "flips"),
    [(OWN_TILE, True), (replace(OWN_TILE, um_per_px=1.0), False), (replace(OWN_TILE, neighbor_grid=3), False)],
)
def test_extract_makes_another_file_where_the_settings_changed(red_sample, encoder, tmp_path, views, flips):
    folder = tmp_path / "features"
    extract([red_sample], encoder, OWN_TILE, folder)
    extract([red_sample], encoder, views, folder, flips)
    assert len(list(folder.iterdir())) == 2


def test_errors_name_the_section(red_sample, encoder, tmp_path):
    with pytest.raises(GeneDMLError, match=r"red\.png does not say its um/px") as caught:
        extract([replace(red_sample, um_per_px=None)], encoder, VIEWS, tmp_path / "features")
    assert caught.value.__notes__ == ["This was section red."]


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_feature_file_is_refused(features, tmp_path, kept):
    path = tmp_path / "P1.safetensors"
    save_features(features, path, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GeneDMLError, match=r"feature file .*P1\.safetensors cannot be read: .*Remove it and run again"):
        load_features(path)


@pytest.mark.parametrize("place", [200, 5000, -40, -1])
def test_a_changed_feature_file_is_refused(features, tmp_path, place):
    """A letter of its header, two of its tables, the hash itself."""
    path = tmp_path / "P1.safetensors"
    save_features(features, path, {})
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(GeneDMLError, match=r"P1\.safetensors cannot be read: .*run again: .* encoded anew"):
        load_features(path)


def test_features_larger_than_a_piece_are_sealed_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("genedml_cli.features.feature_file.PIECE_BYTES", 7)
    values = torch.rand(1, 40, 1, 5).half()
    with open_for_writing(tmp_path / "f", {"local": values, "tiles": values[0, :, 0]}, {}) as file:
        file.put_all(values, values[0, :, 0])
    check_seal(tmp_path / "f")
    content = (tmp_path / "f").read_bytes()
    for changed in (content[:7] + content[14:21] + content[7:14] + content[21:], content[:-40] + content[-32:]):
        (tmp_path / "f").write_bytes(changed)
        with pytest.raises(ValueError, match="has changed since"):
            check_seal(tmp_path / "f")


def test_other_safetensors_are_no_features(tmp_path):
    from safetensors.torch import save_file

    save_file({"local": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(GeneDMLError, match=r"model\.safetensors cannot be read"):
        load_features(tmp_path / "model.safetensors")


def test_a_disk_too_small_is_said_before_anything_is_encoded(red_sample, encoder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200))
    with pytest.raises(GeneDMLError, match=r"take 0\.00 MB; the disk of .* has 0\.00 MB free.*training\.augment=false"):
        extract([red_sample], encoder, VIEWS, tmp_path / "features", flips=True)
    assert not (tmp_path / "features").exists()


def test_nothing_is_left_where_writing_fails(tmp_path):
    path = tmp_path / "new" / "P1.safetensors"
    with pytest.raises(RuntimeError, match="half way"), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert not path.parent.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "P1.safetensors"
    path.write_text("old")
    with pytest.raises(GeneDMLError), atomic_write(path) as temporary:
        temporary.write_text("new")
        raise OSError(28, "No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["P1.safetensors"]
    assert path.read_text() == "old"


def test_an_encoding_that_fails_leaves_nothing(red_sample, encoder, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise GeneDMLError("half way")

    monkeypatch.setattr("genedml_cli.features.feature_file.FileSink.put", fail)
    with pytest.raises(GeneDMLError, match="half way"):
        extract([red_sample], encoder, VIEWS, tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GeneDMLError), atomic_write(tmp_path / "file" / Path("P1.safetensors")):
        pass
