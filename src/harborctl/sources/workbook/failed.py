"""Cells of an Excel sheet whose formula failed: calamine hands them on as empty, and nothing may be lost unsaid.

Source: ECMA-376, part 1, 18.3.1.4 (`c`, of type `e`).
"""

from __future__ import annotations

import re
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from harborctl.sources.workbook.cells import column_number

if TYPE_CHECKING:
    from collections.abc import Mapping

_RELATIONS = "{http://schemas.openxmlformats.org/package/2006/relationships}"
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_FAILED = re.compile(
    rb"<c\b(?=[^>]*\bt=\"e\")[^>]*\br=\"([A-Z]+)([0-9]+)\"[^>]*>(?:<f\b[^>]*/>|<f\b[^>]*>[^<]*</f>)?<v>([^<]*)</v>"
)


def failed_cells(content: bytes, sheet: str) -> Mapping[int, Mapping[int, str]]:
    """0-based row → 0-based column → what Excel shows there, such as `#DIV/0!`. Empty for OpenDocument."""
    found: dict[int, dict[int, str]] = {}
    with zipfile.ZipFile(BytesIO(content)) as parts:
        path = _part_of(parts, sheet)
        if path is not None:
            for letters, row, text in _FAILED.findall(parts.read(path)):
                found.setdefault(int(row) - 1, {})[column_number(letters.decode())] = text.decode()
    return found


def _part_of(parts: zipfile.ZipFile, sheet: str) -> str | None:
    """The path of the part that holds this sheet."""
    names = set(parts.namelist())
    if not {"xl/workbook.xml", "xl/_rels/workbook.xml.rels"} <= names:
        return None
    relation = next((each.get(_ID) for each in _tree(parts, "xl/workbook.xml").iter() if _is_sheet(each, sheet)), None)
    relations = _tree(parts, "xl/_rels/workbook.xml.rels").iter(f"{_RELATIONS}Relationship")
    target = next((each.get("Target", "") for each in relations if each.get("Id") == relation), "")
    path = target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    return path if path in names else None


def _tree(parts: zipfile.ZipFile, path: str) -> ET.Element:
    return ET.fromstring(parts.read(path))  # noqa: S314  # expat limits what entities become


def _is_sheet(element: ET.Element, name: str) -> bool:
    return element.tag.endswith("}sheet") and element.get("name") == name
