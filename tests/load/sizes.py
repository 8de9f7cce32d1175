"""How large some tests are: small for every day, larger by environment variables."""

from __future__ import annotations

import os

ROWS = int(os.environ.get("HARBORCTL_TEST_ROWS", "20000"))
ROUNDS = int(os.environ.get("HARBORCTL_TEST_ROUNDS", "3"))
EXAMPLES = int(os.environ.get("HARBORCTL_TEST_EXAMPLES", "25"))
# Examples of the oracle; 0 for the short form.
ORACLE_EXAMPLES = int(os.environ.get("HARBORCTL_TEST_ORACLE_EXAMPLES", "0"))
# Random reports through all formats; 2 000 take minutes.
REPORT_EXAMPLES = int(os.environ.get("HARBORCTL_TEST_REPORT_EXAMPLES", "12"))
# The longest field.
FIELD_BYTES = int(os.environ.get("HARBORCTL_TEST_FIELD_MEGABYTES", "20")) * 10**6
# Of the files whose loads must not take much memory.
MEMORY_MEGABYTES = int(os.environ.get("HARBORCTL_TEST_MEMORY_MEGABYTES", "60"))
# Examples of random CSV through every kind of source; 0 for the short form.
SOURCE_EXAMPLES = int(os.environ.get("HARBORCTL_TEST_SOURCE_EXAMPLES", "0"))
# Damaged files of each kind.
DAMAGE_EXAMPLES = int(os.environ.get("HARBORCTL_TEST_DAMAGE_EXAMPLES", "40"))
# Random tables, each with so many loads, for every encoding; the number of the first one.
TARGETS = int(os.environ.get("HARBORCTL_TEST_TARGET_EXAMPLES", "3"))
LOADS_OF_A_TARGET = 5 if TARGETS > 3 else 3
FIRST_TARGET = int(os.environ.get("HARBORCTL_TEST_FIRST_TARGET", "0"))
# Loads beside another session that writes, for each of four shapes of tables.
CONCURRENT_ROUNDS = int(os.environ.get("HARBORCTL_TEST_CONCURRENT_ROUNDS", "5"))
# Of the files of TPC-H that go in by COPY: a scale of 1 are six million rows.
TPCH_SCALE = os.environ.get("HARBORCTL_TEST_TPCH_SCALE", "0.02")
