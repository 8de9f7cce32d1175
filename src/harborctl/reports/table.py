"""The table for people, drawn by Rich: numbers on the right, NULL told apart, long text folded, nothing cut off."""

from __future__ import annotations

import io
from itertools import chain
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harborctl.plain_text import visible
from harborctl.reports.render import is_number
from harborctl.reports.result import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harborctl.reports.result import Column, Result, Row

NULL = "NULL"

# A line under the header and no others: nothing to look past, and parts of one table fit together.
COMPACT = box.SIMPLE_HEAD

# Text is not folded into less than this.
NARROWEST = 8
GAP = 3  # a space on either side, and one for the line that is not drawn


def table(result: Result, width: int | None, *, color: bool) -> Iterator[str]:
    """The table in parts. The first batch says how wide the columns are; later ones fold into them.

    What is too wide for the terminal even when folded is written as records, a column to a line, as psql's `\\x auto`.
    """
    batches = iter(result.batches)
    first = next(batches, [])
    widths = _widths(result.columns, first, width)
    records = width is not None and _total(widths) > width
    count = 0
    for batch in chain([first], batches):
        if width is not None and records:
            yield _records(result.columns, batch, width, after=count, color=color)
        else:
            yield _drawn(result.columns, batch, widths, color=color, header=count == 0)
        count += len(batch)
    yield f"({count} {'row' if count == 1 else 'rows'})\n"


def _widths(columns: Sequence[Column], rows: Sequence[Row], available: int | None) -> list[int]:
    """How wide each column is to be. Text gives way, the widest first; numbers and times do not."""
    widths = []
    for index, column in enumerate(columns):
        cells = [column.name, *(NULL if row[index] is None else plain(str(row[index])) for row in rows)]
        widths.append(max([1, *(cell_len(line) for cell in cells for line in cell.split("\n"))]))
    foldable = [index for index, column in enumerate(columns) if _folds(column)]
    while available is not None and _total(widths) > available:
        wide = [index for index in foldable if widths[index] > NARROWEST]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _folds(column: Column) -> bool:
    if column.delimiter is not None:
        return True
    whole = column.type in ("date", "interval", "uuid") or column.type.startswith("time")
    return not whole and not is_number(column) and column.kind is not Kind.BOOLEAN


def plain(text: str) -> str:
    """Text without what would steer a terminal. It keeps its lines."""
    return "\n".join(map(visible, text.replace("\r\n", "\n").expandtabs(8).split("\n")))


def _drawn(columns: Sequence[Column], rows: Sequence[Row], widths: Sequence[int], *, color: bool, header: bool) -> str:
    drawing = Table(box=COMPACT, show_header=header, show_edge=False, pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        drawing.add_column(
            Text(plain(column.name)),
            justify="right" if is_number(column) else "left",
            width=width,
            overflow="fold",
        )
    for row in rows:
        drawing.add_row(*map(_cell, row))
    return rendered(drawing, color=color)


def _records(columns: Sequence[Column], rows: Sequence[Row], width: int, *, after: int, color: bool) -> str:
    parts = []
    names = [plain(column.name).replace("\n", " ") for column in columns]
    for number, row in enumerate(rows, start=after + 1):
        drawing = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
        drawing.add_column(overflow="fold", max_width=max(NARROWEST, width // 3), style="bold")
        drawing.add_column(overflow="fold")
        for name, text in zip(names, row, strict=True):
            drawing.add_row(Text(name), _cell(text))
        title = f"── row {number} "
        parts += [title.ljust(min(width, 60), "─") + "\n", rendered(drawing, color=color, width=width)]
    return "".join(parts)


def _cell(text: str | None) -> Text:
    return Text(NULL, style="dim") if text is None else Text(plain(text))


def rendered(drawing: Table, *, color: bool, width: int | None = None) -> str:
    """What Rich draws, as text; as wide as it wants to be if no width is given."""
    console = Console(
        file=io.StringIO(), force_terminal=color, color_system="standard" if color else None, width=width or 10_000
    )
    if width is None:
        console.width = max(1, Measurement.get(console, console.options, drawing).maximum)
    with console.capture() as captured:
        console.print(drawing)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
