"""Memory follows bytes: neither wide rows nor large row groups and record batches make a load's peak grow.

HARBORCTL_TEST_MEMORY_MEGABYTES=200 takes files of that size, for which the peak must stay under 300 MB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.load.sizes import MEMORY_MEGABYTES

ROW_BYTES = 50_000
ROWS = MEMORY_MEGABYTES * 10**6 // ROW_BYTES
LONG = MEMORY_MEGABYTES >= 100
# A small load takes 130 MB; pages of a thousand rows, as Arrow writes Parquet, are 50 MB here, and come twice.
PEAK_BYTES = 300 * 10**6


# A process is told to have had what its parent had when it began. So a small one stands between.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak_bytes(url: str, path: Path, folder: Path) -> int:
    """Load the file by a process of its own; the most memory that it had."""
    load = [sys.executable, "-m", "harborctl", "load", str(path), "-t", "t", "--no-ledger", "--quiet", "--url", url]
    launched = [sys.executable, "-c", LAUNCHER, *load]
    code, peak = subprocess.run(launched, cwd=folder, stdout=subprocess.PIPE, check=True).stdout.split()
    assert int(code) == 0
    return int(peak)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"] if LONG else ["parquet", "arrow"])
def test_wide_rows(database_url: str, tmp_path: Path, suffix: str) -> None:
    table = pa.table({"id": range(ROWS), "c": [f"{row:09}" + "x" * (ROW_BYTES - 9) for row in range(ROWS)]})
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path, compression="none")
    elif suffix == "arrow":
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table)
    elif suffix == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        path.write_text("".join(f'{{"id":{row["id"]},"c":"{row["c"]}"}}\n' for row in table.to_pylist()))
    assert peak_of(database_url, path, "text", tmp_path) < PEAK_BYTES


@pytest.mark.skipif(sys.platform == "win32", reason="likewise")
@pytest.mark.parametrize("suffix", ["parquet", "arrow"] if LONG else ["arrow"])
def test_embeddings(database_url: str, tmp_path: Path, suffix: str) -> None:
    rows = MEMORY_MEGABYTES * 500 // (1 if LONG else 5)  # they take longer than their bytes tell
    values = pa.array([float(number % 1000) / 8 for number in range(768 * 100)], pa.float32())
    lists = pa.FixedSizeListArray.from_arrays(pa.concat_arrays([values] * (rows // 100)), 768).cast(
        pa.list_(pa.float32())
    )
    table = pa.table({"id": range(rows), "c": lists})
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table)
    assert peak_of(database_url, path, "real[]", tmp_path) < PEAK_BYTES


def peak_of(url: str, path: Path, kind: str, folder: Path) -> int:
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(f"CREATE TABLE t (id int, c {kind})")
    return peak_bytes(url, path, folder)
