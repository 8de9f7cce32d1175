"""From names to bytes: globs, suffixes, compression, digests; and the formats that are not CSV."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import feather
from pyarrow.parquet import encryption

import harborctl.sources.csv.arrow_reader
import harborctl.sources.open
from harborctl.errors import BadRow, SourceError
from harborctl.model import LoadOptions, OnError, RejectOptions, SourceFormat
from harborctl.sources.files import find_files
from harborctl.sources.open import open_sources

TEXT = b"a,b\n" + b"".join(b"%d,x%d\n" % (number, number) for number in range(100_000))


def lz4(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd, "lz4": lz4}


def rows(*names: Path | str, **options: Any) -> list[dict[str, Any]]:
    found = []
    for source in open_sources(LoadOptions(sources=tuple(map(str, names)), **options)):
        try:
            for batch in source.batches(range(len(source.schema))):
                found += [dict(zip(source.schema.names, row, strict=True)) for row in _tuples(batch.records)]
        finally:
            source.close()
    return found


def _tuples(records: pa.RecordBatch) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in records.columns), strict=True))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_are_streamed_and_their_content_is_hashed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.csv.{suffix}"
    # Two compressed files put together are one, as with cat.
    path.write_bytes(COMPRESS[suffix](TEXT[:1000]) + COMPRESS[suffix](TEXT[1000:]))
    (source,) = open_sources(LoadOptions(sources=(str(path),)))
    count = sum(batch.records.num_rows for batch in source.batches([0]))
    result = source.result()
    source.close()
    assert count == result.rows == 100_000
    assert (result.bytes, result.sha256) == (path.stat().st_size, hashlib.sha256(TEXT).hexdigest())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_cut_short_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.csv.{suffix}"
    whole = COMPRESS[suffix](TEXT)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"x\.csv\.\w+ cannot be decompressed"):
        rows(path)


def test_json_lines_keep_numbers_and_nested_values_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"n": 1.10, "big": 123456789012345678901234567890, "t": "é\\n", "f": true, "o": {"x": [1.50, null, "ä"]}}\n'
        "\n"
        '{"t": null, "n": -0}\n'
    )
    assert rows(path) == [
        {
            "n": "1.10",
            "big": "123456789012345678901234567890",
            "t": '"é\\n"',
            "f": "true",
            "o": '{"x": [1.50, null, "ä"]}',
        },
        {"n": "-0", "big": None, "t": None, "f": None, "o": None},
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{"a": 1}\n{"a": \n', 2, "not JSON: it ends too early"),
        ('{"a": 1}\n\n[1]\n', 3, "not a JSON object"),
        ('{"a": 1}\n{"a": "\xe9"}\n', 2, "bytes e9 are not UTF-8"),
        ('{"a": 1}\n{"a": 01}', 2, r"not JSON: invalid number \(byte 7\)"),
        ('{"a": 1}\n{"a": "\\ud800"}', 2, "half of a pair of surrogates"),
        ('{"a": 1}\n{"b": 1}{"a": 1}', 2, "trailing characters"),
    ],
)
def test_broken_json_lines_are_located(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadRow, match=message) as caught:
        rows(path)
    assert caught.value.location
    assert caught.value.location.line == line


def test_arrow_files_and_streams(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array(range(20_000), pa.int16()), "b": pa.array(["x", None] * 10_000)})
    feather.write_feather(table, tmp_path / "x.feather", compression="zstd")
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "x.arrows", table.schema) as writer:
        writer.write_table(table)
    for name in ("x.feather", "x.arrow", "x.arrows"):
        assert rows(tmp_path / name) == table.to_pylist()
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "x.arrow").read_bytes()[:-300])
    with pytest.raises(SourceError, match="not a readable Arrow file"):
        rows(tmp_path / "cut.arrow")
    (tmp_path / "cut.arrows").write_bytes((tmp_path / "x.arrows").read_bytes()[:-3000])
    with pytest.raises(BadRow, match="damaged"):
        rows(tmp_path / "cut.arrows")


def test_tab_separated(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('a\tb\n1\t"x\ty"\n')
    assert rows(tmp_path / "x.tsv") == [{"a": "1", "b": "x\ty"}]


def test_a_file_with_glob_characters_in_its_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "x[1].csv").write_text("a\n1\n")
    assert [file.format for file in find_files([str(tmp_path / "x[1].csv")], None)] == [SourceFormat.CSV]


def test_a_compressed_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet.gz").write_bytes(b"")
    with pytest.raises(SourceError, match="compressed as a whole"):
        find_files([str(tmp_path / "x.parquet.gz")], None)


def test_two_stars_find_files_in_folders_below(tmp_path: Path) -> None:
    for name in ("a/x.csv", "a/b/y.csv", "z.csv", "a/b/other.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("n\n1\n")
    found = [Path(file.name).name for file in find_files([str(tmp_path / "**/*.csv")], None)]
    assert found == ["y.csv", "x.csv", "z.csv"]
    assert len(find_files([str(tmp_path / "**")], SourceFormat.CSV)) == 4  # no folders


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.csv").write_text(f"n\n{number}\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    try:
        assert rows(tmp_path / "*.csv") == [{"n": str(number)} for number in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _write_csv(path: Path, table: pa.Table) -> None:
    path.write_text("n\n" + "".join(f"{value}\n" for value in table["n"].to_pylist()))


def _write_json(path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def _write_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {
    "x.csv": _write_csv,
    "x.jsonl": _write_json,
    "x.parquet": lambda path, table: pq.write_table(table, path, row_group_size=1000),
    "x.arrow": lambda path, table: feather.write_feather(table, path, compression="uncompressed"),
    "x.arrows": _write_stream,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_source_that_is_opened_in_its_turn_gives_rows_again(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, pa.table({"n": range(20_000)}))
    (source,) = open_sources(LoadOptions((str(tmp_path / name),), rejects=RejectOptions(OnError.REJECT)), most_open=0)
    read = [str(value) for batch in source.batches([0], (), _nobody) for value in batch.records.column(0).to_pylist()]
    assert read == [str(number) for number in range(20_000)]
    again = list(source.originals([3, 19_000]))
    texts = [str(found.row.column(0)[0]) if found.row is not None else found.text.decode() for found in again]
    assert [re.sub(r"\D", "", text) for text in texts] == ["3", "19000"]
    assert source.result().rows == 20_000
    source.close()


def _nobody(error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
    raise AssertionError((error, before, record, splits))


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_parquet_file(tmp_path: Path, plaintext_footer: bool) -> None:
    class Keys(encryption.KmsClient):
        def __init__(self, _: object) -> None:
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

    path = tmp_path / "t.parquet"
    table = pa.table({"id": [1, 2]})
    settings = encryption.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["id"]}, plaintext_footer=plaintext_footer, double_wrapping=False
    )
    factory = encryption.CryptoFactory(Keys)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(SourceError) as caught:
        open_sources(LoadOptions((str(path),)))
    assert caught.value.code == "encrypted_parquet"


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_column_whose_name_is_no_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    table = pa.table({"nnnn": [1]})
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    path.write_bytes(path.read_bytes().replace(b"nnnn", b"n\xff\xfen"))
    with pytest.raises(SourceError) as caught:
        open_sources(LoadOptions((str(path),)))
    assert (caught.value.code, "not UTF-8" in caught.value.message) == ("22021", True)


def test_arrow_leaves_signals_to_python() -> None:
    """Ctrl-C and SIGTERM end a load whatever it does; Arrow's own handlers lose some while it reads CSV."""
    assert harborctl.sources.csv.arrow_reader  # which settles it
    received: list[int] = []

    class Signalling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            signal.raise_signal(signal.SIGTERM)
            return super().read(size)

    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        table = arrow_csv.read_csv(Signalling(b"a\n1\n"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (table.num_rows, set(received)) == (1, {signal.SIGTERM})
