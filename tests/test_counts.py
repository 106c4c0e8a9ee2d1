"""Raw counts are found in any table of an AnnData file, under any names, and in 10x folders as they lie about."""

import gzip
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_config
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix
from test_expression import COUNTS, GENES, SPOTS, write_10x_h5, write_mtx

from genedml.checkpoint import load_checkpoint
from genedml.config import LabelsConfig
from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.expression.counts import RAW, gene_ids_of, read_counts
from genedml_cli.expression.gene_map import read_gene_map, with_gene_map
from genedml_cli.expression.labels import make_labels
from genedml_cli.expression.panels import gene_columns, join_genes, match_panel
from genedml_cli.files.text_tables import read_count_table, read_rows
from genedml_cli.runs.run import train
from genedml_cli.spots.spots import Spots

IDS = [f"ENSG0000000000{number}" for number in range(4)]


def annotated(x: np.ndarray, genes: list[str] = GENES, **columns: list) -> anndata.AnnData:
    return anndata.AnnData(np.asarray(x, np.float32), pd.DataFrame(index=SPOTS), pd.DataFrame(columns, index=genes))


def of_some_genes_scaled() -> anndata.AnnData:
    data = annotated(np.log1p(COUNTS[:, :2]) - 1, GENES[:2])
    data.raw = annotated(COUNTS)
    return data


def of_some_genes_whole() -> anndata.AnnData:
    data = annotated(COUNTS[:, :2], GENES[:2])
    data.raw = annotated(COUNTS)
    return data


def of_zeros() -> anndata.AnnData:
    data = annotated(0 * COUNTS)
    data.layers["counts"] = csr_matrix(COUNTS)
    return data


def with_layer(*names: str) -> anndata.AnnData:
    data = annotated(np.log1p(COUNTS))
    for name in names:
        data.layers[name] = csr_matrix(COUNTS)
    return data


def beside_whole_x(x: np.ndarray, place: str = "counts") -> anndata.AnnData:
    """Cut to 0 and 1, clipped or corrected for depth, which are whole numbers, too."""
    data = annotated(x)
    if place == "raw":
        data.raw = annotated(COUNTS)
    else:
        data.layers[place] = csr_matrix(COUNTS)
    return data


def with_parts_beside() -> anndata.AnnData:
    data = annotated(COUNTS)
    data.layers["spliced"], data.layers["unspliced"] = COUNTS // 2, COUNTS - COUNTS // 2
    return data


def with_raw_normalised() -> anndata.AnnData:
    data = with_layer("counts")
    data.raw = annotated(np.log1p(COUNTS))
    return data


def by_ensembl_id() -> anndata.AnnData:
    """As CELLxGENE writes it: ids as names, symbols in a column, counts in ``raw``, here without that column."""
    data = annotated(np.log1p(COUNTS), IDS, feature_name=pd.Categorical(GENES))
    data.raw = annotated(COUNTS, IDS)
    return data


@pytest.mark.parametrize(
    "make",
    [
        of_some_genes_scaled,
        of_some_genes_whole,
        of_zeros,
        lambda: with_layer("raw_counts"),
        lambda: with_layer("UMI", "ambiguous"),
        lambda: beside_whole_x(np.minimum(COUNTS, 1)),
        lambda: beside_whole_x(np.minimum(COUNTS, 5), "raw"),
        lambda: beside_whole_x(COUNTS + 3, "raw_counts"),
        with_parts_beside,
        with_raw_normalised,
        by_ensembl_id,
    ],
)
def test_raw_counts_are_found_in_any_table_of_an_annotated_file(make, tmp_path):
    make().write_h5ad(tmp_path / "counts.h5ad")
    counts = read_counts(tmp_path / "counts.h5ad")
    assert list(counts.var_names) == GENES
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)
    assert counts.uns[RAW]


def test_which_table_was_taken_is_said(tmp_path, capfd):
    of_some_genes_scaled().write_h5ad(tmp_path / "counts.h5ad")
    read_counts(tmp_path / "counts.h5ad")
    assert "counts.h5ad: the counts are those of raw, 4 genes." in capfd.readouterr().err
    beside_whole_x(np.minimum(COUNTS, 1)).write_h5ad(tmp_path / "cut.h5ad")
    read_counts(tmp_path / "cut.h5ad")
    said = "cut.h5ad: the counts are those of layers['counts'], 4 genes; X holds other whole numbers."
    assert said in capfd.readouterr().err
    beside_whole_x(COUNTS).write_h5ad(tmp_path / "same.h5ad")
    read_counts(tmp_path / "same.h5ad")
    assert not capfd.readouterr().err


@pytest.mark.parametrize("names", [["spliced", "unspliced"], ["detected"], ["spliced"]])
def test_tables_of_whole_numbers_without_a_known_name_are_named_and_not_taken(names, tmp_path):
    with_layer(*names).write_h5ad(tmp_path / "counts.h5ad")
    layers = r" and ".join(rf"layers\['{name}'\]" for name in names)
    with pytest.raises(GeneDMLError, match=rf"whole numbers in X, but in {layers}: .* into X or layers\['counts'\]"):
        read_counts(tmp_path / "counts.h5ad")


RANDOM_COUNTS = np.random.default_rng(3).poisson(20 * np.array([[1], [2], [3], [4], [5], [6]]), (6, 40))


@pytest.mark.parametrize(
    ("counts", "raw"),
    [
        (RANDOM_COUNTS, True),
        (RANDOM_COUNTS > 50, False),
        (np.rint(1e4 * RANDOM_COUNTS / RANDOM_COUNTS.sum(axis=1, keepdims=True)), False),
        (np.vstack([np.tile(RANDOM_COUNTS[0], (6, 1)), np.zeros((1, 40))]), False),
        (RANDOM_COUNTS[:1], True),
        (RANDOM_COUNTS[:4] > 50, True),
    ],
)
def test_whole_numbers_that_are_cut_or_scaled_to_one_sum_are_not_raw(counts, raw, tmp_path, capfd):
    pd.DataFrame(1 * counts.astype(int)).rename(index="s{}".format).add_prefix("G").to_csv(tmp_path / "counts.csv")
    assert read_counts(tmp_path / "counts.csv").uns[RAW] is raw
    assert ("NOT RAW: counts.csv" in capfd.readouterr().err) is not raw


@pytest.mark.parametrize("name", ["counts.csv", "counts.h5ad"])
def test_a_table_without_any_count_is_refused(name, tmp_path):
    if name.endswith("csv"):
        pd.DataFrame(0 * COUNTS, SPOTS, GENES).to_csv(tmp_path / name)
    else:
        annotated(0 * COUNTS).write_h5ad(tmp_path / name)
    with pytest.raises(GeneDMLError, match=r"holds no counts: all its numbers are 0"):
        read_counts(tmp_path / name)


def test_names_of_raw_that_stand_twice_are_made_unique_as_scanpy_does(tmp_path):
    twice = ["A", "B", "B", "D"]
    data = annotated(np.log1p(COUNTS), ["A", "B", "B-1", "D"], gene_ids=IDS)
    data.raw = annotated(COUNTS, twice)
    data.write_h5ad(tmp_path / "counts.h5ad")
    counts = read_counts(tmp_path / "counts.h5ad")
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)
    assert gene_ids_of(counts) == dict(zip(["A", "B", "B-1", "D"], IDS, strict=True))


@pytest.mark.parametrize("panel", [("B", "D"), tuple(IDS[1::2])])
def test_a_panel_finds_its_genes_by_name_and_by_id(panel, tmp_path):
    by_ensembl_id().write_h5ad(tmp_path / "counts.h5ad")
    counts = read_counts(tmp_path / "counts.h5ad")
    assert gene_ids_of(counts) == dict(zip(GENES, IDS, strict=True))
    assert match_panel(counts, panel) == (panel, ())
    spots = Spots(tuple(SPOTS), np.array([[0.0, 0], [100, 0], [200, 0]]))
    y = make_labels(counts, spots, panel, LabelsConfig(smooth=False)).y
    part = COUNTS[:, 1::2]
    np.testing.assert_allclose(y, np.log10(1 + 1e4 * part / part.sum(axis=1, keepdims=True)), rtol=1e-6)


@pytest.mark.parametrize("spots", [["AAAC-1", "AAAG-1", "AAAT-1"], ["1x1", "1x2", "2x1"]])
@pytest.mark.parametrize("kind", ["csv", "h5ad"])
def test_genes_in_rows_are_called_so(spots, kind, tmp_path):
    table = pd.DataFrame(COUNTS, spots, GENES).T
    path = tmp_path / f"counts.{kind}"
    anndata.AnnData(table.astype(np.float32)).write_h5ad(path) if kind == "h5ad" else table.to_csv(path)
    with pytest.raises(GeneDMLError, match=rf"is turned: its rows are genes \(A, B\), its columns spots \({spots[0]}"):
        read_counts(path)


def test_genes_in_rows_under_other_names_are_called_so_where_they_are_joined():
    turned = annotated(COUNTS.T[:3, :3], SPOTS)
    turned.obs_names = GENES[:3]
    spots = Spots(tuple(SPOTS), np.zeros((3, 2)))
    with pytest.raises(GeneDMLError, match=r"No spot has counts: .* These are turned, genes in rows"):
        make_labels(turned, spots, ["s0"], LabelsConfig())
    with pytest.raises(GeneDMLError, match=r"0 of the panel's 3 genes, .* these are turned, genes in rows"):
        match_panel(turned, GENES[:3])


def unpacked(folder: Path) -> Path:
    for file in folder.iterdir():
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    return folder


def of_cell_ranger_2(folder: Path) -> Path:
    unpacked(folder)
    rows = [line.split("\t")[:2] for line in (folder / "features.tsv").read_text().splitlines()]
    (folder / "genes.tsv").write_text("".join(f"{gene_id}\t{name}\n" for gene_id, name in rows))
    (folder / "features.tsv").unlink()
    return folder


def mixed(folder: Path) -> Path:
    of_cell_ranger_2(folder)
    file = folder / "genes.tsv"
    (folder / "genes.tsv.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return folder


def with_prefix(folder: Path) -> Path:
    for file in [*folder.iterdir()]:
        file.rename(file.with_name(f"GSM12_S1_{file.name}"))
    return folder


def the_matrix(folder: Path) -> Path:
    return with_prefix(folder) / "GSM12_S1_matrix.mtx.gz"


def below_outs(folder: Path) -> Path:
    (folder.parent / "outs" / "spatial").mkdir(parents=True)
    shutil.move(folder, folder.parent / "outs")
    return folder.parent / "outs"


def beside_outs(folder: Path) -> Path:
    shutil.rmtree(folder)
    (folder.parent / "outs").mkdir()
    write_10x_h5(folder.parent / "outs")
    return folder.parent


def the_raw_table(folder: Path) -> Path:
    shutil.rmtree(folder)
    write_10x_h5(folder.parent).rename(folder.parent / "raw_feature_bc_matrix.h5")
    return folder.parent


def of_one_genome(folder: Path) -> Path:
    (folder.parent / "S1_filtered_gene_bc_matrices").mkdir()
    shutil.move(folder, folder.parent / "S1_filtered_gene_bc_matrices" / "GRCh38")
    return folder.parent


def of_starsolo(folder: Path) -> Path:
    below = folder.parent / "S1_Solo.out" / "Gene"
    below.mkdir(parents=True)
    shutil.move(unpacked(folder), below / "filtered")
    return below.parent


def with_hidden_files(folder: Path) -> Path:
    """As macOS leaves them where it copies to other disks."""
    for name in ("._matrix.mtx.gz", "._barcodes.tsv.gz", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    return folder


def spots_in_rows(folder: Path) -> Path:
    mmwrite(folder / "matrix.mtx", csr_matrix(COUNTS))
    (folder / "matrix.mtx.gz").unlink()
    return folder


@pytest.mark.parametrize(
    "arrange",
    [
        unpacked,
        of_cell_ranger_2,
        mixed,
        with_prefix,
        the_matrix,
        below_outs,
        beside_outs,
        of_starsolo,
        the_raw_table,
        of_one_genome,
        spots_in_rows,
        with_hidden_files,
    ],
)
def test_10x_folders_are_read_as_they_lie_about(arrange, tmp_path):
    counts = read_counts(arrange(write_mtx(tmp_path)))
    assert (list(counts.obs_names), list(counts.var_names)) == (SPOTS, GENES)
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)
    assert gene_ids_of(counts) == {gene: f"ENSG{gene}" for gene in GENES}


@pytest.mark.parametrize("second", [False, True])
def test_features_of_one_name_are_read(second, tmp_path):
    folder = write_mtx(tmp_path)
    lines = [f"{gene}\tGene Expression\n" if second else f"{gene}\n" for gene in GENES]
    (folder / "features.tsv.gz").write_bytes(gzip.compress("".join(lines).encode()))
    counts = read_counts(folder)
    assert list(counts.var_names) == GENES
    assert gene_ids_of(counts) == {}


def two_samples(folder: Path) -> None:
    for file in [*folder.iterdir()]:
        shutil.copy(file, file.with_name(f"S1_{file.name}"))
        file.rename(file.with_name(f"S2_{file.name}"))


def without_barcodes(folder: Path) -> None:
    (folder / "barcodes.tsv.gz").unlink()


def with_a_header(folder: Path) -> None:
    file = folder / "barcodes.tsv.gz"
    file.write_bytes(gzip.compress(b"x\n" + gzip.decompress(file.read_bytes())))


def of_bins(folder: Path) -> None:
    without_barcodes(folder)
    for file in [*folder.iterdir()]:
        file.unlink()
    for size in ("square_008um", "square_016um"):
        (folder / "binned_outputs" / size).mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (two_samples, r"holds 2 tables\. Give one of them: .*/S1_matrix\.mtx\.gz, .*/S2_matrix\.mtx\.gz"),
        (without_barcodes, r"beside matrix\.mtx\.gz there is no barcodes\.tsv\.gz or barcodes\.tsv"),
        (with_a_header, r"matrix\.mtx\.gz is 4 x 3, but features\.tsv\.gz has 4 lines and barcodes\.tsv\.gz 4"),
        (of_bins, r"bins of several sizes \(square_008um, square_016um\); sum them into spots: genedml data bin"),
    ],
)
def test_10x_folders_that_are_none_say_what_is_wrong(change, message, tmp_path):
    folder = write_mtx(tmp_path)
    change(folder)
    with pytest.raises(GeneDMLError, match=message):
        read_counts(folder)


@pytest.mark.parametrize(
    "places",
    [
        ("S1_filtered_feature_bc_matrix", "S2_filtered_feature_bc_matrix"),
        ("A_outs/filtered_feature_bc_matrix", "B_outs/raw_feature_bc_matrix"),
        ("filtered_feature_bc_matrix", "S2_filtered_feature_bc_matrix"),
        ("S1_filtered_feature_bc_matrix", "S2_outs/filtered_feature_bc_matrix"),
        ("filtered_gene_bc_matrices/GRCh38", "filtered_gene_bc_matrices/mm10"),
    ],
)
def test_a_folder_of_several_samples_names_the_paths_to_give(places, tmp_path):
    (tmp_path / "made").mkdir()
    table = write_mtx(tmp_path / "made")
    for place in places:
        shutil.copytree(table, tmp_path / "all" / place)
    with pytest.raises(GeneDMLError, match=r"holds 2 tables\. Give one of them") as refused:
        read_counts(tmp_path / "all")
    for place in places:
        path = tmp_path / "all" / place / "matrix.mtx.gz"
        assert str(path) in str(refused.value)
        assert read_counts(path).n_obs == len(SPOTS)


def test_the_table_under_tissue_goes_before_the_raw_one_of_the_same_sample(tmp_path):
    for name in ("S1_filtered_feature_bc_matrix.h5", "S1_raw_feature_bc_matrix.h5"):
        write_10x_h5(tmp_path).rename(tmp_path / name)
    (tmp_path / "S1_raw_feature_bc_matrix.h5").write_bytes(b"not to be opened")
    assert read_counts(tmp_path).n_obs == len(SPOTS)


def test_10x_files_are_read_without_scanpy_and_numba(tmp_path):
    """numba asks for a folder to keep its work in, and fails where none can be written."""
    code = (
        "import sys; from pathlib import Path; from genedml_cli.expression.counts import read_counts; "
        "print([read_counts(Path(path)).n_obs for path in sys.argv[1:]], {'scanpy', 'numba'} & set(sys.modules))"
    )
    paths = [str(write(tmp_path)) for write in (write_10x_h5, write_mtx)]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[3, 3] set()"


@pytest.mark.parametrize("kind", ["dense", "sparse", "of early versions"])
def test_an_annotated_file_that_is_called_as_10x_calls_its_own_is_told_its_name(kind, tmp_path):
    path = tmp_path / "counts.h5"
    if kind == "of early versions":
        with h5py.File(path, "w") as file:
            file["X"] = COUNTS
            for name, labels in (("obs", SPOTS), ("var", GENES)):
                file[name] = np.array([(label.encode(),) for label in labels], dtype=[("index", "S20")])
    else:
        data = annotated(COUNTS)
        data.X = data.X if kind == "dense" else csr_matrix(data.X)
        data.write_h5ad(path)
    with pytest.raises(GeneDMLError, match=r"counts\.h5 cannot be read: it is an AnnData file: call it \.h5ad"):
        read_counts(path)


def test_a_10x_file_that_is_called_as_anndata_calls_its_own_is_told_its_name(tmp_path):
    write_10x_h5(tmp_path).rename(tmp_path / "counts.h5ad")
    with pytest.raises(GeneDMLError, match=r"counts\.h5ad cannot be read: it is a 10x file: call it \.h5 to read"):
        read_counts(tmp_path / "counts.h5ad")


def test_a_file_of_single_arrays_is_no_table_of_10x(tmp_path):
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["coords"] = np.zeros((3, 2), dtype=int)
    with pytest.raises(GeneDMLError, match=r"cannot be read: it holds no table as 10x writes it"):
        read_counts(tmp_path / "tiles.h5")


def test_10x_files_of_earlier_versions_are_read_and_of_two_genomes_refused(tmp_path):
    matrix = csc_matrix(COUNTS.T)
    with h5py.File(tmp_path / "counts.h5", "w") as file:
        group = file.create_group("GRCh38")
        texts = {"barcodes": SPOTS, "genes": [f"ENSG{gene}" for gene in GENES], "gene_names": GENES}
        for name, values in texts.items():
            group[name] = np.array(values, "S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = matrix.shape
    counts = read_counts(tmp_path / "counts.h5")
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)
    assert gene_ids_of(counts) == {gene: f"ENSG{gene}" for gene in GENES}
    with h5py.File(tmp_path / "counts.h5", "a") as file:
        file.copy("GRCh38", "mm10")
    with pytest.raises(GeneDMLError, match=r"tables of 2 genomes \(GRCh38, mm10\)"):
        read_counts(tmp_path / "counts.h5")


@pytest.mark.parametrize(
    "text",
    [
        "name,A,B,\ns0,1,2,\ns1,3,4,\n",
        ",A,B\ns0,1,2,\ns1,3,4,\n",
        "A,B\ns0,1,2\ns1,3,4\n",
        "A,B,\ns0,1,2,\ns1,3,4,\n",
        "\ufeffname;A;B;;\ns0;1;2;;\ns1;3;4;;\n;;;;\n",
        "name,A,B\ns0,1,2\ns1,3,4\n,,\n,,\n",
    ],
)
def test_what_spreadsheets_leave_at_the_ends_of_lines_and_files_is_no_gene_and_no_spot(text, tmp_path):
    (tmp_path / "counts.csv").write_text(text, encoding="utf-8")
    assert read_count_table(tmp_path / "counts.csv").to_dict() == {"A": {"s0": 1, "s1": 3}, "B": {"s0": 2, "s1": 4}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,A,B,\ns0,1,2,5\n", "a column without a name holds numbers"),
        ("A,B,\ns0,1,2\n", "a column without a name holds numbers"),
        (",A,B\ns0,1,2,5\n", "its rows have 4 cells, the first line 3"),
    ],
)
def test_columns_without_a_name_are_refused_if_they_hold_something(text, message, tmp_path):
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_count_table(tmp_path / "counts.csv")


def test_a_last_gene_without_numbers_is_no_empty_end(tmp_path):
    """Its line is as long as that of R, which leaves the cell above the names out, with an empty end."""
    (tmp_path / "counts.csv").write_text("A,B,C\ns0,1,2,\n")
    with pytest.raises(GeneDMLError, match=r"row s0 has an empty cell under C; write 0 for none"):
        read_counts(tmp_path / "counts.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name A B\ns0 1 2\n", "no tab, comma or semicolon separates its cells"),
        ("name,A,B\ns0,1,2\ns1,3,\n", "row s1 has an empty cell under B; write 0 for none"),
        ("name,A,B\ns0,1,2\ns1,NA,4\n", "row s1 has an empty cell under A; write 0 for none"),
        ("name,A,B\ns0,1,2\ns1,many,4\n", r"column A holds something else than numbers \('many' in row s1\)"),
        ("name,A,B\ns0,1,True\ns1,3,False\n", r"column B holds something else than numbers \('True' in row s0\)"),
    ],
)
def test_cells_that_hold_no_numbers_are_named(text, message, tmp_path):
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(GeneDMLError, match=message):
        read_counts(tmp_path / "counts.csv")


@pytest.mark.parametrize(
    "text",
    [
        "A,B,barcode\n1,2,s0\n3,4,s1\n",
        ",barcode,A,B\n0,s0,1,2\n1,s1,3,4\n",
        "idx,Barcode,A,B\n1,s0,1,2\n2,s1,3,4\n",
        "A,spot_id,B,\n1,s0,2,\n3,s1,4,\n",
    ],
)
def test_names_of_spots_are_found_in_another_column_than_the_first(text, tmp_path):
    (tmp_path / "counts.csv").write_text(text)
    assert read_count_table(tmp_path / "counts.csv").to_dict() == {"A": {"s0": 1, "s1": 3}, "B": {"s0": 2, "s1": 4}}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("kind", ["csv", "h5ad"])
def test_genes_named_twice_are_kept_apart_without_a_warning(kind, tmp_path):
    path = tmp_path / f"counts.{kind}"
    table = pd.DataFrame(COUNTS, SPOTS, ["A", "B", "A", "D"])
    if kind == "csv":
        table.to_csv(path)
    else:
        with warnings.catch_warnings(action="ignore"):
            annotated(COUNTS, list(table.columns)).write_h5ad(path)
    counts = read_counts(path)
    assert list(counts.var_names) == ["A", "B", "A-1", "D"]
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)


@pytest.mark.parametrize("column", ["gene_short_name", "hgnc_symbol", "features", "SYMBOL", "Gene Name"])
@pytest.mark.parametrize("names", [IDS, [f"{gene_id}.5" for gene_id in IDS], ["0", "1", "2", "3"]])
def test_genes_are_named_by_the_column_of_symbols_whatever_it_is_called(names, column, tmp_path):
    annotated(COUNTS, names, feature_name=IDS, **{column: GENES}).write_h5ad(tmp_path / "counts.h5ad")
    counts = read_counts(tmp_path / "counts.h5ad")
    assert list(counts.var_names) == GENES
    assert gene_ids_of(counts) == (dict(zip(GENES, names, strict=True)) if names[0] != "0" else {})


def test_a_panel_finds_its_genes_in_the_one_column_that_has_them():
    counts = annotated(COUNTS, ["a", "b", "c", "d"], alias=GENES, kind=["x"] * 4)
    assert match_panel(counts, ["D", "B"]) == (("D", "B"), ())
    assert gene_columns(counts, ["D", "B"]).tolist() == [3, 1]
    counts.var["other"] = GENES[::-1]
    with pytest.raises(
        GeneDMLError, match=r"var\['alias'\] and var\['other'\] have them: make the right one the names"
    ):
        match_panel(counts, ["D", "B"])


@pytest.mark.parametrize(
    ("names", "ids", "panel", "columns", "by"),
    [
        (["A1", "B1", "C1", "D1"], None, ["D1", "B1"], [3, 1], {"name": 2}),
        ([f"{gene_id}.7" for gene_id in IDS], None, IDS[:2], [0, 1], {"Ensembl id without its version": 2}),
        (IDS, None, [f"{IDS[2]}.1", IDS[0]], [2, 0], {"name": 1, "Ensembl id without its version": 1}),
        (
            ["A1", "B1", "C1", "D1"],
            [f"{gene_id}.3" for gene_id in IDS],
            IDS[1:2],
            [1],
            {"Ensembl id without its version": 1},
        ),
        (["C1ORF7", "B1", "HLA-A", "D1"], None, ["C1orf7", "B1"], [0, 1], {"name": 1, "name in other capitals": 1}),
        (["c1orf7", "b1", "hla-a", "d1"], None, ["C1orf7", "HLA-A"], [0, 2], {"name in other capitals": 2}),
        (["Gnas", "Fasn", "Erbb2", "Krt8"], None, ["GNAS", "FASN"], [-1, -1], {}),  # of a mouse
        (["B1", "b1", "C1", "D1"], None, ["B1", "c1"], [0, 2], {"name": 1, "name in other capitals": 1}),
        (["B1", "b1", "C1", "D1"], None, ["Bone", "bOne"], [-1, -1], {}),
    ],
)
def test_genes_are_joined_by_what_they_have_in_common_and_it_is_counted(names, ids, panel, columns, by):
    counts = annotated(COUNTS, names) if ids is None else annotated(COUNTS, names, gene_ids=ids)
    join = join_genes(counts, panel)
    assert (join.columns.tolist(), join.by) == (columns, by)


def test_a_gene_map_joins_old_names_and_new_ones_in_either_direction(tmp_path):
    (tmp_path / "map.csv").write_text("alias,gene\nMLL2,KMT2D\nKIAA0125,FAM30A\n")
    counts = with_gene_map(annotated(COUNTS, ["KMT2D", "KIAA0125", "C1", "MLL3"]), tmp_path / "map.csv")
    join = join_genes(counts, ["MLL2", "FAM30A", "C1", "KMT2C"])
    assert (join.columns.tolist(), join.by) == ([0, 1, 2, -1], {"name": 1, "gene map": 2})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("old,new\nA,B\n", r"The gene map .*map\.csv cannot be read: it lacks the column alias and gene\. Give a CSV"),
        ("alias,gene\nA,B\nA,C\n", r"map\.csv says that A is called two ways\. Keep one"),
        ("alias,gene\nA,\n", r"map\.csv leaves 1 of 1 genes without a name"),
    ],
)
def test_gene_maps_that_are_refused(text, sentence, tmp_path):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(GeneDMLError, match=sentence):
        read_gene_map(tmp_path / "map.csv")


def test_what_joined_the_genes_of_a_panel_is_said_unless_all_are_by_name(capfd):
    counts = annotated(COUNTS, ["C1ORF7", "B1", "HLA-A", "D1"])
    match_panel(counts, ["C1orf7", "B1"])
    said = "Of the panel's 2 genes the counts have 2: 1 by name, 1 by name in other capitals."
    assert said in capfd.readouterr().err
    match_panel(counts, ["D1", "B1"])
    assert not capfd.readouterr().err


@pytest.mark.parametrize("text", ["name,x,y,\ns0,1,2,\n,,,\n", "name,x,y\ns0,1,2,\n", "name,x,y,\ns0,1,2\n"])
def test_rows_of_text_have_no_empty_end_either(text, tmp_path):
    (tmp_path / "spots.csv").write_text(text)
    assert read_rows(tmp_path / "spots.csv") == (["name", "x", "y"], [["s0", "1", "2"]])


def test_a_run_with_a_gene_map_is_the_run_on_counts_of_one_way_of_naming(world, tmp_path, capfd):
    samples, features, config = read_sheet(world / "samples.csv"), tmp_path / "features", tiny_config()
    counts = [pd.read_csv(sample.counts, sep="\t", index_col=0) for sample in samples]
    panel = list(counts[0].columns[: config.labels.panel_size])
    (tmp_path / "panel.txt").write_text("\n".join(panel))
    (tmp_path / "map.csv").write_text(f"alias,gene\nOLD1,{panel[0]}\n")
    counts[1].rename(columns={panel[0]: "OLD1"}).to_csv(tmp_path / "P2.csv")
    renamed = [replace(sample, counts=tmp_path / "P2.csv") if sample.name == "P2" else sample for sample in samples]
    said = {"panel": str(tmp_path / "panel.txt"), "features": features, "fold": "P1"}
    with pytest.raises(GeneDMLError, match=rf"The counts of P2 lack 1 of the panel's .*: {panel[0]} .*--gene-map"):
        train(renamed, tmp_path / "mapped", config, **said)
    train(samples, tmp_path / "plain", config, **said)
    capfd.readouterr()
    train(renamed, tmp_path / "mapped", config, gene_map=tmp_path / "map.csv", **said)
    line = (
        f"P2: Of the panel's {len(panel)} genes the counts have {len(panel)}: {len(panel) - 1} by name, 1 by gene map"
    )
    assert line in " ".join(capfd.readouterr().err.split())
    first, second = (load_checkpoint(tmp_path / run / "fold-P1.safetensors")[1] for run in ("plain", "mapped"))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    (tmp_path / "map.csv").write_text(f"alias,gene\nOLD2,{panel[0]}\n")
    with pytest.raises(GeneDMLError, match=r"mapped holds another run \(gene_map"):
        train(renamed, tmp_path / "mapped", config, gene_map=tmp_path / "map.csv", **said)
