"""Files of spots of every kind -> :class:`genedml_cli.spots.spots.Spots`. What a column holds is told by its name.

Letters: S spots.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from genedml.errors import GeneDMLError, reading, reason_of
from genedml_cli import console
from genedml_cli.files.hdf5 import opened_h5
from genedml_cli.files.merged_sections import (
    column_key,
    names_in,
    naming_columns,
    picture_keys,
    sections_by_tag,
    sections_in,
    several,
)
from genedml_cli.files.space_ranger import pictures_beside, positions_in
from genedml_cli.files.spatialdata_files import STORE, read_store
from genedml_cli.files.text_files import check_names
from genedml_cli.files.text_tables import ROWS_LIMIT, as_numbers, named_table, read_rows
from genedml_cli.machine.memory import check_memory
from genedml_cli.spots.spots import Spots, check_array

VISIUM_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")

# Names of columns as _key makes them: without capitals, blanks, dots and underscores.
IN_PIXELS = (
    *(("pxlcolinfullres", "pxlrowinfullres"), ("pixelx", "pixely"), ("xpixel", "ypixel"), ("xpx", "ypx")),
    *(("pxx", "pxy"), ("pxlx", "pxly"), ("pixelcol", "pixelrow"), ("imagecol", "imagerow")),
    ("centroidxpx", "centroidypx"),
)
"""Columns of x and y that say that they are pixels, the surest first. They go before those that do not."""
PLAIN = (("x", "y"), ("xcoord", "ycoord"), ("xcoordinate", "ycoordinate"), ("coordx", "coordy"))
ON_ARRAY = (("arraycol", "arrayrow"), ("arrayx", "arrayy"), ("col", "row"))
UNDER_TISSUE = ("intissue", "undertissue", "ontissue", "istissue", "selected")
"""Not ``tissue``: it is what kind of tissue a spot is of, in whatever numbers or words."""
NAMES = ("barcode", "barcodes", "spotname", "spotid", "spotbarcode", "spot", "name", "objectid")
NUMBERS_AS_NAMES = ("id", "index", "", "unnamed0", "cellid", "cell")
"""Columns that may number the rows: names for want of better ones."""
PARTS_OF_PLACES = frozenset(key for pair in (*IN_PIXELS, *PLAIN, *ON_ARRAY) for key in pair)
PSEUDO_SPOTS = "pseudo_spots"
"""In ``uns`` of a section that ``genedml data bin`` wrote: the size of its spots, and where they are from."""
IN_OBSM = ("spatial", "X_spatial")
"""Where an AnnData file has positions, the usual place first."""
YES, NO = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")
FARTHEST = 1e7
"""No slide is as wide in pixels, no array in spots."""
SHOWN = 40
"""Characters of a cell that a message quotes."""
MOST_COLUMNS = 50
"""Of a table of spots; one of counts has a column a gene."""
WIDEST_ARRAY = 200
"""Columns and rows; ST has 64 at most, Visium 128."""
SAME_PX = 2.0
"""Two columns that hold one position differ less."""


def read_spots(path: Path) -> Spots:
    """Read a table of spots: ST selection, Space Ranger tissue positions, plain CSV/TSV/Parquet, ``.h5ad`` or a
    SpatialData store.

    Of a folder of Space Ranger, such as ``outs``, it is the table in its ``spatial``.

    Spots that the file marks as not under tissue or not selected are left out and counted. Columns are found by their
    names, in any order: positions in pixels (``pxl_col_in_fullres``, ``pixel_x``, ``x_pixel``, ``imagecol`` and the
    like) before ``x``, ``y``, which beside them are array positions if they are whole and small, as in ST's files; a
    ``barcode`` before other names, and both before numbers of rows. Where that is a choice, what was read is said.

    Raises:
        GeneDMLError: unreadable, empty, of several sections, without the columns of any known kind, NaN positions or
            duplicate names.
    """
    path = spots_file(path)
    if path.is_dir():
        spots = _from_store(path)
    else:
        spots = _from_h5ad(path) if path.suffix == ".h5ad" else _from_table(_read_table(path), path)
    bad = ~np.isfinite(spots.xy_px).all(axis=1)
    if bad.any():
        raise GeneDMLError(
            f"{bad.sum()} of {len(spots)} spots in {path} have no position (first: {spots.names[bad.argmax()]}). "
            "Fill them in or remove the rows."
        )
    far = np.abs(spots.xy_px).max(axis=1) > FARTHEST
    if far.any():
        raise GeneDMLError(
            f"{far.sum()} of {len(spots)} spots in {path} are farther than {FARTHEST:g} px out (first: "
            f"{spots.names[far.argmax()]}). Give level-0 pixels."
        )
    check_names(spots.names, "spot", path)
    _check_one_section(sections_by_tag(spots.names), path)
    check_array(spots, path)
    names = pd.Index(spots.names)
    if names.has_duplicates:
        first = names[names.duplicated()][0]
        twice = console.count(int(names.duplicated().sum()), "spot")
        raise GeneDMLError(f"{path} names {twice} twice (first: {first}). Give unique names.")
    pictures = pictures_beside(path)
    return spots if pictures is None else replace(spots, pitch_um=pictures.pitch_um, pictures=pictures)


def spots_file(path: Path) -> Path:
    """The table that is read of ``path``: of a folder of Space Ranger the one in it.

    Raises:
        GeneDMLError: nothing there, no file, or a folder without a table.
    """
    file = positions_in(path) if path.is_dir() and path.suffix != STORE else path
    if not file.exists():
        raise GeneDMLError(f"There is no spot table {file}. Check the path: it starts at the current folder.")
    if not file.is_file() and not (file.is_dir() and file.suffix == STORE):
        raise GeneDMLError(f"{file} is no file, so no spot table. Name a file.")
    return file


def _check_one_section(several: str, path: Path) -> None:
    if several:
        raise GeneDMLError(f"{path} holds spots of {several}. Give those of one section, in a file of their own.")


def _read_table(path: Path) -> pd.DataFrame:
    with reading(f"The spot table {path}", "Write it anew as CSV or TSV with a name column and x,y in level-0 pixels."):
        if path.suffix == ".parquet":
            return _read_parquet(path)
        header, rows = read_rows(path)
        if _has_no_header(header):
            return named_table(list(VISIUM_COLUMNS), [header, *rows])
        return named_table(header, rows)


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow.parquet import ParquetFile

    declared = ParquetFile(path).metadata
    if declared.num_rows > ROWS_LIMIT:
        raise ValueError(f"it has {declared.num_rows} rows, more than the {ROWS_LIMIT} of a table")
    check_memory(sum(declared.row_group(number).total_byte_size for number in range(declared.num_row_groups)))
    table = pd.read_parquet(path)
    if isinstance(table.index, pd.RangeIndex) or table.index.name in table.columns:
        return table
    if isinstance(table.index, pd.MultiIndex):
        return table.reset_index([level for level in table.index.names if level is not None and level not in table])
    return table.rename_axis(table.index.name or "").reset_index()


def _has_no_header(header: list[str]) -> bool:
    """Space Ranger 1 wrote tissue_positions_list.csv without one: a barcode, then five numbers."""
    header = [cell.split(".")[0] for cell in header]
    return len(header) == len(VISIUM_COLUMNS) and all(cell.lstrip("-").isdigit() for cell in header[1:])


def _from_store(path: Path) -> Spots:
    """Of a SpatialData store: names, places in pixels, and columns of ``obs`` that say the array or the tissue."""
    data, image = read_store(path)
    columns = _columns(data.obs, path)
    read = {columns[key] for key in (*UNDER_TISSUE, *(key for pair in ON_ARRAY for key in pair)) if key in columns}
    x, y = np.asarray(data.obsm["spatial"], dtype=float).T
    spots = _from_table(data.obs[sorted(read)].assign(name=data.obs_names.to_numpy(), x=x, y=y), path)
    return replace(spots, image=image)


def _from_h5ad(path: Path) -> Spots:
    from anndata.io import read_elem

    fix = "Is it an AnnData file, whole? Give it again, or a spot table instead."
    read = ("obs", *(f"obsm/{key}" for key in IN_OBSM), f"uns/{PSEUDO_SPOTS}")
    with reading(str(path), fix, ".h5ad"), opened_h5(path, read=read) as file:
        obs = read_elem(file["obs"])
        key = next((key for key in IN_OBSM if key in file.get("obsm", {})), None)
        placed = None if key is None else read_elem(file[f"obsm/{key}"])
        pictures = picture_keys(file.get("uns/spatial"))
        pseudo_um = float(file[f"uns/{PSEUDO_SPOTS}/um"][()]) if f"uns/{PSEUDO_SPOTS}/um" in file else None
        if pseudo_um is not None and not 0 < pseudo_um < FARTHEST:
            raise ValueError(f"its spots are of {pseudo_um:g} um")
    columns = _columns(obs, path)
    places = _places_of_h5ad(placed, obs, columns, path)
    read_otherwise = {columns[key] for key in (*PARTS_OF_PLACES, *NAMES, *NUMBERS_AS_NAMES) if key in columns}
    on_array = {columns[key] for pair in ON_ARRAY for key in pair if key in columns}
    table = obs.drop(columns=list(read_otherwise - on_array))
    names = names_in(obs)
    if names is not obs.index:
        console.note(f"{path.name}: names are read from the barcodes of obs, since its index only counts the rows.")
    spots = _from_table(table.assign(name=names.to_numpy(), x=places[:, 0], y=places[:, 1]), path, pictures)
    return replace(spots, pitch_um=pseudo_um)


def _places_of_h5ad(placed: object, obs: pd.DataFrame, columns: dict[str, str], path: Path) -> Float[np.ndarray, "S 2"]:
    """Of ``obsm["spatial"]`` or ``obsm["X_spatial"]``, by known names of its columns if it has any; else of ``obs``.

    Raises:
        GeneDMLError: neither is there, or they contradict each other.
    """
    in_obs = _first_pair(columns, IN_PIXELS if placed is not None else (*IN_PIXELS, *PLAIN))
    by_name = None if in_obs is None else _pair(obs, *in_obs, path)
    if placed is None and by_name is None:
        raise GeneDMLError(f"{path} has no obsm['spatial'], so no positions. Give a spot table instead.")
    if placed is None and by_name is not None:
        return by_name
    named = _first_pair(_columns(placed, path), (*IN_PIXELS, *PLAIN)) if isinstance(placed, pd.DataFrame) else None
    if isinstance(placed, pd.DataFrame) and named is not None:
        return _pair(placed, *named, path)
    with reading(f"obsm['spatial'] of {path}", "Give x, y in level-0 pixels there, or a spot table instead."):
        places = np.asarray(placed, dtype=float)[:, :2].reshape(len(obs), 2)
    if in_obs is not None and by_name is not None and np.nanmedian(np.abs(places - by_name)) > SAME_PX:
        raise GeneDMLError(
            f"In {path} obsm['spatial'] and the columns {' and '.join(in_obs)} of obs contradict each other. Remove "
            "the one that is wrong: x, y in level-0 pixels are wanted."
        )
    return places


def _from_table(table: pd.DataFrame, path: Path, pictures: Sequence[str] = ()) -> Spots:
    columns = _columns(table, path)
    place = _first_pair(columns, (*IN_PIXELS, *PLAIN))
    if place is None:
        named = ", ".join(str(column)[:SHOWN] for column in table.columns[:8])
        if len(table.columns) > MOST_COLUMNS:
            raise GeneDMLError(
                f"{path} looks like a table of counts ({len(table.columns):,} columns: {named}, ...), not of spots: "
                "give the file of the spots' places instead (name, x, y in level-0 pixels)."
            )
        raise GeneDMLError(
            f"{path} has the columns {named}, none of which is known as a place. Rename yours to name, x, y (level-0 "
            "pixels). Read as they are: ST selection files (x, y, pixel_x, pixel_y) and Space Ranger tissue positions "
            f"({', '.join(VISIUM_COLUMNS)})."
        )
    under = _under_tissue(table, columns, path)
    if "tissue" in columns:
        _say_of_tissue(table[columns["tissue"]], path)
    table, left_out = table[under], _said_of_left_out(under, columns)
    if not len(table):
        raise GeneDMLError(
            f"{path} holds no spot under tissue. Is it the table of this section, and are spots marked in_tissue or "
            "selected?"
        )
    on_array = _array_columns(table, columns, place, path)
    array_xy = None if on_array is None else _indices(table, *on_array, path)
    is_st = on_array is not None and column_key(on_array[0]) == "x"
    name = _name_column(table, columns, beside_st=is_st)
    if name is not None:
        names = _names(table, name, path)
    elif array_xy is not None and is_st:
        names = tuple(f"{x}x{y}" for x, y in array_xy)
    else:
        raise GeneDMLError(
            f"{path} has {' and '.join(place)} but no names. Add a column called name, one unique name a spot."
        )
    _say_what_was_read(columns, place, on_array, name, path)
    xy_px = _pair(table, *place, path)
    _check_one_section(sections_in(table, pictures, names, xy_px), path)
    parts = [several(sections, f"{column} ") for column, sections in naming_columns(table).items() if len(sections) > 1]
    if parts:
        console.note(f"{path.name} names {parts[0]}, read as parts of one: no barcode repeats, and they lie apart.")
    return Spots(names, xy_px, _as_named(array_xy, names), left_out)


def _say_of_tissue(values: pd.Series, path: Path) -> None:
    """A note where a column ``tissue``, which is not read, could be meant for ``in_tissue``."""
    words = {str(value).strip().lower() for value in values.unique()}
    if words <= {*YES, *NO} and not words.isdisjoint(NO):
        console.note(f"{path.name}: the column tissue leaves out no spots; it would if it were called in_tissue.")


def _said_of_left_out(under: Bool[np.ndarray, " S"], columns: dict[str, str]) -> str:
    """``3 of 6 spots left out by in_tissue``; empty if none are."""
    if under.all():
        return ""
    marks = " and ".join(columns[key] for key in UNDER_TISSUE if key in columns)
    return f"{(~under).sum()} of {len(under)} spots left out by {marks}"


def _columns(table: pd.DataFrame, path: Path) -> dict[str, str]:
    """Every column by its key.

    Raises:
        GeneDMLError: two columns that would be read are called alike.
    """
    columns: dict[str, str] = {}
    for column in table.columns:
        key = column_key(column)
        if key in columns and key in (*PARTS_OF_PLACES, *UNDER_TISSUE, *NAMES):
            raise GeneDMLError(f"{path} has the columns {columns[key]} and {column}. Leave one out.")
        columns.setdefault(key, column)
    return columns


def _first_pair(columns: dict[str, str], pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    return next(((columns[x], columns[y]) for x, y in pairs if x in columns and y in columns), None)


def _under_tissue(table: pd.DataFrame, columns: dict[str, str], path: Path) -> Bool[np.ndarray, " S"]:
    """Which rows are under tissue (and selected), whether it is said in numbers, truth values or words.

    Raises:
        GeneDMLError: an ``in_tissue`` or ``selected`` that is neither yes nor no.
    """
    under = np.ones(len(table), dtype=bool)
    for column in (columns[key] for key in UNDER_TISSUE if key in columns):
        codes, values = pd.factorize(table[column].astype(object))
        words = [str(value).strip().lower() for value in values]
        odd = [word for word in words if word not in (*YES, *NO)]
        if odd or (codes < 0).any():
            cell = f"{odd[0][:SHOWN]!a}" if odd else "nothing"
            raise GeneDMLError(f"The column {column} of {path} holds {cell}, where 1 or 0 is due. Fix that cell.")
        under &= np.array([word in YES for word in words], dtype=bool)[codes] if len(codes) else True
    return under


def _array_columns(
    table: pd.DataFrame, columns: dict[str, str], place: tuple[str, str], path: Path
) -> tuple[str, str] | None:
    """Columns of the array position: by name, or ``x``, ``y`` beside pixels where they are whole and small."""
    given = _first_pair(columns, ON_ARRAY)
    if given is not None:
        return given
    alone = next((columns[key] for key in ON_ARRAY[0] if key in columns), None)
    if alone is not None:
        raise GeneDMLError(f"{path} has {alone} alone. Array positions need both array_row and array_col.")
    plain = _first_pair(columns, PLAIN[:1])
    if plain is None or plain == place:
        return None
    try:
        xy = _pair(table, *plain, path)
    except GeneDMLError:
        return None
    xy = xy[np.isfinite(xy).all(axis=1)]
    return plain if (xy == np.rint(xy)).all() and (np.abs(xy) <= WIDEST_ARRAY).all() else None


def _name_column(table: pd.DataFrame, columns: dict[str, str], *, beside_st: bool) -> str | None:
    """The column of names: one that is called so; a first column of texts; then, if ST's keys are none, row numbers.

    Of several that are called so the first that names every spot, since QuPath's ``Name`` is empty or alike.
    """
    called = [columns[key] for key in NAMES if key in columns]
    if called:
        return next((name for name in called if table[name].notna().all() and table[name].is_unique), called[0])
    weak = [columns[key] for key in NUMBERS_AS_NAMES if key in columns]
    first = [
        column for column in table.columns[:1] if column_key(column) not in UNDER_TISSUE and table[column].is_unique
    ]
    texts = [column for column in (*weak, *first) if not _is_numeric(table[column])]
    return next(iter(texts + ([] if beside_st else weak)), None)


def _is_numeric(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().any() or values.isna().all())


def _say_what_was_read(
    columns: dict[str, str], place: tuple[str, str], on_array: tuple[str, str] | None, name: str | None, path: Path
) -> None:
    """One line, where a table has several columns that could have been read as positions or as names."""
    pairs = [pair for pair in (*IN_PIXELS, *PLAIN) if set(pair) <= set(columns)]
    others = [pair for pair in pairs if (columns[pair[0]], columns[pair[1]]) not in (place, on_array)]
    names = [key for key in (*NAMES, "id") if key in columns]
    if others or len(names) > 1:
        array = "none" if on_array is None else ", ".join(on_array)
        console.note(
            f"{path.name}: positions are read from {place[0]}, {place[1]}, names from {name or 'array positions'}, "
            f"array positions from {array}."
        )


def _as_named(array_xy: Int[np.ndarray, "S 2"] | None, names: tuple[str, ...]) -> Int[np.ndarray, "S 2"] | None:
    """HEST-1k puts an ST spot called ``3x5`` (column x row) into array_row 3: exchange the two there."""
    if array_xy is None:
        return None
    named = pd.Series(names, dtype=str).str.extract(r"^(\d+)x(\d+)$").astype(float).to_numpy()
    return array_xy[:, ::-1].copy() if (named == array_xy[:, ::-1]).all() else array_xy


def _names(table: pd.DataFrame, column: str, path: Path) -> tuple[str, ...]:
    empty = table[column].isna()
    if empty.any():
        raise GeneDMLError(f"{empty.sum()} of {len(table)} spots in {path} have no name. Give each a unique one.")
    return tuple(table[column].astype(str))


def _indices(table: pd.DataFrame, x: str, y: str, path: Path) -> Int[np.ndarray, "S 2"]:
    values = _pair(table, x, y, path)
    empty = ~np.isfinite(values).all(axis=1)
    if empty.any():
        raise GeneDMLError(
            f"{empty.sum()} of {len(table)} spots in {path} have no array position ({x}, {y}). Fill them in or remove "
            "the rows."
        )
    if (np.abs(values) > FARTHEST).any():
        raise GeneDMLError(f"{path} has array positions beyond {FARTHEST:g} ({x}, {y}). Give columns and rows.")
    return np.rint(values).astype(np.int64)


def _pair(table: pd.DataFrame, x: str, y: str, path: Path) -> Float[np.ndarray, "S 2"]:
    return np.column_stack([_numbers(table, x, path), _numbers(table, y, path)])


def _first_odd(values: pd.Series) -> str:
    """The first text that is no number, and in which row of the table it stands; empty if none is known."""
    odd = np.flatnonzero(pd.to_numeric(values, errors="coerce").isna() & values.notna())
    if not len(odd):
        return ""
    said = str(values.iloc[odd[0]])
    return f"{said if len(said) <= SHOWN else said[:SHOWN] + ' ...'!a} in row {odd[0] + 1}"


def _numbers(table: pd.DataFrame, column: str, path: Path) -> Float[np.ndarray, " S"]:
    try:
        return as_numbers(table[column])
    except (ValueError, TypeError, OverflowError) as error:
        raise GeneDMLError(
            f"The column {column} of {path} holds something else than numbers: "
            f"{_first_odd(table[column]) or reason_of(error)}. Fix that cell."
        ) from error
