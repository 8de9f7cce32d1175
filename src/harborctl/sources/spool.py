"""Copies of what can be read once only, for who has to read it again from its start."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import finalize

from harborctl.sources.files import HASH_BLOCK_BYTES, Version, open_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.sources.files import SourceFile


class Spool:
    """A folder of such copies, gone when nobody has the spool any more."""

    def __init__(self) -> None:
        self._copies: dict[str, SourceFile] = {}
        self._folder: Path | None = None

    def kept(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """These files, those that can be read once only as copies, which are made when they are first asked for."""
        return [file if file.path is not None else self._copy(file) for file in files]

    def _copy(self, file: SourceFile) -> SourceFile:
        if file.name not in self._copies:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="harborctl-"))
                finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            path = self._folder / str(len(self._copies))
            with open_bytes(file) as source, path.open("xb") as copy:
                shutil.copyfileobj(source, copy, HASH_BLOCK_BYTES)
            self._copies[file.name] = replace(file, path=path, version=Version.of(path.stat()), once=None)
        return self._copies[file.name]
