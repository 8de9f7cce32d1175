"""The table for people, drawn by Rich: numbers on the right, NULL told apart, long text folded, nothing cut off."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harborctl.reports.render import is_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harborctl.reports.result import Column, Result, Row

NULL = "NULL"

# A line under the header and no others: nothing to look past, and parts of one table fit together.
COMPACT = box.SIMPLE_HEAD

# A column of text is folded rather than made narrower than this; if even that is too wide, the terminal scrolls.
NARROWEST = 8
GAP = 3  # a space on either side, and one for the line that is not drawn

# Text from a database must not steer the terminal.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def table(result: Result, width: int | None, *, color: bool) -> Iterator[str]:
    """The table in parts. The first batch says how wide the columns are; later ones fold into them."""
    batches = iter(result.batches)
    first = next(batches, [])
    widths = _widths(result.columns, first, width)
    count = len(first)
    yield _drawn(result.columns, first, widths, color=color, header=True)
    for batch in batches:
        count += len(batch)
        yield _drawn(result.columns, batch, widths, color=color, header=False)
    yield f"({count} {'row' if count == 1 else 'rows'})\n"


def _widths(columns: Sequence[Column], rows: Sequence[Row], available: int | None) -> list[int]:
    """How wide each column is to be. Numbers are not folded; text gives way, the widest first."""
    widths = []
    for index, column in enumerate(columns):
        cells = [column.name, *(NULL if row[index] is None else _plain(str(row[index])) for row in rows)]
        widths.append(max([1, *(cell_len(line) for cell in cells for line in cell.split("\n"))]))
    if available is None:
        return widths
    excess = sum(widths) + GAP * len(widths) - available
    while excess > 0:
        foldable = [i for i, column in enumerate(columns) if not is_number(column) and widths[i] > NARROWEST]
        if not foldable:
            break
        widest = max(foldable, key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1
    return widths


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").expandtabs(8).translate(_VISIBLE)


def _drawn(columns: Sequence[Column], rows: Sequence[Row], widths: Sequence[int], *, color: bool, header: bool) -> str:
    drawing = Table(box=COMPACT, show_header=header, show_edge=False, pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        drawing.add_column(
            Text(_plain(column.name)),
            justify="right" if is_number(column) else "left",
            width=width,
            overflow="fold",
        )
    for row in rows:
        drawing.add_row(*(Text(NULL, style="dim") if text is None else Text(_plain(text)) for text in row))
    return rendered(drawing, color=color)


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
