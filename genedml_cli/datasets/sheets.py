"""Sheets: CSV files that list sections or slides, one a row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from genedml.errors import CONTROL, GeneDMLError, reading

FORBIDDEN = '/\\:*?"<>|'
LONGEST_NAME_BYTES = 120  # files add to it, and most systems take 255
LONGEST_CELL = 500
FIRST_LINE = 2  # of the file; the header is above

Row = Mapping[str, str | None]
"""Cells of a row by column; None where a cell is empty or the column is not there."""


def columns_of(path: Path, kind: str, required: Sequence[str]) -> list[str]:
    """The columns that a sheet has; as :func:`read_rows`, without a look at its rows.

    Raises:
        GeneDMLError: unreadable.
    """
    from genedml_cli.files.text_tables import read_named_table

    with reading(f"The {kind} {path}", f"Give a CSV file with the columns {', '.join(required)}."):
        return list(read_named_table(path).columns)


def read_rows(path: Path, kind: str, required: Sequence[str], optional: Mapping[str, bool], unit: str) -> list[Row]:
    """The rows of a sheet with the columns ``required`` and some of ``optional``.

    Args:
        path: a CSV file.
        kind: what the sheet is called in errors.
        required: columns that must be there; none of their cells is empty.
        optional: columns that may be there, and whether their cells may be empty.
        unit: what a row is, in errors.

    Raises:
        GeneDMLError: unreadable, unknown or missing columns, no rows, empty cells, or such as hold no name or path.
    """
    from pandas import isna  # and what reads tables: slow to import where a sheet is only talked of

    from genedml_cli.files.text_tables import read_named_table

    with reading(f"The {kind} {path}", f"Give a CSV file with the columns {', '.join(required)}."):
        table = read_named_table(path)
    unknown = [column[:40] for column in table.columns if column not in (*required, *optional)]
    missing = [column for column in required if column not in table.columns]
    if unknown or missing:
        lacks = [f"lacks {', '.join(missing)}"] if missing else []
        has = [f"has {', '.join(unknown)}, which it does not know"] if unknown else []
        raise GeneDMLError(
            f"The columns of {path}: it {' and '.join(lacks + has)}. It takes {', '.join(required)} and, "
            f"if you like, {', '.join(optional)}."
        )
    if table.empty:
        raise GeneDMLError(f"The {kind} {path} has no rows. Write one row a {unit} below the columns.")
    empty = table[[column for column in table.columns if not optional.get(column, False)]].isna()
    if empty.any(axis=None):
        row, column = next((row, column) for column in empty for row in empty.index[empty[column]])
        raise GeneDMLError(
            f"{path}, line {row + FIRST_LINE}: the column {column} is empty. Fill it in, or remove the row."
        )
    long = table.fillna("").map(len) > LONGEST_CELL
    if long.any(axis=None):
        row, column = next((row, column) for column in long for row in long.index[long[column]])
        raise GeneDMLError(
            f"{path}, line {row + FIRST_LINE}: the column {column} holds {len(table.at[row, column])} characters, too "
            "many for a name or a path. Fix the row."
        )
    every = (*required, *optional)
    return [
        {column: None if isna(row.get(column)) else str(row[column]) for column in every}
        for row in table.to_dict("records")
    ]


def number(row: Row, column: str, path: Path, name: str) -> float | None:
    """A cell as a number; None where it is empty.

    Raises:
        GeneDMLError: it holds something else.
    """
    text = row[column]
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise GeneDMLError(
            f"{path}: {column} of {name} is {text!r}, not a number. Give one, or leave it empty."
        ) from error


def is_file_name(name: str) -> bool:
    """Whether a name can be a file's on every system, and stays in the folder that it is put into."""
    return (
        0 < len(name.encode(errors="replace")) <= LONGEST_NAME_BYTES
        and not CONTROL.search(name)
        and not any(character in FORBIDDEN for character in name)
        and not name.startswith(".")
        and name == name.strip()
    )
