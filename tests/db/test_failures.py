"""Each error of the database that we rely on, raised by a real server, becomes the right one of ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harborctl.db.engine import open_database
from harborctl.db.failures import refusal_state, translate, translated
from harborctl.errors import AccessDenied, ConnectionFailed, HarborctlError, StatementFailed, TargetError
from harborctl.model import ConnectionOptions
from tests.db.servers import PASSWORD, PasswordServer, password_server

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = """
CREATE TABLE t (id integer PRIMARY KEY, name varchar(3) NOT NULL DEFAULT 'a', price integer CHECK (price > 0),
                parent integer REFERENCES t);
INSERT INTO t VALUES (1, 'a', 1, NULL);
"""

STATEMENTS = [
    ("INSERT INTO t VALUES (1)", StatementFailed, "23505", None, "--mode upsert"),
    ("INSERT INTO t VALUES (2, NULL)", StatementFailed, "23502", "name", None),
    ("INSERT INTO t VALUES (2, 'a', 0)", StatementFailed, "23514", None, None),
    ("INSERT INTO t VALUES (2, 'a', 1, 9)", StatementFailed, "23503", None, None),
    ("INSERT INTO t VALUES (2, 'long')", StatementFailed, "22001", None, None),
    ("SELECT 'x'::integer", StatementFailed, "22P02", None, None),
    ("SELECT 99999999999::integer", StatementFailed, "22003", None, None),
    ("SELECT '2026-13-01'::date", StatementFailed, "22008", None, "setting"),
    ("SELECT 1/0", StatementFailed, "22012", None, None),
    ("SELECT * FROM missing", TargetError, "42P01", None, None),
    ("CREATE TABLE missing.t ()", TargetError, "3F000", None, None),
    ("SELECT FROM WHERE", StatementFailed, "42601", None, None),
    ("SET LOCAL statement_timeout = 10; SELECT pg_sleep(5)", StatementFailed, "57014", None, "--statement-timeout"),
    ("SET TRANSACTION READ ONLY; DELETE FROM t", StatementFailed, "25006", None, "primary"),
    ("SELECT pg_terminate_backend(pg_backend_pid())", ConnectionFailed, "57P01", None, "run the command again"),
    # What a test cannot bring about in earnest; the server sends it all the same.
    ("DO 'BEGIN RAISE disk_full; END'", StatementFailed, "53100", None, "disk is full"),
    ("DO 'BEGIN RAISE out_of_memory; END'", StatementFailed, "53200", None, "out of memory"),
    ("DO 'BEGIN RAISE deadlock_detected; END'", StatementFailed, "40P01", None, "run it again"),
    ("DO 'BEGIN RAISE serialization_failure; END'", StatementFailed, "40001", None, "run it again"),
    ("DO 'BEGIN RAISE connection_failure; END'", ConnectionFailed, "08006", None, "run the command again"),
    ("DO $$BEGIN RAISE EXCEPTION 'no' USING HINT = 'Do so.'; END$$", StatementFailed, "P0001", None, "Do so."),
]


@pytest.fixture
def table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(TABLE)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(("statement", "kind", "code", "column", "hint"), STATEMENTS)
def test_statements(
    engine: Engine, statement: str, kind: type[HarborctlError], code: str, column: str | None, hint: str | None
) -> None:
    with pytest.raises(HarborctlError) as caught, translated(), engine.connect() as connection:
        connection.exec_driver_sql(statement)
    error = caught.value
    assert (type(error), error.code, error.column) == (kind, code, column)
    assert error.message
    assert not error.message.endswith(".")
    assert "\n" not in error.message
    assert hint in error.hint if hint and error.hint else error.hint == hint
    assert error.__cause__ is not None


@pytest.mark.usefixtures("table")
def test_the_detail_says_which_row(engine: Engine) -> None:
    with pytest.raises(StatementFailed) as caught, translated(), engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (:id)"), {"id": 1})
    assert caught.value.message.endswith('constraint "t_pkey": Key (id)=(1) already exists')


def test_a_connection_that_is_used_after_it_was_lost(engine: Engine) -> None:
    with pytest.raises(ConnectionFailed) as caught, translated(), engine.begin() as connection:
        with suppress(DBAPIError):
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        connection.execute(text("SELECT 1"))
    assert (caught.value.code, caught.value.message) == ("connection_lost", "the connection to the database was lost")


@pytest.mark.usefixtures("table")
def test_without_sqlalchemy_too(database_url: str) -> None:
    with pytest.raises(StatementFailed) as caught, translated(), psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    assert caught.value.code == "23505"


def test_a_lock_that_does_not_come(engine: Engine, table: None) -> None:
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE t"))
        with pytest.raises(StatementFailed) as caught, translated(), engine.begin() as waiting:
            waiting.exec_driver_sql("SET LOCAL lock_timeout = 10; SELECT * FROM t")
    assert caught.value.code == "55P03"
    assert caught.value.hint
    assert "--lock-timeout" in caught.value.hint


def test_no_privilege(engine: Engine, table: None) -> None:
    statements = "CREATE ROLE nobody_in_particular; SET LOCAL ROLE nobody_in_particular; SELECT * FROM t"
    with pytest.raises(AccessDenied) as caught, translated(), engine.connect() as connection:
        connection.exec_driver_sql(statements)
    assert caught.value.message == "permission denied for table t"
    assert caught.value.code == "42501"
    assert caught.value.hint
    assert "GRANT" in caught.value.hint


def test_a_value_that_never_reaches_the_server(engine: Engine, table: None) -> None:
    with pytest.raises(StatementFailed, match="NUL") as caught, translated(), engine.begin() as connection:
        connection.execute(text("SELECT CAST(:value AS text)"), {"value": "a\0b"})
    assert caught.value.code == "statement_failed"


def test_the_network_goes_away(engine: Engine) -> None:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with socket.socket(fileno=os.dup(driver.fileno())) as session:
            session.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionFailed) as caught, translated():
            connection.execute(text("SELECT 1"))
    assert caught.value.code == "connection_lost"
    assert caught.value.message.startswith("the connection to the database was lost: ")


def test_a_closed_connection(database_url: str) -> None:
    connection = psycopg.connect(database_url)
    connection.close()
    with pytest.raises(ConnectionFailed), translated():
        connection.execute("SELECT 1")


def test_something_else_that_sqlalchemy_wraps() -> None:
    from sqlalchemy.exc import DBAPIError

    assert translate(DBAPIError(None, None, ValueError("odd"))).message == "odd"


@pytest.fixture
def refusing(server_with_passwords: PasswordServer) -> Iterator[PasswordServer]:
    """The server with a role that may not log in, one with too many sessions, and a database closed to it."""
    with psycopg.connect(server_with_passwords.url(), autocommit=True) as connection:
        for role, option in (("barred", "NOLOGIN"), ("crowded", "LOGIN CONNECTION LIMIT 0"), ("ordinary", "LOGIN")):
            create = sql.SQL("CREATE ROLE {} {} PASSWORD {}")
            connection.execute(create.format(sql.Identifier(role), sql.SQL(option), PASSWORD))
        connection.execute("CREATE DATABASE closed")
        connection.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        yield server_with_passwords
        connection.execute("DROP DATABASE closed")
        connection.execute("DROP ROLE barred, crowded, ordinary")


@pytest.mark.parametrize(
    ("user", "database", "password", "code", "hint"),
    [
        ("postgres", "postgres", "wrong-Pass", "28P01", "user's name and password"),
        ("nobody", "postgres", "wrong-Pass", "28P01", "user's name and password"),
        ("postgres", "postgres", None, "no_connection", "user's name and password"),
        ("barred", "postgres", PASSWORD, "28000", "user's name and password"),
        ("postgres", "missing", PASSWORD, "3D000", "createdb"),
        ("crowded", "postgres", PASSWORD, "53300", "max_connections"),
        ("ordinary", "closed", PASSWORD, "42501", "GRANT CONNECT"),
    ],
)
def test_refusals(
    refusing: PasswordServer, user: str, database: str, password: str | None, code: str, hint: str
) -> None:
    _assert_refused(refusing.url(user, database, password), code, hint, password)


def test_refused_while_shutting_down() -> None:
    with password_server() as server, psycopg.connect(server.url()):
        server.process.send_signal(signal.SIGTERM)  # waits for the session that is open
        for _ in range(100):
            if refusal_state(server.url()):
                break
        _assert_refused(server.url(), "57P03", "try again", PASSWORD)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/x",
        "postgresql:///x?host=/nowhere",
        "postgresql://no-such-host.invalid/x",
        "postgresql://127.0.0.1:1,127.0.0.1:2/x",
    ],
)
def test_no_server(url: str) -> None:
    _assert_refused(url, "no_connection", "the server runs", None)


def test_a_server_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        _assert_refused(f"postgresql://127.0.0.1:{port}/x?connect_timeout=2", "no_connection", "the server runs", None)


def test_no_ssl(server_with_passwords: PasswordServer) -> None:
    _assert_refused(server_with_passwords.url() + "?sslmode=require", "no_connection", "has no TLS", PASSWORD)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a server that knows no more of the protocol than TLS, and the folder of its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", "/CN=db.example.org"]
        subprocess.run([*make, *files], cwd=folder, check=True, capture_output=True)
        (folder / f"{name}.key").chmod(0o600)
    (folder / "open.key").write_bytes((folder / "ca.key").read_bytes())
    (folder / "open.key").chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "ca.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.recv(8)
                client.sendall(b"S")
                context.wrap_socket(client, server_side=True).close()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], folder
    listener.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="certificates are made by openssl")
@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ("sslmode=verify-full&sslrootcert={}/none.crt", "sslrootcert=FILE"),
        ("sslmode=verify-ca&sslrootcert={}/other.crt", "did not sign"),
        ("sslmode=verify-full&sslrootcert={}/ca.crt", "hostaddr=ADDRESS"),
        ("sslmode=require&sslcert={0}/ca.crt&sslkey={0}/none.key", "sslkey=FILE"),
        ("sslmode=require&sslcert={0}/ca.crt&sslkey={0}/open.key", "chmod 600"),
        ("sslmode=require&sslcert={0}/ca.crt&sslkey={0}/other.key", "its own key"),
    ],
)
def test_failures_of_tls(tls: tuple[int, Path], settings: str, hint: str) -> None:
    port, folder = tls
    url = f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/d?gssencmode=disable&{settings.format(folder)}"
    _assert_refused(url, "no_connection", hint, PASSWORD)


def _assert_refused(url: str, code: str, hint: str, password: str | None) -> None:
    with pytest.raises(ConnectionFailed) as caught, open_database(ConnectionOptions(url=url)) as database:
        database.engine.connect()
    error = caught.value
    if sys.platform != "linux" and code[0].isdigit():
        code = "no_connection"  # libpq traces on Linux only
    assert error.code == code
    assert error.message.startswith("no connection to the database: ")
    assert "\n" not in error.message
    assert error.hint
    assert hint in error.hint
    assert not password or password not in error.message


def test_refused_without_our_engine(server_with_passwords: PasswordServer) -> None:
    with pytest.raises(ConnectionFailed) as caught, translated():
        psycopg.connect(server_with_passwords.url(password="wrong-Pass"))  # noqa: S106  # it is wrong on purpose
    assert caught.value.hint
    assert "password" in caught.value.hint


def test_bound_values_stay_out_of_tracebacks(database_url: str) -> None:
    options = ConnectionOptions(url=database_url)
    with (
        pytest.raises(StatementFailed) as caught,
        open_database(options) as database,
        database.engine.connect() as connection,
    ):
        connection.execute(text("SELECT CAST(:value AS text), 1/0"), {"value": "hidden"})
    assert "hidden" not in str(caught.value.__cause__).replace("parameters hidden", "")
