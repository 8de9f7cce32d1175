"""Parquet and Arrow files with random bytes changed: read as pyarrow reads them, checksums on, or one clean error.

HARBORCTL_TEST_DAMAGE_EXAMPLES=5000 asks for more than every day has.
"""

from __future__ import annotations

import os
import random
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harborctl.errors import BadRow, SourceChanged, SourceError
from harborctl.model import CsvDialect, SourceFormat
from harborctl.sources.arrow_ipc import ArrowSource
from harborctl.sources.files import SourceFile, check_unchanged, find_files
from harborctl.sources.open import open_file
from tests.load.sizes import DAMAGE_EXAMPLES

TABLE = pa.table(
    {
        "number": pa.array(range(200)),
        "text": pa.array([f"text {row % 7}" if row % 5 else None for row in range(200)]),
        "list": pa.array([[row, None] * (row % 3) for row in range(200)], pa.list_(pa.int32())),
        "struct": pa.array([{"a": str(row), "b": [row / 2]} for row in range(200)]),
        "kind": pa.array(["x", "y"] * 100).dictionary_encode(),
        "flag": pa.array([None, True] * 100),
        "bytes": pa.array([b"\x00\xff"] * 200, pa.binary(2)),
    }
)


def written(path: Path, kind: str, choice: random.Random) -> None:
    if kind == "parquet":
        pq.write_table(
            TABLE,
            path,
            compression=choice.choice(["none", "snappy", "zstd"]),
            row_group_size=choice.choice([50, 200]),
            write_page_checksum=choice.random() < 0.7,
            use_dictionary=choice.random() < 0.5,
        )
        return
    options = pa.ipc.IpcWriteOptions(compression=choice.choice([None, None, "lz4", "zstd"]))
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(path, TABLE.schema, options=options) as out:
        out.write_table(TABLE, max_chunksize=choice.choice([50, 200]))


def damaged(path: Path, choice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(choice.choice([1, 1, 2, 8])):
        content[choice.randrange(len(content))] = choice.choice([0, 1, 127, 255, choice.randrange(256)])
    if choice.random() < 0.1:
        del content[choice.randrange(len(content)) :]
    path.write_bytes(content)


def read_by_us(path: Path, kind: str) -> list[pa.RecordBatch] | None:
    found = SourceFormat.PARQUET if kind == "parquet" else SourceFormat.ARROW
    try:
        source = open_file(SourceFile(path.name, path, found), CsvDialect())
        try:
            return [batch.records for batch in source.batches(range(len(source.schema)))]
        finally:
            source.close()
    except (SourceError, BadRow):
        return None


def read_by_pyarrow(path: Path, kind: str) -> pa.Table:
    if kind == "parquet":
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    with pa.OSFile(str(path)) as file:
        return (pa.ipc.open_file(file) if kind == "file" else pa.ipc.open_stream(file)).read_all()


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_random_damage(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    outcomes = {"read": 0, "refused": 0}
    for seed in range(DAMAGE_EXAMPLES):
        choice = random.Random(seed)  # noqa: S311  # no secrets
        written(path, kind, choice)
        damaged(path, choice)
        batches = read_by_us(path, kind)
        outcomes["refused" if batches is None else "read"] += 1
        if batches is not None:
            expected = read_by_pyarrow(path, kind)
            assert sum(batch.num_rows for batch in batches) == expected.num_rows, seed
            for number, column in enumerate(expected.columns):
                ours = pa.chunked_array([batch.column(number) for batch in batches], column.type)
                assert str(ours.combine_chunks()) == str(column.combine_chunks()), (seed, number)
    assert min(outcomes.values()), outcomes


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_an_arrow_file_that_is_truncated_while_it_is_read_ends_no_process(tmp_path: Path, kind: str) -> None:
    path, table = tmp_path / "a.arrow", pa.table({"v": ["x" * 100] * 50_000})
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    [file] = find_files([str(path)], SourceFormat.ARROW)
    with closing(ArrowSource(file)) as source:
        batches = source.batches([0])
        first = next(batches)
        os.truncate(path, 100_000)
        assert len(first.records.column(0).to_pylist()) == first.records.num_rows
        with pytest.raises((BadRow, SourceChanged)):  # a stream may end anywhere
            list(batches)
            check_unchanged([file])
        with pytest.raises(SourceChanged):
            list(source.originals([1]))
