"""Which way a column of text takes: parsed by a reader right away, by a rule, or by the server. No server is asked."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from harborctl.codecs.codec import Codec, NotPlain, Session, Unstorable, codec
from harborctl.sources.json_values import JsonValue
from tests.tables import NUMERIC_10_2, column

SESSION = Session(utc=True)


@pytest.mark.parametrize(
    ("base", "modifier", "arrow", "direct"),
    [
        ("int4", -1, pa.int32(), pa.int32()),
        ("date", -1, pa.date32(), pa.date32()),
        ("numeric", NUMERIC_10_2, pa.decimal128(10, 2), pa.decimal128(10, 2)),
        ("numeric", -1, None, None),
        ("float8", -1, pa.float64(), None),
        ("text", -1, pa.string(), None),
        ("interval", -1, None, None),
    ],
)
def test_the_way_of_text(base: str, modifier: int, arrow: pa.DataType | None, direct: pa.DataType | None) -> None:
    found = codec(pa.string(), column(base, modifier=modifier), SESSION)
    assert (found.arrow, found.direct) == (arrow, direct)
    assert found.text(pa.array(["x", None])).to_pylist() == ["x", None]


def test_what_a_reader_has_parsed_is_taken_as_it_is() -> None:
    found = codec(pa.string(), column("int4"), SESSION)
    parsed = pa.array([7], pa.int32())
    assert found.convert(parsed) is parsed
    assert found.text(parsed).to_pylist() == ["7"]


def test_bytes_count_as_text_but_where_the_column_takes_bytes() -> None:
    values = pa.array([b"12"])
    assert codec(pa.binary(), column("int4"), SESSION).convert(values).to_pylist() == [12]
    assert codec(pa.binary(), column("bytea"), SESSION).convert(values).to_pylist() == [b"12"]


def test_sixteen_bytes_are_a_uuid_and_more_are_its_text() -> None:
    raw, spelled = b"\1" * 16, b"01010101-0101-0101-0101-010101010101"
    found = codec(pa.binary(), column("uuid"), SESSION)
    for values in (pa.array([raw, None]), pa.array([spelled, None])):
        assert found.convert(values).to_pylist() == [raw, None]
    with pytest.raises(NotPlain):
        found.convert(pa.array([raw, spelled]))
    assert found.text(pa.array([raw, spelled])).to_pylist() == ["01" * 16, spelled.decode()]


def json_way(base: str, **more: Any) -> Codec:
    return codec(JsonValue(), column(base, **more), SESSION)


def test_json_goes_into_documents_as_it_stands() -> None:
    assert json_way("jsonb").convert(pa.array(['{"a": 1}'])).to_pylist() == [b'\x01{"a": 1}']
    assert json_way("jsonb").direct is None
    assert json_way("int4").direct == pa.string()  # the reader tells the text


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("[]", "{}"),
        ("[1, null]", '{"1",NULL}'),
        ("[[1], [2]]", '{{"1"},{"2"}}'),
        ('["a\\"b"]', '{"a\\"b"}'),
        ('"{1,2}"', "{1,2}"),
        ("null", None),
    ],
)
def test_json_becomes_array_literals(value: str, literal: str | None) -> None:
    found = json_way("_text", element=column("text", ""))
    assert found.text(pa.array([value])).to_pylist() == [literal]
    with pytest.raises(NotPlain):
        found.convert(pa.array([value]))


@pytest.mark.parametrize(
    ("value", "code"), [("1", "22P02"), ("[[1], [2, 3]]", "22P02"), ("[[1], 2]", "22P02"), ("[[[[[[[1]]]]]]]", "54000")]
)
def test_json_of_another_form_is_refused_with_its_row(value: str, code: str) -> None:
    with pytest.raises(Unstorable) as refused:
        json_way("_int4", element=column("int4", "")).text(pa.array(["[1]", value]))
    assert (refused.value.row, refused.value.code, refused.value.value) == (1, code, value)


def test_json_becomes_rows_by_the_names_of_fields() -> None:
    found = json_way("point", kind="c", attributes=(column("int4", "x"), column("text", "y"), column("json", "z")))
    values = pa.array(['{"y": "a,b", "x": 1, "other": 2}', '{"z": "s"}', '"(1,2,)"'])
    assert found.text(values).to_pylist() == ['("1","a,b",)', '(,,"\\"s\\"")', "(1,2,)"]
