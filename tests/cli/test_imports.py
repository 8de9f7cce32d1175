"""Which heavy packages a command imports: those that its work needs, and no others. Start-up is part of speed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.conftest import Harborctl, execute

HEAVY = {
    "alembic",
    "importlib.metadata",
    "matplotlib",
    "msgspec",
    "pgpq",
    "prometheus_client",
    "psycopg",
    "pyarrow",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic",
    "rich",
    "sqlalchemy",
    "xlsxwriter",
}

# Typer reads what is said with pydantic, which looks for plugins of its own in the packages that are installed.
# Lists, since a set is in another order in each process, and all processes want the same names of tests.
SAYING = ["rich", "pydantic", "importlib.metadata"]
ASKING = [*SAYING, "sqlalchemy", "psycopg"]
LOADING = [*ASKING, "pyarrow", "pgpq", "msgspec"]


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--version"], ["rich"]),
        (["--help"], ["rich"]),
        (["load", "--help"], SAYING),
        (["run", "--help"], SAYING),
        (["report"], SAYING),
        (["report", "show", "low_stock"], SAYING),
        (["db", "status"], SAYING),
        (["count", "orders"], ASKING),
        (["tables"], ASKING),
        (["tables", "orders"], ASKING),
        (["report", "table_sizes"], ASKING),
        (["report", "table_sizes", "--format", "csv"], ASKING),
        (["history"], ASKING),
        (["doctor"], ASKING),
        (["stock", "show"], ASKING),
        (["migrate", "current"], ASKING),
        (["migrate", "history"], [*ASKING, "alembic"]),
        (["load", "orders.csv"], LOADING),
        (["load", "orders.jsonl"], LOADING),
        (["run", "nightly"], LOADING),
    ],
    ids=" ".join,
)
def test_what_a_command_imports(
    engine: Engine, harborctl: Harborctl, tmp_path: Path, arguments: list[str], needed: list[str]
) -> None:
    execute(engine, "CREATE TABLE orders (id int)")
    (tmp_path / "orders.csv").write_text("id\n1\n")
    (tmp_path / "orders.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "harborctl.toml").write_text('[[jobs.nightly.loads]]\nsource = "orders.csv"\ntable = "orders"\n')
    run = harborctl(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert run.code == 0, run.stderr
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert imported & HEAVY == set(needed)
