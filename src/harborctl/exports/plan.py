"""Which tables go into which files, by which query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy import text

from harborctl.db.catalog import find_target
from harborctl.db.relations import find_relation, is_pattern, matching, quoted, require_one_expression
from harborctl.db.search_path import on_users_path
from harborctl.errors import AccessDenied, TargetError, UsageError
from harborctl.nearest import did_you_mean
from harborctl.reports.formats import Format, format_of
from harborctl.reports.parse import parse_report
from harborctl.sqlstate import INSUFFICIENT_PRIVILEGE, UNDEFINED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.db.catalog import Target
    from harborctl.db.relations import Relation
    from harborctl.reports.formats import Compression
    from harborctl.reports.report import Report

FORMATS = (Format.CSV, Format.PARQUET, Format.JSONL, Format.XLSX)
MANIFEST = "manifest.json"
# As Hive and its readers call the folder of NULL.
NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        tables: names as SQL writes them, or patterns.
        output: a file, or the folder that gets a file for each table, and the manifest; None is the working directory.
        columns: names; empty for all that can be loaded.
        partition_by: a column; each of its values has a folder of its own, `column=value`.
    """

    tables: tuple[str, ...]
    output: Path | None = None
    format: Format | None = None
    where: str | None = None
    columns: tuple[str, ...] = ()
    order_by: str | None = None
    partition_by: str | None = None
    compression: Compression | None = None


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file, and the query whose rows it gets.

    Attributes:
        value: of a partition, the text of its value.
    """

    table: str
    path: Path
    query: Report
    value: str | None = None


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export writes, in an order in which it can be loaded: a table stands behind those that it refers to."""

    files: tuple[PlannedFile, ...]
    format: Format
    manifest: Path | None


_REFERENCES = text("""
    SELECT DISTINCT conrelid::oid AS child, confrelid::oid AS parent FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND conrelid <> confrelid AND conrelid = ANY(CAST(:oids AS pg_catalog.oid[]))
      AND confrelid = ANY(CAST(:oids AS pg_catalog.oid[]))
""")


def make_plan(connection: Connection, options: ExportOptions) -> ExportPlan:
    """Look everything up, before anything is written.

    Raises:
        TargetError: there is no such table or column.
        AccessDenied: a table may not be read.
        UsageError: the options contradict each other.
    """
    relations = _in_order(connection, _found(connection, options.tables))
    chosen, folder = _target(options, several=len(relations) > 1)
    _check_format(chosen, options)
    files: list[PlannedFile] = []
    for relation in relations:
        files += _files(connection, relation, options, chosen, folder)
    return ExportPlan(tuple(files), chosen, folder / MANIFEST if folder is not None else None)


def _found(connection: Connection, names: Sequence[str]) -> list[Relation]:
    found: dict[int, Relation] = {}
    for name in names:
        some = matching(connection, name) if is_pattern(name) else [find_relation(connection, name)]
        found |= {relation.oid: relation for relation in some}
    if unreadable := [relation.label for relation in found.values() if not relation.readable]:
        raise AccessDenied(
            f"this user may not read {', '.join(unreadable)}",
            code=INSUFFICIENT_PRIVILEGE,
            hint="Ask its owner for GRANT SELECT, or leave it out.",
        )
    return list(found.values())


def _in_order(connection: Connection, relations: Sequence[Relation]) -> list[Relation]:
    """Parents before children; in a ring of references, as they came."""
    parents: dict[int, set[int]] = {relation.oid: set() for relation in relations}
    for row in connection.execute(_REFERENCES, {"oids": list(parents)}):
        parents[row.child].add(row.parent)
    left = list(relations)
    ordered: list[Relation] = []
    while left:
        waiting = {relation.oid for relation in left}
        ready = [relation for relation in left if not parents[relation.oid] & waiting] or left[:1]
        ordered += ready
        left = [relation for relation in left if relation not in ready]
    return ordered


def _target(options: ExportOptions, *, several: bool) -> tuple[Format, Path | None]:
    """The format, and the folder if it is not one file."""
    output = options.output
    if output is None or output.is_dir() or several or options.partition_by or not output.suffix:
        if output is not None and output.exists() and not output.is_dir():
            raise UsageError(f"{output} is a file, and this export writes several", hint="Name a folder with -o.")
        return options.format or Format.CSV, output or Path()
    bare = output.with_suffix("") if options.compression and output.suffix == options.compression.suffix else output
    return options.format or format_of(bare), None


def _check_format(chosen: Format, options: ExportOptions) -> None:
    if chosen not in FORMATS:
        raise UsageError(f"tables are not exported as {chosen}", hint=f"Take one of {', '.join(FORMATS)}.")
    if options.compression and chosen not in (Format.CSV, Format.JSONL):
        raise UsageError(f"--compression is for text, and {chosen} is compressed inside", hint="Leave it out.")


def _files(
    connection: Connection, relation: Relation, options: ExportOptions, chosen: Format, folder: Path | None
) -> list[PlannedFile]:
    columns = _columns(connection, relation, options)
    if options.where:
        require_one_expression(connection, relation, options.where)
    suffix = f".{chosen}{options.compression.suffix if options.compression else ''}"
    if options.partition_by is None:
        path = options.output if folder is None else folder / f"{relation.label}{suffix}"
        if path is None:
            raise AssertionError("what goes into no folder goes into a file")
        return [PlannedFile(relation.label, path, _query(relation, columns, options))]
    if folder is None:
        raise AssertionError("partitions go into folders")
    column = _named(connection, relation, options.partition_by)
    rest = [name for name in columns if name != column]
    if not rest:
        raise UsageError(f"{relation.label} has no column besides {column}", hint="Leave out --partition-by.")
    files = []
    for value in _values(connection, relation, column, options):
        name = NULL_FOLDER if value is None else quote(value, safe=" ")
        place = folder / relation.label / f"{quote(column, safe=' ')}={name}" / f"part-0{suffix}"
        only = (
            f"{quoted(column)} IS NULL" if value is None else f"{quoted(column)}::pg_catalog.text = {_literal(value)}"
        )
        files.append(PlannedFile(relation.label, place, _query(relation, rest, options, only), value))
    return files


def _columns(connection: Connection, relation: Relation, options: ExportOptions) -> list[str]:
    if options.columns:
        return [_named(connection, relation, name) for name in options.columns]
    found = [column.name for column in _described(connection, relation).columns if not column.generated]
    if not found:
        raise TargetError(f"{relation.label} has no columns that can be loaded again", code=UNDEFINED_COLUMN)
    return found


def _described(connection: Connection, relation: Relation) -> Target:
    return find_target(connection, quoted(relation.schema, relation.name))


def _named(connection: Connection, relation: Relation, name: str) -> str:
    names = [column.name for column in _described(connection, relation).columns]
    for wanted in (name, name.lower()):
        if wanted in names:
            return wanted
    raise TargetError(
        f"{relation.label} has no column {name}",
        code=UNDEFINED_COLUMN,
        hint=did_you_mean(name, names) or f"See `harborctl tables {relation.label}`.",
    )


def _values(connection: Connection, relation: Relation, column: str, options: ExportOptions) -> list[str | None]:
    where = f" WHERE ({options.where}\n)" if options.where else ""
    table = quoted(relation.schema, relation.name)
    query = f"SELECT DISTINCT {quoted(column)}::pg_catalog.text FROM {table}{where} ORDER BY 1"  # noqa: S608  # quoted
    with on_users_path(connection):
        return list(connection.exec_driver_sql(query.replace("%", "%%")).scalars())


def _query(relation: Relation, columns: Sequence[str], options: ExportOptions, only: str | None = None) -> Report:
    conditions = [f"({each}\n)" for each in (options.where, only) if each]
    sql = f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(relation.schema, relation.name)}"  # noqa: S608
    sql += f" WHERE {' AND '.join(conditions)}" if conditions else ""
    sql += f" ORDER BY {options.order_by}" if options.order_by else ""
    return parse_report(relation.label, relation.label, sql)


def _literal(value: str) -> str:
    """Text as standard SQL has it: our sessions have standard_conforming_strings on."""
    return "'" + value.replace("'", "''") + "'"
