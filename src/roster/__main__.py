"""Owns `python -m roster`; everything else is in main."""

from roster.main import main

if __name__ == "__main__":
    raise SystemExit(main())
