"""Tables as `db.catalog` describes them, made without a database: what pure code is tested on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from harborctl.db.catalog import KeyPart, Target, TargetColumn, UniqueKey
from harborctl.db.storage import Storage
from harborctl.model import SourceFormat
from harborctl.sources.batch import Batch

# `numeric(p,s)` has ((p << 16) | s) + 4 for a modifier (numerictypmodin in numeric.c), times have their digits.
NUMERIC_10_2 = (10 << 16 | 2) + 4


def column(base: str, name: str = "c", *, modifier: int = -1, kind: str = "b", **more: Any) -> TargetColumn:
    """A column that may be NULL, has no default, and is of the type `base`."""
    made = TargetColumn(
        name=name,
        type=base,
        base=base,
        modifier=modifier,
        kind=kind,
        not_null=False,
        required=False,
        generated=False,
        always_identity=False,
        sequence=None,
        folding=None,
    )
    return replace(made, **more)


def key(*names: str, **more: Any) -> UniqueKey:
    """A unique index on these columns; one on `lower(a)` names an expression, and the columns that it reads."""
    parts = tuple(KeyPart(name, "(" not in name, name, "OPERATOR(pg_catalog.=)") for name in names)
    made = UniqueKey("key", parts, None, None, tuple(sorted(names)), True, None, False)
    return replace(made, **more)


def target(*columns: TargetColumn, keys: tuple[UniqueKey, ...] = (), **more: Any) -> Target:
    """The table `shop.orders` of these columns, without triggers, rules, policies or references."""
    made = Target(
        oid=1,
        schema="shop",
        name="orders",
        kind="r",
        storage=Storage.OWN,
        columns=columns,
        keys=keys,
        references=(),
        rules=(),
        has_children=False,
        before_triggers=(),
        keeps_rows=False,
        filtered=False,
        refers_to_itself=False,
        readable=True,
    )
    return replace(made, **more)


class Header:
    """What a plan has to know of a source: `named` columns of these types."""

    name = "orders.csv"

    def __init__(self, *names: str, kind: SourceFormat = SourceFormat.CSV, named: bool = True) -> None:
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])
        self.format = kind
        self.named = named


def batch(*columns: pa.Array, first_line: int = 2) -> Batch:
    """Rows of `orders.csv`, one a line."""
    records = pa.RecordBatch.from_arrays(list(columns), names=[str(number) for number in range(len(columns))])
    return Batch(records, "orders.csv", lambda row: row + first_line, row_of=lambda row: row)
