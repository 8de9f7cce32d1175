"""Random sequences of loads against a model: a dictionary plays the table, and says what each load must do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harborctl.load.merge.statements import FEW_ROWS
from harborctl.load.run.loader import LoadFailed
from harborctl.model import Limit, OnDuplicate
from tests.conftest import engine_of, made_database
from tests.load.direct import COUNTERS, csv_text, load_file
from tests.load.sizes import EXAMPLES

Row = dict[str, Any]

# name: definition of its key, columns of the key, --key, whether NULL is a key
TABLES = {
    "plain": ("PRIMARY KEY (k)", ("k",), (), False),
    "other": ("UNIQUE (k)", ("k",), ("k",), False),
    "pair": ("UNIQUE NULLS NOT DISTINCT (k, l)", ("k", "l"), ("k", "l"), True),
}
COLUMNS = ("k", "l", "name", "doc", "at")

# Keys of so many rows that they are joined in another way than few.
MANY = range(10, 10 + FEW_ROWS + 1)


@pytest.fixture(scope="module")
def playground(server_url: str, template_database: str) -> Iterator[sqlalchemy.Engine]:
    with made_database(server_url, f"harborctl_model_{os.getpid()}", template=template_database) as url:
        engine = engine_of(url)
        with engine.begin() as connection:
            for name, (key, *_) in TABLES.items():
                columns = "k integer, l text, name text, doc json, at integer"
                connection.exec_driver_sql(f"CREATE TABLE {name} ({columns}, {key})")
        yield engine
        engine.dispose()


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


@st.composite
def loads(draw: st.DrawFn, table: str) -> dict[str, Any]:
    _, key, _, null_is_key = TABLES[table]
    mode = draw(st.sampled_from(["append", "ignore", "upsert", "upsert", "upsert", "sync", "replace"]))
    wanted = draw(st.sets(st.sampled_from(["l", "name", "doc", "at"])))
    newest_by = "at" if mode == "upsert" and draw(st.booleans()) else None
    columns = [name for name in COLUMNS if name in wanted or name in key or name == newest_by]
    numbers = st.integers(0, 6)
    fields = {
        "k": some(numbers) if null_is_key else numbers,
        "l": st.sampled_from([None, "", "a"]),
        "name": st.sampled_from([None, "", "x", "y"]),
        "doc": st.sampled_from([None, "1", '{"a": 1}', '{"a":1}']),
        "at": some(st.integers(0, 3)),
    }
    row = st.fixed_dictionaries({name: fields[name] for name in columns})
    rows = draw(st.lists(row, max_size=8))
    if draw(st.integers(0, 7)) == 7:
        one = draw(row)
        many = [one | {"k": number} for number in draw(st.sampled_from([MANY, MANY[::-1]]))]
        rows = draw(st.sampled_from([many + rows, rows + many]))
    keep = tuple(draw(st.sets(st.sampled_from(columns)))) if mode in {"upsert", "sync"} else ()
    return {
        "columns": columns,
        "rows": rows,
        "mode": mode,
        "writer": draw(st.sampled_from(["values", "copy"])),
        "newest_by": newest_by,
        "keep": keep,
        "on_duplicate": draw(st.sampled_from(["last", "first", "error"])),
        "dry_run": draw(st.integers(0, 5)) == 0,
        "no_block": draw(st.booleans()),
        "limit": draw(st.sampled_from([None, 0, 2, 100])),
        "allow_empty": draw(st.booleans()),
    }


class Refused(Exception):
    """The model says that this load fails."""


def model(table: list[Row], key: tuple[str, ...], load: dict[str, Any]) -> tuple[list[Row], dict[str, int]]:
    """The table after `load`, and the account."""
    counts = dict.fromkeys(COUNTERS, 0)
    rows: list[Row] = load["rows"]
    if load["mode"] in {"append", "replace"}:
        old = table if load["mode"] == "append" else []
        new = [*old, *({**BLANK, **row} for row in rows)]
        if len({_identity(row, key) for row in new}) < len(new):
            raise Refused("23505")
        return new, counts | {"inserted": len(rows), "deleted": len(table) - len(old)}
    winners = _winners(rows, key, load)
    counts["duplicates"] = len(rows) - len(winners)
    if counts["duplicates"] and load["on_duplicate"] == "error":
        raise Refused("23505")
    result = {_identity(row, key): row for row in table}
    if load["mode"] == "sync":
        missing = [one for one in result if one not in winners]
        _check_limit(len(missing), len(result), load)
        result = {one: row for one, row in result.items() if one in winners}
        counts["deleted"] = len(missing)
    overwritten = [name for name in load["columns"] if name not in key and name not in load["keep"]]
    for one, row in winners.items():
        fate, result[one] = _merged(result.get(one), row, overwritten, load)
        counts[fate] += 1
    return list(result.values()), counts


BLANK = dict.fromkeys(COLUMNS)


def _identity(row: Row, key: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[name] for name in key)


def _winners(rows: list[Row], key: tuple[str, ...], load: dict[str, Any]) -> dict[tuple[Any, ...], Row]:
    winners: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        other = winners.get(_identity(row, key))
        if other is None or _wins(row, other, load):
            winners[_identity(row, key)] = row
    return winners


def _check_limit(missing: int, total: int, load: dict[str, Any]) -> None:
    if not load["rows"] and not load["allow_empty"]:
        raise Refused("empty_source")
    limit = load["limit"]
    if missing > limit if limit is not None else load["rows"] and missing > 0.2 * total:
        raise Refused("delete_limit")


def _merged(there: Row | None, row: Row, overwritten: list[str], load: dict[str, Any]) -> tuple[str, Row]:
    """What becomes of a row of the load, and the row of the table afterwards."""
    if there is None:
        return "inserted", {**BLANK, **row}
    if load["mode"] == "ignore":
        return "skipped", there
    if load["newest_by"] and _age(row) < _age(there):
        return "stale", there
    if any(there[name] != row[name] for name in overwritten):
        return "updated", {**there, **{name: row[name] for name in overwritten}}
    return "unchanged", there


def _age(row: Row) -> int:
    return -1 if row["at"] is None else int(row["at"])


def _wins(row: Row, other: Row, load: dict[str, Any]) -> bool:
    if load["newest_by"] and _age(row) != _age(other):
        return _age(row) > _age(other)
    return bool(load["on_duplicate"] != "first")


def carry_out(engine: sqlalchemy.Engine, path: Path, table: str, load: dict[str, Any]) -> Any:
    path.write_text(csv_text(load["rows"], load["columns"]), newline="")
    mode, limit = load["mode"], load["limit"]
    settings: dict[str, Any] = {}
    if mode in {"ignore", "upsert", "sync"}:
        settings = {"key": TABLES[table][2], "on_duplicate": OnDuplicate(load["on_duplicate"]), "keep": load["keep"]}
    if mode == "upsert":
        settings["newest_by"] = load["newest_by"]
    if mode == "sync":
        settings |= {"max_delete": None if limit is None else Limit(rows=limit), "allow_empty": load["allow_empty"]}
    if mode == "replace":
        settings["no_block"] = load["no_block"]
    return load_file(engine, path, table, mode, writer=load["writer"], dry_run=load["dry_run"], **settings)


@pytest.mark.parametrize("table", TABLES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_table_and_account_equal_the_model(
    playground: sqlalchemy.Engine, tmp_path: Path, table: str, data: st.DataObject
) -> None:
    key = TABLES[table][1]
    expected: list[Row] = []
    with playground.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {table}")
    for _ in range(data.draw(st.integers(1, 4))):
        load = data.draw(loads(table))
        try:
            after, counts = model(expected, key, load)
        except Refused as expected_failure:
            code = str(expected_failure)
            with pytest.raises(LoadFailed) as failed:
                carry_out(playground, tmp_path / "t.csv", table, load)
            assert failed.value.error.code == code
        else:
            result = carry_out(playground, tmp_path / "t.csv", table, load)
            assert {name: getattr(result, name) for name in COUNTERS} == counts
            if not load["dry_run"]:
                expected = after
        assert content(playground, table) == sorted(map(repr, (list(row.values()) for row in expected)))


def content(engine: sqlalchemy.Engine, table: str) -> list[str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT k, l, name, doc::text, at FROM {table}").all()
    return sorted(repr(list(row)) for row in rows)
