"""What is a parameter and what is not: by examples, by properties, and against the server's own scanner."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text

from harborctl.reports.lexer import NotSql, line_and_column, pieces, tokens
from harborctl.reports.parse import parse_report
from harborctl.reports.run import Bound, run_report

HEADER = "-- param: x integer = 1\n-- param: y text = 'b'\n"

DIALECT = create_engine("postgresql+psycopg://").dialect


def parameters(sql: str) -> list[str]:
    return [token.name for token in tokens(sql) if token.name is not None]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT :x", ["x"]),
        ("SELECT :x::int", ["x"]),
        ("SELECT:x+:y", ["x", "y"]),
        ("SELECT a::int", []),
        ("SELECT a :: int", []),
        ("SELECT ':x'", []),
        ("SELECT 'it''s :x'", []),
        (r"SELECT 'ends in \', :x", ["x"]),
        (r"SELECT E'it\'s :x'", []),
        ("SELECT e'a'\n  -- on it goes\n  '\\':x'", []),
        ("SELECT 'a'\n'\\', :x", ["x"]),
        ("SELECT U&'\\0041 :x', U&\":x\", B'0', X'1F', N':x'", []),
        ('SELECT ":x", "a"":x"', []),
        ("SELECT 1 -- :x\n + :y", ["y"]),
        ("SELECT 1 --", []),
        ("SELECT /* :x /* nested :x */ :x */ :y", ["y"]),
        ("SELECT $$ :x $$, $tag$ :x $$ :x $tag$", []),
        ("SELECT a$b$ + :x, c$b$", ["x"]),
        ("SELECT type':x'", []),
        ("SELECT f(a := :x)", ["x"]),
        ("SELECT a[1:2], a[:x: :y]", ["x", "y"]),
        ("SELECT j->':x', j #>> '{a,:x}', j @? '$.a ? (@ > 1)', j ? ':x'", []),
        ("SELECT json_object('a': 1)", []),
        ("SELECT 10:00", []),
        ("SELECT :größe", ["größe"]),
    ],
)
def test_parameters(sql: str, expected: list[str]) -> None:
    assert parameters(sql) == expected


@pytest.mark.parametrize(
    ("sql", "offset", "what"),
    [
        ("SELECT 'a", 7, "a string"),
        ("SELECT 'a''b", 7, "a string"),
        (r"SELECT E'a\'", 7, "a string"),
        ('SELECT "a', 7, "a quoted identifier"),
        ("SELECT $$a$b$", 7, "a dollar quote"),
        ("SELECT $a$ $A$", 7, "a dollar quote"),
        ("SELECT /* a /* b */", 7, "a comment"),
    ],
)
def test_what_opens_and_does_not_close(sql: str, offset: int, what: str) -> None:
    with pytest.raises(NotSql, match=f"^{what} begins here and does not end$") as caught:
        list(tokens(sql))
    assert caught.value.offset == offset


@given(st.text(alphabet=st.sampled_from("ab:x'\"$-/*\\;e \n1é[]%"), max_size=40))
def test_no_character_is_lost(sql: str) -> None:
    try:
        parts = list(tokens(sql))
    except NotSql:
        return
    assert "".join(token.text for token in parts) == sql
    assert all(sql.startswith(token.text, token.offset) for token in parts)
    assert "".join(piece.text for piece in pieces(parts)) == sql
    assert all(sql.startswith(piece.text, piece.offset) for piece in pieces(parts))


# Everything in which a colon, a backslash or a percent sign means something else to somebody.
CONTENT = st.text(alphabet=st.sampled_from(list(":xy\\%(s)'\"$ aé?\n*/-1{")), max_size=12)


def _quoted(content: str) -> str:
    return "'" + content.replace("'", "''") + "'"


def _escaped(content: str) -> str:
    return "E'" + content.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _dollars(content: str) -> str:
    return f"$q${content}$q$"


LITERAL = st.one_of(CONTENT.map(_quoted), CONTENT.map(_escaped), CONTENT.map(_dollars))
IDENTIFIER = CONTENT.filter(bool).map(lambda content: '"' + content.replace('"', '""') + '"')
LINE_COMMENT = CONTENT.map(lambda content: "--" + content.replace("\n", " ") + "\n")
BLOCK_COMMENT = CONTENT.map(lambda content: "/*" + content.replace("*/", "").replace("/*", "").rstrip("*/") + "*/")
PLAIN = st.sampled_from(
    ["a::int", "1", "a[1 : 2]", "(", "()", ",", "x", "f(a := 1)", "j->>'a'", "\\", "%", "%%", "%(x)s"]
)
NOTHING_TO_BIND = st.one_of(LITERAL, IDENTIFIER, LINE_COMMENT, BLOCK_COMMENT, PLAIN)
BOUND = st.sampled_from([":x", ":y"])


@given(st.lists(st.one_of(NOTHING_TO_BIND, BOUND), max_size=8), st.sampled_from([",", " , ", "\n,\n"]))
def test_only_what_was_put_in_as_a_parameter_is_one(parts: list[str], separator: str) -> None:
    """And SQLAlchemy's text() hands everything else to the driver as it is.

    The comma keeps strings apart, which a line break alone would join.
    """
    sql = separator.join(["SELECT", *parts])
    expected = [part[1:] for part in parts if part in (":x", ":y")]
    assert parameters(sql) == expected

    bound = Bound(parse_report("r", "r.sql", HEADER + sql), {"x": None, "y": None}, {})
    compiled = str(bound.statement().compile(dialect=DIALECT))
    # What psycopg makes of it: https://www.psycopg.org/psycopg3/docs/basic/params.html
    names = []

    def number(match: re.Match[str]) -> str:
        if match[1] is None:
            return "%"
        names.append(match[1])
        return ":" + match[1]

    sent = re.sub(r"%%|%\((\w+)\)s::\w+", number, compiled)
    assert names == expected
    assert sent.replace(" ", "") == (HEADER + sql).replace(" ", "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(literals=st.lists(LITERAL, min_size=1, max_size=4))
def test_the_server_reads_literals_as_they_stand(engine: Engine, literals: list[str]) -> None:
    sql = "SELECT " + ", ".join(f":y || {literal}::text" for literal in literals)
    with run_report(engine, parse_report("r", "r.sql", HEADER + sql), {"x": 1, "y": "b"}) as result:
        [[row]] = [list(batch) for batch in result.batches]
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        plain = "SELECT " + ", ".join(f"'b' || {literal}::text" for literal in literals)
        assert tuple(row) == driver.execute(plain).fetchone()


def test_a_parameter_works_next_to_anything(engine: Engine) -> None:
    sql = HEADER + "SELECT(:x)::text||:y::text||(ARRAY[1,2,3])[:x:2]::text,:x-:x,-:x,:x/*:x*/,:x--:x\n"
    with run_report(engine, parse_report("r", "r.sql", sql), {"x": 2, "y": "b"}) as result:
        assert [list(row) for batch in result.batches for row in batch] == [["2b{2}", "0", "-2", "2", "2"]]


def test_without_parameters_percent_signs_are_themselves(engine: Engine) -> None:
    with run_report(engine, parse_report("r", "r.sql", "SELECT 'a%b%%c', 7 % 4"), {}) as result:
        assert [list(row) for batch in result.batches for row in batch] == [["a%b%%c", "3"]]


def test_text_of_sqlalchemy_would_have_misread_this() -> None:
    """The reason for our own lexer; when this fails, it may have become simpler."""
    assert "%(x)s" in str(text("SELECT ':x'").compile(dialect=DIALECT))


def test_lines_and_columns_count_from_one() -> None:
    assert [line_and_column("ab\nc", offset) for offset in range(4)] == [(1, 1), (1, 2), (1, 3), (2, 1)]
