"""From a file's text to a report, and from `-p` words to the values of its parameters."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from harborctl.errors import StatementFailed, UsageError
from harborctl.reports.parse import parse_report
from harborctl.reports.report import Parameter, Report, bind
from harborctl.reports.values import ParameterType

NOW = datetime(2026, 3, 31, 15, 30, tzinfo=UTC)


def parse(text: str) -> Report:
    return parse_report("stock", "reports/stock.sql", text)


def parameter(line: str) -> Parameter:
    [only] = parse(f"-- param: {line}\nSELECT 1").parameters
    return only


def test_a_header() -> None:
    report = parse(
        "\ufeff-- Written by hand.\r\n"
        "-- Title: Variants running low\r\n"
        "-- description: Variants whose free stock\r\n"
        "--   is under a threshold.\r\n"
        "--   Worst first.\r\n"
        "-- param: threshold integer = 5   Stock level\r\n"
        "--     below which a variant is listed\r\n"
        "-- Not a field.\r\n"
        "--   Nor this.\r\n"
        "/* nor -- title: this */\r\n"
        "-- param: since date\r\n"
        "SELECT 1 -- title: too late\r\n"
        ";\r\n"
    )
    assert (report.name, report.title) == ("stock", "Variants running low")
    assert report.description == "Variants whose free stock is under a threshold. Worst first."
    assert report.parameters == (
        Parameter("threshold", ParameterType("integer"), False, "5", "Stock level below which a variant is listed"),
        Parameter("since", ParameterType("date"), True, None, ""),
    )
    assert report.usage == "harborctl report stock [-p threshold=INTEGER] -p since=DATE"


def test_types_of_several_words_are_read_to_their_end() -> None:
    """`timestamp with time zone` was a timestamp without one."""
    names = ("timestamp with time zone", "timestamp without time zone[]", "double precision", "character varying")
    types = [str(parameter(f"n {name}").type) for name in names]
    assert types == ["timestamptz", "timestamp[]", "double precision", "text"]


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "must_be"),
    [
        ("integer = 14 [1..366]", ["1", "366", "null"], ["0", "367", "-1"], "between 1 and 366"),
        ("numeric [-0.5..]", ["-0.5", "1e9", "inf"], ["-0.51", "NaN"], "at least -0.5"),
        ("double precision [..2]", ["2", "-Infinity"], ["2.1", "NaN"], "at most 2"),
        ("bigint[] [1..]", ["1,2", "{1,NULL}"], ["1,0"], "at least 1"),
    ],
)
def test_bounds(bounds: str, good: list[str], bad: list[str], must_be: str) -> None:
    report = parse(f"-- param: n {bounds}\nSELECT :n")
    for text in good:
        bind(report, [f"n={text}"], NOW)
    for text in bad:
        with pytest.raises(UsageError) as caught:
            bind(report, [f"n={text}"], NOW)
        assert caught.value.message == f"parameter n must be {must_be}, and {text!r} is not"


def test_a_header_may_be_missing() -> None:
    report = parse("SELECT 1")
    assert (report.title, report.description, report.parameters) == ("stock", "", ())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("n integer", (True, None, "")),
        ("n integer  How many", (True, None, "How many")),
        ("n INT=5", (False, "5", "")),
        ("n integer = 5   How many", (False, "5", "How many")),
        ("n integer = 5\tHow many", (False, "5", "How many")),
        ("n integer = 5 How  many", (False, "5", "How  many")),
        ("n integer = '5' How many", (False, "5", "How many")),
        ("n integer = null   How many", (False, None, "How many")),
        ("n text = 'in stock' Which", (False, "in stock", "Which")),
        ("n text = in stock   Which", (False, "in stock", "Which")),
        ("n text = 'it''s'", (False, "it's", "")),
        ("n text = ''", (False, "", "")),
        ("n date = -30d   From", (False, "-30d", "From")),
        ("n interval = 1 day   Age", (False, "1 day", "Age")),
        ("n integer[] = 1,2   Ids", (False, "1,2", "Ids")),
        ("n integer[] = ''   Ids", (False, "", "Ids")),
        ("n text = 'null'  Word", (False, "null", "Word")),
        ("n timestamp with time zone = now  When", (False, "now", "When")),
        ("n Double  Precision=1.5", (False, "1.5", "")),
        ("n character varying []", (True, None, "")),
        ("n integer = 5 [0..10] How many", (False, "5", "How many")),
        ("n integer = 5   How many [0..3]", (False, "5", "How many [0..3]")),
        ("n integer [0..]", (True, None, "")),
        ("n text  [optional] which", (True, None, "[optional] which")),
    ],
)
def test_declarations(line: str, expected: tuple[bool, str | None, str]) -> None:
    declared = parameter(line)
    assert (declared.required, declared.default, declared.help) == expected


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "there is no statement"),
        ("-- title: T\n\n;", 3, "there is no statement"),
        ("SELECT 1;\n\nSELECT 2", 3, "a second statement begins here"),
        ("SELECT 1;\nDROP TABLE t;", 2, "a second statement begins here"),
        ("-- x\nEXPLAIN SELECT 1", 2, "a report is one SELECT or WITH … SELECT, and this one begins with EXPLAIN"),
        ("title: T\nSELECT 1", 1, "a report is one SELECT or WITH … SELECT, and this one begins with title"),
        ("SELECT 1,\n'a\n", 2, "a string begins here and does not end"),
        ("SELECT 1\n/* a", 2, "a comment begins here and does not end"),
        ("SELECT '\n\0'", 2, "a NUL character has no place in SQL"),
        ("SELECT 1,\n  :n", 2, ":n is not declared"),
        ("SELECT (1)\n) AS x, (SELECT 2", 2, "a parenthesis closes here that was not opened"),
        ("SELECT ')', \")\"\n) TO PROGRAM 'x' --", 2, "a parenthesis closes here that was not opened"),
        ("-- param: n integer\n-- param: n text\nSELECT :n", 2, "parameter n is declared twice"),
        ("-- title: a\n-- title: b\nSELECT 1", 2, "there is a second title"),
        ("-- param: n\nSELECT 1", 1, "'n' does not declare a parameter"),
        ("-- param: 1st integer\nSELECT 1", 1, "'1st integer' does not declare a parameter"),
        ("-- param: n uuid\nSELECT 1", 1, "parameter n has the unknown type uuid"),
        (
            "-- param: n varchar(10) = a\nSELECT 1",
            1,
            "parameter n has the type varchar(10), and lengths and digits are not looked at",
        ),
        (
            "-- param: n timestamp(3) with time zone\nSELECT 1",
            1,
            "parameter n has the type timestamp(3) with time zone, and lengths and digits are not looked at",
        ),
        (
            "-- param: n interval day to second  How long\nSELECT 1",
            1,
            "parameter n has the unknown type interval day to second",
        ),
        ("-- param: n text = a [1..2]\nSELECT 1", 1, "parameter n has bounds and is no number"),
        ("-- param: n integer [2..1]\nSELECT 1", 1, "parameter n has a lower bound that is above the upper one"),
        (
            "-- param: n integer = 3 [5..]\nSELECT 1",
            1,
            "the default of parameter n must be at least 5, and '3' is not",
        ),
        ("-- param: n integer =\nSELECT 1", 1, "the default of parameter n is missing"),
        (
            "-- param: n integer = x\nSELECT 1",
            1,
            "the default of parameter n must be a whole number, and 'x' is not",
        ),
    ],
)
def test_what_is_no_report(text: str, line: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert (caught.value.message, caught.value.code) == (message, "bad_report")
    assert caught.value.location is not None
    assert (caught.value.location.file, caught.value.location.line) == ("reports/stock.sql", line)


@pytest.mark.parametrize("keyword", ["INSERT", "update", "DELETE", "MERGE", "TRUNCATE", "DROP", "COPY", "CALL"])
def test_a_statement_that_writes_fails_as_the_server_would_let_it(keyword: str) -> None:
    with pytest.raises(StatementFailed) as caught:
        parse(f"-- title: T\n{keyword} INTO t VALUES (1)")
    assert caught.value.code == "25006"
    assert caught.value.message == f"a report may only read, and this one begins with {keyword.upper()}"


@pytest.mark.parametrize(
    "text", ["SELECT 1;", "SELECT 1 ; ; -- end\n", "with a as (select 1) table a", "(SELECT 1)", "values (1)"]
)
def test_what_is_a_report(text: str) -> None:
    assert ";" not in "".join(piece.text for piece in parse(text).statement)


REPORT = parse(
    "-- param: threshold integer = 5   Stock level\n"
    "-- param: since date\n"
    "-- param: ids integer[] = 1\n"
    "-- param: name text = null\n"
    "SELECT :threshold, :since, :ids, :name"
)


def test_defaults_fill_in() -> None:
    assert bind(REPORT, ["since=2026-11"], NOW) == {
        "since": datetime(2026, 11, 1).date(),
        "threshold": 5,
        "ids": [1],
        "name": None,
    }


def test_what_is_given_wins() -> None:
    given = ["since=today", "threshold=7", "ids=1,2", "ids=3", "name=a=b"]
    assert bind(REPORT, given, NOW) == {"since": NOW.date(), "threshold": 7, "ids": [1, 2, 3], "name": "a=b"}


@pytest.mark.parametrize(
    ("given", "code", "message", "hint"),
    [
        (["since"], "bad_parameter", "'since' is not a parameter", "Write it as -p name=value."),
        ([], "missing_parameter", "report stock needs parameter since", f"Usage: {REPORT.usage}"),
        (["sinse=x"], "unknown_parameter", "report stock has no parameter 'sinse'", "Did you mean since?"),
        (
            ["=x"],
            "unknown_parameter",
            "report stock has no parameter ''",
            "There is ids, name, since, threshold.",
        ),
        (
            ["threshold=many"],
            "bad_parameter",
            "parameter threshold must be a whole number, and 'many' is not",
            "threshold is of type integer: Stock level.",
        ),
        (["since=today", "since=today"], "bad_parameter", "parameter since is given twice", "It is one date."),
    ],
)
def test_words_that_do_not_fit(given: list[str], code: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        bind(REPORT, given, NOW)
    assert (caught.value.code, caught.value.message, caught.value.hint) == (code, message, hint)
