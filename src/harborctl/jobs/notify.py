"""Whom a command tells how it went, besides its caller: a file of metrics, and an URL that watches over it."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harborctl.errors import ExitCode, UsageError, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harborctl.model import LoadResult

    Warn = Callable[[str], None]

# Seconds. Nobody's load waits for a watcher that is down.
PING_TIMEOUT = 5.0
ROWS = ("inserted", "updated", "unchanged", "deleted", "skipped", "stale", "duplicates", "rejected")


@dataclass(slots=True)
class Outcome:
    """What there is to tell: the loads so far, and with what the command will exit.

    Attributes:
        measures: what else was counted, by the name of its gauge: what it is, and how much.
    """

    name: str
    loads: list[LoadResult] = field(default_factory=list)
    measures: dict[str, tuple[str, float]] = field(default_factory=dict)
    code: ExitCode = ExitCode.OK

    def add(self, result: LoadResult) -> None:
        """One more load has ended."""
        self.loads.append(result)


@dataclass(frozen=True, slots=True)
class Watchers:
    """Whom to tell: an URL, a file of metrics, both or nobody."""

    ping: str | None = None
    metrics: Path | None = None


@contextmanager
def told(watchers: Watchers, name: str, warn: Warn) -> Iterator[Outcome]:
    """Whoever wants to know is told of the begin and the end of this block; what fails there only warns.

    The block sets the code, unless an error leaves it. What comes after the work has been done changes nothing about
    its code, nor does Ctrl-C there.

    Raises:
        UsageError: the URL is none, or prometheus_client is not installed.
    """
    ping, metrics = watchers.ping, watchers.metrics
    if ping is not None and not _is_url(ping):
        raise UsageError("--ping takes an URL that starts with http:// or https://, and has a host")
    if metrics is not None:
        _require_prometheus()
    outcome, start = Outcome(name), time.monotonic()
    _call(ping, "/start", warn)
    try:
        yield outcome
    except BaseException as error:  # Ctrl-C has a code, too
        outcome.code = exit_code_of(error)
        raise
    finally:
        try:
            if metrics is not None:
                _write(metrics, outcome, time.monotonic() - start, warn)
            _call(ping, "" if outcome.code in {ExitCode.OK, ExitCode.REJECTS} else "/fail", warn)
        except KeyboardInterrupt:
            warn("warning: interrupted while others were told how it went")


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _call(url: str | None, what: str, warn: Warn) -> None:
    if url is None:
        return
    address, question, query = url.partition("?")
    answers: list[object] = []
    # The limit of `urlopen` is one for each byte; this is one for the whole call.
    caller = threading.Thread(
        target=lambda: answers.append(_answer(address.rstrip("/") + what + question + query)), daemon=True
    )
    caller.start()
    caller.join(PING_TIMEOUT)
    failure = answers[0] if answers else f"no answer within {PING_TIMEOUT:g} s"
    if failure is not None:
        warn(f"warning: --ping {what or 'success'} failed: {failure}")


def _answer(address: str) -> object:
    """Call an address. Returns what went wrong."""
    from urllib.parse import unquote, urlsplit
    from urllib.request import Request, urlopen

    parts = urlsplit(address)
    login, at, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host).geturl())  # noqa: S310  # http(s) only
    if at:  # not for whoever it is passed on to
        secret = b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    try:
        with urlopen(request, timeout=PING_TIMEOUT):  # noqa: S310  # likewise
            return None
    except Exception as error:  # noqa: BLE001  # whatever a server that is none answers
        return getattr(error, "reason", error) or repr(error)


def _require_prometheus() -> None:
    try:
        import prometheus_client  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise UsageError(
            "--metrics-file needs prometheus_client", code="not_installed", hint="pip install 'harborctl[metrics]'"
        ) from error


def _write(path: Path, outcome: Outcome, seconds: float, warn: Warn) -> None:
    """The file appears whole, or stays as it was."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    job = outcome.name

    def gauge(name: str, text: str, value: float, **labels: str) -> None:
        known = gauges.get(name) or Gauge(f"harborctl_{name}", text, ["job", *labels], registry=registry)
        gauges[name] = known
        known.labels(job=job, **labels).set(value)

    gauges: dict[str, Gauge] = {}
    now = time.time()
    succeeded = outcome.code in {ExitCode.OK, ExitCode.REJECTS}
    last = now if succeeded else _last_success(path, job)
    gauge("last_run_timestamp_seconds", "When the last run ended.", now)
    if last is not None:
        gauge("last_success_timestamp_seconds", "When the last run that did not fail ended.", last)
    gauge("exit_code", "With what the last run ended.", outcome.code)
    gauge("seconds", "How long the last run took.", seconds)
    sums: dict[tuple[str, str], int] = {}
    for load in outcome.loads:
        for kind in ROWS:
            key = (load.table, kind)
            sums[key] = sums.get(key, 0) + getattr(load, kind)
    for (table, kind), rows in sums.items():
        gauge("rows", "What became of the rows that the last run read.", rows, table=table, outcome=kind)
    for measure, (text, value) in outcome.measures.items():
        gauge(measure, text, value)
    try:
        write_to_textfile(str(path), registry)
    except (OSError, ValueError) as error:
        warn(f"warning: --metrics-file {path} cannot be written: {getattr(error, 'strerror', error)}")


def _last_success(path: Path, job: str) -> float | None:
    """What the file said before."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    samples = [sample for family in families for sample in family.samples]
    wanted = "harborctl_last_success_timestamp_seconds"
    return next((s.value for s in samples if s.name == wanted and s.labels.get("job") == job), None)
