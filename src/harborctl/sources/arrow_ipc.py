"""Arrow IPC sources, the file format (Feather) and the stream format: typed columns, in batches cut by size.

A file's record batches are as large as its writer liked. A regular file of large ones is mapped into memory, so that
what is not compressed is read where it lies, and given back as it is done with. Others are read: whoever truncates a
mapped file ends the process that looks into it, by SIGBUS. What would have readers look outside of the file's buffers
is refused: Arrow has no checksums.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

from harborctl.errors import BadRow, Location, SourceError
from harborctl.model import FileResult, SourceFormat
from harborctl.sources.batch import Batch, Original, bad_names
from harborctl.sources.files import SourceFile, check_unchanged, open_bytes, sha256_of
from harborctl.sources.mapped import Mapped
from harborctl.sources.read_again import Block, Rereadable
from harborctl.sources.sizes import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from harborctl.sources.batch import Malformed

FILE_MAGIC = b"ARROW1"

# Batches up to this size, as far as it is known, are read as wholes.
READ_BYTES = 32 * 1024 * 1024


class ArrowSource:
    """An Arrow file or stream. See `Source` for the attributes; lines are 1-based rows."""

    named = True
    format = SourceFormat.ARROW

    def __init__(self, file: SourceFile, *, keep: bool = False) -> None:
        self.name = file.name
        self._file = file
        self.size = file.size
        self._again = Rereadable(file, keep=keep)
        self._raw = self._again.raw
        self._rows = 0
        self._regular: BinaryIO | None = None
        self._is_file = False
        self._map: Mapped | None = None
        try:
            if file.path is not None:
                self._regular = open_bytes(file)
                self._is_file = self._regular.read(len(FILE_MAGIC)) == FILE_MAGIC
                self._regular.seek(0)
            self._stream: pa.NativeFile = pa.PythonFile(self._regular or self._raw, mode="r")
            self._reader = self._opened()
            if file.path is not None and (file.size or 0) > READ_BYTES * self._batch_count():
                self._map = Mapped(file)
                self._stream = self._map.reader()
                self._reader = self._opened()
            self.schema: pa.Schema = self._reader.schema
            _ = self.schema.names
        except UnicodeDecodeError as error:
            self.close()
            raise bad_names(file.name) from error
        except (pa.ArrowException, OSError) as error:
            self.close()
            raise SourceError(
                f"{self.name} is not a readable Arrow file: {error}",
                code="bad_arrow",
                hint="Fetch the file again: it may have been cut short. Another format is named by --format.",
            ) from error

    def _opened(self) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
        return pa.ipc.open_file(self._stream) if self._is_file else pa.ipc.open_stream(self._stream)

    def _batch_count(self) -> int:
        """As far as it is known before they are read."""
        reader = self._reader
        return max(reader.num_record_batches, 1) if isinstance(reader, pa.ipc.RecordBatchFileReader) else 1

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,  # noqa: ARG002  # as `Source` has it
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        for batch in self._read():
            for records in self._pieces(batch, columns):
                first_row = self._rows + 1
                self._rows += records.num_rows
                yield Batch(
                    records, self.name, partial(int.__add__, first_row), row_of=partial(int.__add__, first_row - 1)
                )

    def _pieces(self, read: pa.RecordBatch, columns: Sequence[int]) -> Iterator[pa.RecordBatch]:
        try:
            chosen = [read.column(column) for column in columns]
            batch = pa.RecordBatch.from_arrays(chosen, names=[str(column) for column in columns])
            for array in batch.columns:
                if not _is_flat(array.type):
                    _check(array)
            for records in cut(batch):
                if self._map is not None:
                    self._map.check()
                for array in records.columns:
                    if _is_flat(array.type):
                        _check(array)
                yield records
                if self._map is not None:
                    self._map.done_with(records.nbytes)
        except (pa.ArrowException, ValueError) as error:
            raise self._damaged(error) from error

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        batches, behind, batch = self._batches_again(), 0, None
        for row in rows:
            while batch is None or row >= behind + batch.num_rows:
                behind += batch.num_rows if batch is not None else 0
                batch = next(batches, None)
                if batch is None:
                    raise self._damaged("it has fewer rows than it had")
            yield Original(row + 1, row=batch.slice(row - behind, 1))

    def _batches_again(self) -> Iterator[pa.RecordBatch]:
        if self._regular is not None:
            check_unchanged([self._file])
            if not self._is_file:
                self._regular.seek(0)
                self._stream = self._map.reader() if self._map else pa.PythonFile(self._regular, mode="r")
                self._reader = self._opened()
            yield from self._read()
            return
        for _, text, _ in self._again.blocks([(Block(0, 0, self.size or self._raw.position, 1, plain=False), [])]):
            yield from pa.ipc.open_stream(text)

    def _read(self) -> Iterator[pa.RecordBatch]:
        try:
            if isinstance(self._reader, pa.ipc.RecordBatchFileReader):
                for number in range(self._reader.num_record_batches):
                    yield self._reader.get_batch(number)
            else:
                yield from self._reader
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: object) -> BadRow:
        return BadRow(
            f"the file is damaged: {error}",
            code="bad_arrow",
            location=Location(self.name, self._rows + 1),
            hint="Fetch the file again: it may have been cut short.",
        )

    def position(self) -> int:
        """See `Source.position`; of a file, whose batches are read in place, it is not known before the end."""
        return self._raw.position if self._map is None else int(self._stream.tell())

    def result(self) -> FileResult:
        """See `Source.result`."""
        if self._file.path is not None:
            return FileResult(self.name, self.size or 0, self._rows, sha256_of(self._file.path), self.size or 0)
        self._raw.read_to_end()
        return self._again.result(self.name, self._rows)

    def close(self) -> None:
        """See `Source.close`."""
        self._again.close()
        if self._regular is not None:
            self._regular.close()
        self._map = None  # unmapped once no batch is left that lies in it


def _is_flat(arrow: pa.DataType) -> bool:
    """Whether a slice is checked without what lies below or beside it, again and again."""
    return not (
        types.is_nested(arrow)
        or types.is_dictionary(arrow)
        or types.is_run_end_encoded(arrow)
        or isinstance(arrow, pa.BaseExtensionType)
    )


_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def _check(array: pa.Array) -> None:
    """Text need not be UTF-8 here: that is a matter of single values."""
    (array.view(_BYTES[array.type]) if array.type in _BYTES else array).validate(full=True)
