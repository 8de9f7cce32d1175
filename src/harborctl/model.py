"""The data that travels between layers: frozen, plain, and without behaviour that needs a database.

Nothing here imports a heavy library; `harborctl --help` reads this module.
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from harborctl.errors import HarborctlError, UsageError
from harborctl.options import (
    Option,
    Panel,
    as_text,
    delimiter_character,
    key_parts,
    names,
    pairs,
    quote_character,
)


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
    JSON = "json"
    PARQUET = "parquet"
    ARROW = "arrow"
    XLSX = "xlsx"
    ODS = "ods"
    FIXED = "fixed"
    COPY = "copy"


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


class RebuildIndexes(StrEnum):
    """Whether indexes are dropped, and built when the rows are in: of tables without rows, never, or of any table."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


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
class PoolOptions:
    """How many sessions a process keeps and opens, in the words of `sqlalchemy.create_engine`. What is None is as the
    connection of the configuration file says, or else as `db.pool` does."""

    pool_size: Annotated[
        int | None, Option("--pool-size", metavar="N", least=1, help="Keep so many sessions. \\[default: 5]")
    ] = None
    max_overflow: Annotated[
        int | None,
        Option("--max-overflow", metavar="N", least=-1, help="Open so many more; -1: any number. \\[default: -1]"),
    ] = None
    pool_timeout: Annotated[
        float | None,
        Option("--pool-timeout", metavar="S", least=0, help="Give up waiting for one of them. \\[default: 30]"),
    ] = None
    pool_recycle: Annotated[
        int | None, Option("--pool-recycle", metavar="S", least=1, help="Replace sessions that are older.")
    ] = None


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
        pool: of the sessions of this process.
    """

    url: str | None = None
    name: str | None = None
    config: str | None = None
    statement_timeout: float | None = None
    lock_timeout: float | None = None
    log_slow: float = 30.0
    pool: PoolOptions = PoolOptions()


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a CSV source is written. The defaults are those of COPY's CSV format, with a header.

    Attributes:
        delimiter, quote, escape: one single-byte character each; `escape` None means the same as `quote`. With '' for a
            quote no character is one.
        encoding: a Python codec name.
        columns: names that replace the header's, or stand in for it when there is none.
        max_record_bytes: of JSON Lines, too. None is 1 GiB, of JSON Lines 256 MiB.
        short_rows: NULL takes a missing field for an unquoted `nulls[0]`.
        force_null, force_not_null: columns of the table, or `*`.
    """

    delimiter: Annotated[
        str, Option("--delimiter", metavar="C", read=delimiter_character, help="One character, or 'tab'.")
    ] = ","
    quote: Annotated[str, Option("--quote", metavar="C", read=quote_character, help="One character, or 'none'.")] = '"'
    escape: Annotated[str | None, Option("--escape", metavar="C", help="\\[default: the quote]")] = None
    encoding: Annotated[str, Option("--encoding", metavar="NAME", help="PostgreSQL's name of it, or Python's.")] = (
        "utf-8"
    )
    nulls: Annotated[
        tuple[str, ...],
        Option("--null", metavar="TEXT", help="Unquoted text that is NULL; repeatable. \\[default: empty]"),
    ] = ("",)
    header: Annotated[bool, Option("--no-header", help="The first line is a row.")] = True
    columns: Annotated[
        tuple[str, ...], Option("--columns", metavar="A,B", read=names, help="The file's columns, in order.")
    ] = ()
    skip_lines: Annotated[int, Option("--skip-lines", metavar="N", least=0, help="Lines before the header.")] = 0
    max_record_bytes: Annotated[
        int | None,
        Option(
            "--max-record-bytes",
            metavar="N",
            least=1,
            help="A larger record of CSV, or line of JSON, is bad. \\[default: 1 GiB; of JSON Lines 256 MiB]",
        ),
    ] = None
    skip_footer: Annotated[int, Option("--skip-footer", metavar="N", least=0, help="The last lines.")] = 0
    skip_blank_lines: Annotated[
        bool, Option("--skip-blank-lines", help="Leave out lines of nothing but spaces and tabs.")
    ] = False
    trim: Annotated[
        bool,
        Option(
            "--trim", help="Leave out white space around each field, in quotes, too, before it is compared with --null."
        ),
    ] = False
    short_rows: Annotated[
        ShortRows,
        Option("--short-rows", help="With too few fields a row is bad, or each missing one is an unquoted --null."),
    ] = ShortRows.ERROR
    extra_fields: Annotated[
        ExtraFields, Option("--extra-fields", help="Fields behind the last column: a bad row, or left out.")
    ] = ExtraFields.ERROR
    force_null: Annotated[
        tuple[str, ...],
        Option(
            "--force-null",
            metavar="COL[,COL]|*",
            read=names,
            help="Columns of the table in which a quoted --null is NULL, too.",
        ),
    ] = ()
    force_not_null: Annotated[
        tuple[str, ...],
        Option(
            "--force-not-null",
            metavar="COL[,COL]|*",
            read=names,
            help="Columns of the table in which an unquoted --null is text.",
        ),
    ] = ()
    decimal: Annotated[
        str,
        Option(
            "--decimal",
            metavar=".|,",
            help="What is before decimals in columns of numeric, real and double precision.",
        ),
    ] = "."

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


class Names(StrEnum):
    """What a new table's columns are called: as in the file, or in lower case with `_` between words."""

    KEEP = "keep"
    SNAKE = "snake"


class Match(StrEnum):
    """Which names of a file and a table are the same: equal ones, also those that differ in case and spaces around
    them, or also those that are equal as `Names.SNAKE` has them. The nearest counts."""

    EXACT = "exact"
    FOLD = "fold"
    SNAKE = "snake"


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """Where the rows are in a file that holds more than rows.

    Attributes:
        sheet: of a workbook, by name or by its number from 1; None is the only one with rows.
        range: of its cells, `B3:F90`.
        records: of a JSON document, the names on the way to its list of objects, with points between them.
        flatten: fields of nested objects are columns: `address.city` is `address_city`.
        widths: of a file of fixed width, `10` or `city:10` a column.
    """

    sheet: Annotated[
        str | None,
        Option("--sheet", metavar="NAME|N", help="Of a workbook. \\[default: the only one with rows]"),
    ] = None
    range: Annotated[str | None, Option("--range", metavar="B3:F90", help="Of its cells: B3:F90, B:F or 3:90.")] = None
    records: Annotated[
        str | None,
        Option(
            "--records", metavar="A.B", help="Of a JSON document: where its list of objects is, for example data.items."
        ),
    ] = None
    flatten: Annotated[
        bool, Option("--flatten", help="Of a JSON document: fields of nested objects are columns, as address_city.")
    ] = False
    widths: Annotated[
        tuple[str, ...],
        Option(
            "--widths",
            metavar="N,N|A:N,B:N",
            read=names,
            help="Of fixed width: characters of each column, with its name if the file has no header.",
        ),
    ] = ()

    def given(self) -> tuple[str, ...]:
        """The fields about which something was said."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) != each.default)


class ExtraColumns(StrEnum):
    """What becomes of columns of a source that the table lacks."""

    ERROR = "error"
    IGNORE = "ignore"
    ADD = "add"


class MissingColumns(StrEnum):
    """What becomes of columns of the table that a source lacks; `default` is an error only where one is required."""

    ERROR = "error"
    NULL = "null"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """How a source's columns become the target's.

    Attributes:
        maps: source column, target column; one may fill several.
        constants: target column → the text of its value in every row.
        skipped: source columns to leave out. These and those of `maps` go by name, or as `#3` by position; with `?`
            behind the name they may be missing.
        match: None is `fold`, and with `--names snake` that.
    """

    maps: Annotated[
        tuple[tuple[str, str], ...],
        Option(
            "--map",
            metavar="SRC=DST",
            read=pairs,
            help="Rename a column; repeatable. SRC may be a position, as #3, or SRC?, if it is there.",
        ),
    ] = ()
    constants: Annotated[
        dict[str, str], Option("--set", metavar="COL=VALUE", read=pairs, help="Fill a column; repeatable.")
    ] = field(default_factory=dict)
    skipped: Annotated[
        frozenset[str],
        Option(
            "--skip-columns",
            metavar="A,B",
            read=names,
            help="Leave source columns out, by name or, as #3, by position; A? if it is there.",
        ),
    ] = frozenset()
    extra: Annotated[
        ExtraColumns,
        Option("--extra-columns", help="Columns that the table lacks: an error, left out, or added to the table."),
    ] = ExtraColumns.ERROR
    missing: Annotated[
        MissingColumns,
        Option("--missing-columns", help="Columns that the file lacks: an error, NULL, or their default."),
    ] = MissingColumns.DEFAULT
    match: Annotated[
        Match | None,
        Option(
            "--match",
            help="Names of file and table must be equal, or may differ in case, or as --names snake has them."
            " \\[default: fold]",
        ),
    ] = None

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

    @classmethod
    def read(cls, option: Option, given: str) -> "Limit":
        """`500` or `5%`."""
        number = given.strip().removesuffix("%")
        is_share = number != given.strip()
        try:
            limit = cls(percent=float(number)) if is_share else cls(rows=int(number))
        except ValueError:
            limit = cls(rows=-1)
        if not (limit.rows or 0) >= 0 or not 0 <= (limit.percent or 0) <= 100:
            raise UsageError(
                f"{option.long} {given} is neither a number of rows nor a percentage", hint="Say 500, or 5%."
            )
        return limit


# In which modes the options of a merge mean something.
_KEYED = frozenset({Mode.IGNORE, Mode.UPSERT, Mode.SYNC})
_UPDATING = frozenset({Mode.UPSERT, Mode.SYNC})
_UPSERT, _SYNC, _REPLACE = frozenset({Mode.UPSERT}), frozenset({Mode.SYNC}), frozenset({Mode.REPLACE})


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How rows of the load meet rows of the table.

    Attributes:
        key: columns, or the expression of an index; empty means the primary key.
        newest_by: the row with the highest value in this column wins, also against the table's.
        max_delete: None is a fifth of the table's rows.
        no_block: DELETE instead of TRUNCATE.
    """

    key: Annotated[
        tuple[str, ...],
        Option(
            "--key",
            "-k",
            metavar="COL[,COL]",
            read=key_parts,
            modes=_KEYED,
            or_create=True,
            help="What identifies a row in ignore, upsert, sync: columns, or the expression of an index."
            " \\[default: the primary key]",
        ),
    ] = ()
    newest_by: Annotated[
        str | None,
        Option("--newest-by", metavar="COL", modes=_UPSERT, help="upsert: the row with the highest COL wins."),
    ] = None
    on_duplicate: Annotated[
        OnDuplicate,
        Option(
            "--on-duplicate",
            said=OnDuplicate | None,
            modes=_KEYED,
            help="Of several rows with one key. \\[default: last]",
        ),
    ] = OnDuplicate.LAST
    keep: Annotated[
        tuple[str, ...],
        Option("--keep", metavar="COL[,COL]", read=names, modes=_UPDATING, help="Never overwrite these."),
    ] = ()
    touch: Annotated[
        str | None,
        Option("--touch", metavar="COL", modes=_UPDATING, help="Set it to now() in each row written."),
    ] = None
    max_delete: Annotated[
        Limit | None,
        Option(
            "--max-delete",
            metavar="N|N%",
            said=str | None,
            read=Limit.read,
            modes=_SYNC,
            help="sync: with more to delete do nothing. \\[default: 20%]",
        ),
    ] = None
    allow_empty: Annotated[
        bool, Option("--allow-empty", modes=_SYNC, help="sync: a source without rows empties the table.")
    ] = False
    no_block: Annotated[
        bool, Option("--no-block", modes=_REPLACE, help="replace: readers see the old rows, and need not wait.")
    ] = False
    no_lock: Annotated[
        bool,
        Option(
            "--no-lock",
            modes=_SYNC | _REPLACE,
            help="sync, replace --no-block: let others write to the table meanwhile. Their rows may stay.",
        ),
    ] = False
    update_only: Annotated[
        bool, Option("--update-only", modes=_UPSERT, help="upsert: leave rows alone whose key is new.")
    ] = False
    cascade: Annotated[
        bool, Option("--cascade", modes=_SYNC, help="sync: let foreign keys delete rows of other tables along.")
    ] = False


@dataclass(frozen=True, slots=True)
class RowRange:
    """How many rows there may be; None leaves an end open."""

    low: int | None = None
    high: int | None = None

    def __contains__(self, count: int) -> bool:
        return (self.low is None or count >= self.low) and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        return f"{'' if self.low is None else self.low}..{'' if self.high is None else self.high}"

    @classmethod
    def read(cls, option: Option, given: str) -> "RowRange":
        """`1000..2000`, either of them left out, or a number alone."""
        low, dots, high = given.partition("..")
        try:
            wanted = cls(int(low) if low else None, int(high if dots else low) if high or not dots else None)
        except ValueError:
            wanted = cls(1, 0)
        if not (wanted.low or 0) <= (wanted.high if wanted.high is not None else wanted.low or 0) or given == "..":
            raise UsageError(f"{option.long} {given} is not a range of rows", hint="Say 1000..2000, 1000.. or ..2000.")
        return wanted


@dataclass(frozen=True, slots=True)
class RejectOptions:
    """What rows are bad, and what becomes of them.

    Attributes:
        file: None is `<stem>.rejects.<suffix>` in the working directory.
        limit: None for no limit.
        checks: conditions over the columns of the target that the load fills.
        expected: how many rows the sources hold.
    """

    on_error: Annotated[OnError, Option("--on-error", help="End the load, or put bad rows aside.")] = OnError.ABORT
    file: Annotated[
        str | None,
        Option(
            "--reject-file",
            metavar="PATH",
            said=Path | None,
            read=as_text,
            of_rejects=True,
            help="Where bad rows go. \\[default: <stem>.rejects.csv]",
        ),
    ] = None
    format: Annotated[
        RejectFormat | None,
        Option("--reject-format", of_rejects=True, help="\\[default: the source's own format]"),
    ] = None
    limit: Annotated[
        Limit | None,
        Option(
            "--max-rejects",
            metavar="N|N%",
            said=str | None,
            read=Limit.read,
            of_rejects=True,
            help="With more, nothing is committed.",
        ),
    ] = None
    force: Annotated[bool, Option("--force", of_rejects=True, help="Write over an older reject file.")] = False
    checks: Annotated[
        tuple[str, ...], Option("--check", metavar="SQL", help="A row for which this is false is bad; repeatable.")
    ] = ()
    expected: Annotated[
        RowRange | None,
        Option(
            "--expect-rows",
            metavar="MIN..MAX",
            said=str | None,
            read=RowRange.read,
            help="With fewer or more rows in the source, nothing is committed.",
        ),
    ] = None

    @property
    def rejecting(self) -> bool:
        """Whether bad rows are put aside."""
        return self.on_error is OnError.REJECT


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a load meets other runs, and what it does when it cannot go on. `commit_every` None commits once."""

    again: Annotated[bool, Option("--again", help="Append also files that the ledger says are in.")] = False
    lock: Annotated[
        Lock,
        Option(
            "--lock",
            help="While another load into the table runs, other than appends: wait, fail (exit 5), or skip this one.",
        ),
    ] = Lock.WAIT
    retries: Annotated[
        int,
        Option(
            "--retries",
            metavar="N",
            least=0,
            help="Begin anew after what passes: lost connections, restarts of the server, deadlocks, lock timeouts.",
        ),
    ] = 3
    commit_every: Annotated[
        int | None,
        Option(
            "--commit-every",
            metavar="ROWS",
            least=1,
            help="Commit after so many rows; a rerun goes on where this one ended. append, ignore, upsert.",
        ),
    ] = None
    jobs: Annotated[int, Option("--jobs", "-j", metavar="N", least=1, help="append: load by N processes.")] = 1


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """How a missing table is made.

    Attributes:
        types: column → type, where it is not to be inferred.
        sample_rows: None looks at all rows.
    """

    create: Annotated[
        bool,
        Option("--create", help="Make the table, if there is none, from the file. --key becomes its primary key."),
    ] = False
    types: Annotated[
        dict[str, str],
        Option("--type", metavar="COL=TYPE", read=pairs, of_create=True, help="Type of a new column; repeatable."),
    ] = field(default_factory=dict)
    names: Annotated[
        Names,
        Option(
            "--names",
            said=Names | None,
            of_create=True,
            help="New columns are called as in the file, or in lower case with _ between words. \\[default: keep]",
        ),
    ] = Names.KEEP
    sample_rows: Annotated[
        int | None,
        Option(
            "--sample-rows",
            metavar="N",
            least=1,
            of_create=True,
            help="Look at so many rows to find types; where one further down does not fit, at all. \\[default: all]",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What of a file is to be looked at, and how it is written.

    Attributes:
        table: how the file would go into it; None asks no database.
        rows: None looks at all of them.
    """

    source: Annotated[str, Option(metavar="SOURCE", help="A file.")]
    table: Annotated[
        str | None,
        Option("--table", "-t", metavar="[SCHEMA.]TABLE", help="Tell what loading into this table would do."),
    ] = None
    detect: Annotated[
        bool,
        Option("--detect", help="Settle dialect, encoding and header by looking, and tell the options that say so."),
    ] = False
    rows: Annotated[
        int | None, Option("--sample-rows", metavar="N", least=1, help="Look at the first N rows only.")
    ] = None
    format: Annotated[SourceFormat | None, Option("--format", help="Format. \\[default: by the file's suffix]")] = None
    names: Annotated[
        Names | None, Option("--names", help="New columns are called as in the file, or in lower case with _.")
    ] = None
    layout: Annotated[LayoutOptions, Panel("Workbooks, JSON documents, fixed width")] = field(
        default_factory=LayoutOptions
    )
    dialect: Annotated[CsvDialect, Panel("CSV dialect: the defaults are COPY's, with a header")] = field(
        default_factory=CsvDialect
    )


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Everything that one load was asked to do, and how it is said: the options of `harborctl load` and the keys of a
    job's load are made from these fields, in their order.

    Attributes:
        sources: in load order.
        table: None takes the single source's stem.
        date_order: DateStyle's order while the load runs; None leaves the session's.
        ledger: False works in a database without our tables.
    """

    sources: Annotated[
        tuple[str, ...],
        Option(metavar="SOURCE...", help="Files, globs in quotes (** for folders below), pipes, or - for stdin."),
    ]
    table: Annotated[
        str | None,
        Option("--table", "-t", metavar="[SCHEMA.]TABLE", help="Target. \\[default: the file's stem]"),
    ] = None
    mode: Annotated[Mode, Option("--mode", "-m", help="What to do about rows that are there.")] = Mode.APPEND
    dry_run: Annotated[bool, Option("--dry-run", help="Do all of it, show what changes, and roll back.")] = False
    format: Annotated[SourceFormat | None, Option("--format", help="Format. \\[default: by the file's suffix]")] = None
    writer: Annotated[WriterName, Option("--writer", help="How rows travel.")] = WriterName.AUTO
    batch_size: Annotated[
        int, Option("--batch-size", metavar="N", least=1, help="Rows in a round trip of the values writer.")
    ] = 1000
    analyze: Annotated[Analyze, Option("--analyze", help="ANALYZE the table; auto: if over a tenth of it changed.")] = (
        Analyze.AUTO
    )
    rebuild_indexes: Annotated[
        RebuildIndexes,
        Option(
            "--rebuild-indexes",
            help="Build indexes after the rows; auto: of an empty or emptied table; always: of any, readers wait.",
        ),
    ] = RebuildIndexes.AUTO
    rejects: Annotated[RejectOptions, Panel("Bad rows")] = field(default_factory=RejectOptions)
    ledger: Annotated[bool, Option("--no-ledger", help="Keep no record of this load in the database.")] = True
    merge: Annotated[MergeOptions, Panel("Rows that meet rows of the table")] = field(default_factory=MergeOptions)
    run: Annotated[RunOptions, Panel("Runs that are repeated, and runs at the same time")] = field(
        default_factory=RunOptions
    )
    create: Annotated[CreateOptions, Panel("A table that is not there yet")] = field(default_factory=CreateOptions)
    columns: Annotated[ColumnOptions, Panel("Columns")] = field(default_factory=ColumnOptions)
    detect: Annotated[
        bool,
        Option("--detect", help="Settle dialect, encoding and header by looking, and tell the options that say so."),
    ] = False
    dialect: Annotated[CsvDialect, Panel("CSV dialect: the defaults are COPY's, with a header")] = field(
        default_factory=CsvDialect
    )
    layout: Annotated[LayoutOptions, Panel("Workbooks, JSON documents, fixed width")] = field(
        default_factory=LayoutOptions
    )
    date_order: Annotated[
        DateOrder | None,
        Option("--date-order", help="How the database reads 01/02/03, in any format. \\[default: its DateStyle]"),
    ] = None


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

    @property
    def changed(self) -> int:
        """Rows of the target that are not what they were, or not there any more."""
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: "Account") -> "Account":
        return Account(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Account)))


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
    def of(cls, error: HarborctlError) -> "ErrorInfo":
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
        created: the statement that makes the table, if this load has made it.
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
    created: str | None = None
    earlier: Earlier | None = None
    pending_rejects: int = 0
    attempts: int = 1
    retried: tuple[ErrorInfo, ...] = ()
    chunks: int = 0
    error: ErrorInfo | None = None
    errors: tuple[ErrorInfo, ...] = ()

    def _repr_html_(self) -> str:
        """For notebooks: what became of the rows."""
        import html

        counted = ("inserted", "updated", "unchanged", "deleted", "skipped", "stale", "duplicates", "rejected")
        counts = [(name, getattr(self, name)) for name in counted if getattr(self, name)]
        rows = "".join(
            f"<tr><td>{name}</td><td>{count:,}</td></tr>" for name, count in [*counts, ("read", self.rows_read)]
        )
        return f"<table><caption>{html.escape(self.table)}: {self.status}</caption>{rows}</table>"

    @property
    def lacks_rows(self) -> bool:
        """Whether rows of its sources are not in, since they were rejected, now or by an earlier load."""
        return self.status is Status.LOADED_WITH_REJECTS or self.pending_rejects > 0
