"""Syncing: what a sync does step by step, what it counts, and what it says of a source."""
