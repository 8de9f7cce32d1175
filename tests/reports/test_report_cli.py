"""`harborctl report`: both streams and the exit code, every time; as a process where that matters."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import Engine

from tests.conftest import Run
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

SHOP = """
    INSERT INTO harbor.products (id, sku, name, category, price_cents, active) VALUES
        (1, 'TEE', 'T-shirt', 'clothes', 1990, true), (2, 'MUG', 'Mug', 'kitchen', 890, true),
        (3, 'OLD', 'Discontinued', 'kitchen', 100, false);
    INSERT INTO harbor.variants (id, product_id, sku, color, size, price_cents, stock_qty) VALUES
        (1, 1, 'TEE-R-S', 'red', 'S', 1990, 3), (2, 1, 'TEE-R-M', 'red', 'M', 1990, 0),
        (3, 2, 'MUG-W', '', '', 890, 4), (4, 2, 'MUG-B', 'blue', '', 890, 100), (5, 3, 'OLD-1', '', '', 100, 0);
    INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, state, expires_at) VALUES
        (1, 'A1', 6, 'active', now() + interval '1 hour'), (1, 'A2', 1, 'active', now() + interval '1 day'),
        (2, 'A3', 6, 'active', now() - interval '1 second'), (2, 'A4', 6, 'released', now() + interval '1 hour');
"""

LOW_STOCK = """\
product   sku       color   size   in_stock   reserved   free
─────────────────────────────────────────────────────────────
T-shirt   TEE-R-M   red     M             6          6      0
T-shirt   TEE-R-S   red     S            10          7      3
Mug       MUG-W                           4          0      4
(3 rows)
"""


@pytest.fixture
def harborctl(invoke: Invoke) -> Invoke:
    """Without a process of its own, which is most of what such a command takes."""
    return invoke


@pytest.fixture
def shop(engine: Engine) -> None:
    """Three products, five variants; of variant 1 seven pieces are held."""
    with engine.begin() as connection:
        connection.exec_driver_sql(SHOP)


def test_low_stock(harborctl: Invoke, shop: None) -> None:
    assert harborctl("report", "low_stock") == Run(0, LOW_STOCK, "")


def test_a_parameter(harborctl: Invoke, shop: None) -> None:
    run = harborctl("report", "low_stock", "-p", "threshold=7", "--format", "csv")
    assert run == Run(
        0,
        "product,sku,color,size,in_stock,reserved,free\n"
        "T-shirt,TEE-R-M,red,M,6,6,0\n"
        "T-shirt,TEE-R-S,red,S,10,7,3\n"
        'Mug,MUG-W,"","",4,0,4\n',
        "",
    )


def test_json(harborctl: Invoke, shop: None) -> None:
    run = harborctl("report", "low_stock", "--json", "--param", "threshold=4")
    assert (run.code, run.stderr) == (0, "")
    assert json.loads(run.stdout)[1:] == [
        {"product": "T-shirt", "sku": "TEE-R-S", "color": "red", "size": "S", "in_stock": 10, "reserved": 7, "free": 3}
    ]
    assert harborctl("report", "low_stock", "--format", "json", "-p", "threshold=4") == run


def test_inventory_value(harborctl: Invoke, shop: None) -> None:
    run = harborctl("report", "inventory_value", "--format", "csv")
    assert run == Run(
        0,
        "product,category,pieces,value,share_percent,running_percent\n"
        "Mug,kitchen,104,925.60,74.4,74.4\n"
        "T-shirt,clothes,16,318.40,25.6,100.0\n"
        "Discontinued,kitchen,0,0.00,0.0,100.0\n",
        "",
    )
    run = harborctl("report", "inventory_value", "-p", "category=clothes", "--format", "csv")
    assert (run.code, run.stdout.splitlines()[1:], run.stderr) == (0, ["T-shirt,clothes,16,318.40,100.0,100.0"], "")


def test_load_history(harborctl: Invoke, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("""
            INSERT INTO harborctl.loads (id, target_schema, target_table, mode, writer, status, rows_read,
                                         inserted, deleted, skipped, started_at, seconds, application_version, error)
            VALUES ('00000000-0000-0000-0000-000000000001', 'harbor', 'products', 'append', 'copy', 'loaded', 3,
                    2, 4, 1, now(), 1.25, '0', NULL),
                   ('00000000-0000-0000-0000-000000000002', NULL, 'gone', 'append', 'copy', 'failed', 0,
                    0, 0, 0, now() - interval '1 hour', NULL, '0', '{"message": "no such table"}'),
                   ('00000000-0000-0000-0000-000000000003', 'harbor', 'old', 'append', 'copy', 'loaded', 0,
                    0, 0, 0, now() - interval '1 year', NULL, '0', NULL);
            INSERT INTO harborctl.files (load_id, position, path, bytes)
            VALUES ('00000000-0000-0000-0000-000000000001', 1, 'a.csv', 10),
                   ('00000000-0000-0000-0000-000000000001', 2, 'b.csv', 20)
        """)
    run = harborctl("report", "load_history", "--json")
    assert (run.code, run.stderr) == (0, "")
    first, second = json.loads(run.stdout)
    assert (first["target"], first["files"], first["bytes"], first["seconds"]) == ("harbor.products", 2, 30, 1.3)
    assert (first["inserted"], first["deleted"], first["skipped"]) == (2, 4, 1)
    assert (second["target"], second["status"], second["error"]) == ("gone", "failed", "no such table")
    run = harborctl("report", "load_history", "--json", "-p", "target=harbor.old", "-p", "since=-2y")
    assert (run.code, len(json.loads(run.stdout)), run.stderr) == (0, 1, "")


LIST = """\
./reports
  mine: My own
    -p ids bigint[]  Which
    -p since date = -7d

Built in
  duplicate_keys: Keys that are there more than once
    -p table table  The table to search
    -p columns column[]  The columns that should tell its rows apart
  inventory_value: What the stock is worth
    -p category text = null  Only products of this category
  load_history: What was loaded
    -p since date = -30d  Loads from this day on
    -p target text = null  Only loads into this table, as schema.table
  low_stock: Variants running low
    -p threshold integer = 5  Stock level below which a variant is listed
  most_reserved: What is reserved most
    -p days integer = 14 [1..366]  How many days, today included
    -p top integer = 20 [1..10000]  How many variants
  oversold: What a count found to be sold twice
    -p hours integer = 24 [1..]  Counts that were applied within so many hours
  oversold_risk: Variants that may be sold twice
    -p percent numeric = 80 [0..]  List a variant from this share of its stock on
    -p days integer = 14 [1..366]  Days from which to tell how fast it goes
  reservations_aging: How old the reservations are
    -p category text = null  Only variants of products of this category
  stock_ledger: Stock that its movements do not account for
  table_sizes: How large the tables are
    -p schema text = null  Only tables of this schema
"""
MINE = (
    "-- title: My own\n-- param: ids bigint[]  Which\n-- param: since date = -7d\nSELECT :ids AS ids, :since AS since\n"
)


@pytest.fixture
def mine(tmp_path: Path) -> None:
    """`./reports/mine.sql`."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.sql").write_text(MINE)


NO_DATABASE = {"HARBORCTL_URL": "postgresql://nobody@127.0.0.1:1/none"}


def test_the_list(harborctl: Invoke, mine: None) -> None:
    run = harborctl("report", env={**NO_DATABASE})
    assert (run.code, run.stdout) == (0, LIST)
    assert run.stderr == (
        "Run one with `harborctl report NAME -p name=value`; `harborctl report show NAME` prints its SQL.\n"
    )
    assert harborctl("report", "--quiet") == Run(0, LIST, "")


def test_the_list_as_json(harborctl: Invoke, mine: None) -> None:
    run = harborctl("report", "--json", env={**NO_DATABASE})
    assert (run.code, run.stderr) == (0, "")
    reports = json.loads(run.stdout)
    assert reports[0] == {
        "folder": "./reports",
        "name": "mine",
        "file": "./reports/mine.sql",
        "title": "My own",
        "description": "",
        "usage": "harborctl report mine -p ids=BIGINT[] [-p since=DATE]",
        "parameters": [
            {"name": "ids", "type": "bigint[]", "required": True, "default": None, "bounds": None, "help": "Which"},
            {"name": "since", "type": "date", "required": False, "default": "-7d", "bounds": None, "help": ""},
        ],
    }
    assert [report["folder"] for report in reports[1:]] == ["built in"] * 10


def test_a_bad_report_is_left_out_of_the_list(harborctl: Invoke, mine: None, tmp_path: Path) -> None:
    (tmp_path / "reports" / "bad.sql").write_text("SELECT 1;\nSELECT 2")
    run = harborctl("report")
    assert (run.code, run.stdout) == (0, LIST)
    assert run.stderr.startswith(
        "warning: ./reports/bad.sql, line 2: a second statement begins here; left out of the list\n"
    )


def test_show(harborctl: Invoke, mine: None) -> None:
    run = harborctl("report", "show", "mine", env={**NO_DATABASE})
    usage = "-- Usage: harborctl report mine -p ids=BIGINT[] [-p since=DATE]\n-- From ./reports/mine.sql\n\n"
    assert run == Run(0, usage + MINE, "")
    run = harborctl("report", "show", "mine", "--json", env={**NO_DATABASE})
    assert (run.code, json.loads(run.stdout)["sql"], run.stderr) == (0, MINE, "")


def test_configured_folders(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "one.sql").write_text("SELECT 1 AS one")
    (tmp_path / "harborctl.toml").write_text('reports = ["ours"]')
    assert harborctl("report", "one", "--format", "csv") == Run(0, "one\n1\n", "")


def test_a_file(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(MINE)
    run = harborctl("report", "./x.sql", "-p", "ids=1,2", "-p", "ids=3", "-p", "since=2026-11", "--format", "jsonl")
    assert run == Run(0, '{"ids": [1, 2, 3], "since": "2026-11-01"}\n', "")


def test_a_limit(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("SELECT generate_series(1, 9000000000) AS i")
    assert harborctl("report", "x.sql", "--limit", "2", "--format", "csv") == Run(0, "i\n1\n2\n", "")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["low_stok"], "there is no report low_stok", "Did you mean low_stock?"),
        (
            ["low_stock", "-p", "threshold=few"],
            "parameter threshold must be a whole number, and 'few' is not",
            "threshold is of type integer: Stock level below which a variant is listed.",
        ),
        (["low_stock", "-p", "treshold=1"], "report low_stock has no parameter 'treshold'", "Did you mean threshold?"),
        (["low_stock", "threshold=1"], "threshold=1 stands alone", "Set a parameter with -p threshold=1."),
        (["low_stock", "other"], "one report at a time", "See --help."),
        (
            ["mine"],
            "report mine needs parameter ids",
            "Usage: harborctl report mine -p ids=BIGINT[] [-p since=DATE]",
        ),
        (["show"], "show needs the name of a report", "`harborctl report` lists them."),
        (
            ["-p", "a=1"],
            "these options are for running a report",
            "Name the report to run; `harborctl report` lists them.",
        ),
        (["show", "mine", "--limit", "1"], "these options are for running a report", "Leave out `show`."),
        (["low_stock", "-o", "a.exe"], "the suffix of a.exe names no format", None),
        (["low_stock", "-o", "missing/a.csv"], None, "Create it first."),
    ],
)
def test_bad_usage_is_told_without_a_database(
    harborctl: Invoke, mine: None, arguments: list[str], message: str | None, hint: str | None
) -> None:
    run = harborctl("report", *arguments, env={**NO_DATABASE})
    assert (run.code, run.stdout) == (2, "")
    first, second = run.stderr.splitlines()
    assert message is None or first == f"error: {message}"
    assert hint is None or second == f"hint: {hint}"


def test_json_contradicted(harborctl: Invoke) -> None:
    run = harborctl("report", "low_stock", "--json", "--format", "csv")
    assert run.code == 2
    assert json.loads(run.stdout)["error"]["message"] == "--json and --format csv contradict each other"
    assert run.stderr == "error: --json and --format csv contradict each other\nhint: Give one of them.\n"


def test_two_statements(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("SELECT 1;\n\nDELETE FROM harbor.products;\n")
    assert harborctl("report", "x.sql") == Run(
        2, "", "error: x.sql, line 3: a second statement begins here\nhint: A report is exactly one SELECT.\n"
    )


def test_a_report_that_writes(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("-- title: T\nINSERT INTO harbor.products VALUES (1)")
    assert harborctl("report", "x.sql") == Run(
        1,
        "",
        "error: x.sql, line 2: a report may only read, and this one begins with INSERT\n"
        "hint: A report is one SELECT or WITH … SELECT.\n",
    )
    (tmp_path / "x.sql").write_text("SELECT nextval('harbor.products_id_seq')")
    assert harborctl("report", "x.sql") == Run(
        1,
        "",
        "error: cannot execute nextval() in a read-only transaction\n"
        "hint: A report runs in a read-only transaction: it can read and no more.\n",
    )


def test_an_error_in_the_sql(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(
        "-- title: T\n-- param: n integer = 1\nSELECT :n,\n       zzz\nFROM harbor.products\n"
    )
    assert harborctl("report", "x.sql") == Run(
        1,
        "",
        'error: x.sql, line 4: column "zzz" does not exist\n'
        "hint: The server stopped here:\n           zzz\n           ^\n",
    )


def test_the_timeout(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("SELECT pg_sleep(20)")
    for option in ("--timeout", "--statement-timeout"):
        assert harborctl("report", "x.sql", option, "0.2") == Run(
            1,
            "",
            "error: canceling statement due to statement timeout\n"
            "hint: It took longer than --timeout allows, or somebody cancelled it.\n",
        )


def test_a_database_without_our_tables(harborctl: Invoke, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA harbor CASCADE")
    run = harborctl("report", "low_stock")
    assert (run.code, run.stdout) == (2, "")
    assert "\nhint: `harborctl migrate up` makes the tables that built-in reports read.\n" in run.stderr


def test_no_connection(harborctl: Invoke) -> None:
    run = harborctl("report", "low_stock", env={**NO_DATABASE})
    assert (run.code, run.stdout) == (3, "")
    assert run.stderr.startswith("error: ")


LATE_FAILURE = "SELECT 1 / (5000 - i) AS v FROM generate_series(1, 9000) AS i"


def test_json_is_one_document_also_when_it_fails_late(harborctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(LATE_FAILURE)
    run = harborctl("report", "x.sql", "--json")
    assert (run.code, json.loads(run.stdout)["error"]["code"]) == (1, "22012")
    assert run.stderr == "error: division by zero\n"
    assert harborctl("report", "x.sql", "--format", "json") == Run(1, "", "error: division by zero\n")


def test_a_file_is_written_whole_or_not_at_all(harborctl: Invoke, shop: None, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(LATE_FAILURE)
    out = tmp_path / "out.csv"
    out.write_text("older")
    before = sorted(tmp_path.iterdir())
    assert harborctl("report", "x.sql", "-o", "out.csv") == Run(1, "", "error: division by zero\n")
    assert out.read_text() == "older"
    assert sorted(tmp_path.iterdir()) == before

    run = harborctl("report", "low_stock", "-o", "out.csv")
    assert (run.code, run.stdout) == (0, "")
    assert run.stderr == f"wrote {Path('out.csv')}\n"
    assert out.read_text() == harborctl("report", "low_stock", "--format", "csv").stdout
    assert harborctl("report", "low_stock", "-o", "out.txt", "--quiet") == Run(0, "", "")
    assert (tmp_path / "out.txt").read_text() == LOW_STOCK
    assert harborctl("report", "low_stock", "-o", "-") == Run(0, LOW_STOCK, "")


def process(harborctl_env: dict[str, str], *arguments: str, stdout: IO[bytes] | int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "harborctl", "report", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **harborctl_env},
    )


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """What a process needs to find this test's database."""
    return {"HARBORCTL_URL": database_url, "HARBORCTL_HOME": str(tmp_path / "home")}


@pytest.mark.parametrize("output", ["table", "csv", "json", "jsonl", "markdown"])
def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], tmp_path: Path, output: str) -> None:
    (tmp_path / "x.sql").write_text("SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) AS i")
    with process(environment, str(tmp_path / "x.sql"), "--format", output, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


def test_a_full_disk(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full, process(environment, "low_stock", stdout=full) as running:
        assert running.stderr is not None
        assert running.stderr.read() == (
            b"error: cannot write standard output: No space left on device\nhint: Check space and permissions.\n"
        )
        assert running.wait() == 1


def test_memory_does_not_grow_with_the_rows(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(
        "-- param: n integer\nSELECT i, repeat('x', 200) AS x FROM generate_series(1, :n) AS i"
    )

    def peak(rows: int) -> int:
        with process(
            environment, str(tmp_path / "x.sql"), "-p", f"n={rows}", "-o", str(tmp_path / "x.csv"), stdout=-3
        ) as p:
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
        assert p.returncode == 0
        return usage.ru_maxrss  # KiB

    # 200 000 rows are 40 MB of text.
    assert peak(200_000) - peak(10) < 15_000
    with (tmp_path / "x.csv").open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == 11


def test_text_that_standard_output_cannot_say_is_utf_8_all_the_same(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "x.sql").write_text("SELECT '東京' AS city", encoding="utf-8")
    narrow = {**environment, "PYTHONIOENCODING": "ascii"}
    with process(narrow, str(tmp_path / "x.sql"), "--format", "csv", stdout=subprocess.PIPE) as running:
        out, err = running.communicate()
    assert (running.returncode, out.decode(), err) == (0, "city\n東京\n", b"")


@pytest.mark.parametrize("columns", ["", "0", "-1", "wide", "²"])
def test_a_width_that_is_none(harborctl: Invoke, shop: None, columns: str) -> None:
    assert harborctl("report", "low_stock", env={"COLUMNS": columns}) == Run(0, LOW_STOCK, "")
    assert "harbor.products" in harborctl("count", "harbor.products", env={"COLUMNS": columns}).stdout
    assert "Usage:" in harborctl("count", "--help", env={"COLUMNS": columns}).stdout
    assert harborctl("report", "nothing", env={"COLUMNS": columns}).stderr.startswith(
        "error: there is no report nothing\n"
    )


def test_standard_output_by_its_name(harborctl: Invoke, shop: None) -> None:
    assert harborctl("report", "low_stock", "-o", "/dev/stdout") == Run(0, LOW_STOCK, "")


def test_bytes_that_are_no_text(harborctl: Invoke, shop: None, tmp_path: Path) -> None:
    run = harborctl("report", "reservations_aging", "-p", "category=\udcff")
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr.startswith("error: parameter category must be in UTF-8, and '\\udcff' is not\n")
    for arguments in (["-p", "\udcff=1"], ["--chart", "\udcff"], ["-o", "\udcff"], ["-o", "\udcff/x.csv"]):
        run = harborctl("report", "low_stock", *arguments)
        assert (run.code, run.stdout) == (2, ""), arguments
        assert "bug" not in run.stderr
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "\udcff.sql").write_text("SELECT 1 AS a")
    for more in ([], ["--json"]):
        run = harborctl("report", *more)
        assert run.code == 0
        assert "udcff" in run.stdout or "\\xff" in run.stdout
    assert harborctl("report", "\udcff", "--format", "csv") == Run(0, "a\n1\n", "")


# Python starts, sends itself SIGINT when a module is looked for, and goes on as the program.
INTERRUPTED = """
import os, signal, sys
wanted = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from harborctl.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typer", ["count", "harbor.products"]),
        ("harborctl.cli.app", ["report", "low_stock"]),
        ("sqlalchemy", ["count", "harbor.products"]),
        ("psycopg", ["report", "low_stock"]),
    ],
)
def test_ctrl_c_while_it_starts(environment: dict[str, str], module: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, *arguments, "--json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert json.loads(done.stdout)["status"] == "interrupted"


@pytest.mark.parametrize("arguments", [["--json"], ["--format", "csv"]])
def test_ctrl_c_while_it_runs(
    environment: dict[str, str], engine: Engine, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "x.sql").write_text("SELECT pg_sleep(60) FROM generate_series(1, 9)")
    with process(environment, str(tmp_path / "x.sql"), *arguments, stdout=subprocess.PIPE) as running:
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"  # the query may be a FETCH
        until = time.monotonic() + 60
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            mine = f"{asleep} AND datname = current_database()"
            while not connection.exec_driver_sql(mine).scalar_one() and time.monotonic() < until:
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
            assert (running.returncode, err) == (130, b"error: interrupted\n")
            assert json.loads(out)["status"] == "interrupted" if "--json" in arguments else out == b"pg_sleep\n"
            while connection.exec_driver_sql(mine).scalar_one():  # the server does not sleep on
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_narrow_terminal(harborctl: Invoke, shop: None) -> None:
    run = harborctl("report", "low_stock", env={"COLUMNS": "30"})
    assert (run.code, run.stderr) == (0, "")
    assert run.stdout.startswith("── row 1 ")
    assert all(len(line) <= 30 for line in run.stdout.splitlines())


def test_only_what_is_needed_is_imported(environment: dict[str, str]) -> None:
    code = """
import sys
from harborctl.cli.app import run
code = run(["report", "low_stock", "--format", "csv"])
heavy = {"pyarrow", "alembic", "pgpq", "psutil", "numpy"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert next(csv.reader(io.StringIO(done.stdout)))[0] == "product"
