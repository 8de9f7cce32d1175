"""Which column goes where, and by which way rows travel. No server is asked."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from harborctl.codecs.codec import Session
from harborctl.db.catalog import Target
from harborctl.errors import HarborctlError
from harborctl.load.options import load_options
from harborctl.load.plan.plan import Plan, Route, make_plan
from harborctl.load.plan.route import SMALL_LOAD_ROWS, choose_writer, routed
from harborctl.model import Mode, OnError, SourceFormat, WriterName
from harborctl.sources.batch import RAW_COLUMN
from tests.tables import Header, batch, column, key, target

ID = column("int4", "id", required=True, not_null=True)
NAME, PRICE = column("text", "name"), column("numeric", "price")
TOTAL = column("numeric", "total", generated=True)
ORDERS = target(ID, NAME, PRICE, TOTAL, keys=(key("id", is_primary=True),))


def planned(source: Header, table: Target = ORDERS, **said: Any) -> Plan:
    return make_plan(source, table, load_options(sources=["orders.csv"], **said), Session(utc=True))


def fills(plan: Plan) -> dict[str, int | str | None]:
    """Column of the target → position, or constant."""
    return {each.target.name: each.constant if each.position is None else each.position for each in plan.columns}


@pytest.mark.parametrize(
    ("source", "said", "expected"),
    [
        (Header("name", "id"), {}, {"name": 0, "id": 1}),
        (Header("ID", " Name "), {}, {"id": 0, "name": 1}),
        (Header("id", "n"), {"map": ["n=name"]}, {"id": 0, "name": 1}),
        (Header("id", "x", "x"), {"map": ["#3=name"], "skip_columns": ["#2"]}, {"id": 0, "name": 2}),
        (Header("id"), {"map": ["id=id", "id=name"]}, {"id": 0, "name": 0}),
        (Header("id"), {"set": ["name=a=b"]}, {"id": 0, "name": "a=b"}),
        (Header("name"), {"set": ["id=1"]}, {"name": 0, "id": "1"}),
        (Header("id", RAW_COLUMN), {}, {"id": 0}),
        (Header("id", ""), {}, {"id": 0}),
        (Header("1", "2", "3", named=False), {}, {"id": 0, "name": 1, "price": 2}),
        (Header("1", "2", named=False), {"set": ["name=a"]}, {"id": 0, "price": 1, "name": "a"}),
        (Header("1", "2", named=False), {"skip_columns": ["#2"]}, {"id": 0}),
    ],
)
def test_where_columns_go(source: Header, said: dict[str, Any], expected: dict[str, Any]) -> None:
    assert fills(planned(source, **said)) == expected


@pytest.mark.parametrize(
    ("source", "said", "code", "option"),
    [
        (Header("id", "nam"), {}, "42703", "--map nam=name"),
        (Header("id", "zzz"), {}, "42703", "--skip-columns zzz"),
        (Header("id", "", "name"), {}, "42703", "--skip-columns '#2'"),
        (Header("id", "name", "Name"), {}, "42701", "--skip-columns Name"),
        (Header("id", "name"), {"set": ["name=a"]}, "42701", "--skip-columns name"),
        (Header("id", "total"), {}, "428C9", "--skip-columns total"),
        (Header("name"), {}, "23502", "--set id=VALUE"),
        (Header("id;name"), {}, "42703", "--delimiter ';'"),
        (Header("1", "2", "3", "4", named=False), {}, "42703", "--skip-columns 4"),
        (Header("id"), {"map": ["id=nam"]}, "42703", None),
        (Header("id"), {"skip_columns": ["nam"]}, "42703", None),
        (Header("id"), {"set": ["nam=1"]}, "42703", None),
        (Header("id"), {"force_null": ["name"]}, "42703", None),
    ],
)
def test_what_has_no_place_is_refused_with_a_way_out(
    source: Header, said: dict[str, Any], code: str, option: str | None
) -> None:
    with pytest.raises(HarborctlError) as refused:
        planned(source, **said)
    assert refused.value.code == code
    assert option is None or option in (refused.value.hint or "")


def test_columns_that_are_missing_are_so_only_where_rows_are_new() -> None:
    assert planned(
        Header("id"), target(ID, column("text", "sku", required=True), keys=ORDERS.keys), mode=Mode.UPSERT
    ).lacks
    with pytest.raises(HarborctlError):
        planned(Header("id"), target(ID, column("text", "sku", required=True)))
    filled_in = target(ID, column("text", "sku", required=True), before_triggers=("fills",))
    assert planned(Header("id"), filled_in).lacks == ()


def test_what_force_null_makes_of_fields() -> None:
    plan = planned(Header("id", "name"), null=["-"], force_null=["name"], force_not_null=["id"])
    one, two = (each.nulls for each in plan.columns)
    assert one is not None
    assert two is not None
    assert one.of(pa.array(["1", None])).to_pylist() == ["1", "-"]
    assert two.of(pa.array(["-", "x", None])).to_pylist() == [None, "x", None]
    assert all(each.nulls is None for each in planned(Header("id", kind=SourceFormat.PARQUET)).columns)


def test_a_decimal_comma_is_one_in_columns_with_decimals() -> None:
    plan = planned(Header("name", "price", "id"), decimal=",")
    name, price, _ = plan.columns
    assert price.codec.text(pa.array(["1,5", None])).to_pylist() == ["1.5", None]
    assert name.codec.text(pa.array(["1,5"])).to_pylist() == ["1,5"]


@pytest.mark.parametrize(
    ("table", "said", "writer", "expected"),
    [
        (ORDERS, {}, WriterName.COPY, (Route.DIRECT, True, False)),
        (ORDERS, {}, WriterName.VALUES, (Route.DIRECT, False, False)),
        (ORDERS, {"mode": Mode.UPSERT}, WriterName.COPY, (Route.STAGED, True, False)),
        (ORDERS, {"mode": Mode.UPSERT}, WriterName.VALUES, (Route.STAGED, False, False)),
        (ORDERS, {"on_error": OnError.REJECT}, WriterName.COPY, (Route.DIRECT, True, True)),
        (ORDERS, {"check": ["id > 0"]}, WriterName.VALUES, (Route.DIRECT, False, True)),
        (target(ID, kind="v"), {}, WriterName.COPY, (Route.STAGED, True, False)),
        (target(ID, kind="v"), {"on_error": OnError.REJECT}, WriterName.COPY, (Route.DIRECT, False, True)),
        (target(ID, filtered=True), {}, WriterName.COPY, (Route.STAGED, True, False)),
        (target(ID, refers_to_itself=True), {}, WriterName.COPY, (Route.DIRECT, True, False)),
        (target(ID, refers_to_itself=True), {}, WriterName.VALUES, (Route.STAGED, False, False)),
    ],
)
def test_copy_or_insert_straight_or_staged(
    table: Target, said: dict[str, Any], writer: WriterName, expected: tuple[Route, bool, bool]
) -> None:
    options = load_options(sources=["orders.csv"], **said)
    plan = routed(make_plan(Header("id"), table, options, Session(utc=True)), options, writer)
    assert (plan.route, plan.copies, plan.isolates) == expected


@pytest.mark.parametrize(
    ("said", "rows", "plans", "writer"),
    [
        ({}, SMALL_LOAD_ROWS, 1, WriterName.VALUES),
        ({}, SMALL_LOAD_ROWS + 1, 1, WriterName.COPY),
        ({}, 1, 2, WriterName.COPY),
        ({"writer": WriterName.COPY}, 1, 1, WriterName.COPY),
        ({"writer": WriterName.VALUES}, SMALL_LOAD_ROWS + 1, 2, WriterName.VALUES),
    ],
)
def test_small_loads_go_by_insert(said: dict[str, Any], rows: int, plans: int, writer: WriterName) -> None:
    options = load_options(sources=["orders.csv"], **said)
    plan = make_plan(Header("id"), ORDERS, options, Session(utc=True))
    batches = [batch(pa.array(["1"] * (rows - rows // 2))), batch(pa.array(["1"] * (rows // 2)))]
    chosen, seen = choose_writer(options, [plan] * plans, iter(batches))
    assert chosen is writer
    assert list(seen) == batches
