"""The pool of an engine: how many sessions it keeps and opens, and how long whoever wants one waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from sqlalchemy import Engine, PoolProxiedConnection

    from harborctl.model import PoolOptions

# The server or a pooler says how many there may be.
DEFAULTS = {"pool_size": 5, "max_overflow": -1, "pool_timeout": 30, "pool_recycle": -1}


def settings(*said: PoolOptions) -> dict[str, Any]:
    """What `create_engine` is told about the pool; what is said first counts."""
    chosen: dict[str, Any] = dict(DEFAULTS)
    for options in reversed(said):
        chosen |= {name: value for name, value in asdict(options).items() if value is not None}
    return {**chosen, "poolclass": WatchedPool}


@dataclass(slots=True)
class PoolUse:
    """How a pool was used: checkouts, seconds that they took, and the most sessions at once beyond its size."""

    checkouts: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    overflow: int = 0


class WatchedPool(QueuePool):
    """SQLAlchemy's pool, which also notes how it was used."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.use = PoolUse()
        self._noting = threading.Lock()

    def connect(self) -> PoolProxiedConnection:
        """Take a session, after waiting for one if all are taken."""
        started = time.perf_counter()
        connection = super().connect()
        seconds = time.perf_counter() - started
        with self._noting:
            self.use.checkouts += 1
            self.use.seconds += seconds
            self.use.longest = max(self.use.longest, seconds)
            self.use.overflow = max(self.use.overflow, self.overflow())
        return connection

    @property
    def most(self) -> int | None:
        """How many sessions it gives out at once; None for any number."""
        return None if self._max_overflow < 0 else self.size() + self._max_overflow


def most_sessions(engine: Engine) -> int | None:
    """How many sessions the engine gives out at once; None for any number."""
    return engine.pool.most if isinstance(engine.pool, WatchedPool) else None


def measures(engine: Engine) -> dict[str, tuple[str, float]]:
    """How the pool was used, as `jobs.notify` tells it."""
    if not isinstance(engine.pool, WatchedPool):
        return {}
    use = engine.pool.use
    return {
        "pool_checkouts": ("Sessions that were taken from the pool.", use.checkouts),
        "pool_checkout_seconds": ("How long taking them took, all together.", use.seconds),
        "pool_checkout_longest_seconds": ("How long the slowest took.", use.longest),
        "pool_overflow": ("The most sessions at once beyond --pool-size.", use.overflow),
    }
