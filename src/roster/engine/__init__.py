"""DuckDB behind the Engine port: runs plans, keeps events, profiles and tables."""
