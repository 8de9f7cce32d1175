"""Options of `harborctl report`: charts, plans, help, completion, and what a terminal gets."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.main import get_command

from harborctl.cli.app import app
from harborctl.reports.chart import Points, drawn
from tests.conftest import Run
from tests.inprocess import Invoke, invoke
from tests.reports.test_report_cli import SHOP

__all__ = ["invoke"]

BARS = """\
-- title: Cities
SELECT * FROM (VALUES ('東京', 12.5), ('Rome', -4), ('a label that is far too long for the chart it is in', 3),
                      ('zero', 0), (NULL, NULL), ('tiny', 0.01), (E'two\\nlines', 'NaN')) AS v (city, n)
"""
CHART = """\
n by city
東京                                       ███████████████████████████████▉ 12.5
Rome                             ██████████                                   -4
a label that is far too long fo…           ███████▋                            3
zero                                                                           0
NULL                                                                        NULL
tiny                                       ▏                                0.01
two lines                                                                    NaN
"""


def test_bars(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(BARS, encoding="utf-8")
    assert invoke("report", "x.sql", "--chart", "n") == Run(0, CHART, "")
    assert invoke("report", "x.sql", "--chart", "n", "--by", "city", "-o", "c.txt", "-q") == Run(0, "", "")
    assert (tmp_path / "c.txt").read_text(encoding="utf-8") == CHART


def test_a_line_over_dates(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text(
        "SELECT DATE '2026-01-01' + i AS day, i * i AS n FROM generate_series(40, 0, -1) AS i"
    )
    done = invoke("report", "x.sql", "--chart", "n")
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "n by day"
    assert lines[1].startswith("1600 ┤")
    assert lines[12].startswith("   0 ┤")
    assert lines[13] == "     └" + "─" * 74
    assert lines[14].split() == ["2026-01-01", "2026-01-21", "2026-02-10"]
    assert max(map(len, lines)) == 80
    # Dots rise from the lower left to the upper right.
    first_dots = [min((i for i, c in enumerate(line) if "\u2800" < c <= "\u28ff"), default=99) for line in lines[1:13]]
    assert first_dots == sorted(first_dots, reverse=True)


def test_a_chart_ends_somewhere() -> None:
    points = Points("n", over_time=False)
    for number in range(300):
        points.add(str(number), "1")
    lines = list(drawn(points, 40))
    assert len(lines) == 202
    assert lines[-1] == "(100 more rows are not drawn)\n"
    assert list(drawn(Points("n", over_time=True), 40)) == ["n\n", "(0 rows)\n"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "city"], "--by says what a chart's values are called"),
        (["--format", "svg"], "svg is a picture"),
        (["--chart", "n", "--format", "csv"], "there are no charts in csv"),
        (["--chart", "n", "--explain"], "--chart and --explain contradict each other"),
        (["--explain", "--format", "csv"], "a plan is text or JSON"),
    ],
)
def test_options_that_contradict_each_other(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("HARBORCTL_URL", "postgresql://nobody@127.0.0.1:1/none")
    (tmp_path / "x.sql").write_text("SELECT 1 AS n")
    done = invoke("report", "x.sql", *arguments)
    assert (done.code, done.stdout, done.stderr.splitlines()[0]) == (2, "", f"error: {message}")


def test_the_plan(invoke: Invoke) -> None:
    done = invoke("report", "low_stock", "--explain", "-p", "threshold=7")
    assert (done.code, done.stderr) == (0, "")
    assert "actual time=" in done.stdout
    assert "< 7)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Execution Time: ")
    done = invoke("report", "low_stock", "--explain", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["Plan"]["Node Type"]


def test_the_plan_of_what_writes(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("SELECT nextval('harbor.products_id_seq')")
    done = invoke("report", "x.sql", "--explain")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot execute nextval() in a read-only transaction\n")


def test_help_of_one_report(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBORCTL_URL", "postgresql://nobody@127.0.0.1:1/none")
    for option in ("--help", "-h"):
        assert invoke("report", "oversold_risk", option) == Run(
            0,
            """\
Usage: harborctl report oversold_risk [-p percent=NUMERIC] [-p days=INTEGER] [OPTIONS]

Variants that may be sold twice
Variants of which nearly all, or more than there is, is promised to orders, worst first.

Parameters, each as -p name=value:
  percent numeric  List a variant from this share of its stock on [default 80; at least 0]
  days integer     Days from which to tell how fast it goes [default 14; between 1 and 366]

From built in/oversold_risk.sql. `harborctl report --help` has the options of every report.
""",
            "",
        )
    done = invoke("report", "oversold_risc", "--help")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "error: there is no report oversold_risc\nhint: Did you mean oversold_risk?\n"


def test_help_of_all_reports(invoke: Invoke) -> None:
    done = invoke("report", "--help")
    assert (done.code, done.stderr) == (0, "")
    for word in ("--chart", "--explain", "--wide", "--param", "Examples"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("harborctl report l", ["load_history", "low_stock"]),
        ("harborctl report s", ["show", "stock_ledger"]),
        ("harborctl report show inv", ["inventory_value"]),
        ("harborctl report low_stock -p ", ["threshold="]),
        ("harborctl report --format csv most_reserved -p days=3 -p ", ["top="]),
        ("harborctl report nothing -p ", []),
    ],
)
def test_completion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, completions: list[str]
) -> None:
    monkeypatch.setenv("_HARBORCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit) as ended:
        get_command(app)([], prog_name="harborctl")
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert (out.split(), err) == (completions, "")


# On a terminal.


def on_a_terminal(url: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and what stands on the screen, of a process of its own with a terminal of its own."""
    child, screen = pty.fork()
    if child == 0:
        os.environ.update({"HARBORCTL_URL": url, "TERM": "xterm", "COLUMNS": "80", **environment})
        os.execv(sys.executable, [sys.executable, "-m", "harborctl", *arguments])  # noqa: S606  # our own program
    shown = []
    while True:
        try:
            data = os.read(screen, 4096)
        except OSError:  # the child has closed its end
            break
        if not data:
            break
        shown.append(data)
    _, status = os.waitpid(child, 0)
    os.close(screen)
    return os.waitstatus_to_exitcode(status), b"".join(shown).decode().replace("\r\n", "\n")


def test_a_terminal_gets_a_pager(engine: Engine, database_url: str, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(SHOP)
    code, shown = on_a_terminal(database_url, "report", "low_stock", "--format", "csv", PAGER="sed s/^/paged:/")
    assert (code, shown.splitlines()[0]) == (0, "paged:product,sku,color,size,in_stock,reserved,free")
    code, shown = on_a_terminal(database_url, "report", "low_stock", "--format", "csv", PAGER="cat")
    assert (code, shown.splitlines()[0]) == (0, "product,sku,color,size,in_stock,reserved,free")
    # A user who quits at once.
    (tmp_path / "x.sql").write_text("SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    code, shown = on_a_terminal(database_url, "report", str(tmp_path / "x.sql"), "--format", "csv", PAGER="head -n 1")
    assert (code, shown) == (0, "repeat\n")
    code, shown = on_a_terminal(database_url, "report", "low_stock", "--format", "parquet")
    assert (code, shown.splitlines()[0]) == (2, "error: parquet is not for a terminal")


def test_wide_lines_are_not_folded(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.sql").write_text("SELECT repeat('x', 200) AS a")
    monkeypatch.setenv("COLUMNS", "80")
    assert "x" * 200 not in invoke("report", "x.sql").stdout
    assert "x" * 200 in invoke("report", "x.sql", "--wide").stdout
