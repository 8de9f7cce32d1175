"""`harborctl doctor`: a line for each check, and the exit code that they add up to."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url

from tests.conftest import Run
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

NAMES = [
    "connection",
    "engine",
    "version",
    "encryption",
    "pooler",
    "writes",
    "rights",
    "migrations",
    "settings",
    "transactions",
    "sessions",
    "disk",
]


def checks(done: Run) -> dict[str, list[dict[str, Any]]]:
    """The document's checks, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def run(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_sound_database(invoke: Invoke) -> None:
    done = invoke("doctor", "--json")
    assert (done.code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert list(document) == ["status", "database", "checks"]
    assert list(dict.fromkeys(check["name"] for check in document["checks"])) == NAMES
    # The tests' server does without fsync, which is worth a warning.
    assert document["status"] == "warn"
    assert {c["name"] for c in document["checks"] if c["state"] != "ok"} == {"settings"}
    assert all(check["hint"] for check in document["checks"] if check["state"] != "ok")


def test_lines_for_people(invoke: Invoke) -> None:
    done = invoke("doctor")
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    connection: postgresql://")
    assert "ok    migrations: ledger is at ledger_0003" in lines
    warned = lines.index("warn  settings: fsync is off: a crash of the machine can destroy the database")
    assert lines[warned + 1] == "      → Set fsync = on."


def test_no_connection(invoke: Invoke) -> None:
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    done = invoke("doctor", "--json", "--url", url)
    assert done.code == 3
    document = json.loads(done.stdout)
    assert document["status"] == "fail"
    assert [(check["name"], check["state"]) for check in document["checks"]] == [("connection", "fail")]
    assert done.stderr.startswith("error: no connection to the database")
    assert "secret" not in done.stdout + done.stderr
    done = invoke("doctor", "--url", url)
    assert (done.code, done.stdout[:17]) == (3, "fail  connection:")


def test_a_user_without_rights(engine: Engine, invoke: Invoke) -> None:
    database = str(engine.url.database)
    role = f"guest_of_{database}"
    run(engine, f"CREATE ROLE {role}", f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    run(engine, f"GRANT USAGE ON SCHEMA harborctl TO {role}", f"GRANT SELECT ON harborctl.loads TO {role}")
    try:
        url = engine.url.set(drivername="postgresql").update_query_dict({"options": f"-crole={role}"})
        done = invoke("doctor", "--json", "--url", url.render_as_string(hide_password=False))
        assert (done.code, done.stderr) == (1, "")
        rights = [(check["state"], check["message"]) for check in checks(done)["rights"]]
        assert rights == [
            ("fail", f"{role} may not make temporary tables, which upserts are staged in"),
            ("fail", f"harbor: closed to {role}"),
            ("fail", f"harborctl: 5 tables; {role} may read 1, insert into 0, update 0"),
            ("ok", "public: 0 tables"),
        ]
        hint = checks(done)["rights"][2]["hint"]
        assert hint.startswith(f"GRANT INSERT, UPDATE ON harborctl.loads TO {role}; ")
        assert f"GRANT SELECT ON harborctl.alembic_version TO {role}, as" in hint
        [transactions] = checks(done)["transactions"]
        assert transactions["message"].endswith("others' are not visible to it")
        [migrations] = checks(done)["migrations"]  # the version table is closed to it, and the others go on
        assert migrations["state"] == "warn"
        assert migrations["message"].startswith("cannot be looked at: permission denied")
        assert list(checks(done)) == NAMES
    finally:
        run(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_every_table_is_closed(engine: Engine, invoke: Invoke) -> None:
    """Then no load can go in, and what doctor says mends it."""
    role = f"nobody_of_{engine.url.database}"
    run(engine, f"CREATE ROLE {role}", "DROP SCHEMA public")
    try:
        url = engine.url.set(drivername="postgresql").update_query_dict({"options": f"-crole={role}"})
        place = ("--json", "--url", url.render_as_string(hide_password=False))
        for _ in range(2):  # the schema first, then what is in it
            done = invoke("doctor", *place)
            assert done.code == 1
            failed = [check for check in checks(done)["rights"] if check["state"] == "fail"]
            for check in failed:
                run(engine, *(part for part in check["hint"].split(", as its owner")[0].split("; ")))
        assert invoke("doctor", *place).code == 0
    finally:
        run(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_without_our_tables(engine: Engine, invoke: Invoke) -> None:
    run(engine, "DROP SCHEMA harborctl CASCADE")
    done = invoke("doctor", "--json")
    assert (done.code, done.stderr) == (1, "")
    ledger, harbor = checks(done)["migrations"]
    assert (ledger["state"], ledger["message"]) == ("fail", "this database has no ledger yet")
    assert "--no-ledger" in ledger["hint"]
    assert harbor["state"] == "ok"


def test_settings_of_a_session(engine: Engine, invoke: Invoke) -> None:
    database = engine.url.database
    run(
        engine,
        f"ALTER DATABASE {database} SET maintenance_work_mem = '4MB'",
        f"ALTER DATABASE {database} SET synchronous_commit = remote_apply",
        f"ALTER DATABASE {database} SET default_transaction_read_only = on",
    )
    done = invoke("doctor", "--json")
    found = checks(done)
    messages = [check["message"] for check in found["settings"]]
    assert "maintenance_work_mem is 4MB: indexes are built slowly" in messages
    assert "synchronous_commit is remote_apply: every commit waits for a standby" in messages
    assert [check["state"] for check in found["writes"]] == ["warn"]


def test_a_long_transaction(engine: Engine, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harborctl.db.health.LONG_TRANSACTION", 0)
    with engine.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        done = invoke("doctor", "--json")
    transactions = checks(done)["transactions"]
    assert any(
        check["message"].startswith(f"process {pid} of ") and f"pg_terminate_backend({pid})" in check["hint"]
        for check in transactions
    )
    assert {check["state"] for check in transactions} == {"warn"}


@pytest.fixture
def pooler(engine: Engine) -> Iterator[str]:
    """The URL of a stand-in for PgBouncer: what it has in common with it is that the process id which the client is
    told is not the server's."""
    listener = socket.create_server(("127.0.0.1", 0))
    host = str(engine.url.query.get("host") or engine.url.host)
    port = int(str(engine.url.query.get("port") or engine.url.port or 5432))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            target.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if host.startswith("/"):
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(Path(host) / f".s.PGSQL.{port}"))
            else:
                server = socket.create_connection((host, port))
            [length] = struct.unpack("!i", client.recv(4))
            server.sendall(struct.pack("!i", length) + client.recv(length - 4))
            head = b""
            while b"K\x00\x00\x00" not in head:
                head += server.recv(65536)
            at = head.index(b"K\x00\x00\x00") + 5
            client.sendall(head[:at] + struct.pack("!i", 12345) + head[at + 4 :])
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            threading.Thread(target=pump, args=(server, client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    url = make_url(f"postgresql://{engine.url.username}@127.0.0.1:{listener.getsockname()[1]}/{engine.url.database}")
    yield url.update_query_dict({"sslmode": "disable", "gssencmode": "disable"}).render_as_string()
    listener.close()


def test_a_pooler(invoke: Invoke, pooler: str) -> None:
    [seen] = checks(invoke("doctor", "--json", "--url", pooler))["pooler"]
    assert (seen["state"], seen["hint"]) == (
        "warn",
        "Add ?pgbouncer=true to the URL, or set HARBORCTL_PGBOUNCER=1.",
    )
    found = checks(invoke("doctor", "--json", "--url", f"{pooler}&pgbouncer=true"))
    assert [check["state"] for check in found["pooler"]] == ["ok"]
    assert [check["message"] for check in found["encryption"]] == ["none, within this machine"]
