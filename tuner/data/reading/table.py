"""Reading a table: CSV or Parquet, as columns of cells whose places can be told."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tuner.data.reading.files import read_text
from tuner.errors import DataError, Problem

Cell = None | int | float | str
"""A cell: None is missing. CSV knows text alone, and what of it are numbers is decided by the column."""

DELIMITERS = ",;\t|"
"""Tried in this order when none is given."""


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        source: the file.
        columns: cells by column name, in the file's order.
        places: where each row is: `line 3` as an editor counts in CSV, `row 3` from 1 in Parquet.
    """

    source: str
    columns: dict[str, list[Cell]]
    places: list[str]


def read_table(path: Path, delimiter: str | None) -> Table:
    """Read Parquet if the file is called `.parquet`, else CSV.

    In CSV the first line names the columns, the text is UTF-8, blank lines are skipped, and a cell that is empty or
    says NaN is missing. In Parquet null and NaN are missing; true and false become the text that CSV would hold.

    Args:
        path: the file.
        delimiter: between the cells of a CSV line; None takes that of comma, semicolon, tab and | that cuts the first
            line into most cells.

    Raises:
        DataError: the file is not such a table, or has no rows.
    """
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path, delimiter)
    if not table.places:
        raise DataError(str(path), [Problem("(the file)", "has a header but no rows. Add some.")])
    return table


def _read_csv(path: Path, delimiter: str | None) -> Table:
    text, source = read_text(path), str(path)
    header, *rows = _records(text, delimiter or _sniffed(text), source) or [(0, [])]
    if not header[1]:
        raise DataError(source, [Problem("(the file)", "must hold a header and rows, but is empty.")])
    names = [name.strip() for name in header[1]]
    _check_names(names, source)
    ragged = [
        Problem(f"line {line}", f"must have {len(names)} cells as the header has, but has {len(cells)}.")
        for line, cells in rows
        if len(cells) != len(names)
    ]
    if ragged:
        raise DataError(source, ragged)
    columns = {name: [_cell(cells[i]) for _, cells in rows] for i, name in enumerate(names)}
    return Table(source, columns, [f"line {line}" for line, _ in rows])


def _sniffed(text: str) -> str:
    lines = (line for line in text.splitlines() if line.strip())
    header = next(lines, "")
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _records(text: str, delimiter: str, source: str) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, each with its number; a quoted cell may go over several lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            source, [Problem(f"line {line}", f"cannot be read as CSV: {error}. Check its quotes.")]
        ) from None
    return records


def _cell(text: str) -> Cell:
    text = text.strip()
    return None if not text or text.lower() == "nan" else text


def _read_parquet(path: Path) -> Table:
    from pyarrow import ArrowException, parquet, types  # paid by those who use it

    source = str(path)
    try:
        read = parquet.ParquetFile(path).read()
    except ArrowException as error:
        first = str(error).splitlines()[0]
        raise DataError(source, [Problem("(the file)", f"cannot be read as Parquet: {first}")]) from None
    index = (read.schema.pandas_metadata or {}).get("index_columns", [])  # not a column to whoever wrote the file
    names = [name for name in read.column_names if name not in index]
    _check_names(names, source)
    columns: dict[str, list[Cell]] = {}
    for name in names:
        column = read.column(name)
        if types.is_nested(column.type) or types.is_binary(column.type):
            rule = f"must hold numbers or text, but holds {column.type}. Leave it out of the file."
            raise DataError(source, [Problem(f"column {name!r}", rule)])
        columns[name] = list(map(_plain, column.to_pylist()))
    return Table(source, columns, [f"row {row}" for row in range(1, read.num_rows + 1)])


def _plain(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None if value is None else _cell(str(value))
    number = value if isinstance(value, int) else float(value)
    return None if math.isnan(number) else number


def _check_names(names: list[str], source: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        rule = "names more than one column. Rename all but one."
        raise DataError(source, [Problem(f"column {name!r}", rule) for name in twice])
