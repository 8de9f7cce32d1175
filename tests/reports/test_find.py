"""Where reports are found, which one wins, and what is said when there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harborctl.errors import HarborctlError, UsageError
from harborctl.reports.find import BUILT_IN, find_report, found_reports, readable_reports, report_folders


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, sql: str = "SELECT 1") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(sql, encoding="utf-8")
    return file.parent.absolute()


def test_the_built_in_ones_are_reports() -> None:
    reports = dict(readable_reports(report_folders(())))
    assert {found.name for found in reports} >= {"low_stock", "inventory_value", "load_history"}
    for found, report in reports.items():
        assert not isinstance(report, HarborctlError), (found.name, report)
        assert report.description
        assert report.title != report.name
        assert all(parameter.help for parameter in report.parameters)
        # Whoever tries one out need not know its parameters, but for names, which nobody can guess.
        assert not any(p.required and not p.type.is_identifier for p in report.parameters)


def test_configured_folders_then_reports_then_built_in() -> None:
    first = write("first/a.sql", "-- title: configured\nSELECT 1")
    write("reports/a.sql", "-- title: here\nSELECT 1")
    write("reports/low_stock.sql", "-- title: ours\nSELECT 1")
    folders = report_folders((first,))
    assert [folder.label for folder in folders] == [str(first), "./reports", BUILT_IN]
    assert find_report("a", folders).title == "configured"
    assert find_report("low_stock", folders).title == "ours"
    assert find_report("load_history", folders).file == "built in/load_history.sql"
    assert [found.name for found in found_reports(folders)].count("low_stock") == 1


def test_a_configured_reports_folder_is_not_searched_twice() -> None:
    folder = write("reports/a.sql")
    assert [folder.label for folder in report_folders((folder,))] == [str(folder), BUILT_IN]


def test_folders_within_are_part_of_the_name() -> None:
    write("reports/sales/daily.sql")
    write("reports/.hidden/b.sql")
    write("reports/.c.sql")
    write("reports/notes.txt")
    folders = report_folders(())
    assert [found.name for found in found_reports(folders) if found.folder != BUILT_IN] == ["sales/daily"]
    assert find_report("sales/daily", folders).file == "./reports/sales/daily.sql"


def test_a_folder_with_a_link_to_itself() -> None:
    write("reports/sales/daily.sql")
    Path("reports/again").symlink_to("../reports", target_is_directory=True)
    Path("reports/sales/above").symlink_to("..", target_is_directory=True)
    Path("reports/other").symlink_to("sales", target_is_directory=True)
    names = [found.name for found in found_reports(report_folders(())) if found.folder != BUILT_IN]
    assert names == ["other/daily", "sales/daily"]


def test_what_ends_in_sql_is_a_file() -> None:
    write("elsewhere/x.sql", "-- title: X\nSELECT 1")
    assert find_report("elsewhere/x.sql", report_folders(())).title == "X"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("low_stok", "there is no report low_stok", "Did you mean low_stock?"),
        (
            "zzz",
            "there is no report zzz",
            "There is duplicate_keys, inventory_value, load_history, low_stock, most_reserved, oversold,\
 oversold_risk, reservations_aging, stock_ledger, table_sizes.",
        ),
        ("latin.sql", "latin.sql is not UTF-8", "Save it as UTF-8."),
    ],
)
def test_there_is_none(name: str, message: str, hint: str) -> None:
    Path("folder.sql").mkdir()
    Path("latin.sql").write_bytes("SELECT 'é'".encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        find_report(name, report_folders(()))
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_configured_folder_that_is_missing() -> None:
    with pytest.raises(UsageError, match=r"which the configuration names for reports$"):
        report_folders((Path("nowhere"),))


def test_one_bad_report_does_not_hide_the_others() -> None:
    write("reports/bad.sql", "SELECT 1; SELECT 2")
    write("reports/good.sql")
    os.symlink("missing", "reports/dangling.sql")  # noqa: PTH211  # shorter
    read = {found.name: report for found, report in readable_reports(report_folders(())) if found.folder != BUILT_IN}
    assert isinstance(read["bad"], UsageError)
    assert isinstance(read["dangling"], UsageError)
    assert not isinstance(read["good"], HarborctlError)
