"""Finds reports: in the configured folders, then in `./reports`, then among the built-in ones.

A report's name is its file's, without `.sql`; in a folder below, `folder/name`. Where two have one name the first wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from harborctl.errors import HarborctlError, UsageError
from harborctl.nearest import nearest_or_all
from harborctl.reports.parse import parse_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from harborctl.reports.report import Report

BUILT_IN = "built in"
SUFFIX = ".sql"


@dataclass(frozen=True, slots=True)
class Folder:
    """A place where reports lie. `label` names it to people."""

    label: str
    path: Traversable


@dataclass(frozen=True, slots=True)
class Found:
    """A file that has a report's name; it has not been read yet."""

    name: str
    folder: str
    file: str
    path: Traversable

    def read(self) -> Report:
        """The report.

        Raises:
            UsageError: the file cannot be read, or is no report.
        """
        return replace(_read(self.name, self.file, self.path), built_in=self.folder == BUILT_IN)


def report_folders(configured: tuple[Path, ...]) -> list[Folder]:
    """Every folder to look in, the first one first.

    Raises:
        UsageError: a configured folder is not there.
    """
    for path in configured:
        if not path.is_dir():
            raise UsageError(
                f"there is no folder {path}, which the configuration names for reports",
                code="no_such_folder",
                hint="Create it, or take it out of the configuration file.",
            )
    folders = [Folder(str(path), path) for path in configured]
    here = Path("reports")
    if here.is_dir() and not any(path.samefile(here) for path in configured):
        folders.append(Folder("./reports", here))
    # A folder of data, not a package: it is read through the package that it lies in, also from an installed wheel.
    folders.append(Folder(BUILT_IN, files("harborctl.reports") / "sql"))
    return folders


def found_reports(folders: list[Folder]) -> list[Found]:
    """Every report that can be called by its name, folder by folder."""
    found: dict[str, Found] = {}
    for folder in folders:
        for name, path in sorted(_sql_files(folder.path, "")):
            file = f"{folder.label}/{name}{SUFFIX}"
            found.setdefault(name, Found(name, folder.label, file, path))
    return list(found.values())


def find_report(name: str, folders: list[Folder]) -> Report:
    """The report that `name` stands for: a file if it ends in `.sql`, else the name of one in `folders`.

    Raises:
        UsageError: there is none, or it is none.
    """
    if name.endswith(SUFFIX):
        return _read(name, name, Path(name))
    reports = {report.name: report for report in found_reports(folders)}
    if name not in reports:
        raise UsageError(f"there is no report {name}", code="no_such_report", hint=nearest_or_all(name, reports))
    return reports[name].read()


def _sql_files(folder: Traversable, prefix: str, within: tuple[Path, ...] = ()) -> Iterator[tuple[str, Traversable]]:
    """The reports of a folder and those below it, by name. A link to a folder that it lies in leads nowhere new."""
    if isinstance(folder, Path):
        real = folder.resolve()
        if real in within:
            return
        within = (*within, real)
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        hint = "Make it readable, or move it out of the folder of reports."
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}", code="bad_folder", hint=hint) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _sql_files(entry, f"{prefix}{entry.name}/", within)
        elif entry.name.endswith(SUFFIX):
            yield prefix + entry.name.removesuffix(SUFFIX), entry


def _read(name: str, file: str, path: Traversable) -> Report:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8", code="bad_report", hint="Save it as UTF-8.") from error
    except FileNotFoundError as error:
        hint = "Check the path; `harborctl report` lists the reports that have a name."
        raise UsageError(f"there is no file {file}", code="no_such_report", hint=hint) from error
    except OSError as error:
        hint = "A report is a readable .sql file."
        raise UsageError(f"cannot read {file}: {error.strerror}", code="bad_report", hint=hint) from error
    return parse_report(name, file, text)


def readable_reports(folders: list[Folder]) -> Iterator[tuple[Found, Report | HarborctlError]]:
    """Every report that has a name, and what is wrong with it if it is none."""
    for found in found_reports(folders):
        try:
            yield found, found.read()
        except HarborctlError as error:
            yield found, error
