"""The data that travels between layers: frozen, plain, and without behaviour that needs a database.

Nothing here imports a heavy library; `harborctl --help` reads this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harborctl.errors import HarborctlError


class Mode(StrEnum):
    """The statement that puts staged rows into the target."""

    APPEND = "append"
    IGNORE = "ignore"
    UPSERT = "upsert"
    SYNC = "sync"
    REPLACE = "replace"

    @property
    def by_key(self) -> bool:
        """Whether staged rows are matched with the target's by a key."""
        return self in {Mode.IGNORE, Mode.UPSERT, Mode.SYNC}


class OnDuplicate(StrEnum):
    """Which of several rows with one key in one load counts, in file order; or that there must be none."""

    LAST = "last"
    FIRST = "first"
    ERROR = "error"


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


class Lock(StrEnum):
    """What to do when another run holds the target's lock."""

    WAIT = "wait"
    FAIL = "fail"
    SKIP = "skip"


class SourceFormat(StrEnum):
    """What a source is made of."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


class OnError(StrEnum):
    """What a row that cannot be stored does to the load: ends it, or goes into the reject file."""

    ABORT = "abort"
    REJECT = "reject"


class ShortRows(StrEnum):
    """What becomes of a CSV record with fewer fields than there are columns."""

    ERROR = "error"
    NULL = "null"


class ExtraFields(StrEnum):
    """What becomes of fields of a CSV record that are behind the last column."""

    ERROR = "error"
    IGNORE = "ignore"


class DateOrder(StrEnum):
    """How a date like 01/02/03 is read: DateStyle's order, for the load."""

    MDY = "mdy"
    DMY = "dmy"
    YMD = "ymd"


class RejectFormat(StrEnum):
    """What the reject file is written as, where that is not the source's own format."""

    CSV = "csv"


class Status(StrEnum):
    """How a load ended, as the summary and the ledger say it."""

    RUNNING = "running"
    LOADED = "loaded"
    LOADED_WITH_REJECTS = "loaded_with_rejects"
    ALREADY_LOADED = "already_loaded"
    LOCKED = "locked"
    DRY_RUN = "dry_run"
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
class CsvDialect:
    """How a CSV source is written. The defaults are those of COPY's CSV format, with a header.

    Attributes:
        delimiter, quote, escape: one single-byte character each; `escape` None means the same as `quote`. With '' for a
            quote no character is one.
        encoding: a Python codec name.
        nulls: unquoted spellings of NULL.
        header: the first record names the columns.
        columns: names that replace the header's, or stand in for it when there is none.
        skip_lines: physical lines to leave out before the header.
        max_record_bytes: a larger record is bad; of JSON Lines, too. None is 1 GiB, of JSON Lines 256 MiB.
        skip_footer: physical lines to leave out at the end of the file.
        skip_blank_lines: leave out lines with nothing on them but spaces and tabs.
        trim: leave out white space at both ends of each field, in quotes and outside.
        short_rows: NULL takes a missing field for an unquoted `nulls[0]`.
        force_null, force_not_null: columns of the table, or `*`, whose quoted fields may be NULL, too, or none of whose
            fields is.
        decimal: the sign before the decimals of numbers.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("",)
    header: bool = True
    columns: tuple[str, ...] = ()
    skip_lines: int = 0
    max_record_bytes: int | None = None
    skip_footer: int = 0
    skip_blank_lines: bool = False
    trim: bool = False
    short_rows: ShortRows = ShortRows.ERROR
    extra_fields: ExtraFields = ExtraFields.ERROR
    force_null: tuple[str, ...] = ()
    force_not_null: tuple[str, ...] = ()
    decimal: str = "."

    def meaning(self) -> dict[str, object]:
        """What the ledger keeps of it, and a fingerprint is made of. What was added since ledgers were first written is
        there only where it says something: earlier loads keep their fingerprints."""
        first = {"delimiter", "quote", "escape", "encoding", "nulls", "header", "columns", "skip_lines"}
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        says = first | (set(self.given()) - {"max_record_bytes"})  # a limit changes no row
        return {name: value for name, value in told.items() if name in says}

    def given(self) -> tuple[str, ...]:
        """The fields that say something else than COPY's CSV with a header."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) != each.default)


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """How a source's columns become the target's.

    Attributes:
        maps: source column, target column; one may fill several.
        constants: target column → the text of its value in every row.
        skipped: source columns to leave out. These and those of `maps` go by name, or as `#3` by position.
    """

    maps: tuple[tuple[str, str], ...] = ()
    constants: dict[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()

    @property
    def renames(self) -> dict[str, str | list[str]]:
        """`maps` as the ledger has always known it: most columns fill one."""
        found: dict[str, list[str]] = {}
        for source, target in self.maps:
            found.setdefault(source, []).append(target)
        return {source: targets[0] if len(targets) == 1 else targets for source, targets in found.items()}


@dataclass(frozen=True, slots=True)
class Limit:
    """So many rows, or so many percent of the rows there are."""

    rows: int | None = None
    percent: float | None = None

    def allows(self, count: int, total: int) -> bool:
        """Whether `count` of `total` rows are within it."""
        if self.rows is not None:
            return count <= self.rows
        return self.percent is None or count <= round(self.percent * total / 100, 6)

    def __str__(self) -> str:
        return f"{self.rows:,} rows" if self.rows is not None else f"{self.percent or 0:g} %"


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How rows of the load meet rows of the table.

    Attributes:
        key: what identifies a row in ignore, upsert and sync: columns, or the expression of an index; empty means the
            primary key.
        newest_by: the row with the highest value in this column wins, also against the table's. Upsert only.
        keep: columns that an update never overwrites.
        touch: a column that becomes now() in each row that is written.
        max_delete: sync: with more rows to delete nothing is done; None is a fifth of the table's.
        allow_empty: sync: no rows at all mean that the table becomes empty.
        no_block: replace: DELETE instead of TRUNCATE, so that readers need not wait.
        no_lock: sync and replace with `no_block`: others may write to the target meanwhile.
        update_only: upsert: rows whose key is new are left alone.
        cascade: sync: foreign keys may delete rows of other tables along.
    """

    key: tuple[str, ...] = ()
    newest_by: str | None = None
    on_duplicate: OnDuplicate = OnDuplicate.LAST
    keep: tuple[str, ...] = ()
    touch: str | None = None
    max_delete: Limit | None = None
    allow_empty: bool = False
    no_block: bool = False
    no_lock: bool = False
    update_only: bool = False
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class RowRange:
    """How many rows there may be; None leaves an end open."""

    low: int | None = None
    high: int | None = None

    def __contains__(self, count: int) -> bool:
        return (self.low is None or count >= self.low) and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        return f"{'' if self.low is None else self.low}..{'' if self.high is None else self.high}"


@dataclass(frozen=True, slots=True)
class RejectOptions:
    """What rows are bad, and what becomes of them.

    Attributes:
        file: where rejects go; None is `<stem>.rejects.<suffix>` in the working directory.
        format: None is the source's own.
        limit: with more rejects nothing is committed; None for no limit.
        force: an older reject file may be written over.
        checks: SQL conditions over the columns of the target that the load fills; a row for which one is false is bad.
        expected: how many rows the sources hold; with others nothing is committed.
    """

    on_error: OnError = OnError.ABORT
    file: str | None = None
    format: RejectFormat | None = None
    limit: Limit | None = None
    force: bool = False
    checks: tuple[str, ...] = ()
    expected: RowRange | None = None

    @property
    def rejecting(self) -> bool:
        """Whether bad rows are put aside."""
        return self.on_error is OnError.REJECT


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a load meets other runs, and what it does when it cannot go on.

    Attributes:
        again: load even what the ledger says is in.
        lock: when another run holds the target's lock.
        retries: how often a load is begun anew after a failure that may pass.
        commit_every: rows after which a load commits what there is; None commits once, at the end.
        jobs: connections that load at once.
    """

    again: bool = False
    lock: Lock = Lock.WAIT
    retries: int = 3
    commit_every: int | None = None
    jobs: int = 1


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Everything that one `harborctl load` was asked to do.

    Attributes:
        sources: paths, globs, or `-` for standard input, in load order.
        table: `[schema.]table`; None takes the single source's stem.
        dry_run: do all of it, tell what changed, and roll back.
        batch_size: rows in one round trip of the `values` writer.
        date_order: DateStyle's order while the load runs; None leaves the session's.
        ledger: record the load; False works in a database without our tables.
    """

    sources: tuple[str, ...]
    table: str | None = None
    mode: Mode = Mode.APPEND
    merge: MergeOptions = field(default_factory=MergeOptions)
    rejects: RejectOptions = field(default_factory=RejectOptions)
    dry_run: bool = False
    format: SourceFormat | None = None
    dialect: CsvDialect = field(default_factory=CsvDialect)
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    writer: WriterName = WriterName.AUTO
    batch_size: int = 1000
    analyze: Analyze = Analyze.AUTO
    date_order: DateOrder | None = None
    ledger: bool = True
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the rows that were read; the names are those of the summary."""

    rows_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    stale: int = 0
    duplicates: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class FileResult:
    """One source of a load.

    Attributes:
        bytes: its size on disk.
        rows: that were read of it.
        sha256: of its content: the bytes, uncompressed.
        content_bytes: how many these are.
        status: `loaded`, or `already_loaded` and left out.
        load_id: the load that put its rows in.
    """

    path: str
    bytes: int
    rows: int
    sha256: str
    content_bytes: int = 0
    status: Status = Status.LOADED
    load_id: str | None = None


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
class RejectReason:
    """Why rows were rejected: how many of one code in one column, and the first of them."""

    code: str
    column: str | None
    count: int
    message: str
    file: str
    line: int
    value: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A field before and after, as the server writes it; None is NULL."""

    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One row that a dry run would change.

    Attributes:
        kind: `inserted`, `updated` or `deleted`.
        key: column → value, as the server writes it; empty in modes that go by no key.
        columns: column → what becomes of it; of an update only the columns that differ.
    """

    kind: str
    key: dict[str, str | None]
    columns: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class Cascaded:
    """How many rows of another table foreign keys have deleted along."""

    table: str
    rows: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """A load of the ledger that put the same content into the same target in the same way.

    Attributes:
        finished_at: in ISO 8601, by the server's clock.
        pending: it rejected rows, and its reject file was never loaded.
    """

    load_id: str
    finished_at: str
    user: str
    host: str | None
    rejected: int = 0
    reject_file: str | None = None
    pending: bool = False


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load did. `rows_read` is always the sum of what became of the rows; `database` carries no password.

    Attributes:
        reject_reasons: the most frequent first.
        earlier: of an already loaded one, the load that did it; of several the last.
        pending_rejects: rows that loads of files which are left out have rejected, and that were never put right.
        attempts: how often the load was begun.
        retried: what ended each attempt but the last.
        chunks: parts that committed on their own; the counters are about them if not all of the load is in.
        changes: of a dry run, up to ten rows of each kind.
        errors: further bad rows behind that of `error`, as many as were found cheaply, up to nine.
        notes: what the user should know besides.
        cascaded: what sync has deleted from other tables, by foreign keys with ON DELETE CASCADE.
    """

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
    reject_reasons: tuple[RejectReason, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    cascaded: tuple[Cascaded, ...] = ()
    earlier: Earlier | None = None
    pending_rejects: int = 0
    attempts: int = 1
    retried: tuple[ErrorInfo, ...] = ()
    chunks: int = 0
    error: ErrorInfo | None = None
    errors: tuple[ErrorInfo, ...] = ()

    @property
    def lacks_rows(self) -> bool:
        """Whether rows of its sources are not in, since they were rejected, now or by an earlier load."""
        return self.status is Status.LOADED_WITH_REJECTS or self.pending_rejects > 0
