"""Owns the start of a reading process: it steps behind the server before anything else is loaded. Reads nothing."""

import os

NICENESS = 10

os.nice(NICENESS)

from roster.sources.reader import main  # noqa: E402  loading is work already

main()
