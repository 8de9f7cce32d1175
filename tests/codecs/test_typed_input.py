"""Typed values into columns: each arrives as it is, or is refused with its row and a reason. No server is asked."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from harborctl.codecs.codec import Codec, NotPlain, Session, Unstorable, codec
from harborctl.db.catalog import TargetColumn
from harborctl.errors import TargetError
from tests.tables import NUMERIC_10_2, column

HOUR, SECOND = 1 << 10, 1 << 12  # of an interval's modifier: utils/timestamp.h
NUMERIC = column("numeric", modifier=NUMERIC_10_2)
MILLISECONDS = column("timestamp", modifier=3)
WHOLE_HOURS = column("interval", modifier=HOUR << 16 | 0xFFFF)
MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)


def way(source: pa.DataType, target: TargetColumn) -> Codec:
    return codec(source, target, Session(utc=True))


def both(array: pa.Array, target: TargetColumn) -> tuple[list[Any], list[Any]]:
    """The values as the binary way has them, and as the way through text has them."""
    found = way(array.type, target)
    return found.convert(array).to_pylist(), found.text(array).to_pylist()


@pytest.mark.parametrize(
    ("array", "target", "binary", "text"),
    [
        (pa.array([1, None], pa.int64()), column("int2"), [1, None], ["1", None]),
        (pa.array([2.0]), column("int4"), [2], ["2"]),
        (pa.array([Decimal("3.00")], pa.decimal64(5, 2)), column("int8"), [3], ["3"]),
        (pa.array([Decimal("0.1")]), column("float4"), [0.10000000149011612], ["0.1"]),
        (pa.array([2**60]), column("float8"), [2.0**60], ["1.152921504606847e+18"]),
        (pa.array([1.25]), NUMERIC, [Decimal("1.25")], ["1.25"]),
        (pa.array([Decimal("1.5")]), column("numeric"), [Decimal("1.5")], ["1.5"]),
        (pa.array([True]), column("bool"), [True], ["true"]),
        (pa.array([date(2024, 2, 29)]), column("date"), [date(2024, 2, 29)], ["2024-02-29"]),
        (pa.array([MOMENT]), column("timestamptz"), [MOMENT], ["2024-02-29 12:00:00.000000Z"]),
        (pa.array([time(1, 2, 3)]), column("time"), [time(1, 2, 3)], ["01:02:03.000000"]),
        (pa.array([timedelta(hours=30)]), column("interval"), [timedelta(hours=30)], ["30:00:00.000000"]),
        (pa.array([timedelta(hours=30)]), WHOLE_HOURS, [timedelta(hours=30)], ["30:00:00.000000"]),
        (pa.array([b"\0"]), column("bytea"), [b"\0"], ["\\x00"]),
        (pa.array([b"\1" * 16], pa.binary(16)), column("uuid"), [b"\1" * 16], ["01" * 16]),
        (pa.array([["a", None]]), column("json"), ['["a",null]'], ['["a",null]']),
        (pa.array([1]), column("text"), ["1"], ["1"]),
        (pa.array(["a"]).dictionary_encode(), column("text"), ["a"], ["a"]),
        (pa.nulls(2), column("int4"), [None, None], [None, None]),
    ],
)
def test_values_arrive_as_they_are(array: pa.Array, target: TargetColumn, binary: list[Any], text: list[Any]) -> None:
    assert both(array, target) == (binary, text)


@pytest.mark.parametrize(
    ("array", "target", "code"),
    [
        (pa.array([1, 40000]), column("int2"), "22003"),
        (pa.array([1.0, 1.5]), column("int4"), "22003"),
        (pa.array([0.5, 1 / 3]), column("float4"), "22003"),
        (pa.array([1, 2**60 + 1]), column("float8"), "22003"),
        (pa.array([1.25, 1.255]), NUMERIC, "22003"),
        (pa.array([1.25, 1e-7]), column("money"), "22003"),
        (pa.array([0, 1], pa.timestamp("ns")), column("timestamp"), "22008"),
        (pa.array([1000, 1], pa.timestamp("us")), MILLISECONDS, "22008"),
        (pa.array([0, 1], pa.timestamp("s")), column("date"), "22008"),
        (pa.array([0, -(2**31)], pa.date32()), column("date"), "22008"),
        (pa.array([0, 90 * 60], pa.duration("s")), WHOLE_HOURS, "22008"),
        (pa.array([b"a", b"\xff"]), column("text"), "22021"),
        (pa.array([1.0, float("nan")]), column("json"), "22P02"),
        (pa.array([[[1]], [[]]]), column("_int4", element=column("int4", "")), "22P02"),
    ],
)
def test_what_would_change_is_refused_with_its_row(array: pa.Array, target: TargetColumn, code: str) -> None:
    found = way(array.type, target)
    with pytest.raises(Unstorable) as refused:
        found.text(array)
    assert (refused.value.row, refused.value.code) == (1, code)
    assert found.text(array[:1]).null_count == 0


def test_nan_goes_by_text_into_numerics_and_as_it_is_into_floats() -> None:
    nan = pa.array([float("nan")])
    found = way(nan.type, NUMERIC)
    assert found.text(nan).to_pylist() == ["nan"]
    with pytest.raises(NotPlain):
        found.convert(nan)
    assert str(way(nan.type, column("float4")).convert(nan)[0]) == "nan"


@pytest.mark.parametrize(
    ("source", "target", "code"),
    [
        (pa.timestamp("us", "UTC"), column("timestamp"), "zone_lost"),
        (pa.timestamp("us"), column("time"), "day_lost"),
        (pa.struct([("x", pa.int32())]), column("point", kind="c", attributes=(column("int4", "y"),)), "unknown_field"),
        (pa.dense_union([pa.field("a", pa.int32())]), column("text"), "unknown_type"),
    ],
)
def test_types_of_which_a_part_would_be_lost(source: pa.DataType, target: TargetColumn, code: str) -> None:
    with pytest.raises(TargetError) as refused:
        way(source, target)
    assert (refused.value.code, refused.value.column) == (code, "c")


def test_lists_and_structs_become_literals() -> None:
    numbers = column("_int4", element=column("int4", ""))
    array = pa.array([[[1, None], [3, 4]], [], None], pa.list_(pa.list_(pa.int32())))
    assert way(array.type, numbers).text(array).to_pylist() == ['{{"1",NULL},{"3","4"}}', "{}", None]
    point = column("point", kind="c", attributes=(column("text", "a"), column("int4", "b"), column("int4", "z")))
    rows = pa.array([{"b": 1, "a": 'x"\\,'}, None])
    assert way(rows.type, point).text(rows).to_pylist() == ['("x\\"\\\\,","1",)', None]


def test_a_value_inside_of_another_is_named_with_its_place() -> None:
    point = column("point", "at", kind="c", attributes=(column("int2", "x"),))
    rows = pa.array([{"x": 1}, {"x": 40000}])
    with pytest.raises(Unstorable, match=r"40000 cannot be stored in int2 unchanged") as refused:
        way(rows.type, point).text(rows)
    assert refused.value.row == 1
