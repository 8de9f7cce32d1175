"""A database as text, to compare it with itself."""

from __future__ import annotations

import subprocess

from harborctl.embedded.programs import find_programs


def dumped(url: str, *options: str) -> list[str]:
    """What pg_dump writes of it, without the key that is another one each time."""
    program = find_programs().path("pg_dump")
    dump = subprocess.run([program, *options, f"--dbname={url}"], capture_output=True, text=True, check=True)
    return [line for line in dump.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
