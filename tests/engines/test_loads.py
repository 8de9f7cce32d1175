"""Loads into tables of TimescaleDB and Citus end as they end in a plain PostgreSQL. See README.md."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Harborctl, Run
from tests.engines.servers import Engines
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

# The key has the column that each engine divides the rows by.
TABLE = """
    CREATE TABLE {0} (
        id integer, at timestamptz NOT NULL, name text NOT NULL,
        price numeric(12,2) CONSTRAINT price_ok CHECK (price >= 0), note text DEFAULT 'given', PRIMARY KEY (id, at))
"""
HYPERTABLE = "SELECT create_hypertable('{0}', 'at', chunk_time_interval => interval '1 day')"
COMPRESSING = "ALTER TABLE {0} SET (timescaledb.compress, timescaledb.compress_segmentby = 'id')"
COMPRESSED = "SELECT compress_chunk(chunk) FROM show_chunks('{0}') AS chunk OFFSET 1"


@dataclass(frozen=True)
class Kind:
    """A kind of table: of which engine, what makes it of one, and what is done when rows are in it."""

    engine: str
    made: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()


KINDS = {
    "hypertable": Kind("timescaledb", (HYPERTABLE,)),
    "compressed": Kind("timescaledb", (HYPERTABLE, COMPRESSING), (COMPRESSED,)),
    "distributed": Kind("citus", ("SELECT create_distributed_table('{0}', 'id', shard_count => 4)",)),
    "reference": Kind("citus", ("SELECT create_reference_table('{0}')",)),
    "managed": Kind("citus", ("SELECT citus_add_local_table_to_metadata('{0}')",)),
}
COUNTERS = ["rows_read", "inserted", "updated", "unchanged", "deleted", "skipped", "stale", "duplicates", "rejected"]
Row = tuple[object, ...]


def row(number: int, name: str | None = None, price: str | None = None) -> Row:
    at = f"2024-01-{number % 5 + 1:02d} 10:00:00+00"
    return number, at, name or f"name {number}", price or f"{number}.50", f"note {number}"


# Of the forty rows in the table ten are equal, ten are changed, twenty are lacking; twenty are new.
HERE = [row(number) for number in range(40)]
FEED = [row(n) for n in range(10)] + [row(n, name="changed") for n in range(10, 20)] + [row(n) for n in range(40, 60)]
BAD = [
    row(60, price="-1"),
    row(61, price="abc"),
    row(62),
    (63, "", "no time", "1.00", ""),
    row(64, price="-5"),
    row(65),
]
TWICE = [row(40, name="twice"), row(3, name="twice")]
# More than go through one statement as they come.
MANY = [row(number) for number in range(100)] + [row(number) for number in range(1000, 6000)]

_numbers = count(1)
_migrated = set[str]()


class Target:
    """A table with its rows, in a database that has a ledger."""

    def __init__(self, run: Invoke | Harborctl, url: str, kind: Kind, folder: Path, rows: list[Row]) -> None:
        self._run = run
        self.url = url
        self._folder = folder
        self.name = f"t_{os.getpid()}_{next(_numbers)}"
        if url not in _migrated:
            assert self.run("migrate", "up", "ledger").code == 0
            _migrated.add(url)
        self.execute(TABLE, *kind.made)
        if rows:
            with psycopg.connect(url) as connection, connection.cursor() as cursor:
                with cursor.copy(f"COPY {self.name} FROM STDIN") as copy:
                    for each in rows:
                        copy.write_row(each)
        self.execute(*kind.filled)

    def execute(self, *statements: str) -> list[Row]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            found: list[Row] = []
            for statement in statements:
                cursor = connection.execute(statement.format(self.name).encode())
                found = cursor.fetchall() if cursor.description else []
        return found

    def run(self, *arguments: str | Path) -> Run:
        return self._run(*arguments, env={"HARBORCTL_URL": self.url})

    def load(self, file: Path, *options: str) -> dict[str, Any]:
        """What there is to compare of a load: exit code, accounts, what is wrong with which line, and all rows."""
        rejects = self._folder / f"{self.name}.rejects.csv"
        rejecting = ["--reject-file", str(rejects)] if "reject" in options else []
        done = self.run("load", file, "-t", self.name, "--json", *options, *rejecting)
        summary = json.loads(done.stdout)
        error = summary["error"]
        kept: list[dict[str, str]] = []
        if rejects.exists():
            with rejects.open(newline="") as lines:
                kept = list(csv.DictReader(lines))
            rejects.unlink()
        return {
            "code": done.code,
            "status": summary["status"],
            **{name: summary[name] for name in COUNTERS},
            "error": error and error["line"],
            # Constraints go by other names there, and a COPY of Citus loses the SQLSTATE.
            "rejected lines": [(line["id"], line["_harborctl_line"]) for line in kept],
            "rows": self.execute("SELECT id, at, name, price, note FROM {0} ORDER BY id, at"),
        }

    def counted(self, *options: str) -> dict[str, Any]:
        done = self.run("count", self.name, "--json", *options)
        assert done.code == 0, done.stderr
        [counted] = json.loads(done.stdout)
        return dict(counted)


Make = Callable[..., Target]


@pytest.fixture
def make(invoke: Invoke, harborctl: Harborctl, engines: Engines, database_url: str, tmp_path: Path) -> Iterator[Make]:
    """Makes tables; of no kind means in a plain PostgreSQL."""
    made: list[Target] = []

    def table(kind: str | None, rows: list[Row] = HERE, *, in_process: bool = True) -> Target:
        run = invoke if in_process else harborctl
        if kind is None:
            return Target(run, database_url, Kind(""), tmp_path, rows)
        made.append(Target(run, _url_of(engines, KINDS[kind].engine), KINDS[kind], tmp_path, rows))
        return made[-1]

    yield table
    for target in made:
        target.execute("DROP TABLE IF EXISTS {0} CASCADE")


def _url_of(engines: Engines, name: str) -> str:
    found: str | None = getattr(engines, name)
    if found is None:
        pytest.skip(f"{name} is not installed beside these programs: see tests/engines/README.md")
    return found


def written(path: Path, rows: list[Row], columns: int = 5) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("id", "at", "name", "price", "note")[:columns])
        lines.writerows(each[:columns] for each in rows)
    return path


ALL = "--max-delete=100%"
LOADS: dict[str, tuple[list[Row], int, tuple[str, ...]]] = {
    "append": ([row(n) for n in range(100, 130)], 5, ("-m", "append")),
    "append of a key that is there": (FEED, 5, ("-m", "append")),
    "ignore": (FEED, 5, ("-m", "ignore")),
    "upsert": (FEED, 5, ("-m", "upsert")),
    "upsert of some columns": (FEED, 4, ("-m", "upsert")),
    "update only": (FEED[:20], 4, ("-m", "upsert", "--update-only")),
    "newest": (FEED, 4, ("-m", "upsert", "--newest-by", "price")),
    "last of duplicates": (FEED + TWICE, 5, ("-m", "upsert", "--on-duplicate", "last")),
    "a bad row": (FEED + BAD, 5, ("-m", "upsert")),
    "sync": (FEED, 5, ("-m", "sync", ALL)),
    "sync over the limit": (FEED, 5, ("-m", "sync")),
    "replace": (FEED, 5, ("-m", "replace")),
    "replace by DELETE": (FEED, 5, ("-m", "replace", "--no-block")),
    "many": (MANY, 5, ("-m", "upsert")),
    **{
        f"{mode} with rejects": (
            FEED + BAD,
            5,
            ("-m", mode, "--on-error", "reject", *([ALL] if mode == "sync" else [])),
        )
        for mode in ("append", "ignore", "upsert", "sync", "replace")
    },
}


@pytest.mark.parametrize("writer", ["copy", "values"])
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_load_ends_as_in_postgresql(make: Make, tmp_path: Path, kind: str, load: str, writer: str) -> None:
    rows, columns, options = LOADS[load]
    file, target = written(tmp_path / "feed.csv", rows, columns), make(kind)
    before = target.execute("SELECT count(*) FROM {0}")
    tried = target.load(file, *options, "--writer", writer, "--dry-run")
    assert target.execute("SELECT count(*) FROM {0}") == before
    ended = target.load(file, *options, "--writer", writer)
    if (load, writer) not in _expected:
        _expected[load, writer] = make(None).load(file, *options, "--writer", writer)
    expected = dict(_expected[load, writer])
    if load == "append of a key that is there":  # which one of several is met first is the engine's affair
        ended["error"] = expected["error"] = None
    assert ended == expected
    if ended["code"] in (0, 4):
        assert {name: tried[name] for name in COUNTERS} == {name: ended[name] for name in COUNTERS}


# What a load does in a plain PostgreSQL depends on no kind.
_expected: dict[tuple[str, str], dict[str, Any]] = {}


@pytest.mark.parametrize("options", [("--commit-every", "1000"), ("--jobs", "2")])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks(make: Make, tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    target, plain = (make(each, [], in_process=False) for each in (kind, None))
    file = written(tmp_path / "many.csv", MANY)
    assert target.load(file, *options) == plain.load(file, *options)
    again, expected = target.load(file, *options), plain.load(file, *options)
    assert again == expected
    assert again["status"] == "already_loaded"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_file_again(make: Make, tmp_path: Path, kind: str) -> None:
    target = make(kind)
    file = written(tmp_path / "new.csv", [row(n) for n in range(100, 130)])
    assert target.load(file)["inserted"] == 30
    if kind == "compressed":  # gets new files, and the rows stay
        target.execute("SELECT compress_chunk(chunk, true) FROM show_chunks('{0}') AS chunk")
    assert target.load(file)["status"] == "already_loaded"
    target.execute("TRUNCATE {0}")
    assert target.load(file)["inserted"] == 30  # it was found empty


@pytest.mark.parametrize("kind", KINDS)
def test_counts(make: Make, kind: str) -> None:
    target = make(kind, MANY)
    target.execute("ANALYZE {0}")
    assert target.counted("--exact")["rows"] == len(MANY)
    assert target.counted()["rows"] == pytest.approx(len(MANY), rel=0.1)
    if kind == "hypertable":
        sampled = target.counted("--sample", "100")
        assert sampled["low"] <= len(MANY) <= sampled["high"]
    else:
        refused = target.run("count", target.name, "--sample", "10")
        assert (refused.code, refused.stdout) == (2, "")
        assert "cannot be sampled: its rows are " in refused.stderr


@pytest.mark.parametrize("kind", ["hypertable", "compressed"])
def test_a_hypertable_is_listed_without_its_chunks(make: Make, kind: str) -> None:
    target = make(kind)
    listed = json.loads(target.run("tables", "--json").stdout)
    names = [each["table"] for each in listed]
    assert f"public.{target.name}" in names
    assert not [name for name in names if "_hyper_" in name or name.startswith("_timescaledb")]


def test_rows_that_refer_to_a_hypertable(make: Make, tmp_path: Path) -> None:
    target = make("hypertable")
    target.execute("CREATE TABLE {0}_of (id int, at timestamptz, FOREIGN KEY (id, at) REFERENCES {0})")
    file = tmp_path / "of.csv"
    file.write_text("id,at\n" + "".join(f"{each[0]},{each[1]}\n" for each in [*HERE, *FEED[20:26]]))
    done = target.run("load", file, "-t", f"{target.name}_of", "--on-error", "reject", "--json")
    summary = json.loads(done.stdout)
    assert (summary["inserted"], summary["rejected"]) == (len(HERE), 6)
    target.execute("DROP TABLE {0}_of")


def test_a_worker_of_citus_is_refused(make: Make, engines: Engines, invoke: Invoke, tmp_path: Path) -> None:
    target = make("distributed")
    worker: dict[str, str | None] = {"HARBORCTL_URL": engines.citus_worker}
    file = written(tmp_path / "feed.csv", FEED)
    for options in [], ["--no-ledger"], ["--jobs", "2"], ["--dry-run"]:
        done = invoke("load", file, "-t", target.name, *options, env=worker)
        assert (done.code, done.stdout) == (2, "")
        assert "this server is a worker of a Citus cluster" in done.stderr
    doctor = json.loads(invoke("doctor", "--json", env=worker).stdout)
    [engine] = [check for check in doctor["checks"] if check["name"] == "engine"]
    assert engine["state"] == "fail"
    assert "Citus" in engine["message"]
    assert "worker" in engine["message"]


@pytest.mark.parametrize(
    ("engine", "words"), [("timescaledb", ["TimescaleDB 2"]), ("citus", ["Citus 1", "coordinator"])]
)
def test_doctor_names_the_engine(engines: Engines, invoke: Invoke, engine: str, words: list[str]) -> None:
    doctor = json.loads(invoke("doctor", "--json", env={"HARBORCTL_URL": _url_of(engines, engine)}).stdout)
    [found] = [check for check in doctor["checks"] if check["name"] == "engine"]
    assert found["state"] == "ok"
    assert all(word in found["message"] for word in words)
