"""The table for people: numbers on the right, NULL told apart, long text folded in a terminal, nothing cut off.

It is a stream: the first batch says how wide the columns are. Of what is wider later, text is folded into its column
where there is a terminal's width to keep to; everything else stands in full and moves what is right of it, as in psql's
`FETCH_COUNT`. Cells are measured and padded here, column by column: through Rich's tables a million rows took 440 s,
this way 7 (CSV 2.7). `rendered` is for the short tables that other commands draw with Rich.
"""

from __future__ import annotations

import io
import re
import sys
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, chain, zip_longest
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len, split_graphemes
from rich.console import Console
from rich.measure import Measurement

from harborctl.plain_text import visible
from harborctl.reports.result import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from harborctl.reports.result import Column, Result, Row

NULL = "NULL"

# A line under the header and no others: nothing to look past, and parts of one table fit together.
COMPACT = box.SIMPLE_HEAD

# Text is not folded into less than this.
NARROWEST = 8
GAP = "   "
# Without a terminal's width, a column is padded to no more: one long document shall not make each row as long.
MOST_PADDED = 1000
# More than anything can be measured to be: Rich leaves out columns that do not fit.
UNBOUNDED = 1 << 31

_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column's cells go: into `width` cells of the terminal, folded if they are wider and may be."""

    width: int
    right: bool
    folds: bool

    def padded(self, text: str, cells: int) -> str:
        """A line of a cell that takes so many cells."""
        blank = " " * (self.width - cells)
        return blank + text if self.right else text + blank

    def lines(self, text: str) -> list[str]:
        """The lines of a cell, padded."""
        if _is_simple(text):
            pad = str.rjust if self.right else str.ljust
            return [pad(line, self.width) for line in (_folded_simple(text, self.width) if self.folds else [text])]
        text = plain(text)
        lines = folded(text, self.width) if self.folds else text.split("\n")
        return [self.padded(line, cell_len(line)) for line in lines]


def table(result: Result, width: int | None, *, color: bool) -> Iterator[str]:
    """The table, piece by piece.

    What is too wide for the terminal even when folded is written as records, a column to a line, as psql's `\\x auto`.
    """
    batches = iter(result.batches)
    first = next(batches, [])
    places = _places(result.columns, first, width)
    as_records = width is not None and _total(places) > width
    if places and not as_records:
        yield from _header(result.columns, places, color=color)
    count = 0
    for batch in chain([first], batches):
        if width is not None and as_records:
            yield from _records(result.columns, batch, width, after=count, color=color)
        else:
            yield from _rows(places, batch, color=color)
        count += len(batch)
    yield f"({count} {'row' if count == 1 else 'rows'})\n"


def plain(text: str) -> str:
    """Text without what would steer a terminal. It keeps its lines."""
    return "\n".join(map(visible, text.replace("\r\n", "\n").expandtabs(8).split("\n")))


def folded(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` cells, broken at spaces where there are some. What a terminal draws as one
    character stays together."""
    return [part for line in text.split("\n") for part in _folded(line, width)]


def _folded(line: str, width: int) -> list[str]:
    return _folded_simple(line, width) if _is_simple(line) else _folded_graphemes(line, width)


def _folded_simple(line: str, width: int) -> list[str]:
    """`_folded_graphemes` for a line whose characters take one cell each: a third of the time."""
    parts, begin, size = [], 0, len(line)
    while size - begin > width:
        end = begin + width
        if line[end] != " ":
            gap = line.rfind(" ", begin + 1, end)
            if gap > 0 and not line[begin:gap].isspace():
                end = gap + 1
        parts.append(line[begin:end].rstrip(" "))
        begin = end
        while begin < size and line[begin] == " ":
            begin += 1
    if begin < size or not parts:
        parts.append(line[begin:])
    return parts


def _folded_graphemes(line: str, width: int) -> list[str]:
    # Where each character of the terminal begins in the text, and how many cells it and those before it take.
    spans, _ = split_graphemes(line)
    starts = [*(start for start, _, _ in spans), len(line)]
    ends = list(accumulate(cells for _, _, cells in spans))
    parts, begin = [], 0
    while begin < len(ends):
        end = bisect_right(ends, (ends[begin - 1] if begin else 0) + width, begin)
        end = max(end, begin + 1)  # two cells in a column of one
        here = starts[begin]
        if end < len(ends) and line[starts[end]] != " ":
            gap = line.rfind(" ", here, starts[end])
            if gap >= 0 and not line[here:gap].isspace() and gap > here:
                end = bisect_left(starts, gap + 1)
        part = line[here : starts[end]]
        parts.append(part if end == len(ends) else part.rstrip(" "))
        begin = end
        while begin < len(ends) and line[starts[begin]] == " ":
            begin += 1
    return parts or [""]


def _places(columns: Sequence[Column], rows: Sequence[Row], available: int | None) -> list[_Place]:
    """How wide each column is to be. In a terminal text gives way, the widest first; numbers and times do not."""
    texts = list(zip(*rows, strict=True)) or [()] * len(columns)
    widths = [
        max(1, _widest([column.name]), _widest(column_texts))
        for column, column_texts in zip(columns, texts, strict=True)
    ]
    if available is None:
        return [
            _Place(min(width, MOST_PADDED), column.is_number, False)
            for column, width in zip(columns, widths, strict=True)
        ]
    foldable = [index for index, column in enumerate(columns) if _folds(column)]
    surplus = sum(widths) + len(GAP) * (len(widths) - 1) - available
    while surplus > 0:
        wide = [index for index in foldable if widths[index] > NARROWEST]
        if not wide:
            break
        # The widest becomes as wide as the next one, or gives all that is asked for.
        widest = max(wide, key=widths.__getitem__)
        next_one = max((widths[index] for index in wide if index != widest), default=NARROWEST)
        given = min(surplus, max(1, widths[widest] - max(next_one, NARROWEST)))
        widths[widest] -= given
        surplus -= given
    return [_Place(width, column.is_number, _folds(column)) for column, width in zip(columns, widths, strict=True)]


def _widest(texts: Sequence[str | None]) -> int:
    """The cells that the widest line takes."""
    known = [NULL if text is None else text for text in texts]
    if _is_simple("".join(known)):
        return max(map(len, known), default=0)
    return max(cell_len(line) for text in known for line in plain(text).split("\n"))


def _is_simple(text: str) -> bool:
    """Whether each character takes one cell, and none is anything to a terminal: ASCII, and letters of Europe."""
    return text.isprintable() and (text.isascii() or _LETTERS.fullmatch(text) is not None)


# What is printable below the first combining mark.
_LETTERS = re.compile("[\x20-\u02ff]*")


def _total(places: Sequence[_Place]) -> int:
    return sum(place.width for place in places) + len(GAP) * (len(places) - 1)


def _folds(column: Column) -> bool:
    if column.delimiter is not None:
        return True
    whole = column.type in ("date", "interval", "uuid") or column.type.startswith("time")
    return not whole and not column.is_number and column.kind is not Kind.BOOLEAN


def _header(columns: Sequence[Column], places: Sequence[_Place], *, color: bool) -> Iterator[str]:
    names = [place.lines(column.name) for column, place in zip(columns, places, strict=True)]
    for line in _beside(names, _blanks(places)):
        yield _styled(line, _BOLD, color=color) + "\n"
    yield "─" * _total(places) + "\n"


def _beside(cells: Sequence[Sequence[str]], blanks: Sequence[str]) -> Iterator[str]:
    """The lines of one row, of whose cells some have several; `blanks` stand below the others."""
    yield GAP.join([parts[0] for parts in cells]).rstrip(" ")
    long = [(index, parts) for index, parts in enumerate(cells) if len(parts) > 1]
    for number in range(1, max((len(parts) for _, parts in long), default=1)):
        line = [*blanks]
        for index, parts in long:
            if number < len(parts):
                line[index] = parts[number]
        yield GAP.join(line).rstrip(" ")


def _blanks(places: Sequence[_Place]) -> list[str]:
    return [" " * place.width for place in places]


def _rows(places: Sequence[_Place], rows: Sequence[Row], *, color: bool) -> Iterator[str]:
    columns = zip(*rows, strict=True)
    cells = [_cells(place, texts, color=color) for place, texts in zip(places, columns, strict=False)]  # no rows at all
    blanks = _blanks(places)
    for row in zip(*cells, strict=True):
        line = GAP.join(row)
        if "\n" in line:
            yield "".join([f"{part}\n" for part in _beside([cell.split("\n") for cell in row], blanks)])
        else:
            yield line.rstrip(" ") + "\n"


def _cells(place: _Place, texts: Sequence[str | None], *, color: bool) -> list[str]:
    """The cells of a column, padded; those of several lines with line feeds in between."""
    width, longest = place.width, place.width if place.folds else sys.maxsize
    pad = str.rjust if place.right else str.ljust
    null = place.padded(_styled(NULL, _DIM, color=color), len(NULL))
    return [
        null
        if text is None
        else pad(text, width)
        if len(text) <= longest and _is_simple(text)
        else "\n".join(place.lines(text))
        for text in texts
    ]


def _records(columns: Sequence[Column], rows: Sequence[Row], width: int, *, after: int, color: bool) -> Iterator[str]:
    names = [plain(column.name).replace("\n", " ") for column in columns]
    left = _Place(min(max(map(cell_len, names)), max(NARROWEST, width // 3)), right=False, folds=True)
    room = max(1, width - left.width - len(GAP))
    labels = [[_styled(line, _BOLD, color=color) for line in left.lines(name)] for name in names]
    for number, row in enumerate(rows, start=after + 1):
        yield f"── row {number} ".ljust(min(width, 60), "─") + "\n"
        for label, text in zip(labels, row, strict=True):
            if text is None:
                values = [_styled(NULL, _DIM, color=color)]
            elif len(text) <= room and _is_simple(text):
                values = [text]
            else:
                values = folded(text if _is_simple(text) else plain(text), room)
            for name, value in zip_longest(label, values):
                yield f"{name or ' ' * left.width}{GAP}{value or ''}".rstrip(" ") + "\n"


def _styled(text: str, style: str, *, color: bool) -> str:
    return f"{style}{text}{_RESET}" if color else text


def rendered(drawing: Table, *, color: bool, width: int | None = None) -> str:
    """What Rich draws, as text; as wide as it wants to be if no width is given."""
    console = Console(
        file=io.StringIO(), force_terminal=color, color_system="standard" if color else None, width=width or UNBOUNDED
    )
    if width is None:
        console.width = max(1, Measurement.get(console, console.options, drawing).maximum)
    with console.capture() as captured:
        console.print(drawing)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
