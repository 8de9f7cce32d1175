"""What a text file is written in, told from its start, as the options that say the same."""

from __future__ import annotations

import gzip
import shlex
from pathlib import Path

import pytest

from harborctl.model import CsvDialect
from harborctl.sources.detect import detect
from harborctl.sources.files import find_files

GERMAN = "Name;Betrag;Datum\nMüller;1,50;03.04.2026\nGroß;-20,25;13.04.2026\n"
PLAIN = "id,name\n1,Ann\n2,Bob\n"

CASES: list[tuple[str, bytes, str]] = [
    ("plain", PLAIN.encode(), ""),
    ("semicolons and commas", GERMAN.encode(), "--delimiter ';' --decimal ,"),
    ("Excel in German", GERMAN.encode("cp1252"), "--delimiter ';' --encoding cp1252 --decimal ,"),
    ("tabs", PLAIN.replace(",", "\t").encode(), "--delimiter tab"),
    ("bars", PLAIN.replace(",", "|").encode(), "--delimiter '|'"),
    ("a mark", b"\xef\xbb\xbf" + PLAIN.encode(), ""),
    ("UTF-16", PLAIN.encode("utf-16"), "--encoding utf-16"),
    ("UTF-16 without a mark", PLAIN.encode("utf-16-be"), "--encoding utf-16-be"),
    ("UTF-16 little, without a mark", PLAIN.encode("utf-16-le"), "--encoding utf-16-le"),
    ("no header", b"1,Ann\n2,Bob\n", "--no-header"),
    ("no header, words alone", b"red,red\nblue,blue\n", "--no-header"),
    ("words alone", b"color,shade\nblue,dark\n", ""),
    ("what stands before", b"Export of today\n\n" + PLAIN.encode(), "--skip-lines 2"),
    ("single quotes", b"id,name\n'1','Ann, B'\n'2','Bob'\n", '--quote "\'"'),
    ("commas in quotes", b'id;name\n1;"a,b,c"\n2;"d,e,f"\n', "--delimiter ';'"),
    ("times of day", b"at,v\n10:00:00,1\n11:00:00,2\n", ""),
    ("one column", b"name\nAnn\nBob\n", ""),
    ("nothing", b"", ""),
    ("spaces between numbers", b"a b\n1 2.5\n3 4.5\n", "--delimiter ' '"),
    ("spaces between words", b"name\nAnn Smith\nBob Jones\n", ""),
    ("what Excel is told", b"sep=;\r\nid;name\r\n1;Ann\r\n", "--delimiter ';' --skip-lines 1"),
    ("a line end in quotes", b'id;text\n1;"a\nb"\n2;c\n', "--delimiter ';'"),
]


@pytest.mark.parametrize(("content", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_options_that_say_what_is_there(tmp_path: Path, content: bytes, options: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    [file] = find_files([str(path)], None)
    found = detect(file, CsvDialect())
    assert shlex.split(options) == list(found.options)
    assert detect(file, found.dialect).dialect == found.dialect


def test_what_was_said_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "f.csv.gz"
    path.write_bytes(gzip.compress(GERMAN.encode("cp1252")))
    [file] = find_files([str(path)], None)
    found = detect(file, CsvDialect(delimiter=";", encoding="latin-1", decimal="."))
    assert found.options == ("--decimal", ",")
    assert found.dialect.encoding == "latin-1"
    assert str(detect(file, found.dialect)) == "COPY's CSV with a header, in UTF-8"
