"""Batches as bytes that COPY reads: its binary format where every column has one, else its text. No server is asked."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest

from harborctl.codecs.codec import Session, codec
from harborctl.db.catalog import TargetColumn
from harborctl.errors import BadRow
from harborctl.load.plan.plan import Plan, PlannedColumn
from harborctl.load.write.encode import CopyFormat, Encoder, copy_text
from harborctl.model import Mode
from tests.tables import batch, column, target


def plan(*columns: TargetColumn, source: pa.DataType | None = None, constant: str | None = None) -> Plan:
    """Of columns of text, or of type `source`; the last is a constant if one is given."""
    planned = [
        PlannedColumn(each, position, None, codec(source or pa.string(), each, Session(utc=True)))
        for position, each in enumerate(columns)
    ]
    if constant is not None:
        last = planned[-1].target
        planned[-1] = PlannedColumn(last, None, constant, codec(pa.string(), last, Session(utc=True)))
    return Plan(target(*columns), Mode.APPEND, tuple(planned))


def data(plan: Plan, *arrays: pa.Array) -> tuple[CopyFormat, bytes]:
    encoded = Encoder(plan).one(batch(*arrays))
    written = b"".join(bytes(part) for part in encoded.data)
    assert encoded.size == len(written)
    return encoded.format, written


def record(*fields: bytes | None) -> bytes:
    """One row of COPY's binary format: how many fields, and each with its length; NULL is -1."""
    lengths = (struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field for field in fields)
    return struct.pack(">h", len(fields)) + b"".join(lengths)


def test_binary_where_every_column_has_an_exact_way() -> None:
    columns = column("int4", "a"), column("text", "b"), column("date", "c")
    arrays = pa.array(["1", None]), pa.array(["é", ""]), pa.array(["2000-01-02", "1999-12-31"])
    one = record(struct.pack(">i", 1), "é".encode(), struct.pack(">i", 1))
    two = record(None, b"", struct.pack(">i", -1))
    assert data(plan(*columns), *arrays) == (CopyFormat.BINARY, one + two)


def test_text_where_a_column_has_none() -> None:
    columns = column("int4", "a"), column("interval", "b")
    assert data(plan(*columns), pa.array(["1", None]), pa.array(["1 day", "x"])) == (
        CopyFormat.TEXT,
        b"1\t1 day\n\\N\tx\n",
    )


def test_text_for_a_batch_with_a_value_that_only_the_server_reads() -> None:
    assert data(plan(column("int4")), pa.array(["1", "0x10"])) == (CopyFormat.TEXT, b"1\n0x10\n")
    # Before Julian day 0 there is no binary form; the server says what is wrong.
    assert data(plan(column("date")), pa.array(["0001-01-01"]))[0] is CopyFormat.BINARY


def test_constants_are_read_like_fields() -> None:
    columns = column("int4", "a"), column("int2", "b")
    expected = record(struct.pack(">i", 1), struct.pack(">h", 7))
    assert data(plan(*columns, constant="7"), pa.array(["1"])) == (CopyFormat.BINARY, expected)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (["a\tb", "c\nd"], "a\\tb\tc\\nd\n"),
        (["\\N", "\r"], "\\\\N\t\\r\n"),
        ([None, ""], "\\N\t\n"),
        (["\\.", "ä"], "\\\\.\tä\n"),
    ],
)
def test_text_is_one_line_a_row_whatever_the_fields_hold(fields: list[str | None], line: str) -> None:
    assert copy_text([pa.array([field], pa.string()) for field in fields]) == line.encode()


def test_a_nul_is_refused_with_its_place_unless_it_lies_below_a_null() -> None:
    with pytest.raises(BadRow) as refused:
        Encoder(plan(column("text"))).as_text(batch(pa.array(["a", "b\0c"]), first_line=5))
    location = refused.value.location
    assert location is not None
    assert (refused.value.code, location.line, refused.value.column, refused.value.value) == ("22021", 6, "c", "b\0c")
    buffers = [pa.py_buffer(b"\0"), pa.py_buffer(struct.pack("=ii", 0, 1)), pa.py_buffer(b"\0")]
    hidden = pa.Array.from_buffers(pa.string(), 1, buffers)
    assert Encoder(plan(column("text"))).as_text(batch(hidden)).data == (b"\\N\n",)


def test_a_value_that_would_change_is_refused_with_its_place() -> None:
    with pytest.raises(BadRow) as refused:
        Encoder(plan(column("int2"), source=pa.int64())).one(batch(pa.array([1, 40000])))
    location = refused.value.location
    assert location is not None
    assert (refused.value.code, location.line, refused.value.value) == ("22003", 3, "40000")


def test_batches_without_rows_are_left_out() -> None:
    empty, full = batch(pa.array([], pa.string())), batch(pa.array(["1"]))
    assert [each.batch for each in Encoder(plan(column("int4"))).encode([empty, full, empty])] == [full]
