"""What a round of `test_chaos` is made of: a random load, what goes wrong meanwhile, and what the rows must be."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

# A row of a file; the id of a bad one is too large for the column.
Row = tuple[int, str]
Rows = list[Row]
BAD = 2**40

MODES = ("append", "append", "ignore", "upsert", "sync", "replace")
KINDS = ("csv", "csv", "csv.gz", "jsonl", "parquet", "arrow")
# With which a process is told something: to end, to stand still for a while, or nothing that it cares for.
SIGNALS = ("INT", "TERM", "HUP", "QUIT", "KILL", "USR1", "ALRM", "PIPE", "STOP", "WINCH", "CHLD")
EVENTS = ("nothing", "terminate", "restart", "crash", "replace", "truncate", "lock", "fill", *["signal"] * 4)


@dataclass(frozen=True, slots=True)
class Round:
    """A load, the way to its server, and what happens.

    Attributes:
        way: `direct`, or the mode of a pooler.
        cut: where a proxy cuts the connection: at the COMMIT of this number, if negative after so many bytes.
        early: it happens at any time, else when the load has begun.
        after: seconds from there to the event.
        limit: the largest file that the client may write, or None.
    """

    seed: int
    mode: str
    kind: str
    files: int
    rows: int
    bad: int
    options: tuple[str, ...]
    way: str
    pool: int
    cut: int | None
    event: str
    signal: str
    early: bool
    after: float
    slow: bool
    limit: int | None

    @property
    def calm(self) -> bool:
        """Whether nothing stops it."""
        harmless = self.event == "nothing" or (
            self.event == "signal" and self.signal in {"PIPE", "STOP", "WINCH", "CHLD"}
        )
        return harmless and self.cut is None and not (self.bad and self.limit is not None)

    @property
    def in_parts(self) -> bool:
        """Whether a part of it can be in, and the rest not."""
        return "--commit-every" in self.options or "--jobs" in self.options


def planned(seed: int) -> Round:
    """The round of this number, always the same."""
    random = Random(seed)  # noqa: S311  # no secret
    mode, kind = random.choice(MODES), random.choice(KINDS)
    rows, files = random.choice((50, 2000, 8000, 20000)), random.choice((1, 1, 2))
    rejecting = random.random() < 0.3
    options = ["--mode", mode, "--retries", str(random.randrange(3))]
    options += ["--max-delete", "100%"] if mode == "sync" else []
    options += random.choice(([], ["--writer", "copy"], ["--writer", "values"]))
    options += random.choice(([], [], ["--lock-timeout", "0.5"]))
    if mode in {"append", "ignore", "upsert"} and kind != "jsonl" and random.random() < 0.6:
        if mode == "append" and random.random() < 0.4:
            options += ["--jobs", "2"]
        if kind in {"csv", "parquet"} and random.random() < 0.7:
            options += ["--commit-every", str(max(rows // random.choice((3, 7)), 1))]
    if rejecting:
        options += ["--on-error", "reject", "--force"]
    event = random.choice(EVENTS)
    return Round(
        seed=seed,
        mode=mode,
        kind=kind,
        files=files,
        rows=rows,
        bad=random.choice((1, 40)) if rejecting else 0,
        options=tuple(options),
        way=random.choice(("direct", "transaction", "transaction", "session")),
        pool=random.randint(1, 4),
        cut=random.choice((None, None, random.randint(1, 6), -random.randrange(200_000))),
        event=event,
        signal=random.choice(SIGNALS),
        early=event not in {"signal", "terminate"} and random.random() < 0.3,
        after=random.uniform(0, 0.6),
        slow=random.random() < 0.5,
        limit=random.choice((None, None, 0, 5000)),
    )


def made_rows(random: Random, count: int, bad: int, first: int) -> Rows:
    """So many rows, whose ids begin at `first` and stand in any order."""
    ids = random.sample(range(first, first + count * 2), count)
    words = ("plain", 'with "quotes"', "of two\nlines", "ümläut", "", "x" * 60)
    rows = [(number, f"{random.choice(words)} {random.randrange(10**6)}") for number in ids]
    for number in range(bad):
        rows.insert(random.randrange(len(rows) + 1), (BAD + number + first, "bad"))
    return rows


@dataclass(slots=True)
class Feed:
    """The files of a load, and what has ever stood in them, by the digest that the ledger would have."""

    folder: Path
    kind: str
    versions: dict[str, Rows] = field(default_factory=dict)

    def path(self, number: int) -> Path:
        """Of the file of this number."""
        return self.folder / f"feed_{number}.{self.kind}"

    def put(self, number: int, rows: Rows, *, in_place: bool = False) -> str:
        """Let the file have these rows; the digest. In place: those who have it open see it, too."""
        plain = content(self.kind, rows)
        stored = gzip.compress(plain, 1) if self.kind.endswith(".gz") else plain
        if in_place:
            with self.path(number).open("r+b") as file:
                file.write(stored)
                file.truncate()
        else:
            new = self.folder / f".new_{number}"
            new.write_bytes(stored)
            new.replace(self.path(number))
        return self.know(plain, rows)

    def know(self, plain: bytes, rows: Rows) -> str:
        """Remember a version."""
        digest = hashlib.sha256(plain).hexdigest()
        self.versions[digest] = rows
        return digest


def content(kind: str, rows: Rows) -> bytes:
    """The bytes of an uncompressed file."""
    if kind.startswith("csv"):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(("id", "v"))
        writer.writerows(rows)
        return text.getvalue().encode()
    if kind == "jsonl":
        return "".join(json.dumps({"id": number, "v": text}) + "\n" for number, text in rows).encode()
    table = pa.table({"id": pa.array([row[0] for row in rows], pa.int64()), "v": [row[1] for row in rows]})
    out = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, out, row_group_size=max(len(rows) // 9, 1))
    else:
        pa.feather.write_feather(table, out)
    return out.getvalue()


def loaded(mode: str, before: Counter[Row], rows: Sequence[Row]) -> Counter[Row]:
    """The table after a load of these rows, the bad ones left out."""
    good = [row for row in rows if row[0] < BAD]
    if mode == "append":
        return before + Counter(good)
    # What was rejected may be one of the rows that the source seems to lack.
    if mode == "replace" or (mode == "sync" and len(good) == len(rows)):
        return Counter(good)
    old, new = dict(before.elements()), dict(good)
    return Counter((new | old if mode == "ignore" else old | new).items())


def rows_of(feed: Feed, digests: Sequence[str]) -> Rows:
    """The rows of these versions, one after the other."""
    return [row for digest in digests for row in feed.versions[digest]]
