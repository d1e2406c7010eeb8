"""From the wire to canonical events, as a literal list of steps. No I/O beyond its log."""
