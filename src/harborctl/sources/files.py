"""From what the user typed to bytes: globs, formats by suffix, standard input, and the digest of what was read."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harborctl.errors import SourceError
from harborctl.model import SourceFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN = "-"

_FORMATS = {
    ".csv": SourceFormat.CSV,
    ".tsv": SourceFormat.TSV,
    ".tab": SourceFormat.TSV,
    ".parquet": SourceFormat.PARQUET,
    ".pq": SourceFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A readable file (or standard input, whose `path` is None) and its format."""

    name: str
    path: Path | None
    format: SourceFormat


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
    found = source_format or _FORMATS.get(path.suffix.lower())
    if found is None:
        raise SourceError(
            f"the format of {name} is not clear from its name",
            code="unknown_format",
            hint=f"Say --format {'|'.join(SourceFormat)}.",
        )
    return SourceFile(name, path, found)


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
    return file.path.open("rb", buffering=0)


class HashingReader:
    """A stream that remembers how much was read of it, and the SHA-256 of that."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._digest = hashlib.sha256()
        self.position = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        data = self._raw.read(size)
        self._digest.update(data)
        self.position += len(data)
        return data

    def sha256(self) -> str:
        """Hexadecimal digest of all bytes read so far."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the stream below."""
        self._raw.close()
