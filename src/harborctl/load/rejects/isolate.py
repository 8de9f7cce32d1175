"""Writes rows of which some may be bad: what can go in goes in, what cannot is put aside. Either writer, same outcome.

Rows go in stretches, each in a savepoint. While nothing fails that costs nothing that shows. When
one fails it is taken back and divided: at the row that the server names, by a query that finds all rows which violate
the same constraint, else in halves. How many rows are tried together goes down with each refusal, and doubles with each
success, so that each row is sent a few times at most, however many are bad.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import text

from harborctl.errors import BadRow
from harborctl.load.rejects.constraint_queries import Probes
from harborctl.load.rejects.input_errors import Inputs
from harborctl.load.rejects.savepoint_send import Refusal, SavepointSender
from harborctl.load.rejects.validate import Screen, Slice, required
from harborctl.load.write.bad_row import Reason, Written, value_of
from harborctl.load.write.read_ahead import read_ahead
from harborctl.load.write.row_numbers import numbered, numbered_plan
from harborctl.sources.batch import stretch, taken
from harborctl.sqlstate import UNIQUE_VIOLATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Table

    from harborctl.load.merge.rows import Rows
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import Rejects
    from harborctl.load.write.bad_row import Note, Progress
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Batch

# Slices in a stretch: they are kept until it has gone in. As many as abort mode keeps to say where a row stands; of
# lineitem some 10 MB, a 60th of the file, so that a savepoint for each costs nothing that shows.
LONGEST_STRETCH = 24
STRETCH_BYTES = 32 * 1024 * 1024
# After a failure, until stretches go in again.
SHORTEST_STRETCH = 2
# Until it commits the server keeps a lock for each savepoint that has written, and has memory for some ten thousand by
# default (max_locks_per_transaction); with more of them the bad rows are sought first, and good ones go in together.
MOST_SAVEPOINTS = 1000

# Violations of unique and exclusion constraints: of a row that is tried with others, because one of these is in the
# way. That one may be put aside itself.
_OF_SEVERAL = frozenset({UNIQUE_VIOLATION, "23P01"})


@dataclass(frozen=True, slots=True)
class _Run:
    """Slices that can go in one statement.

    Attributes:
        probed: the version of the probes that it has been through.
        read: the server has been asked whether it can read all of its values.
    """

    slices: tuple[Slice, ...]
    probed: int = 0
    read: bool = False

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.slices)

    def row(self, number: int) -> tuple[Batch, int]:
        """The row with this number, counted over all slices: its batch, and its number there."""
        for piece in self.slices:
            if number < piece.rows:
                return piece.batch, number
            number -= piece.rows
        raise IndexError(number)


@dataclass(frozen=True, slots=True)
class Judges:
    """Whom to ask about rows that were refused."""

    probes: Probes
    inputs: Inputs


class CarefulWriter:
    """Puts the rows of one plan into one table.

    Attributes:
        written: what went in so far.
        waiting: rows that are not sent, because some of them refer to others of their table which are not there yet.
    """

    def __init__(
        self, table: Table, plan: Plan, sender: SavepointSender, screen: Screen, judges: Judges, refuse: Note
    ) -> None:
        self._table = table
        self._plan = plan
        self._sender = sender
        self._screen = screen
        self._judges = judges
        self._refuse = refuse
        self._limit = LONGEST_STRETCH
        self.written = Written()
        self.waiting: list[Slice] = []
        self._most = sys.maxsize
        self._savepoints = 0

    def validate(self) -> None:
        """See that the user's checks can be asked.

        Raises:
            UsageError: one cannot.
        """
        self._judges.probes.validate()

    def write(self, batches: Iterable[Batch], progress: Progress) -> None:
        """Send all rows but those that wait for others of their table.

        Raises:
            HarborctlError: the server refused for a reason that is no row's.
        """
        with read_ahead(self._screen.slices(batches), lambda piece: piece.size) as slices:
            following = next(slices, None)
            while following is not None:
                following = self._send_stretch(following, slices)
                progress.rows_sent(self.written.sent)

    def _send_stretch(self, first: Slice, rest: Iterator[Slice]) -> Slice | None:
        """Send the next slices while they are read, and see to it that they go in. Returns the slice behind them."""
        taken: list[Slice] = []
        following: Slice | None = first
        size = 0

        def pieces() -> Iterator[Slice]:
            nonlocal following, size
            while following is not None and (
                not taken or (len(taken) < self._limit and size < STRETCH_BYTES and _together(taken[-1], following))
            ):
                taken.append(following)
                size += following.size
                piece, following = following, None
                yield piece
                following = next(rest, None)

        if self._judges.probes.version:
            for _ in pieces():
                pass
            self._work_off([_Run(tuple(taken))])
        else:
            try:
                inserted = self._sender.send(self._table, self._plan, pieces())
            except Refusal as refusal:
                self._limit = SHORTEST_STRETCH
                self._work_off(self._divided(_Run(tuple(taken)), refusal), seeks=self._seeks())
            else:
                self._limit = min(2 * self._limit, LONGEST_STRETCH)
                self._went_in(taken, inserted)
        return next(rest, None) if following is None else following

    def _work_off(self, waiting: list[_Run], *, seeks: bool = False) -> None:
        """Send the runs, the last of the list first, until each of their rows is in or put aside.

        While it seeks, what goes well is taken back and kept; at the end all of it goes in together.
        """
        refused, may_seek = 0, True
        kept: list[Slice] = []
        while waiting:
            run = waiting.pop()
            try:
                if run.probed < self._judges.probes.version and (run.rows > 1 or not run.probed):
                    waiting += self._probed(run)
                elif refused > 1 and not run.read and run.rows > 1:
                    waiting += self._read(run)
                else:
                    run = self._next(run, waiting)
                    kept += self._sent(run, seeks=seeks)
                    self._most *= 2
            except Refusal as refusal:
                # Of many unreadable values the server names one at a time.
                refused += refusal.error.code.startswith("22")
                waiting += self._divided(run, refusal)
                seeks = seeks or (may_seek and self._seeks())
            if seeks and not waiting:
                waiting, kept, seeks, may_seek = _runs(kept, _Run(())), [], False, False
                self._most = sys.maxsize

    def _seeks(self) -> bool:
        """Whether bad rows are to be sought first."""
        return self._savepoints > MOST_SAVEPOINTS

    def _sent(self, run: _Run, *, seeks: bool) -> tuple[Slice, ...]:
        """Send a run. Returns what is to be sent later. Suspects are not tried before the others are in."""
        if not seeks:
            self._went_in(run.slices, self._send(run, stays=True))
            return ()
        if not run.slices[0].alone:
            self._send(run, stays=False)
        return run.slices

    def _send(self, run: _Run, *, stays: bool) -> int:
        return self._sender.send(self._table, self._plan, iter(run.slices), stays=stays)

    def _next(self, run: _Run, waiting: list[_Run]) -> _Run:
        """As many of the run's rows as are tried together now; the others wait."""
        if run.rows > self._most:
            waiting.append(replace(run, slices=tuple(self._cut(run, self._most, run.rows))))
            run = replace(run, slices=tuple(self._cut(run, 0, self._most)))
        *others, run = _runs(map(self._encoded, run.slices), run)
        waiting += others
        return run

    def _encoded(self, piece: Slice) -> Slice:
        if piece.encoded or not self._sender.copies:
            return piece
        return replace(self._screen.again(piece.batch), alone=piece.alone)

    def _divided(self, run: _Run, refusal: Refusal) -> list[_Run]:
        """What is left of a run that was refused, the first rows last."""
        first, end = refusal.first, min(refusal.end, run.rows)
        is_named = end - first == 1
        if self._refers_to_its_table(refusal):
            self.waiting += run.slices
            return []
        if self._judges.probes.noticed(refusal.error, refusal.constraint, is_named=is_named) and not is_named:
            return [run]
        # Before the bad row as many went well; where it is not known, it is in one half.
        self._most = max(first if is_named else (end - first) // 2, 1)
        if is_named and run.rows > 1 and refusal.error.code in _OF_SEVERAL:
            bounds = [(0, first), (first, end), (end, run.rows)]
        elif is_named:
            self._put_aside(run, first, refusal)
            bounds = [(0, first), (first + 1, run.rows)]
        else:
            middle = (first + end) // 2
            bounds = [(0, first), (first, middle), (middle, end), (end, run.rows)]
        return [part for start, stop in reversed(bounds) for part in _runs(self._cut(run, start, stop), run)]

    def _refers_to_its_table(self, refusal: Refusal) -> bool:
        constraint = self._judges.probes.constraint(refusal.constraint)
        return constraint is not None and constraint.reference is not None and constraint.reference.own

    def _cut(self, run: _Run, start: int, stop: int) -> Iterator[Slice]:
        """The rows from `start` up to `stop`. What is cut off is encoded when it is sent: it may be cut again."""
        before = 0
        for piece in run.slices:
            low, high = max(start - before, 0), min(stop - before, piece.rows)
            before += piece.rows
            if low < high:
                yield piece if high - low == piece.rows else Slice(stretch(piece.batch, low, high), None, piece.alone)

    def _probed(self, run: _Run) -> list[_Run]:
        """What queries leave of a run: bad rows put aside, suspects alone; the first rows last."""
        version = self._judges.probes.version
        bad, suspects = set[int](), set[int]()
        for violation in self._judges.probes.violations(run.slices):
            (bad if violation.is_certain else suspects).add(violation.row)
            if violation.is_certain:
                batch, row = run.row(violation.row)
                self._refuse(batch, row, self._with_value(violation.reason, batch, row))
        return _runs(self._parted(run, bad, suspects), replace(run, probed=version))

    def _read(self, run: _Run) -> list[_Run]:
        """What is left of a run when the values that the server cannot read are put aside; the first rows last."""
        bad, before = set[int](), 0
        for piece in run.slices:
            for row, reason in self._judges.inputs.errors(self._plan, piece.batch).items():
                self._refuse(piece.batch, row, self._with_value(reason, piece.batch, row))
                bad.add(before + row)
            before += piece.rows
        return _runs(self._parted(run, bad, set()), replace(run, read=True))

    def _parted(self, run: _Run, bad: set[int], suspects: set[int]) -> Iterator[Slice]:
        """The rows of a run but the bad ones, each suspect in a slice of its own."""
        before = 0
        for piece in run.slices:
            first, before = before, before + piece.rows
            numbers = range(first, before)
            if bad.isdisjoint(numbers) and suspects.isdisjoint(numbers):
                yield piece
                continue
            kept = ((number, number in suspects) for number in numbers if number not in bad)
            for key, group in groupby(kept, lambda entry: entry[0] if entry[1] else -1):
                yield Slice(taken(piece.batch, [number - first for number, _ in group]), None, alone=key >= 0)

    def _put_aside(self, run: _Run, number: int, refusal: Refusal) -> None:
        batch, row = run.row(number)
        column = refusal.column
        constraint = self._judges.probes.constraint(refusal.constraint)
        if column is None and constraint is not None and len(constraint.columns) == 1:
            column = constraint.columns[0]
        if column is None and refusal.error.code[:2] in ("22", "23"):
            # Of values in an INSERT the server does not say which it could not read.
            unread = self._judges.inputs.errors(self._plan, stretch(batch, row, row + 1)).get(0)
            column = unread.column if unread and unread.code == refusal.error.code else None
        self._refuse(batch, row, self._with_value(replace(Reason.of(refusal.error), column=column), batch, row))

    def _with_value(self, reason: Reason, batch: Batch, row: int) -> Reason:
        if reason.column not in self._plan.names:
            return reason
        return replace(reason, value=value_of(self._plan, batch, row, reason.column))

    def _went_in(self, slices: Sequence[Slice], inserted: int) -> None:
        self._savepoints += 1
        self.written += Written(sum(piece.rows for piece in slices), inserted)


def _together(last: Slice, piece: Slice) -> bool:
    """Whether the piece can go in one statement with the one before it."""
    if last.alone or piece.alone:
        return False
    return last.encoded is None or piece.encoded is None or last.encoded.format is piece.encoded.format


def _runs(slices: Iterable[Slice], like: _Run) -> list[_Run]:
    """The slices as runs that have been through what `like` has, the first ones last."""
    groups: list[list[Slice]] = []
    for piece in slices:
        if groups and _together(groups[-1][-1], piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [replace(like, slices=tuple(group)) for group in reversed(groups)]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows of one source that wait for others of their table. `refuse` takes those that are bad."""

    plan: Plan
    batches: Sequence[Batch]
    refuse: Note


@dataclass(frozen=True, slots=True)
class Isolated:
    """What became of the rows of a load: those that went in, and those that wait."""

    written: Written
    waiting: Sequence[Waiting]


def write_isolated(
    connection: Connection,
    table: Table,
    rows: Rows,
    options: LoadOptions,
    rejects: Rejects | None,
    progress: Progress,
    number: str | None = None,
) -> Isolated:
    """Put all rows that can go in into `table`, and their numbers into the column `number`, if it has one.

    Raises:
        BadRow: a row cannot, and there is no place for rejects.
    """
    # What is checked at commit could no longer be told from other rows.
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    written, waiting = Written(), list[Waiting]()
    for position, (stream, plan) in enumerate(zip(rows.streams, rows.plans, strict=True)):
        refuse = rejects.noter(position) if rejects is not None else _end
        writer = careful_writer(connection, table, plan, options, refuse, number)
        if position == 0:
            writer.validate()
        writer.write(stream if number is None else numbered(stream, position), progress)
        written += writer.written
        if writer.waiting:
            waiting.append(Waiting(plan, [piece.batch for piece in writer.waiting], refuse))
    return Isolated(written, waiting)


def careful_writer(
    connection: Connection, table: Table, plan: Plan, options: LoadOptions, refuse: Note, number: str | None
) -> CarefulWriter:
    """Who puts rows of this plan into `table`, with their numbers in the column `number`, if it has one."""
    filled = plan if number is None else numbered_plan(plan, number)
    sender = SavepointSender(connection, options.batch_size, copies=plan.copies)
    screen = Screen(filled, refuse, required(plan), encodes=sender.copies)
    # What the target demands of rows it does not demand of staged ones. A check does.
    probes = Probes(connection, plan, options.rejects.checks, sender, into_target=number is None)
    return CarefulWriter(table, filled, sender, screen, Judges(probes, Inputs(connection)), refuse)


def _end(batch: Batch, row: int, reason: Reason) -> None:
    raise BadRow(
        reason.message, code=reason.code, column=reason.column, value=reason.value, location=batch.location(row)
    )
