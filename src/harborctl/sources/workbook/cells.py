"""Cells of a sheet: their text, and ranges of them."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from harborctl.errors import UsageError

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

_RANGE = re.compile(r"([A-Za-z]{1,3})?([0-9]+)?(?::([A-Za-z]{1,3})?([0-9]+)?)?")


def text_of(cell: Any) -> str | None:
    """A cell as PostgreSQL reads it; None for an empty one."""
    if cell == "" or cell is None:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return repr(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, dt.datetime):
        return cell.isoformat(" ")
    if isinstance(cell, dt.timedelta):
        seconds = cell.total_seconds()
        minutes, rest = divmod(abs(seconds), 60)
        text = f"{int(minutes) // 60:02}:{int(minutes) % 60:02}:{rest:09.6f}"
        return ("-" if seconds < 0 else "") + text.rstrip("0").rstrip(".")
    return cell.isoformat() if isinstance(cell, dt.date | dt.time) else str(cell)


def column_number(letters: str) -> int:
    """`A` is 0, `AA` is 26."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


class Range:
    """A part of a sheet, by 0-based rows and columns, both ends included."""

    def __init__(self, left: int, top: int, right: int, bottom: int) -> None:
        self.left, self.top, self.right, self.bottom = left, top, right, bottom

    @classmethod
    def read(cls, given: str | None, sheet: CalamineSheet) -> Range:
        """`B3:F90`, `B3`, `B:F` or `3:90`; None is all that the sheet holds.

        Raises:
            UsageError: it is none of these.
        """
        left, top = (sheet.start[1], sheet.start[0]) if sheet.start else (0, 0)
        right, bottom = (sheet.end[1], sheet.end[0]) if sheet.end else (0, 0)
        if given is None:
            return cls(left, top, right, bottom)
        found = _RANGE.fullmatch(given.replace("$", ""))
        if not given or found is None:
            raise UsageError(f"--range {given} is no range of cells", code="bad_range", hint="Say B3:F90, B:F or 3:90.")
        first_column, first_row, last_column, last_row = found.groups()
        wanted = cls(
            column_number(first_column) if first_column else left,
            int(first_row) - 1 if first_row else top,
            column_number(last_column) if last_column else right,
            int(last_row) - 1 if last_row else bottom,
        )
        if wanted.left > wanted.right or wanted.top > wanted.bottom:
            raise UsageError(f"--range {given} holds no cell of the sheet", code="bad_range")
        return wanted
