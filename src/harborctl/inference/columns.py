"""What is known of a column while its values stream by, and the narrowest type that gives all of them back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.inference.kinds import (
    MOST_PRECISION,
    MOST_SCALE,
    Kind,
    looks_like,
    plain_decimals,
    plain_integers,
    takes,
)
from harborctl.sources.json_values import scalar_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

# Of integers the types, narrowest first, and how many bits each has.
_INTEGERS = (("smallint", 16), ("integer", 32), ("bigint", 64))

# What a JSON string is not, whatever it spells: whoever wrote it had numbers and booleans to choose from.
_NEVER_STRINGS = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.DOUBLE, Kind.BOOLEAN, Kind.JSON})


@dataclass(frozen=True, slots=True)
class Inferred:
    """A column of a table that is to be made.

    Attributes:
        name: as the source has it.
        type: in PostgreSQL's words.
        why: why it is no narrower one; None where nothing narrower was in sight.
        bounds: the least and the largest value, of exact numbers in a text.
    """

    name: str
    type: str
    why: str | None = None
    bounds: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """The first value that was not of the kind of those before it."""

    kind: Kind
    value: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}: {_shortened(self.value)} is not {_article(self.kind)}"


@dataclass(slots=True)
class TextColumn:
    """A column of text.

    Attributes:
        doubtful: values before the first that only a double holds have not been looked at as doubles: look again.
        refused: kinds that these values never have.
    """

    name: str
    kind: Kind = Kind.NOTHING
    doubtful: bool = False
    misfit: Misfit | None = None
    refused: Collection[Kind] = ()
    _least: Decimal | None = None
    _most: Decimal | None = None
    _digits: int = 0
    _scales: set[int] = field(default_factory=set)
    _letters: set[str] = field(default_factory=set)

    def see(self, array: pa.Array, line_of: Callable[[int], int]) -> None:
        """Look at the values of a batch."""
        if self.kind is Kind.TEXT:
            return
        values = array.drop_null()
        if not len(values):
            return
        if self.kind is Kind.NOTHING:
            found = looks_like(values[0].as_py())
            self.kind = Kind.TEXT if found in self.refused else found
            if self.kind is Kind.TEXT:
                self.misfit = Misfit(Kind.NOTHING, values[0].as_py(), line_of(_place_of(array, 0)))
                return
        if self._see_plain_numbers(values):
            return
        if not takes(self.kind, values):
            self._widen(array, values, line_of)
        self._note(values)

    def look_again(self, array: pa.Array) -> None:
        """Look at values of a doubtful column for the second time."""
        values = array.drop_null()
        if self.kind is Kind.DOUBLE and not takes(Kind.DOUBLE, values):
            self.kind = Kind.TEXT

    def inferred(self) -> Inferred:
        """The type, once all values were seen."""
        why = str(self.misfit) if self.misfit is not None and self.misfit.kind is not Kind.NOTHING else None
        return Inferred(self.name, self._type(), why, self.bounds)

    @property
    def bounds(self) -> tuple[str, str] | None:
        """The least and the largest value of a column of exact numbers."""
        if self.kind not in {Kind.INTEGER, Kind.DECIMAL} or self._least is None:
            return None
        return f"{self._least:f}", f"{self._most:f}"

    def _see_plain_numbers(self, values: pa.Array) -> bool:
        """Take numbers of few digits in one go, which most numbers are."""
        if self.kind is Kind.INTEGER and (integers := plain_integers(values)) is not None:
            self._note_integers(pc.min_max(integers).as_py())
            self._scales.add(0)
            return True
        if self.kind is Kind.DECIMAL and (decimals := plain_decimals(values)) is not None:
            scale, numbers = decimals
            bounds = pc.min_max(numbers).as_py()
            self._digits = max(self._digits, *(len(str(int(abs(bound)))) for bound in bounds.values()))
            # Of 15 digits a double tells each.
            self._note_bounds(*(Decimal(f"{bounds[end]:.{scale}f}") for end in ("min", "max")))
            self._scales.add(scale)
            return True
        return False

    def _widen(self, array: pa.Array, values: pa.Array, line_of: Callable[[int], int]) -> None:
        before = self.kind
        number, value = next((n, v) for n, v in enumerate(values.to_pylist()) if not takes(before, _one(v)))
        if self.misfit is None or before is not Kind.INTEGER:
            self.misfit = Misfit(before, value, line_of(_place_of(array, number)))
        if before is Kind.INTEGER and takes(Kind.DECIMAL, values):
            self.kind = Kind.DECIMAL
        elif before in {Kind.INTEGER, Kind.DECIMAL} and takes(Kind.DOUBLE, values):
            self.kind, self.doubtful = Kind.DOUBLE, True
        else:
            self.kind = Kind.TEXT

    def _note(self, values: pa.Array) -> None:
        if self.kind is Kind.INTEGER:
            numbers = [int(value) for value in values.to_pylist()]
            self._note_integers({"min": min(numbers), "max": max(numbers)})
            self._scales.add(0)
        elif self.kind is Kind.DECIMAL:
            self._note_decimals(values)
        elif self.kind is Kind.BOOLEAN and len(self._letters) < 3:
            self._letters.update(pc.unique(values).to_pylist())

    def _note_integers(self, bounds: Mapping[str, int]) -> None:
        self._digits = max(self._digits, len(str(abs(bounds["min"]))), len(str(abs(bounds["max"]))))
        self._note_bounds(Decimal(bounds["min"]), Decimal(bounds["max"]))

    def _note_bounds(self, low: Decimal, high: Decimal) -> None:
        self._least = low if self._least is None else min(self._least, low)
        self._most = high if self._most is None else max(self._most, high)

    def _note_decimals(self, values: pa.Array) -> None:
        unsigned = pc.replace_substring(values, "-", "")
        lengths, points = pc.binary_length(unsigned), pc.find_substring(unsigned, ".")
        before = pc.if_else(pc.less(points, 0), lengths, points)
        behind = pc.if_else(pc.less(points, 0), 0, pc.subtract(pc.subtract(lengths, points), 1))
        self._digits = max(self._digits, pc.max(before).as_py())
        self._scales.update(pc.unique(behind).to_pylist())
        numbers = [Decimal(value) for value in values.to_pylist()]
        self._note_bounds(min(numbers), max(numbers))

    def _type(self) -> str:
        if self.kind is Kind.INTEGER:
            low, high = self._least or 0, self._most or 0
            for name, bits in _INTEGERS:
                if -(1 << bits - 1) <= low and high < 1 << bits - 1:
                    return name
            return f"numeric({self._digits},0)" if self._digits <= MOST_PRECISION else "numeric"
        if self.kind is Kind.DECIMAL:
            return self._numeric()
        if self.kind is Kind.BOOLEAN and self._letters in ({"t"}, {"f"}):
            return "text"  # a code of one letter, of which others may come
        return "text" if self.kind is Kind.NOTHING else self.kind.value

    def _numeric(self) -> str:
        scale = max(self._scales)
        if scale > MOST_SCALE:
            return "text"
        precision = self._digits + scale
        # Without a scale each value keeps its own.
        return f"numeric({precision},{scale})" if len(self._scales) == 1 and precision <= MOST_PRECISION else "numeric"


@dataclass(slots=True)
class JsonColumn:
    """A field of JSON objects, whose values come as JSON."""

    name: str
    _strings: TextColumn = field(init=False)
    _numbers: TextColumn = field(init=False)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._strings = TextColumn(self.name, refused=_NEVER_STRINGS)
        self._numbers = TextColumn(self.name)

    @property
    def doubtful(self) -> bool:
        """See `TextColumn`."""
        return self._numbers.doubtful

    def see(self, array: pa.Array, line_of: Callable[[int], int]) -> None:
        """Look at the values of a batch."""
        first = pc.utf8_slice_codeunits(array, 0, 1)
        found = {_SORTS.get(letter, "number") for letter in pc.unique(first.drop_null()).to_pylist()}
        self._seen |= found
        if self._seen == {"string"}:
            self._strings.see(scalar_texts(array), line_of)
        elif self._seen == {"number"}:
            self._numbers.see(array, line_of)

    def look_again(self, array: pa.Array) -> None:
        """See `TextColumn`."""
        self._numbers.look_again(array)

    def inferred(self) -> Inferred:
        """The type, once all values were seen."""
        if self._seen == {"string"}:
            return self._strings.inferred()
        if self._seen == {"number"}:
            found = self._numbers.inferred()
            # A number is one, however it is written: 1E5 is no text here.
            return replace(found, type="numeric") if found.type == "text" else found
        if self._seen == {"boolean"}:
            return Inferred(self.name, "boolean")
        if "nested" in self._seen:
            why = "objects or lists, and other values" if len(self._seen) > 1 else None
            return Inferred(self.name, "jsonb", why)
        return Inferred(self.name, "text", " and ".join(f"{sort}s" for sort in sorted(self._seen)) or None)


_SORTS = {'"': "string", "{": "nested", "[": "nested", "t": "boolean", "f": "boolean"}


def _one(value: str) -> pa.Array:
    return pa.array([value], pa.string())


def _place_of(array: pa.Array, number: int) -> int:
    """The row of the value that has this number among those that are not NULL."""
    if not array.null_count:
        return number
    rows: list[int] = pc.indices_nonzero(array.is_valid()).slice(number, 1).to_pylist()
    return rows[0]


def _article(kind: Kind) -> str:
    return f"{'an' if kind.value[0] in 'aeiou' else 'a'} {kind.value}"


def _shortened(value: str) -> str:
    return f"'{value}'" if len(value) <= 40 else f"'{value[:40]}…'"
