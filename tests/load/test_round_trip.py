"""Typed values, from Parquet and from Arrow, into every type that can hold them: unchanged, or refused with a place."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from harborctl.codecs.codec import Session
from harborctl.db.catalog import find_target
from harborctl.db.engine import Database, open_database
from harborctl.errors import BadRow, TargetError
from harborctl.load.plan.plan import make_plan
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.load.write.copy import write_copy
from harborctl.load.write.values import write_values
from harborctl.model import ConnectionOptions, FileResult, LoadOptions, SourceFormat, WriterName
from harborctl.sources.batch import Batch
from tests.conftest import made_database
from tests.load.sizes import ORACLE_EXAMPLES

WRITERS = (WriterName.COPY, WriterName.VALUES)

Texts = list[str | None]


class ArraySource:
    """A source of one column that is in memory: for types that Parquet stores as others."""

    name = "memory"
    named = True
    format = SourceFormat.ARROW
    size: int | None = None

    def __init__(self, array: pa.Array) -> None:
        self._array = array
        self.schema = pa.schema([pa.field("c", array.type)])

    def batches(self, columns: Sequence[int], direct: Sequence[pa.DataType | None] = ()) -> Iterator[Batch]:  # noqa: ARG002
        """Pieces that begin in the middle of their buffers, and an empty one."""
        for start, rows in ((0, 2), (2, 0), (2, len(self._array))):
            records = pa.RecordBatch.from_arrays([self._array.slice(start, rows)], ["c"])
            yield Batch(records, self.name, partial(int.__add__, start + 1))

    def position(self) -> int:
        return 0

    def result(self) -> FileResult:
        return FileResult(self.name, 0, len(self._array), "")

    def close(self) -> None:
        pass


class Target:
    """A table of one column, filled in every way there is."""

    def __init__(self, database: Database, connection: psycopg.Connection[Any], folder: Path) -> None:
        self._database = database
        self.connection = connection
        self.file = folder / "x.parquet"
        self._number = 0
        self.table = ""

    def create(self, type_name: str) -> None:
        self.connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self.table or "none")))
        self._number += 1
        self.table = f"target_{self._number}"
        self.connection.execute(
            sql.SQL("CREATE TABLE {} (c {})").format(sql.Identifier(self.table), sql.SQL(type_name))
        )

    def read_by_server(self, texts: Texts, type_name: str) -> Texts:
        """Each text as the server writes it once it has read it as a value of the type."""
        query = sql.SQL("SELECT CAST(CAST(%s AS text) AS {})::text").format(sql.SQL(type_name))
        return [row[0] for text in texts for row in self.connection.execute(query, (text,))]

    def moments(self, microseconds: list[int | None]) -> Texts:
        """Microseconds since 1970 as the server writes the timestamp."""
        # Days and seconds apart: a product of an interval is one of doubles.
        query = "SELECT (timestamp '1970-01-01' + make_interval(days => %s, secs => %s))::text"
        parts = [(None, None) if count is None else divmod(count, DAY * 10**6) for count in microseconds]
        rows = [self.connection.execute(query, (days, rest and rest / 10**6)).fetchone() for days, rest in parts]
        return [row[0] for row in rows if row]

    def stored(self) -> Texts:
        query = sql.SQL("SELECT c::text FROM {} ORDER BY ctid").format(sql.Identifier(self.table))
        return [row[0] for row in self.connection.execute(query)]

    def from_arrow(self, array: pa.Array, writer: WriterName) -> Texts:
        self._empty()
        with self._database.engine.begin() as connection:
            target = find_target(connection, self.table)
            source = ArraySource(array)
            plan = make_plan(source, target, LoadOptions(("memory",)), Session(utc=False))
            batches = source.batches(plan.positions)
            if writer is WriterName.COPY:
                write_copy(connection, target.table(), plan, batches, Silent())
            else:
                write_values(connection, target.table(), plan, batches, Silent(), 3)
        return self.stored()

    def write(self, array: pa.Array) -> pa.DataType | None:
        """Write the Parquet file; the type that comes out of it, None if Parquet cannot hold such an array. Some types
        it stores as another: seconds as milliseconds, a date64 as a date."""
        try:
            pq.write_table(pa.table({"c": array}), self.file, row_group_size=3)
        except (pa.ArrowException, OSError):
            return None
        return pq.ParquetFile(self.file).schema_arrow.field("c").type

    def from_parquet(self, writer: WriterName) -> Texts:
        self._empty()
        run_load(self._database, self.options(writer), Silent())
        return self.stored()

    def options(self, writer: WriterName) -> LoadOptions:
        return LoadOptions((str(self.file),), table=self.table, writer=writer, ledger=False)

    def _empty(self) -> None:
        self.connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(self.table)))


@pytest.fixture(scope="module")
def target(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with made_database(server_url, f"harborctl_round_trip_{os.getpid()}", template="template0") as url:
        far = url + ("&" if "?" in url else "?") + "options=-c%20TimeZone%3DAsia/Kolkata"
        with psycopg.connect(far, autocommit=True) as connection:
            connection.execute(
                "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a integer, b text);"
                "CREATE TYPE trip AS (p pair, stops text[], at timestamptz); CREATE DOMAIN cents AS numeric(6,2);"
                "CREATE TYPE sale AS (amount numeric(10,2), at timestamptz(0), doc jsonb, id uuid, paid cents[]);"
                "CREATE DOMAIN few AS integer[]"
            )
            with open_database(ConnectionOptions(url=far)) as database:
                yield Target(database, connection, tmp_path_factory.mktemp("round_trip"))


# Values, the column's type, and texts that the server reads as what must be stored.
Case = tuple[pa.Array, str, Texts]


def counted(arrow: pa.DataType, *counts: int | None) -> pa.Array:
    """Dates and times by their number of units: Python's own end at the year 9999 and at microseconds."""
    return pa.array(counts, pa.int32() if arrow.bit_width == 32 else pa.int64()).view(arrow)


def decimals(arrow: pa.DataType, *texts: str | None) -> pa.Array:
    return pa.array([None if text is None else Decimal(text) for text in texts], arrow)


def listed(values: pa.Array) -> pa.Array:
    """A row that is a list of these values."""
    return pa.ListArray.from_arrays([0, len(values)], values)


def floats(arrow: pa.DataType, *values: float | None) -> pa.Array:
    return pa.array(values, pa.float64()).cast(arrow, safe=False)


INTEGERS = {
    pa.int8(): (-128, 127),
    pa.int16(): (-(2**15), 2**15 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint8(): (0, 255),
    pa.uint16(): (0, 2**16 - 1),
    pa.uint32(): (0, 2**32 - 1),
    pa.uint64(): (0, 2**64 - 1),
}
# The largest integer up to which each type has all of them.
INTEGERS_OF = {
    "smallint": 2**15 - 1,
    "integer": 2**31 - 1,
    "bigint": 2**63 - 1,
    "real": 2**24,
    "double precision": 2**53,
    "numeric": 10**30,
    "numeric(20,0)": 10**20,
    "numeric(25,3)": 10**22,
    "numeric(60,30)": 10**30,
    "cents": 9999,
    "text": 10**30,
    "varchar(20)": 10**30,
    "jsonb": 10**30,
    "money": 9 * 10**16,
}


def integer_cases() -> Iterator[Case]:
    for arrow, (low, high) in INTEGERS.items():
        for name, most in INTEGERS_OF.items():
            values = [max(low, -most), None, min(high, most), 0, 1]
            yield pa.array(values, arrow), name, [None if value is None else str(value) for value in values]


FLOATS: list[Case] = [
    *(
        (
            floats(arrow, 0.1, None, -1.5, 65504.0),
            name,
            [str(Decimal(float(floats(arrow, 0.1)[0].as_py()))), None, "-1.5", "65504"],
        )
        for arrow in (pa.float16(), pa.float32(), pa.float64())
        for name in ("real", "double precision")
        if (arrow, name) != (pa.float32(), "double precision")
    ),
    (floats(pa.float32(), 0.1), "double precision", ["0.10000000149011612"]),
    (
        floats(pa.float64(), 1.7976931348623157e308, 5e-324, -0.0, float("inf"), float("-inf"), float("nan")),
        "double precision",
        ["1.7976931348623157e308", "5e-324", "-0", "inf", "-inf", "nan"],
    ),
    (
        floats(pa.float32(), 3.4028234663852886e38, 1.401298464324817e-45, -0.0, float("inf"), float("nan")),
        "real",
        ["3.4028234663852886e38", "1.401298464324817e-45", "-0", "inf", "nan"],
    ),
    (floats(pa.float16(), 65504.0, 6e-8, float("inf"), float("nan")), "real", ["65504", "5.9604645e-08", "inf", "nan"]),
    (floats(pa.float64(), float("inf"), float("nan"), 1e22, 1e-7), "numeric", ["inf", "nan", "1e22", "1e-7"]),
    (floats(pa.float64(), 1.25, None, float("nan"), -3.0), "numeric(5,2)", ["1.25", None, "nan", "-3"]),
    (floats(pa.float64(), 1.25, None, 1e9), "numeric(50,2)", ["1.25", None, "1e9"]),
    (floats(pa.float32(), 0.1, 16777216.0), "numeric(20,2)", ["0.1", "16777216"]),
    (floats(pa.float64(), 1200.0, None), "numeric(5,-2)", ["1200", None]),
    (floats(pa.float64(), 2.0**53, None, -3.0), "bigint", [str(2**53), None, "-3"]),
    (floats(pa.float64(), 1.5, None), "money", ["1.50", None]),
    (floats(pa.float64(), 0.1, float("nan"), 1e20), "text", ["0.1", "nan", "1e+20"]),
    (floats(pa.float32(), 0.1, None), "jsonb", ["0.1", None]),
    (pa.array([2**60, None, -(2**63)]), "double precision", [str(2**60), None, str(-(2**63))]),
]

DECIMALS: list[Case] = [
    *(
        (decimals(arrow, "1.50", None, "-999.99", "0.00"), name, ["1.50", None, "-999.99", "0.00"])
        for arrow in (pa.decimal32(5, 2), pa.decimal64(10, 2), pa.decimal128(38, 2), pa.decimal256(60, 2))
        for name in (
            "numeric",
            "numeric(5,2)",
            "numeric(45,2)",
            "text",
            "jsonb",
            "money",
            "cents",
            "real",
            "double precision",
        )
    ),
    *(
        (decimals(arrow, "7.00", None), name, ["7", None])
        for arrow in (pa.decimal32(5, 2), pa.decimal128(38, 2), pa.decimal256(60, 2))
        for name in ("integer", "smallint", "bigint", "numeric(3,0)", "numeric(2,1)", "numeric(50,0)", "numeric(60,40)")
    ),
    (decimals(pa.decimal128(38, 0), "9" * 38, "-" + "9" * 38), "numeric", ["9" * 38, "-" + "9" * 38]),
    (decimals(pa.decimal256(76, 10), "9" * 66 + ".0123456789"), "numeric", ["9" * 66 + ".0123456789"]),
    (decimals(pa.decimal256(76, 10), "9" * 66 + ".0123456789"), "numeric(76,10)", ["9" * 66 + ".0123456789"]),
    (decimals(pa.decimal128(20, 15), "0.000000000001500", None), "text", ["0.000000000001500", None]),
    (decimals(pa.decimal128(5, -2), "1200", None), "numeric", ["1200", None]),
    (decimals(pa.decimal128(5, -2), "1200", None), "text", ["1200", None]),
    (decimals(pa.decimal128(5, -2), "1200", None), "numeric(6,-2)", ["1200", None]),
    (decimals(pa.decimal128(5, -2), "1200", None), "integer", ["1200", None]),
    (decimals(pa.decimal128(5, -2), "1200", None), "double precision", ["1200", None]),
]

WORDS = ["a", None, "", "é\n\t\\\"'", "NULL", "\\N", "\ufeff"]
BYTES = [b"", None, b"\x00\xff\\'", b"abc"]
HEX = ["\\x", None, "\\x00ff5c27", "\\x616263"]
A_UUID = UUID("c0ffee00-1234-5678-9abc-def012345678")
TEXTS: list[Case] = [
    *(
        (pa.array(WORDS, arrow), name, WORDS)
        for arrow in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()))
        for name in ("text", "varchar(10)")
    ),
    *(
        (pa.array([word and word.encode() for word in WORDS], arrow), "text", WORDS)
        for arrow in (pa.binary(), pa.large_binary(), pa.binary_view())
    ),
    *(
        (pa.array(["12", None, "-3"], arrow), "integer", ["12", None, "-3"])
        for arrow in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
    ),
    (pa.array(["1.005", None]), "numeric(5,2)", ["1.01", None]),  # text is read as COPY reads it
    (pa.array([b"12", None]), "integer", ["12", None]),
    (pa.array(["sad", None, "ok"]), "mood", ["sad", None, "ok"]),
    (pa.array(["a", None]), "char(3)", ["a", None]),
    (pa.array(['{"a": 1.10}', None, "[]"]), "jsonb", ['{"a": 1.10}', None, "[]"]),
    (pa.array(['{"a":1,"a":2}', None]), "json", ['{"a":1,"a":2}', None]),
    (pa.array([b'{"a": 1}', None], pa.binary()), "jsonb", ['{"a": 1}', None]),
    (pa.array(['{"a": 1}', None], pa.json_()), "jsonb", ['{"a": 1}', None]),
    (pa.array(["(1,a)", None]), "pair", ["(1,a)", None]),
    (pa.array(["[1,2)", None]), "int4range", ["[1,2)", None]),
    (pa.array(["10.0.0.1/8", None]), "inet", ["10.0.0.1/8", None]),
    *((pa.array(BYTES, arrow), "bytea", HEX) for arrow in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.array([b"ab", None], pa.binary(2)), "bytea", ["\\x6162", None]),
    (pa.array([b"ab", None], pa.binary(2)), "text", ["ab", None]),
    (pa.array([A_UUID.bytes, None], pa.binary(16)), "uuid", [str(A_UUID), None]),
    (pa.array([A_UUID.bytes, None], pa.uuid()), "uuid", [str(A_UUID), None]),
    (pa.array([A_UUID.bytes, None], pa.uuid()), "text", [str(A_UUID), None]),
    (pa.array([str(A_UUID).encode(), None], pa.binary()), "uuid", [str(A_UUID), None]),
    (pa.array([True, None, False]), "boolean", ["t", None, "f"]),
    (pa.array([True, None, False]), "text", ["true", None, "false"]),
    (pa.array([True, None, False]), "jsonb", ["true", None, "false"]),
    (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())), "boolean", ["t", None, "f"]),
    *(
        (pa.nulls(3), name, Texts((None, None, None)))
        for name in ("text", "integer", "numeric", "timestamptz", "uuid", "inet", "pair", "int[]")
    ),
    (pa.array([1, None, 7]).dictionary_encode(), "bigint", ["1", None, "7"]),
    (counted(pa.timestamp("ns"), 1000, None).dictionary_encode(), "timestamp", ["1970-01-01 00:00:00.000001", None]),
    (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", None]), "text", ["a", "a", None]),
]

DAY = 86400
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NEW_YEAR = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())


def time_cases() -> Iterator[Case]:
    for unit, size in UNITS.items():
        stamps = [NEW_YEAR * size, None, 0, -size, (NEW_YEAR + 3600) * size]
        local = ["2020-01-01", None, "1970-01-01", "1969-12-31 23:59:59", "2020-01-01 01:00:00"]
        moments = [text and text + "+00" for text in local]
        for name in ("timestamp", "timestamp(0)", "timestamptz", "timestamptz(3)"):
            yield counted(pa.timestamp(unit), *stamps), name, local
        for zone in ("UTC", "America/New_York", "+05:30", "Europe/Nowhere"):
            yield counted(pa.timestamp(unit, zone), *stamps), "timestamptz", moments
        yield (
            counted(pa.timestamp(unit), NEW_YEAR * size, None, -DAY * size),
            "date",
            ["2020-01-01", None, "1969-12-31"],
        )
        durations = [26 * 3600 * size, None, -size, 0]
        yield counted(pa.duration(unit), *durations), "interval", ["26:00:00", None, "-00:00:01", "0"]
        yield counted(pa.duration(unit), *durations), "interval(0)", ["26:00:00", None, "-00:00:01", "0"]
        yield counted(pa.duration(unit), 26 * 3600 * size, None), "interval hour", ["26:00:00", None]
        clock = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
        for name in ("time", "time(0)", "timetz", "interval"):
            texts = ["00:00:00", None, "23:59:59", "24:00:00"]
            yield counted(clock, 0, None, (DAY - 1) * size, DAY * size), name, texts
    for unit, digits in (("us", "000001"), ("ns", "000001000")):
        tiny = 1 if unit == "us" else 1000
        yield (
            counted(pa.timestamp(unit), tiny, -tiny),
            "timestamp",
            ["1970-01-01 00:00:00.000001", "1969-12-31 23:59:59.999999"],
        )
        yield counted(pa.timestamp(unit, "UTC"), tiny, None), "timestamptz", ["1970-01-01 00:00:00.000001+00", None]
        yield counted(pa.time64(unit), tiny, None), "time", ["00:00:00.000001", None]
        yield counted(pa.duration(unit), tiny, None), "interval", ["00:00:00.000001", None]
        yield counted(pa.timestamp(unit), tiny, None), "text", [f"1970-01-01 00:00:00.{digits}", None]
        yield counted(pa.timestamp(unit, "UTC"), tiny, None), "text", [f"1970-01-01 00:00:00.{digits}Z", None]
        yield counted(pa.time64(unit), tiny, None), "text", [f"00:00:00.{digits}", None]
        yield counted(pa.duration(unit), -tiny, None), "text", [f"-00:00:00.{digits}", None]
    yield counted(pa.timestamp("ns"), 1, None), "text", ["1970-01-01 00:00:00.000000001", None]
    yield counted(pa.timestamp("ns"), 1, None), "jsonb", ['"1970-01-01T00:00:00.000000001"', None]


TIMES: list[Case] = [
    (
        counted(pa.date32(), 0, None, -719163, -2440588, 2932897, 2145042905),
        "date",
        ["1970-01-01", None, "0001-12-31 BC", "4714-11-24 BC", "10000-01-01", "5874897-12-31"],
    ),
    (counted(pa.date32(), 0, None, -719163, 2932897), "text", ["1970-01-01", None, "0001-12-31 BC", "10000-01-01"]),
    (
        counted(pa.date32(), 0, None, -719163, 2932897),
        "timestamp",
        ["1970-01-01", None, "0001-12-31 BC", "10000-01-01"],
    ),
    (counted(pa.date32(), 0, None), "timestamptz", ["1970-01-01", None]),
    (counted(pa.date64(), 0, None, -DAY * 1000), "date", ["1970-01-01", None, "1969-12-31"]),
    (counted(pa.date64(), 0, None, -DAY * 1000), "timestamp", ["1970-01-01", None, "1969-12-31"]),
    (counted(pa.date64(), 0, None), "text", ["1970-01-01", None]),
    (
        counted(pa.timestamp("us"), -210866803200000000, 2**63 - 1, -62135596800000001),
        "timestamp",
        ["4714-11-24 00:00:00 BC", "294247-01-10 04:00:54.775807", "0001-12-31 23:59:59.999999 BC"],
    ),
    (
        counted(pa.timestamp("us", "Asia/Kolkata"), -210866803200000000, 2**63 - 1),
        "timestamptz",
        ["4714-11-24 00:00:00+00 BC", "294247-01-10 04:00:54.775807+00"],
    ),
    (
        counted(pa.timestamp("ns"), -(2**63) + 808, 2**63 - 808),
        "timestamp",
        ["1677-09-21 00:12:43.145225", "2262-04-11 23:47:16.854775"],
    ),
    (
        counted(pa.duration("us"), 2**63 - 1, -(2**63) + 1),
        "interval",
        ["2562047788:00:54.775807", "-2562047788:00:54.775807"],
    ),
    (
        pa.array([(14, -3, 5_000_000_000), None], pa.month_day_nano_interval()),
        "interval",
        ["14 mons -3 days 5 sec", None],
    ),
]

PAIR = pa.struct([("a", pa.int32()), ("b", pa.string())])
NESTED: list[Case] = [
    *(
        (pa.array([[1, None], None, []], arrow), name, texts)
        for arrow in (
            pa.list_(pa.int32()),
            pa.large_list(pa.int64()),
            pa.list_view(pa.int16()),
            pa.large_list_view(pa.int8()),
        )
        for name, texts in (
            ("integer[]", ["{1,NULL}", None, "{}"]),
            ("numeric(5,2)[]", ["{1,NULL}", None, "{}"]),
            ("jsonb", ["[1, null]", None, "[]"]),
            ("text", ["[1,null]", None, "[]"]),
        )
    ),
    (pa.array([[1, 2], None, [None, 4]], pa.list_(pa.int32(), 2)), "bigint[]", ["{1,2}", None, "{NULL,4}"]),
    (pa.array([[[1, 2], [3, 4]], None], pa.list_(pa.list_(pa.int32()))), "integer[]", ["{{1,2},{3,4}}", None]),
    (pa.array([["a,b", '"', "\\", "NULL", "", None, "{}"]]), "text[]", ['{"a,b","\\"","\\\\","NULL","",NULL,"{}"}']),
    (pa.array([["sad", None]]), "mood[]", ["{sad,NULL}"]),
    (pa.array([[b"\x00\\", None]]), "bytea[]", ['{"\\\\x005c",NULL}']),
    (pa.array([[True, False, None]]), "boolean[]", ["{t,f,NULL}"]),
    (pa.array([[0.1, float("nan"), float("inf")]]), "double precision[]", ["{0.1,nan,inf}"]),
    (pa.array([[Decimal("1.50")]]), "numeric[]", ["{1.50}"]),
    (
        pa.array([[1000, None]], pa.list_(pa.timestamp("ns", "UTC"))),
        "timestamptz[]",
        ['{"1970-01-01 00:00:00.000001+00",NULL}'],
    ),
    (pa.array([[0]], pa.list_(pa.date32())), "date[]", ["{1970-01-01}"]),
    (pa.array([[90_000_000]], pa.list_(pa.duration("us"))), "interval[]", ["{00:01:30}"]),
    (pa.array([["a", "b", "a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), "text[]", ["{a,b,a}"]),
    (pa.array([{"a": 1, "b": "x,y"}, None, {"a": None, "b": ""}], PAIR), "pair", ['(1,"x,y")', None, '(,"")']),
    (pa.array([[{"a": 1, "b": '"'}, None]], pa.list_(PAIR)), "pair[]", ['{"(1,\\"\\"\\"\\")",NULL}']),
    (
        pa.array([{"p": {"a": 1, "b": None}, "stops": ["x y", None], "at": datetime(2020, 1, 1, tzinfo=UTC)}, None]),
        "trip",
        ['("(1,)","{""x y"",NULL}","2020-01-01 00:00:00+00")', None],
    ),
    (pa.array([{"a": 1, "b": "é\n"}, None], PAIR), "jsonb", ['{"a": 1, "b": "é\\n"}', None]),
    (pa.array([{"a": 1, "b": None}, None], PAIR), "json", ['{"a":1,"b":null}', None]),
    (
        pa.array([[("x", Decimal("12345678901234567890.10"))], None, []], pa.map_(pa.string(), pa.decimal128(30, 2))),
        "jsonb",
        ['{"x": 12345678901234567890.10}', None, "{}"],
    ),
    (pa.array([[(1, "a"), (2, None)], None], pa.map_(pa.int32(), pa.string())), "json", ['{"1":"a","2":null}', None]),
    (
        pa.array(
            [[("x", [{"a": 2**63 - 1, "b": None}])]],
            pa.map_(pa.string(), pa.list_(pa.struct([("a", pa.int64()), ("b", pa.int8())]))),
        ),
        "text",
        ['{"x":[{"a":9223372036854775807,"b":null}]}'],
    ),
    (pa.array([[b"\xff", None]]), "jsonb", ['["\\\\xff", null]']),
    (pa.array([[0.1, 1e300, None]]), "jsonb", ["[0.1, 1e300, null]"]),
    (pa.array([[0.1]], pa.list_(pa.float32())), "json", ["[0.1]"]),
]

UUIDS = pa.array([A_UUID.bytes, None], pa.binary(16))
SALE = pa.struct([("paid", pa.list_(pa.decimal128(8, 4))), ("amount", pa.decimal128(10, 4))])
NESTED += [
    # Into a composite fields go by their names.
    (pa.array([{"b": "x", "a": 1}, None], pa.struct([("b", pa.string()), ("a", pa.int8())])), "pair", ["(1,x)", None]),
    (pa.array([{"b": "x"}, {"b": None}], pa.struct([("b", pa.string())])), "pair", ["(,x)", "(,)"]),
    (pa.array([{}, None], pa.struct([])), "pair", ["(,)", None]),
    (pa.array([[{"b": "x"}, None]], pa.list_(pa.struct([("b", pa.string())]))), "pair[]", ['{"(,x)",NULL}']),
    (
        pa.array([{"paid": [Decimal("1.5000"), None], "amount": Decimal("-1.2300")}, None], SALE),
        "sale",
        ['(-1.23,,,,"{1.50,NULL}")', None],
    ),
    (
        pa.StructArray.from_arrays([UUIDS, pa.array([[{"x": 1}], None])], ["id", "doc"]),
        "sale",
        [f'(,,"[{{""x"": 1}}]",{A_UUID},)', "(,,,,)"],
    ),
    (
        pa.StructArray.from_arrays([pa.array(['{"x": 1.10}', None])], ["doc"]),
        "sale",
        ['(,,"{""x"": 1.10}",,)', "(,,,,)"],
    ),
    # What JSON is made of is told by its type.
    (pa.array([[{"a": 1}, None], None]), "jsonb[]", ['{"{\\"a\\": 1}",NULL}', None]),
    (
        pa.StructArray.from_arrays([pa.array(['{"x": 1.10}', None], pa.json_()), pa.array(["1", "2"])], ["a", "b"]),
        "jsonb",
        ['{"a": {"x": 1.10}, "b": "1"}', '{"a": null, "b": "2"}'],
    ),
    # Sixteen bytes are a UUID, a UUID is sixteen bytes.
    (UUIDS.cast(pa.binary()), "uuid", [str(A_UUID), None]),
    (pa.array([A_UUID.bytes, str(A_UUID).encode(), None]), "uuid", [str(A_UUID), str(A_UUID), None]),
    (pa.array([[A_UUID.bytes, None], None], pa.list_(pa.binary(16))), "uuid[]", [f"{{{A_UUID},NULL}}", None]),
    (pa.array([[A_UUID.bytes, None], None], pa.list_(pa.binary())), "uuid[]", [f"{{{A_UUID},NULL}}", None]),
    (listed(UUIDS.cast(pa.uuid())), "uuid[]", [f"{{{A_UUID},NULL}}"]),
    (pa.array([A_UUID.bytes, None], pa.uuid()), "bytea", ["\\x" + A_UUID.hex, None]),
    (listed(UUIDS.cast(pa.uuid())), "bytea[]", [f'{{"\\\\x{A_UUID.hex}",NULL}}']),
    # Elements that are arrays themselves, by a domain.
    (pa.array([[[1, 2], [3]], None]), "few[]", ['{"{1,2}","{3}"}', None]),
    (pa.array([[1, 2], None]), "few", ["{1,2}", None]),
    (pa.array([[Decimal("1.5000"), None]], pa.list_(pa.decimal128(8, 4))), "cents[]", ["{1.50,NULL}"]),
]

NOT_IN_PARQUET = {
    "struct<>",
    "decimal128(5, -2)",
    "month_day_nano_interval",
    "run_end_encoded<run_ends: int64, values: string>",
}

CASES = [*integer_cases(), *FLOATS, *DECIMALS, *TEXTS, *time_cases(), *TIMES, *NESTED]


def name_of(case: Case) -> str:
    return f"{case[0].type} into {case[1]}"


def is_news(written: pa.DataType, array: pa.Array, writer: WriterName) -> bool:
    """Whether a writer gets batches from the Parquet file that it has not had from Arrow: all but those of one type."""
    return writer is WriterName.COPY or written != array.type


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_values_arrive_unchanged(target: Target, case: Case) -> None:
    array, type_name, texts = case
    target.create(type_name)
    expected = target.read_by_server(texts, type_name)
    written = target.write(array)
    assert (written is None) == (str(array.type) in NOT_IN_PARQUET)
    for writer in WRITERS:
        assert target.from_arrow(array, writer) == expected, writer
        if written and is_news(written, array, writer):
            assert target.from_parquet(writer) == expected, writer


# Two values that can be stored, or NULL, then one that cannot; the type of the column; the SQLSTATE; the value, shown.
Refusal = tuple[pa.Array, str, str, str]

REFUSALS: list[Refusal] = [
    (pa.array([1, None, 40_000]), "smallint", "22003", "40000"),
    (pa.array([1, None, -(2**31) - 1]), "integer", "22003", "-2147483649"),
    (pa.array([1, None, 2**63], pa.uint64()), "bigint", "22003", str(2**63)),
    (pa.array([1, None, 2**53 + 1]), "double precision", "22003", str(2**53 + 1)),
    (pa.array([1, None, 2**64 - 1], pa.uint64()), "double precision", "22003", str(2**64 - 1)),
    (pa.array([1, None, 2**24 + 1]), "real", "22003", str(2**24 + 1)),
    (pa.array([10, None, 15]), "numeric(3,-1)", "22003", "15"),
    (pa.array([1, None, 1000]), "numeric(3,0)", "22003", "1000"),
    (pa.array([1, None, 10_000]), "cents", "22003", "10000"),
    (pa.array([1, None, 2]), "boolean", "22P02", "2"),
    (floats(pa.float64(), 1, None, 1.5), "integer", "22003", "1.5"),
    (floats(pa.float64(), 1, None, float("nan")), "bigint", "22003", "nan"),
    (floats(pa.float64(), 1, None, 1e19), "bigint", "22003", "1e+19"),
    (floats(pa.float64(), 0.1, None, 1 / 3), "real", "22003", "0.3333333333333333"),
    (floats(pa.float64(), 0.1, None, 1e39), "real", "22003", "1e+39"),
    (floats(pa.float64(), 0.1, None, 1e-46), "real", "22003", "1e-46"),
    (floats(pa.float64(), 0.5, None, 0.125), "numeric(5,2)", "22003", "0.125"),
    (floats(pa.float64(), 0.5, None, 0.125), "numeric(50,2)", "22003", "0.125"),
    (floats(pa.float64(), 0.5, float("nan"), 0.125), "numeric(5,2)", "22003", "0.125"),
    (floats(pa.float64(), 0.5, None, float("inf")), "numeric(5,2)", "22003", "inf"),
    (floats(pa.float64(), 0.5, None, 1e-7), "numeric(50,2)", "22003", "1e-7"),
    (floats(pa.float64(), 0.5, None, 0.125), "money", "22003", "0.125"),
    (floats(pa.float64(), 0.5, None, float("nan")), "jsonb", "22P02", "nan"),
    (decimals(pa.decimal128(10, 3), "1.500", None, "1.005"), "numeric(5,2)", "22003", "1.005"),
    (decimals(pa.decimal128(10, 3), "1.500", None, "1.005"), "numeric(45,2)", "22003", "1.005"),
    (decimals(pa.decimal256(60, 3), "1.500", None, "1.005"), "numeric(5,2)", "22003", "1.005"),
    (decimals(pa.decimal32(5, 3), "1.500", None, "1.005"), "cents", "22003", "1.005"),
    (decimals(pa.decimal64(10, 3), "1.500", None, "1.005"), "money", "22003", "1.005"),
    (decimals(pa.decimal64(10, 0), "1500", None, "1550"), "numeric(5,-2)", "22003", "1550"),
    (decimals(pa.decimal128(10, 2), "1.00", None, "1.50"), "integer", "22003", "1.50"),
    (decimals(pa.decimal128(20, 0), "1", None, "99999999999"), "integer", "22003", "99999999999"),
    (
        decimals(pa.decimal128(20, 2), "1", None, "123456789012345678.90"),
        "double precision",
        "22003",
        "123456789012345678.90",
    ),
    (decimals(pa.decimal128(20, 2), "1", None, "1234567.89"), "real", "22003", "1234567.89"),
    (pa.array(["a", None, "a\0b"]), "text", "22021", "a\0b"),
    (pa.array(["a", None, "a\0b"]).dictionary_encode(), "text", "22021", "a\0b"),
    (pa.array(["1", None, "1\0"]), "integer", "22021", "1\0"),
    (pa.array(["a", None, "abcd"]), "varchar(3)", "22001", "abcd"),
    (pa.array(["sad", None, "glad"]), "mood", "22P02", "glad"),
    (pa.array(["1", None, "x"]), "integer", "22P02", "x"),
    (pa.array(["{}", None, "{"]), "jsonb", "22P02", "{"),
    (pa.array([["a"], None, ["\0"]]), "jsonb", "22P05", '["\\u0000"]'),
    (pa.array([["a"], None, ["\0"]]), "text[]", "22021", '{"\0"}'),
    (pa.array([b"a", None, b"a\xff"]), "text", "22021", "a\\xff"),
    (pa.array([b"1", None, b"\xff"]), "integer", "22021", "\\xff"),
    (pa.array([b"a", None, b"a\xff"], pa.binary()).view(pa.string()), "text", "22021", "a\\xff"),
    (pa.array([b"::1", None, b"a\xff"], pa.binary()).view(pa.string()), "inet", "22021", "a\\xff"),
    (pa.array([b"{}", None, b"\xff"], pa.binary()).view(pa.string()), "jsonb", "22021", "\\xff"),
    (counted(pa.date32(), 0, None, -2440589), "date", "22008", "4714-11-23 BC"),
    (counted(pa.date32(), 0, None, 2145042906), "date", "22008", "5874898-01-01"),
    (counted(pa.date32(), 0, None, -(2**31) + 10957), "date", "22008", "5877612-06-22 BC"),  # -infinity's binary form
    (counted(pa.date32(), 0, None, 2**31 - 1), "timestamp", "22008", "5881580-07-11"),
    (counted(pa.date64(), 0, None, 1), "date", "22008", "1970-01-01"),
    (counted(pa.timestamp("us"), 0, None, -210866803200000001), "timestamp", "22008", "4714-11-23 23:59:59.999999 BC"),
    (
        counted(pa.timestamp("us", "UTC"), 0, None, -(2**63) + 946684800 * 10**6),
        "timestamptz",
        "22008",
        "290279-12-22 19:59:05.224192Z BC",
    ),
    (counted(pa.timestamp("s"), 0, None, 2**60), "timestamp", "22008", "36534630048-05-13 13:56:16"),
    (counted(pa.timestamp("ns"), 0, None, 1), "timestamp", "22008", "1970-01-01 00:00:00.000000001"),
    (counted(pa.timestamp("ns", "UTC"), 0, None, 1), "timestamptz", "22008", "1970-01-01 00:00:00.000000001Z"),
    (counted(pa.timestamp("ns"), 0, None, 1), "timestamptz", "22008", "1970-01-01 00:00:00.000000001"),
    (counted(pa.timestamp("us"), 0, None, 500_000), "timestamp(0)", "22008", "1970-01-01 00:00:00.500000"),
    (counted(pa.timestamp("us", "UTC"), 0, None, 1), "timestamptz(3)", "22008", "1970-01-01 00:00:00.000001Z"),
    (counted(pa.timestamp("ms"), 0, None, 1), "date", "22008", "1970-01-01 00:00:00.001"),
    (counted(pa.time64("ns"), 0, None, 1), "time", "22008", "00:00:00.000000001"),
    (counted(pa.time64("ns"), 0, None, 1), "timetz", "22008", "00:00:00.000000001"),
    (counted(pa.time32("ms"), 0, None, 1), "time(0)", "22008", "00:00:00.001"),
    (counted(pa.time32("s"), 0, None, DAY + 1), "time", "22008", "24:00:01"),
    (counted(pa.time32("s"), 0, None, -1), "time", "22008", "-00:00:01"),
    (counted(pa.duration("ns"), 0, None, 1), "interval", "22008", "00:00:00.000000001"),
    (counted(pa.duration("s"), 0, None, 2**60), "interval", "22008", "320255973501901:56:16"),
    (counted(pa.duration("ms"), 0, None, 500), "interval(0)", "22008", "00:00:00.500"),
    (counted(pa.duration("s"), 0, None, 90), "interval minute", "22008", "00:01:30"),
    (counted(pa.duration("s"), 0, None, 1), "interval day", "22008", "00:00:01"),
    (
        pa.array([(0, 0, 0), None, (1, 2, 3)], pa.month_day_nano_interval()),
        "interval",
        "22008",
        "1 mons 2 days 00:00:00.000000003",
    ),
    (pa.array([[1], None, [40_000]]), "smallint[]", "22003", '{"40000"}'),
    (pa.array([[[1]], None, [[1], [2**33]]]), "integer[]", "22003", '{{"1"},{"8589934592"}}'),
    (pa.array([[Decimal("1.50")], None, [Decimal("1.25"), None]]), "numeric(5,1)[]", "22003", '{"1.25",NULL}'),
    (
        pa.array([[0], None, [1]], pa.list_(pa.timestamp("ns"))),
        "timestamp[]",
        "22008",
        '{"1970-01-01 00:00:00.000000001"}',
    ),
    (pa.array([[[1]], None, [[]]]), "integer[]", "22P02", "[[]]"),
    (pa.array([[[1]], None, [[1], [2, 3]]]), "integer[]", "22P02", '{{"1"},{"2","3"}}'),
    (
        pa.array([[("a", 1)], None, [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8())),
        "jsonb",
        "22P02",
        "[('a', 1), ('a', 2)]",
    ),
    (pa.array([{"a": 1, "b": "x"}, None, {"a": 2**33, "b": None}]), "pair", "22003", '("8589934592",)'),
    (pa.array([[0.5], None, [float("inf")]]), "jsonb", "22P02", '{"inf"}'),
    # Exactness holds inside of others, at every depth.
    (
        pa.array([{"amount": Decimal(1)}, None, {"amount": Decimal("1.2345")}], pa.struct([SALE.field("amount")])),
        "sale",
        "22003",
        '("1.2345")',
    ),
    (
        pa.array([[{"amount": Decimal(1)}], None, [{"amount": Decimal("1.2345")}]], pa.list_(SALE)),
        "sale[]",
        "22003",
        '{"(,\\"1.2345\\")"}',
    ),
    (
        pa.array([{"paid": [Decimal(1)]}, None, {"paid": [Decimal("1.2345")]}], pa.struct([SALE.field("paid")])),
        "sale",
        "22003",
        '("{\\"1.2345\\"}")',
    ),
    (pa.array([[Decimal(1)], None, [Decimal("1.2345")]]), "cents[]", "22003", '{"1.2345"}'),
    (
        pa.array([{"at": 0}, None, {"at": 1}], pa.struct([("at", pa.timestamp("ms", "UTC"))])),
        "sale",
        "22008",
        '("1970-01-01 00:00:00.001Z")',
    ),
    (
        pa.array([{"paid": [1]}, None, {"paid": [10_000]}], pa.struct([("paid", pa.list_(pa.int64()))])),
        "sale",
        "22003",
        '(,,,,"{\\"10000\\"}")',
    ),
    (pa.array([[b"x" * 16], None, [b"x" * 15]], pa.list_(pa.binary())), "uuid[]", "22P02", '{"xxxxxxxxxxxxxxx"}'),
    (
        pa.StructArray.from_arrays([pa.array(["1", "2", '1,"b":2'], pa.json_())], ["a"]),
        "jsonb",
        "22P02",
        '("1,\\"b\\":2")',
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: f"{refusal[3]!r} into {refusal[1]}")
def test_what_cannot_be_stored_is_refused_with_its_place(target: Target, refusal: Refusal) -> None:
    array, type_name, code, value = refusal
    target.create(type_name)
    written = target.write(array)
    for writer in WRITERS:
        with pytest.raises(BadRow) as refused:
            target.from_arrow(array, writer)
        error = refused.value
        assert error.location, writer
        assert (error.location.line, error.column, error.value, error.code) == (3, "c", value, code), writer
        assert target.stored() == []
        if written == array.type:
            with pytest.raises(LoadFailed) as failed:
                target.from_parquet(writer)
            where = failed.value.error.location
            assert where, writer
            assert (where.file, where.line, failed.value.error.value) == (str(target.file), 3, value), writer
            assert target.stored() == []


@pytest.mark.parametrize(
    ("arrow", "type_name", "code"),
    [
        (pa.timestamp("us", "UTC"), "timestamp", "zone_lost"),
        (pa.timestamp("us", "UTC"), "date", "zone_lost"),
        (pa.timestamp("us", "UTC"), "time", "zone_lost"),
        (pa.timestamp("us"), "time", "day_lost"),
        (pa.timestamp("us"), "timetz", "day_lost"),
        (pa.dense_union([pa.field("a", pa.int32())]), "integer", "unknown_type"),
    ],
    ids=str,
)
def test_columns_that_would_lose_a_part_of_each_value(
    target: Target, arrow: pa.DataType, type_name: str, code: str
) -> None:
    target.create(type_name)
    with pytest.raises(TargetError) as refused:
        target.from_arrow(pa.nulls(3, arrow), WriterName.COPY)
    assert (refused.value.code, refused.value.column) == (code, "c")


@pytest.mark.parametrize("names", [["a", "c"], ["a", "a"]])
def test_fields_that_a_composite_has_no_place_for(target: Target, names: list[str]) -> None:
    target.create("trip[]")
    inside = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names)
    array = listed(pa.StructArray.from_arrays([inside], ["p"]))
    with pytest.raises(TargetError) as refused:
        target.from_arrow(array, WriterName.COPY)
    assert (refused.value.code, refused.value.column) == ("unknown_field", "c[].p")
    assert names[1] in refused.value.message
    assert refused.value.hint == "Fields go by their names, and the attributes are: a, b."


@pytest.mark.parametrize("rows", [0, 1])
def test_files_without_rows_or_values(target: Target, rows: int) -> None:
    for arrow, type_name in {array.type: type_name for array, type_name, _ in CASES}.items():
        target.create(type_name)
        nothing = pa.nulls(rows, arrow)
        written = target.write(nothing)
        for writer in WRITERS:
            assert target.from_arrow(nothing, writer) == [None] * rows
            if written and is_news(written, nothing, writer):
                assert target.from_parquet(writer) == [None] * rows


# -- random values


def exact(value: Any) -> str | None:
    """All digits of a number, so that the server has to read exactly this one."""
    if value is None:
        return None
    return format(Decimal(value), "f") if math.isfinite(value) else str(value)


@settings(
    max_examples=ORACLE_EXAMPLES or 20,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(data=st.data())
def test_random_numbers_and_times_arrive_unchanged(target: Target, data: st.DataObject) -> None:
    precision = data.draw(st.integers(1, 76), "precision")
    scale = data.draw(st.integers(0, precision), "scale")
    digits = 10**precision - 1
    moments = st.integers(-210866803200000000, 2**63 - 1)
    array, type_name, texts = data.draw(
        st.one_of(
            st.lists(st.none() | st.floats()).map(
                lambda v: (pa.array(v, pa.float64()), "double precision", [*map(exact, v)])
            ),
            st.lists(st.none() | st.floats(width=32)).map(
                lambda v: (pa.array(v, pa.float32()), "real", [*map(exact, v)])
            ),
            st.lists(st.none() | st.floats()).map(
                lambda v: (
                    pa.array(v, pa.float64()),
                    "numeric",
                    [x if x is None else repr(x).removesuffix(".0") for x in v],
                )
            ),
            st.lists(st.none() | st.integers(-digits, digits)).map(
                lambda v: (
                    decimals(pa.decimal256(precision, scale), *(x if x is None else f"{x}e-{scale}" for x in v)),
                    f"numeric({precision},{scale})",
                    [x if x is None else f"{x}e-{scale}" for x in v],
                )
            ),
            st.lists(st.none() | moments).map(
                lambda v: (counted(pa.timestamp("us"), *v), "timestamp", [x if x is None else f"{x}" for x in v])
            ),
        ),
        "values",
    )
    target.create(type_name)
    if type_name == "timestamp":
        expected = target.moments(array.cast(pa.int64()).to_pylist())
    else:
        expected = target.read_by_server(texts, type_name)
    target.write(array)
    for writer in WRITERS:
        assert target.from_arrow(array, writer) == expected, writer
        assert target.from_parquet(writer) == expected, writer
