"""Real files, TPC-H, against COPY: the same rows, byte for byte, whichever file and writer they came by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.load.conftest import Load
from tests.load.sizes import TPCH_SCALE

TABLES = {
    "lineitem": (
        (
            "CREATE TABLE {} (l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,"
            " l_linenumber integer NOT NULL, l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL,"
            " l_discount numeric(15,2) NOT NULL, l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL,"
            " l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL, l_commitdate date NOT NULL,"
            " l_receiptdate date NOT NULL, l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL,"
            " l_comment varchar(44) NOT NULL)"
        ),
        (
            "SELECT count(*), sum(l_extendedprice), sum(l_quantity),"
            " md5(string_agg(t::text, '|' ORDER BY l_orderkey, l_linenumber)) FROM {} AS t"
        ),
    ),
    "orders": (
        (
            "CREATE TABLE {} (o_orderkey bigint PRIMARY KEY, o_custkey bigint NOT NULL, o_orderstatus char(1) NOT NULL,"
            " o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL,"
            " o_clerk char(15) NOT NULL, o_shippriority integer NOT NULL, o_comment varchar(79) NOT NULL)"
        ),
        (
            "SELECT count(*), sum(o_totalprice), sum(o_custkey), md5(string_agg(t::text, '|' ORDER BY o_orderkey))"
            " FROM {} AS t"
        ),
    ),
}

# (scale, writer): the values writer takes its time.
LOADS = [(TPCH_SCALE, "copy"), ("0.005", "values")]


@pytest.fixture(scope="session")
def tpch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tpch")
    generator = Path(sys.executable).with_name("tpchgen-cli")
    for scale, _ in LOADS:
        for kind in ("csv", "parquet"):
            arguments = [kind, "-s", scale, "--tables=lineitem,orders", f"--output-dir={folder / scale}", "-q"]
            subprocess.run([generator, *arguments], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(("scale", "writer"), LOADS)
@pytest.mark.parametrize("table", TABLES)
def test_tpch_loads_as_copy_does(
    load: Load, database: psycopg.Connection[Any], tpch: Path, table: str, scale: str, writer: str
) -> None:
    create, fingerprint = TABLES[table]

    def digest(name: str) -> Any:
        return database.execute(sql.SQL(fingerprint).format(sql.Identifier(name))).fetchone()

    names = {"oracle": f"{table}_copied", ".csv": f"{table}_csv", ".parquet": f"{table}_parquet"}
    for name in names.values():
        database.execute(sql.SQL(create).format(sql.Identifier(name)))
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT csv, HEADER)").format(sql.Identifier(names["oracle"]))
    with (tpch / scale / f"{table}.csv").open("rb") as file, database.cursor().copy(statement) as copy:
        while block := file.read(1 << 20):
            copy.write(block)
    expected = digest(names["oracle"])
    assert expected[0] > 5_000
    for suffix in (".csv", ".parquet"):
        summary = load((tpch / scale / table).with_suffix(suffix), "-t", names[suffix], "--writer", writer)
        assert summary["inserted"] == expected[0]
        assert digest(names[suffix]) == expected
    if table == "orders":
        again = load(tpch / scale / "orders.parquet", "-t", names[".csv"], "-m", "upsert", "--writer", writer)
        assert (again["unchanged"], again["updated"], again["inserted"]) == (expected[0], 0, 0)
        assert digest(names[".csv"]) == expected
