"""`python -m siteward` is `siteward`."""

from siteward.cli import main

main()
