"""What there is to say of a column's values: counted over all rows, and shown by a sample of them."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.inference.columns import TextColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.inference.columns import Inferred

# Rows of the sample: of so many the share of a value is known to one in a hundred.
SAMPLE_ROWS = 20_000
EXAMPLES = 5
BARS = 10

_NULL_SPELLINGS = frozenset(
    {"NA", "N/A", "n/a", "NULL", "null", "None", "none", "NaN", "nan", "-", "--", "?", "#N/A", "\\N"}
)
_LEADING_ZERO = re.compile(r"0\d+")
_ANY_DATE = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-]\d{2,4}")
_SCIENTIFIC = re.compile(r"\d+(\.\d+)?[eE][+]?\d+")
_GROUPED = re.compile(r"-?\d{1,3}([.,' ]\d{3})+([.,]\d+)?")
_CURRENCY = re.compile(r"[€$£¥]\s?-?\d[\d.,]*|-?\d[\d.,]*\s?(?:[€$£¥]|EUR|USD|CHF)")
_NUMBERS = frozenset({"smallint", "integer", "bigint", "real", "double precision"})


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: a value or a range of them, and how many of the sample are there."""

    label: str
    rows: int


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """A column, as `inspect` tells it.

    Attributes:
        type: the one that it would get; `why` no narrower one.
        distinct: about how many different values; exactly, if the sample is the whole.
        least, most: of numbers and times by their order, of text by that of bytes.
        longest: characters of the longest value.
        warnings: what somebody should look at.
    """

    name: str
    type: str
    why: str | None
    nulls: int
    distinct: int
    least: str | None
    most: str | None
    longest: int
    examples: tuple[str, ...]
    histogram: tuple[Bar, ...]
    may_be_key: bool
    warnings: tuple[str, ...]


@dataclass(slots=True)
class Sample:
    """Which rows are looked at closely: each is as likely as any other, and there are not many more than enough."""

    _share: float = 1.0
    _rows: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311  # the same each time

    def of(self, count: int) -> pa.Array:
        """The rows of so many that are taken."""
        wanted = count * self._share
        taken = int(wanted) + (self._random.random() < wanted % 1)
        rows = range(count) if taken >= count else sorted(self._random.sample(range(count), taken))
        self._rows += len(rows)
        return pa.array(rows, pa.int64())

    def thinned(self) -> int | None:
        """Once there are too many: with which of the first two rows those begin that stay, every other one."""
        if self._rows <= 2 * SAMPLE_ROWS:
            return None
        first = self._random.randrange(2)
        self._rows = len(range(first, self._rows, 2))
        self._share /= 2
        return first


@dataclass(slots=True)
class Profile:
    """Counts of one column while its values stream by."""

    rows: int = 0
    nulls: int = 0
    longest: int = 0
    _least: str | None = None
    _most: str | None = None
    _sample: list[str | None] = field(default_factory=list)

    def see(self, array: pa.Array, sampled: pa.Array) -> None:
        """Look at the values of a batch, as text, of which these rows are in the sample."""
        self.rows += len(array)
        self.nulls += array.null_count
        self._sample.extend(array.take(sampled).to_pylist())
        if array.null_count == len(array):
            return
        lengths = pc.max(pc.utf8_length(array)).as_py()
        self.longest = max(self.longest, lengths or 0)
        bounds = pc.min_max(array).as_py()
        self._least = bounds["min"] if self._least is None else min(self._least, bounds["min"])
        self._most = bounds["max"] if self._most is None else max(self._most, bounds["max"])

    def thin_out(self, first: int) -> None:
        """Keep every other row of the sample."""
        self._sample = self._sample[first::2]

    def report(self, inferred: Inferred) -> ColumnReport:
        """What was seen of a column."""
        name, kind = inferred.name, inferred.type
        values = [value for value in self._sample if value is not None]
        counts: dict[str, int] = {}
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        is_number = bool(values) and (kind in _NUMBERS or kind.startswith("numeric"))
        least, most = inferred.bounds or (self._least, self._most)
        if is_number and inferred.bounds is None:  # doubles, and numbers of typed files
            least, most = min(values, key=float), max(values, key=float)
        total = self.rows - self.nulls
        distinct = _estimated(counts, total)
        return ColumnReport(
            name=name,
            type=kind,
            why=inferred.why,
            nulls=self.nulls,
            distinct=distinct,
            least=least,
            most=most,
            longest=self.longest,
            examples=tuple(sorted(counts, key=lambda value: -counts[value])[:EXAMPLES]),
            histogram=_histogram(counts, is_number=is_number),
            may_be_key=bool(total) and not self.nulls and len(counts) == len(values),
            warnings=tuple(_warnings(counts, kind)),
        )


def _estimated(counts: dict[str, int], total: int) -> int:
    """How many different values there are among `total`, as ANALYZE estimates it of a sample: by Haas and Stokes, from
    how many were seen once."""
    sampled, different = sum(counts.values()), len(counts)
    if sampled >= total or not sampled:
        return different
    once = sum(count == 1 for count in counts.values())
    if once == sampled:
        return total
    return min(total, round(sampled * different / (sampled - once + once * sampled / total)))


def _histogram(counts: dict[str, int], *, is_number: bool) -> tuple[Bar, ...]:
    if not is_number or len(counts) <= BARS:
        frequent = sorted(counts, key=lambda value: -counts[value])[:BARS]
        return tuple(Bar(value, counts[value]) for value in frequent)
    numbers = {float(value): count for value, count in counts.items()}
    finite = [number for number in numbers if abs(number) != float("inf") and number == number]  # noqa: PLR0124
    low, high = min(finite), max(finite)
    width = (high - low) / BARS or 1.0
    bars = [0] * BARS
    for number in finite:
        bars[min(int((number - low) / width), BARS - 1)] += numbers[number]
    return tuple(Bar(f"{low + place * width:.6g} …", rows) for place, rows in enumerate(bars))


def _warnings(counts: dict[str, int], kind: str) -> list[str]:
    found: list[str] = []
    if kind != "text" or not counts:
        return found
    spelled = {value: count for value, count in counts.items() if value in _NULL_SPELLINGS}
    others = [value for value in counts if value not in spelled]
    if spelled and (narrower := _type_of(others)) != "text":
        names = " ".join(f"--null {value}" for value in spelled)
        found.append(f"without {', '.join(spelled)} it would be {narrower}: --null '' {names} makes them NULL")
    if any(_LEADING_ZERO.fullmatch(value) for value in others):
        found.append("numbers with leading zeros, which stay as they are")
    dates = [match for value in others if (match := _ANY_DATE.fullmatch(value))]
    if len(dates) > len(others) / 2:
        found.append(_date_order(dates))
    for pattern, what in ((_SCIENTIFIC, "numbers with exponents"), (_GROUPED, "numbers with signs between thousands"),
                          (_CURRENCY, "amounts with a currency")):  # fmt: skip
        if any(pattern.fullmatch(value) for value in others):
            found.append(f"{what}, which stay as they are")
    return found


def _date_order(dates: Sequence[re.Match[str]]) -> str:
    first, second = max(int(match[1]) for match in dates), max(int(match[2]) for match in dates)
    if first > 12 >= second:
        return "dates with the day first: --date-order dmy and --type COL=date read them"
    if second > 12 >= first:
        return "dates with the month first: --date-order mdy and --type COL=date read them"
    return "dates whose day and month cannot be told apart: say --date-order and --type COL=date if you know"


def _type_of(values: Sequence[str]) -> str:
    column = TextColumn("")
    column.see(pa.array(values, pa.string()), lambda row: row)
    return column.inferred().type
