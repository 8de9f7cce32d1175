"""Columns that a table lacks, and gets in the load's transaction: `--extra-columns add`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harborctl.db.catalog import find_target
from harborctl.db.create_table import add_columns
from harborctl.db.relations import quoted
from harborctl.inference.scan import Scan
from harborctl.load.plan.new_table import field_rules
from harborctl.load.plan.source_columns import SourceColumns
from harborctl.load.plan.target_names import TargetNames
from harborctl.load.session.locks import take_by_name
from harborctl.sources.batch import REJECT_COLUMNS, WithoutHeader
from harborctl.sources.open import open_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.db.catalog import Relation, Target
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Columns, Source
    from harborctl.sources.files import SourceFile

# "hrba" in ASCII: beside the targets' locks, those of loads that add columns, by the table's name.
NAMESPACE = 0x68726261


def plan_additions(
    connection: Connection, options: LoadOptions, name: str, sources: Sequence[Source], found: Sequence[SourceFile]
) -> list[tuple[str, str]]:
    """Names and types of columns that the table lacks. Reads the sources that have some, outside of any transaction.

    Raises:
        TargetError, SourceError: there is no table; a source cannot be read.
    """
    with connection.begin():
        target = find_target(connection, name)
    named_as = TargetNames(target, options)
    for source in sources:
        if isinstance(source, WithoutHeader):
            source.settle(source.all_names())
    if not any(list(_unknown(source, named_as, options)) for source in sources):
        return []
    scan = Scan(partial(field_rules, options))
    scan.see_all([partial(open_file, file, options.dialect) for file in found])
    seen = scan.seen()
    return [
        (seen.schema.names[n], seen.inferred[n].type) for n in _unknown(seen, named_as, options) if n in seen.inferred
    ]


def _unknown(source: Columns, named_as: TargetNames, options: LoadOptions) -> list[int]:
    own = SourceColumns(source, options.columns)
    return [
        position
        for position, name in enumerate(source.schema.names if source.named else ())
        if name and name not in REJECT_COLUMNS and position not in own.mapped and position not in own.skipped
        if named_as.find(name) is None
    ]


def take_turn_to_add(connection: Connection, relation: Relation, options: LoadOptions) -> None:
    """Who adds columns to the same table meanwhile waits here, before it has locked the table.

    Raises:
        LockHeld: somebody does, and the options say not to wait.
    """
    reason = f"another load adds columns to {relation.label}"
    take_by_name(connection, NAMESPACE, relation.label, options.run.lock, reason)


def added(connection: Connection, target: Target, columns: Sequence[tuple[str, str]]) -> Target:
    """The table with these columns, which may be NULL.

    Raises:
        AccessDenied: this user does not own it.
    """
    missing = [(name, kind) for name, kind in columns if target.column(name) is None]
    if not missing:
        return target
    add_columns(connection, target.schema, target.name, missing)
    return find_target(connection, quoted(target.schema, target.name))
