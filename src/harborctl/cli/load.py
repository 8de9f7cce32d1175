"""`harborctl load`: options → one load → its summary."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from harborctl.cli.changes import print_changes
from harborctl.cli.invocation import Invocation, Summarized, command
from harborctl.cli.notify_options import MetricsOption, PingOption
from harborctl.errors import ExitCode, UsageError
from harborctl.model import (
    Analyze,
    ColumnOptions,
    CsvDialect,
    DateOrder,
    ExtraFields,
    Limit,
    LoadOptions,
    LoadResult,
    Lock,
    MergeOptions,
    Mode,
    OnDuplicate,
    OnError,
    RejectFormat,
    RejectOptions,
    RowRange,
    RunOptions,
    ShortRows,
    SourceFormat,
    Status,
    WriterName,
)
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.errors import HarborctlError
    from harborctl.jobs.file import LoadKeys
    from harborctl.jobs.notify import Outcome

ROWS = "Rows that meet rows of the table"
COLUMNS = "Columns"
BAD_ROWS = "Bad rows"
RUNS = "Runs that are repeated, and runs at the same time"
CSV = "CSV dialect: the defaults are COPY's, with a header"

# Files that a summary for people names as already loaded: a folder may hold a year of them.
LEFT_OUT_SHOWN = 5

EXAMPLES = """
[bold]Examples[/bold]

  harborctl load products.csv -t harbor.products

  harborctl load 'feeds/variants_*.csv' -t harbor.variants --mode upsert --key sku

  harborctl load stock.csv -t harbor.stock --mode upsert --newest-by counted_at --touch updated_at

  harborctl load people.csv -t people --mode ignore --key 'lower(email)'

  harborctl load rates.csv -t rates --mode replace --no-block

  harborctl load orders.parquet -t shop.orders --map order_date=ordered_on --set source=web

  harborctl load catalog.csv -t harbor.products --mode sync --key sku --max-delete 5% --dry-run

  harborctl load orders.csv -t shop.orders --on-error reject --max-rejects 1% --check 'price_cents >= 0'

  harborctl load big.csv -t big --commit-every 1000000

  harborctl load big.parquet -t big --jobs 4 --retries 5

  zcat big.csv.gz | harborctl load - -t big --delimiter ';' --null NULL --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "load", epilog=EXAMPLES)(load)


def load_options(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Files, globs in quotes (** for folders below), pipes, or - for stdin."
        ),
    ],
    table: Annotated[
        str | None, typer.Option("--table", "-t", metavar="[SCHEMA.]TABLE", help="Target. \\[default: the file's stem]")
    ] = None,
    mode: Annotated[Mode, typer.Option("--mode", "-m", help="What to do about rows that are there.")] = Mode.APPEND,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do all of it, show what changes, and roll back.")] = False,
    source_format: Annotated[
        SourceFormat | None, typer.Option("--format", help="Format. \\[default: by the file's suffix]")
    ] = None,
    writer: Annotated[WriterName, typer.Option("--writer", help="How rows travel.")] = WriterName.AUTO,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Rows in a round trip of the values writer.")
    ] = 1000,
    analyze: Annotated[
        Analyze, typer.Option("--analyze", help="ANALYZE the table; auto: if over a tenth of it changed.")
    ] = Analyze.AUTO,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="End the load, or put bad rows aside.", rich_help_panel=BAD_ROWS)
    ] = OnError.ABORT,
    reject_file: Annotated[
        Path | None,
        typer.Option(
            "--reject-file",
            metavar="PATH",
            help="Where bad rows go. \\[default: <stem>.rejects.csv]",
            rich_help_panel=BAD_ROWS,
        ),
    ] = None,
    reject_format: Annotated[
        RejectFormat | None,
        typer.Option("--reject-format", help="\\[default: the source's own format]", rich_help_panel=BAD_ROWS),
    ] = None,
    max_rejects: Annotated[
        str | None,
        typer.Option(
            "--max-rejects", metavar="N|N%", help="With more, nothing is committed.", rich_help_panel=BAD_ROWS
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over an older reject file.", rich_help_panel=BAD_ROWS)
    ] = False,
    checks: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            metavar="SQL",
            help="A row for which this is false is bad; repeatable.",
            rich_help_panel=BAD_ROWS,
        ),
    ] = None,
    expect_rows: Annotated[
        str | None,
        typer.Option(
            "--expect-rows",
            metavar="MIN..MAX",
            help="With fewer or more rows in the source, nothing is committed.",
            rich_help_panel=BAD_ROWS,
        ),
    ] = None,
    no_ledger: Annotated[
        bool, typer.Option("--no-ledger", help="Keep no record of this load in the database.")
    ] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            "-k",
            metavar="COL[,COL]",
            help="What identifies a row in ignore, upsert, sync: columns, or the expression of an index."
            " \\[default: the primary key]",
            rich_help_panel=ROWS,
        ),
    ] = None,
    newest_by: Annotated[
        str | None,
        typer.Option(
            "--newest-by", metavar="COL", help="upsert: the row with the highest COL wins.", rich_help_panel=ROWS
        ),
    ] = None,
    on_duplicate: Annotated[
        OnDuplicate | None,
        typer.Option("--on-duplicate", help="Of several rows with one key. \\[default: last]", rich_help_panel=ROWS),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="COL[,COL]", help="Never overwrite these.", rich_help_panel=ROWS),
    ] = None,
    touch: Annotated[
        str | None,
        typer.Option("--touch", metavar="COL", help="Set it to now() in each row written.", rich_help_panel=ROWS),
    ] = None,
    max_delete: Annotated[
        str | None,
        typer.Option(
            "--max-delete",
            metavar="N|N%",
            help="sync: with more to delete do nothing. \\[default: 20%]",
            rich_help_panel=ROWS,
        ),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="sync: a source without rows empties the table.", rich_help_panel=ROWS)
    ] = False,
    no_block: Annotated[
        bool,
        typer.Option("--no-block", help="replace: readers see the old rows, and need not wait.", rich_help_panel=ROWS),
    ] = False,
    no_lock: Annotated[
        bool,
        typer.Option(
            "--no-lock",
            help="sync, replace --no-block: let others write to the table meanwhile. Their rows may stay.",
            rich_help_panel=ROWS,
        ),
    ] = False,
    update_only: Annotated[
        bool,
        typer.Option("--update-only", help="upsert: leave rows alone whose key is new.", rich_help_panel=ROWS),
    ] = False,
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade", help="sync: let foreign keys delete rows of other tables along.", rich_help_panel=ROWS
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Append also files that the ledger says are in.", rich_help_panel=RUNS)
    ] = False,
    lock: Annotated[
        Lock,
        typer.Option(
            "--lock",
            help="While another load into the table runs, other than appends: wait, fail (exit 5), or skip this one.",
            rich_help_panel=RUNS,
        ),
    ] = Lock.WAIT,
    retries: Annotated[
        int,
        typer.Option(
            "--retries",
            metavar="N",
            min=0,
            help="Begin anew after what passes: lost connections, restarts of the server, deadlocks, lock timeouts.",
            rich_help_panel=RUNS,
        ),
    ] = 3,
    commit_every: Annotated[
        int | None,
        typer.Option(
            "--commit-every",
            metavar="ROWS",
            min=1,
            help="Commit after so many rows; a rerun goes on where this one ended. append, ignore, upsert.",
            rich_help_panel=RUNS,
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="append: load by N processes.", rich_help_panel=RUNS),
    ] = 1,
    renames: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="SRC=DST",
            help="Rename a column; repeatable. SRC may be a position, as #3.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="Fill a column; repeatable.", rich_help_panel=COLUMNS),
    ] = None,
    skip_columns: Annotated[
        list[str] | None,
        typer.Option(
            "--skip-columns",
            metavar="A,B",
            help="Leave source columns out, by name or, as #3, by position.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    delimiter: Annotated[
        str, typer.Option("--delimiter", metavar="C", help="One character, or 'tab'.", rich_help_panel=CSV)
    ] = ",",
    quote: Annotated[
        str, typer.Option("--quote", metavar="C", help="One character, or 'none'.", rich_help_panel=CSV)
    ] = '"',
    escape: Annotated[
        str | None, typer.Option("--escape", metavar="C", help="\\[default: the quote]", rich_help_panel=CSV)
    ] = None,
    encoding: Annotated[
        str,
        typer.Option("--encoding", metavar="NAME", help="PostgreSQL's name of it, or Python's.", rich_help_panel=CSV),
    ] = "utf-8",
    nulls: Annotated[
        list[str] | None,
        typer.Option(
            "--null",
            metavar="TEXT",
            help="Unquoted text that is NULL; repeatable. \\[default: empty]",
            rich_help_panel=CSV,
        ),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line is a row.", rich_help_panel=CSV)
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="A,B", help="The file's columns, in order.", rich_help_panel=CSV),
    ] = None,
    skip_lines: Annotated[
        int, typer.Option("--skip-lines", metavar="N", min=0, help="Lines before the header.", rich_help_panel=CSV)
    ] = 0,
    max_record_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-record-bytes",
            metavar="N",
            min=1,
            help="A larger record of CSV, or line of JSON, is bad. \\[default: 1 GiB; of JSON Lines 256 MiB]",
            rich_help_panel=CSV,
        ),
    ] = None,
    skip_footer: Annotated[
        int, typer.Option("--skip-footer", metavar="N", min=0, help="The last lines.", rich_help_panel=CSV)
    ] = 0,
    skip_blank_lines: Annotated[
        bool,
        typer.Option("--skip-blank-lines", help="Leave out lines of nothing but spaces and tabs.", rich_help_panel=CSV),
    ] = False,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim",
            help="Leave out white space around each field, in quotes, too, before it is compared with --null.",
            rich_help_panel=CSV,
        ),
    ] = False,
    short_rows: Annotated[
        ShortRows,
        typer.Option(
            "--short-rows",
            help="With too few fields a row is bad, or each missing one is an unquoted --null.",
            rich_help_panel=CSV,
        ),
    ] = ShortRows.ERROR,
    extra_fields: Annotated[
        ExtraFields,
        typer.Option(
            "--extra-fields", help="Fields behind the last column: a bad row, or left out.", rich_help_panel=CSV
        ),
    ] = ExtraFields.ERROR,
    force_null: Annotated[
        list[str] | None,
        typer.Option(
            "--force-null",
            metavar="COL[,COL]|*",
            help="Columns of the table in which a quoted --null is NULL, too.",
            rich_help_panel=CSV,
        ),
    ] = None,
    force_not_null: Annotated[
        list[str] | None,
        typer.Option(
            "--force-not-null",
            metavar="COL[,COL]|*",
            help="Columns of the table in which an unquoted --null is text.",
            rich_help_panel=CSV,
        ),
    ] = None,
    decimal: Annotated[
        str,
        typer.Option(
            "--decimal",
            metavar=".|,",
            help="What is before decimals in columns of numeric, real and double precision.",
            rich_help_panel=CSV,
        ),
    ] = ".",
    date_order: Annotated[
        DateOrder | None,
        typer.Option(
            "--date-order",
            help="How the database reads 01/02/03, in any format. \\[default: its DateStyle]",
        ),
    ] = None,
) -> LoadOptions:
    """What the options of `harborctl load` mean; a job's loads have the same ones."""
    from harborctl.load.run.chunk_rules import check_parts, in_parts
    from harborctl.sources.encodings import codec_of

    _check_meaning(
        mode,
        {
            "--key": key,
            "--newest-by": newest_by,
            "--on-duplicate": on_duplicate,
            "--keep": keep,
            "--touch": touch,
            "--max-delete": max_delete,
            "--allow-empty": allow_empty,
            "--no-block": no_block,
            "--no-lock": no_lock,
            "--update-only": update_only,
            "--cascade": cascade,
        },
    )
    _check_rejecting(
        on_error,
        {
            "--reject-file": reject_file,
            "--reject-format": reject_format,
            "--max-rejects": max_rejects,
            "--force": force,
        },
    )
    options = LoadOptions(
        sources=tuple(sources),
        table=table,
        mode=mode,
        merge=MergeOptions(
            key=_key_parts(key),
            newest_by=newest_by,
            on_duplicate=on_duplicate or OnDuplicate.LAST,
            keep=_names(keep),
            touch=touch,
            max_delete=_limit("--max-delete", max_delete),
            allow_empty=allow_empty,
            no_block=no_block,
            no_lock=no_lock,
            update_only=update_only,
            cascade=cascade,
        ),
        rejects=RejectOptions(
            on_error=on_error,
            file=str(reject_file) if reject_file else None,
            format=reject_format,
            limit=_limit("--max-rejects", max_rejects),
            force=force,
            checks=tuple(checks or ()),
            expected=_range(expect_rows),
        ),
        dry_run=dry_run,
        format=source_format,
        dialect=CsvDialect(
            delimiter={"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter),
            quote=_quote(quote),
            escape=escape,
            encoding=codec_of(encoding),
            nulls=tuple(nulls) if nulls is not None else ("",),
            header=not no_header,
            columns=_names(columns),
            skip_lines=skip_lines,
            max_record_bytes=max_record_bytes,
            skip_footer=skip_footer,
            skip_blank_lines=skip_blank_lines,
            trim=trim,
            short_rows=short_rows,
            extra_fields=extra_fields,
            force_null=_names(force_null),
            force_not_null=_names(force_not_null),
            decimal=decimal,
        ),
        columns=ColumnOptions(
            maps=_maps(renames, constants),
            constants=dict(_pairs("--set", constants)),
            skipped=frozenset(_names(skip_columns)),
        ),
        writer=writer,
        batch_size=batch_size,
        analyze=analyze,
        date_order=date_order,
        ledger=not no_ledger,
        run=RunOptions(again=again, lock=lock, retries=retries, commit_every=commit_every, jobs=jobs),
    )
    if in_parts(options):
        check_parts(options)
    return options


def load(
    invocation: Invocation,
    *,
    metrics_file: MetricsOption = None,
    ping: PingOption = None,
    **given: Any,
) -> None:
    """Load CSV or Parquet files into one table, all or nothing.

    Columns are matched by name. Columns that the file lacks get their default. One bad row and nothing is committed.
    """
    from harborctl.jobs.notify import Watchers, told

    options = load_options(**given)
    with told(Watchers(ping, metrics_file), "load", invocation.note) as outcome:
        failure = _run(invocation, options, outcome)
    if failure is not None:
        raise Summarized(failure)
    if outcome.code is not ExitCode.OK:
        raise typer.Exit(outcome.code)


_OWN = inspect.signature(load)
# To Typer, it takes what `load_options` takes.
load.__signature__ = _OWN.replace(  # type: ignore[attr-defined]  # a function has attributes
    parameters=[
        _OWN.parameters["invocation"],
        *inspect.signature(load_options).parameters.values(),
        *(_OWN.parameters[name] for name in ("metrics_file", "ping")),
    ]
)
load.__annotations__ = {**load_options.__annotations__, **load.__annotations__}


def load_keys() -> LoadKeys:
    """What a load of a job may say: every option of `harborctl load` under its long name."""
    from harborctl.jobs.file import LoadKey, LoadKeys

    hints = get_type_hints(load_options, include_extras=True)
    keys = []
    for name, parameter in inspect.signature(load_options).parameters.items():
        kind, option, *_ = get_args(hints[name])
        required = parameter.default is inspect.Parameter.empty
        keys.append(LoadKey(name, _key(option), kind, parameter.default, required, getattr(option, "min", None)))
    return LoadKeys(tuple(keys), load_options)


def _key(option: Any) -> str:
    """`--skip-columns` is `skip_columns`; what has no option is the sources, `source`."""
    # The first name given to `typer.Option` inside Annotated is taken for its default until Typer reads it.
    names = (option.default, *(option.param_decls or ()))
    long = next((name for name in names if isinstance(name, str) and name.startswith("--")), None)
    return long.removeprefix("--").replace("-", "_") if long else "source"


# The modes in which an option means something.
MEANINGS = {
    "--key": {Mode.IGNORE, Mode.UPSERT, Mode.SYNC},
    "--on-duplicate": {Mode.IGNORE, Mode.UPSERT, Mode.SYNC},
    "--newest-by": {Mode.UPSERT},
    "--keep": {Mode.UPSERT, Mode.SYNC},
    "--touch": {Mode.UPSERT, Mode.SYNC},
    "--max-delete": {Mode.SYNC},
    "--allow-empty": {Mode.SYNC},
    "--no-block": {Mode.REPLACE},
    "--no-lock": {Mode.SYNC, Mode.REPLACE},
    "--update-only": {Mode.UPSERT},
    "--cascade": {Mode.SYNC},
}


def _check_meaning(mode: Mode, given: dict[str, object]) -> None:
    for option, value in given.items():
        if value and mode not in MEANINGS[option]:
            modes = ", ".join(sorted(MEANINGS[option]))
            raise UsageError(f"{option} means nothing in mode {mode}", hint=f"It belongs to --mode {modes}.")


def _limit(option: str, given: str | None) -> Limit | None:
    if given is None:
        return None
    number = given.strip().removesuffix("%")
    is_share = number != given.strip()
    try:
        limit = Limit(percent=float(number)) if is_share else Limit(rows=int(number))
    except ValueError:
        limit = Limit(rows=-1)
    if not (limit.rows or 0) >= 0 or not 0 <= (limit.percent or 0) <= 100:
        raise UsageError(f"{option} {given} is neither a number of rows nor a percentage", hint="Say 500, or 5%.")
    return limit


def _check_rejecting(on_error: OnError, given: dict[str, object]) -> None:
    for option, value in given.items():
        if value and on_error is not OnError.REJECT:
            raise UsageError(f"{option} means nothing without rejects", hint="Say --on-error reject.")


def _range(given: str | None) -> RowRange | None:
    if given is None:
        return None
    low, dots, high = given.partition("..")
    try:
        wanted = RowRange(int(low) if low else None, int(high if dots else low) if high or not dots else None)
    except ValueError:
        wanted = RowRange(1, 0)
    if not (wanted.low or 0) <= (wanted.high if wanted.high is not None else wanted.low or 0) or given == "..":
        raise UsageError(f"--expect-rows {given} is not a range of rows", hint="Say 1000..2000, 1000.. or ..2000.")
    return wanted


def _run(invocation: Invocation, options: LoadOptions, outcome: Outcome) -> HarborctlError | None:
    """Load, and print the summary. Returns why the load failed, if it did."""
    from harborctl.cli.progress import load_progress
    from harborctl.db.engine import open_database
    from harborctl.load.run.loader import LoadFailed, run_load

    with open_database(invocation.connection) as database:
        try:
            with load_progress(invocation) as progress:
                result = run_load(database, options, progress)
        except LoadFailed as failure:
            outcome.add(failure.result)
            invocation.event("load ended", **asdict(failure.result))
            with invocation.telling():
                if invocation.json:
                    print_json(invocation, failure.result)
                elif not invocation.quiet:
                    print_reasons(invocation, failure.result)
            outcome.code = failure.error.exit_code
            return failure.error
    outcome.add(result)
    invocation.event("load ended", **asdict(result))
    with invocation.telling():
        if invocation.json:
            print_json(invocation, result)
        elif not invocation.quiet:
            print_summary(invocation, result)
            print_reasons(invocation, result)
            print_changes(invocation, result.changes)
    for note in result.notes:
        invocation.note(f"note: {note}")
    if result.lacks_rows:
        outcome.code = ExitCode.REJECTS
    return None


def print_json(invocation: Invocation, result: LoadResult) -> None:
    """The summary as one JSON document on stdout."""
    invocation.write(as_json(asdict(result)) + "\n")


def print_summary(invocation: Invocation, result: LoadResult) -> None:
    """The summary for people on stdout: what became of the rows, zeros left out."""
    from rich.table import Table

    if result.status is Status.LOCKED:
        invocation.write(said(f"{result.table}: skipped, its lock is held, in {result.database}") + "\n")
        return
    if earlier := result.earlier:
        place = f" on {earlier.host}" if earlier.host else ""
        rejected = f", which rejected {earlier.rejected:,} rows" if earlier.rejected else ""
        text = (
            f"{result.table}: already loaded at {earlier.finished_at} by load {earlier.load_id}"
            f" ({earlier.user}{place}){rejected}, into {result.database}; --again loads it once more"
        )
        invocation.write(said(text) + "\n")
        return
    left_out = [file for file in result.files if file.status is Status.ALREADY_LOADED]
    sources = ", ".join(file.path for file in result.files if file not in left_out)
    table = Table()
    table.add_column(result.mode.value + (", rolled back" if result.status is Status.DRY_RUN else ""))
    table.add_column("rows", justify="right")
    counters = ("inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "deleted", "rejected")
    for name in counters:
        if count := getattr(result, name):
            table.add_row(name, f"{count:,}")
    table.add_row("read", f"{result.rows_read:,}", style="bold")
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    speed = f"{result.seconds:.1f} s, {result.rows_per_second:,} rows/s by {result.writer}"
    head, foot = said(f"{result.table} ← {sources}"), said(f"{speed}, into {result.database}")
    known = [said(f"already loaded: {file.path}, by load {file.load_id}") for file in left_out[:LEFT_OUT_SHOWN]]
    if len(left_out) > LEFT_OUT_SHOWN:
        known.append(f"already loaded: {len(left_out) - LEFT_OUT_SHOWN:,} more, see --json")
    invocation.write(f"{head}\n{rendered.get()}" + "".join(f"{line}\n" for line in (*known, foot)))


def print_reasons(invocation: Invocation, result: LoadResult) -> None:
    """Why rows were rejected, and where they are, for people on stdout: a line for each reason, the first row named."""
    if not result.reject_reasons:
        return
    width = max(len(f"{reason.count:,}") for reason in result.reject_reasons)
    lines = ["rejected:"]
    for reason in result.reject_reasons:
        column = f" column {reason.column}:" if reason.column else ""
        place = f"{reason.file}, line {reason.line}"
        lines.append(f"  {reason.count:>{width},} x {reason.code}{column} {reason.message} (first: {place})")
    if result.reject_file:
        lines.append(f"The rejected rows are in {result.reject_file}.")
    invocation.write("".join(said(line) + "\n" for line in lines))


def _quote(given: str) -> str:
    if not given:
        raise UsageError("--quote takes one character", code="bad_dialect", hint="Without any, say --quote none.")
    return "" if given == "none" else given


def _names(given: Sequence[str] | None) -> tuple[str, ...]:
    """`a,b` and repeated options alike → names. A name with a comma in it is given in double quotes, as in CSV."""
    import csv

    return tuple(name for text in given or () for name in next(csv.reader([text], skipinitialspace=True), []))


# What stands between the commas of --key: quoted text and parentheses (up to three deep) count as one.
KEY_PART = r"""(?:"[^"]*"|'[^']*'|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|[^,])+"""


def _key_parts(given: Sequence[str] | None) -> tuple[str, ...]:
    """As `_names`, but commas inside an expression do not divide it: `lower(email), coalesce(town, '')` is two."""
    import re

    parts = [part.strip() for text in given or () for part in re.findall(KEY_PART, text)]
    return tuple(name for part in parts for name in ((part,) if "(" in part else _names([part])))


def _maps(renames: Sequence[str] | None, constants: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """What `--map` says. A column that two options fill is a mistake; one that fills two is not."""
    maps = tuple(_pairs("--map", renames))
    given = [("--map", f"{source}={target}", target) for source, target in maps]
    given += [("--set", f"{target}={value}", target) for target, value in _pairs("--set", constants)]
    seen: dict[str, str] = {}
    for option, text, target in given:
        if target in seen:
            raise UsageError(
                f"column {target} would be filled twice: by {seen[target]}, and by {option} {text}",
                hint="Take one of them away.",
            )
        seen[target] = f"{option} {text}"
    return maps


def _pairs(option: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for text in given or ():
        name, equals, value = text.partition("=")
        if not name or not equals or not (value or option == "--set"):
            raise UsageError(f"{option} {text} is not of the form {'COL=VALUE' if option == '--set' else 'SRC=DST'}")
        pairs.append((name, value))
    return pairs
