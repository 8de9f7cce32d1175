"""Which database answers: what each of them says to `SELECT version()`, as its users have written it down."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine

from harborctl.db.product import product_of
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

COCKROACHDB = "CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu, built 2023/09/27 01:53:43, go1.19.10)"
REDSHIFT = (
    "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3),"
    " Redshift 1.0.48805"
)
YUGABYTEDB = "PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu, compiled by clang version 16.0.6, 64-bit"


@pytest.mark.parametrize(
    ("answer", "product"),
    [
        (COCKROACHDB, "CockroachDB 23.1.11"),
        ("CockroachDB CCL v2.1.0-alpha.20180702-281-g07a11b8e8c-dirty (x86_64-apple-darwin17.6.0)",
         "CockroachDB 2.1.0-alpha.20180702-281-g07a11b8e8c-dirty"),
        (REDSHIFT, "Amazon Redshift 1.0.48805"),
        (YUGABYTEDB, "YugabyteDB 2.20.1.0-b0"),
        ("PostgreSQL 15.12-YB-2025.1.0.0-b0 on aarch64-unknown-linux-gnu", "YugabyteDB 2025.1.0.0-b0"),
        ("PostgreSQL 9.4.24 (Greenplum Database 6.0.0 build commit:a2ff2fc318c3) on x86_64-unknown-linux-gnu",
         "Greenplum 6.0.0"),
        ("PostgreSQL 9.2.4 (openGauss 2.0.0 build 78689da9) compiled at 2021-03-31 21:04:03 commit 0 last mr   on",
         "openGauss 2.0.0"),
        ("PostgreSQL 17.4 (EnterpriseDB Advanced Server 17.4.0) on x86_64-pc-linux-gnu, compiled by gcc (GCC) 11.5.0",
         "EDB Postgres Advanced Server 17.4.0"),
        ("CrateDB 5.2.3 (built 1a2b3c4/2023-02-28, Linux 5.15 amd64, OpenJDK 64-Bit Server VM)", "CrateDB 5.2.3"),
        ("Umbra", "Umbra"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_what_only_speaks_like_postgresql(answer: str, product: str) -> None:
    found = product_of(answer, {"citus": "12.1"})
    assert (str(found), found.is_postgresql) == (product, False)


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("PostgreSQL 18.0 on x86_64-pc-linux-gnu, compiled by gcc (GCC) 14.2.1, 64-bit", "18.0"),
        ("PostgreSQL 15.14 (Debian 15.14-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2)", "15.14"),
        ("PostgreSQL 19beta1 on x86_64-apple-darwin, compiled by Apple clang version 16.0.0", "19beta1"),
        ("PostgreSQL 16.3, compiled by Visual C++ build 1939, 64-bit", "16.3"),
    ],
)  # fmt: skip
def test_postgresql(answer: str, version: str) -> None:
    assert str(product_of(answer)) == f"PostgreSQL {version}"
    assert product_of(answer, {"hstore": "1.8"}).is_postgresql
    both = product_of(answer, {"citus": "12.1-1", "hstore": "1.8", "timescaledb": "2.17.2"})
    assert (str(both), both.is_postgresql) == (f"PostgreSQL {version} with Citus 12.1-1, TimescaleDB 2.17.2", True)


@pytest.mark.parametrize("answer", [COCKROACHDB, REDSHIFT, YUGABYTEDB])
def test_doctor_says_that_it_is_untested(engine: Engine, invoke: Invoke, answer: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL allow_system_table_mods = on")
        connection.exec_driver_sql("ALTER FUNCTION pg_catalog.version() RENAME TO version_of_postgresql")
        connection.exec_driver_sql(
            f"CREATE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql AS $$SELECT '{answer}'$$"
        )
    done = invoke("doctor", "--json")
    lines = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "engine"]
    assert [(line["state"], line["message"]) for line in lines] == [
        ("warn", f"{product_of(answer)}, which harborctl has never been tested with")
    ]
    assert "only PostgreSQL 15 to 18" in lines[0]["hint"]
