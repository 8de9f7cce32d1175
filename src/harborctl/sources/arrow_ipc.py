"""Arrow IPC sources, the file format (Feather) and the stream format: typed columns, batch by batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import BadRow, SourceError
from harborctl.model import FileResult, Location, SourceFormat
from harborctl.sources.batch import Batch, Original
from harborctl.sources.files import SourceFile, open_bytes, sha256_of
from harborctl.sources.read_again import Block, Rereadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.sources.batch import Malformed

FILE_MAGIC = b"ARROW1"

# A file's batches are as large as its writer liked; in pieces the encoder's buffers stay small.
BATCH_ROWS = 8192


class ArrowSource:
    """An Arrow file or stream. See `Source` for the attributes; lines are 1-based rows."""

    named = True
    format = SourceFormat.ARROW

    def __init__(self, file: SourceFile, *, keep: bool = False) -> None:
        self.name = file.name
        self._path = file.path
        self.size = file.size
        self._again = Rereadable(file, keep=keep)
        self._raw = self._again.raw
        self._rows = 0
        try:
            self._is_file = file.path is not None and self._starts_as_file(file)
            if self._is_file:
                self._reader = pa.ipc.open_file(pa.OSFile(str(file.path)))
            else:
                self._reader = pa.ipc.open_stream(pa.PythonFile(self._raw, mode="r"))
            self.schema: pa.Schema = self._reader.schema
        except (pa.ArrowException, OSError) as error:
            self.close()
            raise SourceError(
                f"{self.name} is not a readable Arrow file: {error}",
                code="bad_arrow",
                hint="Fetch the file again: it may have been cut short. Another format is named by --format.",
            ) from error

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,  # noqa: ARG002  # as `Source` has it
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        for batch in self._read():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                records = batch.slice(start, BATCH_ROWS)
                first_row = self._rows + 1
                self._rows += records.num_rows
                arrays = [records.column(column) for column in columns]
                names = [str(column) for column in columns]
                yield Batch(
                    pa.RecordBatch.from_arrays(arrays, names=names),
                    self.name,
                    partial(int.__add__, first_row),
                    row_of=partial(int.__add__, first_row - 1),
                )

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        batches, behind, batch = self._batches_again(), 0, None
        for row in rows:
            while batch is None or row >= behind + batch.num_rows:
                behind += batch.num_rows if batch is not None else 0
                batch = next(batches)
            yield Original(row + 1, row=batch.slice(row - behind, 1))

    def _batches_again(self) -> Iterator[pa.RecordBatch]:
        if self._is_file:
            yield from self._read()
            return
        for _, text in self._again.blocks([Block(0, 0, self.size or self._raw.position, 1, plain=False)]):
            yield from pa.ipc.open_stream(text)

    def _read(self) -> Iterator[pa.RecordBatch]:
        try:
            if self._is_file:
                for number in range(self._reader.num_record_batches):
                    yield self._reader.get_batch(number)
            else:
                yield from self._reader
        except (pa.ArrowException, OSError) as error:
            raise BadRow(
                f"the file is damaged: {error}",
                code="bad_arrow",
                location=Location(self.name, self._rows + 1),
                hint="Fetch the file again: it may have been cut short.",
            ) from error

    def position(self) -> int:
        """See `Source.position`; of a file, whose batches are read in place, it is not known before the end."""
        return self._raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        if self._path is not None:
            return FileResult(self.name, self.size or 0, self._rows, sha256_of(self._path))
        self._raw.read_to_end()
        return FileResult(self.name, self._raw.position, self._rows, self._raw.sha256())

    def close(self) -> None:
        """See `Source.close`."""
        self._again.close()

    def _starts_as_file(self, file: SourceFile) -> bool:
        with open_bytes(file) as raw:
            return raw.read(len(FILE_MAGIC)) == FILE_MAGIC
