"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def written_whole(path: Path, give_name: Callable[[Path, Path], object]) -> Iterator[IO[bytes]]:
    """A file to write, beside `path`. Once all of it is on disk `give_name(file, path)` is called; an error leaves
    nothing of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        give_name(temporary, path)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):  # never hides why we are here
            temporary.unlink()
        raise
