"""Roster: product analytics and audiences on your own data, behind Datadog's HTTP API."""

__version__ = "0.1.0"
