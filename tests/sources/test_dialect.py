"""What COPY has no option for, against a model that reads a file line by line and field by field; both ways of reading.

HARBORCTL_TEST_ORACLE_EXAMPLES=2000 asks for more examples than every day has.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harborctl.errors import BadRow, HarborctlError, SourceError, UsageError
from harborctl.model import CsvDialect, ExtraFields, ShortRows, SourceFormat
from harborctl.sources.csv.source import CsvSource
from harborctl.sources.encodings import codec_of
from harborctl.sources.files import find_files
from harborctl.sources.footer import Footer, WithoutFooter
from harborctl.sources.splits import divisible
from tests.load.sizes import ORACLE_EXAMPLES

Row = list[str | None]


@dataclass
class Rows:
    """What a reader made of a file: rows with their lines, and the lines of those that are bad."""

    good: list[tuple[int, Row]]
    bad: list[int]


def lines_of(text: str) -> list[tuple[int, str]]:
    """Physical lines without their ends, numbered from 1."""
    found = re.findall(r"([^\r\n]*)(\r\n|\r|\n|\Z)", text)
    lines = [line for line, end in found if line or end]
    return list(enumerate(lines, 1))


def fields_of(line: str, dialect: CsvDialect) -> list[tuple[str, bool]] | None:
    """Each field's text, and whether it had a quote; None if a quote is not closed. No field has a line end here."""
    fields, text, quoted, inside = list[tuple[str, bool]](), "", False, False
    place = 0
    while place < len(line):
        one = line[place]
        if dialect.quote and one == dialect.quote:
            if inside and line[place + 1 : place + 2] == one:
                text += one
                place += 1
            else:
                inside, quoted = not inside, True
        elif one == dialect.delimiter and not inside:
            fields.append((text, quoted))
            text, quoted = "", False
        else:
            text += one
        place += 1
    return None if inside else [*fields, (text, quoted)]


def model(text: str, dialect: CsvDialect, width: int) -> Rows:
    """The rows of a file without a header."""
    lines = lines_of(text)
    blanks = "".join(one for one in " \t" if one != dialect.delimiter)

    def is_blank(line: str) -> bool:
        return dialect.skip_blank_lines and not line.strip(blanks)

    left = dialect.skip_footer
    while lines and left:
        left -= not is_blank(lines.pop()[1])
    rows = Rows([], [])
    for number, line in lines:
        if is_blank(line):
            continue
        fields = fields_of(line, dialect)
        assert fields is not None
        row: Row = []
        for value, quoted in fields:
            shown = value.strip(" \t\n\r\v\f") if dialect.trim else value
            row.append(None if not quoted and shown in dialect.nulls else shown)
        if len(row) < width and dialect.short_rows is ShortRows.NULL:
            row += [None] * (width - len(row))
        if len(row) > width and dialect.extra_fields is ExtraFields.IGNORE:
            row = row[:width]
        if len(row) == width:
            rows.good.append((number, row))
        else:
            rows.bad.append(number)
    return rows


def read(path: Path, dialect: CsvDialect, block: int | None = None, *, split: tuple[int, int] | None = None) -> Rows:
    """The same by the reader that loads use."""
    file = find_files([str(path)], SourceFormat.CSV)[0]
    source: Any = CsvSource(file, dialect, block_bytes=block)
    if split is not None:
        source.close()
        source = divisible(file, source, dialect).open(*split)
    rows = Rows([], [])

    def take(error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
        assert error.location is not None
        rows.bad.append(error.location.line)

    try:
        for batch in source.batches(range(len(source.schema)), malformed=take):
            for number, row in enumerate(batch.records.to_pylist()):
                rows.good.append((batch.line_of(number), list(row.values())))
    finally:
        source.close()
    return rows


PLAIN = st.sampled_from(["", "1", "ab", " ", "\t", " a", "b\t ", "NA", " NA ", "é", "x y", "\x0b"])
QUOTED = st.sampled_from(['""', '" "', '"a;b"', '"NA"', '" NA"', '"q""q"', 'x"y;z"', ' "a" ', '"a" '])
NOT_CLOSED = st.sampled_from(['"', 'a"b', "'"])


@st.composite
def examples(draw: st.DrawFn) -> tuple[str, CsvDialect]:
    """A file of three columns without a header, whose fields hold no line ends, and a dialect."""
    dialect = CsvDialect(
        delimiter=draw(st.sampled_from([";", "\t", "|"])),
        quote=draw(st.sampled_from(['"', '"', ""])),
        nulls=draw(st.sampled_from([("",), ("NA",), ("", "NA"), (" ",)])),
        header=False,
        columns=("a", "b", "c"),
        skip_footer=draw(st.sampled_from([0, 0, 1, 3])),
        skip_blank_lines=draw(st.booleans()),
        trim=draw(st.booleans()),
        short_rows=draw(st.sampled_from(ShortRows)),
        extra_fields=draw(st.sampled_from(ExtraFields)),
    )
    field = st.one_of(PLAIN, PLAIN, QUOTED, *([NOT_CLOSED] if not dialect.quote else []))
    width = st.sampled_from([3, 3, 3, 3, 1, 2, 4])
    plain = draw(st.booleans())
    usual = st.lists(PLAIN if plain else field, min_size=3, max_size=3)
    line = st.one_of(usual, width.flatmap(lambda n: st.lists(PLAIN if plain else field, min_size=n, max_size=n)))
    record = st.one_of(line.map(dialect.delimiter.join), st.sampled_from(["", " ", "\t", " \t "]))
    if dialect.quote:
        record = record.filter(lambda text: fields_of(text, dialect) is not None)
    end = draw(st.sampled_from(["\n", "\r\n"]))
    body = draw(st.lists(record, max_size=12))
    first = dialect.delimiter.join("123")
    return end.join([first, *body]) + draw(st.sampled_from(["", end])), dialect


@pytest.mark.parametrize("block", [8, 64, 512 * 1024])
@settings(
    max_examples=max(ORACLE_EXAMPLES, 60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=examples())
@example(("a;b;c\n\n \n1;2;3\nTOTAL\n\n", CsvDialect(";", header=False, skip_footer=1, skip_blank_lines=True)))
@example((" 1 ; NA ;\n", CsvDialect(";", header=False, trim=True, nulls=("NA",))))
def test_rows_and_their_lines_are_those_of_the_model(tmp_path: Path, block: int, case: tuple[str, CsvDialect]) -> None:
    text, dialect = case
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    found = read(path, dialect, block)
    expected = model(text, dialect, 3)
    assert (found.good, found.bad) == (expected.good, expected.bad)


@settings(max_examples=max(ORACLE_EXAMPLES, 40), deadline=None)
@given(
    text=st.lists(st.sampled_from(["a", "bc", "\n", "\r\n", "\r", " ", "\n\n"]), max_size=20).map("".join),
    lines=st.integers(1, 4),
    blank=st.sampled_from([None, b" \t"]),
    size=st.integers(1, 7),
)
def test_a_footer_is_left_out_of_a_stream_as_of_a_file(text: str, lines: int, blank: bytes | None, size: int) -> None:
    data = text.encode()
    footer = Footer(lines, blank)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]

    class Stream:
        def read(self, _: int, /) -> bytes:
            return pieces.pop(0) if pieces else b""

    stream, kept = WithoutFooter(Stream(), footer), b""
    while part := stream.read(size):
        kept += part
    numbered = lines_of(text)
    left = lines
    while numbered and left:
        line = numbered.pop()[1]
        left -= blank is None or line.strip() != ""
    assert lines_of(kept.decode()) == numbered
    assert footer.start(data) == len(kept)


def test_the_splits_of_a_file_end_before_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = "".join(f"{n};{n * n}\n" for n in range(20_000))
    path.write_text("a;b\n" + rows + "TOTAL;20000\n" + "x" * 200_000 + "\n")
    dialect = CsvDialect(";", skip_footer=2)
    file = find_files([str(path)], SourceFormat.CSV)[0]
    source = CsvSource(file, dialect)
    cuts = divisible(file, source, dialect)
    source.close()
    places = list(cuts.cuts(cuts.head, cuts.end, rows=6000, size=0))
    assert [rows for _, _, rows in places] == [6000, 6000, 6000, None]
    found = [row for start, end, _ in places for row in read(path, dialect, split=(start, end)).good]
    assert found == [(n + 2, [str(n), str(n * n)]) for n in range(20_000)]


MAGIC = {
    b"\x1f\x8b\x08\x00\x00\x00": ("gzip", "zcat <"),
    b"PK\x03\x04\x14\x00": ("zip", "ends in .zip"),
    b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml": ("Excel", "--format xlsx"),
    b"PAR1\x15\x04": ("Parquet", "--format parquet"),
    b"ARROW1\x00\x00": ("Arrow", "--format arrow"),
    "id,name\n1,x\n".encode("utf-16"): ("UTF-16", "--encoding utf-16."),
    "id,name\n1,x\n".encode("utf-16-le"): ("UTF-16", "--encoding utf-16-le"),
    "id,name\n1,x\n".encode("utf-16-be"): ("UTF-16", "--encoding utf-16-be"),
}


@pytest.mark.parametrize("start", MAGIC, ids=[what for what, _ in MAGIC.values()])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_what_is_no_csv_is_known_by_its_first_bytes(tmp_path: Path, start: bytes, encoding: str) -> None:
    (tmp_path / "x.csv").write_bytes(start + bytes(range(200)))
    with pytest.raises(SourceError) as refused:
        CsvSource(find_files([str(tmp_path / "x.csv")], None)[0], CsvDialect(encoding=encoding))
    what, hint = MAGIC[start]
    assert what in refused.value.message
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    "text", ["BZh9,a\n1,2\n", "PAR1,b\n1,2\n", "ARROW1,b\n1,2\n", "PK,b\n1,2\n", "i\n1\n", "ÿþ,b\n1,2\n"]
)
def test_csv_that_begins_like_something_else_is_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert read(tmp_path / "x.csv", CsvDialect()).bad == []


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("WIN1252", "cp1252"),
        ("windows-1252", "cp1252"),
        ("koi8r", "koi8_r"),
        ("LATIN9", "latin9"),
        ("ISO_8859_5", "iso8859_5"),
        ("UNICODE", "utf-8"),
        ("Shift_JIS", "cp932"),
        ("utf-16", "utf-16"),
        ("cp037", "cp037"),
    ],
)
def test_encodings_have_the_names_of_postgresql_and_of_python(name: str, codec: str) -> None:
    assert codec_of(name) == codec


@pytest.mark.parametrize(
    ("name", "hint"),
    [("WIN1522", "WIN1252"), ("latn1", "LATIN1"), ("base64", "utf-8"), ("EUC_TW", "EUC_"), ("undefined", "utf-8")],
)
def test_an_unknown_encoding_is_told_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        codec_of(name)
    assert hint in (refused.value.hint or "")


def test_a_ragged_record_is_shown_with_its_own_delimiter(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a;b\n1;2;3\n")
    source = CsvSource(find_files([str(tmp_path / "x.csv")], None)[0], CsvDialect(";"))
    with closing(source), pytest.raises(HarborctlError) as refused:
        list(source.batches([0, 1]))
    assert refused.value.value == "1;2;3"
