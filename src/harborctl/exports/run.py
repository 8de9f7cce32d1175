"""Writes tables into files: all of one snapshot, all or none."""

from __future__ import annotations

import gzip
import hashlib
import json
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, cast

from sqlalchemy import text

from harborctl.db.failures import translated
from harborctl.exports.plan import ExportOptions, make_plan
from harborctl.reports.formats import BY_LINES, Compression, Format
from harborctl.reports.output import file_output
from harborctl.reports.render import Layout
from harborctl.reports.run import RunOptions, rows_of, settle
from harborctl.reports.write import write
from harborctl.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from harborctl.exports.plan import PlannedFile
    from harborctl.reports.result import Batches, Result


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written.

    Attributes:
        bytes, sha256: of the file as it lies on disk.
        columns: in order.
        value: of a partition, the text of its value; None also for that of NULL.
    """

    table: str
    path: str
    rows: int
    bytes: int
    sha256: str
    columns: tuple[str, ...]
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        at: when its snapshot was taken, by the server's clock.
        manifest: where the same stands as JSON; None for one file alone.
    """

    at: datetime
    files: tuple[ExportedFile, ...]
    manifest: str | None


def export(
    engine: Engine, options: ExportOptions, timeout: float, on_file: Callable[[PlannedFile], None] | None = None
) -> Exported:
    """Write what the options name. No file takes its name before all are complete.

    Args:
        engine: the database.
        options: what, and where to.
        timeout: seconds after which the server ends a statement; 0 for never.
        on_file: is told the file that comes next.

    Raises:
        HarborctlError: there is no such table, it cannot be read, or a file cannot be written.
    """
    with translated(), engine.connect() as connection, ExitStack() as files:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        plan = make_plan(connection, options)
        settings = RunOptions(timeout=timeout, lines=plan.format in BY_LINES)
        settle(connection, settings)
        at = connection.execute(text("SELECT pg_catalog.transaction_timestamp()")).scalar_one().astimezone(UTC)
        done = []
        for file in plan.files:
            if on_file is not None:
                on_file(file)
            file.path.parent.mkdir(parents=True, exist_ok=True)
            stream = files.enter_context(file_output(file.path))
            done.append(_written(connection, file, plan.format, options.compression, settings, stream))
        if plan.manifest is not None:
            document = {
                "harborctl": __version__,
                "exported_at": at.isoformat(),
                "format": plan.format,
                "files": [
                    {**asdict(each), "path": str(planned.path.relative_to(plan.manifest.parent))}
                    for each, planned in zip(done, plan.files, strict=True)
                ],
            }
            text_of_it = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            files.enter_context(file_output(plan.manifest)).write(text_of_it.encode())
    return Exported(at, tuple(done), str(plan.manifest) if plan.manifest is not None else None)


def _written(
    connection: Connection, file: PlannedFile, output: Format, compression: Compression | None, settings: RunOptions,
    stream: IO[bytes],
) -> ExportedFile:  # fmt: skip
    counted = _Counted(stream)
    with rows_of(connection, file.query, {}, settings) as result, _compressed(counted, compression) as inner:
        rows = _Rows(result)
        write(rows.result, output, Layout(title=file.table), None, inner)
    columns = tuple(column.name for column in result.columns)
    digest = counted.digest.hexdigest()
    return ExportedFile(file.table, str(file.path), rows.count, counted.bytes, digest, columns, file.value)


class _Rows:
    """A result that counts its rows on their way.

    In blocks of COPY's lines every row ends in a line feed outside of quotes, and a quote inside of a field is doubled:
    behind an even number of quotes a line feed is the end of a row.
    """

    def __init__(self, result: Result) -> None:
        self.count = 0
        lines = result.lines
        self.result = replace(
            result, batches=self._batches(result.batches), lines=None if lines is None else lambda: self._lines(lines())
        )

    def _batches(self, batches: Batches) -> Batches:
        for batch in batches:
            self.count += len(batch)
            yield batch

    def _lines(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:  # of whole lines
            self.count += block.count(b"\n") if b'"' not in block else _rows_in(block)
            yield block


def _rows_in(block: bytes) -> int:
    return sum(part.count(b"\n") for part in block.split(b'"')[::2])


class _Counted:
    """A stream that knows how much went through it, and the digest of that."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        self._stream.write(data)
        return len(data)

    def writelines(self, parts: Iterator[bytes]) -> None:
        for part in parts:
            self.write(part)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Leave the stream open: whoever opened it closes it."""

    closed = False


@contextmanager
def _compressed(stream: _Counted, compression: Compression | None) -> Iterator[IO[bytes]]:
    plain = cast("IO[bytes]", stream)
    if compression is None:
        yield plain
    elif compression is Compression.GZIP:
        with gzip.GzipFile(fileobj=plain, mode="wb", filename="", mtime=0) as packed:
            yield cast("IO[bytes]", packed)
    else:
        import pyarrow as pa

        with pa.CompressedOutputStream(pa.PythonFile(plain, mode="w"), "zstd") as packed:
            yield cast("IO[bytes]", packed)
