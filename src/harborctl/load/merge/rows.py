"""The rows of a load on their way to a table, with what is noted of them while they stream by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harborctl.load.merge.key_watch import KeyWatch, Places
    from harborctl.load.merge.preview import FirstRows
    from harborctl.load.plan.plan import Plan
    from harborctl.sources.batch import Batch


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a load, to be read once, source by source.

    Attributes:
        plans: of each source; they differ in the order of columns only.
        streams: of each source, its rows as its plan wants them.
        watch, places, first: what has been seen of the rows that were read.
        rebuilds: indexes may be built when all rows are in. Not of a load in parts, and not where a source can be read
            only once: nobody could say afterwards where two rows with one key stand.
    """

    plans: Sequence[Plan]
    streams: Sequence[Iterable[Batch]]
    watch: KeyWatch
    places: Places
    first: FirstRows
    rebuilds: bool = False

    @property
    def plan(self) -> Plan:
        """What holds for all sources."""
        return self.plans[0]
