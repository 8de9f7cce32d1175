"""From what the user typed to bytes: globs, formats by suffix, standard input, and the digest of what was read."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from harborctl.errors import SourceError
from harborctl.model import SourceFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN = "-"

_FORMATS = {
    ".csv": SourceFormat.CSV,
    ".tsv": SourceFormat.TSV,
    ".tab": SourceFormat.TSV,
    ".jsonl": SourceFormat.JSONL,
    ".ndjson": SourceFormat.JSONL,
    ".parquet": SourceFormat.PARQUET,
    ".pq": SourceFormat.PARQUET,
    ".arrow": SourceFormat.ARROW,
    ".arrows": SourceFormat.ARROW,
    ".feather": SourceFormat.ARROW,
    ".ipc": SourceFormat.ARROW,
}

# Suffix → Arrow's name of the codec. All of them read a file that is several compressed ones, put together.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}

HASH_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a file that are read as if they were all of it: the first `head`, then those from `start` to `end`.

    Attributes:
        hashed: whether anybody will ask for their digest.
    """

    head: int
    start: int
    end: int
    hashed: bool = True


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A readable file (or standard input, whose `path` is None), its format, and Arrow's name of its compression."""

    name: str
    path: Path | None
    format: SourceFormat
    compression: str | None = None
    stretch: Stretch | None = None


def find_files(sources: Sequence[str], source_format: SourceFormat | None) -> list[SourceFile]:
    """Expand globs, in name order, and settle each file's format.

    Raises:
        SourceError: a file is missing, a folder or unreadable, a glob matches nothing, or a format is unknown.
    """
    files = []
    for source in sources:
        if source == STDIN:
            files.append(SourceFile("stdin", None, source_format or SourceFormat.CSV))
            continue
        # A file whose name has brackets or stars in it is that file, as in a shell without a match.
        names = [source] if Path(source).exists() or not glob.has_magic(source) else sorted(glob.glob(source))  # noqa: PTH207  # takes absolute patterns, too
        if not names:
            raise SourceError(
                f"no file matches {source}", code="no_such_file", hint="Quote the glob and check the folder."
            )
        files.extend(_checked(name, source_format) for name in names)
    return files


def _checked(name: str, source_format: SourceFormat | None) -> SourceFile:
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(
                f"{name} is a folder", code="is_a_folder", hint=f"Name its files, for example '{path / '*.csv'}'."
            )
        if not os.access(path, os.R_OK):
            raise PermissionError
    except FileNotFoundError as error:
        raise SourceError(f"{name} does not exist", code="no_such_file", hint=_nearest(path)) from error
    except PermissionError as error:
        raise SourceError(f"{name} may not be read by this user", code="unreadable_file") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}", code="unreadable_file") from error
    compression = COMPRESSIONS.get(path.suffix.lower())
    inner = path.with_suffix("") if compression else path
    found = source_format or _FORMATS.get(inner.suffix.lower())
    if found is None:
        raise SourceError(
            f"the format of {name} is not clear from its name",
            code="unknown_format",
            hint=f"Say --format {'|'.join(SourceFormat)}.",
        )
    if compression and found in (SourceFormat.PARQUET, SourceFormat.ARROW):
        raise SourceError(
            f"{name} is compressed as a whole, but {found} files are read from several places at once",
            code="not_seekable",
            hint="Decompress it first; such files are best compressed inside.",
        )
    return SourceFile(name, path, found, compression)


def _nearest(path: Path) -> str | None:
    import difflib

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"The folder {path.parent} cannot be read."
    match = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / match[0]}?" if match else None


def open_bytes(file: SourceFile) -> BinaryIO:
    """The file's bytes as they lie on disk, unbuffered: readers ask for large blocks."""
    if file.path is None:
        # Not sys.stdin: its lock, held by a thread that waits for input, would keep the process from ending.
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # a descriptor has no path
    raw = file.path.open("rb", buffering=0)
    return raw if file.stretch is None else cast("BinaryIO", _StretchReader(raw, file.stretch))


class _StretchReader:
    """Reads a file's head and a stretch of it; no more of it than `HashingReader` calls."""

    def __init__(self, raw: BinaryIO, stretch: Stretch) -> None:
        self._raw = raw
        self._stretch = stretch
        self._parts = [(0, stretch.head), (stretch.start, stretch.end)]

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end only."""
        while self._parts:
            start, end = self._parts[0]
            self._raw.seek(start)
            if data := self._raw.read(min(size, end - start)):
                self._parts[0] = (start + len(data), end)
                return data
            del self._parts[0]
        return b""

    def seek(self, offset: int) -> None:
        """Go to this place among the bytes of head and stretch."""
        head, start, end = self._stretch.head, self._stretch.start, self._stretch.end
        self._parts = [(min(offset, head), head), (start + max(offset - head, 0), end)]

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


class ByteStream(Protocol):
    """Whatever bytes can be read from, in order."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end only."""


def open_content(raw: HashingReader, file: SourceFile) -> ByteStream:
    """The bytes inside the file: decompressed if it is compressed."""
    return raw if file.compression is None else _Decompressed(raw, file)


class _Decompressed:
    """What is inside a compressed stream."""

    def __init__(self, raw: HashingReader, file: SourceFile) -> None:
        import pyarrow as pa

        self._name = file.name
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), file.compression)

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except OSError as error:
            raise SourceError(
                f"{self._name} cannot be decompressed: {error}",
                code="bad_compression",
                hint="Fetch the file again: it may have been cut short.",
            ) from error
        return data


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file that was read in no particular order."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as raw:
        while block := raw.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class HashingReader:
    """A stream that remembers how much was read of it, and the SHA-256 of that."""

    def __init__(self, raw: BinaryIO, *, hashes: bool = True) -> None:
        self._raw = raw
        self._digest = hashlib.sha256() if hashes else None
        self.position = 0
        self.closed = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        data = self._raw.read(size)
        if self._digest is not None:
            self._digest.update(data)
        self.position += len(data)
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        """The `size` bytes at this place, which go neither into the position nor into the digest."""
        self._raw.seek(offset)
        pieces = []
        while size > 0 and (data := self._raw.read(size)):
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def sha256(self) -> str:
        """Hexadecimal digest of all bytes read so far; empty if it was not to be told."""
        return self._digest.hexdigest() if self._digest is not None else ""

    def read_to_end(self) -> None:
        """Read what is left, so that position and digest are those of the whole."""
        while self.read(HASH_BLOCK_BYTES):
            pass

    def close(self) -> None:
        """Close the stream below."""
        self.closed = True
        self._raw.close()
