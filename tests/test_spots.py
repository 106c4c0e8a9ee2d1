"""Spots: every kind of table gives names and level-0 pixels; the array is recognised with and without its indices."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from genedml.errors import GeneDMLError
from genedml_cli.spots.lattice import fit_grid, nearest_distances
from genedml_cli.spots.section import open_section
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Geometry, Spots, check_array

VISIUM = pd.DataFrame(
    {
        "barcode": ["AAC-1", "AAG-1", "AAT-1"],
        "in_tissue": [1, 0, 1],
        "array_row": [0, 0, 1],
        "array_col": [0, 2, 1],
        "pxl_row_in_fullres": [500.0, 500.0, 670.0],
        "pxl_col_in_fullres": [300.0, 500.0, 400.0],
    }
)
ST = (
    "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n"
    "3\t5\t3\t5\t30.5\t50\t1\n4\t5\t4\t5\t40\t50\t0\n4\t6\t4\t6\t40\t60\t1\n"
)
PLAIN = "name,x,y\na,10,20\nb,30,40.5\n"


def visium_spots(columns: int = 9, rows: int = 8, pitch_px: float = 100.0, turn: float = 0.0) -> Spots:
    """A hexagonal array as Visium numbers it: every second column in every second row."""
    array_xy = np.array([(2 * column + row % 2, row) for row in range(rows) for column in range(columns)])
    flat = array_xy * pitch_px * np.array([0.5, 3**0.5 / 2])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return Spots(tuple(f"s{number}" for number in range(len(flat))), 2000 + flat @ rotation, array_xy)


def square_spots(columns: int = 9, rows: int = 8, pitch_px: float = 100.0, turn: float = 0.0) -> Spots:
    array_xy = np.array([(column, row) for row in range(rows) for column in range(columns)])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    names = tuple(f"s{number}" for number in range(len(array_xy)))
    return Spots(names, 2000.0 + array_xy * pitch_px @ rotation, array_xy)


def without_array(spots: Spots, jitter_px: float = 0.0) -> Spots:
    jitter = np.random.default_rng(1).uniform(-jitter_px, jitter_px, spots.xy_px.shape)
    return Spots(spots.names, spots.xy_px + jitter)


def shuffled(spots: Spots, order: np.ndarray) -> Spots:
    array_xy = None if spots.array_xy is None else spots.array_xy[order]
    return Spots(tuple(spots.names[place] for place in order), spots.xy_px[order], array_xy)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def assert_spots(spots: Spots, names: list[str], xy_px: list, array_xy: list | None) -> None:
    assert list(spots.names) == names
    assert spots.xy_px.tolist() == xy_px
    assert (None if spots.array_xy is None else spots.array_xy.tolist()) == array_xy


def write_visium_list(folder: Path) -> Path:
    path = folder / "tissue_positions_list.csv"
    VISIUM.to_csv(path, index=False, header=False)
    return path


def write_visium_csv(folder: Path) -> Path:
    path = folder / "tissue_positions.csv"
    VISIUM.to_csv(path, index=False)
    return path


def write_visium_parquet(folder: Path) -> Path:
    path = folder / "tissue_positions.parquet"
    VISIUM.to_parquet(path)
    return path


def write_h5ad(folder: Path) -> Path:
    obs = VISIUM.set_index("barcode")[["in_tissue", "array_row", "array_col"]]
    data = anndata.AnnData(np.zeros((3, 2), np.float32), obs=obs)
    data.obsm["spatial"] = VISIUM[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    path = folder / "visium.h5ad"
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("write_table", [write_visium_list, write_visium_csv, write_visium_parquet, write_h5ad])
def test_visium_tables_of_every_kind(tmp_path, write_table):
    spots = read_spots(write_table(tmp_path))
    assert_spots(spots, ["AAC-1", "AAT-1"], [[300, 500], [400, 670]], [[0, 0], [1, 1]])


@pytest.mark.parametrize("name", ["C3_selection.tsv", "C3_selection.txt"])
def test_st_selection_leaves_out_what_is_not_selected(tmp_path, name):
    spots = read_spots(write(tmp_path / name, ST))
    assert_spots(spots, ["3x5", "4x6"], [[30.5, 50], [40, 60]], [[3, 5], [4, 6]])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spots.csv", PLAIN),
        ("spots.tsv", PLAIN.replace(",", "\t")),
        ("unnamed.csv", PLAIN.replace("name", "")),
        ("spaced.csv", PLAIN.replace(",", ", ")),
        ("elsewhere.csv", "x,y,Barcode\n10,20,a\n30,40.5,b\n"),
    ],
)
def test_plain_tables(tmp_path, name, text):
    assert_spots(read_spots(write(tmp_path / name, text)), ["a", "b"], [[10, 20], [30, 40.5]], None)


def test_plain_table_with_array_indices(tmp_path):
    spots = read_spots(write(tmp_path / "spots.csv", "name,x,y,array_col,array_row\na,10,20,1,7\n"))
    assert_spots(spots, ["a"], [[10, 20]], [[1, 7]])


def test_numbers_as_names_stay_text(tmp_path):
    assert read_spots(write(tmp_path / "spots.csv", "name,x,y\n7,10,20\n")).names == ("7",)


@pytest.mark.parametrize(
    ("make", "lattice", "inner", "diagonal"), [(visium_spots, "hex", 7, False), (square_spots, "square", 9, True)]
)
@pytest.mark.parametrize("indexed", [True, False])
def test_lattice_and_neighbours(make, lattice, inner, diagonal, indexed):
    spots = make() if indexed else without_array(make(), jitter_px=4)
    assert spots.lattice == lattice
    counts = np.asarray(spots.neighbors().sum(axis=1)).reshape(8, 9)
    assert (counts[1:-1, 1:-1] == inner).all()
    assert counts[0, 0] == (4 if diagonal else 3)
    assert spots.pitch_px == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("make", [visium_spots, square_spots])
def test_neighbours_are_the_same_with_and_without_array_indices(make):
    expected = make().neighbors().toarray()
    np.testing.assert_array_equal(without_array(make(), jitter_px=3).neighbors().toarray(), expected)


def test_neighbours_are_symmetric_and_hold_each_spot_once():
    neighbors = visium_spots().neighbors().toarray()
    np.testing.assert_array_equal(neighbors, neighbors.T)
    assert set(np.unique(neighbors)) == {0, 1}
    assert (np.diag(neighbors) == 1).all()


@pytest.mark.parametrize(
    "spots",
    [
        visium_spots(),
        visium_spots(turn=0.3),
        without_array(visium_spots(turn=0.3), jitter_px=5),
        square_spots(),
        without_array(square_spots(), jitter_px=5),
    ],
)
def test_neighbours_lie_in_the_3x3_block_of_the_grid(spots):
    cells = spots.grid_xy
    assert len(np.unique(cells, axis=0)) == len(spots)
    here, there = spots.neighbors().nonzero()
    assert np.abs(cells[here] - cells[there]).max() == 1


@pytest.mark.parametrize("turn", [0.0, 0.2, np.pi / 2])
def test_hexagonal_array_is_recognised_however_it_is_turned(turn):
    spots = visium_spots(turn=turn)
    assert spots.lattice == without_array(spots).lattice == "hex"
    assert spots.pitch_px == pytest.approx(100)


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_a_checkerboard_is_a_square_array_turned_by_45_degrees_whatever_the_file(parity, turn):
    """ST's slides of 2,000 spots: x + y is even, so the nearest spots stand sqrt(2) index steps away."""
    full = square_spots(columns=12, rows=11, pitch_px=22.85, turn=turn)
    spots = shuffled(full, np.flatnonzero(full.array_xy.sum(axis=1) % 2 == parity))
    pixels = without_array(spots, jitter_px=1)
    for each in (spots, pixels):
        assert each.lattice == "square"
        assert each.pitch_px == pytest.approx(22.85 * 2**0.5, rel=0.01)
        assert each.neighbors().sum(axis=1).max() == 9
    np.testing.assert_array_equal(pixels.neighbors().toarray(), spots.neighbors().toarray())
    inner = (np.abs(spots.array_xy - np.array([5.5, 5])) < 3.6).all(axis=1)
    assert (np.asarray(spots.neighbors().sum(axis=1)).ravel()[inner] == 9).all()
    half = shuffled(spots, np.arange(0, len(spots), 2))
    assert half.pitch_px == pytest.approx(22.85 * 2**0.5)


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("every", [1, 7])
def test_a_part_of_a_hexagonal_array_has_its_pitch_whichever_axis_is_numbered_first(exchanged, every):
    whole = visium_spots()
    part = shuffled(whole, np.arange(0, len(whole), every))
    spots = Spots(part.names, part.xy_px, part.array_xy[:, ::-1] if exchanged else part.array_xy)
    assert (spots.lattice, spots.pitch_px) == ("hex", pytest.approx(100))
    np.testing.assert_array_equal(spots.neighbors().toarray(), part.neighbors().toarray())


def test_every_second_row_and_place_is_of_a_hexagonal_array_for_sure_and_else_of_a_full_one_or_a_checkerboard():
    for make, knows_pitch in ((visium_spots, True), (square_spots, False)):
        whole = make(columns=20, rows=16)
        x, y = whole.array_xy.T
        part = shuffled(whole, np.flatnonzero((y % 2 == 0) & (x % 2 == 0)))
        assert (part.lattice, part.knows_pitch) == (whole.lattice, knows_pitch)
        if knows_pitch:
            assert part.pitch_px == pytest.approx(100)
        row = shuffled(whole, np.flatnonzero(y % 2 == 0))
        assert (row.lattice, row.pitch_px) == (whole.lattice, pytest.approx(100))


def test_few_spots_of_even_places_may_be_of_a_checkerboard_so_they_tell_no_pitch():
    assert not shuffled(square_spots(), np.array([0, 10, 20, 22])).knows_pitch
    assert shuffled(square_spots(), np.array([0, 10, 20, 21])).pitch_px == pytest.approx(100)


def indexed_at(array_xy: list[tuple[int, int]], step_px: float = 30.0, jitter_px: float = 0.7) -> Spots:
    """Spots at places of an array whose index step is ``step_px`` both ways."""
    indices = np.array(array_xy)
    jitter = np.random.default_rng(6).uniform(-jitter_px, jitter_px, indices.shape)
    return Spots(tuple(f"{x}x{y}" for x, y in array_xy), 45 + step_px * indices + jitter, indices)


@pytest.mark.parametrize("size", [3, 4, 5, 10, 20])
def test_spots_of_a_checkerboard_are_not_taken_for_a_full_array_nor_these_for_a_checkerboard(size):
    """What they share cannot be told apart, so it gives no um/px; the neighbours are those one index step away."""
    even = [(x, y) for x in range(20) for y in range(16) if (x + y) % 2 == 0]
    places = [(15, 5), (13, 11), (1, 13), (11, 11), (15, 13)][:size]
    if size > 5:
        places = [even[place] for place in np.random.default_rng(size).choice(len(even), size, replace=False)]
    spots = indexed_at(places)
    assert not spots.knows_pitch
    np.testing.assert_array_equal(spots.grid_xy, spots.array_xy)
    with pytest.raises(
        GeneDMLError, match=r"may be of a full array or of one with every second place\. Give --um-per-px"
    ):
        _ = spots.pitch_px
    assert indexed_at([*places, (2, 5), (7, 2)]).pitch_px == pytest.approx(30, rel=0.02)


def test_many_or_adjoining_even_places_are_a_checkerboard():
    even = [(x, y) for x in range(40) for y in range(30) if (x + y) % 2 == 0]
    apart = [even[place] for place in np.random.default_rng(7).choice(len(even), 30, replace=False)]
    adjoining = [(x, y) for x, y in even if x < 5 and y < 4]
    for places in (apart, adjoining):
        assert indexed_at(places).pitch_px == pytest.approx(30 * 2**0.5, rel=0.02)


def test_few_spots_nearly_on_a_line_tell_no_pitch():
    assert not indexed_at([(33, 5), (11, 3), (35, 5)]).knows_pitch
    assert not indexed_at([(0, 0), (10, 10), (20, 21)]).knows_pitch


@pytest.mark.parametrize("make", [visium_spots, square_spots])
def test_a_choice_of_spots_without_indices_tells_the_true_pitch_or_none(make):
    whole, random = without_array(make(columns=20, rows=20), jitter_px=5), np.random.default_rng(4)
    told = 0
    for size in [4, 6, 9, 12, 16, 24, 60, 120, 250] * 20:
        part = shuffled(whole, random.choice(len(whole), size, replace=False))
        if part.knows_pitch:
            told += 1
            assert part.pitch_px == pytest.approx(100, rel=0.02)
    assert told >= 20


def test_spots_that_form_no_array_have_no_neighbours():
    whole = without_array(visium_spots(columns=40, rows=40))
    scattered = shuffled(whole, np.random.default_rng(5).choice(1600, 40, replace=False))
    assert scattered.neighbors().sum() == len(scattered)
    assert scattered.geometry == Geometry("none", "pixel positions", None, 0.0)
    assert scattered.describe() == "no array by pixel positions, pitch unknown, 0.0 neighbours a spot"


def test_what_is_derived_of_an_array_is_told_in_words():
    assert visium_spots().describe() == "hexagonal array by array positions, pitch 100 px, 5.1 neighbours a spot"
    geometry = without_array(square_spots()).geometry
    assert (geometry.array, geometry.told_by, geometry.pitch_px, geometry.neighbors_per_spot) == (
        "square",
        "pixel positions",
        pytest.approx(100),
        pytest.approx(2 * (8 * 8 + 9 * 7 + 2 * 8 * 7) / 72),
    )


@pytest.mark.parametrize("spots", [visium_spots(), square_spots(), without_array(visium_spots(), jitter_px=4)])
def test_order_of_rows_does_not_matter(spots):
    order = np.random.default_rng(2).permutation(len(spots))
    other = shuffled(spots, order)
    assert (other.lattice, other.pitch_px) == (spots.lattice, pytest.approx(spots.pitch_px))
    np.testing.assert_array_equal(other.grid_xy, spots.grid_xy[order])
    np.testing.assert_array_equal(other.neighbors().toarray(), spots.neighbors().toarray()[np.ix_(order, order)])


def test_pitch_is_told_from_the_array_where_spots_lie_apart():
    sparse = shuffled(square_spots(pitch_px=80), np.array([0, 4, 20, 60, 71]))
    assert sparse.pitch_px == pytest.approx(80)
    assert not without_array(sparse).knows_pitch


def test_two_pieces_of_tissue_lie_on_one_grid():
    spots = without_array(square_spots(columns=20), jitter_px=6)
    column = np.arange(len(spots)) % 20
    apart = shuffled(spots, np.flatnonzero((column < 8) | (column > 12)))
    np.testing.assert_array_equal(apart.grid_xy, square_spots(columns=20).array_xy[(column < 8) | (column > 12)])


def test_places_that_form_no_array_are_divided_by_their_pitch():
    places = np.random.default_rng(3).uniform(0, 4000, (60, 2))
    assert fit_grid(places, "square") is None
    spots = Spots(tuple(map(str, range(60))), places)
    expected = np.rint((places - places.min(axis=0)) / np.median(nearest_distances(places)))
    np.testing.assert_array_equal(spots.grid_xy, expected)


@pytest.mark.parametrize(("columns", "rows"), [(6, 1), (1, 6), (2, 1)])
def test_pitch_of_one_line_of_a_square_array_comes_from_its_indices(columns, rows):
    line = square_spots(columns, rows, pitch_px=70)
    assert line.pitch_px == pytest.approx(70)
    assert not without_array(line).knows_pitch


@pytest.mark.parametrize("row", [True, False])
def test_a_row_or_column_of_every_second_index_tells_no_pitch(row):
    """It may be of a hexagonal array, a checkerboard or a square one."""
    spots = visium_spots()
    line = shuffled(spots, np.flatnonzero(spots.array_xy[:, 1 if row else 0] == 2))
    assert len(line) > 3
    with pytest.raises(GeneDMLError, match=r"pitch of the array cannot be told from \d spots.*--um-per-px"):
        _ = line.pitch_px


def test_two_spots_at_one_place_are_neighbours_and_leave_the_pitch_alone():
    spots = square_spots()
    twice = shuffled(without_array(spots), np.array([*range(len(spots)), 0]))
    assert twice.pitch_px == pytest.approx(100)
    assert twice.grid_xy[-1].tolist() == twice.grid_xy[0].tolist()
    assert twice.neighbors()[0, len(spots)] == 1


def test_a_single_spot_is_its_own_neighbour_and_has_no_pitch():
    single = Spots(("alone",), np.array([[500.0, 400.0]]))
    assert single.neighbors().toarray().tolist() == [[1]]
    with pytest.raises(GeneDMLError, match=r"cannot be told from 1 spot: too few.*--um-per-px"):
        _ = single.pitch_px


@pytest.mark.parametrize("spots", [1, 5])
def test_spots_that_share_their_only_place_share_a_cell(spots):
    names = tuple(f"s{number}" for number in range(spots))
    heap = Spots(names, np.full((spots, 2), 500.0))
    assert heap.grid_xy.tolist() == [[0, 0]] * spots
    assert (heap.neighbors().toarray() == 1).all()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "name,left,top\na,1,2\n",
            r"a\.csv has the columns name, left, top, none .* Rename yours to name, x, y .*pixel_x",
        ),
        ("b.csv", "x,y\n1,2\n", r"b\.csv has x and y but no names\. Add a column called name"),
        ("c.csv", "name,x,y\na,1,2\nb,,3\nc,,3\n", r"2 of 3 spots in .*c\.csv have no position \(first: b\)\. Fill"),
        ("d.csv", "name,x,y\na,1,2\na,3,4\n", r"d\.csv names 1 spot twice \(first: a\)\. Give unique names"),
        ("e.csv", "name,x,y\n", r"e\.csv holds no spot under tissue\. Is it the table of this section"),
        ("f.tsv", ST.replace("\t1\n", "\t0\n"), r"f\.tsv holds no spot under tissue"),
        ("g.csv", "name,x,y\na,1,left\n", r"The column y of .*g\.csv holds something else than numbers: .*left"),
        ("h.csv", "", r"The spot table .*h\.csv cannot be read"),
        ("i.parquet", "no parquet", r"The spot table .*i\.parquet cannot be read"),
        ("j.h5ad", "no h5ad", r"j\.h5ad cannot be read as \.h5ad"),
        ("k.csv", "name,x,y\n,1,2\n", r"1 of 1 spots in .*k\.csv have no name\. Give each a unique one"),
        (
            "l.tsv",
            ST.replace("4\t6\t", "\t6\t"),
            r"1 of 2 spots in .*l\.tsv have no array position \(x, y\)\. Fill them in",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path, name, text, message):
    with pytest.raises(GeneDMLError, match=message):
        read_spots(write(tmp_path / name, text))


def test_missing_table_is_named(tmp_path):
    with pytest.raises(GeneDMLError, match=r"There is no spot table .*gone\.csv\. Check the path"):
        read_spots(tmp_path / "gone.csv")


def test_visium_without_tissue_is_refused(tmp_path):
    path = tmp_path / "tissue_positions.csv"
    VISIUM.assign(in_tissue=0).to_csv(path, index=False)
    with pytest.raises(GeneDMLError):
        read_spots(path)


def test_h5ad_without_positions_is_refused(tmp_path):
    anndata.AnnData(np.zeros((2, 2), np.float32)).write_h5ad(tmp_path / "dissociated.h5ad")
    with pytest.raises(GeneDMLError, match=r"has no obsm\['spatial'\], so no positions\. Give a spot table"):
        read_spots(tmp_path / "dissociated.h5ad")


@pytest.fixture
def wide_slide(tmp_path: Path) -> Path:
    """A 1000 x 400 px image."""
    path = tmp_path / "wide.png"
    Image.new("RGB", (1000, 400), "white").save(path)
    return path


def at(*xy_px: tuple[float, float]) -> Spots:
    return Spots(tuple(f"s{number}" for number in range(len(xy_px))), np.array(xy_px, float))


def dense() -> Spots:
    """Twelve spots, 100 px apart, of which positions alone are known."""
    return at(*((x, y) for x in (100, 200, 300, 400) for y in (50, 150, 250)))


@pytest.mark.parametrize(
    ("spots", "message"),
    [
        (
            at((5000, 5000), (6000, 7000)),
            r"No spot lies inside wide\.png \(1000 x 400 px\).*5000\.\.6000, y 5000\.\.7000",
        ),
        (at((500, 300), (1000, 300)), r"1 of 2 spots do not lie inside .* \(first: s1\).*of another slide"),
        (at((-1, 300), (900, 300)), r"1 of 2 spots do not lie inside .*x -1\.\.900.*Are they of another slide"),
        (at((-1, 300), (390, 300)), r"1 of 2 spots do not lie inside .*x -1\.\.390.*Are they of another slide"),
        (
            at((-50, 90), *((9 * n, 7 * n) for n in range(1, 50))),
            r"1 of 50 spots do not lie .*--skip-off-image leaves them out\.",
        ),
        (at((300, 900), (350, 200)), r"Are x and y exchanged\?"),
        (at((1, 1), (1, 2), (2, 1)), r"x 1\.\.2, y 1\.\.2: these are array indices, not pixels\. Give full-resolution"),
        (at((8.1, 8.2), (8.1, 9.3), (9.2, 8.2)), r"x 8\.1\.\.9\.2, y 8\.2\.\.9\.3: these are array indices"),
        (at((801, 701), (801, 702), (802, 701)), r"x 801\.\.802, y 701\.\.702: these are array indices, not pixels"),
    ],
)
def test_spots_that_are_not_of_the_slide(wide_slide, spots, message):
    with pytest.raises(GeneDMLError, match=message):
        open_section(wide_slide, spots, um_per_px=0.5)


def test_pitch_gives_the_slides_um_per_px(wide_slide):
    with open_section(wide_slide, dense(), pitch_um=200) as slide:
        assert slide.um_per_px == pytest.approx(2)
    with pytest.raises(GeneDMLError, match=r"The pitch of the array cannot be told from 3 spots"):
        open_section(wide_slide, at((100, 100), (350, 100), (100, 350)), pitch_um=200)


def test_um_per_px_said_goes_before_the_pitch_and_is_refused_where_they_contradict_each_other(wide_slide):
    with open_section(wide_slide, dense(), um_per_px=1.6, pitch_um=180) as slide:
        assert slide.um_per_px == 1.6
    with pytest.raises(GeneDMLError, match=r"150 um apart, by the pitch they are 200 um: um/px would be 2\."):
        open_section(wide_slide, dense(), um_per_px=1.5, pitch_um=200)
    with open_section(wide_slide, at((100, 100)), um_per_px=0.5, pitch_um=200) as slide:
        assert slide.um_per_px == 0.5


def test_the_slides_own_um_per_px_goes_before_the_pitch(world):
    spots = read_spots(world / "spots/P1.csv")
    with open_section(world / "slides/P1.tif", spots, pitch_um=100) as slide:
        assert slide.um_per_px == pytest.approx(0.5)
    with pytest.raises(GeneDMLError, match=r"P1\.tif are 112 um apart, by the pitch they are 200 um"):
        open_section(world / "slides/P1.tif", spots, pitch_um=200)


def test_a_section_without_any_um_per_px_is_refused(wide_slide):
    with pytest.raises(GeneDMLError):
        open_section(wide_slide, at((100, 100), (350, 100)))


@pytest.mark.data
def test_real_selection_has_the_pitch_of_its_array(her2st):
    spots = read_spots(her2st / "ST-spotfiles/C3_selection.tsv")
    assert spots.lattice == without_array(spots).lattice == "square"
    assert 200 / spots.pitch_px == pytest.approx(0.687, rel=0.02)
    assert without_array(spots).pitch_px == pytest.approx(spots.pitch_px, rel=0.005)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        ("shuffled", r"pixels and array positions contradict each other: half the spots lie \d+ px or more"),
        ("twice", r"gives 1 array position to spots at several places.*these are of one, fix"),
    ],
)
def test_array_positions_that_cannot_be_are_refused(tmp_path, array, sentence):
    """Labels are smoothed over array neighbours, so wrong ones would be wrong labels."""
    column, row = (side.ravel() for side in np.meshgrid(range(8), range(8)))
    table = pd.DataFrame({"name": [f"s{n}" for n in range(64)], "x": 90 * column + 7 * row, "y": 90 * row - 7 * column})
    table["array_row"], table["array_col"] = row, column
    table.to_csv(tmp_path / "spots.csv", index=False)
    assert len(read_spots(tmp_path / "spots.csv")) == 64  # turned, but an array
    places = ["array_row", "array_col"]
    if array == "shuffled":
        table[places] = table[places].to_numpy()[np.random.default_rng(0).permutation(64)]
    else:
        table.loc[5, places] = table.loc[4, places]
    table.to_csv(tmp_path / "spots.csv", index=False)
    with pytest.raises(GeneDMLError, match=sentence):
        read_spots(tmp_path / "spots.csv")


@pytest.mark.parametrize("make", [visium_spots, square_spots])
def test_few_true_spots_do_not_contradict_their_array_positions(make):
    """As few as four, off their place as far as on HER2ST; exchanged ones do contradict them."""
    whole, random = make(columns=20, rows=16), np.random.default_rng(8)
    table = Path("spots.csv")
    for size in [3, 4, 5, 6, 8, 12, 20] * 10:
        part = shuffled(whole, random.choice(len(whole), size, replace=False))
        check_array(Spots(part.names, part.xy_px + random.normal(0, 5, (size, 2)), part.array_xy), table)
    block = shuffled(whole, np.array([0, 1, 20, 21]))
    with pytest.raises(GeneDMLError, match="contradict each other"):
        check_array(Spots(block.names, block.xy_px[[1, 0, 2, 3]], block.array_xy), table)


def test_pixels_that_do_not_spread_as_their_array_positions_are_refused():
    whole, table = square_spots(), Path("spots.csv")
    for line in (whole, square_spots(columns=6, rows=1)):
        with pytest.raises(GeneDMLError, match=r"\d+ of \d+ array positions have the pixel of another one"):
            check_array(Spots(line.names, np.full((len(line), 2), 500.0), line.array_xy), table)
    flat_xy = whole.array_xy[:, :1] * np.array([100.0, 10.0]) + whole.array_xy[:, 1:] * np.array([50.0, 5.1])
    with pytest.raises(GeneDMLError, match="contradict each other: columns and rows of the array run along one line"):
        check_array(Spots(whole.names, flat_xy, whole.array_xy), table)


def test_one_wrong_position_of_seven_does_not_refuse_the_table():
    spots = indexed_at([(15, 16), (13, 16), (13, 17), (15, 18), (14, 18), (13, 18), (10, 19)], step_px=285, jitter_px=5)
    off_px = np.array([[0, 0]] * 6 + [[0, -700]])
    check_array(Spots(spots.names, spots.xy_px + off_px, spots.array_xy), Path("spots.csv"))
