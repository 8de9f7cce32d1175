"""What a text source keeps while it is read, so that single records of it can be read again as they stand there."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from harborctl.model import FileResult
from harborctl.sources.files import HashingReader, check_unchanged, open_bytes, open_content
from harborctl.sources.transcode import Utf8Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harborctl.sources.files import ByteStream, SourceFile

# A pipe that is longer goes to a temporary file: it cannot be read twice.
KEPT_IN_MEMORY = 1024 * 1024

SKIPPED_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the text that became one batch.

    Attributes:
        first_row: rows of the source before it.
        offset, length: its place in the text, in bytes of UTF-8.
        first_line: the physical line at which it starts.
        plain: every line of it is a row, and every row one line.
    """

    first_row: int
    offset: int
    length: int
    first_line: int
    plain: bool


class PushedBack:
    """A stream with bytes before it that have been read too far."""

    def __init__(self, data: bytes, rest: ByteStream) -> None:
        self._data = memoryview(data)
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        if not len(self._data):
            return self._rest.read(size)
        taken, self._data = self._data[:size], self._data[size:]
        return bytes(taken)


class _Kept:
    """What can be read once only; everything that is read of it is kept."""

    def __init__(self, raw: BinaryIO, kept: tempfile.SpooledTemporaryFile[bytes]) -> None:
        self._raw = raw
        self._kept = kept

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._kept.write(data)
        return data

    def close(self) -> None:
        self._raw.close()


class Rereadable:
    """The text of a source: read once from the first byte to the last, then in blocks, front to back."""

    def __init__(
        self,
        file: SourceFile,
        encoding: str | None = None,
        *,
        keep: bool = False,
        convert: Callable[[ByteStream], ByteStream] | None = None,
    ) -> None:
        """`convert`: makes the text that records are read from of the text of the file."""
        self._file = file
        self._encoding = encoding
        self._convert = convert
        self._kept: tempfile.SpooledTemporaryFile[bytes] | None = None
        raw: BinaryIO = open_bytes(file)
        if file.path is None and keep:
            self._kept = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)  # noqa: SIM115  # closed by close()
            raw = _Kept(raw, self._kept)  # type: ignore[assignment]  # HashingReader only reads and closes
        hashes = file.stretch is None or file.stretch.hashed
        self.raw = HashingReader(raw, hashes=hashes and file.compression is None, file=file)
        # What is in it, decompressed: its digest is that of the source.
        self.content = self.raw
        if file.compression is not None:
            self.content = HashingReader(cast("BinaryIO", open_content(self.raw, file)), hashes=hashes)
        self.text = self._as_utf8(self.content)

    def blocks(self, wanted: Iterable[tuple[Block, list[int]]]) -> Iterator[tuple[Block, bytes, list[int]]]:
        """The text of these blocks, which rise, between the block and what else is said of it.

        Raises:
            SourceChanged: the file is not the one that was read.
        """
        check_unchanged([self._file])
        if self._kept is not None:
            self._kept.seek(0)
            raw = HashingReader(self._kept)  # type: ignore[arg-type]  # likewise
        else:
            raw = HashingReader(open_bytes(self._file))
        try:
            # Bytes of the text are bytes of the file unless something is decoded on the way.
            as_on_disk = self._encoding is None and self._file.compression is None and self._convert is None
            seekable = as_on_disk and self._kept is None
            stream, position = (None if seekable else self._decoded(raw)), 0
            left = b""
            for block, inside in wanted:
                if stream is None:
                    yield block, raw.read_at(block.offset, block.length), inside
                    continue
                pieces, needed = [left], block.offset + block.length - position - len(left)
                while needed > 0 and (data := stream.read(SKIPPED_BYTES)):
                    pieces.append(data)
                    needed -= len(data)
                    while len(pieces) > 1 and position + len(pieces[0]) <= block.offset:
                        position += len(pieces.pop(0))
                text = b"".join(pieces)
                start = block.offset - position
                left, position = text[start + block.length :], block.offset + block.length
                yield block, text[start : start + block.length], inside
        finally:
            if self._kept is None:
                raw.close()
            else:
                self._kept.seek(0, os.SEEK_END)  # what nobody has read yet of the pipe comes there

    def close(self) -> None:
        """Release the file and what was kept of it."""
        self.raw.close()
        if self._kept is not None:
            self._kept.close()

    def _decoded(self, raw: HashingReader) -> ByteStream:
        return self._as_utf8(open_content(raw, self._file))

    def _as_utf8(self, content: ByteStream) -> ByteStream:
        text = content if self._encoding is None else Utf8Reader(content, self._encoding, self._file.name)
        return text if self._convert is None else self._convert(text)

    def result(self, name: str, rows: int) -> FileResult:
        """What was read, of which so many rows were made."""
        return FileResult(name, self.raw.position, rows, self.content.sha256(), self.content.position)


def by_block(blocks: list[Block], rows: Iterable[int]) -> Iterator[tuple[Block, list[int]]]:
    """The blocks that hold these rows, which rise, and the numbers of the rows within each block."""
    position, found, inside = 0, None, list[int]()
    for row in rows:
        while position + 1 < len(blocks) and blocks[position + 1].first_row <= row:
            position += 1
        if found is not blocks[position]:
            if found is not None:
                yield found, inside
            found, inside = blocks[position], []
        inside.append(row - found.first_row)
    if found is not None:
        yield found, inside
