"""Fixed width: every column has its place in the line, counted in characters.

Spaces around a field are filling. A field of nothing but spaces is the empty text, and with that NULL unless `--null`
says otherwise.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.errors import UsageError
from harborctl.model import SourceFormat
from harborctl.sources.lines import BadLine
from harborctl.sqlstate import BAD_COPY_FILE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.model import CsvDialect


class FixedWidth:
    """See `LineFormat`. `widths`: of each column its width, `10`, or its name and width, `city:20`; a column named `-`
    is left out."""

    source_format = SourceFormat.FIXED

    def __init__(self, widths: Sequence[str], dialect: CsvDialect) -> None:
        if not widths:
            raise UsageError(
                "a file of fixed width needs the widths of its columns",
                code="no_widths",
                hint="Say --widths 10,20,5, or with names --widths id:10,city:20,zip:5.",
            )
        parts = [_part(each) for each in widths]
        ends = list(accumulate(width for _, width in parts))
        every = [(name, end - width, end) for (name, width), end in zip(parts, ends, strict=True)]
        self._length = ends[-1]
        self._cuts = [(start, end) for name, start, end in every if name != "-"]
        said = [name for name, _, _ in every if name != "-"]
        if any(said) and not all(said):
            raise UsageError("--widths names some columns and not others", code="bad_widths", hint="Name all, or none.")
        if any(said) and dialect.columns:
            raise UsageError("--widths and --columns both name the columns", hint="Take the names out of one of them.")
        self.names: Sequence[str] = [name for name in said if name] or list(dialect.columns)
        self.width = len(self._cuts)
        if self.names and len(self.names) != self.width:
            raise UsageError(
                f"--columns names {len(self.names)} columns, but --widths has {self.width}", code="column_count"
            )
        # Whoever names the columns says that the file does not.
        self._header = dialect.header and not self.names
        self._skipped = dialect.skip_lines + self._header
        self._nulls = set(dialect.nulls)
        self._skip_blank = dialect.skip_blank_lines

    def skips(self, line: str) -> bool:
        """See `LineFormat`."""
        if not self._skipped:
            return False
        self._skipped -= 1
        if not self._skipped and self._header:
            self.names = [line[start:end].strip() for start, end in self._cuts]
        return True

    def unbegun(self) -> str | None:
        """See `LineFormat`."""
        return "is empty: not even a header" if self._header and not self.names else None

    def end(self, text: bytes) -> int | None:  # noqa: ARG002  # as `LineFormat` has it
        """See `LineFormat`."""
        return None

    def refuse_rest(self, line: str) -> None:
        """See `LineFormat`."""

    def columns(self, text: bytes) -> Sequence[pa.Array] | None:
        """See `LineFormat`."""
        lines = pa.array(text.decode().replace("\r\n", "\n").removesuffix("\n").split("\n"), pa.string())
        lengths = pc.min_max(pc.utf8_length(pc.utf8_rtrim(lines, characters=" "))).as_py()
        if not 0 < lengths["min"] <= lengths["max"] <= self._length:
            return None
        cut = [pc.utf8_slice_codeunits(lines, start, end) for start, end in self._cuts]
        return [self._with_nulls(pc.utf8_trim(array, characters=" ")) for array in cut]

    def fields(self, line: str) -> Sequence[str | None] | None:
        """See `LineFormat`."""
        line = line.removesuffix("\r")
        if not line.strip(" "):
            if self._skip_blank:
                return None
            raise BadLine(
                "this line is blank", code=BAD_COPY_FILE_FORMAT, hint="Leave out such lines with --skip-blank-lines."
            )
        texts = [line[start:end].strip(" ") for start, end in self._cuts]
        if behind := line[self._length :].strip(" "):
            raise BadLine(
                f'"{behind}" stands behind the last column, which ends at character {self._length}',
                code=BAD_COPY_FILE_FORMAT,
                hint="See whether --widths names every column; one that is to be left out is named -, as in -:5.",
                fields=[*texts, behind],
            )
        return [None if text in self._nulls else text for text in texts]

    def _with_nulls(self, array: pa.Array) -> pa.Array:
        if not self._nulls:
            return array
        is_null = pc.is_in(array, value_set=pa.array(sorted(self._nulls), pa.string()))
        return pc.if_else(is_null, pa.scalar(None, pa.string()), array)


def _part(given: str) -> tuple[str, int]:
    name, _, width = given.rpartition(":")
    if not width.strip().isdecimal() or not int(width):
        raise UsageError(
            f"--widths {given} is no width", code="bad_widths", hint="Say --widths 10,20,5, or --widths id:10,city:20."
        )
    return name.strip(), int(width)
