"""argv → what a command is asked to do, for every option of every command. No command runs, and no server is asked.

The tables name each option once at least; a test compares them with the options that there are.
"""
# ruff: noqa: E501  # a case is a line

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import harborctl.cli.app
from harborctl.cli.invocation import Invocation, command
from harborctl.cli.log_lines import LogFormat
from harborctl.errors import UsageError
from harborctl.load.options import load_options
from harborctl.model import (
    Analyze,
    ConnectionOptions,
    DateOrder,
    ExtraColumns,
    ExtraFields,
    Limit,
    LoadOptions,
    Lock,
    Match,
    MissingColumns,
    Mode,
    Names,
    OnDuplicate,
    OnError,
    PoolOptions,
    RebuildIndexes,
    RejectFormat,
    RowRange,
    ShortRows,
    SourceFormat,
    WriterName,
)
from harborctl.reports.formats import Compression, Format

Called = tuple[Invocation, dict[str, Any]]

# Of a command line, the fields of LoadOptions that differ from what `harborctl load f.csv` has.
LOAD: list[tuple[str, dict[str, Any]]] = [
    ("a.csv b.csv", {"sources": ("a.csv", "b.csv")}),
    ("f.csv -t shop.orders", {"table": "shop.orders"}),
    ("f.csv --table t -m replace --no-block --no-lock", {"table": "t", "mode": Mode.REPLACE, "merge.no_block": True, "merge.no_lock": True}),
    ("f.csv --mode ignore -k a,b --key '\"c,d\"'", {"mode": Mode.IGNORE, "merge.key": ("a", "b", "c,d")}),
    ("f.csv -m upsert --key 'lower(a), coalesce(b, 1)'", {"mode": Mode.UPSERT, "merge.key": ("lower(a)", "coalesce(b, 1)")}),
    ("f.csv -m upsert --newest-by at --update-only", {"mode": Mode.UPSERT, "merge.newest_by": "at", "merge.update_only": True}),
    ("f.csv -m upsert --on-duplicate error", {"mode": Mode.UPSERT, "merge.on_duplicate": OnDuplicate.ERROR}),
    ("f.csv -m sync --keep a,b --touch at", {"mode": Mode.SYNC, "merge.keep": ("a", "b"), "merge.touch": "at"}),
    ("f.csv -m sync --max-delete 5%", {"mode": Mode.SYNC, "merge.max_delete": Limit(percent=5.0)}),
    ("f.csv -m sync --max-delete 5 --allow-empty --cascade", {"mode": Mode.SYNC, "merge.max_delete": Limit(rows=5), "merge.allow_empty": True, "merge.cascade": True}),
    ("f.csv --dry-run --format jsonl --writer values --batch-size 7", {"dry_run": True, "format": SourceFormat.JSONL, "writer": WriterName.VALUES, "batch_size": 7}),
    ("f.csv --rebuild-indexes never", {"rebuild_indexes": RebuildIndexes.NEVER}),
    ("f.csv --sheet 2 --range B3:F90", {"layout.sheet": "2", "layout.range": "B3:F90"}),
    ("f.csv --records data.items --flatten", {"layout.records": "data.items", "layout.flatten": True}),
    ("f.csv --widths id:4,name:8", {"layout.widths": ("id:4", "name:8")}),
    ("f.csv --analyze never --no-ledger --date-order dmy", {"analyze": Analyze.NEVER, "ledger": False, "date_order": DateOrder.DMY}),
    ("f.csv --on-error reject --force", {"rejects.on_error": OnError.REJECT, "rejects.force": True}),
    ("f.csv --on-error reject --reject-file bad.csv --reject-format csv", {"rejects.on_error": OnError.REJECT, "rejects.file": "bad.csv", "rejects.format": RejectFormat.CSV}),
    ("f.csv --on-error reject --max-rejects 1.5%", {"rejects.on_error": OnError.REJECT, "rejects.limit": Limit(percent=1.5)}),
    ("f.csv --check 'a > 0, b' --check c", {"rejects.checks": ("a > 0, b", "c")}),
    ("f.csv --expect-rows 10..", {"rejects.expected": RowRange(10, None)}),
    ("f.csv --expect-rows 10", {"rejects.expected": RowRange(10, 10)}),
    ("f.csv --again --lock skip --retries 0", {"run.again": True, "run.lock": Lock.SKIP, "run.retries": 0}),
    ("f.csv --commit-every 1000", {"run.commit_every": 1000}),
    ("f.csv -j 4", {"run.jobs": 4}),
    ("f.csv --jobs 2", {"run.jobs": 2}),
    ("f.csv --map a=b --map a=c=d --set e= --set f=g=h", {"columns.maps": (("a", "b"), ("a", "c=d")), "columns.constants": {"e": "", "f": "g=h"}}),
    ("f.csv --skip-columns a,#3", {"columns.skipped": frozenset({"a", "#3"})}),
    ("f.csv --create --type a=text --type 'b=numeric(5, 2)'", {"create.create": True, "create.types": {"a": "text", "b": "numeric(5, 2)"}}),
    ("f.csv --create --names snake --sample-rows 5 -k a", {"create.create": True, "create.names": Names.SNAKE, "create.sample_rows": 5, "merge.key": ("a",)}),
    ("f.csv --detect", {"detect": True}),
    ("f.csv --extra-columns add --missing-columns null", {"columns.extra": ExtraColumns.ADD, "columns.missing": MissingColumns.NULL}),
    ("f.csv --match exact", {"columns.match": Match.EXACT}),
    ("f.csv --delimiter tab --quote none", {"dialect.delimiter": "\t", "dialect.quote": ""}),
    ("f.csv --quote \"'\" --escape '\\'", {"dialect.quote": "'", "dialect.escape": "\\"}),
    ("f.csv --encoding LATIN1 --null - --null ''", {"dialect.encoding": "latin1", "dialect.nulls": ("-", "")}),
    ("f.csv --no-header --columns a,b --skip-lines 2", {"dialect.header": False, "dialect.columns": ("a", "b"), "dialect.skip_lines": 2}),
    ("f.csv --max-record-bytes 99 --skip-footer 1", {"dialect.max_record_bytes": 99, "dialect.skip_footer": 1}),
    ("f.csv --skip-blank-lines --trim --decimal ,", {"dialect.skip_blank_lines": True, "dialect.trim": True, "dialect.decimal": ","}),
    ("f.csv --short-rows null --extra-fields ignore", {"dialect.short_rows": ShortRows.NULL, "dialect.extra_fields": ExtraFields.IGNORE}),
    ("f.csv --force-null a,b --force-not-null '*'", {"dialect.force_null": ("a", "b"), "dialect.force_not_null": ("*",)}),
]  # fmt: skip

# Command → of a command line, the arguments of its function that differ from what they are without it.
CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "load": [("f.csv --metrics-file m.prom --ping http://p", {"metrics_file": Path("m.prom"), "ping": "http://p"})],
    "inspect": [
        ("f.csv -t s.t --detect --ddl --html o", {"source": "f.csv", "table": "s.t", "detect": True, "ddl": True, "html": Path("o")}),
        ("f --table t --sample-rows 5 --format csv --names snake", {"source": "f", "table": "t", "sample_rows": 5, "format": SourceFormat.CSV, "names": Names.SNAKE}),
        ("f --sheet a --range A1:B2 --records a.b --flatten --widths 1,2", {"source": "f", "sheet": "a", "range": "A1:B2", "records": "a.b", "flatten": True, "widths": ["1,2"]}),
        ("f --delimiter ; --quote ' --escape x --encoding l --null n --no-header".replace("'", '"\'"').replace(";", "';'"), {"source": "f", "delimiter": ";", "quote": "'", "escape": "x", "encoding": "l", "null": ["n"], "no_header": True}),
        ("f --columns a --skip-lines 2 --max-record-bytes 3 --skip-footer 4", {"source": "f", "columns": ["a"], "skip_lines": 2, "max_record_bytes": 3, "skip_footer": 4}),
        ("f --skip-blank-lines --trim --short-rows null --extra-fields ignore", {"source": "f", "skip_blank_lines": True, "trim": True, "short_rows": ShortRows.NULL, "extra_fields": ExtraFields.IGNORE}),
        ("f --force-null a --force-not-null b --decimal ,", {"source": "f", "force_null": ["a"], "force_not_null": ["b"], "decimal": ","}),
    ],
    "run": [
        ("nightly --keep-going --dry-run --check", {"job": "nightly", "keep_going": True, "dry_run": True, "check": True}),
        ("nightly --only a --only b --date 2026-01-01 --lock fail", {"job": "nightly", "only": ["a", "b"], "day": "2026-01-01", "lock": Lock.FAIL}),
        ("nightly --metrics-file m.prom --ping http://p", {"job": "nightly", "metrics_file": Path("m.prom"), "ping": "http://p"}),
    ],
    "history": [
        ("1b9d --table t --status failed --since 7d --limit 5", {"load_id": "1b9d", "table": "t", "status": "failed", "since": "7d", "limit": 5}),
        ("-t t", {"table": "t"}),
    ],
    "report": [
        ("show r --param a=1 -p b=2", {"words": ["show", "r"], "given": ["a=1", "b=2"]}),
        ("r --format csv --output f.csv --limit 3 --timeout 1.5", {"words": ["r"], "output_format": Format.CSV, "output": Path("f.csv"), "limit": 3, "timeout": 1.5}),
        ("r -o - --chart a --by b --wide --explain", {"words": ["r"], "output": Path("-"), "chart": "a", "by": "b", "wide": True, "explain": True}),
        ("r --help", {"words": ["r"], "wants_help": True}),
        ("-h", {"wants_help": True}),
    ],
    "count": [
        ("a b --exact", {"tables": ["a", "b"], "exact": True}),
        ("a --sample 1.5 --where 'x > 0'", {"tables": ["a"], "sample": 1.5, "where": "x > 0"}),
    ],
    "tables": [("shop.*", {"name": "shop.*"})],
    "doctor": [("--table t", {"table": "t"}), ("-t t", {"table": "t"})],
    "query": [
        ("'SELECT 1' -p a=1 --param b=2 --save x", {"sql": "SELECT 1", "given": ["a=1", "b=2"], "save": "x"}),
        ("- --format csv --output f --limit 3 --timeout 4", {"sql": "-", "output_format": Format.CSV, "output": Path("f"), "limit": 3, "timeout": 4.0}),
        ("- -o f --chart c --by l --wide --explain", {"sql": "-", "output": Path("f"), "chart": "c", "by": "l", "wide": True, "explain": True}),
    ],
    "export": [
        ("a 's.*' -o d --format csv --where w", {"tables": ["a", "s.*"], "output": Path("d"), "output_format": Format.CSV, "where": "w"}),
        ("a --output f --columns a,b --order-by c --partition-by d --compression zstd", {"tables": ["a"], "output": Path("f"), "columns": ["a,b"], "order_by": "c", "partition_by": "d", "compression": Compression.ZSTD}),
    ],
    "stock reserve": [
        ("MUG --order O --qty 2 --minutes 5", {"variant": "MUG", "order": "O", "qty": 2, "minutes": 5}),
        ("--from - --format jsonl --batch 9 --jobs 4", {"source": "-", "source_format": SourceFormat.JSONL, "batch": 9, "jobs": 4}),
        ("--from f -j 2", {"source": "f", "jobs": 2}),
        ("--from f --metrics-file m --ping u", {"source": "f", "metrics_file": Path("m"), "ping": "u"}),
    ],
    "stock release": [("O", {"order": "O"})],
    "stock confirm": [("O", {"order": "O"})],
    "stock expire": [("--batch 5 --watch 2 --metrics-file m --ping u", {"batch": 5, "watch": 2.0, "metrics_file": Path("m"), "ping": "u"})],
    "stock archive": [("P --release --delete", {"product": "P", "release": True, "delete": True})],
    "stock show": [("MUG --csv", {"name": "MUG", "as_csv": True})],
    "stock list": [("--active --expired --limit 3 --csv", {"active": True, "expired": True, "limit": 3, "as_csv": True})],
    "migrate up": [("ledger --grant-to etl", {"branch": "ledger", "grant_to": "etl"})],
    "migrate down": [("harbor --to base --yes", {"branch": "harbor", "to": "base", "yes": True})],
    "migrate current": [("", {})],
    "migrate history": [("", {})],
    "migrate sql": [("ledger --from a --to b --grant-to etl", {"branch": "ledger", "from_": "a", "to": "b", "grant_to": "etl"})],
    "migrate check": [("ledger", {"branch": "ledger"})],
    "migrate merge": [("ledger --message x", {"branch": "ledger", "message": "x"}), ("harbor -m y", {"branch": "harbor", "message": "y"})],
    "db start": [("", {})],
    "db stop": [("", {})],
    "db status": [("", {})],
    "db url": [("", {})],
    "db psql": [("-- -c 'SELECT 1'", {"arguments": ["-c", "SELECT 1"]})],
    "db backup": [("f.dump --force", {"file": Path("f.dump"), "force": True})],
    "db restore": [("f.dump --yes", {"file": Path("f.dump"), "yes": True}), ("f.dump -y", {"file": Path("f.dump"), "yes": True})],
    "db upgrade": [("", {})],
    "db destroy": [("--yes", {"yes": True}), ("-y", {"yes": True})],
}  # fmt: skip

# What arguments are that nobody gives, where that is neither None nor False.
DEFAULTS: dict[str, dict[str, Any]] = {
    "run": {"lock": Lock.WAIT},
    "history": {"limit": 20},
    "inspect": {
        "short_rows": ShortRows.ERROR,
        "extra_fields": ExtraFields.ERROR,
        "decimal": ".",
        "delimiter": ",",
        "encoding": "utf-8",
        "quote": '"',
    },
    "stock reserve": {"minutes": 15, "batch": 100, "jobs": 1},
}

# What every command takes, and where it goes.
COMMON = [
    ("--json --quiet --verbose", {"json": True, "quiet": True, "verbose": True}),
    ("-q -v", {"quiet": True, "verbose": True}),
    ("--log-format json", {"log_format": LogFormat.JSON}),
    ("--url postgresql://h/d --config c.toml", {"connection": ConnectionOptions(url="postgresql://h/d", config="c.toml")}),
    ("--connection prod --log-slow 2", {"connection": ConnectionOptions(name="prod", log_slow=2.0)}),
    ("--statement-timeout 1.5 --lock-timeout 3", {"connection": ConnectionOptions(statement_timeout=1.5, lock_timeout=3.0)}),
    ("--pool-size 2 --max-overflow -1", {"connection": ConnectionOptions(pool=PoolOptions(pool_size=2, max_overflow=-1))}),
    ("--pool-timeout 3 --pool-recycle 4", {"connection": ConnectionOptions(pool=PoolOptions(pool_timeout=3.0, pool_recycle=4))}),
]  # fmt: skip
COMMON_OPTIONS = {word for line, _ in COMMON for word in line.split() if word.startswith("-")}


@pytest.fixture(scope="module")
def recorded() -> tuple[Any, list[Called]]:
    """The command line with commands that only note what they are called with."""
    calls: list[Called] = []

    def recording(app: typer.Typer, name: str, **settings: Any) -> Any:
        def register(function: Any) -> Any:
            @wraps(function)
            def record(invocation: Invocation, **given: Any) -> None:
                calls.append((invocation, given))

            return command(app, name, **settings)(record)

        return register

    app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    with pytest.MonkeyPatch.context() as patch:
        for module in modules():
            patch.setattr(module, "command", recording)
            module.register(app)
    return get_command(app), calls


def modules() -> list[Any]:
    """Those that register commands."""
    found = (getattr(harborctl.cli.app, name) for name in dir(harborctl.cli.app))
    return [each for each in found if hasattr(each, "register") and each.__name__.startswith("harborctl.cli.")]


@pytest.fixture
def called(recorded: tuple[Any, list[Called]]) -> Any:
    """Calls a command, and gives what its function was called with."""
    app, calls = recorded

    def call(name: str, line: str) -> Called:
        app([*name.split(), *shlex.split(line)], standalone_mode=False)
        return calls.pop()

    return call


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a dataclass and of those in it, by their path."""
    found: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        is_group = is_dataclass(value) and not isinstance(value, (Limit, RowRange))
        found |= flat(value, f"{prefix}{field.name}.") if is_group else {prefix + field.name: value}
    return found


@pytest.mark.parametrize(("line", "differing"), LOAD)
def test_what_load_is_asked_to_do(called: Any, line: str, differing: dict[str, Any]) -> None:
    given = called("load", line)[1]
    del given["metrics_file"], given["ping"]
    assert flat(load_options(**given)) == flat(LoadOptions(sources=("f.csv",))) | differing


@pytest.mark.parametrize(
    ("name", "line", "differing"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_what_other_commands_are_called_with(called: Any, name: str, line: str, differing: dict[str, Any]) -> None:
    given = called(name, line)[1]
    given.pop("context", None)
    if name == "load":
        given = {key: given[key] for key in ("metrics_file", "ping")}
    assert {key: value for key, value in given.items() if value not in (None, False)} == DEFAULTS.get(
        name, {}
    ) | differing


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("line", "differing"), COMMON)
def test_what_every_command_takes(called: Any, name: str, line: str, differing: dict[str, Any]) -> None:
    least, _ = CASES[name][0]
    invocation = called(name, f"{line} {least}")[0]
    usual = {
        "connection": ConnectionOptions(),
        "json": False,
        "quiet": False,
        "verbose": False,
        "log_format": LogFormat.TEXT,
    }
    found = {key: getattr(invocation, key) for key in usual}
    assert found == usual | differing


def commands(app: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(app, "commands"):
        yield " ".join(path), app
        return
    for name, each in app.commands.items():
        yield from commands(each, (*path, name))


def test_the_tables_here_know_every_option_of_every_command() -> None:
    found = dict(commands(get_command(harborctl.cli.app.app)))
    assert found.keys() == CASES.keys()
    for name, each in found.items():
        lines = [line for line, _ in CASES[name] + (LOAD if name == "load" else [])]
        said = (
            {word for line in lines for word in shlex.split(line) if word.startswith("-")}
            | COMMON_OPTIONS
            | {"--help-all"}
        )
        taken = {flag for parameter in each.params for flag in parameter.opts if flag.startswith("-")}
        assert taken - said == set(), name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--mode append --key a f.csv", "--key means nothing in mode append"),
        ("--reject-file a f.csv", "--reject-file means nothing without rejects"),
        ("--map a=b --set b=1 f.csv", "column b would be filled twice"),
        ("--map ab f.csv", "--map ab is not of the form SRC=DST"),
        ("--map a= f.csv", "--map a= is not of the form SRC=DST"),
        ("--on-error reject --max-rejects 101% f.csv", "neither a number of rows nor a percentage"),
        ("--expect-rows 5..1 f.csv", "is not a range of rows"),
        ("--expect-rows .. f.csv", "is not a range of rows"),
        ("--commit-every 5 --mode sync f.csv", "--commit-every"),
        ("--encoding nonsense f.csv", "nonsense"),
        ("--table postgresql://u:p@h/d f.csv", "an URL of a database stands where table belongs"),
        ("postgresql://u:p@h/d", "an URL of a database stands where sources belong"),
    ],
)
def test_what_means_nothing(called: Any, line: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        given = called("load", line)[1]
        del given["metrics_file"], given["ping"]
        load_options(**given)
    assert message in str(refused.value)


def test_an_option_that_is_none() -> None:
    with pytest.raises(TypeError, match="a load has no option bach_size"):
        load_options(sources=["f.csv"], bach_size=1)
