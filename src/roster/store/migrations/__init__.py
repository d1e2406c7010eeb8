"""How our own records came to their shape, step by step; run by store/migration.py only."""
