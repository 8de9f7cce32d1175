"""What is told of rows before the server sees them: bad for certain, in doubt, or neither. No server is asked."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from harborctl.db.catalog import TargetColumn
from harborctl.load.plan.keys import MergePlan
from harborctl.load.plan.plan import Plan
from harborctl.load.rejects.validate import MOST_DOUBTS, Screen, required
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.encode import CopyFormat
from harborctl.sources.batch import Batch
from tests.load.write.test_encode import plan
from tests.tables import batch, column, key

Refused = list[tuple[int, Reason]]


def screened(
    plan: Plan, *arrays: pa.Array, required: frozenset[str] = frozenset(), encodes: bool = True
) -> tuple[list[tuple[list[object], bool, CopyFormat | None]], Refused]:
    """The slices (values of the first column, whether alone, how encoded), and the rows that are bad."""
    bad: Refused = []

    def refuse(batch: Batch, row: int, reason: Reason) -> None:
        bad.append((batch.row_of(row), reason))

    slices = Screen(plan, refuse, required, encodes=encodes).slices([batch(*arrays)])
    return [
        (each.batch.records.column(0).to_pylist(), each.alone, each.encoded.format if each.encoded else None)
        for each in slices
    ], bad


def test_good_rows_stay_together() -> None:
    slices, bad = screened(plan(column("int4")), pa.array(["1", None, "3"]))
    assert (slices, bad) == ([(["1", None, "3"], False, CopyFormat.BINARY)], [])


def test_rows_that_no_server_reads_are_bad_and_the_others_are_not() -> None:
    slices, bad = screened(plan(column("int4")), pa.array(["1", "one", "3", None]))
    assert slices == [(["1", "3", None], False, CopyFormat.BINARY)]
    message = 'invalid input syntax for type integer: "one"'
    assert bad == [(1, Reason("22P02", message, "c", "one"))]


def test_a_row_in_doubt_goes_alone() -> None:
    slices, bad = screened(plan(column("date")), pa.array(["2024-01-01", "today", "2024-01-03"]))
    assert bad == []
    assert [(values, alone) for values, alone, _ in slices] == [
        (["2024-01-01"], False),
        (["today"], True),
        (["2024-01-03"], False),
    ]


def test_many_rows_in_doubt_go_together_as_text() -> None:
    texts = ["today"] * (MOST_DOUBTS + 1)
    slices, _ = screened(plan(column("date")), pa.array(texts))
    assert slices == [(texts, False, CopyFormat.TEXT)]


def test_null_where_it_must_not_be_is_bad() -> None:
    slices, bad = screened(plan(column("text", "a")), pa.array(["a", None]), required=frozenset({"a"}))
    assert bad == [(1, Reason("23502", 'null value in column "a" violates not-null constraint', "a"))]
    assert [values for values, _, _ in slices] == [["a"]]


def test_a_nul_is_bad_in_text_and_left_to_the_server_in_bytes() -> None:
    texts = pa.array(["a", "b\0"])
    slices, bad = screened(plan(column("text")), texts, encodes=False)
    assert [(row, reason.code, reason.value) for row, reason in bad] == [(1, "22021", "b\0")]
    assert slices == [(["a"], False, None)]
    assert screened(plan(column("text")), texts) == ([(["a", "b\0"], False, CopyFormat.BINARY)], [])


def test_typed_values_that_would_change_are_bad() -> None:
    slices, bad = screened(plan(column("int2"), source=pa.int64()), pa.array([1, 40000, 3, -40000]))
    assert [(row, reason.code, reason.value) for row, reason in bad] == [(1, "22003", "40000"), (3, "22003", "-40000")]
    assert [values for values, _, _ in slices] == [[1, 3]]


def test_where_null_is_bad_for_certain() -> None:
    columns: list[TargetColumn] = [column("int4", "a", not_null=True), column("int4", "b")]
    plain = plan(*columns)
    assert required(plain) == {"a"}
    assert required(replace(plain, target=replace(plain.target, before_triggers=("fills",)))) == frozenset()
    by_key = replace(plain, merge=MergePlan(key("b"), ("a",), None, None))
    assert required(by_key) == {"a", "b"}
    assert required(replace(by_key, merge=MergePlan(key("b", nulls_distinct=False), ("a",), None, None))) == {"a"}
