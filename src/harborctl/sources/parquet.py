"""Parquet sources: typed columns, read row group by row group in small batches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from harborctl.errors import BadRow, SourceError
from harborctl.model import FileResult, Location, SourceFormat
from harborctl.sources.batch import Batch, Original
from harborctl.sources.files import SourceFile, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.sources.batch import Malformed

# About as many bytes as a CSV block: small batches keep the encoder's buffers small and the socket busy.
BATCH_ROWS = 8192


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
        try:
            self._file = pq.ParquetFile(file.path, memory_map=False, pre_buffer=False)
            self.schema: pa.Schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,  # noqa: ARG002  # as `Source` has it
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        names = [self.schema.field(column).name for column in columns]
        reader = self._file.iter_batches(
            batch_size=BATCH_ROWS, row_groups=self._groups, columns=list(dict.fromkeys(names)), use_threads=False
        )
        while True:
            try:
                records = next(reader, None)
            except (pa.ArrowException, OSError) as error:
                raise BadRow(
                    f"the file is damaged: {error}",
                    code="bad_parquet",
                    location=Location(self.name, self._rows_before + self._rows + 1),
                    hint="Fetch the file again: it may have been cut short.",
                ) from error
            if records is None:
                return
            first_row = self._rows_before + self._rows + 1
            self._rows += records.num_rows
            row_of = partial(int.__add__, first_row - 1)
            yield Batch(self._chosen(records, columns), self.name, partial(int.__add__, first_row), row_of=row_of)

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
        group, behind, pieces = 0, 0, iter(())
        piece, piece_start = None, 0
        for row in rows:
            while row >= behind + metadata.row_group(group).num_rows:
                behind += metadata.row_group(group).num_rows
                group, piece = group + 1, None
            if piece is None:
                pieces = self._file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False)
                piece, piece_start = next(pieces), behind
            while row >= piece_start + piece.num_rows:
                piece_start += piece.num_rows
                piece = next(pieces)
            yield Original(row + 1, row=piece.slice(row - piece_start, 1))

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
        return FileResult(self.name, self._bytes, self._rows, sha256_of(self._path))

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()

    def _unreadable(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self.name} is not a readable Parquet file: {error}",
            code="bad_parquet",
            hint="Fetch the file again: it may have been cut short. Another format is named by --format.",
        )
