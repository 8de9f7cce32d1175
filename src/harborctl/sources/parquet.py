"""Parquet sources: typed columns, read in batches cut by size, however large row groups are.

A file that proves itself damaged by the checksums of its pages is refused. INT96 moments, which Arrow reads as
nanoseconds, are microseconds here, so that those before 1677 and after 2262 stay what they are; a batch in which some
are finer comes with nanoseconds after all.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from harborctl.errors import BadRow, Location, SourceError
from harborctl.model import FileResult, SourceFormat
from harborctl.sources.batch import FINER, Batch, Original, bad_names
from harborctl.sources.files import SourceFile, sha256_of
from harborctl.sources.mapped import Mapped
from harborctl.sources.sizes import BATCH_BYTES, BATCH_ROWS, bytes_per_row, cut, rows_within
from harborctl.sqlstate import DATETIME_FIELD_OVERFLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from harborctl.sources.batch import Malformed

# Column chunks are read in pieces of this size: a row group may be as large as the file.
BUFFER_BYTES = 256 * 1024

PROBED_ROWS = 64

ENCRYPTED_MAGIC = b"PARE"
KEY_MATERIAL = b'"keyMaterialType"'

# Files of larger rows are mapped: pyarrow writes pages of a thousand rows, however large, and buffers for them would be
# most of the memory.
MAPPED_ROW_BYTES = 16 * 1024


class ParquetSource:
    """A Parquet file. See `Source` for the attributes; lines are 1-based rows."""

    named = True
    format = SourceFormat.PARQUET

    def __init__(self, file: SourceFile, groups: Sequence[int] | None = None, rows_before: int = 0) -> None:
        """All row groups, or these ones, before which the file has so many rows."""
        if file.path is None:
            raise SourceError(
                f"{file.name} can be read only once, and a Parquet file has its index at the end",
                code="not_seekable",
                hint="Save it to a file first.",
            )
        self.name = file.name
        self._path = file.path
        self._bytes = file.size or 0
        self.size: int | None = self._bytes
        self._rows = 0
        self._groups = groups
        self._rows_before = rows_before
        self._row_bytes = 0.0
        try:
            self._file = _opened(file.path, "us")
            if _is_encrypted(file.path, self._file.metadata.serialized_size):
                raise self._encrypted()
            self._map = Mapped(file) if _has_large_rows(self._file) else None
            if self._map is not None:
                self._file = _opened(self._map.reader(), "us")
            self.schema: pa.Schema = self._file.schema_arrow
            self._int96 = _int96_columns(self._file)
            self._nanoseconds = _opened(self._map.reader() if self._map else file.path, "ns") if self._int96 else None
        except UnicodeDecodeError as error:
            raise bad_names(file.name) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise (self._encrypted() if _starts_encrypted(file.path) else self._unreadable(error)) from error
        for number in self._int96:
            self.schema = self.schema.set(number, self.schema.field(number).with_metadata({FINER: b"ns"}))

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,  # noqa: ARG002  # as `Source` has it
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        groups = range(self._file.metadata.num_row_groups) if self._groups is None else self._groups
        for records in self._read(groups, columns, self._rows_before):
            before = self._rows_before + self._rows
            self._rows += records.num_rows
            yield Batch(records, self.name, partial(int.__add__, before + 1), row_of=partial(int.__add__, before))

    def _chosen(self, records: pa.RecordBatch, columns: Sequence[int]) -> pa.RecordBatch:
        """The columns at these positions. The file is asked for columns by name, and has all of a name in its order."""
        found: dict[str, list[int]] = {}
        for index, name in enumerate(records.schema.names):
            found.setdefault(name, []).append(index)
        names = self.schema.names
        return records.select([found[names[column]][names[:column].count(names[column])] for column in columns])

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        metadata = self._file.metadata
        group, behind = 0, 0
        pieces: Iterator[pa.RecordBatch] = iter(())
        piece: pa.RecordBatch | None = None
        piece_start = 0
        for row in rows:
            while row >= behind + metadata.row_group(group).num_rows:
                behind += metadata.row_group(group).num_rows
                group, piece = group + 1, None
            if piece is None:
                pieces = self._read([group], range(len(self.schema)), behind)
                piece, piece_start = next(pieces), behind
            while row >= piece_start + piece.num_rows:
                piece_start += piece.num_rows
                piece = next(pieces)
            yield Original(row + 1, row=piece.slice(row - piece_start, 1))

    def _read(self, groups: Sequence[int], columns: Sequence[int], row: int) -> Iterator[pa.RecordBatch]:
        """The rows of these groups, before which there are `row`, in batches cut by size.

        Raises:
            BadRow: the file proves itself damaged, or has a moment that Arrow has no unit for.
        """
        try:
            for together in self._runs(groups):
                step = self._step(together, columns)
                reader = self._batches_of(self._file, together, step, columns)
                missing = sum(self._file.metadata.row_group(group).num_rows for group in together)
                finer = self._nanoseconds and self._batches_of(self._nanoseconds, together, step, columns)
                for records in reader:
                    missing -= records.num_rows
                    self._row_bytes = max(self._row_bytes, bytes_per_row(records))
                    # Both readers cut alike, the exact values decide about each row.
                    for exact in _exact(records, next(finer)) if finer else (records,):
                        if exact is None:
                            raise self._too_fine(row + 1)
                        for piece in cut(exact):
                            yield piece
                            row += piece.num_rows
                    if self._map is not None:
                        self._map.done_with(records.nbytes)
                        self._map.check()
                if missing:  # pyarrow ends with the shortest column
                    raise pa.ArrowInvalid("a row group has fewer or more rows than it says")
        except pa.ArrowNotImplementedError as error:
            raise SourceError(
                f"{self.name} cannot be read: {error}",
                code="unknown_type",
                hint="Write its nested columns without dictionaries.",
            ) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadRow(
                f"the file is damaged: {error}",
                code="bad_parquet",
                location=Location(self.name, row + 1),
                hint="Fetch the file again: it may have been cut short.",
            ) from error

    def _batches_of(
        self, file: pq.ParquetFile, groups: list[int], rows: int, columns: Sequence[int]
    ) -> Iterator[pa.RecordBatch]:
        names = list(dict.fromkeys(self.schema.names[column] for column in columns))
        for records in file.iter_batches(batch_size=rows, row_groups=groups, columns=names, use_threads=False):
            yield self._chosen(records, columns)

    def _runs(self, groups: Sequence[int]) -> Iterator[list[int]]:
        """Row groups that are read in one go: small ones together, so that batches do not become as small as they."""
        run, rows, size = list[int](), 0, 0
        for group in groups:
            metadata = self._file.metadata.row_group(group)
            # Arrow cannot put the dictionaries of several groups together inside of lists and structs.
            if run and (rows >= BATCH_ROWS or size >= BATCH_BYTES or _has_inner_dictionary(self.schema)):
                yield run
                run, rows, size = [], 0, 0
            run.append(group)
            rows += metadata.num_rows
            size += metadata.total_byte_size
        if run:
            yield run

    def _step(self, groups: list[int], columns: Sequence[int]) -> int:
        """How many rows of these groups make a batch."""
        # Of columns one by one pyarrow cannot be asked: of a damaged file it ends the process.
        found = [self._file.metadata.row_group(group) for group in groups]
        rows, size = sum(group.num_rows for group in found), sum(group.total_byte_size for group in found)
        if not self._row_bytes and rows > PROBED_ROWS:
            # What values take that a dictionary has, only reading some tells.
            probe = next(self._batches_of(self._file, groups[:1], PROBED_ROWS, columns), None)
            self._row_bytes = bytes_per_row(probe) if probe is not None else 0.0
        return rows_within(max(size / max(rows, 1), self._row_bytes))

    def _too_fine(self, row: int) -> BadRow:
        return BadRow(
            "a moment before 1677 or after 2262 is finer than microseconds",
            code=DATETIME_FIELD_OVERFLOW,
            location=Location(self.name, row),
            hint="Write the column as timestamps of microseconds; INT96 is deprecated.",
        )

    def row_groups(self) -> tuple[int, ...]:
        """The rows of each row group."""
        metadata = self._file.metadata
        return tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))

    def position(self) -> int:
        """See `Source.position`; rows stand in for bytes, since columns are not read in file order."""
        total = self._file.metadata.num_rows
        return int(self._bytes * self._rows / total) if total else self._bytes

    def result(self) -> FileResult:
        """See `Source.result`."""
        return FileResult(self.name, self._bytes, self._rows, sha256_of(self._path), self._bytes)

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()
        if self._nanoseconds:
            self._nanoseconds.close()

    def _unreadable(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self.name} is not a readable Parquet file: {error}",
            code="bad_parquet",
            hint="Fetch the file again: it may have been cut short. Another format is named by --format.",
        )

    def _encrypted(self) -> SourceError:
        return SourceError(
            f"{self.name} is encrypted, and harborctl has no keys",
            code="encrypted_parquet",
            hint="Decrypt it with the program that has the keys, and load what that writes.",
        )


def _starts_encrypted(path: Path) -> bool:
    """Whether all of the file is encrypted, its footer too.

    https://github.com/apache/parquet-format/blob/master/Encryption.md
    """
    with path.open("rb") as raw:
        return raw.read(len(ENCRYPTED_MAGIC)) == ENCRYPTED_MAGIC


def _is_encrypted(path: Path, footer_bytes: int) -> bool:
    """Whether columns are encrypted under a footer that is not.

    Arrow ends the process where it looks into such a column, and does not tell before. Its own tools, and Spark's, name
    the keys in the footer.
    """
    with path.open("rb") as raw:
        raw.seek(-min(footer_bytes + 8, path.stat().st_size), os.SEEK_END)
        return KEY_MATERIAL in raw.read()


def _has_large_rows(file: pq.ParquetFile) -> bool:
    metadata = file.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return bool(size > MAPPED_ROW_BYTES * metadata.num_rows > 0)


def _opened(path: Path | pa.BufferReader, int96_unit: str) -> pq.ParquetFile:
    return pq.ParquetFile(
        path,
        memory_map=False,
        pre_buffer=False,
        buffer_size=BUFFER_BYTES if not isinstance(path, pa.BufferReader) else 0,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit=int96_unit,
    )


# -- the leaves of columns, which are what Parquet calls columns


def _owners(schema: pa.Schema) -> list[int]:
    """For each leaf the position of its column."""
    return [position for position, field in enumerate(schema) for _ in range(_leaf_count(field.type))]


def _leaf_count(arrow: pa.DataType) -> int:
    if isinstance(arrow, pa.BaseExtensionType):
        return _leaf_count(arrow.storage_type)
    return sum(_leaf_count(arrow.field(n).type) for n in range(arrow.num_fields)) if types.is_nested(arrow) else 1


def _has_inner_dictionary(schema: pa.Schema) -> bool:
    def inside(arrow: pa.DataType) -> bool:
        parts = [arrow.field(n).type for n in range(arrow.num_fields)] if types.is_nested(arrow) else []
        return any(types.is_dictionary(part) or inside(part) for part in parts)

    return any(inside(field.type) for field in schema)


# -- INT96: days and nanoseconds, of which Arrow makes one number


def _int96_columns(file: pq.ParquetFile) -> list[int]:
    """The positions of columns with such moments in them."""
    owners, leaves = _owners(file.schema_arrow), range(len(file.schema))
    return sorted({owners[leaf] for leaf in leaves if file.schema.column(leaf).physical_type == "INT96"})


def _exact(micro: pa.RecordBatch, nano: pa.RecordBatch) -> Iterator[pa.RecordBatch | None]:
    """Rows read in both units → rows in one that has their moments exactly; None stands for the first that none has.

    Nanoseconds go round at their ends (1677, 2262), microseconds lose digits.
    """
    pairs = [pair for m, n in zip(micro.columns, nano.columns, strict=True) for pair in _moments(m, n)]
    if all(pc.all(pc.equal(pc.multiply(m, 1000), n), min_count=0).as_py() for m, n in pairs):
        yield micro
    elif all(pc.all(pc.less(pc.abs(m), NANOSECOND_END), min_count=0).as_py() for m, _ in pairs):
        yield nano
    elif micro.num_rows == 1:
        yield None
    else:
        middle = micro.num_rows // 2
        yield from _exact(micro.slice(0, middle), nano.slice(0, middle))
        yield from _exact(micro.slice(middle), nano.slice(middle))


# In microseconds, from 1970.
NANOSECOND_END = 2**63 // 1000


def _moments(micro: pa.Array, nano: pa.Array) -> Iterator[tuple[pa.Array, pa.Array]]:
    """The arrays' numbers where they differ in their unit, from lists and structs, too."""
    if micro.type == nano.type:
        return
    if types.is_timestamp(micro.type):
        yield micro.cast(pa.int64()), nano.cast(pa.int64())
    elif types.is_map(micro.type):
        entries = [pa.ListArray.from_arrays(a.offsets, _entries(a)).flatten() for a in (micro, nano)]
        yield from _moments(*entries)
    elif types.is_struct(micro.type):
        for m, n in zip(micro.flatten(), nano.flatten(), strict=True):
            yield from _moments(m, n)
    else:
        yield from _moments(micro.flatten(), nano.flatten())


def _entries(maps: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays([maps.keys, maps.items], ["key", "value"])
