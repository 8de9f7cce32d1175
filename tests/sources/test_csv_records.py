"""Our reading of CSV against COPY's own, on text that breaks rules as often as it keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from harborctl.errors import BadRow, SourceError, UsageError
from harborctl.model import CsvDialect, SourceFormat
from harborctl.sources.csv import CsvSource
from harborctl.sources.csv_records import ByteDialect, line_ends, records
from harborctl.sources.files import SourceFile

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


def read(path: Path, dialect: CsvDialect) -> Rows | None:
    """What our source makes of the file; None if it refuses."""
    try:
        source = CsvSource(SourceFile(str(path), path, SourceFormat.CSV), dialect)
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
    escape=st.sampled_from([None, "\\"]),
    nulls=st.sampled_from([("",), ("a",)]),
    header=st.just(False),
)


@given(text=st.one_of(lines, well_formed), dialect=dialects)
@example(text='a""b,c', dialect=CsvDialect(header=False))
@example(text='"a"b"c,d",e', dialect=CsvDialect(header=False))
@example(text='"a\n"",b",c\n,""', dialect=CsvDialect(header=False))
@example(text=",\n\n,", dialect=CsvDialect(header=False))
@example(text='"a\\"",b', dialect=CsvDialect(header=False, escape="\\"))
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


def test_blocks_end_at_records_wherever_the_reads_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(str(number), '"x\n,""y""\r\n"' if number % 7 == 0 else f"plain {number}") for number in range(500)]
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows), newline="")
    expected = [(a, 'x\n,"y"\r\n' if b.startswith('"') else b) for a, b in rows]
    for size in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr("harborctl.sources.csv.BLOCK_BYTES", size)
        source = CsvSource(SourceFile("x.csv", path, SourceFormat.CSV), CsvDialect())
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
        (CsvDialect(quote=""), "--quote"),
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
