r"""COPY's text format: fields between tabs, `\N` for NULL, escapes with a backslash; also where pg_dump wrote it.

Of a script of pg_dump the data of its one `COPY … FROM stdin` is read, by the names of the columns that stand there.
Source: the server's `CopyReadAttributesText`, and its documentation of COPY.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from harborctl.model import SourceFormat
from harborctl.sources.lines import BadLine
from harborctl.sqlstate import BAD_COPY_FILE_FORMAT, CHARACTER_NOT_IN_REPERTOIRE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.model import CsvDialect

NULL = "\\N"

_COPY = re.compile(r"COPY (?P<table>.+?) \((?P<columns>.*)\) FROM stdin;\s*$")
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
_END = re.compile(rb"^\\\.\r?(?:\n|\Z)", re.MULTILINE)
# A tab or line end that a backslash escapes; behind two of them it is one.
_ESCAPED_END = re.compile(rb"(?<!\\)(?:\\\\)*\\[\t\n]")
_FIELD = re.compile(r"(?:[^\\\t]|\\.)*")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_OPTIONS = arrow_csv.ParseOptions(
    delimiter="\t", quote_char=False, escape_char=False, newlines_in_values=False, ignore_empty_lines=False
)


class CopyText:
    """See `LineFormat`."""

    source_format = SourceFormat.COPY

    def __init__(self, dialect: CsvDialect) -> None:
        self.names: Sequence[str] = dialect.columns
        self.width = len(dialect.columns)
        self._table: str | None = None
        self._is_script: bool | None = None
        self._utf8 = dialect.encoding in {"utf-8", "utf-8-sig"}

    def skips(self, line: str) -> bool:
        """See `LineFormat`."""
        if self._table is not None:
            return False
        found = _COPY.match(line)
        if self._is_script is None:
            self._is_script = found is not None or line.startswith("--")
        if not self._is_script:
            self.width = self.width or len(_split(line) or line.split("\t"))
            return False
        if found is not None:
            self._table = found["table"]
            own = [quoted.replace('""', '"') or bare for quoted, bare in _NAME.findall(found["columns"])]
            self.names = self.names or own
            self.width = len(self.names)
        return True

    def unbegun(self) -> str | None:
        """See `LineFormat`."""
        return "is a script without COPY … FROM stdin" if self._is_script and self._table is None else None

    def end(self, text: bytes) -> int | None:
        """See `LineFormat`."""
        found = _END.search(text)
        return found.start() if found else None

    def refuse_rest(self, line: str) -> None:
        """See `LineFormat`."""
        if line.strip() in ("", "\\."):
            return
        other = _COPY.match(line)
        if self._table is not None and other is not None:
            raise BadLine(
                f"the script holds rows of {self._table}, and of {other['table']} from here",
                code=BAD_COPY_FILE_FORMAT,
                hint=f"Write the rows of one table with pg_dump --data-only --table {self._table}.",
            )
        if self._table is None:
            raise BadLine("a line stands behind the end of the data, which is \\.", code=BAD_COPY_FILE_FORMAT)

    def columns(self, text: bytes) -> Sequence[pa.Array] | None:
        """See `LineFormat`."""
        if b"\r" in text or b"\0" in text or _ESCAPED_END.search(text):
            return None
        names = [str(number) for number in range(self.width)]
        try:
            read = arrow_csv.read_csv(
                pa.BufferReader(text),
                arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
                _OPTIONS,
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), null_values=[NULL], strings_can_be_null=True
                ),
            )
        except pa.ArrowInvalid:
            return None
        if len(read) != text.count(b"\n") + (not text.endswith(b"\n")):
            return None
        try:
            return [self._unescaped(column.combine_chunks()) for column in read.columns]
        except BadLine:
            return None

    def fields(self, line: str) -> Sequence[str | None]:
        """See `LineFormat`."""
        line = line.removesuffix("\r")
        if "\r" in line:
            raise BadLine(
                "a carriage return stands in the line", code=BAD_COPY_FILE_FORMAT, hint="COPY's text has it as \\r."
            )
        found = _split(line)
        if found is None:
            raise BadLine("a backslash stands at the end of the line", code=BAD_COPY_FILE_FORMAT)
        texts = [None if field == NULL else self._unescape(field) for field in found]
        if len(texts) != self.width:
            raise BadLine(
                f"{len(texts)} fields, but there are {self.width} columns", code=BAD_COPY_FILE_FORMAT, fields=texts
            )
        return texts

    def _unescaped(self, array: pa.Array) -> pa.Array:
        if not pc.any(pc.match_substring(array, "\\")).as_py():
            return array
        texts = array.to_pylist()
        return pa.array([text and (self._unescape(text) if "\\" in text else text) for text in texts], pa.string())

    def _unescape(self, field: str) -> str:
        if "\\" not in field:
            return field
        if not _ESCAPE_OF_BYTE.search(field):
            return _ESCAPE.sub(lambda found: _LETTERS.get(found[3], found[3]), field)
        found = _ESCAPE.sub(_as_surrogate, field).encode("utf-8", "surrogateescape")
        if not self._utf8 and not found.isascii():
            raise BadLine("an escape of a byte is read in files of UTF-8 only", code=CHARACTER_NOT_IN_REPERTOIRE)
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise BadLine(
                f"the bytes {found[error.start : error.end].hex(' ')} are not UTF-8", code=CHARACTER_NOT_IN_REPERTOIRE
            ) from error


# A backslash that is itself escaped begins no escape, and costs the exact way only.
_ESCAPE_OF_BYTE = re.compile(r"\\(?:x[0-9a-fA-F]|[0-7])")


def _as_surrogate(found: re.Match[str]) -> str:
    """What an escape stands for; a byte over 127 as its surrogate."""
    hexadecimal, octal, letter = found.groups()
    if letter is not None:
        return _LETTERS.get(letter, letter)
    byte = int(hexadecimal, 16) if hexadecimal else int(octal, 8) & 0xFF
    return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)


def _split(line: str) -> list[str] | None:
    """The fields of a line, still escaped; None if its last character is a lone backslash."""
    if "\\\t" not in line and not line.endswith("\\"):
        return line.split("\t")
    fields, start = [], 0
    while True:
        found = _FIELD.match(line, start)
        end = found.end() if found else start
        fields.append(line[start:end])
        if end == len(line):
            return fields
        if line[end] != "\t":
            return None
        start = end + 1
