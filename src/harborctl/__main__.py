"""`python -m harborctl` is `harborctl`."""

from harborctl.cli import main

main()
