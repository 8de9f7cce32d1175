"""Random Arrow types, three deep, into composites, domains, arrays and documents: unchanged, or refused with a place.

The server is the oracle: what json_populate_record makes of the same values, where each of them fits exactly; what it
refuses, or would round, must be refused. HARBORCTL_TEST_ORACLE_EXAMPLES=500 asks for more examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pyarrow as pa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from harborctl.errors import BadRow
from harborctl.load.run.loader import LoadFailed
from harborctl.model import WriterName
from tests.load.sizes import ORACLE_EXAMPLES
from tests.load.test_round_trip import Target
from tests.load.test_round_trip import target as made_target  # noqa: F401  # a fixture

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Value:
    """A value for Arrow, the JSON of it, and whether the column's type has exactly this value."""

    arrow: Any
    document: str
    fits: bool = True


NULL = Value(None, "null")


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of Arrow, the PostgreSQL type that it goes into, what makes that, and values."""

    arrow: pa.DataType
    name: str
    values: st.SearchStrategy[Value] = field(repr=False)
    needs: tuple[str, ...] = ()


def _decimals(digits: int) -> st.SearchStrategy[Value]:
    """Numbers of four digits behind the point, most of which end in zeros."""
    whole = st.integers(-999, 999).map(lambda n: n * 10 ** (4 - digits))
    return st.one_of(whole, whole, whole, st.integers(-9999, 9999)).map(
        lambda n: Value(Decimal(n).scaleb(-4), f"{Decimal(n).scaleb(-4):.{digits}f}", n % 10 ** (4 - digits) == 0)
    )


def _moments(step: int) -> st.SearchStrategy[Value]:
    """Microseconds since 1970, most of them in whole steps."""
    whole = st.integers(-(10**9), 10**9).map(lambda n: n * step)
    return st.one_of(whole, whole, whole, st.integers(-(10**15), 10**15)).map(
        lambda n: Value(
            n, json.dumps((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n)).isoformat()), n % step == 0
        )
    )


_INTEGERS = st.integers(-(2**31), 2**31 - 1).map(lambda n: Value(n, str(n)))
_FLOATS = st.one_of(
    st.integers(-100, 100).map(lambda n: Value(n / 4, str(n / 4))), st.just(Value(1 / 3, "0", fits=False))
)
_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6).map(
    lambda t: Value(t, json.dumps(t))
)
_MOODS = st.sampled_from(["sad", "ok", "?"]).map(lambda t: Value(t, json.dumps(t)))
_UUIDS = st.uuids().map(lambda u: Value(u.bytes, json.dumps(str(u))))
_BYTES = st.binary(max_size=4).map(lambda b: Value(b, json.dumps("\\x" + b.hex())))
_BOOLEANS = st.booleans().map(lambda b: Value(b, json.dumps(b)))

LEAVES = [
    Shape(pa.int32(), "integer", _INTEGERS),
    Shape(pa.int32(), "bigint", _INTEGERS),
    Shape(pa.int64(), "smallint", st.integers(-40_000, 40_000).map(lambda n: Value(n, str(n)))),
    Shape(pa.int16(), "cents", st.integers(-11_000, 11_000).map(lambda n: Value(n, str(n)))),
    Shape(pa.decimal128(12, 4), "numeric(10,2)", _decimals(2)),
    Shape(pa.decimal64(12, 4), "cents", _decimals(2)),
    Shape(pa.decimal128(12, 4), "numeric", _decimals(4)),
    Shape(pa.decimal256(60, 4), "integer", _decimals(0)),
    Shape(pa.float64(), "double precision", st.integers(-100, 100).map(lambda n: Value(n / 3, repr(n / 3)))),
    Shape(pa.float64(), "real", _FLOATS),
    Shape(pa.float32(), "numeric(6,2)", st.integers(-100, 100).map(lambda n: Value(n / 8, str(n / 8), n % 2 == 0))),
    Shape(pa.timestamp("us", "UTC"), "timestamptz(0)", _moments(10**6)),
    Shape(pa.timestamp("us", "UTC"), "timestamptz", _moments(1)),
    Shape(pa.date32(), "date", st.dates().map(lambda d: Value(d, json.dumps(d.isoformat())))),
    Shape(pa.string(), "text", _TEXTS),
    Shape(pa.large_string(), "varchar(4)", _TEXTS),
    Shape(pa.dictionary(pa.int8(), pa.string()), "mood", _MOODS),
    Shape(pa.binary(16), "uuid", _UUIDS),
    Shape(pa.binary(), "uuid", _UUIDS),
    Shape(pa.binary(), "bytea", _BYTES),
    Shape(pa.bool_(), "boolean", _BOOLEANS),
    Shape(pa.null(), "interval", st.just(NULL)),
]  # fmt: skip
# What stands in a document has no type that it would have to fit.
DOCUMENTS = [
    Shape(pa.int64(), "", _INTEGERS),
    Shape(pa.decimal128(12, 4), "", _decimals(4)),
    Shape(pa.string(), "", _TEXTS),
    Shape(pa.binary(), "", _BYTES),
    Shape(pa.bool_(), "", _BOOLEANS),
]


def _listed(items: list[Value]) -> Value:
    document = f"[{','.join(item.document for item in items)}]"
    return Value([item.arrow for item in items], document, all(item.fits for item in items))


def _or_null(values: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    return st.one_of(values, values, values, st.just(NULL))


LISTS = st.sampled_from([pa.list_, pa.list_, pa.large_list])


def _record(values: dict[str, Value]) -> Value:
    document = ",".join(f"{json.dumps(name)}:{value.document}" for name, value in values.items())
    fits = all(value.fits for value in values.values())
    return Value({name: value.arrow for name, value in values.items()}, f"{{{document}}}", fits)


def _fields(shapes: dict[str, Shape]) -> st.SearchStrategy[Value]:
    fields = st.fixed_dictionaries({name: _or_null(shape.values) for name, shape in shapes.items()})
    return fields.map(lambda values: _record({name: values[name] for name in shapes}))


NAMES = ["a", "b c", 'q"uote', "Ä", "select"]


@st.composite
def documents(draw: st.DrawFn, depth: int) -> Shape:
    """Shapes of what becomes JSON."""
    kind = draw(st.sampled_from(["leaf", "list", "struct", "map"])) if depth else "leaf"
    if kind == "leaf":
        return draw(st.sampled_from(DOCUMENTS))
    inner = draw(documents(depth - 1))
    if kind == "list":
        return Shape(draw(LISTS)(inner.arrow), "", st.lists(_or_null(inner.values), max_size=3).map(_listed))
    if kind == "map":
        keys = st.dictionaries(st.sampled_from(NAMES), _or_null(inner.values), max_size=2).map(_record)
        pairs = keys.map(lambda value: Value(list(value.arrow.items()), value.document))
        return Shape(pa.map_(pa.string(), inner.arrow), "", pairs)
    shapes = {
        name: draw(documents(depth - 1)) for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
    }
    shapes["x"] = inner
    return Shape(pa.struct([(name, shape.arrow) for name, shape in shapes.items()]), "", _fields(shapes))


@st.composite
def typed(draw: st.DrawFn, depth: int) -> Shape:
    """Shapes that lie `depth` deep in each other at most."""
    kind = draw(st.sampled_from(["leaf", "list", "list", "struct", "struct", "document"])) if depth else "leaf"
    if kind == "leaf":
        return draw(st.sampled_from(LEAVES))
    if kind == "document":
        inner = draw(documents(depth).filter(lambda shape: pa.types.is_nested(shape.arrow)))
        return Shape(inner.arrow, "jsonb", inner.values)
    own = f"own_{next(_numbers)}"  # these types stay: the database goes with the module
    if kind == "list":
        # To json_populate_record a list in a list is a dimension more, even of documents, or of arrays by a domain.
        inner = draw(typed(depth - 1).filter(lambda s: not (_is_list(s.arrow) and not s.name.endswith("[]"))))
        return draw(_wrapped(_array(draw(LISTS), inner), own))
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))
    shapes = {name: draw(typed(depth - 1)) for name in names}
    columns = [(name, shapes[name].name) for name in names] + [("left_out", "integer")] * draw(st.integers(0, 1))
    body = ", ".join('"{}" {}'.format(name.replace('"', '""'), kind) for name, kind in draw(st.permutations(columns)))
    arrow = pa.struct([(name, shape.arrow) for name, shape in shapes.items()])
    needs = tuple(need for shape in shapes.values() for need in shape.needs)
    composite = Shape(arrow, own, _fields(shapes), (*needs, f"CREATE TYPE {own} AS ({body})"))
    return draw(_wrapped(composite, f"{own}_domain"))


def _array(kind: Callable[[pa.DataType], pa.DataType], inner: Shape) -> Shape:
    """A list; of a list it is a dimension more, where json_populate_record makes {} of {{}}."""
    values = st.lists(_or_null(inner.values), max_size=3).map(_listed)
    if _is_list(inner.arrow):
        values = values.map(lambda value: replace(value, fits=value.fits and [] not in value.arrow))
    return Shape(kind(inner.arrow), inner.name if inner.name.endswith("[]") else f"{inner.name}[]", values, inner.needs)


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow))


@st.composite
def _wrapped(draw: st.DrawFn, shape: Shape, name: str) -> Shape:
    if draw(st.booleans()):
        return shape
    return Shape(shape.arrow, name, shape.values, (*shape.needs, f"CREATE DOMAIN {name} AS {shape.name}"))


def _stored(target: Target, value: Value) -> str | None:
    """What the server makes of a value, if it fits; REFUSED if it does not."""
    if not value.fits:
        return REFUSED
    # The names are ours.
    query = f"SELECT (json_populate_record(NULL::{target.table}, %s::json)).c::text"
    try:
        row = target.connection.execute(query, (f'{{"c":{value.document}}}',)).fetchone()
    except psycopg.Error:
        return REFUSED
    return row[0] if row else None


REFUSED = "refused"


@settings(
    max_examples=ORACLE_EXAMPLES or 25,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(data=st.data())
def test_what_lies_inside_of_others_arrives_unchanged_or_is_refused(made_target: Target, data: st.DataObject) -> None:  # noqa: F811
    shape = data.draw(typed(3), "shape")
    values = data.draw(st.lists(_or_null(shape.values), min_size=1, max_size=4), "values")
    writer = data.draw(st.sampled_from([WriterName.COPY, WriterName.VALUES]), "writer")
    for need in shape.needs:
        made_target.connection.execute(need)
    made_target.create(shape.name)
    expected = [_stored(made_target, value) for value in values]
    array = pa.array([value.arrow for value in values], shape.arrow)
    refused = {number + 1 for number, text in enumerate(expected) if text == REFUSED}
    event("refused" if refused else "stored")
    ways: list[Callable[[], Any]] = [lambda: made_target.from_arrow(array, writer)]
    if made_target.write(array):
        ways.append(lambda: made_target.from_parquet(writer))
    for way in ways:
        try:
            stored = way()
        except (BadRow, LoadFailed) as failure:
            error = failure.error if isinstance(failure, LoadFailed) else failure
            assert isinstance(error, BadRow), error
            assert error.location, error
            assert error.location.line in refused, error
            assert made_target.stored() == []
        else:
            assert stored == expected
