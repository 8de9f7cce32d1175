"""The dialect of a CSV source as bytes, and whether its characters can be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.sources.csv.records import ByteDialect
from harborctl.sources.encodings import codec_of

if TYPE_CHECKING:
    from harborctl.model import CsvDialect


def byte_dialect(dialect: CsvDialect) -> ByteDialect:
    """The dialect's characters as bytes.

    Raises:
        UsageError: they cannot be told apart, or are not one byte each.
    """
    codec_of(dialect.encoding)
    escape = dialect.quote if dialect.escape is None else dialect.escape
    characters = [("delimiter", dialect.delimiter), ("quote", dialect.quote), ("escape", escape)]
    if not dialect.quote and escape:
        raise UsageError("--escape means nothing without quotes", code="bad_dialect", hint="Leave it out.")
    for option, character in characters if dialect.quote else characters[:1]:
        if len(character.encode()) != 1 or character in "\r\n":
            raise UsageError(f"--{option} takes one single-byte character, not {character!r}", code="bad_dialect")
    if dialect.delimiter == dialect.quote:
        raise UsageError("--delimiter must differ from --quote", code="bad_dialect")
    if dialect.decimal not in {".", ","}:
        raise UsageError(f"--decimal takes a point or a comma, not {dialect.decimal!r}", code="bad_dialect")
    if dialect.force_not_null and len(dialect.nulls) > 1:
        raise UsageError(
            "--force-not-null keeps the text that is NULL elsewhere, and --null names several",
            code="bad_dialect",
            hint="Say --null once.",
        )
    for null in dialect.nulls:
        special = (dialect.delimiter, *dialect.quote, "\r", "\n")
        if any(character in null for character in special):
            raise UsageError("--null must not contain the delimiter, the quote or a line end", code="bad_dialect")
    return ByteDialect(
        dialect.delimiter.encode(),
        dialect.quote.encode(),
        escape.encode(),
        # Between white space that is left out there is no spelling that begins or ends with some.
        frozenset(null for null in (n.encode() for n in dialect.nulls) if not dialect.trim or null == null.strip()),
        dialect.trim,
        dialect.skip_blank_lines,
    )
