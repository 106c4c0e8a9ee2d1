"""Gene sets and regions of a prediction, and how far both agree with the truth."""

import numpy as np
import pandas as pd
import pytest
import scanpy
from anndata import AnnData
from hostile import small_prediction
from typer.testing import CliRunner

from genedml.config import LabelsConfig
from genedml.errors import GeneDMLError
from genedml_cli import app
from genedml_cli.evaluation.gene_sets import control_genes, read_gene_sets, regions_of, score, set_scores
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.prediction_record import PredictionRecord
from genedml_cli.outputs.predictions import to_anndata
from genedml_cli.spots.spots import Spots

GENES = tuple(f"G{number:02}" for number in range(40))
SIDE = 10


def section(noise: float = 0.1) -> AnnData:
    """A test section of a run with two halves: genes 0-7 are high on the left, 8-15 on the right, the rest nowhere."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    xy = np.column_stack([x.ravel(), y.ravel()])
    left = (xy[:, 0] < SIDE // 2).astype(float)
    truth = 1 + rng.normal(0, 0.1, (len(xy), len(GENES)))
    truth[:, :8] += left[:, None]
    truth[:, 8:16] += 1 - left[:, None]
    predicted = truth + rng.normal(0, noise, truth.shape)
    names = tuple(f"{a}x{b}" for a, b in xy.tolist())
    record = PredictionRecord(
        genedml="0", method="gene-dml", label_settings=LabelsConfig(), notes=(), fold="1", sample="A1", patient="A"
    )
    layers = {"truth": truth, "ridge": rng.normal(size=truth.shape)}
    data = to_anndata(predicted, GENES, Spots(names, xy * 100.0 + 50, xy), record, layers)
    data.obs["depth"] = 1.0
    return data


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write(section(), folder / "A1.h5ad")
    sets = {"LEFT": GENES[:8], "RIGHT": GENES[8:16], "FEW": (*GENES[20:22], "X1", "X2"), "ALL": GENES}
    lines = ["\t".join([name, "http://example.org", *genes]) for name, genes in sets.items()]
    (folder / "sets.gmt").write_text("\n".join([*lines, ""]))
    return folder


def test_sets_and_regions_that_were_planted_are_found(files):
    found = score(files / "A1.h5ad", files / "sets.gmt")
    assert found.genes == {"LEFT": (8, 8), "RIGHT": (8, 8)}
    assert found.left_out["FEW"] == "2 of its 4 genes are in the panel"
    assert found.left_out["ALL"].startswith("it holds 40 of the panel's 40 genes")
    assert found.pcc["Gene-DML"]["LEFT"] > 0.95
    assert abs(found.pcc["ridge"]["LEFT"]) < 0.3
    assert found.ari["Gene-DML"] > 0.5
    assert abs(found.ari["ridge"]) < 0.2
    table = pd.read_csv(files / "A1.sets.csv", index_col="spot")
    assert list(table) == ["region", "LEFT", "RIGHT", "marks"]
    left = table.index.str.split("x").str[0].astype(int) < SIDE // 2
    assert table["LEFT"][left].min() > table["LEFT"][~left].max()


def test_a_score_is_that_of_scanpy():
    data = section()
    expected = AnnData(np.asarray(data.X).copy(), var=pd.DataFrame(index=list(GENES)))
    scanpy.tl.score_genes(expected, list(GENES[:8]), n_bins=4)  # 40 genes, ten a bin
    sets = {"LEFT": GENES[:8]}
    controls = control_genes(np.asarray(data.X).mean(axis=0), GENES, sets)
    found = set_scores(np.asarray(data.X), GENES, sets, controls)
    assert np.allclose(found["LEFT"], expected.obs["score"])


def test_truth_and_prediction_are_held_against_the_same_genes(files, tmp_path):
    """A prediction that has every gene at another height than the truth has, and so other genes near a set."""
    data = section(noise=0.0)
    data.layers["truth"] = data.layers["truth"] + np.linspace(0, 5, len(GENES))
    data.X = data.layers["truth"] + np.random.default_rng(3).permutation(len(GENES)).astype(float)
    write(data, tmp_path / "A1.h5ad")
    found = score(tmp_path / "A1.h5ad", files / "sets.gmt")
    assert found.pcc["Gene-DML"] == pytest.approx({"LEFT": 1, "RIGHT": 1, "FEW": np.nan, "ALL": np.nan}, nan_ok=True)


def test_a_small_panel_has_control_genes():
    values = np.random.default_rng(0).random((30, 20))
    for genes in (20, 9):
        sets = {"SOME": GENES[:4]}
        controls = control_genes(values[:, :genes].mean(axis=0), GENES[:genes], sets)
        assert controls["SOME"]
        assert not {*controls["SOME"]} & {*GENES[:4]}
        scores = set_scores(values[:, :genes], GENES[:genes], sets, controls)["SOME"]
        place = [GENES.index(gene) for gene in controls["SOME"]]
        assert np.allclose(scores, values[:, :4].mean(axis=1) - values[:, place].mean(axis=1))


def test_what_has_too_few_spots_or_genes_is_refused(files, tmp_path):
    with pytest.raises(GeneDMLError, match="2 spots of 3 genes have no regions"):
        regions_of(np.zeros((2, 3)))
    with pytest.raises(GeneDMLError, match="none has 9 to 20 genes of the 40"):
        score(files / "A1.h5ad", files / "sets.gmt", out=tmp_path / "no.csv", fewest_genes=9)
    assert not (tmp_path / "no.csv").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("A\tB\n", "line 1 names no set with genes"),
        ("A\t-\tG1\nA\t-\tG2\n", "line 2 names A a second time"),
        ("A,B,G1\n", "line 1 names no set with genes"),
    ],
)
def test_a_file_that_holds_no_sets_is_refused(text, problem, tmp_path):
    (tmp_path / "sets.gmt").write_text(text)
    with pytest.raises(GeneDMLError, match=problem):
        read_gene_sets(tmp_path / "sets.gmt")


def test_the_command_prints_a_table_or_one_document(files, tmp_path):
    words = ["score", str(files / "A1.h5ad"), "--gene-sets", str(files / "sets.gmt"), "-o", str(tmp_path / "out.csv")]
    shown = CliRunner().invoke(app.app, words)
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "out.csv").is_file()
    assert CliRunner().invoke(app.app, [*words, "--json"]).exit_code == 0


def test_a_prediction_without_truth_is_scored_alone(tmp_path):
    data = section()
    other = small_prediction()
    other.uns["genedml"]["panels"] = [" ".join(GENES)]
    alone = AnnData(data.X, obs=data.obs.drop(columns="depth"), var=data.var, obsm=data.obsm, uns=other.uns)
    for column in ("training_mean", "depth_slope", "depth_intercept"):
        alone.var[column] = 0.1
    write(alone, tmp_path / "out.h5ad")
    (tmp_path / "sets.gmt").write_text("\t".join(["LEFT", "", *GENES[:8]]))
    found = score(tmp_path / "out.h5ad", tmp_path / "sets.gmt")
    assert (found.pcc, found.ari) == ({}, {})
    assert "pcc" in found.to_dict()["sets"]["LEFT"]
