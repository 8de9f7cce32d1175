"""Files in splits: stretches of whole records that can be read on their own, in any order and by several processes.

A plain CSV file with a header is cut in bytes, behind line ends outside quotes; a Parquet file in rows. What can only
be read from its start (compressed, JSON Lines, Arrow, other encodings, an escape that is not the quote) is one split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from harborctl.errors import BadRow, HarborctlError, Location
from harborctl.model import CsvDialect, FileResult
from harborctl.sources.csv.records import LineEnd, line_ends
from harborctl.sources.csv.source import CsvSource
from harborctl.sources.files import SourceFile, Stretch, open_bytes, open_hashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa

    from harborctl.sources.batch import Batch, Malformed, Original, Source

SCAN_BYTES = 1024 * 1024

Error = TypeVar("Error", bound=HarborctlError)


@dataclass(frozen=True, slots=True)
class Split:
    """A stretch of a file of a load.

    Attributes:
        file: the file's place among those of the load, from 0.
        start, end: bytes of a CSV, rows of a Parquet file, bytes of a file that is one split.
        first_row: the number of its first row in the load, from 1, where that is known.
    """

    file: int
    start: int
    end: int
    first_row: int | None = None


@dataclass(frozen=True, slots=True)
class Divisible:
    """A file and how it may be cut.

    Attributes:
        head: of a CSV, the bytes before the first record, which every split is read behind.
        quote: of a CSV that may be cut, its quote; no byte where it has none.
        line_end: what its lines end in.
        groups: of a Parquet file, the rows of each row group.
        end: where its last split ends.
    """

    file: SourceFile
    dialect: CsvDialect
    end: int
    head: int = 0
    quote: bytes | None = None
    line_end: LineEnd | None = None
    groups: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it can only be read from its start."""
        return self.quote is None and not self.groups

    def cuts(self, start: int, end: int, *, rows: int | None, size: int) -> Iterator[tuple[int, int, int | None]]:
        """`start` to `end`, which are borders of records, in splits of so many rows, or else of about `size` bytes.

        Each is (start, end, rows if they were counted).
        """
        if self.quote is not None:
            yield from _csv_cuts(self.file, self.quote, self.line_end, start, end, rows, size)
        elif self.groups and rows:
            for first in range(start, end, rows):
                last = min(first + rows, end)
                yield first, last, last - first
        elif self.groups:
            yield from self._group_cuts(start, end)
        elif start < end:
            yield start, end, None

    def _group_cuts(self, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        first = 0
        for count in self.groups:
            low, high = max(first, start), min(first + count, end)
            if low < high:
                yield low, high, high - low
            first += count

    def open(self, start: int, end: int, *, hashes: bool = True) -> Source:
        """A source of these records only, which tells lines and rows as they are in the file."""
        if self.quote is not None:
            stretch = Stretch(self.head, start, end, hashes)
            source = CsvSource(replace(self.file, stretch=stretch), self.dialect)
            return _SplitOfCsv(source, self.file, stretch)
        if self.groups:
            return _SplitOfParquet(self.file, start, end, self.groups)
        from harborctl.sources.open import open_file

        return open_file(self.file, self.dialect)


def divisible(file: SourceFile, source: Source, dialect: CsvDialect) -> Divisible:
    """How `file`, of which `source` has read nothing but the header, may be cut."""
    from harborctl.sources.parquet import ParquetSource

    end = source.size or 0
    if isinstance(source, ParquetSource):
        groups = source.row_groups()
        return Divisible(file, dialect, sum(groups), groups=groups) if sum(groups) else Divisible(file, dialect, end)
    if isinstance(source, CsvSource) and dialect.header and (start := source.divisible_from()) is not None:
        end = max(source.divisible_to(file), start)
        own, quote = replace(dialect, skip_footer=0), dialect.quote.encode()
        return Divisible(file, own, end, head=start, quote=quote, line_end=source.line_end)
    return Divisible(file, dialect, end)


class SplitDigests:
    """Reads a CSV file from its start to its end, once, for its digest and for those of its splits, which rise."""

    def __init__(self, divided: Divisible) -> None:
        self._raw = open_hashed(divided.file)
        self._head = hashlib.sha256()
        self._read_to(divided.head, self._head)

    def of(self, start: int, end: int) -> str:
        """The digest of the head and this stretch, as that has it who reads the split."""
        self._read_to(start)
        own = self._head.copy()
        self._read_to(end, own)
        return own.hexdigest()

    def whole(self) -> str:
        """The digest of the file."""
        self._raw.read_to_end()
        return self._raw.sha256()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def _read_to(self, place: int, digest: hashlib._Hash | None = None) -> None:
        while self._raw.position < place and (data := self._raw.read(min(SCAN_BYTES, place - self._raw.position))):
            if digest is not None:
                digest.update(data)


def _csv_cuts(
    file: SourceFile, quote: bytes, line_end: LineEnd | None, start: int, end: int, rows: int | None, size: int
) -> Iterator[tuple[int, int, int | None]]:
    """Counts quotes: a line end behind an even number of them ends a record. Where lines end in CRLF, a LF alone may be
    one inside a field, and nothing is cut there; where they end in CR, nowhere."""
    first, offset, inside, counted, last = start, start, False, 0, b""
    with open_bytes(file) as raw:
        raw.seek(start)
        while offset < end and (block := raw.read(min(SCAN_BYTES, end - offset))):
            if rows is None:
                due = max(first + size - offset, 0)
                for place in _record_ends(block, quote, inside) if due < len(block) else ():
                    if place >= due and _may_cut(block, place, last, line_end):
                        yield first, offset + place, None
                        first = offset + place
                        due = first + size - offset
            elif counted + _count_ends(block, quote, inside) < rows:
                counted += _count_ends(block, quote, inside)
            else:
                for place in _record_ends(block, quote, inside):
                    counted += 1
                    if counted >= rows and _may_cut(block, place, last, line_end):
                        yield first, offset + place, counted
                        first, counted = offset + place, 0
            inside ^= bool(quote and block.count(quote) % 2)
            offset += len(block)
            last = block[-1:]
    if first < end:
        yield first, end, None


def _may_cut(block: bytes, place: int, last: bytes, line_end: LineEnd | None) -> bool:
    """Whether a record surely ends before this place, which is behind a LF. `last` is the byte before the block."""
    if line_end is LineEnd.CRLF:
        return (block[place - 2 : place - 1] if place > 1 else last) == b"\r"
    return line_end is not LineEnd.CR


def _record_ends(block: bytes, quote: bytes, inside: bool) -> Iterator[int]:
    """The places behind line feeds outside quotes."""
    place = 0
    for text in block.split(quote) if quote else [block]:
        if not inside:
            found = text.find(b"\n")
            while found >= 0:
                yield place + found + 1
                found = text.find(b"\n", found + 1)
        place += len(text) + 1
        inside = not inside


def _count_ends(block: bytes, quote: bytes, inside: bool) -> int:
    if not quote or quote not in block:
        return 0 if inside else block.count(b"\n")
    return sum(text.count(b"\n") for text in block.split(quote)[inside::2])


class _SplitOfCsv:
    """A stretch of a CSV file. See `Source`; the digest is that of header and stretch."""

    def __init__(self, source: CsvSource, file: SourceFile, stretch: Stretch) -> None:
        self._source = source
        self._file = file
        self._stretch = stretch
        self.name = source.name
        self.format = source.format
        self.schema: pa.Schema = source.schema
        self.named = source.named
        self.size: int | None = stretch.end - stretch.start
        self._lines: int | None = None

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`."""

        def take(error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
            if malformed is not None:
                malformed(self._located(error), before, record, splits=splits)

        try:
            for batch in self._source.batches(columns, direct, take if malformed is not None else None):
                yield replace(batch, line_of=partial(self._line, batch.line_of))
        except HarborctlError as error:
            self._located(error)
            raise

    def _located(self, error: Error) -> Error:
        if error.location is not None:
            error.location = Location(error.location.file, error.location.line + self._lines_before())
        return error

    def _line(self, line_of: Callable[[int], int], row: int) -> int:
        return line_of(row) + self._lines_before()

    def _lines_before(self) -> int:
        """Counted only when somebody asks, which is when a row is bad."""
        if self._lines is None:
            self._lines, left = 0, self._stretch.start - self._stretch.head
            with open_bytes(self._file) as raw:
                raw.seek(self._stretch.head)
                while left > 0 and (block := raw.read(min(SCAN_BYTES, left))):
                    self._lines += line_ends(block)
                    left -= len(block)
        return self._lines

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        for original in self._source.originals(rows):
            yield replace(original, line=original.line + self._lines_before())

    def position(self) -> int:
        """See `Source.position`."""
        return max(self._source.position() - self._stretch.head, 0)

    def result(self) -> FileResult:
        """See `Source.result`."""
        return self._source.result()

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


class _SplitOfParquet:
    """Some rows of a Parquet file. See `Source`; it has no digest of its own."""

    named = True

    def __init__(self, file: SourceFile, start: int, end: int, groups: tuple[int, ...]) -> None:
        from harborctl.sources.parquet import ParquetSource

        first, chosen, before = 0, [], 0
        for number, count in enumerate(groups):
            if first < end and start < first + count:
                chosen.append(number)
                before = before if len(chosen) > 1 else first
            first += count
        self._source = ParquetSource(file, chosen, before)
        self._start, self._skip, self._rows = start, start - before, end - start
        self._read = 0
        self.name = self._source.name
        self.format = self._source.format
        self.schema: pa.Schema = self._source.schema
        self.size = self._source.size

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,  # noqa: ARG002  # typed values are never malformed
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        skip = self._skip
        for batch in self._source.batches(columns, direct):
            count = batch.records.num_rows
            if skip >= count:
                skip -= count
                continue
            taken = min(count - skip, self._rows - self._read)
            records = batch.records.slice(skip, taken)
            self._read += taken
            row_of = partial(int.__add__, self._read - taken)
            yield replace(batch, records=records, line_of=partial(_shifted, batch.line_of, skip), row_of=row_of)
            skip = 0
            if self._read == self._rows:
                return

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        return self._source.originals(self._start + row for row in rows)

    def position(self) -> int:
        """See `Source.position`."""
        return int((self.size or 0) * self._read / max(self._rows, 1))

    def result(self) -> FileResult:
        """See `Source.result`."""
        return FileResult(self.name, self.size or 0, self._read, "", self.size or 0)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


def _shifted(line_of: Callable[[int], int], by: int, row: int) -> int:
    return line_of(row + by)
