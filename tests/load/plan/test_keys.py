"""Which unique index a load goes by, and what its merge writes. No server is asked."""

from __future__ import annotations

from typing import Any

import pytest

from harborctl.db.catalog import Target
from harborctl.errors import AccessDenied, HarborctlError, TargetError, UsageError
from harborctl.load.plan.keys import MergePlan, plan_merge
from harborctl.model import MergeOptions, Mode
from tests.tables import column, key, target

ID, SKU, NAME, AT = column("int4", "id"), column("text", "sku"), column("text", "name"), column("timestamptz", "at")
PRIMARY = key("id", is_primary=True)
BY_SKU = key("sku")
BY_LOWER = key("lower(sku)", columns=("sku",))
LIVE = key("sku", condition="(gone IS NULL)")
LATE = key("name", obstacle="deferrable")


def merged(table: Target, mode: Mode = Mode.UPSERT, **options: Any) -> MergePlan:
    """The merge of a load that fills all columns but `at`."""
    names = [each.name for each in table.columns if each.name != "at"]
    return plan_merge(table, mode, MergeOptions(**options), names, {name: f"leave {name} out" for name in names})


def orders(*keys: Any, **more: Any) -> Target:
    return target(ID, SKU, NAME, AT, keys=keys, **more)


@pytest.mark.parametrize(
    ("keys", "wanted", "chosen"),
    [
        ((PRIMARY, BY_SKU), (), PRIMARY),
        ((BY_SKU,), (), BY_SKU),
        ((BY_LOWER, BY_SKU), (), BY_SKU),
        ((PRIMARY, BY_SKU), ("sku",), BY_SKU),
        ((PRIMARY, BY_SKU), ("SKU",), BY_SKU),
        ((PRIMARY, BY_LOWER, BY_SKU), ("lower( sku )",), BY_LOWER),
        ((PRIMARY, BY_LOWER), ("sku",), BY_LOWER),
        ((LIVE, BY_SKU), ("sku",), BY_SKU),
        ((LIVE, PRIMARY), ("sku",), LIVE),
        ((key("sku", "name"),), ("name", "sku"), key("sku", "name")),
        ((key("COALESCE(name, ''::text)", columns=("name",)),), ("coalesce(name,'')",), "COALESCE(name, ''::text)"),
    ],
)
def test_the_key(keys: tuple[Any, ...], wanted: tuple[str, ...], chosen: Any) -> None:
    found = merged(orders(*keys), key=wanted).key
    assert found == chosen or found.parts[0].text == chosen


@pytest.mark.parametrize(
    ("keys", "options", "code", "hint"),
    [
        ((), {}, "no_key", "Add a primary key or a unique constraint to it."),
        ((BY_SKU, key("name")), {}, "no_key", "Say --key COLUMNS; unique there: (sku); (name)."),
        ((LATE,), {}, "no_key", "Add a primary key or a unique constraint to it."),
        ((PRIMARY,), {"key": ("sku",)}, "42P10", "Say --key COLUMNS; unique there: (id)."),
        ((PRIMARY,), {"key": ("skuu",)}, "42703", "Did you mean sku?"),
        ((key("at"),), {"key": ("at",)}, "42703", "Name one with --map SOURCE=at, or choose another --key."),
        ((PRIMARY,), {"keep": ("nam",)}, "42703", "Did you mean name?"),
        ((PRIMARY,), {"newest_by": "at"}, "42703", "Name a column that both the source and the table have."),
        ((PRIMARY,), {"touch": "name"}, "42804", "Name a timestamp column."),
    ],
)
def test_what_is_no_key_and_what_to_do(keys: tuple[Any, ...], options: dict[str, Any], code: str, hint: str) -> None:
    with pytest.raises(HarborctlError) as refused:
        merged(orders(*keys), **options)
    assert (refused.value.code, refused.value.hint) == (code, hint)


def test_an_index_that_no_load_can_go_by_is_named() -> None:
    with pytest.raises(TargetError, match=r"; that on \(name\) is deferrable, which no load can go by"):
        merged(orders(LATE))


def test_sync_goes_by_an_index_that_holds_for_all_rows() -> None:
    with pytest.raises(TargetError, match="does not hold for all rows") as refused:
        merged(orders(LIVE, PRIMARY), Mode.SYNC, key=("sku",))
    assert refused.value.hint == "Say --key COLUMNS; unique there: (id)."


def test_columns_that_are_overwritten() -> None:
    assert merged(orders(PRIMARY)).overwritten == ("sku", "name")
    assert merged(orders(PRIMARY), keep=("sku",)).overwritten == ("name",)
    assert merged(orders(BY_LOWER), key=("lower(sku)",)).overwritten == ("id", "sku", "name")


@pytest.mark.parametrize("kind", ["v", "f", "m"])
def test_views_and_foreign_tables_have_no_key(kind: str) -> None:
    with pytest.raises(TargetError, match="has no unique index for mode upsert to go by"):
        merged(orders(PRIMARY, kind=kind))


def test_types_without_an_order_say_nothing_of_newer() -> None:
    table = target(ID, column("json", "name"), keys=(PRIMARY,))
    with pytest.raises(UsageError, match="whose type json has no order"):
        merged(table, newest_by="name")


def test_identity_columns_are_not_updated() -> None:
    table = target(ID, column("int4", "name", always_identity=True), keys=(PRIMARY,))
    with pytest.raises(TargetError) as refused:
        merged(table)
    assert refused.value.hint == "Use it for new rows only with --keep name, or leave name out."
    assert merged(table, Mode.IGNORE).key == PRIMARY
    assert merged(table, keep=("name",)).overwritten == ()


def test_what_is_compared_must_be_readable() -> None:
    table = target(ID, column("text", "name", readable=False), keys=(PRIMARY,))
    with pytest.raises(AccessDenied):
        merged(table)
    assert merged(table, Mode.IGNORE).key == PRIMARY
    assert merged(table, keep=("name",)).key == PRIMARY
