"""What can be told of rows without asking the server: which cannot be stored for certain, and which are in doubt.

Runs in the thread that reads ahead, at Arrow's speed: while nothing is bad, it does what `encode` does and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from harborctl.codecs.codec import NotPlain, Unstorable
from harborctl.codecs.literals import bare, is_binary, is_text
from harborctl.codecs.text_input import held, numeral_of
from harborctl.errors import BadRow
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.encode import Encoded, Encoder
from harborctl.sources.batch import stretch, without
from harborctl.sqlstate import CHARACTER_NOT_IN_REPERTOIRE, INVALID_TEXT_REPRESENTATION, NOT_NULL_VIOLATION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from harborctl.load.plan.plan import Plan, PlannedColumn
    from harborctl.load.write.bad_row import Note
    from harborctl.sources.batch import Batch

# Rows in doubt go on their own, one attempt each, so that the others need not wait for them. Where a batch has more of
# them, it goes as a whole: then the column is likely one that Arrow cannot read at all.
MOST_DOUBTS = 16


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows that travel together.

    Attributes:
        encoded: for COPY; None for a writer that sends values.
        alone: the server's answer about other rows must not depend on these.
    """

    batch: Batch
    encoded: Encoded | None
    alone: bool

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.batch.records.num_rows)

    @property
    def size(self) -> int:
        """Bytes that travel, or nearly so."""
        return self.encoded.size if self.encoded else int(self.batch.records.nbytes)


class Screen:
    """Looks at the batches of one plan.

    Args:
        refuse: takes the rows that are bad for certain.
        required: columns of the target that a trigger does not fill in, where NULL is bad.
        encodes: whether slices come encoded.
    """

    def __init__(self, plan: Plan, refuse: Note, required: Collection[str], *, encodes: bool) -> None:
        self._plan = plan
        self._refuse = refuse
        self._required = required
        self._encodes = encodes
        self._encoder = Encoder(plan)

    def slices(self, batches: Iterable[Batch]) -> Iterator[Slice]:
        """The rows of these batches that may be storable, in their order."""
        for batch in batches:
            yield from self.looked_at(self._without_nulls(batch))

    def looked_at(self, batch: Batch) -> Iterator[Slice]:
        """One batch that has no NULL where it must not."""
        if not batch.records.num_rows:
            return
        try:
            encoded = self._encoder.as_binary(batch) if self._encoder.has_binary else self._encoder.as_text(batch)
            if not self._encodes:
                self._encoder.as_text(batch)  # so the values will travel, and text may hold what binary does not mind
        except BadRow:
            encoded = None
        if encoded is None:
            yield from self._searched(batch)
        else:
            yield self._slice(batch, encoded)

    def again(self, batch: Batch) -> Slice:
        """Rows that have been looked at before, as one slice."""
        return Slice(batch, self._encoder.one(batch) if self._encodes else None, alone=False)

    def _slice(self, batch: Batch, encoded: Encoded, *, alone: bool = False) -> Slice:
        return Slice(batch, encoded if self._encodes else None, alone)

    def _without_nulls(self, batch: Batch) -> Batch:
        def nulls(planned: PlannedColumn, array: pa.Array) -> Iterator[tuple[int, Reason]]:
            if planned.target.name in self._required and array.null_count:
                message = f'null value in column "{planned.target.name}" violates not-null constraint'
                for row in _where(array.is_null()):
                    yield row, Reason(NOT_NULL_VIOLATION, message)

        return self._without(batch, nulls)

    def _without(
        self, batch: Batch, search: Callable[[PlannedColumn, pa.Array], Iterable[tuple[int, Reason]]]
    ) -> Batch:
        """The batch without the rows that `search` finds in a column; they are refused."""
        bad: set[int] = set()
        for planned, array in zip(self._plan.columns, self._plan.arrays(batch), strict=True):
            for row, reason in search(planned, array):
                if row not in bad:
                    self._refuse(batch, row, replace(reason, column=planned.target.name))
                    bad.add(row)
        return without(batch, bad)

    def _takes(self, planned: PlannedColumn, batch: Batch) -> bool:
        """Whether a column as a whole can be sent."""
        array = self._plan.arrays(batch)[self._plan.columns.index(planned)]
        # Whether text is UTF-8 the binary way leaves to the server.
        ways = [planned.codec.text] if not self._encoder.has_binary or is_text(bare(array[:0]).type) else []
        if self._encoder.has_binary:
            ways.append(planned.codec.convert)
        return all(_is_plain(array, way) for way in ways)

    def _doubtful(self, batch: Batch, refusing: Collection[PlannedColumn]) -> set[int] | None:
        doubtful: set[int] = set()
        for planned, array in zip(self._plan.columns, self._plan.arrays(batch), strict=True):
            found = _not_plain(array, planned.codec.convert) if planned in refusing else set()
            if found is None:
                return None
            doubtful |= found
        return doubtful

    def _searched(self, batch: Batch) -> Iterator[Slice]:
        """A batch in which something is bad or in doubt."""
        refusing = [planned for planned in self._plan.columns if not self._takes(planned, batch)]
        for way in ("text", "convert") if self._encoder.has_binary else ("text",):

            def unstorable(planned: PlannedColumn, array: pa.Array, way: str = way) -> Iterator[tuple[int, Reason]]:
                return _bad(array, getattr(planned.codec, way)) if planned in refusing else iter(())

            batch = self._without(batch, unstorable)
        batch = self._without(batch, _nuls)
        batch = self._without(batch, lambda planned, array: _unreadable(planned, array) if planned in refusing else ())
        if not batch.records.num_rows:
            return
        doubtful = self._doubtful(batch, refusing) if self._encoder.has_binary else None
        if doubtful is None or len(doubtful) > MOST_DOUBTS:
            yield self._slice(batch, self._encoder.as_text(batch))
            return
        start = 0
        for row in [*sorted(doubtful), batch.records.num_rows]:
            if row > start:
                yield self.again(stretch(batch, start, row))
            if row < batch.records.num_rows:
                one = stretch(batch, row, row + 1)
                yield self._slice(one, self._encoder.as_text(one), alone=True)
            start = row + 1


def required(plan: Plan) -> frozenset[str]:
    """Columns in which NULL is bad for certain: no trigger may fill it in before it is looked at."""
    target = plan.target
    key = plan.merge.key if plan.merge else None
    names = {part.text for part in key.parts} if key and key.is_plain and key.nulls_distinct else set()
    if target.kind == "r" and not target.before_triggers:
        names |= {column.target.name for column in plan.columns if column.target.not_null}
    return frozenset(names)


def _bad(array: pa.Array, way: Callable[[pa.Array], pa.Array]) -> Iterator[tuple[int, Reason]]:
    """The rows that are Unstorable this way."""
    waiting = [(0, len(array))]
    while waiting:
        start, end = waiting.pop()
        try:
            way(array.slice(start, end - start))
        except Unstorable as error:
            if end - start == 1:
                yield start, Reason(error.code, error.reason, value=error.value)
                continue
            middle = (start + end) // 2
            waiting += [(middle, end), (start, middle)]
        except NotPlain:
            pass


def _not_plain(array: pa.Array, way: Callable[[pa.Array], pa.Array]) -> set[int] | None:
    """The rows that only the server can read; None if they are too many to count."""
    level = [(0, len(array))]
    while True:
        failing = [(start, end) for start, end in level if not _is_plain(array.slice(start, end - start), way)]
        if len(failing) > MOST_DOUBTS:
            return None
        if all(end - start == 1 for start, end in failing):
            return {start for start, _ in failing}
        level = []
        for start, end in failing:
            middle = (start + end) // 2
            level += [(start, middle), (middle, end)] if end - start > 1 else [(start, end)]


def _is_plain(array: pa.Array, way: Callable[[pa.Array], pa.Array]) -> bool:
    try:
        way(array)
    except (NotPlain, Unstorable):
        return False
    return True


def _unreadable(planned: PlannedColumn, array: pa.Array) -> Iterator[tuple[int, Reason]]:
    """The rows that no PostgreSQL reads as the number which the column takes."""
    numeral = numeral_of(planned.target)
    if numeral is None or not types.is_string(array.type):
        return
    text = planned.codec.text(array) if planned.codec.written else array
    for row in _where(pc.invert(pc.match_substring_regex(text, numeral.pattern))):
        value = array[row].as_py()
        message = f'invalid input syntax for type {numeral.type}: "{value}"'
        yield row, Reason(INVALID_TEXT_REPRESENTATION, message, value=value)


def _nuls(planned: PlannedColumn, array: pa.Array) -> Iterator[tuple[int, Reason]]:
    if not (is_text(array.type) or is_binary(array.type)):
        return
    text = planned.codec.text(array)
    if b"\0" in held(text):
        for row in _where(pc.match_substring(text, "\0")):
            message = 'invalid byte sequence for encoding "UTF8": 0x00'
            yield row, Reason(CHARACTER_NOT_IN_REPERTOIRE, message, value=text[row].as_py())


def _where(condition: pa.Array) -> list[int]:
    rows: list[int] = pc.indices_nonzero(condition).to_pylist()
    return rows
