"""Tables to load into, and what the tests of loading share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Run
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

Load = Callable[..., dict[str, Any]]


@pytest.fixture(params=["values", "copy"])
def writer(request: pytest.FixtureRequest) -> str:
    """Each of the writers: what a user sees must not depend on it."""
    return str(request.param)


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A plain connection to this test's database, for setting up and for looking."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def load(invoke: Invoke) -> Load:
    """`harborctl load … --json`, which must succeed; returns the summary."""

    def run(*arguments: str | Path, stdin: str | None = None) -> dict[str, Any]:
        result = invoke("load", *arguments, "--json", stdin=stdin)
        assert (result.code, result.stderr) == (0, ""), result
        summary: dict[str, Any] = json.loads(result.stdout)
        return summary

    return run


def failure(result: Run, code: int) -> dict[str, Any]:
    """The `error` of a failed `--json` run, after checking that streams and exit code agree."""
    assert result.code == code, result
    summary: dict[str, Any] = json.loads(result.stdout)
    assert summary["status"] == ("interrupted" if code == 130 else "failed")
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert summary["error"]["message"] in result.stderr
    error: dict[str, Any] = summary["error"]
    return error


def wait_for(database: psycopg.Connection[Any], query: str) -> None:
    """Wait until the query's number is no longer 0."""
    for _ in range(200):
        if database.execute(query).fetchone() != (0,):
            return
        time.sleep(0.05)
    raise AssertionError(query)
