"""Errors, values and time: knows nothing of the product."""
