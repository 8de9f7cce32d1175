"""A load in one transaction, from sources to commit, its ledger row included."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from harborctl.db.catalog import described, find_relation
from harborctl.db.failures import translated
from harborctl.db.migrations import ledger_installed, require_ledger
from harborctl.db.search_path import on_empty_path, take_users_path
from harborctl.db.statistics import analyze_after, analyze_committed
from harborctl.db.storage import require_coordinator
from harborctl.errors import HarborctlError, LockHeld, StatementFailed
from harborctl.load.ledger import dedupe, record
from harborctl.load.ledger.dedupe import AlreadyLoaded, Overtaken
from harborctl.load.ledger.standing import standing_of
from harborctl.load.modes import carry_out
from harborctl.load.rejects.spool import EnoughRejects, Rejects
from harborctl.load.run.additions import added, plan_additions, take_turn_to_add
from harborctl.load.run.context import Attempt, Failure
from harborctl.load.run.creation import NotOfSample, plan_creation
from harborctl.load.run.prepare import ending_of, locked_target, make_plans, start_progress, table_name
from harborctl.load.run.stream import stream_rows
from harborctl.load.run.summary import summary, unneeded
from harborctl.load.session.backend import new_key, sign
from harborctl.model import Analyze, ExtraColumns, Status
from harborctl.sources.files import check_unchanged, find_files
from harborctl.sources.open import open_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from harborctl.load.modes import Outcome
    from harborctl.load.plan.plan import Plan
    from harborctl.load.run.context import Context
    from harborctl.model import Account, FileResult, LoadOptions, LoadResult
    from harborctl.sources.files import SourceFile


# To drop an index and build it costs milliseconds.
FEW_BYTES = 32 * 1024


def load_in_transaction(context: Context) -> LoadResult | Failure:
    """Carry the load out and commit, or in a dry run roll back."""
    options, progress = context.options, context.progress
    attempt = Attempt(context, keys=(new_key(), new_key()))
    try:
        with ExitStack() as stack:
            attempt = replace(attempt, found=_found(context))
            attempt = replace(attempt, sources=open_sources(options, attempt.found))
            for source in attempt.sources:
                stack.callback(source.close)
            rejects = None
            if options.rejects.rejecting:
                rejects = stack.enter_context(closing(Rejects(context.most_rejects)))
            stack.enter_context(translated())
            connection = stack.enter_context(context.database.engine.connect())
            attempt = replace(attempt, context=replace(context, was_connected=True))
            try:
                attempt = _to_be_made(connection, attempt)
                if options.ledger:
                    with connection.begin():
                        attempt = _known_target(connection, attempt)
                        attempt = _without_known(connection, attempt)
                        _begin(connection, attempt)
                with connection.begin() as current:
                    sign(connection, attempt.keys[-1], context.load_id)
                    attempt = _planned(connection, attempt)
                    # From here to the COMMIT: what the table does by itself finds what it would find without us.
                    take_users_path(connection)
                    attempt = replace(attempt, ending=ending_of(attempt))
                    start_progress(progress, attempt.sources)
                    look = attempt.creation.see if attempt.creation else None
                    rows = stream_rows(
                        attempt.sources, attempt.plans, options, rejects, progress, look, rebuilds=_may_rebuild(attempt)
                    )
                    attempt = replace(attempt, plans=rows.plans)
                    outcome = carry_out(connection, rows, options, rejects, progress)
                    if attempt.creation:
                        attempt.creation.finish(connection, options, progress)
                    result = _concluded(connection, attempt, outcome, rejects)
                    if options.dry_run:
                        current.rollback()
                    else:
                        attempt = replace(attempt, committing=result)
                when = Analyze.NEVER if options.dry_run else options.analyze
                analyze_committed(connection, attempt.plans[0].target, outcome.account.changed, when)
            except (AlreadyLoaded, LockHeld) as reason:
                return unneeded(connection, attempt, reason)
            except EnoughRejects:
                if attempt.ending and rejects:
                    attempt.ending.settle(rejects, 0)
                raise
    except (Overtaken, NotOfSample, HarborctlError, KeyboardInterrupt) as error:
        return Failure(attempt, error)
    return result


def _found(context: Context) -> Sequence[SourceFile]:
    options = context.options
    found = find_files(options.sources, options.format, options.layout)
    # The types of a new table, or of new columns, are found by reading all of it beforehand.
    reads_twice = options.create.create or options.columns.extra is ExtraColumns.ADD
    return context.spool.kept(found) if reads_twice else found


def _to_be_made(connection: Connection, attempt: Attempt) -> Attempt:
    """What of the target is missing, and is to be made of the sources, which are read here for it."""
    context, options, found = attempt.context, attempt.context.options, attempt.found
    creation, additions = None, []
    if options.create.create:
        context.progress.stage("types")
        name = table_name(options, attempt.sources)
        creation = plan_creation(connection, options, name, found, samples=context.samples)
    if options.columns.extra is ExtraColumns.ADD and creation is None:
        context.progress.stage("types")
        additions = plan_additions(connection, options, table_name(options, attempt.sources), attempt.sources, found)
    return replace(attempt, creation=creation, additions=additions)


def _planned(connection: Connection, attempt: Attempt) -> Attempt:
    """The target, made here if it is to be, as it stands now that nobody else changes it, and what goes where."""
    options, creation = attempt.context.options, attempt.creation
    if creation:
        creation = creation.made(connection, options)
    name = table_name(options, attempt.sources)
    if attempt.additions:
        take_turn_to_add(connection, find_relation(connection, name), options)
    target = locked_target(connection, name, options)
    target = added(connection, target, attempt.additions)
    standing = standing_of(connection, target) if attempt.has_ledger else None
    plans = make_plans(connection, target, attempt.sources, options)
    if creation:
        plans = [creation.with_text(plan) for plan in plans]
    return replace(attempt, creation=creation, target=target, standing=standing, plans=plans)


def _may_rebuild(attempt: Attempt) -> bool:
    """Whether indexes may be built after the rows: the sources can be read again, to say where a duplicate stands."""
    return not attempt.read_once and sum(file.size or 0 for file in attempt.found) > FEW_BYTES


def _known_target(connection: Connection, attempt: Attempt) -> Attempt:
    """The target, if it is there, and how it stands, if there is a ledger to ask; whoever writes to that needs one."""
    options = attempt.context.options
    if attempt.context.keeps_record:
        require_ledger(connection)
    elif not ledger_installed(connection):
        return attempt
    sign(connection, attempt.keys[0], attempt.context.load_id)
    attempt = replace(attempt, has_ledger=True)
    if attempt.creation:
        return attempt
    name = table_name(options, attempt.sources)
    relation = find_relation(connection, name)
    require_coordinator(connection)
    if not dedupe.asks(options):
        return replace(attempt, target=relation)
    target = described(connection, relation)
    return replace(attempt, target=target, standing=standing_of(connection, target))


def _without_known(connection: Connection, attempt: Attempt) -> Attempt:
    """Leave out what is in already.

    Raises:
        AlreadyLoaded: that is all.
    """
    context, sources, found = attempt.context, attempt.sources, attempt.found
    if attempt.standing is None:
        return attempt
    known = dedupe.find_known(
        connection, context.options, attempt.standing, sources, found, context.load_id, thorough=context.thorough
    )
    if len(known) == len(sources):
        raise AlreadyLoaded(known)
    return replace(
        attempt,
        left_out=known,
        sources=[one for place, one in enumerate(sources) if place not in known],
        found=[one for place, one in enumerate(found) if place not in known],
    )


def _begin(connection: Connection, attempt: Attempt) -> None:
    """Say in the ledger that this load runs."""
    context = attempt.context
    if attempt.standing is not None:
        dedupe.refuse_unfinished(connection, attempt.standing, attempt.sources)
    where = attempt.target or (attempt.creation and (attempt.creation.schema, attempt.creation.name))
    if context.keeps_record and where:
        record.begin(connection, context.options, context.load_id, where, context.started_at)


def _concluded(connection: Connection, attempt: Attempt, outcome: Outcome, rejects: Rejects | None) -> LoadResult:
    """What is to be done between the last row and the COMMIT. Returns how the load ends if that goes through.

    Raises:
        HarborctlError, AlreadyLoaded, Overtaken: it must not be committed.
    """
    context, options, account = attempt.context, attempt.context.options, outcome.account
    if rejects is not None:
        account = replace(account, rows_read=account.rows_read + len(rejects))
    check_expected(options, account.rows_read)
    if attempt.ending and rejects is not None:
        context.progress.stage("rejects")
        attempt.ending.settle(rejects, account.rows_read)
    notes = outcome.notes
    if options.dry_run:
        check_unchanged(attempt.found)
        # A COMMIT would check what is deferred.
        connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        status, notes = Status.DRY_RUN, (*notes, *_lost_numbers(attempt.plans[0], account))
    else:
        context.progress.stage("analyze")
        analyze_after(connection, attempt.plans[0].target, account.changed, options.analyze)
        status = Status.LOADED_WITH_REJECTS if rejects else Status.LOADED
    result = summary(attempt, status, _files_read(attempt, rejects))
    changes = sorted(outcome.changes, key=lambda change: ("inserted", "updated", "deleted").index(change.kind))
    result = replace(
        result,
        **asdict(account),
        cascaded=outcome.cascaded,
        changes=tuple(changes),
        notes=(*result.notes, *notes),
    )
    with on_empty_path(connection):
        _refuse_twice(connection, attempt, result)
        if context.keeps_record:
            _record(connection, attempt, result)
    if not options.dry_run:
        context.progress.stage("commit")
        check_unchanged(attempt.found)
    return result


def check_expected(options: LoadOptions, rows_read: int) -> None:
    """Before the commit.

    Raises:
        StatementFailed: the sources hold fewer or more rows than they should.
    """
    expected = options.rejects.expected
    if expected is not None and rows_read not in expected:
        raise StatementFailed(
            f"{rows_read:,} rows were read, and {expected} were expected",
            code="unexpected_rows",
            hint="Look whether the source is complete; --expect-rows says how many there may be.",
        )


def _lost_numbers(plan: Plan, account: Account) -> Iterator[str]:
    """What is said of a dry run that took numbers from sequences."""
    sequences = [column.sequence for column in plan.target.columns if column.sequence and column.name not in plan.names]
    for sequence in sequences if account.inserted + account.updated else ():
        yield f"the numbers that this dry run took from the sequence {sequence} are lost: sequences do not roll back"


def _files_read(attempt: Attempt, rejects: Rejects | None) -> list[FileResult]:
    """The sources, all of them read to their ends, with the records that they could not count."""
    malformed = rejects.malformed if rejects is not None else {}
    files = [source.result() for source in attempt.sources]
    return [replace(file, rows=file.rows + malformed.get(place, 0)) for place, file in enumerate(files)]


def _refuse_twice(connection: Connection, attempt: Attempt, result: LoadResult) -> None:
    """See that none of it was loaded by another run meanwhile.

    Raises:
        Overtaken: some of it was.
        AlreadyLoaded: all of it was.
    """
    options, standing = attempt.context.options, attempt.standing
    if not dedupe.asks(options) or standing is None:
        return
    places = [place for place, file in enumerate(result.files) if file.status is Status.LOADED]
    own = [result.files[place] for place in places]
    dedupe.refuse_unfinished(connection, standing, attempt.sources)
    try:
        dedupe.refuse_twice(connection, options, standing, attempt.sources, own, attempt.context.load_id)
    except Overtaken as overtaken:
        if len(overtaken.known) < len(own):
            raise
        known = {places[number]: known for number, known in overtaken.known.items()}
        raise AlreadyLoaded({**attempt.left_out, **known}) from overtaken


def _record(connection: Connection, attempt: Attempt, result: LoadResult) -> None:
    """Write down how the load ends, and what it has put in."""
    options, standing, target = attempt.context.options, attempt.standing, attempt.target
    is_old = standing is not None and standing.ledger is None
    mark = dedupe.fingerprint(options, target, attempt.sources) if target and is_old else None
    meanings = [dedupe.meaning_of(options, source) for source in attempt.sources]
    record.finish(connection, options, result, target, attempt.context.started_at, mark, standing, meanings)
