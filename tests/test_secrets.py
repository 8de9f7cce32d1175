"""One password in every place that takes one, and in those that do not: it shows up nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy
import typer

from harborctl.cli.app import app
from harborctl.model import LoadOptions
from harborctl.options import declared
from tests.conftest import Run
from tests.inprocess import Invoke, invoke
from tests.load.conftest import database, wait_for

__all__ = ["database", "invoke"]

SECRET = "Pa55w0rd"  # noqa: S105  # of nobody
EVERYTHING = "HARBORCTL_TEST_SECRETS" in os.environ

# A password as it is written: in URLs, connection strings and SQL.
FORMS = (
    f"postgresql://etl:{SECRET}@nowhere.invalid/harbor",
    f"https://etl:{SECRET}@nowhere.invalid/items.csv",
    f"host=nowhere.invalid password={SECRET} user=etl",
    f"CREATE ROLE etl PASSWORD '{SECRET}'",
)

# What a command needs to do something.
ARGUMENTS = {
    "load": ["items.csv", "--table", "items"],
    "run": ["nightly"],
    "report": ["load_history"],
    "query": ["SELECT 1"],
    "count": ["items"],
    "stock reserve": ["MUG-BLUE", "--order", "A-1"],
    "stock release": ["A-1"],
    "stock confirm": ["A-1"],
    "migrate merge": ["harbor"],
    "db backup": ["backup.dump"],
    "db restore": ["backup.dump"],
}

# Of those that go to no database some do not fail.
OFFLINE = {"report", "migrate history", "migrate sql", "migrate merge", "db stop", "db status", "db url"}

JOB = """
[connections.production]
url = "${ETL_URL}"

[jobs.nightly]
after = ["SELECT 1"]

[[jobs.nightly.loads]]
source = "items.csv"
table = "items"
"""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All commands there are, by their names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))
COMMON = {parameter.opts[0] for parameter in COMMANDS["tables"].params if parameter.param_type_name == "option"}


@pytest.fixture
def place(database: psycopg.Connection[Any], tmp_path: Path) -> Path:
    """A table, a file for it, and a job."""
    database.execute("CREATE TABLE items (id integer PRIMARY KEY, name text)")
    (tmp_path / "items.csv").write_text("id,name\n1,a\n2,b\n")
    (tmp_path / "harborctl.toml").write_text(JOB)
    (tmp_path / "home").write_text("no folder, so that no server is made in it")
    return tmp_path


def leaks(done: Run, database: psycopg.Connection[Any], folder: Path) -> list[str]:
    """Where the password is found: in streams, in what was written, and in the ledger, which is emptied."""
    found = [name for name in ("stdout", "stderr") if SECRET in getattr(done, name)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    found += [path.name for path in files if SECRET.encode() in path.read_bytes()]
    for table in ("loads", "files", "chunks", "rejects"):
        rows = database.execute(f"SELECT t::text FROM harborctl.{table} AS t").fetchall()
        found += [f"harborctl.{table}"] if SECRET in str(rows) else []
    if found:
        database.execute("TRUNCATE harborctl.loads CASCADE")
    return found


def test_in_every_option(invoke: Invoke, database: psycopg.Connection[Any], place: Path) -> None:
    """Of every day one form in each option, and in those of all commands once; HARBORCTL_TEST_SECRETS asks for all."""
    found = []
    for name, command in COMMANDS.items():
        for place_of, parameter in enumerate(command.params):
            option, own = parameter.opts[0], ARGUMENTS.get(name, [])
            is_argument = parameter.param_type_name == "argument"
            if (not is_argument and parameter.is_flag) or (name != "load" and option in COMMON and not EVERYTHING):
                continue
            for number, form in enumerate(FORMS):
                if not EVERYTHING and number != place_of % len(FORMS):
                    continue
                arguments = [form, *own[1:]] if is_argument else [*own, option, form]
                shape = (["--verbose"], ["--json"], ["--log-format", "json"])[number % 3]
                done = invoke(*name.split(), *arguments, *shape, "--log-slow", "0")
                found += [(name, option, form, where) for where in leaks(done, database, place)]
    assert found == []


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fail, with a password somewhere: options, what the environment says, and files."""

    options: tuple[str, ...] = ()
    env: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def ways(url: str) -> dict[str, Way]:
    """Ways in which every command fails that goes to a database."""
    good, away = with_secret(url), f"postgresql://etl:{SECRET}@127.0.0.1:1/harbor"
    here: dict[str, str | None] = {"HARBORCTL_URL": None}
    service = f"[away]\nhost=127.0.0.1\nport=1\npassword={SECRET}\n"
    return {
        "nobody listens": Way(("--url", away)),
        "no such database": Way((), {"HARBORCTL_URL": with_secret(url, database="nowhere")}),
        "no such role": Way((), {"HARBORCTL_URL": with_secret(url, username="nobody")}),
        "no right": Way(("--url", good + "&options=-crole%3Dpg_monitor")),
        "too slow": Way(("--url", good, "--statement-timeout", "0.000001")),
        "odd URL": Way((), {"HARBORCTL_URL": f"postgresql://etl:{SECRET}@here@there:x/harbor?what={SECRET}"}),
        "odd setting": Way(("--url", f"postgresql://here/harbor?password={SECRET}&sslmode={SECRET}")),
        "no certificate": Way(("--url", f"{away}?sslmode=verify-full&sslrootcert=none.crt&sslpassword={SECRET}")),
        "connection": Way(("--connection", "production"), {"ETL_URL": away}),
        "part of a connection": Way(
            ("--connection", "production"),
            {"PART": SECRET},
            {"harborctl.toml": '[connections.production]\nurl = "postgresql://etl:${PART}@127.0.0.1:1/harbor"\n'},
        ),
        "password in the file": Way(("--connection", "production"), here, {"harborctl.toml": "".join(
            ("[connections.production]\n", f'url = "postgresql://etl:{SECRET}@127.0.0.1:1/harbor"\n')
        )}),
        "no TOML": Way((), here, {"harborctl.toml": f'[connections.production]\nurl = "postgresql://etl:{SECRET}@\n'}),
        "PGPASSWORD": Way((), here | {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGPASSWORD": SECRET}),
        "PGPASSFILE": Way(
            (), here | {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGPASSFILE": "pass"}, {"pass": f"*:*:*:*:{SECRET}\n"}
        ),
        "service": Way((), here | {"PGSERVICE": "away", "PGSERVICEFILE": "services"}, {"services": service}),
    }  # fmt: skip


def test_when_a_command_fails(
    invoke: Invoke, database: psycopg.Connection[Any], database_url: str, place: Path
) -> None:
    """Of every day, each command in some ways, and each way by some commands; HARBORCTL_TEST_SECRETS asks for all."""
    found = []
    for turn, name in enumerate(COMMANDS):
        codes = set()
        for number, (what, way) in enumerate(ways(database_url).items()):
            if not EVERYTHING and (number + turn) % 4:
                continue
            for file, text in way.files.items():
                (place / file).write_text(text)
                (place / file).chmod(0o600)
            for shape in (["--verbose"], ["--json", "--log-slow", "0"]):
                done = invoke(*name.split(), *ARGUMENTS.get(name, []), *way.options, *shape, env=way.env)
                codes.add(done.code)
                found += [(name, what, shape, at) for at in leaks(done, database, place) if at not in way.files]
            for file in way.files:
                (place / file).unlink()
            (place / "harborctl.toml").write_text(JOB)
        assert codes != {0} or name in OFFLINE
    assert found == []


def test_in_every_key_of_a_job(invoke: Invoke, database: psycopg.Connection[Any], place: Path) -> None:
    found = []
    load = '[[jobs.nightly.loads]]\nsource = "items.csv"\ntable = "items"\n'
    report = '[[jobs.nightly.reports]]\nreport = "load_history"\noutput = "history.csv"\n'
    keys = [(load, each.key) for each in declared(LoadOptions)] + [(load, "name"), (load, "what")]
    keys += [(report, key) for key in ("report", "output", "parameters", "what")]
    keys += [("[jobs.nightly]\n", key) for key in ("connection", "after", "keep_going", "loads", "what")]
    for place_of, (table, key) in enumerate(keys):
        for number, form in enumerate(FORMS):
            if not EVERYTHING and number != place_of % len(FORMS):
                continue
            before = "\n".join(line for line in table.splitlines() if not line.startswith(f"{key} ="))
            after = "" if table == load else load
            text = f"{before}\n{key} = {json.dumps(form)}\n{after}"
            (place / "harborctl.toml").write_text(text)
            shapes = (["--verbose"], ["--json"], ["--check"])
            for shape in shapes if EVERYTHING else shapes[place_of % 3 :][:1]:
                done = invoke("run", "nightly", *shape)
                found += [(key, form, where) for where in leaks(done, database, place) if where[-5:] != ".toml"]
    assert found == []


def test_a_bug_of_ours(
    invoke: Invoke, database_url: str, place: Path, monkeypatch: pytest.MonkeyPatch, database: psycopg.Connection[Any]
) -> None:
    """Whatever an exception says, its traceback tells no password."""

    def broken(*_: object) -> None:
        raise RuntimeError(f"{with_secret(database_url)} password={SECRET}")

    monkeypatch.setattr("harborctl.db.url.resolve", broken)
    for name in COMMANDS:
        for shape in (["--verbose"], ["--json"], ["--log-format", "json"]):
            done = invoke(*name.split(), *ARGUMENTS.get(name, []), *shape)
            assert leaks(done, database, place) == [], done


def with_secret(url: str, **changes: Any) -> str:
    """The URL of a database, with the password; the tests' server trusts everybody."""
    return sqlalchemy.make_url(url).set(password=SECRET, **changes).render_as_string(hide_password=False)


def test_no_process_title_shows_it(database: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    database.execute("CREATE TABLE items (id integer)")
    database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END $$"
    )
    database.execute("CREATE TRIGGER wait BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION wait()")
    (tmp_path / "items.csv").write_text("id\n" + "1\n" * 50_000)
    arguments = ["load", "items.csv", "--jobs", "2", f"--url={with_secret(database_url)}"]
    command = [sys.executable, "-m", "harborctl", *arguments]
    with (
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        psycopg.connect(database_url) as blocker,
    ):
        blocker.execute("SELECT pg_advisory_xact_lock(1)")
        wait_for(database, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        titles = [" ".join(member.cmdline()) for member in family]
        sessions = database.execute("SELECT to_json(a)::text FROM pg_stat_activity AS a").fetchall()
        blocker.rollback()
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert len(titles) > 1
    assert SECRET not in str([titles, sessions, out])
    assert titles[0].startswith("harborctl load items.csv --jobs 2 --url=postgresql://")
    assert ":***@" in titles[0]
