"""Files that people have: what each column becomes, and that COPY gives back every field as it stood in the file.

Each is a column or a few, as an export, a spreadsheet or a feed writes them. Types that are wrong once a month are the
ones that a rule of thumb finds.
"""
# ruff: noqa: E501  # a file is a line

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.inprocess import Invoke, invoke
from tests.load.conftest import Load, database, load

__all__ = ["database", "invoke", "load"]

# Equal values come back in PostgreSQL's own spelling, as harborctl.inference.kinds.SPELLINGS lists them.
SPELLED = {
    "boolean",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
    "interval",
    "uuid",
}
TIMESTAMP, TIMESTAMPTZ, TIME = "timestamp without time zone", "timestamp with time zone", "time without time zone"

# Name → values of one column, and its type.
COLUMNS: dict[str, tuple[list[str], str]] = {
    "leading zeros": (["01067", "99999"], "text"),
    "leading zeros further down": (["1", "20", "007"], "text"),
    "a single zero": (["0", "1"], "smallint"),
    "double zero": (["00", "01"], "text"),
    "negative zero": (["-0", "1"], "double precision"),
    "plus signs": (["+1", "+2"], "text"),
    "phone numbers": (["+49 30 1234", "030/1234"], "text"),
    "long phone numbers": (["4930123456", "4930123457"], "bigint"),
    "bounds of smallint": (["-32768", "32767"], "smallint"),
    "beyond smallint": (["32768"], "integer"),
    "bounds of integer": (["-2147483648", "2147483647"], "integer"),
    "beyond integer": (["2147483648"], "bigint"),
    "bounds of bigint": (["-9223372036854775808", "9223372036854775807"], "bigint"),
    "beyond bigint": (["9223372036854775808"], "numeric(19,0)"),
    "twenty digits": (["12345678901234567890"], "numeric(20,0)"),
    "credit cards": (["4111111111111111"], "bigint"),
    "IBAN": (["DE89370400440532013000"], "text"),
    "exponents among ids": (["100", "1e5"], "text"),
    "ids like exponents": (["1E5", "2E10"], "text"),
    "hexadecimals": (["0x1F", "0x20"], "text"),
    "binary": (["0b101"], "text"),
    "underscores": (["1_000"], "text"),
    "thousands, English": (["1,000", "2,500"], "text"),
    "thousands, Swiss": (["1'000", "2'500"], "text"),
    "thousands, spaces": (["1 000", "12 500"], "text"),
    "currency": (["€1.50", "€2.00"], "text"),
    "currency behind": (["1.50 EUR"], "text"),
    "percent": (["5%", "10%"], "text"),
    "in parentheses": (["(5.00)", "3.00"], "text"),
    "prices": (["1.50", "20.25"], "numeric(4,2)"),
    "prices of several scales": (["1.5", "20.25"], "numeric"),
    "prices and whole numbers": (["1", "2.50"], "numeric"),
    "zeros at the end": (["1.0", "2.0"], "numeric(2,1)"),
    "no digit before the point": ([".5", ".25"], "text"),
    "no digit behind it": (["5.", "6."], "text"),
    "leading zero and a point": (["01.5"], "text"),
    "comma decimals": (["1,50", "2,75"], "text"),
    "many digits": (["3.141592653589793238462643383279"], "numeric(31,30)"),
    "doubles": (["1e-07", "2.5e-08"], "double precision"),
    "doubles that lose digits": (["1e-07", "0.30000000000000004441"], "text"),
    "large doubles": (["1e+300", "2.5e+300"], "double precision"),
    "too large a double": (["1e+400"], "text"),
    "not a number": (["NaN", "1e-07"], "double precision"),
    "NaN among prices": (["1.5", "NaN"], "double precision"),
    "infinities": (["inf", "1.5"], "text"),
    "NA": (["NA", "1"], "text"),
    "n/a at the end": (["1", "n/a"], "text"),
    "NULL as a word": (["NULL", "5"], "text"),
    "None of Python": (["None", "5"], "text"),
    "a dash for nothing": (["-", "5"], "text"),
    "booleans": (["true", "false"], "boolean"),
    "booleans, upper case": (["TRUE", "FALSE"], "boolean"),
    "booleans of psql": (["t", "f", "t"], "boolean"),
    "one letter": (["t", "t"], "text"),
    "yes and no": (["yes", "no"], "text"),
    "Y and N": (["Y", "N"], "text"),
    "ones and zeros": (["1", "0"], "smallint"),
    "a boolean and a number": (["true", "1"], "text"),
    "ISO dates": (["2024-02-29", "1999-12-31"], "date"),
    "a day that is none": (["2023-02-29"], "text"),
    "day zero": (["0000-00-00", "2020-01-01"], "text"),
    "year zero": (["0000-01-01"], "text"),
    "dates, day first": (["31.12.2024", "01.02.2024"], "text"),
    "dates, month first": (["12/31/2024", "01/02/2024"], "text"),
    "dates, order unclear": (["03/04/2024"], "text"),
    "dates, two digits": (["24-02-29"], "text"),
    "dates without signs": (["20240229", "20231231"], "integer"),
    "years": (["1999", "2024"], "smallint"),
    "months": (["2024-01", "2024-02"], "text"),
    "weeks": (["2024-W05"], "text"),
    "quarters": (["2024Q1"], "text"),
    "short dates": (["2024-1-5"], "text"),
    "names of months": (["5 Jan 2024"], "text"),
    "dates and times": (["2024-01-05 10:00:00", "2024-01-05 23:59:59"], TIMESTAMP),
    "with T": (["2024-01-05T10:00:00"], TIMESTAMP),
    "microseconds": (["2024-01-05 10:00:00.123456"], TIMESTAMP),
    "nanoseconds": (["2024-01-05 10:00:00.123456789"], "text"),
    "with zones": (["2024-01-05T10:00:00Z", "2024-01-05 10:00:00+02:00"], TIMESTAMPTZ),
    "some with zones": (["2024-01-05T10:00:00Z", "2024-01-05 10:00:00"], "text"),
    "dates among times": (["2024-01-05", "2024-01-05 10:00:00"], "text"),
    "leap second": (["2016-12-31 23:59:60"], "text"),
    "midnight as 24": (["2024-01-05 24:00:00"], "text"),
    "named zones": (["2024-01-05 10:00:00 CET"], "text"),
    "epochs": (["1704448800", "1704448801"], "integer"),
    "epochs in milliseconds": (["1704448800000"], "bigint"),
    "serial numbers of Excel": (["45296", "45297"], "integer"),
    "times": (["10:00", "23:59:59"], TIME),
    "times of twelve hours": (["10:00 AM"], "text"),
    "more than a day": (["25:00:00"], "text"),
    "durations": (["P1DT2H", "PT5M"], "interval"),
    "UUIDs": (["6f9619ff-8b86-d011-b42d-00c04fc964ff"], "uuid"),
    "UUIDs, upper case": (["6F9619FF-8B86-D011-B42D-00C04FC964FF"], "uuid"),
    "UUIDs in braces": (["{6f9619ff-8b86-d011-b42d-00c04fc964ff}"], "text"),
    "UUIDs without signs": (["6f9619ff8b86d011b42d00c04fc964ff"], "text"),
    "addresses": (["10.0.0.1", "192.168.1.0/24"], "inet"),
    "addresses with zeros": (["010.000.000.001"], "text"),
    "IPv6": (["2001:db8::1"], "inet"),
    "IPv6, upper case": (["2001:DB8::1"], "text"),
    "versions": (["1.2.3", "10.0.1"], "text"),
    "versions of two parts": (["1.10", "1.9"], "numeric"),
    "JSON": (['{"a": 1.0, "b": [1, 2]}', "[]"], "json"),
    "JSON and a word": (['{"a": 1}', "none"], "text"),
    "half of JSON": (['{"a": 1'], "text"),
    "Python's dictionaries": (["{'a': 1}"], "text"),
    "points": (["POINT(13.4 52.5)"], "text"),
    "coordinates": (["52.520008", "13.404954"], "numeric(8,6)"),
    "a pair of coordinates": (["52.52,13.40"], "text"),
    "spaces around": ([" 5", "6 "], "text"),
    "spaces alone": (["   ", "5"], "text"),
    "a no-break space": (["1\u00a0000", "5"], "text"),
    "Arabic digits": (["١٢٣"], "text"),
    "full width digits": (["\uff11\uff12"], "text"),
    "a real minus": (["−5", "−6"], "text"),  # noqa: RUF001
    "emoji": (["😀", "👩‍👩‍👧"], "text"),
    "a formula": (["=1+1", "=SUM(A1:A2)"], "text"),
    "text of Excel": (['="01067"'], "text"),
    "quotes in it": (['say "hi"', "5"], "text"),
    "line ends in it": (["a\nb", "c\r\nd"], "text"),
    "backslashes": (["\\N", "C:\\temp"], "text"),
    "MD5": (["d41d8cd98f00b204e9800998ecf8427e"], "text"),
    "EAN with zeros": (["0012345678905"], "text"),
    "ISBN": (["3161484100", "080442957X"], "text"),
    "ranges": (["1-5", "6-10"], "text"),
    "grades": (["1+", "2-"], "text"),
    "chemistry": (["1E", "2D"], "text"),
}


def text_of(values: list[list[str]]) -> str:
    """CSV in which every field has quotes: so none is NULL."""
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(values)
    return out.getvalue()


def types_of(connection: psycopg.Connection[Any], table: str) -> list[str]:
    """Of the columns, as the server writes them."""
    rows = connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        [table],
    ).fetchall()
    return [name for (name,) in rows]


def stored(connection: psycopg.Connection[Any], table: str) -> list[list[str]]:
    """What COPY writes of the table; NULL and the empty text are both ''."""
    with connection.cursor().copy(f'COPY "{table}" TO STDOUT (FORMAT csv)') as copy:
        text = b"".join(bytes(block) for block in copy).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def check_back(
    connection: psycopg.Connection[Any], table: str, rows: list[list[str]], types: list[str], name: str = ""
) -> None:
    """Every field has come back: as it stood there, or where a type has spellings of its own an equal value."""
    found = stored(connection, table)
    assert len(found) == len(rows), name
    for place, kind in enumerate(types):
        given, back = [row[place] for row in rows], [row[place] for row in found]
        if kind in SPELLED:
            query = f"SELECT bool_and(nullif(a, '')::{kind} IS NOT DISTINCT FROM nullif(b, '')::{kind})"
            asked = connection.execute(f"{query} FROM unnest(%s::text[], %s::text[]) AS u (a, b)", [given, back])
            assert asked.fetchone() == (True,), (name, given, back)
        else:
            assert back == given, (name, kind)


def test_columns_that_people_have(load: Load, database: psycopg.Connection[Any], tmp_path: Path) -> None:
    assert len(COLUMNS) >= 80
    longest = max(len(values) for values, _ in COLUMNS.values())
    # All in one file: short columns begin again. Nothing of this changes what they are.
    padded = [[values[row % len(values)] for row in range(longest)] for values, _ in COLUMNS.values()]
    rows = [list(row) for row in zip(*padded, strict=True)]
    path = tmp_path / "corpus.csv"
    path.write_text(text_of([list(COLUMNS), *rows]), newline="")
    for table, options in (("whole", ()), ("sampled", ("--sample-rows", "1"))):
        load(path, "-t", table, "--create", *options)
        types = types_of(database, table)
        wrong = {
            name: (found, wanted)
            for (name, (_, wanted)), found in zip(COLUMNS.items(), types, strict=True)
            if found != wanted
        }
        assert wrong == {}
        check_back(database, table, rows, types)


PEOPLE = "id,zip,born\n1,01067,2020-01-02\n2,99999,\n"
KINDS = ["smallint", "text", "date"]
# Name → bytes, options, and types of the columns.
FILES: dict[str, tuple[bytes, str, list[str]]] = {
    "plain": (PEOPLE.encode(), "", KINDS),
    "CRLF": (PEOPLE.replace("\n", "\r\n").encode(), "", KINDS),
    "CR": (PEOPLE.replace("\n", "\r").encode(), "", KINDS),
    "no line end at the end": (PEOPLE.encode()[:-1], "", KINDS),
    "a mark": (b"\xef\xbb\xbf" + PEOPLE.encode(), "", KINDS),
    "UTF-16": (PEOPLE.encode("utf-16"), "--encoding utf-16", KINDS),
    "UTF-16, detected": (PEOPLE.encode("utf-16"), "--detect", KINDS),
    "Excel in German": ("Name;Größe\nJürgen;1,85\nUwe;1,90\n".encode("cp1252"), "--detect", ["text", "numeric(3,2)"]),
    "Excel in English": (b"Name,Size\r\nJohn,1.85\r\nJim,1.90\r\n", "--detect", ["text", "numeric(3,2)"]),
    "sep= of Excel": (b"sep=;\r\nid;v\r\n1;2\r\n", "--detect", ["smallint", "smallint"]),
    "preamble": (b"Report\nof today\n\nid,v\n1,2\n", "--detect", ["smallint", "smallint"]),
    "totals": (b"id,v\n1,2.50\nTotal,2.50\n", "--skip-footer 1", ["smallint", "numeric(3,2)"]),
    "totals left in": (b"id,v\n1,2.50\nTotal,2.50\n", "", ["text", "numeric(3,2)"]),
    "blank lines": (b"id,v\n1,2\n\n3,4\n", "--skip-blank-lines", ["smallint", "smallint"]),
    "trailing delimiters": (b"id,v,\n1,2,\n3,4,\n", "", ["smallint", "smallint"]),
    "NA is NULL": (b"id,v\n1,NA\n2,5\n", "--null NA", ["smallint", "smallint"]),
    "only NULLs": (b"id,v\n1,\n2,\n", "", ["smallint", "text"]),
    "a header alone": (b"id,v\n", "", ["text", "text"]),
    "one column": (b"v\n1\n2\n", "", ["smallint"]),
    "tabs": (b"id\tv\n1\t2\n", "--delimiter tab", ["smallint", "smallint"]),
    "bars": (b"id|v\n1|2\n", "--detect", ["smallint", "smallint"]),
    "without a header": (b"1,x\n2,y\n", "--no-header", ["smallint", "text"]),
    "single quotes": (b"id,v\n'1','a, b'\n", "--quote '", ["smallint", "text"]),
    "short rows": (b"id,v\n1,2\n3\n", "--short-rows null", ["smallint", "smallint"]),
    "white space": (b"id,v\n 1 , 2 \n", "--trim", ["smallint", "smallint"]),
    "wide": (",".join(f"c{n}" for n in range(800)).encode() + b"\n" + b",".join([b"1"] * 800) + b"\n", "", ["smallint"] * 800),
    "tall, odd at its end": (b"v\n" + b"1\n" * 50_000 + b"007\n", "", ["text"]),
    "tall, sampled": (b"v\n" + b"1\n" * 50_000 + b"007\n", "--sample-rows 100", ["text"]),
    "reserved words": (b"select,from,user\n1,2,3\n", "", ["smallint"] * 3),
}  # fmt: skip


def test_files_that_people_have(load: Load, invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path) -> None:
    for number, (name, (content, options, wanted)) in enumerate(FILES.items()):
        path = tmp_path / "f.csv"
        path.write_bytes(content)
        result = invoke("load", path, "-t", f"f{number}", "--create", "--json", *options.split())
        assert result.code == 0, (name, result)
        assert types_of(database, f"f{number}") == wanted, name
        assert json.loads(result.stdout)["rejected"] == 0


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
VALUES = st.one_of(
    TEXTS,
    st.sampled_from([value for values, _ in COLUMNS.values() for value in values]),
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False).map(str),
)


@settings(
    deadline=None,
    max_examples=int(os.environ.get("HARBORCTL_TEST_CREATE_EXAMPLES", "15")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_table_of_text_comes_back(
    load: Load, database: psycopg.Connection[Any], tmp_path: Path, data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(VALUES, min_size=width, max_size=width), min_size=1, max_size=12))
    path = tmp_path / "any.csv"
    path.write_text(text_of([[f"c{place}" for place in range(width)], *rows]), newline="", encoding="utf-8")
    for writer in ("values", "copy"):
        for sampled in ((), ("--sample-rows", "1")):
            load(path, "-t", "any_table", "--create", "--writer", writer, *sampled)
            check_back(database, "any_table", rows, types_of(database, "any_table"))
            database.execute("DROP TABLE any_table")
