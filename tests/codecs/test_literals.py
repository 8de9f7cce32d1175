"""Arrow values as text: all digits, every year, nothing rounded; and as JSON. No server is asked."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from harborctl.codecs.literals import Inexpressible, bare, dimensions_of, json_form, text_form


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (pa.array([0.1, -0.0, 1e300]), ["0.1", "-0", "1e+300"]),
        (pa.array([1.5], pa.float16()), ["1.5"]),
        (pa.array([1], pa.int64()).cast(pa.decimal128(38, 0)).cast(pa.decimal128(38, 10)), ["1.0000000000"]),
        (pa.array([-719163, -719162, 2932897], pa.date32()), ["0001-12-31 BC", "0001-01-01", "10000-01-01"]),
        (pa.array([-62135596801], pa.timestamp("s")), ["0001-12-31 23:59:59 BC"]),
        (pa.array([253402300800], pa.timestamp("s", "UTC")), ["10000-01-01 00:00:00Z"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001"]),
        (pa.array([86399], pa.time32("s")), ["23:59:59"]),
        (pa.array([-90061], pa.duration("s")), ["-25:01:01"]),
        (pa.array([(1, 2, -3)], pa.month_day_nano_interval()), ["1 mons 2 days -00:00:00.000000003"]),
        (pa.array([b"\0\xff", None]), ["\\x00ff", None]),
        (pa.array([["NULL", None, 'a"\\']]), ['{"NULL",NULL,"a\\"\\\\"}']),
        (pa.array([{"a": None, "b": ""}]), ['(,"")']),
        (pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int32())), ['{"a":1,"b":null}']),
        (pa.nulls(1), [None]),
    ],
)
def test_text_of_values(array: pa.Array, text: list[str | None]) -> None:
    assert text_form(array).to_pylist() == text


@pytest.mark.parametrize(
    ("array", "document"),
    [
        (pa.array(["{}"]), '"{}"'),  # a value, no document
        (pa.array(["{}"], pa.large_string()), '"{}"'),
        (pa.array([[1, None]]), "[1,null]"),
        (pa.array([{"a": [True], "b": None}]), '{"a":[true],"b":null}'),
        (pa.array([0], pa.timestamp("s")), '"1970-01-01T00:00:00"'),
        (pa.array([[(1, "x")]], pa.map_(pa.int32(), pa.string())), '{"1":"x"}'),
        (pa.array([b"\x01"]), '"\\\\x01"'),
    ],
)
def test_json_of_values(array: pa.Array, document: str) -> None:
    assert json_form(array).to_pylist() == [document]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([float("nan")]),
        pa.array([float("inf")]),
        pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int32())),
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]),
    ],
)
def test_what_json_has_no_way_to_write(array: pa.Array) -> None:
    with pytest.raises(Inexpressible):
        json_form(array)


def test_how_values_are_stored_makes_no_difference() -> None:
    values: list[Any] = ["a", "a", None]
    plain = pa.array(values)
    for stored in (
        plain.dictionary_encode(),
        pa.RunEndEncodedArray.from_arrays(pa.array([2, 3]), pa.array(["a", None])),
    ):
        assert bare(stored).to_pylist() == values


def test_an_empty_list_in_a_list() -> None:
    with pytest.raises(Inexpressible):
        text_form(pa.array([[[1], []]]))
    assert text_form(pa.array([[]], pa.list_(pa.list_(pa.int32())))).to_pylist() == ["{}"]


def test_dimensions() -> None:
    assert dimensions_of(pa.int32()) == 0
    assert dimensions_of(pa.list_(pa.large_list(pa.int32()))) == 2
