"""COPY's rules for CSV text, record by record, in plain Python.

This is the reference that the fast reader in `csv` falls back to when a block is not plain RFC 4180. The rules are
those of PostgreSQL's `CopyReadLineText` and `CopyReadAttributesCSV` (src/backend/commands/copyfromparse.c): a quote
opens and closes quoting anywhere in a field, an escape counts inside quotes only and only before a quote or an escape,
and a field is NULL when it equals a null spelling and has no quote in it.

To COPY all records end as the first one does, and another line end outside quotes is an error. Here LF and CRLF may be
mixed, where that cannot divide a field. Where lines end in LF, a CRLF cannot: its LF ends the record anyway. Where they
end in CRLF, a LF may be one inside a field. If it is, not both of the records before and behind it have all their
fields, unless there is one column only: so they are one bad record then. What can be no end of a line is part of its
field, and its record is bad. What COPY has no option for is done where the dialect says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class ByteDialect:
    """The characters that shape a record, as single bytes; `nulls` as they stand in UTF-8.

    Attributes:
        quote: no byte where no character is one; then `escape` is none either.
        trim: white space at both ends of a field is no part of it.
        skip_blank: lines of spaces and tabs, other than the delimiter, are no records.
    """

    delimiter: bytes
    quote: bytes
    escape: bytes
    nulls: frozenset[bytes]
    trim: bool = False
    skip_blank: bool = False

    def holds_quotes(self, text: bytes) -> bool:
        """Whether there is a quote in it."""
        return bool(self.quote) and self.quote in text


# Before 3.11.5, Python takes a possessive repeat to end where the last try, which failed, had got to. One that matches
# nothing at last (`|)*+`) does not fail, and ends where it should.


def plain_quoting(dialect: ByteDialect) -> re.Pattern[bytes]:
    """Text in which quoted fields start behind, and end before, a delimiter or line end. Linear: nothing backtracks."""
    if not dialect.quote:
        return re.compile(b"(?s:.*+)")
    quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
    doubled = b"(?:" + quote + quote + b"[^" + quote + b"]*+)*+" if dialect.escape == dialect.quote else b""
    field = quote + b"[^" + quote + b"]*+" + doubled + quote
    start, end = b"(?<![^" + delimiter + b"\r\n])", b"(?![^" + delimiter + b"\r\n])"
    return re.compile(b"[^" + quote + b"]*+(?:" + start + field + end + b"[^" + quote + b"]*+|)*+")


class LineEnd(Enum):
    """What the first record of a file ends in."""

    LF = b"\n"
    CRLF = b"\r\n"
    CR = b"\r"

    @classmethod
    def of(cls, record: bytes) -> LineEnd:
        """That of a record, which has one."""
        return next(end for end in (cls.CRLF, cls.LF, cls.CR) if record.endswith(end.value))

    @property
    def last_byte(self) -> bytes:
        """What every record ends in."""
        return self.value[-1:]


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        fields: each field's bytes; None is NULL.
        start, end: its place in the text that was read, line end left out and counted in `end`.
        closed: False when the text ended inside quotes.
        stray: the first CR or LF outside quotes that does not end a line.
    """

    fields: list[bytes | None]
    start: int
    end: int
    closed: bool
    stray: bytes = b""


def whole_records(text: bytes, dialect: ByteDialect, line_end: LineEnd | None, width: int) -> Iterator[Record]:
    """The records of `text`, which starts at a record's start. What a LF divides, where lines end in CRLF, is one.

    `width` is how many fields each should have.
    """
    if line_end is not LineEnd.CRLF or text.count(b"\n") == text.count(b"\r\n"):
        yield from records(text, dialect, line_end)
        return
    whole = last = None
    for record in records(text, dialect, line_end):
        if whole is not None and last is not None and is_divided(text, last, record, width):
            whole = Record(whole.fields, whole.start, record.end, record.closed, b"\n")
        else:
            if whole is not None:
                yield whole
            whole = record
        last = record
    if whole is not None:
        yield whole


def is_divided(text: bytes, before: Record, behind: Record, width: int) -> bool:
    """Whether, where lines end in CRLF, the LF between two records may be one inside a field."""
    if text.endswith(b"\r\n", before.start, before.end) or not text.endswith(b"\n", before.start, before.end):
        return False
    return width == 1 or len(before.fields) != width or len(behind.fields) != width


def records(text: bytes, dialect: ByteDialect, line_end: LineEnd | None = None) -> Iterator[Record]:
    """The records of `text`, which starts at a record's start. Until somebody knows how lines end, any end is one."""
    special = b"".join(map(re.escape, (dialect.delimiter, dialect.quote, b"\r", b"\n")))
    plain, quoted = re.compile(b"[" + special + b"]"), _quoted_text(dialect)
    blank = blank_lines(dialect, line_end) if dialect.skip_blank else None
    position = 0
    while position < len(text):
        if blank is not None and (match := blank.match(text, position)) is not None:
            position = match.end()
            continue
        record = _record(text, position, dialect, plain, quoted, line_end)
        yield record
        position = record.end


def blank_lines(dialect: ByteDialect, line_end: LineEnd | None) -> re.Pattern[bytes]:
    """One or more whole lines with nothing on them but spaces and tabs. It is to match at the start of a line only."""
    space = b"[" + b" \t".replace(dialect.delimiter, b"") + b"]*+"
    end = {LineEnd.CR: b"\r", None: b"(?:\r\n|\r|\n)"}.get(line_end, b"\r?+\n")
    lines = space + end + b"(?:" + space + end + b"|)*+"
    return re.compile(lines + b"(?:" + space + rb"\Z)?|" + space.removesuffix(b"*+") + rb"++\Z")


def may_have_blank_lines(text: bytes) -> bool:
    """Whether a line may begin with a space, a tab or its end, which few lines do."""
    starts = (b"\n", b"\r", b" ", b"\t")
    return text.startswith(starts) or any(
        end + start in text for end in (b"\n", b"\r") for start in starts if end + start != b"\r\n"
    )


def _quoted_text(dialect: ByteDialect) -> re.Pattern[bytes]:
    """Up to the closing quote, in one match, so that a field of 100 MB costs no more than that. Nothing backtracks."""
    if not dialect.quote:
        return re.compile(b"")
    quote, escape = re.escape(dialect.quote), re.escape(dialect.escape)
    plain = b"[^" + quote + escape + b"]*+"
    if dialect.escape == dialect.quote:
        return re.compile(plain + b"(?:" + quote + quote + plain + b")*+")
    return re.compile(plain + b"(?:" + escape + b"[" + quote + escape + b"]?+" + plain + b")*+")


def _unescaped(text: bytes, dialect: ByteDialect) -> bytes:
    quote, escape = dialect.quote, dialect.escape
    if escape == quote:
        return text.replace(quote + quote, quote)
    # From left to right: of two escapes the second is none.
    return escape.join(part.replace(escape + quote, quote) for part in text.split(escape + escape))


def _record(
    text: bytes, start: int, dialect: ByteDialect, plain: re.Pattern[bytes], quoted: re.Pattern[bytes],
    line_end: LineEnd | None,
) -> Record:  # fmt: skip
    fields: list[bytes | None] = []
    parts: list[bytes] = []
    stray = b""
    saw_quote = False
    position = start

    def end_field() -> None:
        nonlocal saw_quote
        value = b"".join(parts).strip() if dialect.trim else b"".join(parts)
        fields.append(None if not saw_quote and value in dialect.nulls else value)
        parts.clear()
        saw_quote = False

    while True:
        match = plain.search(text, position)
        if match is None:
            parts.append(text[position:])
            end_field()
            return Record(fields, start, len(text), closed=True, stray=stray)
        parts.append(text[position : match.start()])
        position = match.end()
        found = match.group()
        if found == dialect.delimiter:
            end_field()
        elif found == dialect.quote:
            saw_quote = True
            behind = cast("re.Match[bytes]", quoted.match(text, position)).end()  # it always matches, maybe nothing
            parts.append(_unescaped(text[position:behind], dialect))
            position = behind + 1
            if behind == len(text):
                end_field()
                return Record(fields, start, len(text), closed=False, stray=stray)
        elif end := _line_end_at(text, match.start(), line_end):
            end_field()
            return Record(fields, start, end, closed=True, stray=stray)
        else:
            parts.append(found)
            stray = stray or found


def _line_end_at(text: bytes, place: int, line_end: LineEnd | None) -> int:
    """The place behind the line that ends with this CR or LF; 0 if it ends none."""
    if text[place : place + 1] == b"\n":
        return 0 if line_end is LineEnd.CR else place + 1
    if line_end is LineEnd.CR:
        return place + 1
    if text[place + 1 : place + 2] == b"\n":
        return place + 2
    return place + 1 if line_end is None else 0


def may_be_stray(text: bytes, quote: bytes, line_end: LineEnd | None, width: int) -> bool:
    """Whether a line end outside quotes, which all stand where RFC 4180 puts them, is none, or may divide a field."""
    if line_end is LineEnd.LF and text.count(b"\r") == text.count(b"\r\n"):
        return False
    outside = quote.join(text.split(quote)[::2]) if quote and quote in text else text
    lone_cr = outside.count(b"\r") != outside.count(b"\r\n")
    if line_end is LineEnd.CR:
        return b"\n" in outside
    return lone_cr or (line_end is LineEnd.CRLF and width == 1 and outside.count(b"\n") != outside.count(b"\r\n"))


# Quotes to look behind, one by one, for the last line end outside of them: more than the longest line has of them.
WALKED_QUOTES = 5000


class RecordEnds:
    """Finds the last place behind a record in text that grows, without looking at any of it twice.

    Attributes:
        inside: whether the text ends in quotes.
        seen: how much of the text is known to hold no record's end.
    """

    def __init__(self, dialect: ByteDialect, line_end: LineEnd | None = None, walked: int = WALKED_QUOTES) -> None:
        self._dialect = dialect
        self._walked = walked
        self._line_end = (line_end or LineEnd.LF).last_byte
        # Where the character stands that an escape is before, until that has been passed.
        self._escaped = -1
        self.inside = False
        self.seen = 0
        if not dialect.quote:
            return
        quote, escape = re.escape(dialect.quote), re.escape(dialect.escape)
        self._special = re.compile(b"[" + quote + escape + b"]")
        self._quoted_text = _quoted_text(dialect)
        # Up to a quote that is not closed; up to that or a line end outside quotes.
        field = quote + self._quoted_text.pattern + quote
        plain, plain_line = b"[^" + quote + b"]*+", b"[^" + quote + self._line_end + b"]*+"
        self._closed = re.compile(plain + b"(?:" + field + plain + b"|)*+")
        self._one_line = re.compile(plain_line + b"(?:" + field + plain_line + b"|)*+")

    def restart(self) -> None:
        """The text that follows begins with a record."""
        self._escaped, self.inside, self.seen = -1, False, 0

    def last(self, text: bytes) -> int:
        """The place behind the last line end outside quotes; 0 if there is none.

        After a 0 the next `text` is this one with more behind it, else what is behind the place.
        """
        if not self._dialect.quote:
            place = self._behind_line_end(text, self.seen, len(text))
        elif self._dialect.escape == self._dialect.quote:
            place = self._last_by_quotes(text)
        else:
            place = self._last_by_state(text)
        if place:
            self.restart()
        else:
            self.seen = len(text)
        return place

    def _last_by_quotes(self, text: bytes) -> int:
        """Quotes alone tell: behind an odd number of them is inside. Going back from the end, one is soon found."""
        was_inside = self.inside
        self.inside = was_inside ^ bool(text.count(self._dialect.quote, self.seen) % 2)
        place = self._walk_back(text, self.seen, len(text), self.inside, self._walked)
        if place is not None:
            return place
        # So many quotes and no line end outside them: long fields, which are passed over in one match.
        start = self.seen
        if was_inside:
            start = cast("re.Match[bytes]", self._quoted_text.match(text, start)).end() + 1
            if start > len(text):
                return 0
        first = cast("re.Match[bytes]", self._one_line.match(text, start)).end()
        if text[first : first + 1] != self._line_end:
            return 0
        open_quote = cast("re.Match[bytes]", self._closed.match(text, first)).end()
        return self._walk_back(text, start, open_quote, False, len(text)) or 0

    def _walk_back(self, text: bytes, start: int, end: int, inside: bool, quotes: int) -> int | None:
        """The place behind the last line end outside quotes in `text[start:end]`; None after so many quotes."""
        while quotes:
            earlier = text.rfind(self._dialect.quote, start, end)
            if not inside and (place := self._behind_line_end(text, max(earlier, start), end)):
                return place
            if earlier < 0:
                return 0
            inside, end = not inside, earlier
            quotes -= 1
        return None

    def _last_by_state(self, text: bytes) -> int:
        """With an escape character of its own, a quote counts or not by what stands before it."""
        quote, escape = self._dialect.quote, self._dialect.escape
        place, outside_from = 0, self.seen
        for match in self._special.finditer(text, self.seen):
            if match.start() == self._escaped:
                continue
            if self.inside and match.group() == escape:
                self._escaped = match.end()
            elif match.group() == quote:
                if not self.inside:
                    place = self._behind_line_end(text, outside_from, match.start()) or place
                self.inside = not self.inside
                outside_from = match.end()
        if not self.inside:
            place = self._behind_line_end(text, outside_from, len(text)) or place
        return place

    def _behind_line_end(self, text: bytes, start: int, end: int) -> int:
        """The place behind the last line end in `text[start:end]`; 0 if there is none."""
        return text.rfind(self._line_end, start, end) + 1


def line_ends(text: bytes, start: int = 0, end: int | None = None) -> int:
    """How many physical lines end in `text[start:end]`; LF, CRLF and CR each end one."""
    count = text.count(b"\n", start, end)
    if text.find(b"\r", start, end) >= 0:
        count += text.count(b"\r", start, end) - text.count(b"\r\n", start, end)
    return count


def field_texts(text: bytes, dialect: ByteDialect) -> list[bytes]:
    """The fields of one record just as they are written, quotes and all."""
    special = re.compile(b"[" + re.escape(dialect.delimiter) + re.escape(dialect.quote) + b"]")
    quoted = _quoted_text(dialect)
    fields, start, position = [], 0, 0
    while (match := special.search(text, position)) is not None:
        position = match.end()
        if match.group() == dialect.delimiter:
            fields.append(text[start : match.start()])
            start = position
        else:
            position = cast("re.Match[bytes]", quoted.match(text, position)).end() + 1
    return [*fields, text[start:]]


def csv_record(fields: Iterable[str | None]) -> bytes:
    """A record in COPY's own dialect: NULL is nothing, and all else stands in quotes."""
    return ",".join("" if field is None else '"' + field.replace('"', '""') + '"' for field in fields).encode()


def without_line_end(text: bytes, line_end: LineEnd | None = None) -> bytes:
    """A record without the line end behind it: LF or CRLF, or CR where lines end in that or nobody knows."""
    if text.endswith(b"\n"):
        return text[:-1].removesuffix(b"\r")
    return text.removesuffix(b"\r") if line_end in {LineEnd.CR, None} else text
