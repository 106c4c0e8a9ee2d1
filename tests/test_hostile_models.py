"""Models, weights and AnnData files of strangers: nothing runs, nothing absurd is allocated, damage is noticed."""

import hashlib
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import pytest
import torch
from hostile import PARSERS, save_tensors, small_card, small_prediction, with_header, write
from safetensors import safe_open

from genedml.checkpoint import CrossValidated, build_network, checkpoint_bytes, load_card, load_checkpoint, sealed
from genedml.encoders.encoder import load_weights
from genedml.errors import GeneDMLError
from genedml.tensor_files import tensor_bytes
from genedml_cli.expression.counts import read_counts
from genedml_cli.files.hdf5 import opened_h5
from genedml_cli.outputs.prediction_file import read_prediction


def test_a_header_of_absurd_size_is_refused_before_it_is_allocated(tmp_path):
    file = tmp_path / "fold-1.safetensors"
    PARSERS["checkpoint"].write(file)
    content = file.read_bytes()
    with pytest.raises(GeneDMLError):
        load_checkpoint(write(file, (2**60).to_bytes(8, "little") + content[8:]))
    write(file, content)

    def enlarge(header: dict) -> None:
        first = next(key for key in header if key != "__metadata__")
        header[first] |= {"shape": [10**15], "data_offsets": [0, 4 * 10**15]}

    with_header(file, enlarge)
    with pytest.raises(GeneDMLError):
        load_checkpoint(file)


@pytest.mark.parametrize("change", [{"shared_width": 2**20}, {"head_widths": [2**20, 2**20]}])
def test_a_card_that_asks_for_a_huge_network_is_refused_before_it_is_made(tmp_path, change):
    file = tmp_path / "fold-1.safetensors"
    PARSERS["checkpoint"].write(file)

    def enlarge(header: dict) -> None:
        card = json.loads(header["__metadata__"]["genedml"])
        card["config"]["network"] |= change
        text = json.dumps(card)
        header["__metadata__"] = {"genedml": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    with_header(file, enlarge)
    with pytest.raises(GeneDMLError, match="weights do not fit its own card"):
        load_checkpoint(file)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[]", "3", '{"format_version": 3}', "not json", ""])
def test_a_card_of_any_form_is_refused(tmp_path, text):
    save_tensors(tmp_path / "fold-1.safetensors", {"genedml": text})
    with pytest.raises(GeneDMLError, match=r"fold-1\.safetensors has a card that this version cannot read"):
        load_checkpoint(tmp_path / "fold-1.safetensors")


def test_a_model_without_its_hash_is_refused(tmp_path):
    file = tmp_path / "fold-1.safetensors"
    PARSERS["checkpoint"].write(file)
    with_header(file, lambda header: header["__metadata__"].pop("sha256"))
    with pytest.raises(GeneDMLError, match="a card that this version cannot read: it lacks sha256"):
        load_checkpoint(file)


def test_a_text_that_says_it_is_longer_than_the_file_is_refused(tmp_path):
    small_prediction().write_h5ad(tmp_path / "out.h5ad")
    content = bytearray((tmp_path / "out.h5ad").read_bytes())
    place = content.index(b"column-order") + 64
    assert content[place : place + 4] == len("in_tissue").to_bytes(4, "little")
    content[place : place + 4] = (2**24).to_bytes(4, "little")
    with pytest.raises(GeneDMLError):
        read_prediction(write(tmp_path / "out.h5ad", bytes(content)))


@pytest.mark.parametrize("size", [0, 2**64 - 16])
def test_texts_stored_without_an_end_are_refused_before_libhdf5_walks_them(tmp_path, size):
    PARSERS["h5ad-counts"].write(tmp_path / "counts.h5ad")
    content = bytearray((tmp_path / "counts.h5ad").read_bytes())
    place = content.index(b"GCOL") + 16
    content[place : place + 2] = bytes(2) if size == 0 else b"\1\0"
    content[place + 8 : place + 16] = size.to_bytes(8, "little")
    with pytest.raises(GeneDMLError, match=rf"its texts are damaged at byte {place}"):
        read_counts(write(tmp_path / "counts.h5ad", bytes(content)))


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["bomb.pth", "bomb.bin", "bomb.safetensors"])
@pytest.mark.parametrize(
    "dump", [lambda value, file: torch.save(value, file), lambda v, f: f.write_bytes(pickle.dumps(v))]
)
def test_weights_that_are_code_are_refused_and_not_run(tmp_path, name, dump):
    dump({"weight": Trap(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(GeneDMLError, match=rf"The weights file .*{name} cannot be read") as refused:
        load_weights(torch.nn.Linear(2, 2), tmp_path / name, "linear")
    assert name == "bomb.safetensors" or "may be code. Give" in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_a_program_are_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(
        GeneDMLError, match=r"program\.pt cannot be read: it is not as torch\.save writes weights: .*TorchScript"
    ):
        load_weights(torch.nn.Linear(2, 2), tmp_path / "program.pt", "linear")


def packed(file: Path) -> None:
    """The parts of a file of torch, packed."""
    with ZipFile(file) as parts:
        contents = {name: parts.read(name) for name in parts.namelist()}
    with ZipFile(file, "w", ZIP_DEFLATED) as parts:
        for name, content in contents.items():
            parts.writestr(name, content)


def lengthened(file: Path) -> None:
    """Bytes behind the directory, so that readers may disagree on where it is."""
    file.write_bytes(file.read_bytes() + bytes(100))


@pytest.mark.parametrize("change", [packed, lengthened])
def test_weights_that_unpack_to_more_than_their_file_are_refused(tmp_path, change):
    torch.save({"weight": torch.zeros(1_000, 1_000)}, tmp_path / "bomb.pth")
    change(tmp_path / "bomb.pth")
    with pytest.raises(GeneDMLError, match=r"bomb\.pth cannot be read: it is not as torch\.save"):
        load_weights(torch.nn.Linear(1_000, 1_000, bias=False), tmp_path / "bomb.pth", "linear")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_in_both_formats_of_torch_are_read(tmp_path, zipped):
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    layer = torch.nn.Linear(3, 2)
    load_weights(layer, tmp_path / "w.pth", "linear")
    assert torch.equal(layer.weight, torch.load(tmp_path / "w.pth", weights_only=True)["weight"])


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, torch.zeros(2)])
def test_weights_that_are_no_state_are_refused(tmp_path, value):
    torch.save(value, tmp_path / "odd.pth")
    with pytest.raises(GeneDMLError, match="something else than named tensors"):
        load_weights(torch.nn.Linear(2, 2), tmp_path / "odd.pth", "linear")


def h5ad(path: Path, change) -> Path:
    PARSERS["h5ad-counts"].write(path)
    with h5py.File(path, "a") as file:
        change(file)
    return path


def absurd(file: h5py.File) -> None:
    del file["obsm/spatial"]
    file.create_dataset("obsm/spatial", (4, 2**50), np.float32, chunks=(4, 1024))


def elsewhere(file: h5py.File) -> None:
    del file["obsm/spatial"]
    file["obsm/spatial"] = h5py.ExternalLink("other.h5", "/x")


def outside(file: h5py.File) -> None:
    del file["obsm/spatial"]
    file.create_dataset("obsm/spatial", (4, 2), np.float64, external=[("/etc/passwd", 0, 64)])


def sequence(file: h5py.File) -> None:
    value = np.empty(1, dtype=object)
    value[0] = np.arange(3, dtype=np.int32)
    file["obs"].attrs.create("odd", value, dtype=h5py.vlen_dtype(np.int32))


def extended(file: h5py.File) -> None:
    del file["obsm/spatial"]
    file["obsm/spatial"] = np.ones((4, 2), np.longdouble)


def unstored(file: h5py.File) -> None:
    del file["X/data"]
    file["X"].create_dataset("data", (7,), np.float32, chunks=(7,))


def beyond(file: h5py.File) -> None:
    file["X/indices"][0] = 10**6


def backwards(file: h5py.File) -> None:
    file["X/indptr"][2] = 10**6


def ended_early(file: h5py.File) -> None:
    file["X/indptr"][-1] = file["X/indptr"][-2]


def ended_before_its_beginning(file: h5py.File) -> None:
    file["X/indptr"][-1] = -5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (absurd, r"holds 0 of its 1099511627776 parts"),
        (elsewhere, "points into another file"),
        (outside, "lies in another file"),
        (sequence, "odd of obs/ is of a kind that no AnnData file has"),
        (extended, "obsm/spatial is of a kind that no AnnData file has"),
        (unstored, "X/data holds 0 of its 1 parts"),
        (beyond, "cannot be read"),
        (ended_early, "X/indptr does not part the 8 values"),
        (ended_before_its_beginning, "X/indptr does not part the 8 values"),
        (backwards, "cannot be read"),
    ],
)
def test_h5ad_that_reaches_beyond_itself_is_refused(tmp_path, change, message):
    with pytest.raises(GeneDMLError, match=message):
        read_counts(h5ad(tmp_path / "counts.h5ad", change))


def test_a_part_of_a_table_that_cannot_be_found_is_refused_and_not_read_as_zeros(tmp_path):
    path = tmp_path / "counts.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("table", data=np.ones((4, 3), np.float32), chunks=(4, 3), compression="gzip")
    content = bytearray(path.read_bytes())
    entry = content.index(b"TREE\x01") + 24  # of the part: its size and filters, and where it begins in each direction
    content[entry + 8 + 2 * 8 + 3] = 8
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert file["table"][:].max() == 0
    with pytest.raises(ValueError, match="table has a part that is not where the file says"), opened_h5(path):
        pass
    with opened_h5(path, read=("another",)):  # what nobody reads may be gigabytes
        pass


@pytest.mark.parametrize(
    ("table", "place", "value"), [("indices", 1, 2**40), ("indptr", -1, -(2**40)), ("indptr", -1, 1)]
)
def test_a_tenx_file_whose_indices_lie_outside_its_table_is_refused(tmp_path, table, place, value):
    PARSERS["tenx-counts"].write(tmp_path / "counts.h5")
    assert read_counts(tmp_path / "counts.h5").shape == (2, 3)
    with h5py.File(tmp_path / "counts.h5", "a") as file:
        file[f"matrix/{table}"][place] = value
    with pytest.raises(GeneDMLError, match=r"counts\.h5 cannot be read: .*(ind|end)"):
        read_counts(tmp_path / "counts.h5")


def test_an_h5ad_that_memory_cannot_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("genedml_cli.machine.memory.free_on_host", lambda: 10)
    with pytest.raises(GeneDMLError, match=r"declares .*, but .* of memory are free"):
        read_counts(h5ad(tmp_path / "counts.h5ad", lambda file: None))


def picture(scale: float) -> dict:
    factors = {"tissue_hires_scalef": scale, "spot_diameter_fullres": 9.0}
    return {"s": {"images": {"hires": np.zeros((3, 3, 3), np.uint8)}, "scalefactors": factors}}


def test_a_prediction_that_is_whole_is_read(tmp_path):
    data = small_prediction()
    data.uns["spatial"] = picture(0.1)
    data.write_h5ad(tmp_path / "out.h5ad")
    assert read_prediction(tmp_path / "out.h5ad").shape == data.shape


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.uns.pop("genedml"),
        lambda data: data.uns.update(genedml="text"),
        lambda data: data.uns["genedml"].pop("panels"),
        lambda data: data.uns["genedml"]["label_settings"].update(scale=float("nan")),
        lambda data: data.obsm.pop("spatial"),
        lambda data: data.obsm.update(spatial=np.full((4, 2), np.nan)),
        lambda data: data.layers.update(ridge=np.full((4, 3), np.nan, np.float32)),
        lambda data: data.var.drop(columns="depth_slope", inplace=True),
        lambda data: data.var.insert(0, "held_out_pcc", ["text"] * 3),
        lambda data: data.var.insert(0, "cv_pcc", [True, False, True]),
        lambda data: data.obs.insert(0, "novelty", ["a", "b", "c", "d"]),
        lambda data: data.obsm.update(spatial=np.full((4, 2), 1e300)),
        lambda data: data.uns["genedml"].pop("encoder"),
        lambda data: data.uns["genedml"].update(models=[]),
        lambda data: data.uns["genedml"].update(notes=3.0),
        lambda data: data.uns["genedml"].update(label=np.array(["a", "b"])),
        lambda data: data.uns.update(spatial={}),
        lambda data: data.uns.update(spatial=picture(1e300)),
        lambda data: data.uns.update(spatial={"s": {"images": {"hires": np.zeros(3)}, "scalefactors": {}}}),
    ],
)
def test_predictions_that_are_not_whole_are_refused(tmp_path, change):
    data = small_prediction()
    change(data)
    data.write_h5ad(tmp_path / "out.h5ad")
    with pytest.raises(GeneDMLError):
        read_prediction(tmp_path / "out.h5ad")


@pytest.mark.parametrize("scores", [["a"] * 3, "abc", [[1.0], 2.0, 3.0], {"a": 1, "b": 2, "c": 3}])
def test_a_card_whose_scores_are_no_numbers_is_refused(tmp_path, scores):
    card = replace(small_card(), scores={"held_out_pcc": scores})
    (tmp_path / "fold-1.safetensors").write_bytes(checkpoint_bytes(card, build_network(card).state_dict()))
    with pytest.raises(GeneDMLError, match=r"has a card that this version cannot read: its held-out scores or its"):
        load_card(tmp_path / "fold-1.safetensors")


def test_scores_that_are_not_defined_are_null_in_a_card_and_nan_when_read(tmp_path):
    file, nan = tmp_path / "fold-1.safetensors", float("nan")
    scored = CrossValidated((1, 1, 0), (0.5, nan, nan), (nan, nan, nan), (0.25, nan, nan))
    card = replace(small_card(), scores={"held_out_pcc": [0.5, nan, 0.25]}, cross_validated=scored)
    state = build_network(card).state_dict()
    file.write_bytes(checkpoint_bytes(card, state))
    with safe_open(file, "pt") as stored:
        text = stored.metadata()["genedml"]
    values = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert values["scores"]["held_out_pcc"] == [0.5, None, 0.25]
    assert values["cross_validated"]["pcc_sd"] == [None] * 3
    assert repr(load_card(file)) == repr(card)
    before = json.dumps({**values, "scores": card.scores, "cross_validated": asdict(scored)}, sort_keys=True)
    assert "NaN" in before  # as earlier versions wrote it
    file.write_bytes(tensor_bytes(state, sealed("genedml", before)))
    assert repr(load_card(file)) == repr(card)


@pytest.mark.parametrize("name", ["X", "obsm/spatial", "layers/ridge", "var/training_mean"])
def test_a_prediction_of_numbers_in_reverse_is_refused(name, tmp_path):
    """One changed bit of a file says so of numbers that are not."""
    file = tmp_path / "out.h5ad"
    PARSERS["prediction"].write(file)
    with h5py.File(file, "a") as stored:
        values, attributes = stored[name][:], dict(stored[name].attrs)
        del stored[name]
        stored[name] = values.view(values.dtype.newbyteorder(">"))
        stored[name].attrs.update(attributes)
    with pytest.raises(GeneDMLError, match="numbers whose bytes stand in reverse"):
        read_prediction(file)
