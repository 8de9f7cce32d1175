"""Which texts Arrow may read, as what, and which are left to the server. No server is asked."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from harborctl.codecs.text_input import NotPlain, Session, decimal_type, numeral_of, numeric_scale, text_rule
from tests.tables import NUMERIC_10_2, column

IN_UTC, ELSEWHERE = Session(utc=True), Session(utc=False)


def read(base: str, *texts: str | None, session: Session = IN_UTC, modifier: int = -1) -> list[Any]:
    """What the fast way makes of these texts."""
    rule = text_rule(column(base, modifier=modifier), session)
    assert rule is not None
    arrow, convert = rule
    array = convert(pa.array(texts, pa.string()))
    assert array.type == arrow
    values: list[Any] = array.to_pylist()
    return values


@pytest.mark.parametrize(
    ("base", "text", "value"),
    [
        ("int2", "-32768", -32768),
        ("int4", "007", 7),
        ("int8", "9223372036854775807", 2**63 - 1),
        ("float8", "1e-3", 0.001),
        ("float8", "-0.0", 0.0),
        ("text", " a ", " a "),
        ("varchar", "", ""),
        ("bool", "YES", True),
        ("bool", "of", False),
        ("date", "0001-01-01", date(1, 1, 1)),
        ("date", "2024-02-29", date(2024, 2, 29)),
        ("timestamp", "2024-02-29 23:59:59.5", datetime(2024, 2, 29, 23, 59, 59, 500000)),
        ("timestamptz", "2024-02-29 12:00:00+14", datetime(2024, 2, 28, 22, tzinfo=UTC)),
        ("timestamptz", "2024-02-29 12:00:00", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("time", "23:59:59.000001", time(23, 59, 59, 1)),
        ("uuid", "00112233-4455-6677-8899-AABBCCDDEEFF", bytes.fromhex("00112233445566778899aabbccddeeff")),
        ("bytea", "\\x00ff", b"\x00\xff"),
        ("bytea", "\\x", b""),
        ("json", "[1, 2]", "[1, 2]"),
        ("jsonb", "[1, 2]", b"\x01[1, 2]"),
    ],
)
def test_what_arrow_reads_as_postgresql_does(base: str, text: str, value: object) -> None:
    assert read(base, None, text) == [None, value]


@pytest.mark.parametrize(
    ("base", "text"),
    [
        ("int4", "0xFFFFFFFF"),  # a bit pattern to Arrow
        ("int4", " 7"),
        ("int4", "2147483648"),
        ("float8", "1e999"),
        ("float8", "1e-999"),  # not 0 as it is written
        ("float8", "infinity"),
        ("bool", "o"),  # on, or off
        ("bool", "2"),
        ("date", "0000-12-31"),
        ("date", "29.02.2024"),
        ("date", "today"),
        ("timestamp", "2024-02-29 23"),
        ("timestamp", "0000-12-31 23:59:59"),
        ("timestamptz", "2024-02-29 12:00:00+15"),
        ("time", "24:00"),
        ("uuid", "{00112233-4455-6677-8899-aabbccddeeff}"),
        ("bytea", "\\000"),
        ("bytea", "\\x0"),
    ],
)
def test_what_only_the_server_can_read(base: str, text: str) -> None:
    with pytest.raises(NotPlain):
        read(base, None, text)


def test_time_without_a_zone_is_read_where_the_session_is_in_utc() -> None:
    with pytest.raises(NotPlain):
        read("timestamptz", "2024-02-29 12:00:00", session=ELSEWHERE)
    assert read("timestamptz", "2024-02-29 12:00:00Z", session=ELSEWHERE) == [datetime(2024, 2, 29, 12, tzinfo=UTC)]


def test_numeric_has_a_fast_way_where_its_scale_is_known() -> None:
    assert read("numeric", "12.3", modifier=NUMERIC_10_2) == [Decimal("12.30")]
    with pytest.raises(NotPlain):
        read("numeric", "1e1", modifier=NUMERIC_10_2)
    with pytest.raises(NotPlain):
        read("numeric", "12.345", modifier=NUMERIC_10_2)  # the server rounds
    assert text_rule(column("numeric"), IN_UTC) is None
    assert decimal_type(column("numeric", modifier=NUMERIC_10_2)) == pa.decimal128(10, 2)
    assert decimal_type(column("numeric", modifier=(39 << 16 | 2) + 4)) is None


@pytest.mark.parametrize("scale", [-1000, -1, 0, 2, 1000])
def test_the_scale_of_a_numeric(scale: int) -> None:
    assert numeric_scale((10 << 16 | scale & 0x7FF) + 4) == scale


def test_a_type_of_the_users_own_is_not_taken_for_the_systems() -> None:
    assert text_rule(column("date", kind="c"), IN_UTC) is None
    assert text_rule(column("int4", kind="r"), IN_UTC) is None


def test_a_slice_of_an_array_is_read_without_the_rest() -> None:
    rule = text_rule(column("int4"), IN_UTC)
    assert rule is not None
    assert rule[1](pa.array(["0x1", "2", "0x3"])[1:2]).to_pylist() == [2]


@pytest.mark.parametrize(("base", "text", "is_one"), [("int4", " +0x1F\v", True), ("int4", "1,5", False)])
def test_numerals_are_told_by_their_looks(base: str, text: str, *, is_one: bool) -> None:
    numeral = numeral_of(column(base))
    assert numeral is not None
    assert pc.match_substring_regex(pa.array([text]), numeral.pattern).to_pylist() == [is_one]
    assert numeral_of(column("date")) is None
