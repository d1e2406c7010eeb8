"""Owns the start of the command: loads the product; everything else is in main."""

import gc

gc.disable()  # what loading makes stays: to look for garbage in it takes a sixth of the time

from roster.main import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    raise SystemExit(main())
