"""Random tables, as large databases have them, and loads into them, against a twin that is written row by row.

The twin has the same definition in another schema. Its rows are looked up, inserted and updated one at a time, each by
a statement of its own, so that what triggers, policies, defaults and constraints do is the server's own answer.
Compared are rows, what triggers noted, accounts, dry runs with real ones, and whether rows that stay were left alone.

HARBORCTL_TEST_TARGET_EXAMPLES says how many tables there are, HARBORCTL_TEST_FIRST_TARGET with which number they begin.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.load.run.loader import LoadFailed
from harborctl.model import Limit, OnDuplicate
from tests.conftest import url_of
from tests.load.direct import COUNTERS, csv_text, load_file
from tests.load.sizes import FIRST_TARGET, LOADS_OF_A_TARGET, TARGETS

Row = dict[str, str | None]

ENCODINGS = {"UTF8": "é€", "LATIN1": "é"}

# Of each column the values that fields have, and its type.
WORDS = ("a", "b", "B", "", "x", "drop", None)
EXTRA: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "p": ("point", ("(1.00000001,2)", "(1.00000002,2)", "(1,2)", None)),
    "d": ("date", ("2026-03-04", "2026-04-03", None)),
    "n": ("numeric", ("1.0", "1.00", "2", None)),
    "w": ("~S~.word", ("a", "b", "bad")),
    "j": ("json", ('{"a":1}', '{"a": 1}', None)),
    "f": ("float8[]", ("{0.1,1.00000001}", "{0.1,1.00000002}", "{}")),
    "c": ("char(3)", ("a", "a  ", "b")),
}
ODD_SETTINGS = (
    "-c extra_float_digits=-10",
    "-c DateStyle=SQL,DMY",
    "-c TimeZone=Asia/Kathmandu -c IntervalStyle=iso_8601",
    "-c bytea_output=escape -c standard_conforming_strings=off",
    "-c search_path=pg_catalog",
    "-c enable_hashjoin=off -c enable_mergejoin=off",
)


@dataclass
class Table:
    """A definition, with ~S~ in the place of the schema's name.

    Attributes:
        key: columns that identify a row; `option` is what --key says; `condition` limits the index.
        before: rows have BEFORE triggers.
        granted: another user than the owner loads, with rights on the columns of the file only.
        hides: a policy hides rows from that user.
    """

    ddl: list[str]
    columns: dict[str, tuple[str | None, ...]]
    types: dict[str, str]
    key: tuple[str, ...]
    option: tuple[str, ...]
    partitioned: bool = False
    condition: bool = False
    before: bool = False
    granted: bool = False
    hides: bool = False
    required: set[str] = field(default_factory=set)
    options: str = ""


def random_table(draw: random.Random, accents: str) -> Table:
    words = (*WORDS, *accents)
    types = {"k": "integer", "l": "text", "v": "text", "at": "integer"}
    values: dict[str, tuple[str | None, ...]] = {
        "k": tuple(map(str, range(7))), "l": ("a", "b", "A"), "v": words, "at": ("1", "2", None),
    }  # fmt: skip
    for name in draw.sample(list(EXTRA), draw.randint(0, 3)):
        types[name], values[name] = EXTRA[name]
    partitioned = draw.random() < 0.4
    kinds = ["k", "pair"] if partitioned else ["k", "pair", "lower", "partial"]
    kind = draw.choice(kinds)
    key, option = {
        "k": (("k",), ()), "pair": (("k", "l"), ("k", "l")), "lower": (("k", "l"), ("k", "lower(l)")),
        "partial": (("k",), ("k",)),
    }[kind]  # fmt: skip
    if kind == "partial":
        types["live"], values["live"] = "boolean", ("t", "t", "f")
    required = {"k"} | ({"v"} if draw.random() < 0.3 else set())
    if draw.random() < 0.3:
        types["l"] = 'text COLLATE "POSIX"'
    specs = [f"{name} {kind_}{' NOT NULL' if name in required else ''}" for name, kind_ in types.items()]
    types["l"] = "text"
    if kind == "k" and not partitioned and draw.random() < 0.3:
        specs[0] = "k integer GENERATED ALWAYS AS IDENTITY NOT NULL"
    specs += draw.sample(
        ["g integer GENERATED ALWAYS AS (length(v)) STORED", "left_out text DEFAULT 'd' NOT NULL", "empty text"],
        draw.randint(0, 2),
    )
    draw.shuffle(specs)
    if draw.random() < 0.3:
        specs.append("CONSTRAINT at_is_small CHECK (at < 2 OR v <> 'x')")
    if kind == "k":
        specs.append("PRIMARY KEY (k)")
    ddl = [
        "CREATE DOMAIN ~S~.word AS text CHECK (value <> 'bad')",
        "CREATE TABLE ~S~.noted (what text, k integer, v text)",
        f"CREATE TABLE ~S~.t ({', '.join(specs)}){' PARTITION BY RANGE (k)' if partitioned else ''}",
    ]
    if partitioned:
        ddl += _partitions(draw, specs)
    index = {
        "pair": "(k, l)", "lower": "(k, lower(l))", "partial": "(k) WHERE live",
    }.get(kind)  # fmt: skip
    if index:
        ddl.append(f"CREATE UNIQUE INDEX t_key ON ~S~.t {index}")
    if draw.random() < 0.3:
        ddl.append("CREATE INDEX ON ~S~.t (upper(v)) WHERE at > 1")
    if kind == "k" and draw.random() < 0.3:
        ddl.append("ALTER TABLE ~S~.t ADD CONSTRAINT again UNIQUE (k) DEFERRABLE INITIALLY DEFERRED")
    table = Table(ddl, values, types, key, option, partitioned, kind == "partial", required=required)
    _add_triggers(draw, table)
    _add_rights(draw, table)
    if draw.random() < 0.5:
        table.options = draw.choice(ODD_SETTINGS)
    return table


def _partitions(draw: random.Random, specs: list[str]) -> list[str]:
    columns = [spec for spec in specs if not spec.startswith(("PRIMARY", "CONSTRAINT"))]
    columns = [c if not c.startswith("k ") else "k integer NOT NULL" for c in columns]
    checks = [spec for spec in specs if spec.startswith("CONSTRAINT")]
    draw.shuffle(columns)
    ddl = [
        f"CREATE TABLE ~S~.low (gone integer, {', '.join([*columns, *checks])})",
        "ALTER TABLE ~S~.low DROP COLUMN gone",
        "ALTER TABLE ~S~.t ATTACH PARTITION ~S~.low FOR VALUES FROM (0) TO (3)",
        "CREATE TABLE ~S~.rest PARTITION OF ~S~.t DEFAULT PARTITION BY HASH (k)",
        "CREATE TABLE ~S~.one PARTITION OF ~S~.rest FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE ~S~.two PARTITION OF ~S~.rest FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    ]
    if draw.random() < 0.5:
        ddl.append("CREATE INDEX ON ~S~.one (at)")
    return ddl


_BODIES = {
    "change": "NEW.v := upper(NEW.v); RETURN NEW",
    "fill": "NEW.v := coalesce(NEW.v, 'filled'); RETURN NEW",
    "drop": "IF NEW.v = 'drop' THEN RETURN NULL; END IF; RETURN NEW",
    "note": "INSERT INTO ~S~.noted SELECT TG_OP, CASE TG_OP WHEN 'DELETE' THEN OLD.k ELSE NEW.k END,"
    " CASE TG_OP WHEN 'DELETE' THEN OLD.v ELSE NEW.v END; RETURN NULL",
}


def _add_triggers(draw: random.Random, table: Table) -> None:
    for name in draw.sample(list(_BODIES), draw.choice([0, 0, 1, 2])):
        where = draw.choice(["t", "low", "one"]) if table.partitioned else "t"
        events = draw.choice(["INSERT", "UPDATE", "INSERT OR UPDATE"])
        when = f"AFTER {events} OR DELETE" if name == "note" else f"BEFORE {events}"
        table.before |= name != "note"
        table.ddl += [
            f"CREATE FUNCTION ~S~.{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_BODIES[name]}; END $$",
            f"ALTER FUNCTION ~S~.{name}() SECURITY DEFINER",
            f"CREATE TRIGGER {name} {when} ON ~S~.{where} FOR EACH ROW EXECUTE FUNCTION ~S~.{name}()",
        ]


def _add_rights(draw: random.Random, table: Table) -> None:
    if draw.random() < 0.6:
        return
    table.granted = True
    names = ", ".join(table.types)
    table.ddl += [
        "GRANT USAGE ON SCHEMA ~S~ TO ~R~",
        f"GRANT SELECT ({names}), INSERT ({names}), UPDATE ({names}) ON ~S~.t TO ~R~",
        "GRANT DELETE, TRUNCATE ON ~S~.t TO ~R~",
    ]
    if draw.random() < 0.4:
        table.hides = True
        table.ddl += [
            "ALTER TABLE ~S~.t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY shown ON ~S~.t USING (v IS DISTINCT FROM 'hidden') WITH CHECK (v IS DISTINCT FROM 'x')",
        ]


@dataclass(frozen=True)
class Feed:
    """One load."""

    columns: tuple[str, ...]
    rows: list[Row]
    mode: str
    writer: str
    on_error: str
    on_duplicate: str
    newest_by: str | None
    no_block: bool


def random_feed(draw: random.Random, table: Table) -> Feed:
    needed = {*table.key, *(table.required if not table.before else ()), *(["live"] if table.condition else [])}
    optional = [name for name in table.types if name not in needed and draw.random() < 0.7]
    columns = tuple(name for name in table.types if name in {*needed, *optional})
    modes = ["append", "ignore", "upsert", "upsert", "upsert"]
    if not table.hides:
        modes += ["replace"] + ([] if table.condition else ["sync", "sync"])
    mode = draw.choice(modes)
    rows = [{name: draw.choice(table.columns[name]) for name in columns} for _ in range(draw.randint(0, 8))]
    if draw.random() < 0.2 and rows:
        draw.choice(rows)["k"] = None if draw.random() < 0.5 else "seven"
    newest = "at" if mode == "upsert" and "at" in columns and draw.random() < 0.4 else None
    if mode == "append" and draw.random() < 0.7:  # else nearly all fail
        rows = list({tuple(row[name] for name in table.key): row for row in rows}.values())
    return Feed(
        columns, rows, mode, draw.choice(["values", "copy"]), draw.choice(["abort", "reject"]),
        draw.choice(["last", "first"]), newest, draw.random() < 0.5,
    )  # fmt: skip


# -- the twin


class BadRowInModel(Exception):
    """A row that cannot go in ends the load."""


class Twin:
    """Writes rows one by one."""

    def __init__(self, connection: psycopg.Connection[Any], table: Table) -> None:
        self.connection = connection
        self.table = table
        self.counts: Counter[str] = Counter()

    def load(self, feed: Feed) -> Counter[str]:
        """What `feed` must do.

        Raises:
            BadRowInModel: nothing.
        """
        self.counts = Counter()
        self.feed = feed
        by_key = feed.mode in {"ignore", "upsert", "sync"}
        try:
            with self.connection.transaction():
                if feed.on_error == "reject":
                    self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                rows = [row for row in feed.rows if self._is_sound(row, by_key=by_key)]
                if feed.mode == "replace":
                    if feed.no_block:
                        self.counts["deleted"] += self.connection.execute("DELETE FROM m.t").rowcount
                    else:
                        self.counts["deleted"] += self._one("SELECT count(*) FROM m.t")
                        self.connection.execute("TRUNCATE m.t")
                if not by_key:
                    for row in rows:
                        self._write(row, None)
                    return self.counts
                rows = self._winners(rows)
                if feed.mode == "sync" and not self.counts["rejected"]:
                    self._delete_missing(rows)
                for row in rows:
                    self._write(row, self._place(row))
        except psycopg.Error as error:  # a deferred constraint
            raise BadRowInModel(str(error)) from error
        return self.counts

    def _one(self, query: str, values: dict[str, Any] | None = None) -> Any:
        found = self.connection.execute(query, values).fetchone()
        return found and found[0]

    def _refuse(self, why: object) -> None:
        if self.feed.on_error == "abort":
            raise BadRowInModel(str(why))
        self.counts["rejected"] += 1

    def _is_sound(self, row: Row, *, by_key: bool) -> bool:
        """Whether the server reads the row at all, and it has what it must have wherever it goes."""
        table = self.table
        try:
            with self.connection.transaction():
                for name, value in row.items():
                    self.connection.execute(f"SELECT %s::text::{table.types[name].replace('~S~', 'm')}", [value])
        except psycopg.Error as error:
            self._refuse(error)
            return False
        is_strict = not table.before and not table.partitioned
        wanted = {*(table.key if by_key and self._has_key(row) else ()), *(table.required if is_strict else ())}
        if any(name in row and row[name] is None for name in wanted):
            self._refuse("NULL")
            return False
        return True

    def _has_key(self, row: Row) -> bool:
        return not self.table.condition or row["live"] == "t"

    def _identity(self, row: Row) -> tuple[Any, ...]:
        if not self._has_key(row):
            return (id(row),)
        values = [row[name] for name in self.table.key]
        return tuple(v.lower() if "lower(l)" in self.table.option and v else v for v in values)

    def _winners(self, rows: list[Row]) -> list[Row]:
        winners: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            other = winners.get(self._identity(row))
            if other is None or self._wins(row, other):
                winners[self._identity(row)] = row
        self.counts["duplicates"] += len(rows) - len(winners)
        return list(winners.values())

    def _wins(self, row: Row, other: Row) -> bool:
        newest = self.feed.newest_by
        if newest and row[newest] != other[newest]:
            return int(row[newest] or 0) > int(other[newest] or 0)
        return self.feed.on_duplicate == "last"

    def _same_key(self) -> str:
        parts = ["k = %(k)s::text::integer"]
        if "l" in self.table.key:
            parts.append("lower(l) = lower(%(l)s)" if "lower(l)" in self.table.option else "l = %(l)s")
        return " AND ".join([*parts, *(["live"] if self.table.condition else [])])

    def _place(self, row: Row) -> Row | None:
        """The row of the table with this key: what compares it."""
        if not self._has_key(row):
            return None
        found = self.connection.execute(f"SELECT k FROM m.t WHERE {self._same_key()}", row).fetchone()
        return None if found is None else row

    def _delete_missing(self, rows: list[Row]) -> None:
        there = self.connection.execute(f"SELECT {', '.join(self.table.key)} FROM m.t").fetchall()
        sent = {self._identity(row) for row in rows}
        for values in there:
            found = dict(zip(self.table.key, [None if v is None else str(v) for v in values], strict=True))
            if self._identity({**found, "live": "t"}) not in sent:
                self.counts["deleted"] += self.connection.execute(
                    "DELETE FROM m.t WHERE k = %(k)s::text::integer"
                    + (" AND l IS NOT DISTINCT FROM %(l)s" if "l" in found else ""),
                    found,
                ).rowcount

    def _write(self, row: Row, there: Row | None) -> None:
        try:
            with self.connection.transaction():
                self.counts[self._written(row, there)] += 1
        except psycopg.Error as error:
            self._refuse(error)

    def _written(self, row: Row, there: Row | None) -> str:
        types = {name: kind.replace("~S~", "m") for name, kind in self.table.types.items()}
        if there is None:
            values = ", ".join(f"%({name})s::text::{types[name]}" for name in row)
            insert = f"INSERT INTO m.t ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({values})"
            return "inserted" if self.connection.execute(insert, row).rowcount else "skipped"
        if self.feed.mode == "ignore":
            return "skipped"
        where = f"WHERE {self._same_key()}"
        newest = self.feed.newest_by
        if newest:
            theirs = self._one(f"SELECT at FROM m.t {where}", row)
            if theirs is not None and (row[newest] is None or int(row[newest] or 0) < theirs):
                return "stale"
        parts = {"k", "l"} if self.table.option == ("k", "l") else {"k"}
        changed = [name for name in row if name not in parts]
        differs = " OR ".join(
            f"pg_catalog.record_send(ROW({n})) <> pg_catalog.record_send(ROW(%({n})s::text::{types[n]}))"
            for n in changed
        )
        if not changed or not self._one(f"SELECT {differs} FROM m.t {where}", row):
            return "unchanged"
        assigned = ", ".join(f"{name} = %({name})s::text::{types[name]}" for name in changed)
        return "updated" if self.connection.execute(f"UPDATE m.t SET {assigned} {where}", row).rowcount else "skipped"


# -- the test


@pytest.fixture(scope="module", params=ENCODINGS)
def playground(request: pytest.FixtureRequest, server_url: str) -> Iterator[tuple[str, str, str]]:
    """A database's URL, a role without rights in it, and letters that not every encoding has."""
    role = f"loader_{os.getpid()}_{request.param.lower()}"
    name = f"harborctl_targets_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'")
        server.execute(f"CREATE ROLE {role}")
        try:
            yield url_of(server_url, name), role, ENCODINGS[request.param]
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            server.execute(f"DROP ROLE {role}")


def rows_of(owner: psycopg.Connection[Any], schema: str) -> list[str]:
    names = [n for (n,) in owner.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1",
        [f"{schema}.t"],
    )]  # fmt: skip
    texts = ", ".join(f"{name}::text" for name in names)
    content = [repr(row) for row in owner.execute(f"SELECT {texts} FROM {schema}.t")]
    return sorted([*content, *(f"noted {row}" for row in owner.execute(f"SELECT * FROM {schema}.noted"))])


def places_of(owner: psycopg.Connection[Any]) -> set[Any]:
    return set(owner.execute("SELECT tableoid, ctid::text, xmin::text FROM h.t").fetchall())


@pytest.mark.parametrize("number", range(FIRST_TARGET, FIRST_TARGET + TARGETS))
def test_a_random_table_is_loaded_as_row_by_row(
    playground: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)  # reject files go there
    url, role, accents = playground
    draw = random.Random(number * 2 + len(accents))  # noqa: S311  # not for secrets
    table = random_table(draw, accents)
    address = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
    options = " ".join([table.options, *([f"-c role={role}"] if table.granted else [])])
    address = address.update_query_dict({"options": options, "client_encoding": "UTF8"})
    engine = sqlalchemy.create_engine(address)
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as owner:
        for schema in ("h", "m"):
            owner.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
            for statement in table.ddl:
                owner.execute(statement.replace("~R~", role).replace("~S~", schema))
            if table.hides:
                owner.execute(f"INSERT INTO {schema}.t (k, l, v) OVERRIDING SYSTEM VALUE VALUES (3, 'a', 'hidden')")
        owner.execute("SET extra_float_digits = 3")
        with psycopg.connect(url, autocommit=True, options=options, client_encoding="UTF8") as connection:
            twin = Twin(connection, table)
            for turn in range(LOADS_OF_A_TARGET):
                feed = random_feed(draw, table)
                _compare(twin, feed, owner, engine, tmp_path / f"{turn}.csv", _told(table, feed))
    engine.dispose()


def _told(table: Table, feed: Feed) -> str:
    lines = [*table.ddl, table.options, f"granted: {table.granted}, key: {table.option}", repr(feed)]
    return "\n".join(lines)


def _compare(
    twin: Twin, feed: Feed, owner: psycopg.Connection[Any], engine: sqlalchemy.Engine, path: Path, story: str
) -> None:
    path.write_text(csv_text(feed.rows, list(feed.columns)), newline="", encoding="utf-8")
    before, places = rows_of(owner, "h"), places_of(owner)
    assert before == rows_of(owner, "m"), story
    try:
        expected = dict(+twin.load(feed))
    except BadRowInModel as why:
        expected = {"failed": 1}
        story += f"\n{why}"
    accounts = [_account(engine, path, feed, twin.table, dry_run=True)]
    assert rows_of(owner, "h") == before, story
    accounts.append(_account(engine, path, feed, twin.table, dry_run=False))
    assert accounts == [expected, expected], story
    assert rows_of(owner, "h") == rows_of(owner, "m"), story
    if feed.mode != "replace":
        stay = len(places) - expected.get("updated", 0) - expected.get("deleted", 0)
        assert len(places & places_of(owner)) >= stay, story


def _account(engine: sqlalchemy.Engine, path: Path, feed: Feed, table: Table, *, dry_run: bool) -> dict[str, Any]:
    merge: dict[str, Any] = {}
    if feed.mode in {"ignore", "upsert", "sync"}:
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
            engine, path, "h.t", feed.mode, writer=feed.writer, on_error=feed.on_error, dry_run=dry_run, **merge
        )
    except LoadFailed as failed:
        if failed.error.code in {"XX000", "42601"}:
            raise
        return {"failed": 1} if failed.error.exit_code == 1 else {"refused": str(failed.error)}
    return {name: getattr(result, name) for name in COUNTERS if getattr(result, name)}
