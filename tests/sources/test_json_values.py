"""Our reader of deep JSON takes what msgspec takes, and both take it as it is written."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harborctl.sources.json_values import (
    NotJson,
    _deep,
    column_of,
    fields_of,
    items_of,
    lines_of,
    scalar_texts,
    string_of,
)

BLANKS = st.sampled_from(["", " ", "\t", "\r\n "])
SCALARS = st.sampled_from(["1", "-0", "1.10", "1e400", '"a"', '"\\u0041\\n"', '"\\ud800"', "null", "true", '"é"', '""'])


def listed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(items, max_size=3), BLANKS).map(lambda of: f"[{of[1]}{f'{of[1]},'.join(of[0])}]")


def objects(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"']), BLANKS, items).map(
        lambda of: f"{of[0]}{of[1]}:{of[2]}"
    )
    return st.lists(pairs, max_size=3).map(lambda found: "{" + ",".join(found) + "}")


DOCUMENTS = st.recursive(SCALARS, lambda inner: listed(inner) | objects(inner), max_leaves=8)


@st.composite
def broken(draw: st.DrawFn) -> str:
    text = draw(DOCUMENTS)
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(st.sampled_from(list('[]{}:,"01 e.\\x\x01'))) + text[place + draw(st.integers(0, 1)) :]


@given(DOCUMENTS | broken())
def test_both_readers_agree(document: str) -> None:
    text = document.encode()
    assert found(lambda: {name: bytes(value) for name, value in fields_of(text).items()}) == found(
        lambda: {string_of(name): value for name, value in _deep(text, "{")}
    )
    assert found(lambda: items_of(text)) == found(lambda: [value for _, value in _deep(text, "[")])


def found(read: object) -> object:
    try:
        return read()  # type: ignore[operator]
    except NotJson:
        return None


@given(
    st.lists(DOCUMENTS.filter(lambda text: text[0] == "{") | st.sampled_from(["", " ", "{} {}", "{}\r"]), max_size=4)
)
def test_lines_are_one_object_each(lines: list[str]) -> None:
    text = "\n".join(lines).encode()
    rows = lines_of(text)
    if rows is not None:
        lines = lines[:-1] if not lines[-1] else lines
        assert rows == [fields_of(line.encode()) for line in lines]


@given(st.lists(SCALARS.filter(lambda text: "ud800" not in text), max_size=5))
def test_scalars(values: list[str]) -> None:
    rows = [{} if n % 3 == 2 else fields_of(f'{{"a": {value}}}'.encode()) for n, value in enumerate(values)]
    texts = scalar_texts(column_of(rows, "a"))
    parsed = [None if n % 3 == 2 or value == "null" else value for n, value in enumerate(values)]
    assert texts.to_pylist() == [json.loads(value) if value and value[0] == '"' else value for value in parsed]
    assert texts.type == pa.string()


def test_deeper_than_any_stack() -> None:
    depth = 100_000
    deep = b"[" * depth + b"]" * depth
    assert bytes(fields_of(b'{"a": 1, "x": ' + deep + b"}")["x"]) == deep
    assert items_of(b"[1, " + deep + b" ]") == [b"1", deep]
    for bad in (
        b'{"a": ' + deep[1:] + b"}",
        b'{"a": ' + deep[:-1] + b"}",
        b'{"a":' * depth,
        b'{"a": "\\ud800", "b": ' + deep + b"}",
    ):
        with pytest.raises(NotJson):
            fields_of(bad)
