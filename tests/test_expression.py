"""Counts of every kind are one matrix; labels are what a naive loop says; gene panels."""

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scanpy.experimental.pp import normalize_pearson_residuals
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse import random as random_sparse

from genedml.config import TARGETS, LabelsConfig
from genedml.errors import GeneDMLError
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.expression.counts import RAW, gene_ids_of, read_counts
from genedml_cli.expression.labels import make_labels
from genedml_cli.expression.panels import agreed_gene_ids, derive_panel
from genedml_cli.runs.panels import find_panel
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots

SPOTS, GENES = ["s0", "s1", "s2"], ["A", "B", "C", "D"]
COUNTS = np.array([[1, 0, 3, 9], [0, 0, 0, 2], [5, 7, 0, 0]])


def write_tsv_gz(folder: Path) -> Path:
    path = folder / "counts.tsv.gz"
    pd.DataFrame(COUNTS, SPOTS, GENES).to_csv(path, sep="\t")
    return path


def write_csv(folder: Path) -> Path:
    path = folder / "counts.csv"
    pd.DataFrame(COUNTS, SPOTS, GENES).to_csv(path)
    return path


def write_h5ad(folder: Path) -> Path:
    path = folder / "counts.h5ad"
    obs, var = pd.DataFrame(index=SPOTS), pd.DataFrame(index=GENES)
    anndata.AnnData(COUNTS.astype(np.float32), obs=obs, var=var).write_h5ad(path)
    return path


def write_10x_h5(folder: Path) -> Path:
    """The layout of Cell Ranger 3: a matrix of genes by spots, compressed by columns."""
    path = folder / "filtered_feature_bc_matrix.h5"
    matrix = csc_matrix(COUNTS.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(SPOTS, "S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = matrix.shape
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{gene}" for gene in GENES], "S")
        features["name"] = np.array(GENES, "S")
        features["feature_type"] = np.array(["Gene Expression"] * 4, "S")
        features["genome"] = np.array(["GRCh38"] * 4, "S")
    return path


def write_mtx(folder: Path) -> Path:
    folder = folder / "filtered_feature_bc_matrix"
    folder.mkdir()
    mmwrite(folder / "matrix.mtx", csr_matrix(COUNTS.T))
    texts = {
        "barcodes.tsv": "".join(f"{spot}\n" for spot in SPOTS),
        "features.tsv": "".join(f"ENSG{gene}\t{gene}\tGene Expression\n" for gene in GENES),
    }
    for name, text in texts.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
    (folder / "matrix.mtx").unlink()
    return folder


@pytest.mark.parametrize("write_counts", [write_tsv_gz, write_csv, write_h5ad, write_10x_h5, write_mtx])
def test_counts_of_every_kind_are_one_matrix(tmp_path, write_counts):
    counts = read_counts(write_counts(tmp_path))
    assert (list(counts.obs_names), list(counts.var_names)) == (SPOTS, GENES)
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)


@pytest.mark.parametrize("write_counts", [write_10x_h5, write_mtx])
def test_ids_of_10x_features_are_kept(tmp_path, write_counts):
    assert gene_ids_of(read_counts(write_counts(tmp_path))) == {gene: f"ENSG{gene}" for gene in GENES}


@pytest.mark.parametrize("write_counts", [write_10x_h5, write_mtx])
def test_10x_features_that_are_no_genes_are_left_out_by_name(tmp_path, write_counts, capfd):
    path = write_counts(tmp_path)
    if path.is_dir():
        table = path / "features.tsv.gz"
        table.write_bytes(gzip.compress(gzip.decompress(table.read_bytes()).replace(b"Gene Exp", b"Gene Esp", 1)))
    else:
        with h5py.File(path, "r+") as file:
            file["matrix/features/feature_type"][0] = b"Gene Espression"
    counts = read_counts(path)
    assert list(counts.var_names) == GENES[1:]
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS[:, 1:])
    assert "no Gene Expression, which are left out: 1 of the kind 'Gene Espression'" in capfd.readouterr().err


def test_ids_are_found_under_other_names_and_may_be_missing(tmp_path):
    path = write_h5ad(tmp_path)
    assert gene_ids_of(read_counts(path)) == {}
    data = anndata.read_h5ad(path)
    data.var["ensembl_id"] = pd.Categorical([f"ENSG{gene}" for gene in GENES[:-1]] + [None])
    data.write_h5ad(path)
    assert gene_ids_of(read_counts(path)) == {gene: f"ENSG{gene}" for gene in GENES[:-1]}


def test_ids_that_differ_are_left_out_with_a_note(capfd):
    sources = [{"A": "ENSG1", "B": "ENSG2"}, {"A": "ENSG1", "B": "ENSG3", "C": "ENSG4"}, {}]
    assert agreed_gene_ids(sources, ["C", "A", "B", "D"]) == ("ENSG4", "ENSG1", "", "")
    assert "1 genes (first: B) have ids that differ" in capfd.readouterr().err
    assert agreed_gene_ids([{}, {}], ["A"]) == ()


@pytest.mark.parametrize("place", ["layers", "raw"])
def test_raw_counts_are_found_beside_a_normalised_x(tmp_path, place):
    data = anndata.AnnData(csr_matrix(COUNTS, dtype=np.float32))
    data.obs_names, data.var_names = SPOTS, GENES
    if place == "layers":
        data.layers["counts"] = data.X.copy()
    else:
        data.raw = data.copy()
    data.X = data.X.log1p()
    data.write_h5ad(tmp_path / "normalised.h5ad")
    counts = read_counts(tmp_path / "normalised.h5ad")
    np.testing.assert_array_equal(counts.X.toarray(), COUNTS)
    assert counts.uns[RAW]


def test_counts_that_are_nowhere_whole_are_taken_with_a_warning(tmp_path, capfd):
    (tmp_path / "corrected.csv").write_text(",A,B\ns0,1.5,2\ns1,0,1\n")
    assert not read_counts(tmp_path / "corrected.csv").uns[RAW]
    assert "NOT RAW: corrected.csv" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("twice.csv", ",A\ns0,1\ns1,2\ns0,3\n", r"twice\.csv names 1 spot twice \(first: s0\)"),
        (
            "negative.csv",
            ",A\ns0,-1\n",
            r"negative\.csv holds negative numbers or NaN, so it is no table of raw counts",
        ),
        ("gaps.csv", ",A,B\ns0,1,\n", r"gaps\.csv .*row s0 has an empty cell under B; write 0 for none"),
        (
            "words.csv",
            ",A,B\ns0,1,many\n",
            r"words\.csv cannot be read: the column B holds something else than numbers",
        ),
        ("genes.csv", ",A,B\n", r"genes\.csv holds 0 spots and 2 genes: nothing to learn from"),
        ("empty.csv", "", r"The counts .*empty\.csv cannot be read"),
        ("counts.xlsx", "", r"counts\.xlsx cannot be read: known are \.tsv, \.csv"),
        ("cut.tsv.gz", "not gzip", r"The counts .*cut\.tsv\.gz cannot be read"),
        ("cut.h5ad", "not HDF5", r"The counts .*cut\.h5ad cannot be read"),
        ("cut.h5", "not HDF5", r"The counts .*cut\.h5 cannot be read"),
    ],
)
def test_counts_that_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(GeneDMLError, match=message):
        read_counts(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n7\t3\t7.02\t2.98\t900\t800\t1\n7\t4\t7.0\t4.0\t900\t950\t1\n",
        "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\nAAC-1,1,0,0,900,800\n",
        "name,x,y\ns0,900,800\n",
    ],
)
def test_a_table_of_spots_is_called_so(tmp_path, text):
    (tmp_path / "spots.tsv").write_text(text)
    with pytest.raises(GeneDMLError, match=r"it is a table of spots, not of counts\. Give raw counts"):
        read_counts(tmp_path / "spots.tsv")


def test_missing_counts_are_named(tmp_path):
    with pytest.raises(GeneDMLError, match=r"There are no counts .*gone\.tsv\.gz"):
        read_counts(tmp_path / "gone.tsv.gz")


def test_half_a_gzip_is_refused(tmp_path):
    path = write_tsv_gz(tmp_path)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(GeneDMLError):
        read_counts(path)


def test_a_folder_without_a_matrix_is_refused(tmp_path):
    with pytest.raises(GeneDMLError):
        read_counts(tmp_path)


def table(counts: np.ndarray, genes: list[str], names: list[str] | None = None) -> anndata.AnnData:
    obs = pd.DataFrame(index=names or [f"s{number}" for number in range(len(counts))])
    return anndata.AnnData(csr_matrix(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=genes))


PANEL = ("G4", "G1", "G2")


@pytest.fixture(scope="module")
def lattice() -> tuple[anndata.AnnData, Spots]:
    """Spots on 5 x 4 places, two missing; one is not in the counts, one has none of the panel; counts come shuffled."""
    rng = np.random.default_rng(3)
    array_xy = np.array([(x, y) for y in range(4) for x in range(5) if (x, y) not in {(0, 0), (3, 2)}])
    spots = Spots(tuple(f"{x}x{y}" for x, y in array_xy), 500.0 + 80.0 * array_xy, array_xy)
    counts = rng.poisson(2, (len(spots), 6))
    counts[7, [1, 2, 4]] = 0
    order = [place for place in rng.permutation(len(spots)) if place != 4]
    return table(counts[order], [f"G{gene}" for gene in range(6)], [spots.names[place] for place in order]), spots


def naive_labels(counts: anndata.AnnData, spots: Spots, config: LabelsConfig) -> tuple[np.ndarray, np.ndarray]:
    """METHOD section 1, spot by spot."""
    own_label, own_depth = {}, {}
    for name in spots.names:
        if name in counts.obs_names:
            every = counts[name].X.toarray().ravel()
            chosen = counts[name, list(PANEL)].X.toarray().ravel()
            own_depth[name] = np.log10(1 + every.sum())
            if chosen.sum() > 0:
                library = chosen.sum() if config.library == "panel" else every.sum()
                log = np.log10 if config.log_base == "10" else np.log
                own_label[name] = log(1 + config.scale * chosen / library)
    labels, depths = np.full((len(spots), len(PANEL)), np.nan), np.full(len(spots), np.nan)
    for row, (name, (x, y)) in enumerate(zip(spots.names, spots.array_xy, strict=True)):
        block = [f"{x + right}x{y + down}" for right in (-1, 0, 1) for down in (-1, 0, 1)] if config.smooth else [name]
        if name in own_label:
            labels[row] = np.mean([own_label[other] for other in block if other in own_label], axis=0)
        if name in own_depth:
            depths[row] = np.mean([own_depth[other] for other in block if other in own_depth])
    return labels, depths


@pytest.mark.parametrize(
    "config",
    [
        LabelsConfig(),
        LabelsConfig(smooth=False),
        LabelsConfig(library="all"),
        LabelsConfig(log_base="e", scale=100.0),
    ],
)
def test_labels_are_what_a_naive_loop_says(lattice, config):
    labels = make_labels(*lattice, PANEL, config)
    expected, depth = naive_labels(*lattice, config)
    np.testing.assert_allclose(labels.y, expected, rtol=1e-5)
    np.testing.assert_allclose(labels.depth, depth, rtol=1e-6)


def test_spots_without_label_are_counted_and_nan(lattice):
    labels = make_labels(*lattice, PANEL, LabelsConfig())
    assert (labels.without_counts, labels.empty) == (1, 1)
    assert np.flatnonzero(~labels.valid).tolist() == [4, 7]
    assert np.isnan(labels.y).all(axis=1).tolist() == (~labels.valid).tolist()
    assert np.flatnonzero(np.isnan(labels.depth)).tolist() == [4]


def test_order_of_spots_does_not_matter_to_labels(lattice):
    counts, spots = lattice
    order = np.random.default_rng(4).permutation(len(spots))
    other = Spots(tuple(spots.names[place] for place in order), spots.xy_px[order], spots.array_xy[order])
    expected = make_labels(counts, spots, PANEL, LabelsConfig()).y[order]
    np.testing.assert_allclose(make_labels(counts, other, PANEL, LabelsConfig()).y, expected, rtol=1e-6)


def test_hexagonal_labels_are_means_of_seven():
    array_xy = np.array([(2 * column + row % 2, row) for row in range(3) for column in range(3)])
    xy_px = 500 + array_xy * np.array([50.0, 50 * 3**0.5])
    counts = np.random.default_rng(5).integers(1, 9, (9, 2))
    spots = Spots(tuple(f"s{number}" for number in range(9)), xy_px, array_xy)
    alone = make_labels(table(counts, ["A", "B"]), spots, ["A", "B"], LabelsConfig(smooth=False)).y
    smooth = make_labels(table(counts, ["A", "B"]), spots, ["A", "B"], LabelsConfig()).y
    # Row 1 stands half a place to the right: its middle spot touches places 1 and 2 of the rows above and below.
    np.testing.assert_allclose(smooth[4], alone[[1, 2, 3, 4, 5, 7, 8]].mean(axis=0), rtol=1e-6)


@pytest.fixture(scope="module")
def sequenced() -> tuple[anndata.AnnData, Spots]:
    """4 x 3 spots and 40 genes; spot 5 has no counts, gene G3 none in any spot."""
    array_xy = np.array([(x, y) for y in range(3) for x in range(4)])
    counts = np.random.default_rng(11).negative_binomial(1, 0.3, (12, 40))
    counts[5], counts[:, 3] = 0, 0
    spots = Spots(tuple(f"s{number}" for number in range(12)), 500.0 + 80.0 * array_xy, array_xy)
    return table(counts, [f"G{gene}" for gene in range(40)]), spots


def test_pearson_labels_are_scanpys_residuals_over_all_genes(sequenced):
    counts, spots = sequenced
    panel = ["G9", "G3", "G0", "G39"]
    labels = make_labels(counts, spots, panel, TARGETS["pearson-unsmoothed"])
    with_counts = np.arange(12) != 5
    every = counts[with_counts].copy()
    every.X = every.X.toarray().astype(np.float64)
    normalize_pearson_residuals(every)
    expected = every[:, panel].X
    assert np.abs(expected[:, 0]).max() > 1
    assert np.isnan(expected[:, 1]).all()
    np.testing.assert_allclose(labels.y[with_counts], np.nan_to_num(expected), rtol=0, atol=1e-6)
    assert (labels.valid.tolist(), labels.empty, labels.without_counts) == (with_counts.tolist(), 1, 0)
    assert np.isnan(labels.y[5]).all()


def test_pearson_labels_are_means_over_neighbours_with_counts(sequenced):
    counts, spots = sequenced
    alone, smooth = (make_labels(counts, spots, ["G9", "G0"], TARGETS[f"pearson{end}"]) for end in ("-unsmoothed", ""))
    np.testing.assert_allclose(smooth.y[0], alone.y[[0, 1, 4]].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(smooth.y[11], alone.y[[6, 7, 10, 11]].mean(axis=0), atol=1e-6)


def test_a_panel_without_counts_in_a_spot_is_a_residual_below_zero():
    """All its reads are elsewhere, which says something of the panel: only the paper's label is undefined there."""
    counts, spots = table(np.array([[4, 6], [0, 9]]), ["A", "B"]), Spots(("s0", "s1"), np.array([[0.0, 0.0], [9, 0]]))
    labels = make_labels(counts, spots, ["A"], TARGETS["pearson-unsmoothed"])
    mu = 9 * 4 / 19
    assert labels.y[1, 0] == pytest.approx(-mu / (mu + mu**2 / 100) ** 0.5)
    assert make_labels(counts, spots, ["A"], LabelsConfig(smooth=False)).valid.tolist() == [True, False]


def test_the_residuals_of_one_spot_are_zero():
    labels = make_labels(table(COUNTS[:1], GENES), Spots(("s0",), np.array([[5.0, 5.0]])), GENES, TARGETS["pearson"])
    assert labels.y.tolist() == [[0, 0, 0, 0]]


def test_residuals_of_a_panel_do_not_make_a_sparse_table_dense():
    counts = random_sparse(1_000, 30_000, 0.02, "csr", np.float32, 5, data_rvs=lambda size: np.full(size, 3.0))
    spots = Spots(tuple(f"s{spot}" for spot in range(1_000)), np.stack(np.divmod(np.arange(1_000), 40), 1) * 100.0)
    genes = [f"G{gene}" for gene in range(30_000)]
    whole = anndata.AnnData(counts, pd.DataFrame(index=spots.names), pd.DataFrame(index=genes))
    spots.neighbors()
    tracemalloc.start()
    y = make_labels(whole, spots, genes[:250], TARGETS["pearson"]).y
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.shape == (1_000, 250)
    assert peak < 40e6  # as single numbers all genes are 120 MB


def test_names_in_no_common_are_refused(lattice):
    other = table(np.ones((2, 1)), ["A"], ["AAC-1", "AAG-1"])
    with pytest.raises(GeneDMLError, match="No spot has counts: spots are called 1x0, 2x0, 3x0, counts AAC-1, AAG-1"):
        make_labels(other, lattice[1], ["A"], LabelsConfig())


def test_panel_genes_that_are_missing_are_named(lattice):
    with pytest.raises(GeneDMLError, match=r"The counts lack 2 of the panel's 3 genes \(first: X, Y\)"):
        make_labels(*lattice, ["X", "G1", "Y"], LabelsConfig())


def test_panel_is_the_common_genes_by_their_sum():
    first = table(np.array([[1, 50, 4, 0], [1, 50, 4, 1]]), ["A", "only_here", "B", "C"])
    second = table(np.array([[9, 2, 20, 90]]), ["B", "A", "C", "only_there"])
    assert derive_panel([first, second], 3) == ("C", "B", "A")
    assert derive_panel([first, second], 1) == ("C",)


def test_equal_sums_come_by_name_whatever_order_the_sections_have():
    first, second = table(np.array([[2, 5, 2, 2]]), ["B", "Z", "C", "A"]), table(np.ones((1, 4)), ["C", "A", "B", "Z"])
    assert derive_panel([first, second], 4) == derive_panel([second, first], 4) == ("Z", "A", "B", "C")


@pytest.mark.parametrize(
    ("sections", "found"), [([], 0), ([["A", "B"], ["B", "C"]], 1), ([["TP53"], ["ENSG00000141510"]], 0)]
)
def test_too_few_genes_in_common_are_counted(sections, found):
    counts = [table(np.ones((1, len(genes))), genes) for genes in sections]
    with pytest.raises(GeneDMLError, match=rf"have {found} genes in common, the panel needs 2.*labels\.panel_size"):
        derive_panel(counts, 2)


@pytest.mark.data
def test_the_rule_gives_the_published_panel_of_her2st(her2st, her2st_counts, monkeypatch):
    assert len(her2st_counts) == 36
    monkeypatch.setattr(
        "genedml_cli.expression.counts.read_counts", lambda path: her2st_counts[path.name.split(".")[0]]
    )
    assert find_panel("HER2ST", derive=True, root=her2st) == published_panel("HER2ST")


@pytest.fixture(scope="module")
def her2st_spots(her2st: Path, her2st_counts: dict[str, anndata.AnnData]) -> dict[str, Spots]:
    """The selected spots of every section."""
    return {name: read_spots(her2st / "ST-spotfiles" / f"{name}_selection.tsv") for name in her2st_counts}


def constant_errors(labels: dict[str, np.ndarray]) -> tuple[float, float]:
    """MSE and MAE of the training mean: over genes and spots, sections of a patient, then patients as folds."""
    errors: dict[str, list[tuple[float, float]]] = {}
    for name, y in labels.items():
        left = np.concatenate([other for key, other in labels.items() if key[0] != name[0]]).mean(axis=0) - y
        errors.setdefault(name[0], []).append((np.square(left).mean(), np.abs(left).mean()))
    mse, mae = np.mean([np.mean(patient, axis=0) for patient in errors.values()], axis=0)
    return float(mse), float(mae)


@pytest.mark.data
def test_the_papers_labels_repeat_its_error_scale(her2st_counts, her2st_spots):
    """METHOD section 1, without the 19 spots that have no label."""
    panel = published_panel("HER2ST")
    labels = {n: make_labels(her2st_counts[n], her2st_spots[n], panel, LabelsConfig()) for n in her2st_counts}
    assert sum(one.empty for one in labels.values()) == 19
    assert sum(int(one.valid.sum()) for one in labels.values()) == 13_620 - 19
    mse, mae = constant_errors({name: one.y[one.valid] for name, one in labels.items()})
    assert (round(mse, 4), round(mae, 4)) == (0.2640, 0.4060)


@pytest.mark.data
@pytest.mark.parametrize(
    ("target", "mse", "mae"),
    [
        ("paper", 0.263, 0.405),
        ("paper-unsmoothed", 0.503, None),
        ("paper-ln", 1.396, None),
        ("paper-all-genes", 0.149, None),
    ],
)
def test_other_choices_miss_the_papers_error_scale(her2st_counts, her2st_spots, target, mse, mae):
    """METHOD section 1: its figures keep the 19 spots without panel counts, as zeros."""
    config, panel = TARGETS[target], published_panel("HER2ST")
    labels = {}
    for name, counts in her2st_counts.items():
        spots = her2st_spots[name]
        alone = make_labels(counts, spots, panel, replace(config, smooth=False))
        y, present = np.nan_to_num(alone.y), ~np.isnan(alone.depth)
        if config.smooth:
            among = spots.neighbors().multiply(present[None, :].astype(float)).tocsr()
            y = (among @ y) / np.maximum(np.asarray(among.sum(axis=1)), 1)
        labels[name] = y[present]
    found = constant_errors(labels)
    assert round(found[0], 3) == mse
    assert mae is None or round(found[1], 3) == mae
