"""Broken and hostile files: every parser ends in success or in one sentence, and where it succeeds it is right."""

import gzip
import random
import sys
import zlib

import h5py
import numpy as np
import pandas as pd
import pytest
from hostile import PARSERS, broken, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import PLAIN, agree

from genedml.config import load_config
from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.expression.counts import read_counts
from genedml_cli.files.provenance import maker
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.slides.patches import open_patches
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.text import masked

seeded = settings(
    derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PLAIN_NAME = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="\"'\ufeff"), min_size=1, max_size=12
)
COORDINATE = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)


@pytest.mark.parametrize("name", PARSERS)
def test_a_file_cut_or_changed_anywhere_is_refused_or_read_as_what_it_says(name, tmp_path):
    """Twenty places each; ``long/fuzz.py`` tries thousands. Only a file without a checksum may say something else."""
    parser, chance = PARSERS[name], random.Random(name)
    file = tmp_path / parser.file
    parser.write(file)
    sound, before = file.read_bytes(), parser.read(file)
    if name in PLAIN:
        assert agree(name, before, PLAIN[name](file))  # or the comparison below shows nothing
    for number in range(20):
        file.write_bytes(sound[: len(sound) * number // 20] if number % 2 else broken(sound, chance))
        try:
            reading = parser.read(file)
        except GeneDMLError as error:
            assert parser.named(file) in str(error) or name == "config"
            assert len(str(error)) < 2000
        else:
            assert repr(reading) == repr(before) or agree(name, reading, PLAIN[name](file)), file.read_bytes()


@pytest.mark.parametrize("step", [10, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "name",
    ["checkpoint", "ridge", "novelty", "features", "prediction", "h5ad-counts", "patches", "svs", "tiff", "jpeg"],
)
def test_a_file_cut_at_every_percent_is_refused(name, step, tmp_path):
    parser = PARSERS[name]
    file = tmp_path / parser.file
    parser.write(file)
    sound = file.read_bytes()
    for percent in range(0, 100, step):
        with pytest.raises(GeneDMLError, match=file.name):
            parser.read(write(file, sound[: len(sound) * percent // 100]))


@pytest.mark.parametrize("name", ["checkpoint", "ridge", "novelty", "features"])
def test_no_changed_bit_of_a_model_or_of_features_goes_unnoticed(name, tmp_path):
    parser, chance = PARSERS[name], random.Random(7)
    file = tmp_path / parser.file
    parser.write(file)
    sound, truth = file.read_bytes(), repr(parser.read(file))
    for _ in range(60):
        content = bytearray(sound)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        try:
            assert repr(parser.read(file)) == truth
        except GeneDMLError as error:
            assert file.name in str(error)


@pytest.mark.parametrize("percent", range(1, 100, 7))
def test_a_cut_gzip_is_never_a_shorter_table(percent, tmp_path):
    content = gzip.compress(b",GNAS,FASN\n" + b"".join(b"s%d,%d,2\n" % (row, row) for row in range(2000)))
    with pytest.raises(GeneDMLError, match=r"counts\.csv\.gz cannot be read: .*(ended|EOF|no|empty)"):
        read_counts(write(tmp_path / "counts.csv.gz", content[: len(content) * percent // 100]))


@seeded
@given(st.dictionaries(PLAIN_NAME, st.tuples(COORDINATE, COORDINATE), min_size=1), st.sampled_from(",;\t"))
def test_spots_come_back_as_they_were_written(tmp_path, table, separator):
    assume_unsplit = {name: place for name, place in table.items() if not set(name) & set(",;\t")}
    lines = [f"{name}{separator}{x!r}{separator}{y!r}" for name, (x, y) in assume_unsplit.items()]
    file = write(tmp_path / "spots.csv", "\r\n".join([separator.join(("name", "x", "y")), *lines]))
    if not assume_unsplit:
        with pytest.raises(GeneDMLError):
            read_spots(file)
        return
    spots = read_spots(file)
    assert spots.names == tuple(assume_unsplit)
    np.testing.assert_allclose(spots.xy_px, list(assume_unsplit.values()), rtol=1e-14)


@seeded
@given(st.lists(PLAIN_NAME, min_size=1, max_size=6, unique=True), st.data())
def test_counts_come_back_as_they_were_written(tmp_path, genes, data):
    genes = [gene for gene in genes if not set(gene) & set(",;\t") and not gene.strip(".").isdecimal()] or ["GNAS"]
    rows = data.draw(st.lists(st.lists(st.integers(0, 9999), min_size=len(genes), max_size=len(genes)), min_size=1))
    rows[0][0] = max(rows[0][0], 1)  # a table of zeros is none
    lines = [",".join(map(str, (f"0{number}", *row))) for number, row in enumerate(rows)]
    counts = read_counts(write(tmp_path / "counts.csv", "\n".join([",".join(("", *genes)), *lines])))
    assert list(counts.var_names) == genes
    assert list(counts.obs_names) == [f"0{number}" for number in range(len(rows))]
    assert counts.X.toarray().astype(int).tolist() == rows


@seeded
@given(st.binary(max_size=300), st.sampled_from(["spots.csv", "counts.tsv", "sheet.csv", "c.toml", "a.h5ad", "s.png"]))
def test_any_bytes_end_in_success_or_one_sentence(tmp_path, content, name):
    readers = {".toml": lambda file: load_config(file=file), ".h5ad": read_prediction, ".png": open_slide}
    named = {"spots.csv": read_spots, "counts.tsv": read_counts, "sheet.csv": read_sheet}
    file = write(tmp_path / name, content)
    try:
        (named.get(name) or readers[file.suffix])(file)
    except GeneDMLError as error:
        assert name in str(error) or name == "c.toml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,x,y\na,1,2,3\n", r"line 2 has 4 cells, the first line 3"),
        ("name,x,y\na,1\n", r"line 2 has 2 cells, the first line 3"),
        ("name,x,x,y\na,1,2,3\n", r"two columns 'x'"),
        ("name,x,y\na,1,True\n", r"column y of .* something else than numbers"),
        ("name,x,y\na,1,1_0\n", r"column y of .* something else than numbers"),
        ("name,x,y\na,1,inf\n", r"1 of 1 spots .* have no position"),
        ("name,x,y\na,1,1e9\n", r"farther than 1e\+07 px"),
        ("name,x,y\na\x1b[2J,1,2\n", r"'a\\x1b\[2J', with a control character"),
        ('name,x,y\n"a\nb",1,2\n', r"'a\\nb', with a control character"),
        ("name,x,y,array_row,array_col\na,1,2,1e300,0\n", r"array positions beyond"),
        ("name,x,y,array_row,array_cool\na,1,2,3,4\n", r"has array_row alone"),
        ("name,x,y\na\u200b,1,2\n", r"'a\\u200b', with a control character"),
        ("name,x,y\na,1,2\n".encode("utf-16"), r"UTF-16 or binary; save it as UTF-8"),
        ("name,x,y\n\xe9,1,2\n".encode("latin-1"), r"byte 9 is not UTF-8"),
        ("name;x;y\na;1,5;2\n", r"column x of .* something else than numbers"),
    ],
)
def test_spot_tables_that_are_refused(tmp_path, content, message):
    with pytest.raises(GeneDMLError, match=message) as refused:
        read_spots(write(tmp_path / "spots.csv", content))
    assert "spots.csv" in str(refused.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_marks_and_quotes_are_of_no_account(tmp_path, end, mark):
    text = end.join(('"name","x","y"', '"NA",1,2', '"007",3,4', ""))
    spots = read_spots(write(tmp_path / "spots.csv", mark + text.encode()))
    assert spots.names == ("NA", "007")
    assert spots.xy_px.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",A,B\na,1,2,9\nb,3,4,5\n", "rows have 4 cells, the first line 3|no number|something else"),
        (",A,B\na,1,2\nb,3\n", "row b has an empty cell under B"),
        (",A,B\na,1,-2\n", "negative numbers or NaN"),
        (",A,B\na,1,inf\n", "negative numbers or NaN"),
        (",A,B\na,1,True\n", "column B holds something else"),
        (",A,B\na,1,1e999\n", "negative numbers or NaN|something else"),
        (",A,B\n,1,2\n", "a row has no name"),
        ("a,0,3,0\nb,1,2,9\n", "its first line holds counts"),
        (",A,B\na,1,2\x00\n", "zero bytes"),
        (",A\x07,B\na,1,2\n", r"a gene 'A\\x07', with a control character"),
        ("," + ",".join(map(str, range(70_000))) + "\na\n", "70001 columns"),
    ],
)
def test_count_tables_that_are_refused(tmp_path, content, message):
    with pytest.raises(GeneDMLError, match=message):
        read_counts(write(tmp_path / "counts.csv", content))


def test_counts_whose_header_leaves_out_the_corner_keep_their_genes(tmp_path):
    counts = read_counts(write(tmp_path / "counts.csv", "A,B\na,1,2\nb,3,4\n"))
    assert (list(counts.obs_names), list(counts.var_names)) == (["a", "b"], ["A", "B"])
    assert counts.X.toarray().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(("axis", "what", "number"), [("obs", "spot", 4), ("var", "gene", 3)])
def test_an_annotated_table_with_a_missing_name_is_refused(axis, what, number, tmp_path):
    """As pandas 3 writes names: values and a mask of those that are missing, which one changed bit makes of any."""
    PARSERS["h5ad-counts"].write(tmp_path / "counts.h5ad")
    with h5py.File(tmp_path / "counts.h5ad", "r+") as file:
        stored = file[axis]["_index"]
        values = stored["values"] if isinstance(stored, h5py.Group) else stored
        names = values.asstr()[:]
        del file[axis]["_index"]
        parts = {"values": names.astype(h5py.string_dtype()), "mask": np.arange(number) == 1}
        for name, part in parts.items():
            encoding = {"encoding-type": "array", "encoding-version": "0.2.0"}
            if name == "values":
                encoding["encoding-type"] = "string-array"
            file[axis].create_dataset(f"_index/{name}", data=part).attrs.update(encoding)
        file[axis]["_index"].attrs.update({"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"})
    for read in (read_counts, read_spots) if axis == "obs" else (read_counts,):
        with pytest.raises(GeneDMLError, match=rf"1 of {number} {what}s (without a name|.* have no name)"):
            read(tmp_path / "counts.h5ad")


@pytest.mark.parametrize("end", [b"3 2 2", b"3 2 2\x80", b"3 2 2\x80\n"])
def test_a_matrix_without_its_end_is_refused_before_scipy_reads_beyond_it(end, tmp_path):
    PARSERS["mtx-counts"].write(tmp_path / "matrix.mtx")
    content = (tmp_path / "matrix.mtx").read_bytes()
    assert len(read_counts(tmp_path)) == 2
    (tmp_path / "matrix.mtx").write_bytes(content.removesuffix(b"3 2 2\n") + end)
    with pytest.raises(GeneDMLError, match=r"matrix\.mtx is cut off, or holds something else"):
        read_counts(tmp_path)


@pytest.mark.parametrize("value", [b"0.5", b"1e308", b"-1"])
def test_a_matrix_of_whole_numbers_holds_no_others(value, tmp_path):
    PARSERS["mtx-counts"].write(tmp_path / "matrix.mtx")
    content = (tmp_path / "matrix.mtx").read_bytes()
    (tmp_path / "matrix.mtx").write_bytes(content.replace(b"3 2 2\n", b"3 2 %s\n" % value))
    with pytest.raises(GeneDMLError, match=r"matrix\.mtx is cut off, or holds something else than whole numbers"):
        read_counts(tmp_path)
    (tmp_path / "matrix.mtx").write_bytes(content.replace(b"integer", b"real").replace(b"2 1 5", b"2 1 5.0"))
    assert read_counts(tmp_path).X.toarray().tolist() == [[1, 5, 0], [0, 0, 2]]


@pytest.mark.parametrize("value", ["16777218", "1e30"])
def test_more_counts_than_a_spot_has_are_refused(value, tmp_path):
    with pytest.raises(GeneDMLError, match=r"counts of a gene, more than any has, so it is damaged or"):
        read_counts(write(tmp_path / "counts.csv", f",A,B\na,1,{value}\n"))
    assert read_counts(write(tmp_path / "counts.csv", ",A,B\na,1,16777216\n")).X.max() == 16777216


@pytest.mark.parametrize("packed", [True, False])
def test_a_part_that_says_it_is_not_packed_is_not(packed, tmp_path):
    """Else libhdf5 gives packed bytes as pixels; what packing would not make smaller is stored as it is."""
    import h5py

    PARSERS["patches"].write(tmp_path / "patches.h5")
    pixels = np.ones((1, 224, 224, 3), np.uint8).tobytes()
    with h5py.File(tmp_path / "patches.h5", "a") as file:
        del file["img"]
        images = file.create_dataset("img", (2, 224, 224, 3), np.uint8, chunks=(1, 224, 224, 3), compression="gzip")
        images.attrs["downsample"] = 1.0
        for tile in range(2):
            images.id.write_direct_chunk((tile, 0, 0, 0), zlib.compress(pixels) if packed else pixels, filter_mask=1)
    if packed:
        with pytest.raises(GeneDMLError, match=r"patches\.h5 .*img has a part that is packed, but says"):
            open_patches(tmp_path / "patches.h5")
    else:
        with open_patches(tmp_path / "patches.h5") as patches:
            assert (patches.read(np.array([0, 1])) == 1).all()


def test_a_gzip_bomb_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("genedml_cli.files.text_files.TEXT_LIMIT_BYTES", 10**6)
    with pytest.raises(GeneDMLError, match=r"bomb\.csv\.gz cannot be read: it holds more than 1\.00 MB unpacked"):
        read_counts(write(tmp_path / "bomb.csv.gz", gzip.compress(b"0" * 10**7)))


def test_an_endless_file_is_no_table(tmp_path):
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    for read in (read_counts, read_spots, read_sheet):
        with pytest.raises(GeneDMLError, match=r"endless\.csv"):
            read(tmp_path / "endless.csv")


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", ".hidden", "a\x00b", "a\x1bb", "x" * 200, " "])
@pytest.mark.parametrize("column", ["sample", "fold"])
def test_names_that_would_write_elsewhere_are_refused_with_their_row(tmp_path, name, column):
    (tmp_path / "f").touch()
    rows = [{"sample": "ok", "slide": "f", "spots": "f", "counts": "f", "patient": "P", "fold": "1"} for _ in "ab"]
    rows[1] |= {"sample": "two", column: name}
    pd.DataFrame(rows).to_csv(tmp_path / "sheet.csv", index=False)
    with pytest.raises(GeneDMLError, match=r"sheet\.csv(, row 2: .* cannot be a file name| cannot be read|, line 3)"):
        read_sheet(tmp_path / "sheet.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "cannot be read as TOML"),
        ("[training]\nseed = " + "9" * 30, "training.seed = "),
        ("[network]\nshared_width = 1000000000000", "less than or equal to"),
        ("[training]\nlearning_rate = inf", "finite"),
        ("[views]\num_per_px = inf", "give a number above 0"),
        ("network = 3", "network = 3"),
        ("network = 0", "network = 0"),
        ("".join(f"key{number} = 1\n" for number in range(99)), r"There are 94 more\."),
    ],
)
def test_configurations_that_are_refused(tmp_path, text, message):
    with pytest.raises(GeneDMLError, match=message):
        load_config(file=write(tmp_path / "c.toml", text))


SECRETS = {
    "hf_abcdefghijklmnop": "a token",
    "https://me:pa55word@proxy/x": "pa55word",
    "https://cdn/x.bin?X-Amz-Signature=5ecret&e=1": "5ecret",
}


@pytest.mark.parametrize(("text", "secret"), SECRETS.items())
def test_secrets_are_masked_wherever_they_would_be_written(text, secret, monkeypatch, capfd):
    secret = text if secret == "a token" else secret
    monkeypatch.setattr(sys, "argv", ["genedml", "predict", text])
    console.error(f"it failed: {text}")
    console.say(text)
    written = capfd.readouterr()
    assert secret not in written.out + written.err + maker()["command"] + masked(text)


def test_the_token_of_the_environment_never_appears(monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "an-unusual-token-4711")
    console.warn("Bearer an-unusual-token-4711 was refused")
    assert "4711" not in capfd.readouterr().err


def test_control_characters_do_not_reach_the_terminal(capfd):
    console.table("a\x1b[2Jtitle", ["x\x1b"], [["\x07cell\x9b"]])
    console.error("name\x1b]0;x\x07")
    written = capfd.readouterr()
    assert not set(written.out + written.err) & set("\x1b\x07\x9b")
