"""Looks at the start of a text file, and says by which options it is read: dialect, encoding and header.

Only where somebody asks for it. What is found is a guess, told as the options that say the same.
"""

from __future__ import annotations

import codecs
import csv
import re
import shlex
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.model import CsvDialect, SourceFormat
from harborctl.sources.files import open_content, open_hashed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.sources.files import SourceFile

# So much of a file is looked at, and so many of its lines.
START_BYTES = 256 * 1024
MOST_LINES = 200

DELIMITERS = (",", ";", "\t", "|", ":", "~", " ")

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What Excel takes for the delimiter, whatever its language.
_SEPARATOR = re.compile(r"(?i)sep=(.)\s*")
_NUMBER = re.compile(r"[-+]?(\d+|\d{1,3}([.,' ]\d{3})+)([.,]\d+)?([eE][-+]?\d+)?\s*[%€$£]?")
_MOMENT = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?|\d{1,2}:\d{2}(:\d{2}.*)?")
_WORD = re.compile(r"(?i)true|false|yes|no|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COMMA_DECIMAL = re.compile(r"-?\d+,\d+")
_POINT_DECIMAL = re.compile(r"-?\d*\.\d+")


@dataclass(frozen=True, slots=True)
class Detected:
    """What a file seems to be written in.

    Attributes:
        options: as they are said on a command line, only what is not the default.
    """

    dialect: CsvDialect
    options: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.options) or "COPY's CSV with a header, in UTF-8"


def detect(file: SourceFile, given: CsvDialect) -> Detected:
    """Settle what `given` leaves as by default.

    Raises:
        UsageError: it can be read only once.
        SourceError: it cannot be read.
    """
    if file.format not in {SourceFormat.CSV, SourceFormat.TSV}:
        return Detected(given, ())
    if file.path is None:
        raise UsageError(
            f"--detect reads the start of a source twice, and {file.name} can be read only once",
            code="read_once",
            hint="Save it to a file first.",
        )
    with closing(open_hashed(file, hashes=False)) as raw:
        content = open_content(raw, file)
        start = b""
        while len(start) < START_BYTES and (data := content.read(START_BYTES)):
            start += data
    said = set(given.given())
    encoding = given.encoding if "encoding" in said else encoding_of(start, cut=len(start) >= START_BYTES)
    lines = _lines(start, encoding, cut=len(start) >= START_BYTES)
    found = replace(given, encoding=encoding)
    if not {"delimiter", "skip_lines"} & said and (named := _SEPARATOR.fullmatch(lines[0] if lines else "")):
        found, said, lines = replace(found, delimiter=named[1]), {*said, "delimiter"}, lines[1:]
        before = 1
    else:
        before = 0
    quote = found.quote if "quote" in said else _quote(lines)
    found = replace(found, quote=quote)
    if "delimiter" not in said:
        usual = "\t" if file.format is SourceFormat.TSV else ","
        found = replace(found, delimiter=_delimiter(lines, quote, usual))
    rows = _rows(lines, found)
    width = _width(rows)
    if "skip_lines" not in said:
        first = next((number for number, row in enumerate(rows) if len(row) == width), 0)
        found = replace(found, skip_lines=before + (first if width > 1 else 0))
    rows = [row for row in rows[found.skip_lines - before :] if len(row) == width]
    if not {"header", "columns"} & said:
        found = replace(found, header=_has_header(rows))
    if "decimal" not in said and found.delimiter != ",":
        found = replace(found, decimal=_decimal(rows[found.header :]))
    return Detected(found, _options(found, given, file.format))


def encoding_of(start: bytes, *, cut: bool = False) -> str:
    """The encoding of a text that begins so. What is neither Unicode nor ASCII is taken for cp1252, which most of the
    other files in the West are in."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    zeros = start[:1000].count(b"\0")
    if zeros > len(start[:1000]) // 4:
        return "utf-16-le" if not any(start[1:64:2]) else "utf-16-be"
    try:
        start[: len(start) - 3 if cut else len(start)].decode()
    except UnicodeDecodeError as error:
        if cut and error.start >= len(start) - 6:
            return "utf-8"
        try:
            start.decode("cp1252")
        except UnicodeDecodeError:
            return "latin-1"
        return "cp1252"
    return "utf-8"


def _lines(start: bytes, encoding: str, *, cut: bool) -> list[str]:
    text = start.decode(encoding, errors="replace").removeprefix("\ufeff")
    lines = text.splitlines()
    return (lines[:-1] if cut and len(lines) > 1 else lines)[:MOST_LINES]


def _quote(lines: Sequence[str]) -> str:
    """A single quote only where fields stand in some, and none in double ones."""
    text = "\n".join(lines)
    single = len(re.findall(r"(?m)(?:^|[,;\t|])'[^'\n]*'(?=[,;\t|]|$)", text))
    double = len(re.findall(r'(?m)(?:^|[,;\t|])"', text))
    return "'" if single > 2 * len(lines) // 3 and not double else '"'


def _rows(lines: Sequence[str], dialect: CsvDialect) -> list[list[str]]:
    reader = csv.reader(
        [line + "\n" for line in lines],
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
    )
    try:
        return list(reader)
    except csv.Error:
        return [line.split(dialect.delimiter) for line in lines]


def _width(rows: Sequence[Sequence[str]]) -> int:
    """How many fields most rows have."""
    widths = Counter(len(row) for row in rows if row)
    return max(widths, key=lambda width: (widths[width], width), default=1)


def _delimiter(lines: Sequence[str], quote: str, usual: str) -> str:
    """What divides most lines into as many fields; of several the one that makes more of them, then the usual one."""
    best, score = usual, (0.0, 0, False)
    for sign in dict.fromkeys([usual, *DELIMITERS]):
        rows = [row for row in _rows(lines, CsvDialect(delimiter=sign, quote=quote)) if any(row)]
        width = _width(rows)
        if width < 2:
            continue
        if sign == " " and not all(_is_value(field) for row in rows[1:] for field in row):
            continue  # words have spaces between them
        share = sum(len(row) == width for row in rows) / len(rows)
        # A time of day has colons, and a decimal comma stands in many fields.
        likely = round(share, 1) - (0.3 if sign in ":~" else 0)
        if (likely, width, sign == usual) > score:
            best, score = sign, (likely, width, sign == usual)
    return best


def _is_value(text: str) -> bool:
    text = text.strip()
    return any(kind.fullmatch(text) is not None for kind in (_NUMBER, _MOMENT, _WORD))


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """A first row with a value in it that is no name has none; one like the others neither, if these are values."""
    if not rows:
        return True
    first, others = rows[0], rows[1:]
    if any(_is_value(field) for field in first if field):
        return False
    if any(any(_is_value(field) for field in row) for row in others[:20]):
        return True
    named = [field.strip().lower() for field in first]
    return "" not in named[:-1] and len(set(named)) == len(named)


def _decimal(rows: Sequence[Sequence[str]]) -> str:
    """A comma where numbers have one, and none has a point."""
    fields = [field.strip() for row in rows for field in row]
    commas = any(_COMMA_DECIMAL.fullmatch(field) for field in fields)
    points = any(_POINT_DECIMAL.fullmatch(field) for field in fields)
    return "," if commas and not points else "."


def _options(found: CsvDialect, given: CsvDialect, source_format: SourceFormat) -> tuple[str, ...]:
    said: list[str] = []
    if found.delimiter != given.delimiter and not (source_format is SourceFormat.TSV and found.delimiter == "\t"):
        said += ["--delimiter", "tab" if found.delimiter == "\t" else found.delimiter]
    for option, name in (("--quote", "quote"), ("--encoding", "encoding"), ("--decimal", "decimal")):
        if getattr(found, name) != getattr(given, name):
            said += [option, getattr(found, name)]
    if found.skip_lines != given.skip_lines:
        said += ["--skip-lines", str(found.skip_lines)]
    if found.header != given.header:
        said.append("--no-header")
    return tuple(said)
