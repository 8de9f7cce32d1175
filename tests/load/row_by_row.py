"""What a load must do, as the server does it: rows are looked up, inserted and updated one at a time.

Each by a statement of its own, so that what triggers, policies, defaults and constraints do is the server's own answer.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import psycopg

from tests.load.random_targets import Feed, Row, Table

# The events of rules that a mode would meet. INSERT … ON CONFLICT is not for tables with one on UPDATE, even if that is
# turned off.
MEETS = {
    "append": {"INSERT"},
    "ignore": {"INSERT", "UPDATE"},
    "upsert": {"INSERT", "UPDATE"},
    "sync": {"INSERT", "UPDATE", "DELETE"},
    "replace": {"INSERT", "DELETE"},
}


class Failed(Exception):
    """The load ends, and nothing of it is there."""


class _Dangling(Exception):
    """Rows refer to rows that are not there."""


class Twin:
    """Loads into the table of schema `m`.

    Attributes:
        counts: the account.
        rejected: the rows that were put aside.
    """

    def __init__(self, connection: psycopg.Connection[Any], table: Table) -> None:
        self.connection = connection
        self.table = table
        self.counts: Counter[str] = Counter()
        self.rejected: list[Row] = []

    def load(self, feed: Feed) -> dict[str, Any]:
        """The account of `feed`; `refused` if it is not begun.

        Raises:
            Failed: it must fail.
        """
        self.counts, self.rejected, self.feed = Counter(), [], feed
        if any(event in MEETS[feed.mode] and (fires or event == "UPDATE") for event, fires in self.table.rules):
            return {"refused": "0A000"}
        if feed.mode == "replace" and self.table.pointed:
            return {"refused": "0A000"}
        try:
            with self.connection.transaction():
                self._load()
        except psycopg.Error as error:  # of a deletion, or of what is checked at commit
            raise Failed(str(error)) from error
        return dict(+self.counts)

    def _load(self) -> None:
        feed = self.feed
        if feed.on_error == "reject":
            self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        rows = [row for row in feed.rows if self._is_sound(row)]
        self._check_references(now=feed.on_error == "reject" or not self.table.late)
        if feed.mode == "replace":
            if feed.no_block:
                self.counts["deleted"] += self.connection.execute("DELETE FROM m.t").rowcount
            else:
                self.counts["deleted"] += self._one("SELECT count(*) FROM m.t")
                self.connection.execute("TRUNCATE m.t")
        if feed.by_key:
            rows = self._winners(rows)
        if feed.mode == "sync" and not self.rejected:
            self._delete_missing(rows)
        self._check_references(now=False)
        self._write_all(rows)

    def _check_references(self, *, now: bool) -> None:
        """When the twin, which writes rows one by one, is to see whether they refer to rows that are there."""
        if self.table.refers:
            self.connection.execute(f"SET CONSTRAINTS m.t_up {'IMMEDIATE' if now else 'DEFERRED'}")

    def _one(self, query: str, values: dict[str, Any] | None = None) -> Any:
        found = self.connection.execute(query, values).fetchone()
        return found and found[0]

    def _refuse(self, row: Row, why: object) -> None:
        if self.feed.on_error == "abort":
            raise Failed(str(why))
        self.counts["rejected"] += 1
        self.rejected.append(row)

    def _is_sound(self, row: Row) -> bool:
        """Whether the server reads the row at all, and it has what it must have wherever it goes."""
        table = self.table
        try:
            with self.connection.transaction():
                for name, value in row.items():
                    self.connection.execute(f"SELECT %s::text::{table.types[name].replace('~S~', 'm')}", [value])
        except psycopg.Error as error:
            self._refuse(row, error)
            return False
        is_strict = not table.before and not table.partitioned
        keyed = self.feed.by_key and not table.nulls and self._has_key(row)
        wanted = {*(table.key if keyed else ()), *(table.required if is_strict else ())}
        if any(name in row and row[name] is None for name in wanted):
            self._refuse(row, "NULL")
            return False
        return True

    def _has_key(self, row: Row) -> bool:
        return not self.table.condition or row["live"] == "t"

    def _identity(self, row: Row) -> tuple[Any, ...]:
        if not self._has_key(row):
            return (id(row),)
        folds = self.table.loose or "lower(l)" in self.table.option
        return tuple(v.lower() if folds and v else v for v in (row[name] for name in self.table.key))

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
            same = "l IS NOT DISTINCT FROM %(l)s" if self.table.nulls else "l = %(l)s"
            parts.append("lower(l) = lower(%(l)s)" if "lower(l)" in self.table.option else same)
        return " AND ".join([*parts, *(["live"] if self.table.condition else [])])

    def _is_there(self, row: Row) -> bool:
        return self._has_key(row) and self._one(f"SELECT true FROM m.t WHERE {self._same_key()}", row) is not None

    def _keys(self) -> list[Row]:
        found = self.connection.execute(f"SELECT {', '.join(self.table.key)} FROM m.t")
        return [
            dict(zip(self.table.key, [None if value is None else str(value) for value in values], strict=True))
            for values in found
        ]

    def _delete_missing(self, rows: list[Row]) -> None:
        sent = {self._identity(row) for row in rows}
        there = self._keys()
        gone = [row for row in there if self._identity(row) not in sent]
        pointing = self._pointing()
        same = ["t.k = gone.k", *(['t.l COLLATE "C" IS NOT DISTINCT FROM gone.l'] if "l" in self.table.key else [])]
        listed = f"SELECT FROM json_to_recordset(%s) AS gone (k integer, l text) WHERE {' AND '.join(same)}"
        self.connection.execute(f"DELETE FROM m.t WHERE EXISTS ({listed})", [json.dumps(gone)])
        left = self._keys()
        if len(left) != len(there) - len(gone):
            raise Failed("rows that the source has would go with those that it lacks")
        if pointing != self._pointing():
            raise Failed("rows of another table would go")
        self.counts["deleted"] += len(gone)

    def _pointing(self) -> int:
        return int(self._one("SELECT count(*) FROM m.pointing()")) if self.table.pointed else 0

    def _write_all(self, rows: list[Row]) -> None:
        """Write the rows. Those that refer to rows which are not there, nor come with them, are bad; without these,
        others may be."""
        dangling: list[Row] = []
        while True:
            counts, rejected = self.counts.copy(), list(self.rejected)
            for row in dangling:
                self._refuse(row, "it refers to a row that is not there")
            more: list[Row] = []
            try:
                with self.connection.transaction():
                    written = [row for row in rows if not any(row is other for other in dangling)]
                    for row in written:
                        self._write(row)
                    more = self._dangling(written)
                    if more:
                        raise _Dangling
            except _Dangling:
                self.counts, self.rejected = counts, rejected
                dangling += more
            else:
                return

    def _dangling(self, rows: list[Row]) -> list[Row]:
        if not self.table.refers:
            return []
        numbers = {str(number) for (number,) in self.connection.execute("SELECT m.dangling()")}
        return [row for row in rows if row["k"] in numbers and not any(row is bad for bad in self.rejected)]

    def _write(self, row: Row) -> None:
        try:
            with self.connection.transaction():
                self.counts[self._written(row, is_there=self.feed.by_key and self._is_there(row))] += 1
        except psycopg.Error as error:
            if isinstance(error, psycopg.errors.UniqueViolation) and self._changes_key(row, "INSERT"):
                raise Failed("a trigger changes the key") from error
            self._refuse(row, error)

    def _changes_key(self, row: Row, event: str) -> bool:
        """Whether a trigger makes it the key of another row."""
        changes = event in self.table.lowers and "l" in self.table.key and self.feed.by_key
        changes = changes and (not self.table.lowers_low or str(row["k"]) in "012")
        return changes and not self.table.loose and "lower(l)" not in self.table.option and row["l"] == "A"

    def _written(self, row: Row, *, is_there: bool) -> str:
        types = {name: kind.replace("~S~", "m") for name, kind in self.table.types.items()}
        if not is_there:
            values = ", ".join(f"%({name})s::text::{types[name]}" for name in row)
            insert = f"INSERT INTO m.t ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({values})"
            return self._outcome(row, "inserted", insert)
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
        return self._outcome(row, "updated", f"UPDATE m.t SET {assigned} {where}")

    def _outcome(self, row: Row, what: str, statement: str) -> str:
        if not self.connection.execute(statement, row).rowcount:
            return "skipped"
        if self._changes_key(row, "INSERT" if what == "inserted" else "UPDATE"):
            raise Failed("a trigger changes the key")
        return what
