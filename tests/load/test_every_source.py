"""COPY is the oracle for every kind of source: random CSV, through a file, gzip, a pipe, a FIFO and a process.

The files have records of any width, names that are missing or stand twice, all line ends, quotes and blanks. What COPY
takes is stored, by each writer; what COPY refuses ends the load, or with `--on-error reject` puts records aside that
COPY refuses on their own. HARBORCTL_TEST_SOURCE_EXAMPLES=300 asks for more examples than every day has.

The columns get names that can be told apart, by `--columns`, because COPY goes by position. Where lines end in LF and
in CRLF, COPY is given LF.
"""

from __future__ import annotations

import gzip
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from psycopg import sql

import harborctl.sources.csv.splitter
from harborctl.db.engine import Database
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import CsvDialect, LoadOptions, LoadResult, OnError, RejectOptions, SourceFormat, WriterName
from harborctl.sources.csv.dialect import byte_dialect
from harborctl.sources.csv.records import LineEnd, records, whole_records
from tests.conftest import engine_of, made_database, ours
from tests.load.sizes import SOURCE_EXAMPLES

Rows = list[tuple[Any, ...]]
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Example:
    text: bytes
    width: int
    dialect: CsvDialect
    block: int
    line_end: LineEnd


# -- ways to hand the bytes over


@contextmanager
def as_file(data: bytes, folder: Path) -> Iterator[str]:
    path = folder / "x.csv"
    path.write_bytes(data)
    yield str(path)


@contextmanager
def as_gzip(data: bytes, folder: Path) -> Iterator[str]:
    path = folder / "x.csv.gz"
    path.write_bytes(gzip.compress(data))
    yield str(path)


@contextmanager
def as_fifo(data: bytes, folder: Path) -> Iterator[str]:
    path = folder / "fifo"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with _sent(lambda: path.open("wb"), data):
        yield str(path)


@contextmanager
def as_descriptor(data: bytes, folder: Path) -> Iterator[str]:
    """What a shell makes of `<(…)`."""
    reading, writing = os.pipe()
    with _sent(lambda: os.fdopen(writing, "wb"), data):
        yield f"/dev/fd/{reading}"
    os.close(reading)


@contextmanager
def as_stdin(data: bytes, folder: Path) -> Iterator[str]:
    reading, writing = os.pipe()
    with (
        pytest.MonkeyPatch.context() as patch,
        os.fdopen(reading) as stdin,
        _sent(lambda: os.fdopen(writing, "wb"), data),
    ):
        patch.setattr(sys, "stdin", stdin)
        yield "-"


@contextmanager
def _sent(opened: Callable[[], Any], data: bytes) -> Iterator[None]:
    def send() -> None:
        with opened() as out:  # it is less than a pipe holds
            out.write(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


WAYS = {"file": as_file, "gzip": as_gzip, "stdin": as_stdin, "FIFO": as_fifo, "descriptor": as_descriptor}


# -- what COPY makes of it, and what we do


class Oracle:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.engine = ours(engine_of(url))
        self.connection.execute(
            "CREATE TABLE t (a text, b integer, c text, number bigint GENERATED ALWAYS AS IDENTITY)"
        )

    def copied(self, text: bytes, example: Example) -> Rows | None:
        """None if COPY refuses."""
        statement = sql.SQL("COPY t ({}) FROM STDIN (FORMAT csv, HEADER {}, DELIMITER {}, NULL {})").format(
            sql.SQL(", ").join(map(sql.Identifier, NAMES[: example.width])),
            example.dialect.header,
            example.dialect.delimiter,
            example.dialect.nulls[0],
        )
        try:
            with self.connection.cursor().copy(statement) as copy:
                copy.write(text)
        except psycopg.DataError:
            return None
        return self.emptied(example)

    def one_by_one(self, example: Example) -> Rows:
        """What is in when each record goes in on its own or not at all."""
        plain = Example(b"", example.width, CsvDialect(**_plain(example.dialect)), 0, example.line_end)
        rows: Rows = []
        for number, record in enumerate(_records(example)):
            if number or not example.dialect.header:
                rows += self.copied(record, plain) or []
        return rows

    def emptied(self, example: Example) -> Rows:
        names = sql.SQL(", ").join(map(sql.Identifier, NAMES[: example.width]))
        rows = self.connection.execute(sql.SQL("SELECT {} FROM t ORDER BY number").format(names)).fetchall()
        self.connection.execute("TRUNCATE t RESTART IDENTITY")
        return rows

    def loaded(self, source: str, example: Example, writer: WriterName, rejects: RejectOptions) -> LoadResult | None:
        """None if harborctl refuses."""
        options = LoadOptions(
            (source,), table="t", dialect=example.dialect, writer=writer, ledger=False, rejects=rejects,
            format=SourceFormat.CSV,
        )  # fmt: skip
        try:
            return run_load(Database(self.engine, "test", embedded=False), options, Silent())
        except LoadFailed as failure:
            is_usage = failure.error.code in {"empty_file", "column_count"}
            if failure.error.exit_code != (2 if is_usage else 1):
                raise
            return None


def _records(example: Example) -> Iterator[bytes]:
    """The text of each that has no line end where none may be. One whose quote is never closed ends with its line."""
    text, is_whole = example.text, False
    while not is_whole:
        is_whole = True
        for record in whole_records(text, byte_dialect(example.dialect), example.line_end, example.width):
            if not record.closed:
                end = text.find(example.line_end.last_byte, record.start) + 1
                text, is_whole = text[end:] if end else b"", False
                break
            if not record.stray:
                yield text[record.start : record.end]


def _plain(dialect: CsvDialect) -> dict[str, Any]:
    return {"header": False, "delimiter": dialect.delimiter, "nulls": dialect.nulls}


@pytest.fixture(scope="module")
def oracle(server_url: str, template_database: str) -> Iterator[Oracle]:
    with made_database(server_url, f"harborctl_sources_{os.getpid()}", template=template_database) as url:
        oracle = Oracle(url)
        yield oracle
        oracle.connection.close()
        oracle.engine.dispose()


# -- examples

TEXTS = ["x", "", '""', '"a,b"', '"two\nlines"', '"two\r\nlines"', '"a""b"', " ", "é", "NULL", '"NULL"', 'a"b,"c', '"']
STRAY = ["lone\rcr", "lone\nlf"]
NUMBERS = ["1", "-7", " 3 ", "", "x", '"4"', '""', "99999999999"]


@st.composite
def examples(draw: st.DrawFn) -> Example:
    width = draw(st.integers(1, 3))
    line_end = draw(st.sampled_from([LineEnd.LF, LineEnd.LF, LineEnd.CRLF, LineEnd.CR]))
    usual = line_end.value.decode()
    mixed = draw(st.booleans()) and line_end is not LineEnd.CR
    ends = st.sampled_from(["\n", "\r\n"]) if mixed else st.just(usual)
    delimiter, null = draw(st.sampled_from([(",", ""), (",", ""), (";", "NULL"), ("\t", "")]))
    # One bad field hides all others: most files have few of them.
    oddity = draw(st.sampled_from([0, 0, 0, 1, 3]))
    good = {"a": st.sampled_from(TEXTS[:11]), "b": st.sampled_from(NUMBERS[:4]), "c": st.sampled_from(TEXTS[:11])}
    odd = {"a": st.sampled_from(TEXTS + STRAY), "b": st.sampled_from(NUMBERS), "c": st.sampled_from(TEXTS + STRAY)}
    lines = []
    for _ in range(draw(st.integers(0, 8))):
        is_odd = draw(st.integers(0, 9)) < oddity
        row = [draw((odd if is_odd else good)[name]) for name in NAMES[:width]]
        if is_odd and draw(st.booleans()):
            ragged: list[list[str]] = [row[:-1], [*row, ""], [*row, "more"], [""]]
            row = draw(st.sampled_from(ragged))
        lines.append(delimiter.join(row) + draw(ends))
    has_header = draw(st.sampled_from([True, True, False]))
    header = draw(st.lists(st.sampled_from(["a", "a", "b", "", '"x y"', " "]), min_size=width, max_size=width))
    text = (delimiter.join(header) + usual if has_header else "") + "".join(lines)
    if draw(st.booleans()):
        text = text.removesuffix("\n").removesuffix("\r")
    dialect = CsvDialect(delimiter=delimiter, nulls=(null,), header=has_header, columns=NAMES[:width])
    data, block = text.encode(), draw(st.sampled_from([3, 20, 1000]))
    first = next(records(data, byte_dialect(dialect)), None)
    if first is not None and data[: first.end].endswith((b"\n", b"\r")):
        line_end = LineEnd.of(data[: first.end])
    return Example(data, width, dialect, block, line_end)


def as_copy_takes_it(example: Example) -> bytes:
    """LF instead of CRLF, but for what is in quotes."""
    parts = example.text.split(b'"')
    return b'"'.join(part if number % 2 else part.replace(b"\r\n", b"\n") for number, part in enumerate(parts))


# Each way, writer and policy; of them each example goes through some.
LOADS = [(way, writer, on_error) for way in WAYS for writer in ("copy", "values") for on_error in ("abort", "reject")]


@settings(
    max_examples=SOURCE_EXAMPLES or 12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(example=examples(), loads=st.permutations(LOADS).map(lambda loads: loads[: 6 if SOURCE_EXAMPLES else 3]))
def test_every_source_gives_what_copy_stores(
    oracle: Oracle, tmp_path: Path, example: Example, loads: list[tuple[str, str, str]]
) -> None:
    expected = oracle.copied(example.text, example)
    found = whole_records(example.text, byte_dialect(example.dialect), example.line_end, example.width)
    if expected is None and not any(record.stray for record in found):
        expected = oracle.copied(as_copy_takes_it(example), example)  # refused for its line ends alone?
    event("COPY refuses" if expected is None else "COPY takes it")
    each = oracle.one_by_one(example)
    for way, writer, on_error in loads:
        rejects = RejectOptions(OnError(on_error), file=str(tmp_path / "r.csv"), force=True)
        with pytest.MonkeyPatch.context() as patch, WAYS[way](example.text, tmp_path) as source:
            patch.setattr(harborctl.sources.csv.splitter, "BLOCK_BYTES", example.block)
            result = oracle.loaded(source, example, WriterName(writer), rejects)
        stored = oracle.emptied(example)
        if on_error == "abort":
            assert (result is None, stored) == (expected is None, expected or []), (way, writer)
        elif result is None:
            assert (expected, stored) == (None, [])
        else:
            assert stored == each, (way, writer)
            assert result.rows_read == len(each) + result.rejected, (way, writer)
