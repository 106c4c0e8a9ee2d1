"""Folders of Space Ranger, versions 1 to 4, in the place of a table of spots and of counts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

from genedml.errors import GeneDMLError
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.expression.counts import read_counts
from genedml_cli.files.space_ranger import VISIUM_PITCH_UM
from genedml_cli.spots.placing import Placing, place_spots
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots

GENES = pd.DataFrame({"id": [f"ENSG{number:011}" for number in range(1, 4)], "name": ["GNAS", "FASN", "ERBB2"]})
SIZE_PX = (1200, 1000)
PITCH_PX = 80.0


@dataclass(frozen=True)
class Section:
    """A small Visium section: places of all spots, and the counts of those under tissue."""

    positions: pd.DataFrame
    counts: pd.DataFrame


@pytest.fixture
def section() -> Section:
    places = [(2 * column + row % 2, row) for row in range(10) for column in range(8)]
    array = pd.DataFrame(places, columns=["array_col", "array_row"])
    barcode = [f"{''.join(letters)}-1" for letters in islice(product("ACGT", repeat=4), 80)]
    positions = pd.DataFrame(
        {
            "barcode": barcode,
            "in_tissue": (np.arange(80) % 5 > 0).astype(int),
            "array_row": array["array_row"],
            "array_col": array["array_col"],
            "pxl_row_in_fullres": np.rint(100 + array["array_row"] * PITCH_PX * 3**0.5 / 2).astype(int),
            "pxl_col_in_fullres": np.rint(100 + array["array_col"] * PITCH_PX / 2).astype(int),
        }
    )
    under = positions.loc[positions["in_tissue"] == 1, "barcode"]
    counts = np.random.default_rng(0).poisson(3, (len(under), 3))
    return Section(positions, pd.DataFrame(counts, index=under.to_numpy(), columns=GENES["name"]))


def write_h5(path: Path, counts: pd.DataFrame, probes: bool) -> None:
    table = csr_matrix(
        counts.to_numpy().astype(np.int32)
    )  # barcodes x genes, which is 10x's genes x barcodes by column
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(counts.index.to_list(), dtype="S")
        group["data"], group["indices"], group["indptr"] = table.data, table.indices.astype(np.int64), table.indptr
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        for name, values in (("id", GENES["id"]), ("name", GENES["name"])):
            features[name] = np.array(values.to_list(), dtype="S")
        for name, value in (("feature_type", "Gene Expression"), ("genome", "GRCh38")):
            features[name] = np.array([value] * 3, dtype="S")
        if probes:  # as of probe sets, versions 2 to 4
            features["target_sets/Visium Human Transcriptome Probe Set"] = np.arange(3)


def write_outs(folder: Path, section: Section, version: int) -> Path:
    """The section as version 1, 2 or 4 of Space Ranger lays it out."""
    spatial = folder / "outs" / "spatial"
    spatial.mkdir(parents=True)
    if version == 1:
        section.positions.to_csv(spatial / "tissue_positions_list.csv", header=False, index=False)
    elif version == 2:
        section.positions.to_csv(spatial / "tissue_positions.csv", index=False)
    else:
        section.positions.to_parquet(spatial / "tissue_positions.parquet")
        (folder / "outs" / "probe_set.csv").write_text("#probe_set_file_format=2.0\ngene_id,probe_seq\n")
    write_h5(folder / "outs" / "filtered_feature_bc_matrix.h5", section.counts, probes=version > 1)
    (folder / "outs" / "possorted_genome_bam.bam").write_bytes(b"not read")
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.15, "spot_diameter_fullres": 44.0}
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.new("RGB", (600, 500), "white").save(spatial / "tissue_hires_image.png")
    Image.new("RGB", (300, 300), "white").save(spatial / "cytassist_image.tiff")
    return folder / "outs"


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "S1.png"
    Image.new("RGB", SIZE_PX, (200, 120, 170)).save(path)
    return path


@pytest.mark.parametrize("version", [1, 2, 4])
def test_an_outs_folder_of_every_version_gives_the_spots_and_counts_of_the_plain_path(version, section, tmp_path):
    section.positions.to_csv(tmp_path / "plain.csv", index=False)
    section.counts.to_csv(tmp_path / "counts.csv")
    outs = write_outs(tmp_path, section, version)
    spots, plain = read_spots(outs), read_spots(tmp_path / "plain.csv")
    assert spots.names == plain.names == tuple(section.counts.index)
    assert np.array_equal(spots.xy_px, plain.xy_px)
    assert np.array_equal(spots.array_xy, plain.array_xy)
    assert spots.left_out == "16 of 80 spots left out by in_tissue"
    counts, plain_counts = read_counts(outs), read_counts(tmp_path / "counts.csv")
    assert (counts.to_df() == plain_counts.to_df()).all(axis=None)
    assert counts.var["gene_ids"].to_list() == GENES["id"].to_list()


def test_a_sheet_of_slides_and_outs_is_enough_and_names_the_files(section, slide, tmp_path, capfd):
    outs = write_outs(tmp_path, section, 2)
    write_outs(tmp_path / "second", section, 4)
    slide.with_name("S2.png").write_bytes(slide.read_bytes())
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("slide,outs\nS1.png,outs\nS2.png,second\n")
    first, second = read_sheet(sheet)
    assert (first.name, first.patient, first.fold) == ("S1", "S1", "S1")
    assert first.spots == outs / "spatial" / "tissue_positions.csv"
    assert (
        first.counts == outs / "filtered_feature_bc_matrix.h5"
    )  # and not the folder, whose every file would be hashed
    assert second.spots == tmp_path / "second" / "outs" / "spatial" / "tissue_positions.parquet"
    assert "sheet.csv has no column patient" in capfd.readouterr().err
    sheet.write_text("slide,outs,patient\nS1.png,outs,Anna\nS2.png,second,Anna\n")
    assert [sample.patient for sample in read_sheet(sheet)] == ["Anna", "Anna"]
    assert "no column patient" not in capfd.readouterr().err


def test_the_pitch_of_visium_gives_um_per_px_and_contradicts_a_wrong_one(section, slide, tmp_path):
    spots = read_spots(write_outs(tmp_path, section, 1))
    assert spots.pitch_um == VISIUM_PITCH_UM
    with open_section(slide, spots) as opened:
        assert opened.um_per_px == pytest.approx(100 / PITCH_PX, rel=0.01)
    with pytest.raises(GeneDMLError, match=r"the spots on S1\.png are 344 um apart, by the pitch they are 100 um"):
        open_section(slide, spots, um_per_px=4.3)  # as CytAssist's microns_per_pixel


def named_hires(outs: Path) -> Path:
    return outs / "spatial" / "tissue_hires_image.png"


def renamed_hires(outs: Path) -> Path:
    return _copied(named_hires(outs), outs / "S1.png")


def named_cytassist(outs: Path) -> Path:
    return outs / "spatial" / "cytassist_image.tiff"


def renamed_cytassist(outs: Path) -> Path:
    return _copied(named_cytassist(outs), outs / "S1.tiff")


def _copied(file: Path, to: Path) -> Path:
    to.write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (named_hires, r"tissue_hires_image\.png \(600 x 500 px\) is a picture that Space Ranger made"),
        (renamed_hires, r"S1\.png \(600 x 500 px\) is as large as Space Ranger's tissue_hires_image\.png"),
        (named_cytassist, r"cytassist_image\.tiff \(300 x 300 px\) is a picture that Space Ranger made"),
        (renamed_cytassist, r"S1\.tiff \(300 x 300 px\) is as large as Space Ranger's cytassist_image\.tiff"),
    ],
)
def test_pictures_of_space_ranger_given_as_the_slide_are_refused_with_what_to_give(
    picture: Callable[[Path], Path], sentence, section, tmp_path
):
    outs = write_outs(tmp_path, section, 2)
    with pytest.raises(GeneDMLError, match=sentence + r".*with --image, about 1200 x 1000 px: give that one"):
        open_section(picture(outs), read_spots(outs))


def test_a_picture_of_space_ranger_is_no_slide_for_a_grid_either(section, tmp_path):
    picture = named_hires(write_outs(tmp_path, section, 2))
    with pytest.raises(GeneDMLError, match="is a picture that Space Ranger made"):  # noqa: SIM117
        with place_spots(picture, None, Placing(um_per_px=2.5)):
            pass


def test_an_image_of_another_size_is_warned_of_and_the_full_one_is_not(section, slide, tmp_path, capfd):
    spots = read_spots(write_outs(tmp_path, section, 2))
    open_section(slide, spots).close()
    assert "Warning" not in capfd.readouterr().err
    Image.new("RGB", (1300, 1000)).save(slide)
    open_section(slide, spots).close()
    assert "S1.png has 1300 x 1000 px" in capfd.readouterr().err


def of_hd(outs: Path) -> None:
    (outs / "spatial" / "tissue_positions.csv").unlink()
    (outs / "binned_outputs" / "square_002um").mkdir(parents=True)


def without_positions(outs: Path) -> None:
    (outs / "spatial" / "tissue_positions.csv").unlink()


def with_two_tables(outs: Path) -> None:
    file = outs / "spatial" / "tissue_positions.csv"
    file.with_name("GSM1_tissue_positions_list.csv").write_bytes(file.read_bytes())


def with_broken_factors(outs: Path) -> None:
    (outs / "spatial" / "scalefactors_json.json").write_text('{"tissue_hires_scalef": [')


def with_a_factor_of_text(outs: Path) -> None:
    (outs / "spatial" / "scalefactors_json.json").write_text('{"tissue_hires_scalef": "half"}')


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (of_hd, r"is of Visium HD.*genedml data bin .*outs --um 100 -o section\.h5ad"),
        (without_positions, r"outs is a folder without spatial/tissue_positions\.csv, so none of Space Ranger's"),
        (with_two_tables, r"holds 2 tables of spots\. Give one of them"),
        (with_broken_factors, r"scalefactors_json\.json cannot be read"),
        (with_a_factor_of_text, r"scalefactors_json\.json cannot be read: could not convert string to float: 'half'"),
    ],
)
def test_folders_that_are_none_say_what_is_wrong(change: Callable[[Path], None], sentence, section, tmp_path):
    outs = write_outs(tmp_path, section, 2)
    change(outs)
    with pytest.raises(GeneDMLError, match=sentence):
        read_spots(outs)
