"""Reads sources to find the types of their columns."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from harborctl.inference.arrow_types import type_of
from harborctl.inference.columns import Inferred, JsonColumn, TextColumn
from harborctl.inference.wider import wider
from harborctl.model import SourceFormat
from harborctl.sources.batch import REJECT_COLUMNS, WithoutHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harborctl.errors import BadRow
    from harborctl.sources.batch import Columns, Source

    Open = Callable[[], Source]
    Column = TextColumn | JsonColumn
    Rule = Callable[[pa.Array], pa.Array]

TYPED = frozenset({SourceFormat.PARQUET, SourceFormat.ARROW})


@dataclass(slots=True)
class Seen:
    """What sources that go into one table hold together; names and schema as of one of them. See `Columns`.

    Attributes:
        inferred: by position in the schema, without the columns that a reject file adds.
    """

    name: str
    schema: pa.Schema
    named: bool
    format: SourceFormat
    inferred: dict[int, Inferred]


class Look(Protocol):
    """Whoever wants to see the values while they are read."""

    def see(self, positions: Sequence[int], arrays: Sequence[pa.Array]) -> None:
        """A batch of the columns at these positions."""

    def malformed(self, error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
        """See `sources.batch.Malformed`."""


class Scan:
    """What is known of the columns of some sources, each of which is read from its start.

    Args:
        rule_of: tells of a source's column what becomes of its fields before they are values.
    """

    def __init__(self, rule_of: Callable[[Columns, int], Rule | None] = lambda _source, _position: None) -> None:
        self._rule_of = rule_of
        self._seen: dict[object, dict[str, Column | Inferred]] = {}
        self._first: Columns | None = None
        self._names: dict[object, str] = {}

    def see_all(self, sources: Sequence[Open], rows: int | None = None, look: Look | None = None) -> None:
        """Read the sources.

        Args:
            look: is shown all of it, while it is read for the first time.
            sources: each opens one anew; it is read once, and a second time where doubles turn up among other numbers.
            rows: how many rows of each to look at; None looks at all of them.

        Raises:
            SourceError: one cannot be read.
        """
        for open_source in sources:
            with closing(open_source()) as source:
                self._see(source, rows, look)
        if any(column.doubtful for column in self._columns()):
            for open_source in sources:
                with closing(open_source()) as source:
                    self._look_again(source, rows)

    def see(self, source: Columns, position: int, array: pa.Array, line_of: Callable[[int], int]) -> None:
        """Look at values of one column of text, which come in a load."""
        rule = self._rule_of(source, position)
        self._column(source, position).see(rule(array) if rule else array, line_of)

    def type_of(self, source: Columns, position: int) -> str:
        """Of a column, in PostgreSQL's words, as far as it is known now."""
        return self._inferred(_key(source, position)).type

    def seen(self) -> Seen:
        """What was found, once all was read."""
        first = self._first
        if first is None:
            raise AssertionError("nothing was read")
        schema = first.schema
        for name in list(self._names.values())[len(schema) :]:  # of objects of further files
            schema = schema.append(pa.field(name, pa.string()))
        inferred = {
            position: self._inferred(key)
            for position, key in enumerate(self._names)
            if self._names[key] not in REJECT_COLUMNS
        }
        return Seen(first.name, schema, first.named, first.format, inferred)

    # -- the columns

    def _see(self, source: Source, rows: int | None, look: Look | None) -> None:
        if isinstance(source, WithoutHeader):
            source.settle(source.all_names())
        if self._first is None or not len(self._first.schema):
            self._first = source
        positions = self._positions(source)
        if source.format in TYPED:
            for position in positions:
                field = source.schema.field(position)
                self._add(source, position, Inferred(field.name, type_of(field.type)))
            if look is not None:
                for _, arrays in self._some(source, positions, rows, look):
                    look.see(positions, arrays)
            return
        columns = [self._column(source, position) for position in positions]
        for line_of, arrays in self._some(source, positions, rows, look):
            for column, array in zip(columns, arrays, strict=True):
                column.see(array, line_of)
            if look is not None:
                look.see(positions, arrays)

    def _look_again(self, source: Source, rows: int | None) -> None:
        if source.format in TYPED:
            return
        if isinstance(source, WithoutHeader):
            source.settle(source.all_names())
        doubtful = [each for each in self._positions(source) if self._column(source, each).doubtful]
        columns = [self._column(source, position) for position in doubtful]
        for _, arrays in self._some(source, doubtful, rows) if doubtful else ():
            for column, array in zip(columns, arrays, strict=True):
                column.look_again(array)

    def _some(
        self, source: Source, positions: Sequence[int], rows: int | None, look: Look | None = None
    ) -> Iterator[tuple[Callable[[int], int], list[pa.Array]]]:
        """The batches up to that with the last of so many rows: where they stand, and their columns. A record that is
        not of the format tells of no type."""
        rules, seen = [self._rule_of(source, position) for position in positions], 0
        malformed = _passed_over if look is None else look.malformed
        for batch in source.batches(positions, malformed=malformed):
            arrays = batch.records.columns
            yield batch.line_of, [rule(one) if rule else one for rule, one in zip(rules, arrays, strict=True)]
            seen += batch.records.num_rows
            if rows is not None and seen >= rows:
                return

    def _positions(self, source: Source) -> list[int]:
        """Of the columns that matter; all are noted, in order."""
        names = source.schema.names
        for position, name in enumerate(names):
            self._names.setdefault(_key(source, position), name)
        return [position for position, name in enumerate(names) if name not in REJECT_COLUMNS]

    def _column(self, source: Columns, position: int) -> Column:
        name = source.schema.names[position]
        known = self._seen.setdefault(_key(source, position), {})
        kind = JsonColumn if source.format is SourceFormat.JSONL else TextColumn
        found = known.setdefault(kind.__name__, kind(name))
        if isinstance(found, Inferred):
            raise TypeError("text has no type of its own")
        return found

    def _columns(self) -> Iterator[Column]:
        for known in self._seen.values():
            yield from (each for each in known.values() if not isinstance(each, Inferred))

    def _add(self, source: Source, position: int, inferred: Inferred) -> None:
        known = self._seen.setdefault(_key(source, position), {})
        before = known.get("typed")
        known["typed"] = wider(before, inferred) if isinstance(before, Inferred) else inferred

    def _inferred(self, key: object) -> Inferred:
        first, *others = (each if isinstance(each, Inferred) else each.inferred() for each in self._seen[key].values())
        for other in others:
            first = wider(first, other)
        return first


def _key(source: Columns, position: int) -> object:
    """Columns of several sources are one by their name, or where they have none, by their place. Of several of one
    name in a source each is one."""
    if not source.named:
        return position
    names = [name.strip().lower() for name in source.schema.names]
    name = names[position]
    return name, names[:position].count(name)


def _passed_over(error: Exception, before: int, record: bytes, *, splits: bool) -> None:
    """The load will say what is wrong with it."""
