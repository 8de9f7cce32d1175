"""How large the tests of concurrency and of the model are: small for every day, larger by environment variables."""

from __future__ import annotations

import os

ROWS = int(os.environ.get("HARBORCTL_TEST_ROWS", "20000"))
ROUNDS = int(os.environ.get("HARBORCTL_TEST_ROUNDS", "3"))
EXAMPLES = int(os.environ.get("HARBORCTL_TEST_EXAMPLES", "40"))
