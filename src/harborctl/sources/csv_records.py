"""COPY's rules for CSV text, record by record, in plain Python.

This is the reference that the fast reader in `csv` falls back to when a block is not plain RFC 4180. The rules are
those of PostgreSQL's `CopyReadLineText` and `CopyReadAttributesCSV` (src/backend/commands/copyfromparse.c): a quote
opens and closes quoting anywhere in a field, an escape counts inside quotes only and only before a quote or an escape,
and a field is NULL when it equals a null spelling and has no quote in it. Other than COPY, a record may end in LF,
CRLF or CR, whatever the records before it ended in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ByteDialect:
    """The characters that shape a record, as single bytes; `nulls` as they stand in UTF-8."""

    delimiter: bytes
    quote: bytes
    escape: bytes
    nulls: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        fields: each field's bytes; None is NULL.
        start, end: its place in the text that was read, line end left out and counted in `end`.
        closed: False when the text ended inside quotes.
    """

    fields: list[bytes | None]
    start: int
    end: int
    closed: bool


def records(text: bytes, dialect: ByteDialect) -> Iterator[Record]:
    """The records of `text`, which starts at a record's start."""
    plain = re.compile(b"[" + b"".join(map(re.escape, (dialect.delimiter, dialect.quote, b"\r", b"\n"))) + b"]")
    quoted = re.compile(b"[" + re.escape(dialect.quote) + re.escape(dialect.escape) + b"]")
    position = 0
    while position < len(text):
        record = _record(text, position, dialect, plain, quoted)
        yield record
        position = record.end


def _record(
    text: bytes, start: int, dialect: ByteDialect, plain: re.Pattern[bytes], quoted: re.Pattern[bytes]
) -> Record:
    fields: list[bytes | None] = []
    parts: list[bytes] = []
    saw_quote = False
    position = start

    def end_field() -> None:
        nonlocal saw_quote
        value = b"".join(parts)
        fields.append(None if not saw_quote and value in dialect.nulls else value)
        parts.clear()
        saw_quote = False

    while True:
        match = plain.search(text, position)
        if match is None:
            parts.append(text[position:])
            end_field()
            return Record(fields, start, len(text), closed=True)
        parts.append(text[position : match.start()])
        position = match.end()
        found = match.group()
        if found == dialect.delimiter:
            end_field()
        elif found == dialect.quote:
            saw_quote = True
            after = _quoted_part(text, position, dialect, quoted, parts)
            if after is None:
                end_field()
                return Record(fields, start, len(text), closed=False)
            position = after
        else:
            end_field()
            if found == b"\r" and text[position : position + 1] == b"\n":
                position += 1
            return Record(fields, start, position, closed=True)


def _quoted_part(
    text: bytes, position: int, dialect: ByteDialect, quoted: re.Pattern[bytes], parts: list[bytes]
) -> int | None:
    """Append what stands inside quotes up to the closing one; return the place behind it, or None if there is none."""
    while True:
        match = quoted.search(text, position)
        if match is None:
            parts.append(text[position:])
            return None
        parts.append(text[position : match.start()])
        position = match.end()
        following = text[position : position + 1]
        if match.group() == dialect.escape and following in (dialect.escape, dialect.quote) and following:
            parts.append(following)
            position += 1
        elif match.group() == dialect.quote:
            return position
        else:
            parts.append(match.group())


def line_ends(text: bytes, start: int = 0, end: int | None = None) -> int:
    """How many physical lines end in `text[start:end]`; LF, CRLF and CR each end one."""
    count = text.count(b"\n", start, end)
    if text.find(b"\r", start, end) >= 0:
        count += text.count(b"\r", start, end) - text.count(b"\r\n", start, end)
    return count
