"""Sources → the rows of a load, as a stream that is watched while it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.load.merge.key_watch import KeyWatch, Places
from harborctl.load.merge.preview import FirstRows
from harborctl.load.merge.rows import Rows
from harborctl.load.plan.route import choose_writer, routed
from harborctl.load.write.planned_rows import planned_rows
from harborctl.model import OnDuplicate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import Rejects
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Batch, Source


def stream_rows(
    sources: Sequence[Source], plans: Sequence[Plan], options: LoadOptions, rejects: Rejects | None, progress: Progress,
    look: Callable[[Source, Plan, Batch], None] | None = None,
    *,
    rebuilds: bool = False,
) -> Rows:  # fmt: skip
    """All rows of the sources, of which the first ones may be read here to settle the writer. Who wants to `look` at
    each batch sees it first.

    Raises:
        BadRow, SourceError: as `planned_rows`; or a row's key is NULL.
    """
    watch, places, first = KeyWatch(plans[0], refuses=rejects is None), Places(), FirstRows()
    watchers: list[KeyWatch | Places | FirstRows] = [watch]
    if rejects is None and _tells_places(plans[0], options):
        watchers.append(places)
    if options.dry_run and not plans[0].mode.by_key:
        watchers.append(first)

    def stream(number: int, plan: Plan) -> Iterator[Batch]:
        source = sources[number]
        before = sum(each.position() for each in sources[:number])
        malformed = rejects.taker(number) if rejects is not None else None
        refuse = rejects.noter(number) if rejects is not None else None
        for batch in planned_rows(source, plan, malformed, refuse):
            progress.bytes_read(before + source.position())
            if look is not None:
                look(source, plan, batch)
            for watcher in watchers:
                watcher.see(plan, batch)
            yield batch

    streams = [stream(number, plan) for number, plan in enumerate(plans)]
    writer, batches = choose_writer(options, plans, streams[0])
    settled = [routed(plan, options, writer) for plan in plans]
    return Rows(settled, [batches, *streams[1:]], watch, places, first, rebuilds)


def _tells_places(plan: Plan, options: LoadOptions) -> bool:
    """Whether rows may be found bad only when all of them are staged."""
    return plan.merge is not None and (
        bool(plan.lacks) or not plan.merge.key.is_plain or options.merge.on_duplicate is OnDuplicate.ERROR
    )
