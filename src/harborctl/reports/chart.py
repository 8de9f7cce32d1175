"""Draws one column of a result in a terminal: bars, or a line over dates, in plain characters and without colour.

Pure: points in, text out. `picture` draws the same points as PNG and SVG.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from harborctl.errors import UsageError
from harborctl.nearest import nearest_or_all
from harborctl.reports.result import Kind, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harborctl.reports.result import Batches, Column

# Nobody reads more bars, and a picture of them would be a wall; a line takes more points.
MOST_BARS = 200
MOST_POINTS = 100_000
EIGHTHS = " ▏▎▍▌▋▊▉"
FULL = "█"
LINE_HEIGHT = 12


@dataclass(frozen=True, slots=True)
class ChartOptions:
    """What to draw: the column of numbers, and the one that names them; None takes the first of the others."""

    column: str
    label: str | None = None


@dataclass(slots=True)
class Points:
    """What is drawn. `moments` is set instead of bars where labels are dates.

    Attributes:
        title: the column's name, and by what.
        labels: as the server wrote them; NULL is the word.
        values: None where there is no finite number.
        shown: the values as the server wrote them.
        left_out: points beyond what can be drawn.
    """

    title: str
    over_time: bool
    labels: list[str] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    left_out: int = 0

    def add(self, label: str | None, text: str | None) -> None:
        """One row's label and number."""
        if len(self.values) >= (MOST_POINTS if self.over_time else MOST_BARS):
            self.left_out += 1
            return
        number = float(text) if text is not None else math.nan
        self.labels.append("NULL" if label is None else label)
        self.values.append(number if math.isfinite(number) else None)
        self.shown.append("NULL" if text is None else text)

    def by_time(self) -> list[tuple[datetime, float | None]]:
        """The points whose label is a moment, the earliest first."""
        moments = []
        for label, value in zip(self.labels, self.values, strict=True):
            try:
                moments.append((datetime.fromisoformat(label).replace(tzinfo=None), value))
            except ValueError:  # infinity, NULL
                continue
        return sorted(moments, key=lambda point: point[0])


def watched(result: Result, options: ChartOptions) -> tuple[Result, Points]:
    """The same result, whose rows become points while somebody else goes through them.

    Raises:
        UsageError: there is no such column, or it holds no numbers.
    """
    number = _index(result.columns, options.column)
    if result.columns[number].kind is not Kind.NUMBER or result.columns[number].delimiter is not None:
        raise UsageError(
            f"column {options.column} holds {result.columns[number].type}, and a chart is of numbers",
            code="bad_column",
            hint="Name a column of numbers after --chart.",
        )
    others = [index for index in range(len(result.columns)) if index != number]
    words = [index for index in others if result.columns[index].kind is not Kind.NUMBER]
    label = _index(result.columns, options.label) if options.label is not None else next(iter(words or others), None)
    name = "" if label is None else f" by {result.columns[label].name}"
    points = Points(options.column + name, label is not None and _is_time(result.columns[label]))

    def batches() -> Batches:
        for batch in result.batches:
            for row in batch:
                points.add("" if label is None else row[label], row[number])
            yield batch

    return Result(result.columns, batches()), points


def _index(columns: tuple[Column, ...], name: str) -> int:
    names = [column.name for column in columns]
    if name not in names:
        raise UsageError(f"the report has no column {name}", code="no_such_column", hint=nearest_or_all(name, names))
    return names.index(name)


def _is_time(column: Column) -> bool:
    return column.delimiter is None and (column.kind is Kind.TIMESTAMP or column.type == "date")


def drawn(points: Points, width: int) -> Iterator[str]:
    """The chart, line by line, at most `width` columns wide."""
    yield f"{points.title}\n"
    moments = points.by_time() if points.over_time else []
    if len([value for _, value in moments if value is not None]) > 1:
        yield from _line(moments, width)
    elif not points.values:
        yield "(0 rows)\n"
    else:
        yield from _bars(points, width)
    if points.left_out:
        yield f"({points.left_out:,} more rows are not drawn)\n"


def _bars(points: Points, width: int) -> Iterator[str]:
    labels = [_visible(label) for label in points.labels]
    label_width = min(max(map(cell_len, labels)), max(width * 2 // 5, 8))
    number_width = max(map(len, points.shown))
    room = max(width - label_width - number_width - 2, 8)
    known = [value for value in points.values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    span = high - low or 1.0
    left = round(room * -low / span) if low < 0 else 0
    for label, value, text in zip(labels, points.values, points.shown, strict=True):
        bar = _bar(value or 0.0, left, room - left, span / room)
        yield f"{_fitted(label, label_width)} {_fitted(bar, room)} {text:>{number_width}}".rstrip() + "\n"


def _bar(value: float, left: int, right: int, unit: float) -> str:
    """A bar from the zero line on; the line is drawn only where bars go both ways."""
    if value < 0:
        length = min(max(round(-value / unit), 1), left)
        return " " * (left - length) + FULL * length
    eighths = min(round(value / unit * 8), right * 8)
    # What is not zero is not drawn as nothing.
    eighths = max(eighths, 1) if value > 0 else 0
    return " " * left + FULL * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _fitted(text: str, width: int) -> str:
    """Exactly `width` columns, wide characters counted as two."""
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    return set_cell_size(text, width - 1) + "…"


def _visible(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


# The dots of a Braille character, row by row: https://www.unicode.org/charts/PDF/U2800.pdf
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def _line(moments: list[tuple[datetime, float | None]], width: int) -> Iterator[str]:
    known = [value for _, value in moments if value is not None]
    low, high = min(known), max(known)
    if 0 < low < high * 0.7 or low == high:
        low = min(low, 0.0)  # so that heights can be compared
    if high == low:
        high = low + 1.0
    ticks = {0: _number(high), LINE_HEIGHT // 2: _number((low + high) / 2), LINE_HEIGHT - 1: _number(low)}
    margin = max(map(len, ticks.values()))
    room = max(width - margin - 2, 16)
    start = moments[0][0]
    seconds = (moments[-1][0] - start).total_seconds() or 1.0
    grid = [[0] * room for _ in range(LINE_HEIGHT)]
    last: tuple[int, int] | None = None
    for moment, value in moments:
        if value is None:  # a gap
            last = None
            continue
        x = round((moment - start).total_seconds() / seconds * (room * 2 - 1))
        y = round((high - value) / (high - low) * (LINE_HEIGHT * 4 - 1))
        for dot_x, dot_y in _between(last or (x, y), (x, y)):
            grid[dot_y // 4][dot_x // 2] |= _DOTS[dot_y % 4][dot_x % 2]
        last = x, y
    for number, cells in enumerate(grid):
        row = "".join(chr(0x2800 + cell) if cell else " " for cell in cells)
        yield f"{ticks.get(number, ''):>{margin}} {'┤' if number in ticks else '│'}{row}".rstrip() + "\n"
    yield f"{'':>{margin}} └{'─' * room}\n"
    yield f"{'':>{margin}}  {_dates(start, moments[-1][0], room)}\n"


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots of a straight line."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        share = step / steps
        yield round(start[0] + (end[0] - start[0]) * share), round(start[1] + (end[1] - start[1]) * share)


def _dates(start: datetime, end: datetime, room: int) -> str:
    middle = start + (end - start) / 2
    shape = "%Y-%m-%d" if (end - start).days >= 3 else "%m-%d %H:%M"
    first, second, third = (moment.strftime(shape) for moment in (start, middle, end))
    if room < len(first) * 3 + 4:
        return first + third.rjust(room - len(first))
    gap = room - len(first) - len(second) - len(third)
    return first + " " * (gap // 2) + second + " " * (gap - gap // 2) + third


def _number(value: float) -> str:
    """A number in few characters: `1.2M`, `350`, `0.25`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.3g}{unit}" if abs(scaled) < 1000 else f"{scaled:.0f}{unit}"
    return f"{value:.4g}"
