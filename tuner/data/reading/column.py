"""One column of a table: is it numbers or categories, and what do its cells say?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from tuner.data.reading.table import Cell
from tuner.errors import Problem

MANY = 20
"""A text column with more values than this, and with more than half as many as it has cells, names its rows."""

TOO_MANY = 1000
"""A text column with more values than this would make inputs too wide unless it is asked for."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its name in the header.
        cells: its cells; None is missing.
        places: where each row is in the file.
        decimal: the decimal mark of numbers in text.
    """

    name: str
    cells: list[Cell]
    places: list[str]
    decimal: str = "."

    def is_numeric(self) -> bool:
        """Whether more than half of the filled cells look like numbers, be it with marks that are not read."""
        filled = [(cell, value) for cell, value in zip(self.cells, self._parsed, strict=True) if cell is not None]
        like = sum(
            value is not None or self._misread(cell) is not None or _grouped(cell, self.decimal)
            for cell, value in filled
        )
        return 2 * like > len(filled)

    def numbers(self, why: str, next_step: str) -> tuple[list[float], list[tuple[int, Problem]]]:
        """The cells as numbers, NaN where they are missing; and what is wrong with the others, by row.

        Args:
            why: why a cell must be a number.
            next_step: what to do where one is none.
        """
        values: list[float] = []
        problems: list[tuple[int, Problem]] = []
        for row, (cell, value) in enumerate(zip(self.cells, self._parsed, strict=True)):
            if value is None and cell is not None:
                rule = f"must be a number{why}, but got {cell!r}. {self._other_mark(cell) or next_step}"
                problems.append((row, self.problem(row, rule)))
            elif value is not None and math.isinf(value):
                problems.append((row, self.problem(row, f"must be finite, but got {cell!r}. Correct it.")))
            values.append(math.nan if value is None else value)
        return values, problems

    def missing(self, next_step: str) -> list[tuple[int, Problem]]:
        """The cells that are missing, by row."""
        rule = f"is missing. {next_step}"
        return [(row, self.problem(row, rule)) for row, cell in enumerate(self.cells) if cell is None]

    def identifies(self) -> list[tuple[int, Problem]]:
        """The problem of text that tells rows apart instead of grouping them, if it does."""
        values = len(set(self.cells))
        if values <= TOO_MANY and (values <= MANY or 2 * values <= len(self.cells)):
            return []
        rule = f"is text with {values} different values in {len(self.cells)} rows. Name it in ignore or in categorical."
        return [(-1, Problem(f"column {self.name!r}", rule))]

    def problem(self, row: int, message: str) -> Problem:
        """A problem of one cell."""
        return Problem(f"{self.places[row]}, column {self.name!r}", message)

    @cached_property
    def _parsed(self) -> list[float | None]:
        """The numbers that the cells are, or None."""
        return [number(cell, self.decimal) for cell in self.cells]

    @cached_property
    def _only_grouped(self) -> bool:
        """Whether all cells that are no numbers as they stand may be such with marks between their thousands."""
        misread = (
            cell for cell in self.cells if self._misread(cell) is not None and number(cell, self.decimal) is None
        )
        return all(_grouped(cell, self.decimal) for cell in misread)

    def _misread(self, cell: Cell) -> float | None:
        """The number that a cell is with the other decimal mark."""
        return number(cell, "," if self.decimal == "." else ".")

    def _other_mark(self, cell: Cell) -> str:
        """The next step where a number has the other decimal mark, or marks between its thousands."""
        other = "," if self.decimal == "." else "."
        read = self._misread(cell)
        if _grouped(cell, self.decimal) and (read is None or self._only_grouped):
            unless = "" if read is None else f" If {other!r} is the decimal mark, set decimal: {other!r}."
            return f"Write it without thousands separators: {str(cell).replace(other, '')}.{unless}"
        if read is None:
            return ""
        return f"Write it with {self.decimal!r}, or set decimal: {other!r} if all numbers are written so."


def _grouped(cell: Cell, decimal: str) -> bool:
    """Whether a cell is a number with marks between its thousands, as 1,234 and 1,234,567.8 are for the mark `.`."""
    mark, point = (",", r"\.") if decimal == "." else (r"\.", ",")
    return isinstance(cell, str) and bool(re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}({mark}\d{{3}})+({point}\d+)?", cell))


def number(cell: Cell, decimal: str = ".") -> float | None:
    """The number that a cell is, or None."""
    if not isinstance(cell, str):
        return None if cell is None else float(cell)
    if "_" in cell or (decimal != "." and "." in cell):
        return None
    try:
        return float(cell if decimal == "." else cell.replace(decimal, "."))
    except ValueError:
        return None


def label(cell: Cell) -> str:
    """The name of the category that a cell is; whole numbers have no point, and a missing cell is empty."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def in_order(labels: Iterable[str]) -> list[str]:
    """The different labels: by value if all are numbers, else by alphabet."""
    values = set(labels)
    numbers = {value: number(value) for value in values}
    if any(n is None for n in numbers.values()):
        return sorted(values)
    return sorted(values, key=lambda value: (numbers[value] or 0.0, value))
