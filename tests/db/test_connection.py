"""Which database a command means, what a session of ours is like, and that no password gets anywhere."""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url, text

from harborctl.db.engine import open_database
from harborctl.db.url import Address, display, parse, resolve
from harborctl.errors import ConnectionFailed, HarborctlError, StatementFailed, UsageError
from harborctl.model import ConnectionOptions
from tests.conftest import Harborctl
from tests.db.servers import PASSWORD, PasswordServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

SECRET = "s3cret"  # noqa: S105  # opens nothing


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://etl:s3cret@db/harbor", "postgresql://etl@db/harbor"),
        ("postgres://etl:s3cret@db:5433/harbor", "postgresql://etl@db:5433/harbor"),
        ("postgresql+psycopg://etl@db:5432/harbor", "postgresql://etl@db/harbor"),
        (" postgresql://etl@db/harbor\n", "postgresql://etl@db/harbor"),
        ("postgresql://etl@db", "postgresql://etl@db/etl"),
        ("postgresql://etl@db/harbor?password=s3cret&sslmode=require", "postgresql://etl@db/harbor"),
        ("postgresql://etl:s3cret%40%2F%3F@db/harbor", "postgresql://etl@db/harbor"),
        ("postgresql://etl:s3cret@a:1,b:2/harbor", "postgresql://etl@a:1,b:2/harbor"),
        ("postgresql://etl@/harbor?host=a,b&port=7", "postgresql://etl@a:7,b:7/harbor"),
        ("postgresql://etl@[::1]:7/harbor", "postgresql://etl@[::1]:7/harbor"),
        ("postgresql://etl@/harbor?host=/run/postgresql", "postgresql://etl@/harbor?host=/run/postgresql"),
        ("postgresql://etl@%2Frun%2Fpostgresql/harbor", "postgresql://etl@/harbor?host=/run/postgresql"),
        ("postgresql://etl@:5515/harbor?host=/tmp/pg15", "postgresql://etl@/harbor?host=/tmp/pg15&port=5515"),
        ("postgresql://etl@/harbor?host=/a,/b&port=7,8", "postgresql://etl@/harbor?host=/a,/b&port=7,8"),
        ("postgresql://etl@/harbor?host=/a,b&port=7", "postgresql://etl@/harbor?host=/a,b&port=7"),
        ("postgresql://e%20l@db/h%2Fb", "postgresql://e%20l@db/h%2Fb"),
        ("postgresql://etl@/harbor?hostaddr=10.0.0.1", "postgresql://etl@10.0.0.1/harbor"),
        ("postgresql:///?service=prod", "postgresql:///?service=prod"),
        ("postgresql://etl@db/harbor?pgbouncer=true", "postgresql://etl@db/harbor"),
        ("postgresql://etl@db/harbor?target_session_attrs=read-write&options=-c%20a%3Db", "postgresql://etl@db/harbor"),
    ],
)
def test_an_url_and_how_it_is_shown(url: str, shown: str) -> None:
    address = parse(url, "--url")
    assert address.display == shown
    assert SECRET not in repr(address)
    # What is shown names the same place.
    assert parse(shown, "--url").display == shown


def test_libpq_gets_what_it_knows() -> None:
    address = parse("postgres://a:b@h1:1,h2:2/d?sslmode=require&ssl=true&target_session_attrs=any&pgbouncer=1", "--url")
    assert address.pgbouncer
    assert address.parameters == {
        "user": "a",
        "password": "b",
        "host": "h1,h2",
        "port": "1,2",
        "dbname": "d",
        "sslmode": "require",
        "target_session_attrs": "any",
    }


@pytest.mark.parametrize(
    "url",
    [
        "mysql://etl:s3cret@db/harbor",
        "etl:s3cret@db/harbor",
        "host=db password=s3cret",
        "postgresql+asyncpg://etl:s3cret@db/harbor",
        "postgresql://etl:s3@s3cret@db/harbor",
        "postgresql://etl:s3/s3cret@db/harbor",
        "postgresql://etl:s3?s3cret@db/harbor",
        "postgresql://etl:s3?password=s3cret@db/harbor",
        "postgresql://etl:s3cret%zz@db/harbor",
        "postgresql://etl:s3cret@db:port/harbor",
        "postgresql://etl:s3cret@db:70000/harbor",
        "postgresql://etl:s3cret@db/harbor?pgbouncer=perhaps",
        "postgresql://etl:s3cret@db/harbor?sslmod=require",
        "postgresql://etl:s3cret@db/harbor?connect_timeout=soon",
        "postgresql://etl:s3cret@[::1/harbor",
        "postgresql://etl:s3cret@db/harbor?sslmode=bogus",
        "postgresql://etl:s3cret@db/harbor?target_session_attrs=writable",
    ],
)
def test_a_bad_url_is_not_quoted(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url, "HARBORCTL_URL")
    assert "HARBORCTL_URL" in caught.value.message
    assert "s3" not in "".join(traceback.format_exception(caught.value)).replace("s3/test", "")
    assert caught.value.code == "bad_url"


def test_a_misspelt_parameter_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse("postgresql://db/harbor?sslmod=require", "--url")
    assert (caught.value.message, caught.value.hint) == (
        "the URL of --url has an unknown parameter sslmod",
        "Did you mean sslmode?",
    )


# In the order of CONTRACT.md; each is a setting and the database that it names.
PLACES = [
    ("--url", "postgresql://u@url/d"),
    ("--connection", "postgresql://u@toml/d"),
    ("HARBORCTL_URL", "postgresql://u@variable/d"),
    ("PGHOST", "postgresql://u@libpq/d"),
    ("default", "postgresql://u@default/d"),
]


@pytest.mark.parametrize("first", range(len(PLACES) + 1))
def test_the_first_that_is_given(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict(PLACES[first:])
    monkeypatch.chdir(tmp_path)
    written = "".join(
        f'[connections.{name}]\nurl = "postgresql://u@{host}/d"\n'
        for name, host in (("other", "toml"), ("usual", "default"))
    )
    (tmp_path / "harborctl.toml").write_text(written + ("default = true\n" if "default" in given else ""))
    monkeypatch.setenv("HARBORCTL_URL", given.get("HARBORCTL_URL", ""))  # empty is not given
    if "PGHOST" in given:
        for name, value in (("PGHOST", "libpq"), ("PGUSER", "u"), ("PGDATABASE", "d")):
            monkeypatch.setenv(name, value)
    options = ConnectionOptions(url=given.get("--url"), name="other" if "--connection" in given else None)
    address = resolve(options)
    assert (address.display if address else None) == (PLACES[first][1] if first < len(PLACES) else None)


def test_there_is_one_default_at_most(tmp_path: Path) -> None:
    file = tmp_path / "harborctl.toml"
    file.write_text("".join(f'[connections.{name}]\nurl = "postgresql:///a"\ndefault = true\n' for name in "ab"))
    with pytest.raises(UsageError) as caught:
        resolve(ConnectionOptions(config=str(file)))
    assert "several default connections: a, b" in caught.value.message


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"])
def test_libpq_variables_that_name_a_database(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    assert resolve(ConnectionOptions())


@pytest.mark.parametrize("name", ["PGPASSWORD", "PGSSLROOTCERT", "PGAPPNAME", "PGCONNECT_TIMEOUT", "PGOPTIONS"])
def test_libpq_variables_that_do_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    assert resolve(ConnectionOptions()) is None


@pytest.mark.parametrize(("name", "value"), [("PGPORT", "abc"), ("PGPORT", "0"), ("PGSSLMODE", "verify")])
def test_libpq_variables_that_libpq_would_refuse(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        resolve(ConnectionOptions(url="postgresql://db/harbor"))
    assert caught.value.code == "bad_url"
    assert resolve(ConnectionOptions(url="postgresql://db:1/harbor?sslmode=prefer"))


def test_database_url_is_said_to_be_ignored(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@other/d")
    assert resolve(ConnectionOptions()) is None
    assert caplog.messages == ["DATABASE_URL is not read; HARBORCTL_URL or --url says which database"]
    caplog.clear()
    monkeypatch.setenv("HARBORCTL_URL", "postgresql://u@variable/d")
    address = resolve(ConnectionOptions())
    assert address
    assert address.display == "postgresql://u@variable/d"
    assert caplog.messages == []


def test_an_unknown_connection_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "harborctl.toml"
    file.write_text('[connections.production]\nurl = "postgresql:///a"\n')
    with pytest.raises(UsageError) as caught:
        resolve(ConnectionOptions(name="prodution", config=str(file)))
    assert (caught.value.message, caught.value.hint) == (
        "the configuration has no connection prodution",
        "Did you mean production?",
    )
    file.write_text("")
    with pytest.raises(UsageError) as caught:
        resolve(ConnectionOptions(name="a", config=str(file)))
    assert "[connections.a]" in (caught.value.hint or "")


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_pgbouncer_by_variable(text: str, *, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBORCTL_PGBOUNCER", text)
    assert parse("postgresql:///a", "--url").pgbouncer is expected
    assert not parse("postgresql:///a?pgbouncer=false", "--url").pgbouncer
    monkeypatch.setenv("PGDATABASE", "a")
    assert resolve(ConnectionOptions()) == Address({}, display({}), pgbouncer=expected)
    monkeypatch.setenv("HARBORCTL_PGBOUNCER", "perhaps")
    with pytest.raises(UsageError, match="HARBORCTL_PGBOUNCER is neither true nor false"):
        parse("postgresql:///a", "--url")


@contextmanager
def session(url: str, **patience: float) -> Iterator[Connection]:
    """A session as a command has it."""
    options = replace(ConnectionOptions(url=url), **patience)  # type: ignore[arg-type]  # all of them are seconds
    with open_database(options) as database, database.engine.connect() as connection:
        yield connection


def _setting(connection: Connection, name: str) -> str:
    return str(connection.scalar(text("SELECT current_setting(:name)"), {"name": name}))


def _driver(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def test_a_session(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with open_database(ConnectionOptions(url=database_url)) as database, database.engine.connect() as connection:
        assert not database.embedded
        assert _setting(connection, "application_name") == "harborctl"
        assert _setting(connection, "client_encoding") == "UTF8"
        assert _setting(connection, "statement_timeout") == "0"
        assert _driver(connection).prepare_threshold == 5
        assert conninfo_to_dict(_driver(connection).info.dsn)["connect_timeout"] == "10"


def test_a_session_as_the_user_wants_it(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "application_name=nightly&connect_timeout=3&pgbouncer=true&options=-c%20work_mem%3D8MB"
    url = make_url(database_url).update_query_string(own).render_as_string(hide_password=False).replace("+", "%20")
    with session(url) as connection:
        assert _setting(connection, "application_name") == "nightly"
        assert _setting(connection, "work_mem") == "8MB"
        assert _driver(connection).prepare_threshold is None
        assert conninfo_to_dict(_driver(connection).info.dsn)["connect_timeout"] == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    monkeypatch.setenv("PGAPPNAME", "by variable")
    with session(database_url) as connection:
        assert _setting(connection, "application_name") == "by variable"
        assert conninfo_to_dict(_driver(connection).info.dsn)["connect_timeout"] == "4"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.5, "1500ms"), (0, "0"), (0.0001, "1ms"), (90, "90s"), (1e12, "2147483647ms")]
)
def test_timeouts_hold_for_the_transaction_only(database_url: str, seconds: float, shown: str) -> None:
    with session(database_url, statement_timeout=seconds, lock_timeout=seconds) as connection:
        for _ in range(2):
            with connection.begin():
                assert _setting(connection, "statement_timeout") == shown
                assert _setting(connection, "lock_timeout") == shown
        # Behind a pooler this session goes to somebody else now.
        row = _driver(connection).execute("SELECT current_setting('statement_timeout')").fetchone()
        assert row == ("0",)


def test_a_statement_that_takes_too_long(database_url: str) -> None:
    with pytest.raises(StatementFailed) as caught, session(database_url, statement_timeout=0.05) as connection:
        connection.execute(text("SELECT pg_sleep(5)"))
    assert caught.value.code == "57014"


def test_slow_statements_are_logged_without_values(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="harborctl")
    with session(database_url, log_slow=0.05) as connection:
        connection.execute(text("SELECT  1,\n :value"), {"value": SECRET})
        assert caplog.messages == []
        connection.execute(text("SELECT pg_sleep(0.1),\n  :value" + " " + "/* long */" * 100), {"value": SECRET})
    [message] = caplog.messages
    assert message.startswith("slow statement, 0.1 s: SELECT pg_sleep(0.1), %(value)s")
    assert len(message) <= 600
    assert SECRET not in message
    assert caplog.records[0].name == "harborctl"


def test_a_session_that_was_cut_is_replaced(database_url: str) -> None:
    with open_database(ConnectionOptions(url=database_url)) as database:
        with database.engine.connect() as connection:
            first = _driver(connection).info.backend_pid
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
        with database.engine.connect() as connection:
            assert _driver(connection).info.backend_pid != first


def test_service_file(server_with_passwords: PasswordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = tmp_path / "services"
    place = f"host=127.0.0.1\nport={server_with_passwords.port}\ndbname=postgres\nuser=postgres\n"
    services.write_text(f"[prod]\n{place}password={PASSWORD}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    for options in (ConnectionOptions(url="postgresql:///?service=prod"), ConnectionOptions()):
        with open_database(options) as database, database.engine.connect() as connection:
            assert _driver(connection).info.port == server_with_passwords.port
        assert PASSWORD not in database.url
        monkeypatch.setenv("PGSERVICE", "prod")
    assert database.url == server_with_passwords.url(password=None)
    with (
        pytest.raises(ConnectionFailed),
        open_database(ConnectionOptions(url="postgresql:///?service=dev")) as database,
    ):
        database.engine.connect()


def test_password_file(server_with_passwords: PasswordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server_with_passwords.port}:*:postgres:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    with session(server_with_passwords.url(password=None)) as connection:
        assert _setting(connection, "application_name") == "harborctl"


def test_the_second_host_when_the_first_is_down(server_with_passwords: PasswordServer) -> None:
    url = server_with_passwords.url().replace("@", "@127.0.0.1:1,")
    with session(url) as connection:
        assert _driver(connection).info.port == server_with_passwords.port


def test_no_password_anywhere(server_with_passwords: PasswordServer) -> None:
    with open_database(ConnectionOptions(url=server_with_passwords.url())) as database:
        shown = f"{database} {database.engine} {database.engine.url!r}"
    assert PASSWORD not in shown
    with pytest.raises(HarborctlError) as caught, session(server_with_passwords.url(database="missing")):
        pass
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_it_connects_when_it_is_used() -> None:
    started = time.monotonic()
    with open_database(ConnectionOptions(url="postgresql://10.255.255.1/x")) as database:
        assert "@10.255.255.1/" in database.url
    assert time.monotonic() - started < 1


def test_slow_statements_are_told_on_stderr_unless_quiet(harborctl: Harborctl) -> None:
    told = harborctl("count", "harbor.products", "--exact", "--log-slow", "0")
    assert told.code == 0
    assert "count(*)" in told.stderr
    quiet = harborctl("count", "harbor.products", "--exact", "--log-slow", "0", "--quiet")
    assert (quiet.code, quiet.stderr) == (0, "")
