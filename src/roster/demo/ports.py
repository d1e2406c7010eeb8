"""Owns finding a port for the demo. Listens on none."""

from __future__ import annotations

import socket

from roster.base.errors import Code, Error


def free_port(host: str, port: int) -> int:
    """The port, or the next one above it that nobody listens on. Error: BUSY."""
    for candidate in range(port, port + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    raise Error(Code.BUSY, f"no free port from {port} on", hint="set ROSTER_PORT")
