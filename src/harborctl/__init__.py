"""harborctl loads files into PostgreSQL, fast and safely. `harborctl.load`, `query` and others are its commands."""

# A package, bound to its name before a function takes that: who imports from the package finds it all the same.
import harborctl.load as _package
from harborctl.api import HarborctlError, LoadResult, count, history, load, query, report
from harborctl.version import __version__

__all__ = ["HarborctlError", "LoadResult", "__version__", "count", "history", "load", "query", "report"]
del _package
