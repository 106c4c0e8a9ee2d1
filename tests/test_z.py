"""z: predictions on a scale by which genes compare."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from hostile import small_prediction

from genedml.checkpoint import load_card
from genedml.errors import GeneDMLError
from genedml_cli.datasets.folds import make_folds
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.labels import make_labels
from genedml_cli.outputs.formats import export, write
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import RANKING, add_z
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.pictures import pictures_of_predictions, pictures_of_runs
from genedml_cli.report.prediction_page import contents_of_prediction
from genedml_cli.spots.spot_files import read_spots


def test_z_is_the_prediction_in_standard_deviations_of_the_training_labels(run, world, p1):
    card = load_card(run / "fold-P1.safetensors")
    trained = make_folds(read_sheet(world / "samples.csv"))[
        0
    ].train  # without a refit the validation is not learnt from
    labels = [
        make_labels(read_counts(one.counts), read_spots(one.spots), card.genes, tiny_config().labels) for one in trained
    ]
    y = np.concatenate([one.y[one.valid] for one in labels])
    data = predict(**p1, model=run / "fold-P1.safetensors")
    assert np.allclose(data.layers["z"], (data.X - y.mean(axis=0)) / y.std(axis=0), atol=1e-4)
    tested = read_prediction(run / "predictions" / "P1.h5ad")
    assert np.allclose(tested.layers["z"], data[tested.obs_names].layers["z"], atol=1e-4)


def test_the_mean_of_folds_has_the_z_of_its_own_columns(run, p1):
    data = predict(**p1, model=run)
    mean, sd = data.var["training_mean"].to_numpy(), data.var["training_sd"].to_numpy()
    assert np.allclose(data.layers["z"], (data.X - mean) / sd, atol=1e-4)


def test_a_gene_that_was_constant_in_training_has_z_0():
    data = small_prediction()
    add_z(data, np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 2.0]))
    assert data.layers["z"][:, 1].tolist() == [0.0] * 4
    assert data.layers["z"][1].tolist() == [3.0, 0.0, 1.5]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A prediction with z, as a file."""
    data, path = small_prediction(), tmp_path_factory.mktemp("z") / "out.h5ad"
    add_z(data, np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 4.0]))
    write(data, path)
    return path


def test_exports_give_z_and_say_so(file, tmp_path):
    plain, scaled, long = (tmp_path / f"{name}.csv" for name in ("plain", "scaled", "long"))
    export(file, plain)
    export(file, scaled, scale="z")
    export(file, long, long=True)
    assert pd.read_csv(plain)["FASN"].tolist() == [1.0, 4.0, 7.0, 10.0]
    assert pd.read_csv(scaled)["FASN"].tolist() == [0.0, 1.5, 3.0, 4.5]
    assert pd.read_csv(long).query("gene == 'FASN'")["z"].tolist() == [0.0, 1.5, 3.0, 4.5]
    assert "predicted z of FASN: z, of log10" in scaled.with_name("scaled.csv-metadata.json").read_text()
    for other in (tmp_path / "other.h5ad", tmp_path / "other.csv"):
        with pytest.raises(GeneDMLError, match="holds z beside the labels already"):
            export(file, other, long=other.suffix == ".csv", scale="z")
        assert not other.exists()


def test_pictures_of_z_show_truth_and_prediction_on_it(file, run):
    (picture,), _ = pictures_of_predictions([file], ["FASN"], None, "z")
    assert picture.predicted["predicted"][:, 0].tolist() == [0.0, 1.5, 3.0, 4.5]
    assert picture.unit == "z"
    section = read_prediction(run / "predictions" / "P2.h5ad")
    gene = section.var_names[3]
    (drawn,), _ = pictures_of_runs([run], [gene], ["P2"], True, "z")
    mean, sd = section.var.loc[gene, ["training_mean", "training_sd"]]
    assert np.allclose(drawn.truth[:, 0], (section[:, gene].layers["truth"][:, 0] - mean) / sd, atol=1e-4)
    assert np.allclose(drawn.predicted["ridge"][:, 0], (section[:, gene].layers["ridge"][:, 0] - mean) / sd, atol=1e-4)


def test_a_page_warns_of_raw_rankings_and_lists_z(file):
    contents = contents_of_prediction(file)
    assert RANKING in contents.notes
    place = contents.genes.columns.index("Mean z")
    assert {row[0].text: row[place].text for row in contents.genes.rows}["FASN"] == "2.250"


def test_a_prediction_of_before_z_says_that_it_has_none(tmp_path):
    path = tmp_path / "old.h5ad"
    write(small_prediction(), path)
    with pytest.raises(GeneDMLError, match="has no z: its model, of an earlier version"):
        export(path, tmp_path / "out.csv", scale="z")
    assert RANKING not in contents_of_prediction(path).notes
    assert record_of(read_prediction(path)).scale == ""
