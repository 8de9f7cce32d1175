"""Starts the engines once for all tests of this folder; without them its tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.servers import Engines, started

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = os.environ.get("HARBORCTL_TEST_ENGINES")


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The servers of HARBORCTL_TEST_ENGINES."""
    if PROGRAMS is None:
        pytest.skip("HARBORCTL_TEST_ENGINES does not name PostgreSQL's programs: see tests/engines/README.md")
    with started(Path(PROGRAMS)) as found:
        yield found
