"""From what the user typed to bytes: globs, formats by suffix, standard input, and the digest of what was read.

What is no regular file (a pipe, a terminal, a descriptor of `/dev/fd`) can be read once only, whatever its name: it has
no `path`. A regular file is one version of itself from the moment it is found: whoever opens it later, or asks before a
commit, is told if it is another by then.
"""

from __future__ import annotations

import glob
import hashlib
import io
import lzma
import os
import re
import stat
import sys
import zipfile
import zlib
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, cast

from harborctl.errors import SourceChanged, SourceError, UsageError
from harborctl.model import LayoutOptions, SourceFormat
from harborctl.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    ".json": SourceFormat.JSON,
    ".xlsx": SourceFormat.XLSX,
    ".xlsm": SourceFormat.XLSX,
    ".ods": SourceFormat.ODS,
    ".copy": SourceFormat.COPY,
}

# Suffix → Arrow's name of the codec, but for xz. All of them read a file that is several compressed ones, put together.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4", ".xz": "xz"}
ZIP = "zip"
PLAIN = LayoutOptions()

HASH_BLOCK_BYTES = 1024 * 1024
_DAMAGED = (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error)


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
class Version:
    """What tells whether a file is still the one that it was."""

    device: int
    inode: int
    size: int
    written_at: int

    @classmethod
    def of(cls, state: os.stat_result) -> Version:
        """As `stat` has it."""
        return cls(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A readable source.

    Attributes:
        name: as the user named it, in characters that can be shown and stored.
        path: where it can be opened any number of times; None if it can be read once only.
        compression: Arrow's name of it, or `xz`, or `zip` for a member of an archive.
        version: of a file with a path, as it was found.
        once: where what can be read only once is opened; None for standard input.
        member: of an archive, as its directory has it.
        layout: where the rows are in it.
    """

    name: str
    path: Path | None
    format: SourceFormat
    compression: str | None = None
    stretch: Stretch | None = None
    version: Version | None = None
    once: Path | None = None
    member: str | None = None
    layout: LayoutOptions = PLAIN

    @property
    def size(self) -> int | None:
        """Bytes on disk; None where that is unknown."""
        if self.version is not None:
            return self.version.size
        return self.path.stat().st_size if self.path else None


def find_files(
    sources: Sequence[str], source_format: SourceFormat | None, layout: LayoutOptions = PLAIN
) -> list[SourceFile]:
    """Expand globs and archives, in name order, and settle each file's format.

    Raises:
        SourceError: a file is missing, a folder or unreadable, a glob matches nothing, or a format is unknown.
        UsageError: what can be read once only is named twice.
    """
    files: list[SourceFile] = []
    for source in sources:
        if source == STDIN:
            _check_stdin()
            files.append(SourceFile("stdin", None, source_format or SourceFormat.CSV))
            continue
        names = [source] if _is_archive(source) else _expanded(source)
        if not names:
            raise SourceError(
                f"no file matches {printable(source)}", code="no_such_file", hint="Quote the glob and check the folder."
            )
        for name in names:
            files.extend(_members(name, source_format) if _is_archive(name) else [_checked(name, source_format)])
    _refuse_repeated(files)
    return [replace(file, layout=layout) for file in files] if layout.given() else files


def _expanded(source: str) -> list[str]:
    # A file whose name has brackets or stars in it is that file, as in a shell without a match.
    if Path(source).exists() or not glob.has_magic(source):
        return [source]
    found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207  # takes absolute patterns, too
    # `**` finds the folders on the way, too.
    return [name for name in found if not Path(name).is_dir()] if "**" in source else found


def _is_archive(name: str) -> bool:
    """Whether it is an archive, or members of one, as `feeds.zip/*.csv`."""
    archive, _ = _archive_and_members(name)
    return archive is not None and archive.is_file()


def _archive_and_members(name: str) -> tuple[Path | None, str]:
    path = Path(name)
    for archive in (path, *path.parents):
        if archive.suffix.lower() == ".zip":
            return archive, path.relative_to(archive).as_posix() if archive != path else "*"
    return None, ""


def _members(name: str, source_format: SourceFormat | None) -> Iterator[SourceFile]:
    """The files in an archive, in name order."""
    archive, pattern = _archive_and_members(name)
    whole = _checked(str(archive), source_format or SourceFormat.CSV)
    if archive is None or whole.path is None:
        raise SourceError(f"{whole.name} is no file: an archive is read from its end", code="not_seekable")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = sorted(opened.infolist(), key=lambda each: each.filename)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(
            f"{whole.name} is not a readable archive: {error}",
            code="bad_compression",
            hint="Fetch the file again: it may have been cut short.",
        ) from error
    files = [each for each in members if not each.is_dir() and not each.filename.startswith("__MACOSX/")]
    found = [each for each in files if each.filename == pattern or fnmatch(each.filename, pattern)]
    if not found:
        there = ", ".join(each.filename for each in files[:10]) or "nothing"
        raise SourceError(f"no file in {whole.name} matches {pattern}", code="no_such_file", hint=f"It holds {there}.")
    for member in found:
        of_member = f"{whole.name}/{member.filename}"
        if member.flag_bits & 1:
            raise SourceError(
                f"{of_member} is encrypted", code="bad_compression", hint="Unpack it, and load what was in it."
            )
        inner = source_format or _FORMATS.get(Path(member.filename).suffix.lower())
        if inner is None:
            raise SourceError(
                f"the format of {of_member} is not clear from its name",
                code="unknown_format",
                hint=f"Say --format {'|'.join(SourceFormat)}, or name only some of its files: '{whole.name}/*.csv'.",
            )
        _refuse_compressed(of_member, inner)
        yield SourceFile(of_member, archive, inner, ZIP, version=whole.version, member=member.filename)


def printable(name: str) -> str:
    """A file name in characters: a byte of it that is not UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode(errors="backslashreplace")


# Names of this process's own descriptors: opened anew, they would begin where they are, or at the start again.
_DESCRIPTOR = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(?:self|\d+)/fd/\d+")


def is_read_once(source: str) -> bool:
    """Whether what the user typed can be read only once, from its start; False as well if it is not there."""
    if source == STDIN or _DESCRIPTOR.fullmatch(source):
        return True
    try:
        mode = Path(source).stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_stdin() -> None:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError) as error:
        raise SourceError(
            "standard input is closed", code="unreadable_file", hint="Name a file, or send the data through a pipe."
        ) from error
    if stat.S_ISDIR(mode):
        raise SourceError("standard input is a folder", code="is_a_folder")


def _refuse_repeated(files: Sequence[SourceFile]) -> None:
    seen: dict[tuple[int, int, int], str] = {}
    for file in files:
        if file.path is None:
            state = os.fstat(sys.stdin.fileno()) if file.once is None else file.once.stat()
            key = state.st_dev, state.st_ino, state.st_rdev
            if key in seen:
                names = f"{seen[key]} and {file.name} are" if seen[key] != file.name else f"{file.name} is"
                raise UsageError(
                    f"{names} the same source, which can be read only once",
                    code="read_once",
                    hint="Name it once, or save it to a file first.",
                )
            seen[key] = file.name


def _checked(given: str, source_format: SourceFormat | None) -> SourceFile:
    path, name = Path(given), printable(given)
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise SourceError(
                f"{name} is a folder",
                code="is_a_folder",
                hint=f"Name its files, for example '{printable(str(path / '*.csv'))}'.",
            )
        if not os.access(path, os.R_OK):
            raise PermissionError
    except FileNotFoundError as error:
        raise SourceError(f"{name} does not exist", code="no_such_file", hint=_nearest(path)) from error
    except PermissionError as error:
        raise SourceError(f"{name} may not be read by this user", code="unreadable_file") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}", code="unreadable_file") from error
    once = is_read_once(given)
    compression = COMPRESSIONS.get(path.suffix.lower())
    inner = path.with_suffix("") if compression else path
    found = source_format or _FORMATS.get(inner.suffix.lower())
    if found is None and once:
        found = SourceFormat.CSV  # as standard input
    if found is None:
        raise SourceError(
            f"the format of {name} is not clear from its name",
            code="unknown_format",
            hint=f"Say --format {'|'.join(SourceFormat)}.",
        )
    if compression:
        _refuse_compressed(name, found)
    if once:
        return SourceFile(name, None, found, compression, once=path)
    return SourceFile(name, path, found, compression, version=Version.of(state))


def _refuse_compressed(name: str, source_format: SourceFormat) -> None:
    if source_format in (SourceFormat.PARQUET, SourceFormat.ARROW):
        raise SourceError(
            f"{name} is compressed as a whole, but {source_format} files are read from several places at once",
            code="not_seekable",
            hint="Decompress it first; such files are best compressed inside.",
        )


def check_unchanged(files: Iterable[SourceFile]) -> None:
    """Before a commit: see that every file is still the one that was found.

    Raises:
        SourceChanged: one is not.
    """
    for file in files:
        if file.path is None or file.version is None:
            continue
        try:
            now = Version.of(file.path.stat())
        except OSError as error:
            raise _changed(file, "is gone") from error
        _check_version(file, now)


def _check_version(file: SourceFile, now: Version) -> None:
    before = file.version
    if before is None or now == before:
        return
    if (now.device, now.inode) != (before.device, before.inode):
        raise _changed(file, "was replaced by another file")
    if now.size != before.size:
        raise _changed(file, f"had {before.size:,} bytes, and has {now.size:,} now")
    raise _changed(file, "was written to")


def _changed(file: SourceFile, how: str) -> SourceChanged:
    return SourceChanged(
        f"{file.name} has changed while it was loaded: it {how}",
        hint="Load a file that nobody writes to: let its maker write under another name, and rename it when it is"
        " complete, before the load begins.",
    )


def _nearest(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"The folder {printable(str(path.parent))} cannot be read."
    match = nearest(path.name, names)
    return f"Did you mean {printable(str(path.parent / match))}?" if match else None


def open_bytes(file: SourceFile) -> BinaryIO:
    """The file's bytes as they lie on disk, unbuffered: readers ask for large blocks.

    Raises:
        SourceError: it cannot be opened.
        SourceChanged: it is not the file any more that was found.
    """
    try:
        if file.path is None and file.once is None:
            # Not sys.stdin: its lock, held by a thread that waits for input, would keep the process from ending.
            return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # a descriptor has no path
        raw = (file.path or cast("Path", file.once)).open("rb", buffering=0)
    except FileNotFoundError as error:
        raise _changed(file, "is gone") from error
    except OSError as error:
        raise SourceError(f"{file.name} cannot be opened: {error.strerror}", code="unreadable_file") from error
    try:
        _check_version(file, Version.of(os.fstat(raw.fileno())))
    except SourceChanged:
        raw.close()
        raise
    return raw if file.stretch is None else cast("BinaryIO", _StretchReader(raw, file.stretch))


def open_hashed(file: SourceFile, *, hashes: bool = True) -> HashingReader:
    """The same, and what it held when it was found must be there to its end."""
    return HashingReader(open_bytes(file), hashes=hashes, file=file)


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
        self._stream: ByteStream
        try:
            if file.member is not None:
                self._stream = zipfile.ZipFile(cast("IO[bytes]", _Places(raw, file.size or 0))).open(  # noqa: SIM115  # lives as long as `raw`
                    file.member
                )
            elif file.compression == "xz":
                self._stream = lzma.LZMAFile(cast("IO[bytes]", raw))  # noqa: SIM115  # likewise
            else:
                self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), file.compression)
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self._name} cannot be decompressed: {error}",
            code="bad_compression",
            hint="Fetch the file again: it may have been cut short.",
        )


class _Places(io.RawIOBase):
    """A file of which any place can be read, as archives are; at its end all of it counts as read."""

    def __init__(self, raw: HashingReader, size: int) -> None:
        self._raw = raw
        self._size = size
        self._place = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read_at(self._place, self._size - self._place if size < 0 else size)
        self._place += len(data)
        self._raw.position = max(self._raw.position, self._place)
        return data


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file that was read in no particular order."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as raw:
        while block := raw.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_of(file: SourceFile) -> str:
    """The digest of a file, or of its stretch, as it lies on disk."""
    reader = open_hashed(file)
    try:
        reader.read_to_end()
    finally:
        reader.close()
    return reader.sha256()


def content_of(file: SourceFile) -> tuple[str, int]:
    """Digest and size of what is in a file: of its bytes, decompressed."""
    raw = open_hashed(file, hashes=file.compression is None)
    try:
        content = raw if file.compression is None else HashingReader(cast("BinaryIO", open_content(raw, file)))
        content.read_to_end()
    finally:
        raw.close()
    return content.sha256(), content.position


class HashingReader:
    """A stream that remembers how much was read of it, and the SHA-256 of that."""

    def __init__(self, raw: BinaryIO, *, hashes: bool = True, file: SourceFile | None = None) -> None:
        self._raw = raw
        self._digest = hashlib.sha256() if hashes else None
        self._file = file
        self._expected = _bytes_of(file) if file is not None else 0
        self.position = 0
        self.closed = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end.

        Raises:
            SourceChanged: the file ends before it should.
        """
        data = self._raw.read(size)
        if self._digest is not None:
            self._digest.update(data)
        self.position += len(data)
        if not data and size and self.position < self._expected and self._file is not None:
            raise _changed(self._file, f"ended {self._expected - self.position:,} bytes early")
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


def _bytes_of(file: SourceFile) -> int:
    """How many bytes there are to read, as far as it is known."""
    if file.version is None:
        return 0
    if file.stretch is None:
        return file.version.size
    return file.stretch.head + file.stretch.end - file.stretch.start
