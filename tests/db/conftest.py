"""What only the tests of db/ need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.db.servers import PasswordServer, password_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server_with_passwords() -> Iterator[PasswordServer]:
    """One for all tests; they leave it as it was."""
    with password_server() as server:
        yield server
