"""What comes before the first row: the target, locked, how each source goes into it, and where its rejects go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from harborctl.codecs.codec import Session
from harborctl.db.catalog import described, find_relation, find_target
from harborctl.db.storage import require_coordinator
from harborctl.errors import TargetError, UsageError
from harborctl.load.modes import check_target, truncates
from harborctl.load.plan.plan import make_plan, settle_columns
from harborctl.load.plan.source_columns import snake
from harborctl.load.session.locks import lock_target
from harborctl.model import Names
from harborctl.sources.detect import detect
from harborctl.sources.files import is_read_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.db.catalog import Target
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.settle import Ending
    from harborctl.load.run.context import Attempt
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Source
    from harborctl.sources.files import SourceFile

_UTC = {"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"}


def settle_dialect(options: LoadOptions, found: Sequence[SourceFile]) -> tuple[LoadOptions, str]:
    """The options with the dialect that `--detect` finds, and what is said of it.

    Raises:
        UsageError: the sources differ, or can be read only once.
    """
    detected = [detect(file, options.dialect) for file in found]
    first = detected[0]
    for file, other in zip(found, detected, strict=True):
        if other.dialect != first.dialect:
            raise UsageError(
                f"{found[0].name} is read by {first}, {file.name} by {other}", hint="Load them one by one."
            )
    return replace(options, dialect=first.dialect, detect=False), f"detected {first}"


def table_name(options: LoadOptions, sources: Sequence[Source]) -> str:
    """The target as the user named it, or the source's stem.

    Raises:
        UsageError: there is none.
    """
    if options.table:
        return options.table
    path = Path(sources[0].name)
    if len({source.name for source in sources}) > 1 or (not path.suffix and is_read_once(options.sources[0])):
        raise UsageError("which table?", code="no_table", hint="Say --table [SCHEMA.]TABLE.")
    stem = path.name.split(".")[0]
    return '"' + (snake(stem) if options.create.names is Names.SNAKE else stem).replace('"', '""') + '"'


def locked_target(connection: Connection, name: str, options: LoadOptions, *, has_turn: bool = False) -> Target:
    """The target as it is once nobody can change it any more. With `has_turn` another transaction of this load keeps
    other loads out."""
    relation = find_relation(connection, name)
    require_coordinator(connection)
    if truncates(options):  # readers shall not wait for what will be refused
        check_target(described(connection, relation), options.mode)
    lock_target(connection, relation, options, truncates=truncates(options), has_turn=has_turn)
    target = find_target(connection, name)
    check_target(target, options.mode)
    return target


def make_plans(connection: Connection, target: Target, sources: Sequence[Source], options: LoadOptions) -> list[Plan]:
    """Settle what becomes of each column of each source, and how this transaction reads dates."""
    # Triggers may raise notices by the row. Nobody reads them here, and the driver, which does not read while it
    # sends COPY data, would wait forever for a server that waits for its reader.
    quiet = func.set_config("client_min_messages", "error", True)
    zone, _ = connection.execute(select(func.current_setting("TimeZone"), quiet)).one()
    session = Session(zone in _UTC)
    settle_columns(sources, target, options)
    if options.date_order is not None:  # the other part of DateStyle, how dates are written, stays
        connection.execute(select(func.set_config("DateStyle", options.date_order.upper(), True)))
    plans = [make_plan(source, target, options, session) for source in sources]
    # Files without anything in them, not even a header, go along with the first that has columns.
    full = next((plan for source, plan in zip(sources, plans, strict=True) if len(source.schema)), plans[0])
    plans = [plan if len(source.schema) else full for source, plan in zip(sources, plans, strict=True)]
    for source, plan in zip(sources, plans, strict=True):
        if set(plan.names) != set(plans[0].names):
            different = sorted(set(plan.names) ^ set(plans[0].names))
            raise TargetError(
                f"{source.name} and {sources[0].name} do not have the same columns: {', '.join(different)}",
                code="columns_differ",
                hint="Load them one by one, or fill what one lacks with NULL: --missing-columns null.",
            )
    return plans


def ending_of(attempt: Attempt, *, complete: bool = False) -> Ending | None:
    """Where rejects go, of a load that has some or may have; one that is `complete` only has them."""
    options, done = attempt.context.options, attempt.chunks or ()
    if not options.rejects.rejecting and not any(chunk.rejected for chunk in done):
        return None
    from harborctl.load.rejects.settle import Ending  # 10 ms, with what it imports; few loads need it

    return Ending(options, attempt.sources, attempt.plans, complete=complete)


def start_progress(progress: Progress, sources: Sequence[Source]) -> None:
    """Tell how much there is to read."""
    sizes = [source.size for source in sources]
    progress.start(None if None in sizes else sum(size or 0 for size in sizes))
