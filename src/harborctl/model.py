"""The data that travels between layers: frozen, plain, and without behaviour that needs a database.

Nothing here imports a heavy library; `harborctl --help` reads this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harborctl.errors import HarborctlError


class Mode(StrEnum):
    """The statement that puts staged rows into the target."""

    APPEND = "append"
    UPSERT = "upsert"


class WriterName(StrEnum):
    """How batches travel to the server."""

    AUTO = "auto"
    VALUES = "values"
    COPY = "copy"


class Analyze(StrEnum):
    """Whether a load ends with ANALYZE of its target; `auto` if it changed more than a tenth of it."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class SourceFormat(StrEnum):
    """What a source is made of."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


class Status(StrEnum):
    """How a load ended, as the summary and the ledger say it."""

    LOADED = "loaded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Which database, and how patient to be with it.

    Attributes:
        url: what `--url` named.
        name: a connection of the configuration file.
        config: path of the configuration file; None looks for `./harborctl.toml`.
        statement_timeout: seconds after which the server ends a statement; None leaves the server's setting.
        lock_timeout: seconds to wait for a lock; None leaves the server's setting.
        log_slow: seconds from which on a statement is logged.
    """

    url: str | None = None
    name: str | None = None
    config: str | None = None
    statement_timeout: float | None = None
    lock_timeout: float | None = None
    log_slow: float = 30.0


@dataclass(frozen=True, slots=True)
class Location:
    """Where a record stands in its source.

    `line` is the 1-based physical line at which the record starts; for Parquet and Arrow the 1-based row.
    """

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a CSV source is written. The defaults are those of COPY's CSV format, with a header.

    Attributes:
        delimiter, quote, escape: one single-byte character each; `escape` None means the same as `quote`.
        encoding: a Python codec name.
        nulls: unquoted spellings of NULL.
        header: the first record names the columns.
        columns: names that replace the header's, or stand in for it when there is none.
        skip_lines: physical lines to leave out before the header.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("",)
    header: bool = True
    columns: tuple[str, ...] = ()
    skip_lines: int = 0


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """How a source's columns become the target's.

    Attributes:
        renames: source column → target column.
        constants: target column → the text of its value in every row.
        skipped: source columns to leave out.
    """

    renames: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Everything that one `harborctl load` was asked to do.

    Attributes:
        sources: paths, globs, or `-` for standard input, in load order.
        table: `[schema.]table`; None takes the single source's stem.
        key: columns that identify a row in an upsert; empty means the primary key.
        batch_size: rows in one round trip of the `values` writer.
        ledger: record the load; False works in a database without our tables.
    """

    sources: tuple[str, ...]
    table: str | None = None
    mode: Mode = Mode.APPEND
    key: tuple[str, ...] = ()
    format: SourceFormat | None = None
    dialect: CsvDialect = field(default_factory=CsvDialect)
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    writer: WriterName = WriterName.AUTO
    batch_size: int = 1000
    analyze: Analyze = Analyze.AUTO
    ledger: bool = True


@dataclass(frozen=True, slots=True)
class FileResult:
    """One source of a load, read to its end. `bytes` is its size on disk; `sha256` of the bytes as they lie there."""

    path: str
    bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as the JSON summary carries it."""

    code: str
    message: str
    file: str | None = None
    line: int | None = None
    column: str | None = None
    value: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: HarborctlError) -> ErrorInfo:
        """What `error` says, taken apart."""
        place = error.location
        return cls(
            code=error.code,
            message=error.message,
            file=place.file if place else None,
            line=place.line if place else None,
            column=error.column,
            value=error.value,
            hint=error.hint,
        )


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load did. `rows_read` is always the sum of what became of the rows; `database` carries no password."""

    status: Status
    load_id: str
    table: str
    mode: Mode
    writer: WriterName
    rows_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    skipped: int = 0
    stale: int = 0
    duplicates: int = 0
    rejected: int = 0
    reject_file: str | None = None
    files: tuple[FileResult, ...] = ()
    seconds: float = 0.0
    rows_per_second: int = 0
    database: str = ""
    error: ErrorInfo | None = None
