"""The table of a load that is not there yet: planned before the transaction of the load, and made in it.

A load that fails leaves no table. Types are found by reading the sources before the transaction begins, so that nobody
waits for it meanwhile. Of a sample that is only a guess: while rows are loaded, each value is looked at, and with the
first that the guess would not give back the load begins anew, with types of all rows.
"""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from harborctl.db.catalog import Relation, find_relation
from harborctl.db.create_table import add_primary_key, create_table, creation, creation_place, written_types
from harborctl.db.relations import quoted
from harborctl.errors import TargetError, UsageError
from harborctl.inference.scan import Scan
from harborctl.load.plan.new_table import field_rules, new_columns, new_key
from harborctl.load.plan.plan import refuse_other_delimiter
from harborctl.load.session.locks import take_by_name
from harborctl.model import LoadOptions, SourceFormat
from harborctl.sources.open import open_file
from harborctl.sqlstate import UNDEFINED_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.load.plan.new_table import NewColumn
    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.bad_row import Progress
    from harborctl.sources.batch import Batch, Source
    from harborctl.sources.files import SourceFile

# "hrbn" in ASCII: beside the targets' locks, those of tables that are being made, by name.
NAMESPACE = 0x6872626E


class NotOfSample(Exception):
    """Ends an attempt: a value does not fit what a sample of the rows has told of its column."""


def _find_or_none(connection: Connection, name: str) -> Relation | None:
    """The table; None if there is none.

    Raises:
        TargetError: there are several.
    """
    try:
        return find_relation(connection, name)
    except TargetError as error:
        if error.code != UNDEFINED_TABLE:
            raise
        return None


def require_table(connection: Connection, name: str, options: LoadOptions) -> Relation:
    """The target of a load in chunks, which commit one by one, and so cannot make it.

    Raises:
        TargetError: there is none.
        UsageError: it is to be made.
    """
    if not options.create.create:
        return find_relation(connection, name)
    found = _find_or_none(connection, name)
    if found is None:
        option = "--commit-every" if options.run.commit_every else "--jobs"
        raise UsageError(
            f"--create makes the table {name} in the transaction of its rows, and {option} has several",
            code="not_divisible",
            hint=f"Leave {option} out of the first load; or make the table beforehand.",
        )
    return found


def way_to_make_it(options: LoadOptions) -> str:
    """What to say so that a missing table is made."""
    if options != LoadOptions(options.sources, options.table):
        return "With --create the same command makes it from the file."
    table = ["-t", options.table] if options.table else []
    command = shlex.join(["harborctl", "load", *options.sources, *table, "--create"])
    return f"{command} makes it from the file."


@dataclass(frozen=True, slots=True)
class Creation:
    """A table that is to be made.

    Attributes:
        columns: with types as the server writes them where the user has named one.
        key: the primary key.
        scan: what is known of the sources, if that was only a sample.
        is_made: this transaction has made it; else another was faster.
    """

    schema: str
    name: str
    columns: tuple[NewColumn, ...]
    key: tuple[str, ...]
    scan: Scan | None = None
    is_made: bool = False

    @property
    def statement(self) -> str | None:
        """What makes the table, once it is made."""
        return creation(self.schema, self.name, self._typed, self.key) + ";" if self.is_made else None

    @property
    def _typed(self) -> list[tuple[str, str]]:
        return [(column.name, column.type) for column in self.columns]

    def made(self, connection: Connection, options: LoadOptions) -> Creation:
        """Make it, unless it is there by now. Who makes the same table meanwhile waits here.

        Raises:
            LockHeld: somebody does, and the options say not to wait.
            StatementFailed: as the server says.
        """
        label = f"{self.schema}.{self.name}"
        take_by_name(connection, NAMESPACE, label, options.run.lock, f"another load makes {label}")
        if _find_or_none(connection, quoted(self.schema, self.name)) is not None:
            return self
        # Bad rows are told apart as they come, by a key that is there; and modes that go by one need it.
        key = self.key if options.mode.by_key or options.rejects.rejecting else ()
        create_table(connection, self.schema, self.name, self._typed, key)
        return replace(self, is_made=True)

    def finish(self, connection: Connection, options: LoadOptions, progress: Progress) -> None:
        """Behind the rows, where it takes a third of the time, build the key."""
        if self.is_made and self.key and not (options.mode.by_key or options.rejects.rejecting):
            progress.stage("key")
            add_primary_key(connection, self.schema, self.name, self.key)

    def with_text(self, plan: Plan) -> Plan:
        """The plan, by which rows come as they stand in the source if they are to be looked at."""
        if self.scan is None:
            return plan
        columns = (replace(each, codec=replace(each.codec, direct=None)) for each in plan.columns)
        return replace(plan, columns=tuple(columns))

    def see(self, source: Source, plan: Plan, batch: Batch) -> None:
        """Look whether the rows of a batch, as they stand in the source, fit what the sample has told.

        Raises:
            NotOfSample: one does not.
        """
        if self.scan is None or not self.is_made:
            return
        types = {column.name: column.type for column in self.columns if not column.given}
        read = [column for column in plan.columns if column.position is not None]
        for column, array in zip(read, batch.records.columns, strict=True):
            if column.position is None or column.target.name not in types:
                continue
            self.scan.see(source, column.position, array, batch.line_of)
            if self.scan.type_of(source, column.position) != types[column.target.name]:
                raise NotOfSample(column.target.name)


def plan_creation(
    connection: Connection, options: LoadOptions, name: str, found: Sequence[SourceFile], *, samples: bool
) -> Creation | None:
    """The table that is to be made; None if it is there. Reads the sources, outside of any transaction.

    Args:
        samples: a sample may tell the types, if the options say so.

    Raises:
        TargetError, UsageError, SourceError: it cannot be made of these sources.
        AccessDenied: this user may not.
    """
    with connection.begin():
        if _find_or_none(connection, name) is not None:
            return None
        schema, table = creation_place(connection, name)
        given = options.create.types
        written = dict(zip(given, written_types(connection, list(given.values())), strict=True))
    # Typed files tell at their start; of JSON a load reads what text would not tell.
    is_text = all(file.format in {SourceFormat.CSV, SourceFormat.TSV} for file in found)
    if is_text and options.dialect.header and not options.dialect.columns:
        for file in found:  # before a type is looked for in what are no fields
            with closing(open_file(file, options.dialect)) as source:
                refuse_other_delimiter(source)
    rows = options.create.sample_rows if samples and is_text else None
    scan = Scan(partial(field_rules, options))
    scan.see_all([partial(open_file, file, options.dialect) for file in found], rows)
    columns = new_columns(scan.seen(), options, written)
    return Creation(schema, table, tuple(columns), new_key(columns, options), scan if rows is not None else None)
