"""Parquet sources on their own: batches cut by size, INT96, checksums."""

from __future__ import annotations

import struct
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harborctl.errors import BadRow
from harborctl.model import SourceFormat
from harborctl.sources.batch import Batch
from harborctl.sources.files import SourceFile
from harborctl.sources.parquet import ParquetSource
from harborctl.sources.sizes import BATCH_BYTES


def source(path: Path) -> ParquetSource:
    return ParquetSource(SourceFile(path.name, path, SourceFormat.PARQUET))


def batches(path: Path) -> list[Batch]:
    opened = source(path)
    return list(opened.batches(range(len(opened.schema))))


def values(found: list[Batch]) -> list[object]:
    return [value for batch in found for value in batch.records.column(0).to_pylist()]


# -- sizes


def wide(rows: int) -> pa.Array:
    return pa.array([f"{row:06}" + "x" * 20_000 for row in range(rows)])


@pytest.mark.parametrize(
    ("column", "dictionary"),
    [
        (wide(1000), False),
        (wide(1000), True),
        (pa.array(["x" * 20_000, "y" * 20_000] * 1000), True),
        (pa.concat_arrays([pa.array(["a"] * 50_000), wide(1000)]), False),
        (pa.array([[float(row)] * 768 for row in range(3000)], pa.list_(pa.float32())), True),
        (pa.array(["x" * 20_000, "y" * 20_000] * 1000).dictionary_encode(), True),
    ],
    ids=["text", "dictionary", "few values", "skewed", "lists", "dictionary type"],
)  # fmt: skip
def test_batches_are_cut_by_size(tmp_path: Path, column: pa.Array, dictionary: bool) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "x.parquet", use_dictionary=dictionary)
    found = batches(tmp_path / "x.parquet")
    for batch in found:
        array = batch.records.column(0)
        plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        assert plain.nbytes <= 2 * BATCH_BYTES
    assert pa.chunked_array([batch.records.column(0) for batch in found]).equals(pa.chunked_array([column]))
    assert [batch.line_of(0) for batch in found] == [batch.row_of(0) + 1 for batch in found]


def test_small_row_groups_are_read_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(20_000)}), tmp_path / "x.parquet", row_group_size=100)
    found = batches(tmp_path / "x.parquet")
    assert len(found) < 8
    assert values(found) == list(range(20_000))


def test_dictionaries_inside_of_lists_in_several_row_groups(tmp_path: Path) -> None:
    column = pa.array([["a", "b"], [], ["c"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))
    pq.write_table(pa.table({"a": column}), tmp_path / "x.parquet", row_group_size=1)
    assert values(batches(tmp_path / "x.parquet")) == [["a", "b"], [], ["c"]]


# -- INT96


def write_int96(path: Path, *columns: pa.Array) -> Path:
    names = [chr(ord("a") + number) for number in range(len(columns))]
    pq.write_table(pa.table(list(columns), names), path, use_deprecated_int96_timestamps=True)
    return path


def test_moments_far_away(tmp_path: Path) -> None:
    far = [datetime(1, 1, 1), datetime(1677, 1, 1), None, datetime(2262, 12, 31, 1, 2, 3, 4), datetime(9999, 12, 31)]
    array = pa.array(far, pa.timestamp("us"))
    assert values(batches(write_int96(tmp_path / "x.parquet", array))) == far
    lists = pa.ListArray.from_arrays([0, 2, 5], array)
    assert values(batches(write_int96(tmp_path / "x.parquet", lists))) == [far[:2], far[2:]]
    maps = pa.MapArray.from_arrays([0, 2, 5], pa.array(["v", "w", "x", "y", "z"]), array)
    assert values(batches(write_int96(tmp_path / "x.parquet", maps)))[0] == [("v", far[0]), ("w", far[1])]
    structs = pa.StructArray.from_arrays([array], ["s"])
    assert values(batches(write_int96(tmp_path / "x.parquet", structs))) == [{"s": moment} for moment in far]


def test_moments_finer_than_microseconds_come_with_all_their_digits(tmp_path: Path) -> None:
    array = pa.array([1, None, 2000, -1], pa.timestamp("ns"))
    (batch,) = batches(write_int96(tmp_path / "x.parquet", pa.array([1, 2, 3, 4]), array))
    assert batch.records.column(1).cast(pa.int64()).to_pylist() == [1, None, 2000, -1]


@pytest.mark.parametrize("nanoseconds", [0, 1])
def test_moments_far_away_and_fine_ones_in_one_batch(tmp_path: Path, nanoseconds: int) -> None:
    path = tmp_path / "x.parquet"
    # Arrow writes no column that has both: the second value is put in its place afterwards.
    array = pa.array([1, 0, None, 2000], pa.timestamp("ns"))
    pq.write_table(
        pa.table({"a": array}),
        path,
        use_deprecated_int96_timestamps=True,
        compression="none",
        use_dictionary=False,
    )
    julian_1970, julian_9999 = 2440588, 5373484
    content = path.read_bytes()
    old, new = struct.pack("<qi", 0, julian_1970), struct.pack("<qi", nanoseconds, julian_9999)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    found = []
    reading = source(path).batches([0])
    found.append(next(reading))
    assert found[0].records.column(0).cast(pa.int64()).to_pylist() == [1]
    if nanoseconds:
        with pytest.raises(BadRow, match="finer than microseconds") as refused:
            list(reading)
        assert refused.value.location
        assert refused.value.location.line == 2
        return
    found += reading
    assert values(found[1:2]) == [datetime(9999, 12, 31)]
    assert values(found[2:]) == [None, datetime(1970, 1, 1, 0, 0, 0, 2)]
    assert [batch.line_of(0) for batch in found] == [1, 2, 3]


# -- damage


def test_checksums_of_pages_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"a": range(1000)}), path, write_page_checksum=True, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadRow, match="damaged") as refused:
        batches(path)
    assert refused.value.code == "bad_parquet"
    assert refused.value.location
    assert refused.value.location.line == 1
