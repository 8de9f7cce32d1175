"""Our reading of CSV against COPY's own, on text that breaks rules as often as it keeps them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from harborctl.errors import BadRow, Location, SourceError, UsageError
from harborctl.model import CsvDialect, SourceFormat
from harborctl.sources.csv.records import (
    ByteDialect,
    LineEnd,
    RecordEnds,
    blank_lines,
    line_ends,
    plain_quoting,
    records,
)
from harborctl.sources.csv.source import CsvSource
from harborctl.sources.files import SourceFile
from tests.load.sizes import FIELD_BYTES, ORACLE_EXAMPLES

COLUMNS = 2

Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def oracle(server_url: str) -> Any:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE oracle (a text, b text)")
        yield connection


def copied(connection: psycopg.Connection[Any], text: bytes, dialect: CsvDialect) -> Rows | None:
    """What COPY makes of `text`; None if it refuses."""
    connection.execute("TRUNCATE oracle")
    options = sql.SQL("FORMAT csv, DELIMITER {}, QUOTE {}, ESCAPE {}, NULL {}").format(
        dialect.delimiter, dialect.quote, dialect.escape or dialect.quote, dialect.nulls[0]
    )
    try:
        with connection.cursor().copy(sql.SQL("COPY oracle FROM STDIN ({})").format(options)) as copy:
            copy.write(text)
    except psycopg.DataError:
        return None
    return connection.execute("SELECT a, b FROM oracle").fetchall()


def read(path: Path, dialect: CsvDialect, block: int | None = None) -> Rows | None:
    """What our source makes of the file; None if it refuses."""
    try:
        source = source_of(path, dialect, block)
    except BadRow:
        return None
    try:
        if len(source.schema) != COLUMNS:
            return None if source.schema.names else []
        rows = [(row["0"], row["1"]) for batch in source.batches([0, 1]) for row in batch.records.to_pylist()]
    except BadRow:
        return None
    finally:
        source.close()
    return rows


fields = st.text(alphabet='ab"\\,;\n é', max_size=4)
lines = st.lists(st.tuples(fields, fields).map(",".join), max_size=5).map("\n".join)
well_formed = st.lists(
    st.tuples(fields, fields).map(lambda row: ",".join('"' + field.replace('"', '""') + '"' for field in row)),
    max_size=5,
).map("\n".join)
dialects = st.builds(
    CsvDialect,
    delimiter=st.sampled_from([",", ";"]),
    quote=st.sampled_from(['"', "'"]),
    escape=st.sampled_from([None, "\\", ","]),
    nulls=st.sampled_from([("",), ("a",)]),
    header=st.just(False),
)


@given(text=st.one_of(lines, well_formed), dialect=dialects)
@example(text='a""b,c', dialect=CsvDialect(header=False))
@example(text='"a"b"c,d",e', dialect=CsvDialect(header=False))
@example(text='"a\n"",b",c\n,""', dialect=CsvDialect(header=False))
@example(text=",\n\n,", dialect=CsvDialect(header=False))
@example(text='"a\\"",b', dialect=CsvDialect(header=False, escape="\\"))
@example(text="a,b\n\ufeffc,d\n", dialect=CsvDialect(header=False))
@example(text='"",', dialect=CsvDialect(header=False))
@example(text='"","\n', dialect=CsvDialect(header=False))
@example(text='"","\n"', dialect=CsvDialect(header=False))
@example(text=",\n\n", dialect=CsvDialect(header=False, nulls=("a",)))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_text_is_read_as_copy_reads_it(
    oracle: psycopg.Connection[Any], tmp_path: Path, text: str, dialect: CsvDialect
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    assert read(path, dialect) == copied(oracle, text.encode(), dialect)


DEFAULT = ByteDialect(b",", b'"', b'"', frozenset([b""]))


@given(rows=st.lists(st.tuples(fields, fields), min_size=1, max_size=20), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_record_ends_of_every_kind(rows: list[tuple[str, str]], ending: str) -> None:
    quoted = ["".join(('"', a.replace('"', '""'), '","', b.replace('"', '""'), '"')) for a, b in rows]
    text = "".join(row + ending for row in quoted).encode()
    assert [tuple((field or b"").decode() for field in record.fields) for record in records(text, DEFAULT)] == rows


@pytest.mark.parametrize(("text", "count"), [(b"", 0), (b"a\nb\n", 2), (b"a\r\nb\rc\n\r", 4), (b"a", 0)])
def test_line_ends(text: bytes, count: int) -> None:
    assert line_ends(text) == count


def test_blocks_end_at_records_wherever_the_reads_fall(tmp_path: Path) -> None:
    rows = [(str(number), '"x\n,""y""\r\n"' if number % 7 == 0 else f"plain {number}") for number in range(500)]
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows), newline="")
    expected = [(a, 'x\n,"y"\r\n' if b.startswith('"') else b) for a, b in rows]
    for size in (1, 2, 3, 7, 64, 1000):
        source = CsvSource(SourceFile("x.csv", path, SourceFormat.CSV), CsvDialect(), block_bytes=size)
        batches = list(source.batches([0, 1]))
        got = [(row["0"], row["1"]) for batch in batches for row in batch.records.to_pylist()]
        assert got == expected
        lines = [batch.location(row).line for batch in batches for row in range(batch.records.num_rows)]
        text = path.read_bytes().splitlines(keepends=True)
        assert [text[line - 1].split(b",")[0].decode() for line in lines] == [a for a, _ in rows]
        source.close()


def test_a_bom_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    source = CsvSource(SourceFile("x.csv", path, SourceFormat.CSV), CsvDialect())
    assert source.schema.names == ["a", "b"]
    source.close()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("a,b\né,ü\n".encode(encoding))
    source = CsvSource(SourceFile("x.csv", path, SourceFormat.CSV), CsvDialect(encoding=encoding))
    assert [batch.records.to_pylist() for batch in source.batches([0, 1])] == [[{"0": "é", "1": "ü"}]]
    source.close()


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (CsvDialect(delimiter="::"), "--delimiter"),
        (CsvDialect(quote='""'), "--quote"),
        (CsvDialect(quote="", escape="!"), "--escape"),
        (CsvDialect(decimal=";"), "--decimal"),
        (CsvDialect(nulls=("", "NA"), force_not_null=("a",)), "--force-not-null"),
        (CsvDialect(delimiter='"'), "must differ"),
        (CsvDialect(encoding="klingon"), "klingon"),
        (CsvDialect(nulls=("a,b",)), "--null"),
    ],
)
def test_dialects_that_cannot_be(tmp_path: Path, dialect: CsvDialect, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=message):
        CsvSource(SourceFile("x.csv", path, SourceFormat.CSV), dialect)


def test_an_empty_file_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.touch()
    with pytest.raises(SourceError, match="is empty"):
        CsvSource(SourceFile("x.csv", path, SourceFormat.CSV), CsvDialect())


# -- where records end, in text that comes in pieces

ESCAPING = ByteDialect(b",", b'"', b"\\", frozenset([b""]))


def ends_in_pieces(text: bytes, dialect: ByteDialect, sizes: list[int], walked: int) -> tuple[list[int], bool]:
    """Where the text is cut, and whether it ends in quotes."""
    ends, places, cut, pending, position = RecordEnds(dialect, walked=walked), [], 0, b"", 0
    while position < len(text):
        size = sizes[position % len(sizes)]
        pending += text[position : position + size]
        position += size
        if place := ends.last(pending):
            cut += place
            places.append(cut)
            pending = pending[place:]
    ends.last(pending)
    return places, ends.inside


@given(
    text=st.text(alphabet='a",\\\n\r', max_size=40),
    dialect=st.sampled_from([DEFAULT, ESCAPING]),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    walked=st.sampled_from([1, 2, 5000]),
)
@example(text='a,"' + 'x"",\n' * 20 + '"\nb,"c', dialect=DEFAULT, sizes=[7], walked=1)
@example(text='a,b\nc,"' + 'x"",\n' * 20, dialect=DEFAULT, sizes=[200], walked=3)
@example(text='"a\\"\n\\\\"\nb', dialect=ESCAPING, sizes=[3], walked=5000)
def test_text_in_pieces_is_cut_behind_records_only(
    text: str, dialect: ByteDialect, sizes: list[int], walked: int
) -> None:
    places, inside = ends_in_pieces(text.encode(), dialect, sizes, walked)
    found = list(records(text.encode(), dialect, LineEnd.LF))
    ends = [record.end for record in found if record.closed and record.end < len(text)]
    assert set(places) <= {*ends, len(text)}
    assert inside == (bool(found) and not found[-1].closed)
    # Nothing is kept back but the last record.
    assert max([0, *places]) >= max([0, *ends])


# -- large and broken files


def source_of(path: Path, dialect: CsvDialect | None = None, block: int | None = None) -> CsvSource:
    return CsvSource(SourceFile(str(path), path, SourceFormat.CSV), dialect or CsvDialect(), block_bytes=block)


def rows_of(source: CsvSource) -> list[list[str | None]]:
    columns = list(range(len(source.schema)))
    rows = [list(row.values()) for batch in source.batches(columns) for row in batch.records.to_pylist()]
    source.close()
    return rows


@pytest.mark.parametrize("part", ["x", 'x"",\r\n'], ids=["plain", "quotes and line ends"])
def test_a_field_of_many_megabytes(tmp_path: Path, part: str) -> None:
    path = tmp_path / "x.csv"
    field = part * (FIELD_BYTES // len(part))
    path.write_text(f'a,b\n1,"{field}"\n2,y\n', newline="")
    assert rows_of(source_of(path)) == [["1", field.replace('""', '"')], ["2", "y"]]


def test_the_line_behind_a_field_of_many_megabytes_is_known(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"' + 'x"",\n' * (FIELD_BYTES // 5) + '"\n2\n')
    source = source_of(path)
    with pytest.raises(BadRow, match="missing data for column b") as error:
        rows_of(source)
    assert error.value.location
    assert error.value.location.line == FIELD_BYTES // 5 + 3
    source.close()


@pytest.mark.parametrize("rest", [b"12,some text\n", b'12,"some text"\n'], ids=["no quotes", "quotes"])
@pytest.mark.parametrize("escape", [None, "\\"])
def test_a_quote_that_is_never_closed_costs_no_more_than_the_record(
    tmp_path: Path, rest: bytes, escape: str | None
) -> None:
    path = tmp_path / "x.csv"
    size = 20_000_000 if escape is None else 1_000_000  # of small objects tracing takes its time
    path.write_bytes(b'a,b\n1,x\n2,"x\n' + rest * (size // len(rest)))
    tracemalloc.start()
    try:
        source = source_of(path, CsvDialect(escape=escape))
        with pytest.raises(BadRow, match="never closed") as error:
            rows_of(source)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size
    finally:
        tracemalloc.stop()
    assert error.value.location
    assert error.value.location.line == 3
    source.close()


def test_1600_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    names = [f"c{number}" for number in range(1600)]
    lines = [",".join(f"{row}" for _ in names) for row in range(1000)]
    path.write_text("\n".join([",".join(names), *lines, '"",' * 1599 + "x"]) + "\n")
    rows = rows_of(source_of(path))
    assert len(rows) == 1001
    assert rows[999] == ["999"] * 1600
    assert rows[1000] == [""] * 1599 + ["x"]


def test_line_ends_of_two_kinds_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\r\n1,x\n2,"y\r\n\rz"\n3,\r\n4,w\n5,"v"')
    source = source_of(path)
    batches = list(source.batches([0, 1]))
    rows = [tuple(row.values()) for batch in batches for row in batch.records.to_pylist()]
    assert rows == [("1", "x"), ("2", "y\r\n\rz"), ("3", None), ("4", "w"), ("5", "v")]
    places = [batch.location(row).line for batch in batches for row in range(batch.records.num_rows)]
    assert places == [2, 3, 6, 7, 8]
    source.close()


# Of each file with two columns: what it holds, the rows that are good, and the other records, as they stand there.
STRAYS: dict[str, tuple[bytes, Rows, list[bytes]]] = {
    "CR in a file of LF": (b"a,b\n1,x\ry\n2,z\n", [("2", "z")], [b"1,x\ry"]),
    "CR between records of LF": (b"a,b\n1,x\r2,y\n3,z\n", [("3", "z")], [b"1,x\r2,y"]),
    "CR at the end of a file of LF": (b"a,b\n1,x\n2,z\r", [("1", "x")], [b"2,z\r"]),
    "CR before CRLF": (b"a,b\n1,x\r\r\n2,z\n", [("2", "z")], [b"1,x\r"]),
    "CR in a file of CRLF": (b"a,b\r\n1,x\ry\r\n2,z\r\n", [("2", "z")], [b"1,x\ry"]),
    "LF in the last field": (b"a,b\r\n1,x\ny\r\n2,z\r\n", [("2", "z")], [b"1,x\ny"]),
    "LF in the first field": (b"a,b\r\n1\n2,x\r\n2,z\r\n", [("2", "z")], [b"1\n2,x"]),
    "many LF": (b"a,b\r\n1,x\ny\n\nz\n3,w\n4,v\r\n5,u\n6,t\n", [("4", "v"), ("5", "u"), ("6", "t")],
                [b"1,x\ny\n\nz\n3,w"]),
    "LF at the end": (b"a,b\r\n1,x\r\n2,z\ny\n", [("1", "x")], [b"2,z\ny"]),
    "LF in a file of CR": (b"a,b\r1,x\ny\r2,z\r", [("2", "z")], [b"1,x\ny"]),
    "CRLF in a file of CR": (b"a,b\r1,x\r\n2,y\r3,z\r", [("1", "x"), ("3", "z")], [b"\n2,y"]),
    "only LF behind the header": (b"a,b\r\n1,x\n2,y\n3,z\n4,w", [("1", "x"), ("2", "y"), ("3", "z"), ("4", "w")], []),
    "some CRLF among LF": (b"a,b\n1,x\r\n2,y\n3,z\r\n", [("1", "x"), ("2", "y"), ("3", "z")], []),
    "quoted ones": (b'a,b\r\n1,"x\ny\rz"\r\n2,"\n"\r\n', [("1", "x\ny\rz"), ("2", "\n")], []),
}  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 16, 64, 1000])
@pytest.mark.parametrize("name", STRAYS)
def test_no_line_end_divides_a_record(tmp_path: Path, name: str, block: int) -> None:
    text, good, bad = STRAYS[name]
    (tmp_path / "x.csv").write_bytes(text)
    taken = []

    def take(error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
        assert (error.code, splits) == ("22P04", False)
        assert "unquoted " in error.message
        taken.append(record)

    source = source_of(tmp_path / "x.csv", block=block)
    batches = list(source.batches([0, 1], (), take))
    rows = [tuple(row.values()) for batch in batches for row in batch.records.to_pylist()]
    assert (rows, taken) == (good, bad)
    again = [original.text.split(b",")[0].decode() for original in source.originals(range(len(good)))]
    assert again == [row[0] for row in good]
    source.close()


def test_a_line_end_inside_the_only_field(tmp_path: Path, oracle: Any) -> None:
    path = tmp_path / "x.csv"
    for text in (b"a\r\nx\ny\r\n", b"a\nx\ry\n", b"a\rx\ny\r"):
        path.write_bytes(text)
        source = source_of(path)
        with pytest.raises(BadRow, match=r"unquoted (newline|carriage return) found in data") as error:
            list(source.batches([0]))
        assert error.value.location == Location(str(path), 2)
        source.close()


broken_fields = st.text(alphabet="ab \r\n", max_size=3)
quoted_fields = st.text(alphabet="a,\r\n", max_size=3).map(lambda text: f'"{text}"')
mixed_lines = st.lists(
    st.tuples(
        st.one_of(st.text(alphabet="ab", max_size=2), quoted_fields, broken_fields),
        st.one_of(st.text(alphabet="ab", max_size=2), quoted_fields, broken_fields),
        st.sampled_from(["\n", "\n", "\n", "\r\n", "\r\n", "\r"]),
    ),
    max_size=6,
)


@given(rows=mixed_lines, block=st.sampled_from([4, 16, 1000]))
@settings(
    max_examples=ORACLE_EXAMPLES or 100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mixed_line_ends_are_read_as_copy_reads_them(
    oracle: psycopg.Connection[Any], tmp_path: Path, rows: list[tuple[str, str, str]], block: int
) -> None:
    """Where COPY refuses a file for its line ends only, we may take it: as COPY takes it with LF everywhere."""
    path, dialect = tmp_path / "x.csv", CsvDialect(header=False)
    text = "".join(f"{first},{second}{end}" for first, second, end in rows)
    path.write_bytes(text.encode())
    found = read(path, dialect, block)
    expected = copied(oracle, text.encode(), dialect)
    if expected is None and found is not None:
        outside = '"'.join(
            part if number % 2 else part.replace("\r\n", "\n") for number, part in enumerate(text.split('"'))
        )
        assert outside != text
        expected = copied(oracle, outside.encode(), dialect)
    assert found == expected


@pytest.mark.parametrize(
    ("encoding", "data", "broken", "value"),
    [
        ("utf-8", b'a,b\n"x\ny",1\n2,caf\xe9!\n', "e9", "caf\\xe9!"),
        ("utf-8", b'a,b\n"x\ny",1\n2,"\xed\xa0\x80"\n', "ed", "\\xed\\xa0\\x80"),
        ("cp1252", b'a,b\n"x\n\xe9",1\n2,\x80\x81!\n', "81", "€\\x81!"),
        ("cp1253", b'a,b\n"x\ny",1\n2,\xd2\xaa\n', "d2 aa", "\\xd2\\xaa"),
        ("utf-16-le", 'a,b\n"x\ny",1\n2,z'.encode("utf-16-le") + b"\x00\xdc\n\x00", "00 dc", "z\\x00\\xdc"),
        ("utf-16", 'a,b\n"x\ny",1\n2,z'.encode("utf-16") + b"z", "7a", "z\\x7a"),
        ("ascii", b'a,b\n"x\ny",1\n2,\xe9\n', "e9", "\\xe9"),
    ],
)
def test_bytes_that_are_not_of_the_encoding(
    tmp_path: Path, encoding: str, data: bytes, broken: str, value: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    source = source_of(path, CsvDialect(encoding=encoding))
    with pytest.raises(BadRow, match=f"the bytes {broken} are not {encoding.upper()}") as error:
        rows_of(source)
    assert (error.value.location, error.value.column, error.value.value) == (Location(str(path), 4), "b", value)
    source.close()


def test_a_pattern_ends_before_what_it_does_not_match() -> None:
    """Python before 3.11.5 needs care for that."""
    dialect = ByteDialect(b",", b'"', b'"', frozenset(), skip_blank=True)
    for text in (b'"a"b', b'1,"a\n', b'"a""b","c""d', b'x"y"'):
        assert not plain_quoting(dialect).fullmatch(text)
    for end in LineEnd:
        found = blank_lines(dialect, end).match(end.value + b" \t" + end.value + b"  a")
        assert found
        assert found.end() == 2 * len(end.value) + 2
