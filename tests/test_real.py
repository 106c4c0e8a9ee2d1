"""Real sections: the layout of HER2ST's authors, and a real SVS."""

import numpy as np
import openslide
import pandas as pd
import pytest
from conftest import EXAMPLES, write_aperio
from PIL import Image

from genedml.config import load_config
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.evaluation import evaluate
from genedml_cli.notes import Mark
from genedml_cli.prediction.prediction import predict
from genedml_cli.runs.run import train

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def model(her2st, tmp_path_factory):
    """One fold of patient C trained for two epochs on the tiny encoder."""
    folder = tmp_path_factory.mktemp("real")
    settings = ("encoder=tiny", "training.epochs=2", "training.augment=false", "views.local_grid=0")
    samples = [
        sample for sample in read_sheet(EXAMPLES / "her2st_patient_c.csv", her2st) if sample.name in ("C2", "C3")
    ]
    config = load_config("small", overrides=settings)
    partial = "PARTIAL: 2 of the 36 sections of HER2ST."
    result = train(
        samples, folder / "run", config, fold="C2", panel="HER2ST", features=folder / "features", partial=partial,
        dataset="HER2ST",
    )  # fmt: skip
    return folder / "run", result


def test_sections_are_trained_where_their_authors_put_them_and_marked_as_leaking(model):
    run, result = model
    assert any(note.mark is Mark.LEAKING for note in result.notes)
    assert len(result.per_gene()) == 250
    assert (run / "fold-C2.safetensors").is_file()


def test_the_papers_rows_and_every_mark_stand_in_the_table_of_a_partial_data_set(model):
    run, _ = model
    result = evaluate(run, with_ceiling=True)
    assert {row.method: row.mean["pcc_a"] for row in result.published}["Gene-DML"] == 0.331
    for mark in ("LEAKING", "PARTIAL: 2 of the 36 sections", "UNFINISHED: 1 of 2 folds"):
        assert mark in result.marks
    assert result.summary().loc["split halves", ("pcc_a", "mean")] == pytest.approx(0.54, abs=0.02)


def test_a_real_svs_is_tiled_and_predicted(model, real_slides, tmp_path):
    table = pd.DataFrame({"name": ["a", "b", "c"], "x": [600, 1100, 1100], "y": [1500, 1500, 2000]})
    table.to_csv(tmp_path / "spots.csv", index=False)
    data = predict(real_slides / "cmu-1-small-region.svs", tmp_path / "spots.csv", model[0])
    assert data.shape == (3, 250)
    assert data.uns["genedml"]["um_per_px"] == pytest.approx(0.499)
    entry = data.uns["spatial"]["cmu-1-small-region"]
    assert entry["images"]["hires"].shape[:2] == (2000, 1496)
    assert entry["scalefactors"]["tissue_hires_scalef"] == pytest.approx(2000 / 2967, rel=1e-3)


def test_a_section_written_as_an_aperio_slide_gives_the_predictions_of_its_jpeg(model, her2st, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (jpeg,) = (her2st / "ST-imgs/C/C2").glob("*.jpg")
    with Image.open(jpeg) as image:
        write_aperio(tmp_path / "C2.svs", np.asarray(image.convert("RGB")), um_per_px=0.687)
    assert openslide.OpenSlide.detect_format(tmp_path / "C2.svs") == "aperio"
    spots = tmp_path / "every-third.tsv"
    table = pd.read_csv(her2st / "ST-spotfiles" / "C2_selection.tsv", sep="\t")
    table[::3].to_csv(spots, sep="\t", index=False)
    plain = predict(jpeg, spots, model[0], um_per_px=0.687)
    aperio = predict(tmp_path / "C2.svs", spots, model[0])
    assert plain.X.std(axis=0).mean() > 0.001
    assert np.abs(plain.X - aperio.X).mean() < 0.05 * plain.X.std(axis=0).mean()
    assert plain.n_obs == aperio.n_obs > 55
