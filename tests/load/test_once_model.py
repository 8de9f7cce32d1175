"""A model of what the ledger promises: random loads, truncates, changes by hand and arrivals of files.

After each append every row of each of its files is in exactly once, or the load failed; after each replace or sync the
table equals the file. A row says which file it is from, so that the table tells which files are in.
"""

from __future__ import annotations

import gzip
import random
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.db.engine import Database
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import LoadOptions, Mode, RunOptions, Status
from tests.load.sizes import ROUNDS

Connection = psycopg.Connection[Any]
STEPS = 12
# Of an append into a table with a key, and of a sync that would delete too much, a refusal is right, too.
REFUSALS = {"rewritten", "23505", "unfinished", "source_changed", "delete_limit"}


class Model:
    """A table, and the files that go into it."""

    def __init__(self, connection: Connection, engine: sqlalchemy.Engine, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # no secret
        self.connection = connection
        self.database = Database(engine, "test", embedded=False)
        self.folder = folder
        self.files: list[Path] = []
        self.done: list[str] = []
        # Rows that were deleted by hand while the table did not stay empty: nobody can tell, and nobody asks for them.
        self.deleted: set[Any] = set()
        connection.execute("DROP TABLE IF EXISTS t; DROP TABLE IF EXISTS k")
        connection.execute("CREATE TABLE t (file integer, id integer, v text)")
        connection.execute("CREATE TABLE k (file integer, id integer, v text, PRIMARY KEY (file, id))")

    def arrive(self) -> None:
        number = len(self.files)
        text = "file,id,v\n" + "".join(f"{number},{row},a\n" for row in range(self.random.randint(1, 4)))
        path = self.folder / f"{self.random.randint(0, 9)}-{number}.csv"
        if self.random.random() < 0.3:
            path = path.with_suffix(".csv.gz")
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        self.files.append(path)

    def rows(self, *paths: Path) -> Counter[Any]:
        found: Counter[Any] = Counter()
        for path in paths:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
            found.update(tuple(line.split(",")[:2]) for line in text.splitlines()[1:])
        return found

    def table(self, name: str) -> Counter[Any]:
        return Counter((str(file), str(row)) for file, row in self.connection.execute(f"SELECT file, id FROM {name}"))

    def by_hand(self, name: str) -> None:
        what = self.random.choice(
            [
                "TRUNCATE {}", "DELETE FROM {}", "VACUUM FULL {}", "UPDATE {} SET v = 'hand'",
                "INSERT INTO {} VALUES (-1, 0, 'hand') ON CONFLICT DO NOTHING",
                "TRUNCATE {}; INSERT INTO {} VALUES (-1, 0, 'hand')",
            ]
        )  # fmt: skip
        self.done.append(what.replace("{}", name))
        if what.startswith("DELETE"):
            self.deleted |= {(name, row) for row in self.table(name)}
        for statement in what.split("; "):
            self.connection.execute(statement.replace("{}", name))

    def load(self, name: str) -> None:
        mode = self.random.choice([Mode.APPEND] * 4 + [Mode.REPLACE, Mode.SYNC, Mode.UPSERT, Mode.IGNORE])
        if name == "t" and mode.by_key:
            mode = Mode.REPLACE
        paths = self.random.sample(self.files, self.random.randint(1, len(self.files)))
        plain = all(path.suffix == ".csv" for path in paths)
        every = 2 if plain and mode in {Mode.APPEND, Mode.UPSERT} and self.random.random() < 0.3 else None
        options = LoadOptions(tuple(map(str, paths)), table=name, mode=mode, run=RunOptions(commit_every=every))
        self.done.append(f"{mode} {[path.name for path in paths]} into {name}, {every}")
        before = self.table(name)
        told = self.ended(LoadOptions(options.sources, table=name, mode=mode, dry_run=True))
        ended = self.ended(options)
        after = self.table(name)
        if ended is Status.LOADED:
            self.deleted -= {(name, row) for row in after}
        # A dry run says what the real one does, as far as it is one transaction.
        same = {Status.DRY_RUN: Status.LOADED}
        assert same.get(told, told) == ended or (every and told == "23505"), self.done
        if ended in REFUSALS:
            assert after == before or every, self.done
        elif mode is Mode.APPEND:
            lacking = {row for row in self.rows(*paths) if after[row] != 1}
            assert all(after[row] == 0 and (name, row) in self.deleted for row in lacking), self.done
        elif mode in {Mode.REPLACE, Mode.SYNC}:
            assert after == self.rows(*paths), self.done
        else:
            assert all(row in after for row in self.rows(*paths)), self.done

    def ended(self, options: LoadOptions) -> Any:
        try:
            return run_load(self.database, options, Silent()).status
        except LoadFailed as failed:
            if failed.error.code not in REFUSALS:
                raise AssertionError(self.done) from failed.error
            return failed.error.code


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_the_ledger_promises(database: Connection, engine: sqlalchemy.Engine, tmp_path: Path, seed: int) -> None:
    model = Model(database, engine, tmp_path, seed)
    model.arrive()
    for _ in range(STEPS):
        name = model.random.choice("tk")
        match model.random.choice(["arrive", "by hand", "load", "load", "load"]):
            case "arrive":
                model.arrive()
            case "by hand":
                model.by_hand(name)
            case _:
                model.load(name)
