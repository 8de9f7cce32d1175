"""Where a result goes: standard output, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from harborctl.errors import HarborctlError, UsageError
from harborctl.whole_file import written_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What is kept in memory of a document that must be whole before its first byte may go out.
HELD_BYTES = 8 * 1024 * 1024


@contextmanager
def standard_output(*, whole: bool) -> Iterator[IO[bytes]]:
    """Standard output for bytes. With `whole` nothing goes out before the block has ended well.

    When the reader goes away, as `head` does, the block ends there and all is well.

    Raises:
        HarborctlError: it cannot be written.
    """
    sys.stdout.flush()
    # Not sys.stdout.buffer: bytes that could not be written would stay in it and fail again at exit.
    with (
        suppress(BrokenPipeError),
        _told("standard output"),
        os.fdopen(sys.stdout.fileno(), "wb", 1 << 16, closefd=False) as stream,
    ):
        if not whole:
            yield stream
        else:
            with tempfile.SpooledTemporaryFile(HELD_BYTES) as held:
                yield held
                held.seek(0)
                shutil.copyfileobj(held, stream)


def write_text(text: str) -> None:
    """A text on standard output, as UTF-8. Not through Rich: it ends the process with 1 when `head` goes away."""
    with standard_output(whole=False) as stream:
        stream.write(text.encode())


@contextmanager
def file_output(path: Path) -> Iterator[IO[bytes]]:
    """A file for bytes. It takes its name only when the block has ended well; until then an older one stays.

    What is no regular file is written and never replaced: devices, pipes, and names of open files such as `/dev/stderr`
    and `/dev/fd/63`, whatever those are.

    Raises:
        UsageError: its folder is missing, or it is a folder.
        HarborctlError: it cannot be written.
    """
    descriptor = _descriptor(path)
    if descriptor is not None:
        # Not by its name: opened anew, a file would be emptied, and a socket cannot be.
        with _told(str(path)), os.fdopen(os.dup(descriptor), "wb") as stream:
            yield stream
        return
    path = path.resolve()  # a link stays a link, and what it points to is replaced
    if path.is_dir():
        raise UsageError(f"{path} is a folder", code="bad_output", hint="Name a file in it.")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", code="bad_output", hint="Create it first.")
    if path.exists() and not path.is_file():  # a device or a named pipe cannot be replaced
        with _told(str(path)), path.open("wb") as stream:
            yield stream
        return
    with _told(str(path)), written_whole(path, _replace) as stream:
        yield stream


def _replace(new: Path, path: Path) -> None:
    if path.exists():
        shutil.copymode(path, new)
    new.replace(path)


# As Linux and macOS name the open files of a process.
_OPEN_FILES = re.compile(r"/dev/fd/(?P<number>\d+)|/proc/(?:self|thread-self|(?P<process>\d+))/fd/(?P<proc_number>\d+)")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def _descriptor(path: Path) -> int | None:
    """The open file that `path`, or the link that it is, stands for; None if it is a path like any other."""
    name = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow the link, to the file behind it
    for _ in range(40):  # as many links as Linux follows
        if name in _STANDARD:
            return _STANDARD[name]
        match = _OPEN_FILES.fullmatch(name)
        if match is not None:
            own = match["process"] in (None, str(os.getpid()))
            return int(match["number"] or match["proc_number"]) if own else None
        if not os.path.islink(name):  # noqa: PTH114  # it may name no path at all
            return None
        name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(name)))  # noqa: PTH115, PTH118, PTH120
    return None


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Failures to write leave as errors of ours; a reader that went away is for the caller to judge."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HarborctlError(
            f"cannot write {where}: {error.strerror}", code="cannot_write", hint="Check space and permissions."
        ) from error
