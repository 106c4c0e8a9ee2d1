"""The contract for networks: what one file and one row are enough for, and what another package adds."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from line_network import INFO

from genedml.checkpoint import load_card
from genedml.config import Config, load_config, preset_names
from genedml.errors import GeneDMLError
from genedml.networks import registry
from genedml.networks.registry import NETWORKS, network_names
from genedml.schema import to_dict
from genedml_cli.commands.choices import choose_config, default_preset
from genedml_cli.commands.tables.methods import method_rows, show_methods
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.datasets.synthetic import SyntheticConfig, planted_genes
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.prediction.ensemble import load_models
from genedml_cli.prediction.prediction import predict
from genedml_cli.report.page import report
from genedml_cli.runs.ablation import choose_sweep
from genedml_cli.runs.run import train

SETTINGS = (
    "encoder=tiny",
    "labels.panel_size=20",
    "training.epochs=60",
    "training.patience=60",
    "training.learning_rate=0.03",
    "views.local_grid=0",
)


@pytest.fixture(scope="module")
def line_run(world, tmp_path_factory):
    """Two folds of the line on the tiny world."""
    NETWORKS["line"] = INFO
    out = tmp_path_factory.mktemp("runs") / "line"
    config = load_config(overrides=["method=line", "network.scale=0.5", *SETTINGS])
    for fold in ("P1", "P2"):
        train(read_sheet(world / "samples.csv"), out, config, fold=fold, features=out.parent / "features")
    yield out
    del NETWORKS["line"]


def test_one_file_and_one_row_train_and_are_scored_under_their_own_name(line_run):
    card = load_card(line_run / "fold-P1.safetensors")
    assert card.config.method == "line"
    assert to_dict(card.config.network) == {"scale": 0.5}
    scores = evaluate(line_run)
    assert list(scores.summary().index) == ["Line", "ridge", "ridge own tile", "place alone", "depth alone", "constant"]
    genes = pd.read_csv(line_run / "genes.csv")
    assert {"pcc", "pcc_sd", "ridge_pcc"} <= set(genes)
    planted = genes["gene"].isin(planted_genes(SyntheticConfig(genes=20)))
    assert genes["pcc"][planted].mean() > genes["pcc"][~planted].mean() + 0.15


def test_it_predicts_and_what_it_predicts_says_so(line_run, p1, tmp_path):
    data = predict(p1["slide"], p1["spots"], line_run, tmp_path / "out.h5ad", fold="P1")
    assert data.uns["genedml"]["method"] == "line"
    assert np.ptp(data.X, axis=0).min() > 0


def test_a_report_of_it_names_it_and_draws_its_loss(line_run, tmp_path):
    page = report(line_run, tmp_path / "report.html").read_text()
    assert "Line has a PCC of" in page
    assert "Prediction loss" in page
    assert "Instance loss" not in page


def test_it_has_nothing_to_ablate(line_run):
    with pytest.raises(GeneDMLError, match=r"line has no ablation 'k'. There are: none"):
        choose_sweep("line", "k")


def test_folds_of_two_methods_are_never_averaged(line_run, run, tmp_path):
    for number, file in enumerate((line_run / "fold-P1.safetensors", run / "fold-P2.safetensors")):
        shutil.copy(file, tmp_path / f"fold-{number}.safetensors")
    with pytest.raises(GeneDMLError, match="another setting of method"):
        load_models(sorted(tmp_path.glob("*.safetensors")))
    mixed = tmp_path / "mixed"
    shutil.copytree(line_run, mixed)
    shutil.copy(run / "predictions" / "P3.h5ad", mixed / "predictions")
    shutil.copy(run / "fold-P3.safetensors", mixed)
    with pytest.raises(
        GeneDMLError, match=r"has method Gene-DML, but .* has Line: folds of two methods are never averaged"
    ):
        evaluate(mixed)


def test_a_setting_of_another_network_is_refused_with_those_that_there_are(line_run):
    with pytest.raises(GeneDMLError, match=r"network\.loss.*scale"):
        load_config(overrides=["method=line", "network.loss.groups=4"])
    with pytest.raises(GeneDMLError, match=r"No method is called 'lines'. Did you mean line\? There are: .*gene-dml"):
        load_config(overrides=["method=lines"])


def test_another_package_adds_a_network_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "toy_lab-1.dist-info").mkdir()
    (tmp_path / "toy_lab-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-lab\nVersion: 1\n")
    points = "[genedml.networks]\ntoy = toy_lab:INFO\n"
    (tmp_path / "toy_lab-1.dist-info" / "entry_points.txt").write_text(points)
    row = 'INFO = NetworkInfo("toy", "Toy", "line_network:Line", "line_network:LineConfig")\n'
    (tmp_path / "toy_lab.py").write_text(f"from genedml.networks.registry import NetworkInfo\n{row}")
    monkeypatch.syspath_prepend(tmp_path)
    registry.installed.cache_clear()
    try:
        assert network_names()[-1] == "toy"
        assert to_dict(Config(method="toy").network) == {"scale": 1.0}
    finally:
        registry.installed.cache_clear()
        sys.modules.pop("toy_lab", None)


@pytest.mark.parametrize("method", [name for name in NETWORKS if name != "line"])
def test_every_row_names_a_network_and_its_settings(method):
    info = NETWORKS[method]
    assert info.name == method
    assert isinstance(Config(method=method).network, registry.config_class(method))
    assert registry.network_class(method).__doc__
    assert info.paper
    assert info.input
    assert info.licence
    for sweep in info.sweeps.values():
        assert bool(sweep.key) != bool(sweep.switches)


def test_the_list_of_methods_says_what_each_takes(capsys):
    rows = {(row.method, row.preset): row for row in method_rows("uni")}
    ours = rows[("gene-dml", "HER2ST")]
    assert ours.parameters == pytest.approx(121.8e6, rel=1e-3)
    assert not ours.raw_pixels
    assert set(rows) == {(method, preset) for method in network_names() for preset in preset_names(method) or ["-"]}
    show_methods(list(rows.values()), "uni")
    assert "121.78 M" in capsys.readouterr().out


def test_the_preset_follows_method_data_set_and_encoder():
    assert default_preset("gene-dml", "skinST", "uni") == "skinST"
    assert default_preset("gene-dml", "skinST", "stain-texture") == "small"
    assert default_preset("gene-dml", None, None) == "HER2ST"
    assert default_preset("histogene", "skinST", None) == "features"
    assert choose_config(None, "stain-texture", None, None, method="histogene").method == "histogene"
