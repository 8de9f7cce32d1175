"""Random tables, as large databases have them, and loads into them, against a twin that is written row by row.

The twin has the same definition in another schema. Compared are rows, what triggers noted, accounts, rejected rows, dry
runs with real ones, and whether rows that stay were left alone.

HARBORCTL_TEST_TARGET_EXAMPLES says how many tables there are for each encoding, HARBORCTL_TEST_FIRST_TARGET with which
number they begin.
"""

from __future__ import annotations

import csv
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.load import modes
from harborctl.load.merge import statements
from harborctl.load.rejects import isolate, merge_isolate
from harborctl.load.run.loader import LoadFailed
from harborctl.model import Limit, OnDuplicate
from tests.conftest import url_of
from tests.load.direct import COUNTERS, csv_text, load_file
from tests.load.random_targets import ICU, NOT_ENFORCED, VIRTUAL, Feed, Table, random_feed, random_table
from tests.load.row_by_row import Failed, Twin
from tests.load.sizes import FIRST_TARGET, LOADS_OF_A_TARGET, TARGETS

# Letters that each has. Of some tables of LATIN1 the sources have one that it lacks.
ENCODINGS = {"UTF8": "é€", "LATIN1": "é", "WIN1251": "ж", "EUC_JP": "あ"}
if TARGETS <= 3:
    ENCODINGS = {name: ENCODINGS[name] for name in ("UTF8", "LATIN1")}


@pytest.fixture(scope="module", params=ENCODINGS)
def playground(request: pytest.FixtureRequest, server_url: str) -> Iterator[tuple[str, str, str]]:
    """A database's URL, a role without rights in it, and its encoding."""
    role = f"loader_{os.getpid()}_{request.param.lower()}"
    name = f"harborctl_targets_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'")
        server.execute(f"CREATE ROLE {role}")
        try:
            yield url_of(server_url, name), role, request.param
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            server.execute(f"DROP ROLE {role}")


def able(owner: psycopg.Connection[Any]) -> set[str]:
    """What this server can do."""
    found = {NOT_ENFORCED, VIRTUAL} if owner.info.server_version >= 180000 else set()
    try:
        owner.execute("CREATE COLLATION tried (provider = icu, locale = 'und'); DROP COLLATION tried")
    except psycopg.errors.FeatureNotSupported:
        return found
    return found | {ICU}


def rows_of(owner: psycopg.Connection[Any], schema: str, table: Table) -> list[str]:
    """All rows that there are in the schema, in an order."""
    names = [n for (n,) in owner.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1",
        [f"{schema}.t"],
    )]  # fmt: skip
    texts = ", ".join(f"{name}::text" for name in names)
    found = [repr(row) for row in owner.execute(f"SELECT {texts} FROM {schema}.t")]
    for other in ("noted", *(["pointing"] if table.pointed else [])):
        found += [f"{other} {row}" for row in owner.execute(f"SELECT * FROM {schema}.{other}")]
    return sorted(found)


def places_of(owner: psycopg.Connection[Any]) -> set[Any]:
    return set(owner.execute("SELECT tableoid, ctid::text, xmin::text FROM h.t").fetchall())


@pytest.mark.parametrize("number", range(FIRST_TARGET, FIRST_TARGET + TARGETS))
def test_a_random_table_is_loaded_as_row_by_row(
    playground: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)  # reject files go there
    url, role, encoding = playground
    draw = random.Random(f"{encoding} {number}")  # noqa: S311  # not for secrets
    letters = ENCODINGS[encoding] + ("€" if encoding == "LATIN1" and number % 5 == 0 else "")
    address = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as owner:
        table = random_table(draw, letters, able(owner))
        options = " ".join([table.options, *([f"-c role={role}"] if table.granted else [])])
        engine = sqlalchemy.create_engine(address.update_query_dict({"options": options, "client_encoding": "UTF8"}))
        for schema, immediate in (("h", ""), ("m", "DEFERRABLE")):
            ddl = "; ".join(table.ddl).replace("~R~", role).replace("~IMMEDIATE~", immediate).replace("~S~", schema)
            owner.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; {ddl}")
        owner.execute("SET extra_float_digits = 3")
        with psycopg.connect(url, autocommit=True, options=options, client_encoding="UTF8") as connection:
            twin = Twin(connection, table)
            for turn in range(LOADS_OF_A_TARGET):
                feed = random_feed(draw, table)
                monkeypatch.setattr(statements, "FEW_ROWS", feed.few)
                monkeypatch.setattr(modes, "FEW_ROWS", feed.few)
                monkeypatch.setattr(isolate, "MOST_SAVEPOINTS", feed.savepoints)
                monkeypatch.setattr(merge_isolate, "MOST_SAVEPOINTS", feed.savepoints)
                _compare(twin, feed, owner, engine, tmp_path / f"{turn}.csv", _told(table, feed))
                if table.pointed:
                    for schema in ("h", "m"):
                        owner.execute(
                            f"TRUNCATE {schema}.pointing; INSERT INTO {schema}.pointing"
                            f" SELECT k FROM {schema}.{table.pointed_place} WHERE k IN (1, 5)"
                        )
    engine.dispose()


def _told(table: Table, feed: Feed) -> str:
    lines = [*table.ddl, table.options, f"granted: {table.granted}, key: {table.option}", repr(feed)]
    return "\n".join(lines)


def _compare(
    twin: Twin, feed: Feed, owner: psycopg.Connection[Any], engine: sqlalchemy.Engine, path: Path, story: str
) -> None:
    table = twin.table
    path.write_text(csv_text(feed.rows, list(feed.columns)), newline="", encoding="utf-8")
    before, places = rows_of(owner, "h", table), places_of(owner)
    assert before == rows_of(owner, "m", table), story
    try:
        expected = twin.load(feed)
    except Failed as why:
        expected = {"failed": 1}
        story += f"\n{why}"
    accounts = [_account(engine, path, feed, table, dry_run=True)]
    assert rows_of(owner, "h", table) == before, story
    accounts.append(_account(engine, path, feed, table, dry_run=False))
    assert accounts == [expected, expected], story
    assert rows_of(owner, "h", table) == rows_of(owner, "m", table), story
    if "rejected" in expected:
        [rejects] = path.parent.glob("*.rejects.csv")
        with rejects.open(encoding="utf-8", newline="") as file:
            put_aside = Counter(tuple(row[name] for name in feed.columns) for row in csv.DictReader(file))
        assert put_aside == Counter(tuple(v or "" for v in row.values()) for row in twin.rejected), story
    if feed.mode != "replace" and (table.refers != "SET NULL" or not expected.get("deleted")):
        stay = len(places) - expected.get("updated", 0) - expected.get("deleted", 0)
        assert len(places & places_of(owner)) >= stay, story


def _account(engine: sqlalchemy.Engine, path: Path, feed: Feed, table: Table, *, dry_run: bool) -> dict[str, Any]:
    merge: dict[str, Any] = {}
    if feed.by_key:
        merge = {"key": table.option, "on_duplicate": OnDuplicate(feed.on_duplicate)}
    if feed.mode == "upsert":
        merge["newest_by"] = feed.newest_by
    if feed.mode == "sync":
        merge |= {"max_delete": Limit(percent=100), "allow_empty": True}
    if feed.mode == "replace":
        merge["no_block"] = feed.no_block
    for old in path.parent.glob("*.rejects.csv"):
        old.unlink()
    try:
        result = load_file(
            engine, path, "h.t", feed.mode, writer=feed.writer, on_error=feed.on_error, dry_run=dry_run,
            batch_size=feed.batch_size, **merge,
        )  # fmt: skip
    except LoadFailed as failed:
        if failed.error.code in {"XX000", "42601"}:
            raise
        return {"failed": 1} if failed.error.exit_code == 1 else {"refused": failed.error.code}
    return {name: getattr(result, name) for name in COUNTERS if getattr(result, name)}
