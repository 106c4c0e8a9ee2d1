"""Transcripts of Xenium summed into spots: drawn from known spots and mapped by an affine, they give the counts."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.expression.counts import read_counts
from genedml_cli.pseudo_spots import xenium
from genedml_cli.pseudo_spots.binning import bin_section
from genedml_cli.pseudo_spots.packing import Packing
from genedml_cli.spots.spot_files import read_spots

GENES = {"GNAS": "ENSG00000087460", "FASN": "ENSG00000169710", "ERBB2": "ENSG00000141736"}
UM = 50.0
TO_PX = np.array([[0.2, 3.6, 500.0], [-3.6, 0.2, 2600.0], [0, 0, 1.0]])  # um -> H&E pixels, turned by a quarter
PIXEL_UM = 0.3  # of the morphology image, as experiment.xenium says; .2125 where nothing does
UM_PER_PX = 1 / np.hypot(0.2, 3.6)


def known_spots(grid: str) -> np.ndarray:
    """Columns and rows of some spots."""
    if grid == "square":
        return np.array([(column, row) for row in range(1, 6) for column in range(1, 7)])
    return np.array([(2 * column + row % 2, row) for row in range(1, 6) for column in range(1, 7)])


def known_counts() -> np.ndarray:
    return np.random.default_rng(5).integers(5, 30, (30, 3))


def transcripts(grid: str) -> pd.DataFrame:
    """As many transcripts around every spot's centre as it has counts, in any order, and what must not be counted."""
    chance = np.random.default_rng(6)
    counts, centres = known_counts(), Packing(grid, UM).centres_um(known_spots(grid))
    spot, gene = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    xy_um = centres[spot] + chance.uniform(-UM / 3, UM / 3, (len(spot), 2))
    names = np.array([*GENES, "NegControlProbe_00042", "UnassignedCodeword_0001", "BLANK_0001"])
    table = pd.DataFrame({"feature_name": names[gene], "x_location": xy_um[:, 0], "y_location": xy_um[:, 1]})
    table["qv"] = chance.choice([20.0, 28.5, 40.0], len(table))
    poor = table.sample(200, random_state=1).assign(qv=19.9)
    control = table.sample(200, random_state=2).assign(feature_name=names[chance.integers(3, 6, 200)])
    stray = pd.DataFrame({"feature_name": ["GNAS"] * 3, "x_location": 900.0, "y_location": 900.0, "qv": 40.0})
    return pd.concat([table, poor, control, stray]).sample(frac=1, random_state=3).astype({"qv": np.float32})


def write_xenium(folder: Path, grid: str = "square", panel: bool = True, is_gene: bool = False) -> Path:
    folder.mkdir()
    table = transcripts(grid)
    if is_gene:
        table["is_gene"] = table["feature_name"].isin(list(GENES))
    table.to_parquet(folder / "transcripts.parquet", row_group_size=300)
    kinds = [({"id": gene_id, "name": name}, "gene") for name, gene_id in GENES.items()]
    kinds += [({"name": "NegControlProbe_00042"}, "negative_control_probe")]
    targets = [{"type": {"data": data, "descriptor": kind}} for data, kind in kinds]
    if panel:
        (folder / "gene_panel.json").write_text(json.dumps({"payload": {"targets": targets}}))
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": PIXEL_UM}))
    to_morphology = np.diag([1 / PIXEL_UM, 1 / PIXEL_UM, 1]) @ np.linalg.inv(TO_PX)
    np.savetxt(folder / "S1_he_imagealignment.csv", to_morphology, delimiter=",")
    return folder


def write_affine(path: Path, matrix: np.ndarray = TO_PX) -> Path:
    np.savetxt(path, matrix, delimiter=",")
    return path


@pytest.mark.parametrize("panel", [True, False])
@pytest.mark.parametrize("grid", ["square", "hex"])
def test_transcripts_of_known_spots_give_the_known_counts_at_the_known_pixels(grid, panel, tmp_path, monkeypatch):
    monkeypatch.setattr(xenium, "PART", 100)
    monkeypatch.setattr(xenium, "MOST_PENDING", 50)  # so that parts are merged many times
    outs = write_xenium(tmp_path / "outs", grid, panel, is_gene=not panel)
    section = bin_section(outs, tmp_path / "s.h5ad", UM, grid)
    spots, counts = read_spots(tmp_path / "s.h5ad"), read_counts(tmp_path / "s.h5ad")
    assert spots.array_xy.tolist() == known_spots(grid).tolist()
    assert (counts.to_df()[list(GENES)].to_numpy() == known_counts()).all()
    centres = Packing(grid, UM).centres_um(known_spots(grid))
    assert np.allclose(spots.xy_px, centres @ TO_PX[:2, :2].T + TO_PX[:2, 2])
    assert section.um_per_px == pytest.approx(UM_PER_PX)
    assert spots.pitch_px * UM_PER_PX == pytest.approx(UM)
    assert section.left_out == "1 spot of fewer than 10 counts left out"
    assert ("gene_ids" in counts.var) == panel
    if panel:
        assert counts.var["gene_ids"].to_dict() == GENES


def test_a_lower_quality_counts_more(tmp_path):
    outs = write_xenium(tmp_path / "outs")
    bin_section(outs, tmp_path / "s.h5ad", UM, "square", min_qv=19)
    assert anndata.read_h5ad(tmp_path / "s.h5ad").X.sum() == known_counts().sum() + 200


def test_an_affine_from_um_to_pixels_is_the_same_as_the_alignment_of_xenium_explorer(tmp_path):
    outs = write_xenium(tmp_path / "outs")
    exported = bin_section(outs, tmp_path / "a.h5ad", UM, "square", alignment=outs / "S1_he_imagealignment.csv")
    affine = bin_section(outs, tmp_path / "b.h5ad", UM, "square", affine=write_affine(tmp_path / "affine.csv"))
    assert np.allclose(exported.xy_px, affine.xy_px)


def test_spots_off_the_image_are_named(tmp_path, capfd):
    outs = write_xenium(tmp_path / "outs")
    whole = bin_section(outs, tmp_path / "all.h5ad", UM, "square")
    height = int(np.median(whole.xy_px[:, 1]))
    Image.new("RGB", (4000, height)).save(tmp_path / "he.png")
    section = bin_section(outs, tmp_path / "s.h5ad", UM, "square", slide=tmp_path / "he.png")
    off = whole.xy_px[:, 1] >= height
    first = whole.names[off.argmax()]
    assert f"{off.sum()} of 30 spots lie off he.png and are left out (first: {first}" in capfd.readouterr().err
    assert section.names == tuple(np.array(whole.names)[~off])


def without_an_alignment(outs: Path) -> dict:
    (outs / "S1_he_imagealignment.csv").unlink()
    return {}


def with_two_alignments(outs: Path) -> dict:
    write_affine(outs / "S2_he_imagealignment.csv")
    return {}


def with_one_taken_for_the_other(outs: Path) -> dict:
    return {"alignment": write_affine(outs / "affine.csv", np.diag([100.0, 100.0, 1.0]))}


def with_key_points(outs: Path) -> dict:
    (outs / "points.csv").write_text("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n")
    return {"alignment": outs / "points.csv"}


def with_a_flat_affine(outs: Path) -> dict:
    return {"affine": write_affine(outs / "affine.csv", np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))}


def without_quality(outs: Path) -> dict:
    file = outs / "transcripts.parquet"
    pd.read_parquet(file).drop(columns="qv").to_parquet(file)
    return {}


def without_positions(outs: Path) -> dict:
    file = outs / "transcripts.parquet"
    pd.read_parquet(file).assign(x_location=np.nan).to_parquet(file)
    return {}


def cut(outs: Path) -> dict:
    file = outs / "transcripts.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    return {}


def with_an_empty_panel(outs: Path) -> dict:
    (outs / "gene_panel.json").write_text('{"payload": {"targets": []}}')
    return {}


def of_another_panel(outs: Path) -> dict:
    target = {"type": {"data": {"id": "E", "name": "OTHER"}, "descriptor": "gene"}}
    (outs / "gene_panel.json").write_text(json.dumps({"payload": {"targets": [target]}}))
    return {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_an_alignment, r"outs holds 0 alignments of an H&E image\. Give the one .*--alignment FILE"),
        (with_two_alignments, r"holds 2 alignments of an H&E image: S1_he_imagealignment\.csv, S2_he"),
        (with_one_taken_for_the_other, r"By affine\.csv the H&E image has 30 um/px, which no microscope has"),
        (with_key_points, r"The alignment .*points\.csv cannot be read: could not convert string to float: 'fixedX'"),
        (with_a_flat_affine, r"affine\.csv cannot be read: it is no map of the plane"),
        (without_quality, r"transcripts\.parquet cannot be read: it lacks qv"),
        (without_positions, r"a transcript has no position, or one outside the slide"),
        (cut, r"The transcripts .*transcripts\.parquet cannot be read"),
        (with_an_empty_panel, r"The panel .*gene_panel\.json cannot be read: it names no gene"),
        (of_another_panel, r"No spot is left of transcripts of Xenium"),
    ],
)
def test_what_is_damaged_or_lacking_is_said_and_nothing_is_left(change, sentence, tmp_path):
    outs = write_xenium(tmp_path / "outs")
    words = change(outs)
    with pytest.raises(GeneDMLError, match=sentence):
        bin_section(outs, tmp_path / "s.h5ad", UM, **words)
    assert [file.name for file in tmp_path.iterdir()] == ["outs"]
